// One element, step by step.
#include "harness/audit/explain.hpp"

#include <fmt/core.h>

#include <cmath>

#include "harness/metrics/grid.hpp"
#include "impls/emulate/emulate.hpp"
#include "reference/exact/decide.hpp"
#include "reference/exact/program_truth.hpp"

namespace norma {

namespace {

std::string value_text(double value) { return fmt::format("{:.9g} ({:a})", value, value); }

/// The output's enclosures on one row: as erased, then with one more step emulated at a time.
struct Telescope {
  std::vector<int> nodes;                        ///< the steps, in order
  std::vector<std::vector<Enclosure>> outputs;   ///< nodes.size() + 1 rows of enclosures
  RowTrace trace;
};

Telescope telescope(const RowEvaluator& evaluator, const Contract& contract, const Tensors& tensors,
                    const Attributes& attributes, Operand output, std::int64_t row) {
  Telescope result;
  result.trace = trace_row(contract.program, tensors, attributes, row);
  Overrides overrides;
  result.outputs.push_back(evaluator.enclose(output, row));
  for (std::size_t i = 0; i < contract.program.nodes.size(); ++i) {
    const Node& node = contract.program.nodes[i];
    if (node.kind != NodeKind::map && node.kind != NodeKind::reduce) continue;
    auto& values = overrides[static_cast<int>(i)];
    for (const auto& port : result.trace.values[i]) values.insert(values.end(), port.begin(), port.end());
    result.nodes.push_back(static_cast<int>(i));
    result.outputs.push_back(rounds(contract.program, static_cast<int>(i)) ? evaluator.enclose(output, row, overrides)
                                                                           : result.outputs.back());
  }
  return result;
}

std::string enclosure_text(const Enclosure& e) {
  // Twenty digits of hi + lo: the long decimal of hi, corrected by lo, is what dd arithmetic would print.
  return e.lo == 0 ? fmt::format("{:.17g}", e.hi) : fmt::format("{:.17g} {:+.3g}", e.hi, e.lo);
}

/// Where element (row, col) of an output, seen as the truth sees it, stands in the program.
Layout::Place place_in_program(const RowEvaluator& evaluator, Operand output, std::int64_t row, std::int64_t col,
                               std::int64_t cols) {
  if (evaluator.axes(output) != kRowsCols) return {.row = row, .col = col};
  return evaluator.layout().place_of(row * cols + col);
}

double unit_of(Session& session, const Case& expanded, const std::string& output, FormatId format, std::int64_t row,
               std::int64_t col, Enclosure& truth_out) {
  const auto truth = session.truth(expanded, output);
  truth_out = truth->enclose(row, col);
  const auto e = binade({*truth, row, col, truth_out}, format);
  if (!e) throw std::invalid_argument(fmt::format("the truth at [{},{}] is not a finite number", row, col));
  return ulp_of(format, *e);
}

}  // namespace

Explanation explain(Session& session, const Case& expanded, const Contract& contract, const std::string& output,
                    std::int64_t row, std::int64_t col) {
  const auto inputs = session.inputs(expanded);
  const Attributes attributes = attributes_of(expanded).numbers;
  const ProgramOutput* found = contract.program.find_output(output);
  if (found == nullptr) throw std::invalid_argument(fmt::format("the path has no output '{}'", output));
  const Program erased = erase_roundings(contract.program);
  const RowEvaluator evaluator(erased, inputs->tensors, attributes);
  const Layout::Place place = place_in_program(evaluator, found->value, row, col, session.truth(expanded, output)->cols());
  const Telescope t = telescope(evaluator, contract, inputs->tensors, attributes, found->value, place.row);
  const FormatId format = contract.program.nodes[static_cast<std::size_t>(found->value.node)].rounding.format->id;
  Enclosure truth;
  const double unit = unit_of(session, expanded, output, format, row, col, truth);
  const auto c = static_cast<std::size_t>(place.col);
  Explanation result;
  result.truth = enclosure_text(truth);
  const Enclosure& erasure = t.outputs.front()[c];
  const Enclosure& ideal = t.outputs.back()[c];
  result.ideal = value_text(ideal.hi + ideal.lo);
  const std::int64_t definition = contract.canonical ? 0 : scaled_difference(erasure, truth, unit);
  const std::int64_t path = scaled_difference(ideal, erasure, unit);
  result.definition_ulp = ulps(definition);
  result.path_ulp = ulps(path);
  result.total_ulp = ulps(definition + path);
  std::int64_t before = 0;
  for (std::size_t k = 0; k < t.nodes.size(); ++k) {
    const int index = t.nodes[k];
    const std::int64_t after = scaled_difference(t.outputs[k + 1][c], erasure, unit);
    ExplainStep step;
    step.node = index;
    step.name = contract.program.nodes[static_cast<std::size_t>(index)].names[0];
    step.text = print_step(contract.program, index);
    step.rounds = rounds(contract.program, index);
    const auto exact = evaluator.enclose({index, 0}, place.row);
    step.exact = enclosure_text(exact[exact.size() == 1 ? 0 : c]);
    const auto& emulated = t.trace.values[static_cast<std::size_t>(index)][0];
    step.rounded = value_text(emulated[emulated.size() == 1 ? 0 : c]);
    step.share_ulp = ulps(after - before);
    before = after;
    result.steps.push_back(std::move(step));
  }
  return result;
}

std::vector<double> step_budget(Session& session, const Case& expanded, const Contract& contract,
                                const std::string& output, const std::vector<std::int64_t>& rows) {
  const auto inputs = session.inputs(expanded);
  const Attributes attributes = attributes_of(expanded).numbers;
  const ProgramOutput* found = contract.program.find_output(output);
  std::vector<double> budget(contract.program.nodes.size(), 0.0);
  if (found == nullptr) return budget;
  const Program erased = erase_roundings(contract.program);
  const RowEvaluator evaluator(erased, inputs->tensors, attributes);
  const FormatId format = contract.program.nodes[static_cast<std::size_t>(found->value.node)].rounding.format->id;
  const auto truth = session.truth(expanded, output);
  std::vector<Enclosure> enclosures(static_cast<std::size_t>(truth->cols()));
  std::vector<GridSum> sums(budget.size());
  for (const std::int64_t row : rows) {
    truth->enclose_row(row, enclosures);
    const auto in_program = [&](std::int64_t col) { return place_in_program(evaluator, found->value, row, col, truth->cols()); };
    const Telescope t = telescope(evaluator, contract, inputs->tensors, attributes, found->value, in_program(0).row);
    for (std::size_t j = 0; j < enclosures.size(); ++j) {
      const auto e = binade({*truth, row, static_cast<std::int64_t>(j), enclosures[j]}, format);
      if (!e) continue;
      const auto c = static_cast<std::size_t>(in_program(static_cast<std::int64_t>(j)).col);
      const double unit = ulp_of(format, *e);
      for (std::size_t k = 0; k < t.nodes.size(); ++k) {
        const Enclosure& after = t.outputs[k + 1][c];
        const Enclosure& before = t.outputs[k][c];
        if (!std::isfinite(after.hi) || !std::isfinite(before.hi)) continue;
        sums[static_cast<std::size_t>(t.nodes[k])].add(scaled_difference(after, before, unit));
      }
    }
  }
  for (std::size_t i = 0; i < budget.size(); ++i)
    if (sums[i].count > 0) budget[i] = sums[i].rms() * sums[i].rms();
  return budget;
}

}  // namespace norma

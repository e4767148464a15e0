// One element, step by step.
#include "harness/audit/explain.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "harness/metrics/grid.hpp"
#include "impls/emulate/emulate.hpp"
#include "reference/exact/decide.hpp"
#include "reference/exact/program_truth.hpp"

namespace norma {

namespace {

constexpr std::size_t kRowsApart = 8;  // each costs an emulation of the stages before

std::string value_text(double value) { return fmt::format("{:.9g} ({:a})", value, value); }

/// The stage that gives an output, with everything that evaluates it.
struct Explained {
  std::size_t index = 0;
  const Program* stage = nullptr;  ///< null: there is no such output
  Operand value;
};

Explained explained(const Program& program, const std::string& output) {
  const std::vector<const Program*> stages = stages_of(program);
  for (std::size_t i = 0; i < stages.size(); ++i)
    if (stages[i] == stage_of(program, output))
      return {.index = i, .stage = stages[i], .value = stages[i]->find_output(output)->value};
  return {};
}

FormatId format_of_output(const Explained& e) {
  return e.stage->nodes[static_cast<std::size_t>(e.value.node)].rounding.format->id;
}

/// The output's enclosures on one row: as erased, then with one more step emulated at a time. What an earlier stage
/// passes is a step: its roundings come in one.
struct Telescope {
  std::vector<int> nodes;                        ///< the steps, in order
  std::vector<std::vector<Enclosure>> outputs;   ///< nodes.size() + 1 rows of enclosures
  RowTrace trace;
};

Telescope telescope(const RowEvaluator& evaluator, const Contract& contract, const Explained& explained,
                    const Tensors& tensors, const Attributes& attributes, std::int64_t row) {
  const Operand output = explained.value;
  Telescope result;
  result.trace = trace_row(contract.program, tensors, attributes, row, {}, explained.index);
  Overrides overrides;
  result.outputs.push_back(evaluator.enclose(output, row));
  for (std::size_t i = 0; i < explained.stage->nodes.size(); ++i) {
    const Node& node = explained.stage->nodes[i];
    const bool passed = evaluator.is_passed(static_cast<int>(i));
    if (node.kind != NodeKind::map && node.kind != NodeKind::reduce && !passed) continue;
    auto& values = overrides[static_cast<int>(i)];
    for (const auto& port : result.trace.values[i]) values.insert(values.end(), port.begin(), port.end());
    result.nodes.push_back(static_cast<int>(i));
    result.outputs.push_back(passed || rounds(*explained.stage, static_cast<int>(i))
                                 ? evaluator.enclose(output, row, overrides)
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
  return evaluator.place_of(output, row * cols + col);
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
  const Explained found = explained(contract.program, output);
  if (found.stage == nullptr) throw std::invalid_argument(fmt::format("the path has no output '{}'", output));
  const Program erased = erase_roundings(contract.program);
  const RowEvaluator evaluator(erased, inputs->tensors, attributes, found.index);
  const Layout::Place place = place_in_program(evaluator, found.value, row, col, session.truth(expanded, output)->cols());
  const Telescope t = telescope(evaluator, contract, found, inputs->tensors, attributes, place.row);
  const FormatId format = format_of_output(found);
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
    step.name = found.stage->nodes[static_cast<std::size_t>(index)].names[0];
    step.text = print_step(*found.stage, index);
    step.rounds = evaluator.is_passed(index) || rounds(*found.stage, index);
    if (const auto from = source_of(contract.program, found.index, step.name); from && evaluator.is_passed(index))
      step.text += fmt::format(", of stage {}", *from + 1);
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
  const Explained found = explained(contract.program, output);
  if (found.stage == nullptr) return {};
  std::vector<double> budget(found.stage->nodes.size(), 0.0);
  const Program erased = erase_roundings(contract.program);
  const RowEvaluator evaluator(erased, inputs->tensors, attributes, found.index);
  const FormatId format = format_of_output(found);
  const auto truth = session.truth(expanded, output);
  std::vector<Enclosure> enclosures(static_cast<std::size_t>(truth->cols()));
  std::vector<GridSum> sums(budget.size());
  for (const std::int64_t row : rows) {
    truth->enclose_row(row, enclosures);
    const auto in_program = [&](std::int64_t col) {
      return place_in_program(evaluator, found.value, row, col, truth->cols());
    };
    // Where the row's elements lie in rows of their own, some stand for all.
    const bool apart = enclosures.size() > 1 && in_program(0).row != in_program(1).row;
    const std::size_t stride = apart ? std::max<std::size_t>(1, enclosures.size() / kRowsApart) : 1;
    std::int64_t held = in_program(0).row;
    Telescope t = telescope(evaluator, contract, found, inputs->tensors, attributes, held);
    for (std::size_t j = 0; j < enclosures.size(); j += stride) {
      if (const std::int64_t now = in_program(static_cast<std::int64_t>(j)).row; now != held) {
        t = telescope(evaluator, contract, found, inputs->tensors, attributes, now);
        held = now;
      }
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

// What an output is held to, and the measuring.
#include "harness/run/contract.hpp"

#include <fmt/core.h>

#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/choices.hpp"
#include "impls/emulate/emulate.hpp"

namespace norma {

namespace {

Overflow overflow_of(const std::optional<Contract>& contract, const std::string& output, Overflow otherwise) {
  if (!contract) return otherwise;
  const Program* stage = stage_of(contract->program, output);
  if (stage == nullptr) return otherwise;
  return stage->nodes[static_cast<std::size_t>(stage->find_output(output)->value.node)].rounding.overflow;
}

std::vector<Tensor> ideals_named(const std::vector<Tensors>& ideals, const std::string& output) {
  std::vector<Tensor> named;
  for (const Tensors& ideal : ideals)
    if (const auto found = ideal.find(output); found != ideal.end()) named.push_back(found->second);
  return named;
}

/// Where choices are made element by element: the one ideal that `got` is held against (decision 0015).
void choose_by_element(ChoiceKind kind, const std::optional<OutputRange>& range, const std::string& output,
                       const Tensor& got, std::vector<Tensor>& ideals) {
  const bool fits = ideals.front().format == got.format && ideals.front().size() == got.size();
  if ((kind != ChoiceKind::element && kind != ChoiceKind::range) || !fits) return;
  if (range) ideals = {ideals.front(), range->low.at(output), range->high.at(output)};
  ideals = {held_against(kind, ideals, got)};
}

std::vector<double> scales_of(const Tensors& got, const Tensors& inputs) {
  auto found = got.find("scale");
  if (found == got.end()) {
    found = inputs.find("scale");
    if (found == inputs.end()) return {};
  }
  std::vector<double> scales;
  for (std::int64_t i = 0; i < found->second.size(); ++i) scales.push_back(found->second.value(i));
  return scales;
}

/// A truth in other rows of the same elements: a program has one row for each value of a column, a norm may have one
/// row of them.
class Reshaped final : public TruthSource {
 public:
  Reshaped(std::shared_ptr<const TruthSource> of, std::int64_t rows, std::int64_t cols)
      : of_(std::move(of)), rows_(rows), cols_(cols) {}
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::int64_t j = 0; j < cols_; ++j) out[static_cast<std::size_t>(j)] = enclose(row, j);
  }
  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    const std::int64_t at = row * cols_ + col;
    return of_->enclose(at / of_->cols(), at % of_->cols());
  }
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    const std::int64_t at = row * cols_ + col;
    return of_->compare(at / of_->cols(), at % of_->cols(), m_hi, m_lo);
  }

 private:
  std::shared_ptr<const TruthSource> of_;
  std::int64_t rows_, cols_;
};

std::shared_ptr<const TruthSource> in_rows_of(const TruthSource& truth, std::shared_ptr<const TruthSource> other) {
  if (other == nullptr || other->cols() == truth.cols() || other->rows() * other->cols() != truth.rows() * truth.cols())
    return other;
  return std::make_shared<Reshaped>(std::move(other), truth.rows(), truth.cols());
}

}  // namespace

Contract contract_from_catalogue(std::string_view name, const Binding& binding) {
  const CastPath* path = find_cast_path(name);
  if (path == nullptr)
    throw ProgramError(fmt::format("unknown path '{}'; 'norma list paths' prints the known ones", name));
  return {.program = build_path(*path, binding),
          .path = std::string(name),
          .profile = std::string(profile_of(*path, binding).name),
          .canonical = path->gaps.empty(),
          .named = true};
}

std::vector<Tensors> ideals_of(const Contract& contract, const Tensors& tensors, const Attributes& attributes,
                               int threads) {
  std::vector<Tensors> ideals{emulate(contract.program, tensors, attributes, {.nudge_ulp = 0, .threads = threads})};
  if (choice_kind(contract.program) == ChoiceKind::range) return ideals;
  const int choice = choice_ulp(contract.program);
  for (int k = 1; k <= choice; ++k)
    for (const int nudge : {k, -k})
      ideals.push_back(emulate(contract.program, tensors, attributes, {.nudge_ulp = nudge, .threads = threads}));
  return ideals;
}

std::vector<NamedMeasures> measure_outputs(const Truths& truths, const NormCall& call,
                                           const std::optional<Contract>& contract, const std::vector<Tensors>& ideals,
                                           const Tensors& got, const OutputOptions& options) {
  const MeasureOptions measuring{.threads = options.threads,
                                 .choice_ulp = contract ? choice_ulp(contract->program) : 0,
                                 .got_is_ideal = options.got_is_ideal};
  const auto quant = call.words.find("quant");
  const bool quantized = quant != call.words.end() && quant->second != "none";
  std::vector<std::string> names;
  for (const auto& [name, tensor] : got) names.insert(name == "y" || name == "dx" ? names.begin() : names.end(), name);
  const ChoiceKind kind =
      contract && !ideals.empty() && !options.got_is_ideal ? choice_kind(contract->program) : ChoiceKind::none;
  std::optional<OutputRange> range;
  if (kind == ChoiceKind::range) range = emulate_range(contract->program, *call.inputs, call.numbers);
  std::vector<NamedMeasures> outputs;
  for (const std::string& name : names) {
    const auto truth = truths.canonical(name);
    // An erasure declared canonical is the truth itself.
    const bool own_meaning = contract && !contract->canonical && stage_of(contract->program, name) != nullptr;
    const auto erasure = own_meaning ? in_rows_of(*truth, truths.erasure(name)) : nullptr;
    std::vector<Tensor> ideal = ideals_named(ideals, name);
    if (!ideal.empty()) choose_by_element(kind, range, name, got.at(name), ideal);
    const Overflow overflow = overflow_of(contract, name, options.overflow);
    outputs.push_back({name, measure(*truth, erasure.get(), ideal, got.at(name), overflow, measuring)});
    if (name == "y" && quantized)
      outputs.push_back(
          {"dequantized", measure_dequantized(*truths.canonical("dequantized"), nullptr, ideal, got.at(name),
                                              scales_of(got, *call.inputs), overflow, measuring)});
  }
  return outputs;
}

}  // namespace norma

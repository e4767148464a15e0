// Softmax: certified tiers, and its formula by MPFR.
#include "reference/norms/softmax.hpp"

#include <array>
#include <string>

#include "reference/certified/functions/softmax.hpp"
#include "reference/norms/call.hpp"
#include "reference/norms/formula.hpp"

namespace norma {

namespace {

constexpr NormInput kInputs[] = {{"x", "rows,cols", true, "scores"}};
constexpr std::array<std::string_view, 1> kOutputs{"y"};

void check(const NormCall& call) { static_cast<void>(CallReader("softmax", call).x()); }

void require_y(const NormCall& call, std::string_view output) {
  if (output != "y") CallReader("softmax", call).refuse("there is no output " + std::string(output) + "; known: y.");
}

/// Enclosures from the formula; comparisons, which know what the formula does not (y > 0 however small), from the
/// tiers', where they are MPFR's too.
class MpfrTruth final : public TruthSource {
 public:
  MpfrTruth(std::unique_ptr<TruthSource> formula, std::unique_ptr<TruthSource> tiers)
      : formula_(std::move(formula)), tiers_(std::move(tiers)) {}
  std::int64_t rows() const override { return formula_->rows(); }
  std::int64_t cols() const override { return formula_->cols(); }
  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override { formula_->enclose_row(row, out); }
  Enclosure enclose(std::int64_t row, std::int64_t col) const override { return formula_->enclose(row, col); }
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    return tiers_->compare(row, col, m_hi, m_lo);
  }

 private:
  std::unique_ptr<TruthSource> formula_, tiers_;
};

/// The largest score is taken off, which changes no quotient: e^x itself may lie beyond MPFR's range.
std::unique_ptr<TruthSource> truth(const NormCall& call, std::string_view output) {
  require_y(call, output);
  Builder b("softmax", formula_binding(call));
  const Operand x = b.input("x");
  const auto over_row = [&](const char* name, ReduceKind kind, Operand of) {
    return b.reduce(
        name, kFp64, of,
        {.kind = kind, .term = Term::value, .order = {.kind = OrderKind::exact}, .contract = false, .term_format = {}});
  };
  const Operand largest = over_row("largest", ReduceKind::largest, x);
  const Operand e = exactly(b, "e", Op::exp, {exactly(b, "below", Op::sub, {x, largest})});
  b.output("y", exactly(b, "y", Op::div, {e, over_row("total", ReduceKind::sum, e)}));
  return std::make_unique<MpfrTruth>(formula_truth(erase_roundings(b.finish()), call, "y", TruthKind::mpfr),
                                     softmax_truth(CallReader("softmax", call).x()));
}

std::unique_ptr<TruthSource> fast(const NormCall& call, std::string_view output) {
  require_y(call, output);
  return softmax_truth(CallReader("softmax", call).x());
}

std::vector<NormOutput> outputs_of(const NormCall& call) { return {{"y", call.inputs->find("x")->second.shape}}; }

}  // namespace

constinit const NormDef softmax{
    .name = "softmax",
    .title = "Softmax",
    .formula = "y = e^x / sum(e^x)",
    .source = "Bridle, Probabilistic interpretation of feedforward classification network outputs, 1990",
    .inputs = kInputs,
    .attributes = {},
    .outputs = kOutputs,
    .check = check,
    .truth = truth,
    .outputs_of = outputs_of,
    .fast = fast,
};

}  // namespace norma

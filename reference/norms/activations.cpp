// Activations: functions of one number with certified tiers, under the names of norms.
#include "reference/norms/activations.hpp"

#include <array>
#include <cmath>
#include <string>

#include "reference/certified/functions/functions.hpp"
#include "reference/exact/real.hpp"
#include "reference/norms/call.hpp"

namespace norma {

namespace {

constexpr NormInput kInputs[] = {{"x", "rows,cols", true, "what is activated"}};
constexpr NormAttribute kGeluAttributes[] = {
    {"approximate", "none", "none|tanh", "the normal distribution's own function, or its approximation by tanh"},
};
constexpr std::array<std::string_view, 2> kApproximations{"none", "tanh"};
constexpr std::array<std::string_view, 1> kOutputs{"y"};

/// The function by MPFR alone.
class MpfrTruth final : public TruthSource {
 public:
  MpfrTruth(Function f, const Tensor& x) : f_(f), x_(x), tiers_(function_truth(f, x)) {}
  std::int64_t rows() const override { return x_.rows(); }
  std::int64_t cols() const override { return x_.cols(); }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::int64_t j = 0; j < cols(); ++j) out[static_cast<std::size_t>(j)] = enclose(row, j);
  }
  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    const double x = x_.value(row * x_.cols() + col);
    if (x == 0) return {.hi = x, .lo = 0, .radius = 0, .magnitude = 0};
    Enclosure e = enclosure_of(evaluate(f_, Interval(x, kBits)));
    // silu and the gelus have x's sign, also where they vanish.
    if (e.hi == 0) e.hi = std::copysign(0.0, x);
    return e;
  }
  /// Its comparisons are MPFR's anyhow.
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    return tiers_->compare(row, col, m_hi, m_lo);
  }

 private:
  static constexpr mpfr_prec_t kBits = 256;
  Function f_;
  const Tensor& x_;
  std::unique_ptr<TruthSource> tiers_;
};

struct Call {
  Function f;
  const Tensor* x;
};

Call read_silu(const NormCall& call) { return {Function::silu, &CallReader("silu", call).x()}; }

Call read_gelu(const NormCall& call) {
  const CallReader reader("gelu", call);
  const bool tanh = reader.word("approximate", kApproximations) == "tanh";
  return {tanh ? Function::gelu_tanh : Function::gelu, &reader.x()};
}

template <Call (*read)(const NormCall&)>
void check(const NormCall& call) {
  static_cast<void>(read(call));
}

template <Call (*read)(const NormCall&), TruthKind kind>
std::unique_ptr<TruthSource> truth(const NormCall& call, std::string_view output) {
  if (output != "y")
    CallReader(read == read_silu ? "silu" : "gelu", call)
        .refuse("there is no output " + std::string(output) + "; known: y.");
  const Call c = read(call);
  if (kind == TruthKind::mpfr) return std::make_unique<MpfrTruth>(c.f, *c.x);
  return function_truth(c.f, *c.x);
}

std::vector<NormOutput> outputs_of(const NormCall& call) { return {{"y", call.inputs->find("x")->second.shape}}; }

}  // namespace

constinit const NormDef silu_norm{
    .name = "silu",
    .title = "SiLU (Swish)",
    .formula = "y = x / (1 + e^-x)",
    .source = "Elfwing, Uchibe, Doya, Sigmoid-weighted linear units, 2017",
    .inputs = kInputs,
    .attributes = {},
    .outputs = kOutputs,
    .check = check<read_silu>,
    .truth = truth<read_silu, TruthKind::mpfr>,
    .outputs_of = outputs_of,
    .fast = truth<read_silu, TruthKind::fast>,
};

constinit const NormDef gelu_norm{
    .name = "gelu",
    .title = "GELU",
    .formula = "y = x (1 + erf(x / sqrt 2)) / 2, or x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2",
    .source = "Hendrycks & Gimpel, Gaussian error linear units, 2016",
    .inputs = kInputs,
    .attributes = kGeluAttributes,
    .outputs = kOutputs,
    .check = check<read_gelu>,
    .truth = truth<read_gelu, TruthKind::mpfr>,
    .outputs_of = outputs_of,
    .fast = truth<read_gelu, TruthKind::fast>,
};

}  // namespace norma

// Modulation, gated residual, residual sum.
#include "reference/norms/terms.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "reference/exact/real.hpp"
#include "reference/norms/call.hpp"
#include "reference/norms/exact_rows.hpp"

namespace norma {

namespace {

double value_at(const Parameter& p, double neutral, std::int64_t row, std::int64_t col) {
  return p.tensor == nullptr ? neutral : p.tensor->value(p.index.at(row, col));
}

/// A number as far as IEEE rules for NaN, Inf and zeros tell numbers apart.
double class_of(double v) { return std::isfinite(v) && v != 0 ? std::copysign(1.0, v) : v; }
double class_of(const Sum& s) {
  if (s.is_nan()) return s.a + s.b;
  if (s.is_infinite()) return std::isinf(s.a) ? s.a : s.b;
  return std::copysign(s.is_zero() ? 0.0 : 1.0, s.negative() ? -1.0 : 1.0);
}

/// y = addend + factor other + shift.
struct Terms {
  double addend, other, shift;
  Sum factor;
  bool finite() const {
    return std::isfinite(addend) && std::isfinite(other) && std::isfinite(shift) && !factor.is_nan() &&
           !factor.is_infinite();
  }
  double product_class() const { return class_of(factor) * class_of(other); }
  Dyadic product() const { return factor.exact() * other; }
};

class TermsTruth final : public TruthSource {
 public:
  explicit TermsTruth(const ThreeTerms& terms) : terms_(terms) {}

  std::int64_t rows() const override { return terms_.rows; }
  std::int64_t cols() const override { return terms_.cols; }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::int64_t j = 0; j < cols(); ++j) out[static_cast<std::size_t>(j)] = enclose(row, j);
  }

  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    const Terms t = at(row, col);
    if (!t.finite()) {
      const double y = class_of(t.addend) + t.product_class() + class_of(t.shift);
      return {.hi = y, .lo = 0, .radius = 0, .magnitude = std::fabs(y)};
    }
    const Dyadic y = value(t);
    Enclosure e = enclosure_of(point(y));
    if (y.sign() == 0) e.hi = t.product_class() == 0 ? t.addend + t.product_class() + t.shift : 0.0;
    e.magnitude = magnitude_of(point(abs(Dyadic(t.addend)) + abs(t.product()) + abs(Dyadic(t.shift))));
    return e;
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    const Terms t = at(row, col);
    if (!t.finite()) return Comparison::undecided;
    const int sign = order(value(t), Dyadic(m_hi) + Dyadic(m_lo));
    return static_cast<Comparison>((sign > 0) - (sign < 0));
  }

 private:
  Terms at(std::int64_t row, std::int64_t col) const {
    const std::int64_t i = row * terms_.cols + col;
    const double x = terms_.x->value(i), factor = value_at(terms_.factor, 1.0, row, col);
    const double shift = value_at(terms_.shift, kNeutral, row, col);
    if (terms_.f == nullptr) return {.addend = kNeutral, .other = x, .shift = shift, .factor = {1.0, factor}};
    return {.addend = x, .other = terms_.f->value(i), .shift = shift, .factor = {factor, kNeutral}};
  }

  static Dyadic value(const Terms& t) { return Dyadic(t.addend) + t.product() + Dyadic(t.shift); }

  static Interval point(const Dyadic& v) { return Interval(v, std::max<mpfr_prec_t>(v.real().bits(), 128)); }

  ThreeTerms terms_;
};

// ---- the two norms ----

constexpr NormInput kModulateInputs[] = {
    {"x", "rows,cols", true, "what is modulated"},
    {"scale", "cols|samples,cols", true, "its distance from one is the factor: 1 + scale"},
    {"shift", "cols|samples,cols", false, "added to every column"},
};
constexpr NormInput kGatedInputs[] = {
    {"x", "rows,cols", true, "the residual stream"},
    {"f", "rows,cols", true, "what a block adds to it"},
    {"gate", "cols|samples,cols|rows,cols", true, "factor of f"},
};
constexpr std::array<std::string_view, 1> kOutputs{"y"};

const Tensor* required(const CallReader& reader, std::string_view name) {
  const Tensor* t = reader.find(name);
  if (t == nullptr) reader.refuse("there is no tensor " + std::string(name) + ".");
  return t;
}

void require_y(const CallReader& reader, std::string_view output) {
  if (output != "y") reader.refuse("there is no output " + std::string(output) + "; known: y.");
}

ThreeTerms read_modulate(const NormCall& call) {
  const CallReader reader("modulate", call);
  const Tensor& x = reader.x();
  required(reader, "scale");
  return {.rows = x.rows(),
          .cols = x.cols(),
          .x = &x,
          .f = nullptr,
          .factor = reader.columns("scale"),
          .shift = reader.columns("shift")};
}

ThreeTerms read_gated(const NormCall& call) {
  const CallReader reader("gated_residual", call);
  const Tensor& x = reader.x();
  required(reader, "f");
  required(reader, "gate");
  return {.rows = x.rows(),
          .cols = x.cols(),
          .x = &x,
          .f = reader.like_x("f"),
          .factor = reader.columns_or_elements("gate"),
          .shift = {}};
}

template <ThreeTerms (*read)(const NormCall&)>
void check(const NormCall& call) {
  static_cast<void>(read(call));
}

template <ThreeTerms (*read)(const NormCall&)>
std::unique_ptr<TruthSource> truth(const NormCall& call, std::string_view output) {
  require_y(CallReader(read == read_modulate ? "modulate" : "gated_residual", call), output);
  return terms_truth(read(call));
}

template <ThreeTerms (*read)(const NormCall&)>
std::unique_ptr<TruthSource> fast(const NormCall& call, std::string_view) {
  return fast_terms_truth(read(call));
}

std::vector<NormOutput> outputs_of(const NormCall& call) { return {{"y", call.inputs->find("x")->second.shape}}; }

}  // namespace

std::unique_ptr<TruthSource> terms_truth(const ThreeTerms& terms) { return std::make_unique<TermsTruth>(terms); }

std::unique_ptr<TruthSource> fast_terms_truth(const ThreeTerms& terms) {
  return has_fast_tiers(terms) ? three_terms_truth(terms) : nullptr;
}

ThreeTerms residual_sum(const RowNorm& norm) {
  return {.rows = norm.rows, .cols = norm.cols, .x = norm.x, .f = norm.residual, .factor = {}, .shift = {}};
}

constinit const NormDef modulate{
    .name = "modulate",
    .title = "Modulation by scale and shift",
    .formula = "y = x (1 + scale) + shift",
    .source = "Peebles & Xie, Scalable Diffusion Models with Transformers, 2022",
    .inputs = kModulateInputs,
    .attributes = {},
    .outputs = kOutputs,
    .check = check<read_modulate>,
    .truth = truth<read_modulate>,
    .outputs_of = outputs_of,
    .fast = fast<read_modulate>,
};

constinit const NormDef gated_residual{
    .name = "gated_residual",
    .title = "Gated residual",
    .formula = "y = x + gate f",
    .source = "Peebles & Xie, Scalable Diffusion Models with Transformers, 2022",
    .inputs = kGatedInputs,
    .attributes = {},
    .outputs = kOutputs,
    .check = check<read_gated>,
    .truth = truth<read_gated>,
    .outputs_of = outputs_of,
    .fast = fast<read_gated>,
};

}  // namespace norma

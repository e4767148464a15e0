// Modulation, gated residual, residual sum.
#include "reference/norms/terms.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>

#include "reference/exact/real.hpp"
#include "reference/norms/call.hpp"
#include "reference/norms/exact_rows.hpp"
#include "reference/norms/formula.hpp"

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
    if (terms_.f == nullptr && terms_.one == 0)
      return {.addend = kNeutral, .other = x, .shift = shift, .factor = {factor, kNeutral}};
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
    {"scale", "cols|samples,cols|rows,cols", true, "added to scale_offset: the factor"},
    {"shift", "cols|samples,cols|rows,cols", false, "added to the product"},
    {"scale_table", "cols|samples,cols", false, "added to scale"},
    {"shift_table", "cols|samples,cols", false, "added to shift"},
};
constexpr NormInput kGatedInputs[] = {
    {"x", "rows,cols", true, "the residual stream"},
    {"f", "rows,cols", true, "what a block adds to it"},
    {"gate", "cols|samples,cols|rows,cols", true, "factor of f"},
    {"gate_table", "cols|samples,cols", false, "added to gate"},
};
constexpr NormAttribute kModulateAttributes[] = {
    {"scale_offset", "1", "", "1 where scale is the factor's distance from one, 0 where it is the factor"},
};
constexpr NormAttribute kGatedAttributes[] = {
    {"gate_function", "identity", "identity|tanh", "what the gate goes through first"},
};
constexpr std::array<std::string_view, 2> kGateFunctions{"identity", "tanh"};
constexpr std::array<std::string_view, 1> kOutputs{"y"};

const Tensor* required(const CallReader& reader, std::string_view name) {
  const Tensor* t = reader.find(name);
  if (t == nullptr) reader.refuse("there is no tensor " + std::string(name) + ".");
  return t;
}

void require_y(const CallReader& reader, std::string_view output) {
  if (output != "y") reader.refuse("there is no output " + std::string(output) + "; known: y.");
}

/// A table is a second term of its parameter.
bool has_table(const CallReader& reader, std::string_view parameter) {
  const std::string table = std::string(parameter) + "_table";
  if (reader.find(table) == nullptr) return false;
  static_cast<void>(reader.columns(table));
  if (reader.find(parameter) == nullptr)
    reader.refuse(table + " is added to a tensor " + std::string(parameter) + ", and there is none.");
  return true;
}

/// name + name_table, exactly.
Operand parameter(Builder& b, const NormCall& call, const std::string& name) {
  const Operand value = b.input(name, kCols);
  if (!call.inputs->contains(name + "_table")) return value;
  return exactly(b, name + "_sum", Op::add, {value, b.input(name + "_table", kCols)});
}

/// A call as sums of three terms, or as a formula where there are more, or a tanh.
struct Reading {
  ThreeTerms terms;
  std::optional<Program> formula;
};

Reading read_modulate(const NormCall& call) {
  const CallReader reader("modulate", call);
  const Tensor& x = reader.x();
  if (reader.find("scale") == nullptr && reader.find("shift") == nullptr)
    reader.refuse("there is no tensor scale and no tensor shift; it takes at least one.");
  const double offset = reader.number("scale_offset", 1, "0 or 1", [](double v) { return v == 0 || v == 1; });
  const bool scaled = reader.find("scale") != nullptr;
  Reading reading{.terms = {.rows = x.rows(),
                            .cols = x.cols(),
                            .x = &x,
                            .f = nullptr,
                            .factor = reader.columns_or_elements("scale"),
                            .shift = reader.columns_or_elements("shift"),
                            .one = scaled && offset == 1 ? 1 : 0},
                  .formula = {}};
  const bool scale_table = has_table(reader, "scale"), shift_table = has_table(reader, "shift");
  if (!scale_table && !shift_table) return reading;
  Builder b("modulate", formula_binding(call));
  Operand y = b.input("x");
  if (scaled) {
    Operand factor = parameter(b, call, "scale");
    if (offset == 1) factor = exactly(b, "factor", Op::add, {b.constant("one", 1), factor});
    y = exactly(b, "product", Op::mul, {y, factor});
  }
  if (reader.find("shift") != nullptr) y = exactly(b, "sum", Op::add, {y, parameter(b, call, "shift")});
  b.output("y", y);
  reading.formula = b.finish();
  return reading;
}

Reading read_gated(const NormCall& call) {
  const CallReader reader("gated_residual", call);
  const Tensor& x = reader.x();
  required(reader, "f");
  required(reader, "gate");
  Reading reading{.terms = {.rows = x.rows(),
                            .cols = x.cols(),
                            .x = &x,
                            .f = reader.like_x("f"),
                            .factor = reader.columns_or_elements("gate"),
                            .shift = {}},
                  .formula = {}};
  const bool tanh = reader.word("gate_function", kGateFunctions) == "tanh";
  if (!has_table(reader, "gate") && !tanh) return reading;
  Builder b("gated_residual", formula_binding(call));
  const Operand stream = b.input("x");
  Operand gate = parameter(b, call, "gate");
  if (tanh) gate = exactly(b, "open", Op::tanh, {gate});
  const Operand gated = exactly(b, "gated", Op::mul, {gate, b.input("f", kRowsCols)});
  b.output("y", exactly(b, "sum", Op::add, {stream, gated}));
  reading.formula = b.finish();
  return reading;
}

template <Reading (*read)(const NormCall&)>
void check(const NormCall& call) {
  static_cast<void>(read(call));
}

template <Reading (*read)(const NormCall&)>
std::unique_ptr<TruthSource> truth(const NormCall& call, std::string_view output) {
  require_y(CallReader(read == read_modulate ? "modulate" : "gated_residual", call), output);
  Reading reading = read(call);
  if (reading.formula) return formula_truth(std::move(*reading.formula), call, output, TruthKind::mpfr);
  return terms_truth(reading.terms);
}

template <Reading (*read)(const NormCall&)>
std::unique_ptr<TruthSource> fast(const NormCall& call, std::string_view output) {
  Reading reading = read(call);
  if (reading.formula) return formula_truth(std::move(*reading.formula), call, output, TruthKind::fast);
  return fast_terms_truth(reading.terms);
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
    .formula = "y = x (scale_offset + scale + scale_table) + shift + shift_table",
    .source = "Peebles & Xie, Scalable Diffusion Models with Transformers, 2022",
    .inputs = kModulateInputs,
    .attributes = kModulateAttributes,
    .outputs = kOutputs,
    .check = check<read_modulate>,
    .truth = truth<read_modulate>,
    .outputs_of = outputs_of,
    .fast = fast<read_modulate>,
};

constinit const NormDef gated_residual{
    .name = "gated_residual",
    .title = "Gated residual",
    .formula = "y = x + gate_function(gate + gate_table) f",
    .source = "Peebles & Xie, Scalable Diffusion Models with Transformers, 2022",
    .inputs = kGatedInputs,
    .attributes = kGatedAttributes,
    .outputs = kOutputs,
    .check = check<read_gated>,
    .truth = truth<read_gated>,
    .outputs_of = outputs_of,
    .fast = fast<read_gated>,
};

}  // namespace norma

// Rotary embedding: of numbers of 24 bits a sum of two products that binary64 holds exactly; behind a norm, a formula.
#include "reference/norms/rope.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "reference/certified/double_double.hpp"
#include "reference/exact/real.hpp"
#include "reference/norms/call.hpp"
#include "reference/norms/exact_rows.hpp"
#include "reference/norms/formula.hpp"

namespace norma {

namespace {

constexpr std::array<std::string_view, 2> kPairings{"half", "interleaved"};

/// Where a row of a table stands: axes of 1 are shared by all of x's.
class TableRows {
 public:
  TableRows(const CallReader& reader, std::string_view name, const Shape& x, std::int64_t rotary)
      : tensor_(reader.find(name)), x_(x) {
    if (tensor_ == nullptr) reader.refuse("there is no tensor " + std::string(name) + ".");
    const Shape& shape = tensor_->shape;
    width_ = shape.empty() ? 0 : shape.back();
    bool fits = (width_ == rotary || 2 * width_ == rotary) && shape.size() <= x.size();
    std::int64_t step = width_;
    for (std::size_t k = 1; k < shape.size() && fits; ++k) {
      const std::int64_t own = shape[shape.size() - 1 - k];
      fits = own == 1 || own == x[x.size() - 1 - k];
      steps_.push_back(own == 1 ? 0 : step);
      step *= own;
    }
    if (!fits)
      reader.refuse(std::string(name) + " has shape " + shape_text(shape) + " but must have a last axis of " +
                    std::to_string(rotary) + " or " + std::to_string(rotary / 2) +
                    ", and before it axes of x or of 1, beside x of shape " + shape_text(x) + ".");
  }

  /// The value for a column, whose pair is number `pair`.
  double at(std::int64_t row, std::int64_t col, std::int64_t pair, std::int64_t rotary) const {
    std::int64_t first = 0, rest = row;
    for (std::size_t k = 0; k < steps_.size(); ++k) {
      const std::int64_t n = x_[x_.size() - 2 - k];
      first += rest % n * steps_[k];
      rest /= n;
    }
    return tensor_->value(first + (width_ == rotary ? col : pair));
  }
  const Tensor& tensor() const { return *tensor_; }

 private:
  const Tensor* tensor_;
  Shape x_;
  std::int64_t width_ = 0;
  std::vector<std::int64_t> steps_;  ///< of axes from the right, without the last
};

struct RopeCall {
  const Tensor* x = nullptr;
  std::int64_t rotary = 0;
  bool interleaved = false;
  TableRows cos, sin;
};

std::int64_t rotary_columns(const CallReader& reader) {
  const std::int64_t cols = reader.x().cols();
  const double said = reader.number("rotary", 0, "0 or an even number of columns",
                                    [](double v) { return v >= 0 && v <= 0x1p31 && std::fmod(v, 2) == 0; });
  const std::int64_t rotary = said == 0 ? cols : static_cast<std::int64_t>(said);
  if (rotary > cols || rotary % 2 != 0)
    reader.refuse("there are " + std::to_string(rotary) + " rotary columns, but they must be even and at most the " +
                  std::to_string(cols) + " of x.");
  return rotary;
}

RopeCall read_call(std::string_view norm, const NormCall& call) {
  const CallReader reader(norm, call);
  const Tensor& x = reader.x();
  const std::int64_t rotary = rotary_columns(reader);
  return {.x = &x,
          .rotary = rotary,
          .interleaved = reader.word("pairing", kPairings) == "interleaved",
          .cos = TableRows(reader, "cos", x.shape, rotary),
          .sin = TableRows(reader, "sin", x.shape, rotary)};
}

/// y = x c + other s; passed on: y = x.
struct Turned {
  double x = 0, c = 1, other = 0, s = 0;
  bool passed = false;
};

Turned element(const RopeCall& call, std::int64_t row, std::int64_t col) {
  const std::int64_t first = row * call.x->cols();
  if (col >= call.rotary) return {.x = call.x->value(first + col), .passed = true};
  const std::int64_t half = call.rotary / 2;
  const bool leads = call.interleaved ? col % 2 == 0 : col < half;
  const std::int64_t distance = call.interleaved ? 1 : half;
  const std::int64_t pair = call.interleaved ? col / 2 : col % half;
  const double other = call.x->value(first + (leads ? col + distance : col - distance));
  return {.x = call.x->value(first + col),
          .c = call.cos.at(row, col, pair, call.rotary),
          .other = leads ? -other : other,
          .s = call.sin.at(row, col, pair, call.rotary)};
}

// ---- exactly, of all formats ----

/// A number as far as IEEE rules for NaN, Inf and zeros tell numbers apart.
double class_of(double v) { return std::isfinite(v) && v != 0 ? std::copysign(1.0, v) : v; }
double product_class(double a, double b) { return class_of(a) * class_of(b); }

class ExactRope final : public TruthSource {
 public:
  explicit ExactRope(RopeCall call) : call_(std::move(call)) {}

  std::int64_t rows() const override { return call_.x->rows(); }
  std::int64_t cols() const override { return call_.x->cols(); }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::int64_t j = 0; j < cols(); ++j) out[static_cast<std::size_t>(j)] = enclose(row, j);
  }

  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    const Turned t = element(call_, row, col);
    if (t.passed) return {.hi = t.x, .lo = 0, .radius = 0, .magnitude = std::fabs(t.x)};
    const double classes = product_class(t.x, t.c) + product_class(t.other, t.s);
    if (!finite(t)) return {.hi = classes, .lo = 0, .radius = 0, .magnitude = std::fabs(classes)};
    const Dyadic y = value(t);
    Enclosure e = enclosure_of(point(y));
    if (y.sign() == 0) e.hi = std::signbit(classes) && classes == 0 ? -0.0 : 0.0;
    e.magnitude = magnitude_of(point(abs(Dyadic(t.x) * t.c) + abs(Dyadic(t.other) * t.s)));
    return e;
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    const Turned t = element(call_, row, col);
    if (!finite(t)) return Comparison::undecided;
    const int sign = order(value(t), Dyadic(m_hi) + Dyadic(m_lo));
    return static_cast<Comparison>((sign > 0) - (sign < 0));
  }

 private:
  static bool finite(const Turned& t) {
    return std::isfinite(t.x) && std::isfinite(t.c) && std::isfinite(t.other) && std::isfinite(t.s);
  }
  static Dyadic value(const Turned& t) { return Dyadic(t.x) * t.c + Dyadic(t.other) * t.s; }
  static Interval point(const Dyadic& v) { return Interval(v, std::max<mpfr_prec_t>(v.real().bits(), 128)); }

  RopeCall call_;
};

// ---- exactly in binary64, of formats up to 24 bits ----

/// A product of two numbers of at most 24 bits, of exponents from -149 to 127, is a binary64 number: 48 bits, from
/// 2^-298 to 2^256. The sum of two such is hi + lo without an error (TwoSum, Knuth), and hi the binary64 number nearest
/// to it.
class NarrowRope final : public TruthSource {
 public:
  explicit NarrowRope(RopeCall call) : call_(call), exact_(std::move(call)) {}

  std::int64_t rows() const override { return exact_.rows(); }
  std::int64_t cols() const override { return exact_.cols(); }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::int64_t j = 0; j < cols(); ++j) out[static_cast<std::size_t>(j)] = enclose(row, j);
  }

  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    const Turned t = element(call_, row, col);
    if (t.passed) return {.hi = t.x, .lo = 0, .radius = 0, .magnitude = std::fabs(t.x), .tier = Tier::double_double};
    const double own = t.x * t.c, crossed = t.other * t.s, sum = own + crossed;
    if (!std::isfinite(sum)) return {.hi = sum, .lo = 0, .radius = 0, .magnitude = std::fabs(sum)};
    return {.hi = sum,
            .lo = two_sum(own, crossed).l,
            .radius = 0,
            .magnitude = std::fabs(own) + std::fabs(crossed),
            .tier = Tier::double_double};
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    return exact_.compare(row, col, m_hi, m_lo);
  }

 private:
  RopeCall call_;
  ExactRope exact_;
};

// ---- behind a norm ----

Program formula_of(const RopeCall& rope, const NormCall& call, double eps, double weight_offset) {
  const View view{.pairing = rope.interleaved ? Pairing::interleaved : Pairing::half, .rotary = rope.rotary};
  Builder b("rmsnorm_rope", formula_binding(call), view);
  const Operand x = b.input("x");
  const Operand ms = b.reduce("ms", kFp64, x,
                              {.kind = ReduceKind::mean,
                               .term = Term::square,
                               .order = {.kind = OrderKind::exact},
                               .contract = false,
                               .term_format = {}});
  const Operand root = exactly(b, "r", Op::rsqrt, {exactly(b, "ms_eps", Op::add, {ms, b.constant("eps", eps)})});
  Operand n = exactly(b, "n", Op::mul, {x, root});
  if (call.inputs->contains("weight")) {
    Operand w = b.input("weight");
    if (weight_offset != 0) w = exactly(b, "w", Op::add, {b.constant("weight_offset", weight_offset), w});
    n = exactly(b, "nw", Op::mul, {n, w});
  }
  const Operand own = exactly(b, "own", Op::mul, {n, b.input("cos")});
  const Operand crossed = exactly(b, "crossed", Op::mul, {exactly(b, "other", Op::rotate, {n}), b.input("sin")});
  Operand y = exactly(b, "turned", Op::add, {own, crossed});
  if (rope.rotary < rope.x->cols()) y = exactly(b, "joined", Op::join, {y, n});
  b.output("y", y);
  return erase_roundings(b.finish());
}

// ---- the two norms ----

constexpr NormInput kInputs[] = {
    {"x", "rows,cols", true, "heads of tokens, [..., D]"},
    {"cos", "pairs", true, "first table, [..., rotary] or [..., rotary/2], broadcast to x"},
    {"sin", "pairs", true, "second table, likewise"},
};
constexpr NormInput kNormInputs[] = {
    kInputs[0], kInputs[1], kInputs[2], {"weight", "cols", false, "factor of every column, added to weight_offset"}};
constexpr NormAttribute kPairing{"pairing", "half", "half|interleaved",
                                 "columns k and k + rotary/2 turn together, or 2k and 2k + 1"};
constexpr NormAttribute kRotary{"rotary", "0", "", "columns that turn, the first of a row; 0: all"};
constexpr NormAttribute kAttributes[] = {kPairing, kRotary};
constexpr NormAttribute kNormAttributes[] = {
    {"eps", "1e-6", "", "keeps the root away from zero"},
    {"weight_offset", "0", "", "1 where weights are stored as their distance from one"},
    kPairing,
    kRotary,
};
constexpr std::array<std::string_view, 1> kOutputs{"y"};

void require_y(std::string_view norm, const NormCall& call, std::string_view output) {
  if (output != "y") CallReader(norm, call).refuse("there is no output " + std::string(output) + "; known: y.");
}

void check_rope(const NormCall& call) { static_cast<void>(read_call("rope", call)); }

std::unique_ptr<TruthSource> rope_exactly(const NormCall& call, std::string_view output) {
  require_y("rope", call, output);
  return std::make_unique<ExactRope>(read_call("rope", call));
}

std::unique_ptr<TruthSource> rope_fast(const NormCall& call, std::string_view output) {
  require_y("rope", call, output);
  RopeCall rope = read_call("rope", call);
  for (const Tensor* t : {rope.x, &rope.cos.tensor(), &rope.sin.tensor()})
    if (format_of(t->format).precision > 24) return nullptr;
  return std::make_unique<NarrowRope>(std::move(rope));
}

struct NormedCall {
  RopeCall rope;
  double eps, weight_offset;
};
NormedCall read_normed(const NormCall& call) {
  const CallReader reader("rmsnorm_rope", call);
  static_cast<void>(reader.vector("weight", reader.x().cols()));
  return {read_call("rmsnorm_rope", call), reader.eps(1e-6), reader.finite("weight_offset", 0)};
}

void check_normed(const NormCall& call) { static_cast<void>(read_normed(call)); }

template <TruthKind kind>
std::unique_ptr<TruthSource> normed_truth(const NormCall& call, std::string_view output) {
  require_y("rmsnorm_rope", call, output);
  const NormedCall c = read_normed(call);
  return formula_truth(formula_of(c.rope, call, c.eps, c.weight_offset), call, "y", kind);
}

std::vector<NormOutput> outputs_of(const NormCall& call) { return {{"y", call.inputs->find("x")->second.shape}}; }

}  // namespace

constinit const NormDef rope{
    .name = "rope",
    .title = "Rotary position embedding",
    .formula = "y_j = x_j cos_j - x_j' sin_j; y_j' = x_j' cos_j' + x_j sin_j', of the pairs j, j'",
    .source = "Su et al., RoFormer, 2021",
    .inputs = kInputs,
    .attributes = kAttributes,
    .outputs = kOutputs,
    .check = check_rope,
    .truth = rope_exactly,
    .outputs_of = outputs_of,
    .fast = rope_fast,
};

constinit const NormDef rmsnorm_rope{
    .name = "rmsnorm_rope",
    .title = "Root-mean-square normalization and rotary position embedding",
    .formula =
        "n = (weight_offset + weight) x / sqrt(mean(x^2) + eps); y_j = n_j cos_j - n_j' sin_j; y_j' = n_j' cos_j' + "
        "n_j sin_j'",
    .source = "Dehghani et al., Scaling Vision Transformers to 22 Billion Parameters, 2023; Su et al., RoFormer, 2021",
    .inputs = kNormInputs,
    .attributes = kNormAttributes,
    .outputs = kOutputs,
    .check = check_normed,
    .truth = normed_truth<TruthKind::mpfr>,
    .outputs_of = outputs_of,
    .fast = normed_truth<TruthKind::fast>,
};

}  // namespace norma

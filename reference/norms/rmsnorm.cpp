// RMSNorm, straight from its formula: enclosures by MPFR, comparisons by the sign of an integer polynomial.
//
// Everything the norm returns is decided by one question, "is A r greater than c?", for dyadic A and c:
//
//   n > m               A = w h                       c = m - bias
//   n / scale > m       A = w h                       c = m scale - bias
//   |n_j| > |n_k|       A = s_j A_j - s_k A_k         c = s_k bias_k - s_j bias_j      (s: the signs of n)
//   n_i Q / |n_k| > m   A = A_i Q - m s_k A_k         c = m s_k bias_k - bias_i Q
//
// and squaring removes r: with eps inside, A r > c > 0 is D A^2 > c^2 (sum(h^2) + D eps).
#include "reference/norms/rmsnorm.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "reference/exact/real.hpp"
#include "reference/exact/root.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// ---- what a call asks for ----

enum class Quant { none, fixed, per_token };
enum class Output { y, dequantized, residual, scale };

constexpr std::array<std::string_view, 3> kQuants{"none", "static", "per_token"};
constexpr std::array<std::string_view, 4> kOutputs{"y", "dequantized", "residual", "scale"};

constexpr NormInput kInputs[] = {
    {"x", "rows,cols", true, "what is normalized"},
    {"weight", "cols", false, "factor of every column, added to weight_offset"},
    {"bias", "cols", false, "added to every column"},
    {"residual", "rows,cols", false, "added to x first; the sum is an output"},
    {"scale", "", false, "divides the result (quant=static)"},
};

constexpr NormAttribute kAttributes[] = {
    {"eps", "1e-6", "", "keeps the root away from zero"},
    {"eps_place", "inside", "inside|sum|outside|max|l2max|none", "where eps enters"},
    {"weight_offset", "0", "", "1 where weights are stored as their distance from one"},
    {"quant", "none", "none|static|per_token", "what the result is divided by"},
    {"quant_max", "448", "", "the code that a row's largest value becomes (per_token)"},
    {"scale_floor", "0x1.2492492492492p-18", "", "least scale of a row: 1 / (448 * 512) (per_token)"},
    {"scale_cap", "inf", "", "largest absolute value that sets a scale (per_token)"},
};

struct Call {
  const Tensor* x = nullptr;
  const Tensor* weight = nullptr;
  const Tensor* bias = nullptr;
  const Tensor* residual = nullptr;
  double eps = 1e-6;
  EpsPlace eps_place = EpsPlace::inside;
  double weight_offset = 0;
  Quant quant = Quant::none;
  double scale = 1;
  double quant_max = 448;
  double scale_floor = 0x1.2492492492492p-18;
  double scale_cap = kInfinity;
};

template <std::size_t N>
std::size_t choice(const NormCall& call, std::string_view name, const std::array<std::string_view, N>& known) {
  const auto found = call.words.find(name);
  if (found == call.words.end()) return 0;
  for (std::size_t i = 0; i < N; ++i)
    if (known[i] == found->second) return i;
  std::string list;
  for (std::string_view word : known) list += (list.empty() ? "" : ", ") + std::string(word);
  throw NormError("rmsnorm: " + std::string(name) + "=" + found->second + " is not one of " + list + ".");
}

std::string number_text(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

// Reads a number; `fits` tells whether it lies in the domain that `rule` names.
template <typename Fits>
double number(const NormCall& call, std::string_view name, double fallback, std::string_view rule, Fits fits) {
  const auto found = call.numbers.find(name);
  const double value = found == call.numbers.end() ? fallback : found->second;
  if (!fits(value))
    throw NormError("rmsnorm: " + std::string(name) + " is " + number_text(value) + " but must be " +
                    std::string(rule) + ".");
  return value;
}

const Tensor* tensor(const NormCall& call, std::string_view name) {
  const auto found = call.inputs->find(name);
  return found == call.inputs->end() ? nullptr : &found->second;
}

void require_size(const Tensor* t, std::string_view name, const Shape& right) {
  if (t != nullptr && t->size() != element_count(right))
    throw NormError("rmsnorm: " + std::string(name) + " has shape " + shape_text(t->shape) + " but must have " +
                    shape_text(right) + " to fit x.");
}

Call read_call(const NormCall& call) {
  Call c;
  c.x = tensor(call, "x");
  if (c.x == nullptr) throw NormError("rmsnorm: there is no tensor x; it is what is normalized.");
  if (c.x->shape.empty() || c.x->size() == 0)
    throw NormError("rmsnorm: x has shape " + shape_text(c.x->shape) + " but must have at least one row and column.");
  c.weight = tensor(call, "weight");
  c.bias = tensor(call, "bias");
  c.residual = tensor(call, "residual");
  require_size(c.weight, "weight", {c.x->cols()});
  require_size(c.bias, "bias", {c.x->cols()});
  if (c.residual != nullptr && c.residual->shape != c.x->shape)
    throw NormError("rmsnorm: residual has shape " + shape_text(c.residual->shape) + " but must have x's, " +
                    shape_text(c.x->shape) + ".");
  c.eps = number(call, "eps", c.eps, "finite and not negative", [](double v) { return std::isfinite(v) && v >= 0; });
  c.eps_place = static_cast<EpsPlace>(choice(call, "eps_place", kEpsPlaces));
  c.weight_offset = number(call, "weight_offset", c.weight_offset, "finite", [](double v) { return std::isfinite(v); });
  c.quant = static_cast<Quant>(choice(call, "quant", kQuants));
  c.quant_max =
      number(call, "quant_max", c.quant_max, "finite and positive", [](double v) { return std::isfinite(v) && v > 0; });
  c.scale_floor = number(call, "scale_floor", c.scale_floor, "finite and not negative",
                         [](double v) { return std::isfinite(v) && v >= 0; });
  c.scale_cap = number(call, "scale_cap", c.scale_cap, "positive", [](double v) { return v > 0; });
  if (c.quant == Quant::fixed) {
    const Tensor* scale = tensor(call, "scale");
    if (scale == nullptr) throw NormError("rmsnorm: quant=static needs a tensor scale of one value.");
    if (scale->size() != 1)
      throw NormError("rmsnorm: scale has shape " + shape_text(scale->shape) +
                      " but must hold one value (quant=static).");
    c.scale = scale->value(0);
    if (!(std::isfinite(c.scale) && c.scale > 0))
      throw NormError("rmsnorm: scale is " + number_text(c.scale) + " but must be finite and positive.");
  }
  return c;
}

// ---- columns ----

// a + b over the reals, of binary64 numbers. `negative` is the sign bit that IEEE addition would give.
struct Sum {
  double a = 0, b = 0;
  bool is_nan() const { return std::isnan(a) || std::isnan(b) || (std::isinf(a) && std::isinf(b) && a != b); }
  bool is_infinite() const { return std::isinf(a) || std::isinf(b); }
  bool is_zero() const { return a == -b; }
  bool negative() const { return is_zero() ? std::signbit(a) && std::signbit(b) : a < -b; }
  // The value as one binary64 number if it is one: no rounding error (TwoSum, Knuth), no overflow.
  std::optional<double> single() const {
    const double s = a + b;
    const double t = s - a;
    const double error = (a - (s - t)) + (b - t);
    return std::isfinite(s) && error == 0 ? std::optional(s) : std::nullopt;
  }
  Dyadic exact() const { return Dyadic(a) + Dyadic(b); }
};

// -0 is neutral in IEEE addition: it leaves the sign of a zero alone.
constexpr double kNeutral = -0.0;

Sum row_value(const Call& c, std::int64_t row, std::int64_t col) {
  const std::int64_t i = row * c.x->cols() + col;
  return {c.x->value(i), c.residual == nullptr ? kNeutral : c.residual->value(i)};
}

Sum factor(const Call& c, std::int64_t col) {
  if (c.weight == nullptr) return {1.0, kNeutral};
  return {c.weight->value(col), c.weight_offset == 0 ? kNeutral : c.weight_offset};
}

// n = A r + bias of one column, before it is known whether r is a positive number or 0.
struct Column {
  enum class Kind { real, infinite, nan } kind = Kind::real;
  bool negative = false;  ///< sign bit of A, or of an infinite n
  Sum w, h;               ///< A = w h
  std::optional<double> bias;
};

// ---- rows ----

enum class RowKind { real, infinite, nan };  // infinite: r = 0

enum class ScaleKind { one, fixed, largest, cap, floor, infinite, nan };

struct Row {
  RowKind kind = RowKind::real;
  Root root;  // total: the sum of h^2
  Interval r;
  ScaleKind scale_kind = ScaleKind::one;
  std::int64_t largest = 0;  // column of the largest |n|
  int largest_sign = 1;
  Interval scale;
  explicit Row(mpfr_prec_t bits) : r(bits), scale(1.0, bits) {}
};

__extension__ typedef unsigned __int128 Wide;

// The integer in `total` times 2^exponent.
Dyadic dyadic(Wide total, int exponent) {
  const Dyadic high(std::ldexp(static_cast<double>(static_cast<std::uint32_t>(total >> 96)), 96));
  const Dyadic upper(std::ldexp(static_cast<double>(static_cast<std::uint32_t>(total >> 64)), 64));
  const Dyadic lower(std::ldexp(static_cast<double>(static_cast<std::uint32_t>(total >> 32)), 32));
  const Dyadic low(static_cast<double>(static_cast<std::uint32_t>(total)));
  Real scaled = (high + upper + lower + low).real();
  mpfr_mul_2si(scaled.get(), scaled.get(), exponent, MPFR_RNDN);
  return Dyadic(std::move(scaled));
}

// Exact: the precision covers from the last bit of the smallest square to the carry of the whole sum. Rows of
// ordinary spread fit in 128-bit integers.
Dyadic sum_of_squares(const Call& c, std::int64_t row) {
  const std::int64_t cols = c.x->cols();
  int top = std::numeric_limits<int>::min(), last = std::numeric_limits<int>::max();
  const auto note = [&](double v) {
    if (v == 0) return;
    int exponent = 0;
    const double fraction = std::frexp(v, &exponent);
    const auto digits = static_cast<std::uint64_t>(std::ldexp(std::fabs(fraction), 53));
    top = std::max(top, exponent);
    last = std::min(last, exponent - 53 + std::countr_zero(digits));
  };
  for (std::int64_t j = 0; j < cols; ++j) {
    const Sum h = row_value(c, row, j);
    note(h.a);
    note(h.b);
  }
  if (top < last) return Dyadic(0.0);
  const mpfr_prec_t value_bits = top + 1 - last;
  const mpfr_prec_t bits = 2 * value_bits + std::bit_width(static_cast<std::uint64_t>(cols)) + 1;
  if (bits <= 127 && value_bits <= 53) {
    Wide total = 0;
    for (std::int64_t j = 0; j < cols; ++j) {
      const Sum h = row_value(c, row, j);
      const auto k = static_cast<std::int64_t>(std::ldexp(h.a + h.b, -last));  // h is a multiple of 2^last
      total += static_cast<Wide>(k < 0 ? -k : k) * static_cast<Wide>(k < 0 ? -k : k);
    }
    return dyadic(total, 2 * last);
  }
  Real total(0.0, std::max<mpfr_prec_t>(bits, 53)), term(std::max<mpfr_prec_t>(bits, 53));
  int rounded = 0;
  for (std::int64_t j = 0; j < cols; ++j) {
    const Sum h = row_value(c, row, j);
    rounded |= mpfr_set_d(term.get(), h.a, MPFR_RNDN);
    if (h.b != 0) rounded |= mpfr_add_d(term.get(), term.get(), h.b, MPFR_RNDN);
    rounded |= mpfr_sqr(term.get(), term.get(), MPFR_RNDN);
    rounded |= mpfr_add(total.get(), total.get(), term.get(), MPFR_RNDN);
  }
  if (rounded != 0) throw std::logic_error("the sum of squares was rounded");
  return Dyadic(std::move(total));
}

int sign_of(int value) { return (value > 0) - (value < 0); }

// The sign of A r - c.
int compare_linear(const Row& row, const Dyadic& a, const Dyadic& c) {
  return compare(row.root, row.kind == RowKind::infinite ? Dyadic(0.0) : a, c);
}

Column column(const Call& c, const Row& row, std::int64_t r, std::int64_t j) {
  Column k;
  k.h = row_value(c, r, j);
  k.w = factor(c, j);
  k.negative = k.h.negative() != k.w.negative();
  if (c.bias != nullptr) k.bias = c.bias->value(j);
  const bool r_is_zero = row.kind == RowKind::infinite;
  const double b = k.bias.value_or(0.0);
  if (row.kind == RowKind::nan || k.w.is_nan() || std::isnan(b)) {
    k.kind = Column::Kind::nan;
  } else if (r_is_zero && (k.h.is_infinite() || k.w.is_infinite())) {
    k.kind = Column::Kind::nan;  // Inf * 0
  } else if (k.w.is_infinite()) {
    k.kind =
        k.h.is_zero() || (std::isinf(b) && std::signbit(b) != k.negative) ? Column::Kind::nan : Column::Kind::infinite;
  } else if (std::isinf(b)) {
    k.kind = Column::Kind::infinite;
    k.negative = std::signbit(b);
  }
  return k;
}

Dyadic slope(const Row& row, const Column& k) {
  return row.kind == RowKind::infinite ? Dyadic(0.0) : k.w.exact() * k.h.exact();
}
Dyadic shift(const Column& k) { return Dyadic(k.bias.value_or(0.0)); }

// q = A r, reusing the memory of `q` and `product`.
void enclose_product(const Row& row, const Column& k, Real& product, Interval& q) {
  const mpfr_prec_t bits = q.bits();
  if (row.kind == RowKind::infinite || k.h.is_zero() || k.w.is_zero()) {
    mpfr_set_zero(q.lo.get(), k.negative ? -1 : 1);
    mpfr_set_zero(q.hi.get(), k.negative ? -1 : 1);
    return;
  }
  const std::optional<double> w = k.w.single(), h = k.h.single();
  if (!w || !h) {
    q = mul(Interval(slope(row, k), bits), row.r);
    return;
  }
  mpfr_set_d(product.get(), *h, MPFR_RNDN);
  mpfr_mul_d(product.get(), product.get(), *w, MPFR_RNDN);  // exact: 106 bits
  mpfr_mul(q.lo.get(), product.get(), k.negative ? row.r.hi.get() : row.r.lo.get(), MPFR_RNDD);
  mpfr_mul(q.hi.get(), product.get(), k.negative ? row.r.lo.get() : row.r.hi.get(), MPFR_RNDU);
}

// r as hi + lo with a radius.
struct Root {
  double hi, lo, radius;
  bool usual;  ///< far from binary64's limits
};
Root root_of(const Row& row) {
  const Enclosure e = enclosure_of(row.r);
  return {e.hi, e.lo, e.radius, row.kind == RowKind::real && e.hi > 0x1p-400 && e.hi < 0x1p400};
}

// q = w h r by error-free transformations where the operands are single numbers of usual size; radius below
// 2^-102 |q|. With u = 2^-53, p + pe = w h exactly, a + b = p r_hi exactly, the rest
//
//   p r_lo + pe r_hi + pe r_lo
//
// is at most 2u |a| and is computed with errors u^2 |a| (first product), 2u^2 |a| (fma), u^2 |a| (last term
// dropped); adding b (u |a|) errs by 3u^2 |a|: 7 u^2 |a|, taken as 8 u^2 = 2^-103. A dyadic r has none of them.
std::optional<Enclosure> multiply(const Root& r, const Column& k) {
  const std::optional<double> w = k.w.single(), h = k.h.single();
  if (!r.usual || !w || !h) return std::nullopt;
  const double p = *w * *h;
  if (!(std::fabs(p) > 0x1p-500 && std::fabs(p) < 0x1p500)) return std::nullopt;
  const double pe = std::fma(*w, *h, -p);
  const double a = p * r.hi;
  const double b = std::fma(p, r.hi, -a);
  const double rest = b + std::fma(pe, r.hi, p * r.lo);
  const bool exact = pe == 0 && r.lo == 0;
  Enclosure e;
  e.hi = a + rest;
  e.lo = rest - (e.hi - a);
  e.radius = (std::fabs(p) * r.radius + (exact ? 0.0 : 0x1p-103 * std::fabs(a))) * (1 + 0x1p-40);
  e.magnitude = std::fabs(e.hi);
  return e;
}

// n = q + bias in place; a bias of -0 and 0 as in IEEE addition.
void add_bias(const Column& k, Interval& q) {
  if (!k.bias) return;
  if (mpfr_zero_p(q.lo.get()) != 0 && mpfr_zero_p(q.hi.get()) != 0) {
    const bool negative = k.negative && std::signbit(*k.bias);
    q = Interval(*k.bias == 0 ? (negative ? -0.0 : 0.0) : *k.bias, q.bits());
    return;
  }
  mpfr_add_d(q.lo.get(), q.lo.get(), *k.bias, MPFR_RNDD);
  mpfr_add_d(q.hi.get(), q.hi.get(), *k.bias, MPFR_RNDU);
}

// The sign of n, exactly.
int sign_of_value(const Row& row, const Column& k) {
  return compare_linear(row, slope(row, k), -shift(k));
}

// Finds the column of the largest |n| and which of the three rules sets the scale; all exactly.
void find_scale(const Call& c, std::int64_t r, mpfr_prec_t bits, Row& row) {
  row.scale_kind = ScaleKind::nan;
  row.scale = Interval(bits);
  if (row.kind == RowKind::nan) return;
  const std::int64_t cols = c.x->cols();
  Interval n(bits), best(-1.0, bits);
  Real product(bits);
  bool infinite = false;
  std::int64_t largest = -1;
  Dyadic a_best, b_best;  // of |n|
  for (std::int64_t j = 0; j < cols; ++j) {
    const Column k = column(c, row, r, j);
    if (k.kind == Column::Kind::nan) return;
    infinite = infinite || k.kind == Column::Kind::infinite;
    if (infinite) continue;
    enclose_product(row, k, product, n);
    add_bias(k, n);
    const Interval magnitude = abs(n);
    if (largest >= 0 && mpfr_less_p(magnitude.hi.get(), best.lo.get()) != 0) continue;
    const int sign = sign_of_value(row, k) < 0 ? -1 : 1;
    const Dyadic a = sign < 0 ? -slope(row, k) : slope(row, k);
    const Dyadic b = sign < 0 ? -shift(k) : shift(k);
    const bool clear = largest < 0 || mpfr_greater_p(magnitude.lo.get(), best.hi.get()) != 0;
    if (!clear && compare_linear(row, a - a_best, b_best - b) <= 0) continue;
    largest = j;
    row.largest_sign = sign;
    a_best = a;
    b_best = b;
    best = magnitude;
  }
  const Interval q(c.quant_max, bits);
  const Dyadic least = Dyadic(c.scale_floor) * Dyadic(c.quant_max);
  const bool capped = std::isfinite(c.scale_cap);
  if (infinite && !capped) {
    row.scale_kind = ScaleKind::infinite;
    row.scale = Interval(kInfinity, bits);
  } else if (infinite || (capped && compare_linear(row, a_best, Dyadic(c.scale_cap) - b_best) > 0)) {
    row.scale_kind = order(Dyadic(c.scale_cap), least) >= 0 ? ScaleKind::cap : ScaleKind::floor;
  } else {
    row.scale_kind = compare_linear(row, a_best, least - b_best) >= 0 ? ScaleKind::largest : ScaleKind::floor;
  }
  row.largest = largest;
  if (row.scale_kind == ScaleKind::largest) row.scale = div(best, q);
  if (row.scale_kind == ScaleKind::cap) row.scale = div(Interval(c.scale_cap, bits), q);
  if (row.scale_kind == ScaleKind::floor) row.scale = Interval(c.scale_floor, bits);
}

// Two roundings a product and one root stay far below 2^-100 in 128 bits; only a scale that is the largest of
// n = q + bias can cancel, and is then evaluated again with more.
constexpr mpfr_prec_t kRowBits = 128;
constexpr mpfr_prec_t kMostRowBits = 8192;

Row read_row(const Call& c, std::int64_t r, mpfr_prec_t bits) {
  Row row(bits);
  for (std::int64_t j = 0; j < c.x->cols() && row.kind != RowKind::nan; ++j) {
    const Sum h = row_value(c, r, j);
    if (h.is_nan())
      row.kind = RowKind::nan;
    else if (h.is_infinite())
      row.kind = RowKind::infinite;
  }
  if (row.kind == RowKind::real) {
    row.root = {.place = c.eps_place,
                .eps = c.eps,
                .count = static_cast<double>(c.x->cols()),
                .total = sum_of_squares(c, r)};
    const bool no_eps = c.eps == 0 || c.eps_place == EpsPlace::none;
    if (row.root.total.sign() == 0 && no_eps)
      row.kind = RowKind::nan;  // 0/0
    else
      row.r = enclose(row.root, bits);
  }
  switch (c.quant) {
    case Quant::none: break;
    case Quant::fixed:
      row.scale_kind = ScaleKind::fixed;
      row.scale = Interval(c.scale, bits);
      break;
    case Quant::per_token: find_scale(c, r, bits, row); break;
  }
  if (row.scale_kind == ScaleKind::largest && bits < kMostRowBits && !is_tight(row.scale, row.scale))
    return read_row(c, r, 2 * bits);
  return row;
}

// ---- the truth of one output ----

class RmsnormTruth final : public TruthSource {
 public:
  RmsnormTruth(const Call& call, Output output) : call_(call), output_(output) {}

  std::int64_t rows() const override { return call_.x->rows(); }
  std::int64_t cols() const override { return output_ == Output::scale ? 1 : call_.x->cols(); }

  void enclose_row(std::int64_t r, std::span<Enclosure> out) const override {
    if (output_ == Output::residual) {
      for (std::int64_t j = 0; j < cols(); ++j) out[static_cast<std::size_t>(j)] = enclose_sum(row_value(call_, r, j));
      return;
    }
    const std::shared_ptr<const Row> row = row_at(r);
    if (output_ == Output::scale) {
      out[0] = enclosure_of(row->scale);
      return;
    }
    const mpfr_prec_t bits = row->r.bits();
    const Root root = root_of(*row);
    Real product(bits);
    Interval n(bits), terms(bits);
    for (std::int64_t j = 0; j < cols(); ++j) {
      const Column k = column(call_, *row, r, j);
      std::optional<Enclosure> e;
      if (k.kind == Column::Kind::real && !k.bias && !divides()) e = multiply(root, k);
      if (!e) e = enclose(*row, k, j, product, n, terms);
      // |lo| <= radius: y may be the binary64 number hi; if it is, it is handed out exactly.
      if (e->radius > 0 && std::fabs(e->lo) <= e->radius && compare(r, j, e->hi, 0) == Comparison::equal)
        e = {.hi = e->hi, .lo = 0, .radius = 0, .magnitude = e->magnitude};
      out[static_cast<std::size_t>(j)] = *e;
    }
  }

  Comparison compare(std::int64_t r, std::int64_t j, double m_hi, double m_lo) const override {
    const Dyadic m = Dyadic(m_hi) + Dyadic(m_lo);
    if (output_ == Output::residual) {
      const Sum h = row_value(call_, r, j);
      if (h.is_nan() || h.is_infinite()) return Comparison::undecided;
      return comparison(order(h.exact(), m));
    }
    const std::shared_ptr<const Row> row = row_at(r);
    return output_ == Output::scale ? compare_scale(*row, r, m) : compare_value(*row, r, j, m);
  }

 private:
  static Comparison comparison(int sign) { return static_cast<Comparison>(sign_of(sign)); }

  static Enclosure enclose_sum(const Sum& h) {
    if (h.is_nan()) return {.hi = kNaN, .lo = 0, .radius = 0, .magnitude = kNaN};
    if (h.is_infinite()) return {.hi = h.a + h.b, .lo = 0, .radius = 0, .magnitude = kInfinity};
    const double s = h.a + h.b;
    const double t = s - h.a;
    Enclosure e{.hi = s, .lo = (h.a - (s - t)) + (h.b - t), .radius = 0, .magnitude = 0};
    if (std::isinf(s)) e = {.hi = std::copysign(std::numeric_limits<double>::max(), s), .lo = 0, .radius = kInfinity};
    e.magnitude = std::fabs(h.a) + std::fabs(h.b);
    return e;
  }

  // What n is divided by: 1 for the norm itself.
  bool divides() const { return output_ == Output::y && call_.quant != Quant::none; }

  Enclosure enclose(const Row& row, const Column& k, std::int64_t j, Real& product, Interval& n,
                    Interval& terms) const {
    const mpfr_prec_t bits = n.bits();
    if (k.kind != Column::Kind::real) {
      const Interval value(k.kind == Column::Kind::nan ? kNaN : k.negative ? -kInfinity : kInfinity, bits);
      return enclosure_of(divides() ? div(value, row.scale) : value);
    }
    enclose_product(row, k, product, n);
    if (k.bias) {
      terms = abs(n);
      mpfr_add_d(terms.lo.get(), terms.lo.get(), std::fabs(*k.bias), MPFR_RNDD);
      mpfr_add_d(terms.hi.get(), terms.hi.get(), std::fabs(*k.bias), MPFR_RNDU);
      add_bias(k, n);
      const bool straddles = mpfr_sgn(n.lo.get()) <= 0 && mpfr_sgn(n.hi.get()) >= 0 && !n.is_point();
      if (straddles && sign_of_value(row, k) == 0) n = Interval(0.0, bits);
    }
    if (divides()) {
      // The largest is n / (|n| / Q), exactly +-Q.
      const bool is_largest = row.scale_kind == ScaleKind::largest && j == row.largest && is_positive(row.scale);
      n = is_largest ? Interval(row.largest_sign * call_.quant_max, bits) : div(n, row.scale);
      terms = div(terms, row.scale);
    }
    Enclosure e = enclosure_of(n);
    if (k.bias) e.magnitude = magnitude_of(terms);
    return e;
  }

  static bool is_positive(const Interval& value) { return value.is_real() && mpfr_sgn(value.lo.get()) > 0; }

  Comparison compare_value(const Row& row, std::int64_t r, std::int64_t j, const Dyadic& m) const {
    const Column k = column(call_, row, r, j);
    if (k.kind != Column::Kind::real) return Comparison::undecided;
    const Dyadic a = slope(row, k), b = shift(k);
    const ScaleKind kind = divides() ? row.scale_kind : ScaleKind::one;
    const Dyadic q(call_.quant_max);
    switch (kind) {
      case ScaleKind::one: return comparison(compare_linear(row, a, m - b));
      case ScaleKind::fixed: return comparison(compare_linear(row, a, m * Dyadic(call_.scale) - b));
      case ScaleKind::floor:
        if (call_.scale_floor == 0) return Comparison::undecided;  // 0/0
        return comparison(compare_linear(row, a, m * Dyadic(call_.scale_floor) - b));
      case ScaleKind::cap: return comparison(compare_linear(row, a * q, m * Dyadic(call_.scale_cap) - b * q));
      case ScaleKind::largest: {
        const auto [a_top, b_top] = largest(row, r);
        if (compare_linear(row, a_top, -b_top) == 0) return Comparison::undecided;  // 0/0
        return comparison(compare_linear(row, a * q - m * a_top, m * b_top - b * q));
      }
      case ScaleKind::infinite: return comparison(-m.sign());
      case ScaleKind::nan: return Comparison::undecided;
    }
    std::abort();
  }

  Comparison compare_scale(const Row& row, std::int64_t r, const Dyadic& m) const {
    const Dyadic q(call_.quant_max);
    switch (row.scale_kind) {
      case ScaleKind::fixed: return comparison(order(Dyadic(call_.scale), m));
      case ScaleKind::floor: return comparison(order(Dyadic(call_.scale_floor), m));
      case ScaleKind::cap: return comparison(order(Dyadic(call_.scale_cap), m * q));
      case ScaleKind::largest: {
        const auto [a_top, b_top] = largest(row, r);
        return comparison(compare_linear(row, a_top, m * q - b_top));
      }
      case ScaleKind::one:
      case ScaleKind::infinite:
      case ScaleKind::nan: return Comparison::undecided;
    }
    std::abort();
  }

  // |n| of the row's largest as A r + b.
  std::pair<Dyadic, Dyadic> largest(const Row& row, std::int64_t r) const {
    const Column k = column(call_, row, r, row.largest);
    if (row.largest_sign < 0) return {-slope(row, k), -shift(k)};
    return {slope(row, k), shift(k)};
  }

  // Rows come in runs of comparisons, from several threads at once.
  std::shared_ptr<const Row> row_at(std::int64_t r) const {
    Slot& slot = slots_[static_cast<std::size_t>(r) % slots_.size()];
    {
      const std::lock_guard lock(mutex_);
      if (slot.row == r && slot.value != nullptr) return slot.value;
    }
    auto value = std::make_shared<const Row>(read_row(call_, r, kRowBits));
    const std::lock_guard lock(mutex_);
    slot = {r, value};
    return value;
  }

  struct Slot {
    std::int64_t row = -1;
    std::shared_ptr<const Row> value;
  };
  Call call_;
  Output output_;
  mutable std::mutex mutex_;
  mutable std::array<Slot, 16> slots_;
};

void check(const NormCall& call) { static_cast<void>(read_call(call)); }

std::unique_ptr<TruthSource> truth(const NormCall& call, std::string_view name) {
  const Call c = read_call(call);
  const auto found = std::find(kOutputs.begin(), kOutputs.end(), name);
  if (found == kOutputs.end())
    throw NormError("rmsnorm: there is no output " + std::string(name) + "; known: y, dequantized, residual, scale.");
  const auto output = static_cast<Output>(found - kOutputs.begin());
  if (output == Output::residual && c.residual == nullptr)
    throw NormError("rmsnorm: the output residual needs the input residual.");
  if ((output == Output::scale || output == Output::dequantized) && c.quant == Quant::none)
    throw NormError("rmsnorm: the output " + std::string(name) + " needs quant=static or quant=per_token.");
  return std::make_unique<RmsnormTruth>(c, output);
}

}  // namespace

constinit const NormDef rmsnorm{
    .name = "rmsnorm",
    .title = "Root-mean-square normalization",
    .formula = "h = x + residual; y = (weight_offset + weight) h / sqrt(mean(h^2) + eps) + bias",
    .source = "Zhang & Sennrich, Root Mean Square Layer Normalization, 2019",
    .inputs = kInputs,
    .attributes = kAttributes,
    .outputs = kOutputs,
    .check = check,
    .truth = truth,
};

}  // namespace norma

// Rows of an affine norm, exactly.
#include "reference/norms/affine.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Two roundings a product and one root stay far below 2^-100 in 128 bits.
constexpr mpfr_prec_t kRowBits = 128;

/// Groups of several rows are all kept, for rows come in the order of memory; of single rows, the last few.
constexpr std::int64_t kFewRows = 16, kManyGroups = 1 << 16;

bool needs_total(const Root& root) { return root.eps == 0 || root.place == EpsPlace::none; }

Sum parameter(const Parameter& p, std::int64_t row, std::int64_t col) {
  if (p.tensor == nullptr) return {1.0, kNeutral};
  return {p.tensor->value(p.index.at(row, col)), p.offset == 0 ? kNeutral : p.offset};
}

/// r = 1 / sqrt(v + eps) by IEEE rules: 0 for an infinite v, infinite for 0, NaN below.
void read_given(const RowNorm& norm, std::int64_t group, AffineFactor& f) {
  const double variance = norm.variance->value(group);
  f.given_centre = norm.mean == nullptr ? 0.0 : norm.mean->value(group);
  if (std::isnan(variance) || std::isnan(f.given_centre) || variance == -kInfinity) return;
  if (std::isfinite(f.given_centre)) f.centre = Dyadic(f.given_centre);
  f.kind = AffineFactor::Kind::zero;
  if (std::isinf(variance)) return;
  const bool eps_joins = norm.eps_place == EpsPlace::inside || norm.eps_place == EpsPlace::sum;
  f.root = {.place = eps_joins ? EpsPlace::none : norm.eps_place,
            .eps = norm.eps,
            .count = norm.count,
            .total = eps_joins ? Dyadic(variance) + Dyadic(norm.count) * norm.eps : Dyadic(variance)};
  const int sign = f.root.total.sign();
  f.kind = sign < 0                           ? AffineFactor::Kind::nan
           : sign == 0 && needs_total(f.root) ? AffineFactor::Kind::infinite
                                              : AffineFactor::Kind::real;
}

void read_squares(const RowNorm& norm, const ExactSums& sums, AffineFactor& f) {
  if (sums.nan) return;
  f.kind = AffineFactor::Kind::zero;
  if (!sums.finite()) return;
  f.root = {.place = norm.eps_place, .eps = norm.eps, .count = norm.count, .total = sums.squares};
  f.kind = sums.squares.sign() == 0 && needs_total(f.root) ? AffineFactor::Kind::nan : AffineFactor::Kind::real;
}

void read_moments(const RowNorm& norm, const ExactSums& sums, double n, AffineFactor& f) {
  if (!sums.finite()) return;
  // S = (n sum h^2 - (sum h)^2) / n, and S / count = total / (n count).
  f.root = {.place = norm.eps_place,
            .eps = norm.eps,
            .count = Dyadic(n) * norm.count,
            .total = Dyadic(n) * sums.squares - square(sums.sum)};
  if (norm.eps_place == EpsPlace::sum) {
    f.root.place = EpsPlace::inside;
    f.root.count = n;
  }
  f.denominator = n;
  f.centre = sums.sum;
  f.ordinary = sums.ordinary;
  f.unit = sums.unit;
  f.units = sums.units;
  f.kind = f.root.total.sign() == 0 && needs_total(f.root) ? AffineFactor::Kind::nan : AffineFactor::Kind::real;
}

}  // namespace

AffineRows::AffineRows(const RowNorm& norm) : norm_(norm) {
  if (norm.statistics == Statistics::moments && norm.eps_place == EpsPlace::l2max)
    throw std::logic_error("l2max is a form of squares");
  slots_.resize(static_cast<std::size_t>(norm.groups == norm.rows ? kFewRows : std::min(norm.groups, kManyGroups)));
}

AffineFactor AffineRows::read_factor(std::int64_t row, mpfr_prec_t bits) const {
  const std::int64_t group = row % norm_.groups;
  AffineFactor f(bits);
  if (norm_.statistics == Statistics::given) {
    read_given(norm_, group, f);
  } else {
    const GroupElements elements{.x = norm_.x,
                                 .residual = norm_.residual,
                                 .rows = norm_.rows,
                                 .cols = norm_.cols,
                                 .groups = norm_.groups,
                                 .group = group};
    const ExactSums sums = exact_sums(elements);
    if (norm_.statistics == Statistics::squares)
      read_squares(norm_, sums, f);
    else
      read_moments(norm_, sums, static_cast<double>(elements.count()), f);
  }
  if (f.kind != AffineFactor::Kind::real) return f;
  f.r = norma::enclose(f.root, bits);
  if (f.denominator != 1) f.r = div(f.r, Interval(f.denominator, bits));
  const Enclosure e = enclosure_of(f.r);
  if (e.hi > 0x1p-400 && e.hi < 0x1p400) f.pair = {e.hi, e.lo, e.radius};
  return f;
}

std::shared_ptr<const AffineFactor> AffineRows::factor(std::int64_t row) const {
  const std::int64_t group = row % norm_.groups;
  Slot& slot = slots_[static_cast<std::size_t>(group) % slots_.size()];
  {
    const std::lock_guard lock(mutex_);
    if (slot.group == group) return slot.value;
  }
  auto value = std::make_shared<const AffineFactor>(read_factor(row, kRowBits));
  const std::lock_guard lock(mutex_);
  slot = {group, value};
  return value;
}

/// D h - T, without big numbers where that can be.
struct AffineRows::Difference {
  bool nan = false, infinite = false, negative = false, zero = false;
  std::optional<AffineElement::Pair> pair{};
};

AffineRows::Difference AffineRows::difference(const AffineFactor& f, const Sum& h) const {
  Difference d;
  d.nan = h.is_nan();
  d.infinite = h.is_infinite();
  d.negative = h.negative();
  if (d.nan) return d;
  const std::optional<double> single = h.single();
  switch (norm_.statistics) {
    case Statistics::squares:
      d.zero = h.is_zero();
      if (single) d.pair = {*single, 0};
      return d;
    case Statistics::given: {
      const double centre = f.given_centre;
      if (std::isinf(centre)) {
        d.nan = d.infinite && d.negative == std::signbit(centre);
        if (!d.infinite) d.negative = !std::signbit(centre);
        d.infinite = true;
        return d;
      }
      if (d.infinite) return d;
      if (single && std::fabs(*single) < 0x1p1000 && std::fabs(centre) < 0x1p1000) {
        const double s = *single - centre;
        const double t = s - *single;
        d.zero = s == 0;
        d.negative = std::signbit(s);
        d.pair = {s, (*single - (s - t)) - (centre + t)};
        return d;
      }
      break;
    }
    case Statistics::moments:
      if (f.ordinary) {
        const auto k = static_cast<std::int64_t>(std::ldexp(h.a + h.b, -f.unit));
        const Wide v = static_cast<Wide>(static_cast<std::int64_t>(f.denominator)) * k - f.units;
        d.negative = v == 0 ? h.is_zero() && h.negative() : v < 0;
        d.zero = v == 0;
        // |v| < D 2^54, so that what hi leaves is below D 2 and lo exact.
        const auto hi = static_cast<double>(v);
        const auto lo = static_cast<double>(v - static_cast<Wide>(hi));
        d.pair = {std::ldexp(hi, f.unit), std::ldexp(lo, f.unit)};
        return d;
      }
      break;
  }
  const int sign = order(Dyadic(f.denominator) * h.exact(), f.centre);
  d.zero = sign == 0;
  d.negative = d.zero ? h.is_zero() && h.negative() && !f.centre.negative() : sign < 0;
  return d;
}

AffineElement AffineRows::element(const AffineFactor& f, std::int64_t row, std::int64_t col) const {
  const std::int64_t i = row * norm_.cols + col;
  AffineElement e;
  e.h = {norm_.x->value(i), norm_.residual == nullptr ? kNeutral : norm_.residual->value(i)};
  e.weight = parameter(norm_.weight, row, col);
  e.scale = parameter(norm_.scale, row, col);
  if (norm_.bias.tensor != nullptr) {
    // A bias of two terms would be three with q; no norm has one.
    if (norm_.bias.offset != 0) throw std::logic_error("a bias has no offset");
    e.bias = norm_.bias.tensor->value(norm_.bias.index.at(row, col));
  }
  const double b = e.bias.value_or(0.0);
  e.kind = AffineElement::Kind::nan;
  if (f.kind == AffineFactor::Kind::nan || e.weight.is_nan() || e.scale.is_nan() || std::isnan(b)) return e;
  const Difference d = difference(f, e.h);
  if (d.nan) return e;
  e.difference = d.pair;
  e.negative = (e.weight.negative() != e.scale.negative()) != d.negative;
  const bool infinite =
      f.kind == AffineFactor::Kind::infinite || d.infinite || e.weight.is_infinite() || e.scale.is_infinite();
  e.zero = f.kind == AffineFactor::Kind::zero || d.zero || e.weight.is_zero() || e.scale.is_zero();
  if (infinite && e.zero) return e;                                          // Inf 0
  if (infinite && std::isinf(b) && std::signbit(b) != e.negative) return e;  // Inf - Inf
  e.kind = AffineElement::Kind::real;
  if (!infinite && !std::isinf(b)) return e;
  e.kind = AffineElement::Kind::infinite;
  if (!infinite) e.negative = std::signbit(b);
  return e;
}

Dyadic AffineRows::slope(const AffineFactor& f, const AffineElement& e) const {
  if (e.zero) return {};
  Dyadic a = f.denominator == 1 ? e.h.exact() : Dyadic(f.denominator) * e.h.exact();
  if (norm_.statistics != Statistics::squares) a = a - f.centre;
  a = a * e.weight.exact();
  return norm_.scale.tensor == nullptr ? a : a * e.scale.exact();
}

int AffineRows::compare(const AffineFactor& f, const Dyadic& a, const Dyadic& c) {
  return norma::compare(f.root, f.kind == AffineFactor::Kind::zero ? Dyadic() : a, Dyadic(f.denominator) * c);
}

int AffineRows::compare_value(const AffineFactor& f, const AffineElement& e, const Dyadic& m) const {
  return compare(f, slope(f, e), m - shift(e));
}

AffineRows::Value AffineRows::value(const AffineFactor& f, const AffineElement& e) const {
  const mpfr_prec_t bits = f.r.bits();
  if (e.kind == AffineElement::Kind::nan) return {Interval(bits), Interval(bits)};
  if (e.kind == AffineElement::Kind::infinite)
    return {Interval(e.negative ? -kInfinity : kInfinity, bits), Interval(kInfinity, bits)};
  if (e.zero) {
    // IEEE addition of a zero and the bias.
    const double y = (e.negative ? -0.0 : 0.0) + e.bias.value_or(kNeutral);
    return {Interval(y, bits), Interval(std::fabs(y), bits)};
  }
  const Interval q = mul(Interval(slope(f, e), bits), f.r);
  if (!e.bias) return {q, norma::abs(q)};
  return {add(q, Interval(*e.bias, bits)), add(norma::abs(q), Interval(std::fabs(*e.bias), bits))};
}

// y = w s d r + b by error-free transformations where the operands are numbers of usual size. With u = 2^-53,
// d = D h - T = hi + lo, r to its radius r_hi + r_lo, p + pe = w s hi and a + e = p r_hi exactly:
//
//   g = pe + w s lo                  errs by u |w s lo| + u |g| <= 3u^2 |p|
//   rest = e + (g r_hi + p r_lo)     the product errs by u^2 |a|, the fma by 3u^2 |a|, the last sum by 4u^2 |a|;
//                                    g r_lo, at most 2u^2 |a|, is left out
//
// 13u^2 |a| and terms of third order: taken as 16u^2 |a| = 2^-102 |a|; nothing where pe, lo and r_lo are 0. The bias is
// added by TwoSum, what that leaves and the low part are rounded once.
std::optional<Enclosure> AffineRows::multiply(const AffineFactor& f, const AffineElement& e) const {
  const auto usual = [](double v) { return std::fabs(v) > 0x1p-500 && std::fabs(v) < 0x1p500; };
  const std::optional<double> w = e.weight.single(), s = e.scale.single();
  if (!f.pair || !e.difference || !w || !s) return std::nullopt;
  const double ws = *w * *s;
  if (!usual(ws) || std::fma(*w, *s, -ws) != 0) return std::nullopt;
  const auto [d_hi, d_lo] = *e.difference;
  const double p = ws * d_hi;
  if (!usual(d_hi) || !usual(p) || std::fabs(e.bias.value_or(0.0)) > 0x1p900) return std::nullopt;
  const double pe = std::fma(ws, d_hi, -p);
  const AffineFactor::Pair& r = *f.pair;
  const double a = p * r.hi;
  const double g = pe + ws * d_lo;
  const double rest = std::fma(p, r.hi, -a) + std::fma(g, r.hi, p * r.lo);
  const bool exact = pe == 0 && d_lo == 0 && r.lo == 0;
  double hi = a + rest;
  double lo = rest - (hi - a);
  double radius = std::fabs(p) * r.radius + (exact ? 0.0 : 0x1p-102 * std::fabs(a));
  double magnitude = std::fabs(hi);
  if (e.bias) {
    const double b = *e.bias;
    // |q| + |b| with q's low part, so that it is rounded once where it lies beside a half-way point.
    const double whole = magnitude + std::fabs(b), other = whole - magnitude;
    const double left = (magnitude - (whole - other)) + (std::fabs(b) - other);
    magnitude = whole + (left + (hi < 0 ? -lo : lo));
    const double sum = hi + b, b_part = sum - hi;
    const double t = (hi - (sum - b_part)) + (b - b_part);
    const double v = t + lo;
    if (t != 0 && lo != 0) radius += 0x1p-53 * std::fabs(v);
    hi = sum + v;
    const double v_part = hi - sum;
    lo = (sum - (hi - v_part)) + (v - v_part);
  }
  return Enclosure{.hi = hi, .lo = lo, .radius = radius * (1 + 0x1p-40), .magnitude = magnitude};
}

Enclosure AffineRows::enclose(const AffineFactor& f, const AffineElement& e) const {
  std::optional<Enclosure> found;
  if (e.kind == AffineElement::Kind::real && !e.zero) found = multiply(f, e);
  if (!found) {
    const Value v = value(f, e);
    found = enclosure_of(v.y);
    found->magnitude = magnitude_of(v.terms);
  }
  if (found->radius == 0 || !std::isfinite(found->radius)) return *found;
  // y may be the binary64 number hi, or 0; if it is, it is handed out exactly.
  const auto equals = [&](double m) { return compare_value(f, e, Dyadic(m)) == 0; };
  if (std::fabs(found->lo) <= found->radius && equals(found->hi)) {
    found->lo = found->radius = 0;
  } else if (std::fabs(found->hi) <= found->radius + std::fabs(found->lo) && equals(0)) {
    found->hi = found->lo = found->radius = 0;
  }
  return *found;
}

namespace {

class AffineTruth final : public TruthSource {
 public:
  explicit AffineTruth(const RowNorm& norm) : rows_(norm) {}

  std::int64_t rows() const override { return rows_.norm().rows; }
  std::int64_t cols() const override { return rows_.norm().cols; }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    const auto f = rows_.factor(row);
    for (std::int64_t j = 0; j < cols(); ++j)
      out[static_cast<std::size_t>(j)] = rows_.enclose(*f, rows_.element(*f, row, j));
  }

  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    const auto f = rows_.factor(row);
    return rows_.enclose(*f, rows_.element(*f, row, col));
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    const auto f = rows_.factor(row);
    const AffineElement e = rows_.element(*f, row, col);
    if (e.kind != AffineElement::Kind::real) return Comparison::undecided;
    const int sign = rows_.compare_value(*f, e, Dyadic(m_hi) + Dyadic(m_lo));
    return static_cast<Comparison>((sign > 0) - (sign < 0));
  }

 private:
  AffineRows rows_;
};

}  // namespace

std::unique_ptr<TruthSource> affine_truth(const RowNorm& norm) { return std::make_unique<AffineTruth>(norm); }

}  // namespace norma

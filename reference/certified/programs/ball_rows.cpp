// Loops over balls that vectorize.
#include "reference/certified/programs/ball_rows.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <span>

#include "reference/certified/functions/functions.hpp"
#include "reference/certified/functions/turn.hpp"
#include "reference/exact/elementary.hpp"
#include "reference/formats/clones.hpp"

namespace norma {

namespace {

// ---- the functions: one element after the other ----

/// e^v for |v - X| <= R <= 1: |e^v - e^X| <= e^X R (1 + R). Below 2^-893 only that.
Ball exp_of(const Ball& x) {
  if (!(x.r < ball::kInfinity)) return x;
  if (!ball::is_finite(x.h)) return {x.h < 0 ? 0 : x.h, 0, 0};
  if (x.h == 0 && x.r == 0) return {1, 0, 0};
  if (x.r > 1 || x.h > 620) return {0, 0, ball::kInfinity};
  if (x.h < -620) return {0, 0, 0x1p-892};
  const DoubleDouble y = evaluate(Function::exp, DoubleDouble{x.h, x.l});
  const double z = y.h * (1 + 0x1p-50);
  return {y.h, y.l, ball::padded(z * (x.r * (1 + x.r)) + z * (2 * function_bound_dd(Function::exp)))};
}

/// tanh' = 1 - tanh^2 is largest where |tanh| is least: t <= |tanh v| for |v - X| <= R. Beyond 350 1 - tanh < 2^-1000.
Ball tanh_of(const Ball& x) {
  if (!(x.r < ball::kInfinity) || x.h != x.h) return x;
  const double sign = std::copysign(1.0, x.h);
  if (!ball::is_finite(x.h)) return {sign, 0, 0};
  if (x.h == 0 && x.r == 0) return x;
  if (x.r > 1) return {0, 0, 2};
  if (std::fabs(x.h) > 360) return {sign, 0, 0x1p-990};
  const double bound = function_bound_dd(Function::tanh);
  const DoubleDouble y = evaluate(Function::tanh, DoubleDouble{x.h, x.l});
  const double z = std::fabs(y.h) * (1 + 0x1p-50);
  const double t = std::fmax(0.0, std::fabs(y.h) * (1 - 0x1p-50) - x.r);
  return {y.h, y.l, ball::padded(x.r * ((1 - t) + 0x1p-50) * (1 + t) + z * (2 * bound))};
}

/// erf' <= 2/sqrt(pi) < 1.1284. Beyond 30 1 - erf < 2^-1200.
Ball erf_of(const Ball& x) {
  if (!(x.r < ball::kInfinity) || x.h != x.h) return x;
  const double sign = std::copysign(1.0, x.h);
  if (!ball::is_finite(x.h)) return {sign, 0, 0};
  if (x.h == 0 && x.r == 0) return x;
  if (x.r > 1) return {0, 0, 2};
  if (std::fabs(x.h) > 31) return {sign, 0, 0x1p-990};
  const DoubleDouble y = evaluate(Function::erf, DoubleDouble{x.h, x.l});
  const double z = std::fabs(y.h) * (1 + 0x1p-50);
  return {y.h, y.l, ball::padded(1.1284 * x.r + z * (2 * function_bound_dd(Function::erf)))};
}

Ball function_of(Op op, const Ball& x) { return op == Op::exp ? exp_of(x) : op == Op::tanh ? tanh_of(x) : erf_of(x); }

/// Where a function's value may be below 2^-900 its double-double form has no relative bound.
Ball small_or(Op op, const Ball& x) {
  if (op != Op::exp && x.h != 0 && std::fabs(x.h) < ball::kLeast && x.r < ball::kInfinity)
    return {0, 0, ball::padded(1.13 * (std::fabs(x.h) + x.r))};
  return function_of(op, x);
}

/// |sin v - sin X| <= R max |cos| <= R (|cos X| + R), and with both exchanged. Beyond kLargestTurn only [-1, 1].
Ball turn_of(const Ball& x, bool cosine) {
  if (!(x.r < ball::kInfinity)) return x;
  if (!ball::is_finite(x.h)) return {std::nan(""), 0, 0};
  if (x.h == 0 && x.r == 0) return cosine ? Ball{1, 0, 0} : x;
  if (x.r > 1 || std::fabs(x.h) > kLargestTurn) return {0, 0, 1};
  const SineCosine turn = sine_cosine({x.h, x.l});
  const DoubleDouble &y = cosine ? turn.cosine : turn.sine, &other = cosine ? turn.sine : turn.cosine;
  const double slope = std::fmin(1.0, std::fabs(other.h) * (1 + 0x1p-50) + kTurnError + x.r);
  const double own = turn.small && !cosine ? kSmallSineError * std::fabs(y.h) * (1 + 0x1p-50) : kTurnError;
  return {y.h, y.l, ball::padded(x.r * slope + own)};
}
Ball sin_of(const Ball& x) {
  if (x.h != 0 && std::fabs(x.h) < ball::kLeast && x.r < ball::kInfinity)
    return {0, 0, ball::padded(1.01 * (std::fabs(x.h) + x.r))};
  return turn_of(x, false);
}
Ball cos_of(const Ball& x) { return turn_of(x, true); }

Interval interval_of(const Ball& x, mpfr_prec_t bits) { return Interval(Dyadic(x.h) + Dyadic(x.l), bits); }

/// At the midpoints by MPFR. With d >= |y ln x - Y ln X|: |x^y - X^Y| <= X^Y d (1 + d) for d <= 1, and
/// |ln x - ln X| <= Rx / (X - Rx).
Ball pow_of(const Ball& x, const Ball& y) {
  if (!(x.r < ball::kInfinity) || !(y.r < ball::kInfinity)) return {0, 0, ball::kInfinity};
  const bool positive = x.h > 0;
  if (!ball::is_finite(x.h) || !ball::is_finite(y.h) || (!positive && ball::is_clear(x))) return {std::nan(""), 0, 0};
  const double least = x.h * (1 - 0x1p-50) - x.r;
  if (!(least > 0)) return {0, 0, ball::kInfinity};
  constexpr mpfr_prec_t kBits = 256;
  const Enclosure e = enclosure_of(pow(interval_of(x, kBits), interval_of(y, kBits)));
  const double log = std::fabs(std::log(x.h)) * (1 + 0x1p-40) + 0x1p-40;
  const double d = y.r * log + (std::fabs(y.h) * (1 + 0x1p-50) + y.r) * (x.r / least);
  if (!(d <= 1) || !(e.radius < ball::kInfinity) || !ball::in_range(e.hi)) return {0, 0, ball::kInfinity};
  if (d == 0 && e.radius == 0) return {e.hi, e.lo, 0};
  const double padded = ball::padded(d);
  return {e.hi, e.lo, ball::padded(std::fabs(e.hi) * (1 + 0x1p-50) * (padded * (1 + padded)) + e.radius)};
}

// ---- the loops ----

#define NORMA_LOOP(name, value)                                                                                \
  NORMA_FMA_CLONES void loop_##name(                                                                           \
      [[maybe_unused]] const double* ah, [[maybe_unused]] const double* al, [[maybe_unused]] const double* ar, \
      [[maybe_unused]] const double* bh, [[maybe_unused]] const double* bl, [[maybe_unused]] const double* br, \
      double* __restrict h, double* __restrict l, double* __restrict r, std::size_t count) {                   \
    for (std::size_t i = 0; i < count; ++i) {                                                                  \
      const Ball a{ah[i], al[i], ar[i]};                                                                       \
      [[maybe_unused]] const Ball b{bh[i], bl[i], br[i]};                                                      \
      const Ball y = value;                                                                                    \
      h[i] = y.h;                                                                                              \
      l[i] = y.l;                                                                                              \
      r[i] = y.r;                                                                                              \
    }                                                                                                          \
  }
NORMA_LOOP(add, ball::add(a, b))
NORMA_LOOP(sub, ball::sub(a, b))
NORMA_LOOP(mul, ball::mul(a, b))
NORMA_LOOP(div, ball::div(a, b))
NORMA_LOOP(neg, ball::neg(a))
NORMA_LOOP(abs, ball::abs(a))
NORMA_LOOP(square, ball::square(a))
NORMA_LOOP(sqrt, ball::sqrt(a))
NORMA_LOOP(rsqrt, ball::rsqrt(a))
NORMA_LOOP(reciprocal, ball::reciprocal(a))
NORMA_LOOP(max, ball::max(a, b))
NORMA_LOOP(min, ball::min(a, b))
NORMA_LOOP(fmax, ball::fmax(a, b))
NORMA_LOOP(fmin, ball::fmin(a, b))
#undef NORMA_LOOP

using Loop = void (*)(const double*, const double*, const double*, const double*, const double*, const double*, double*,
                      double*, double*, std::size_t);

/// Null: one element after the other.
Loop loop_of(Op op) {
  switch (op) {
    case Op::add: return loop_add;
    case Op::sub: return loop_sub;
    case Op::mul: return loop_mul;
    case Op::div: return loop_div;
    case Op::neg: return loop_neg;
    case Op::abs: return loop_abs;
    case Op::square: return loop_square;
    case Op::sqrt: return loop_sqrt;
    case Op::rsqrt: return loop_rsqrt;
    case Op::reciprocal: return loop_reciprocal;
    case Op::max: return loop_max;
    case Op::min: return loop_min;
    case Op::fmax: return loop_fmax;
    case Op::fmin: return loop_fmin;
    case Op::cast:
    case Op::fma:
    case Op::exp:
    case Op::tanh:
    case Op::erf:
    case Op::sin:
    case Op::cos:
    case Op::pow:
    case Op::rotate:
    case Op::join:
    case Op::e8m0_up:
    case Op::nearest_e4m3:
    case Op::unless_zero: return nullptr;
  }
  std::abort();
}

constexpr std::size_t kLanes = BallSum::kLanes;

NORMA_FMA_CLONES void sum_blocks(const double* h, const double* l, const double* r, std::size_t blocks, double* hi,
                                 double* lo, double* radius, double* error) {
  double sh[kLanes], sl[kLanes], sr[kLanes], se[kLanes];
  for (std::size_t k = 0; k < kLanes; ++k) sh[k] = hi[k], sl[k] = lo[k], sr[k] = radius[k], se[k] = error[k];
  for (std::size_t i = 0; i < blocks; ++i)
    for (std::size_t k = 0; k < kLanes; ++k) {
      const std::size_t j = kLanes * i + k;
      const DoubleDouble s = two_sum(sh[k], h[j]);
      const DoubleDouble rest = two_sum(s.l, l[j]);
      const DoubleDouble low = two_sum(sl[k], rest.h);
      sh[k] = s.h;
      sl[k] = low.h;
      sr[k] += r[j];
      se[k] += std::fabs(rest.l) + std::fabs(low.l);
    }
  for (std::size_t k = 0; k < kLanes; ++k) hi[k] = sh[k], lo[k] = sl[k], radius[k] = sr[k], error[k] = se[k];
}

NORMA_FMA_CLONES void max_blocks(const double* h, const double* l, const double* r, std::size_t blocks, double* mh,
                                 double* ml, double* radius, double* nan) {
  double sh[kLanes], sl[kLanes], sr[kLanes], sn[kLanes];
  for (std::size_t k = 0; k < kLanes; ++k) sh[k] = mh[k], sl[k] = ml[k], sr[k] = radius[k], sn[k] = nan[k];
  for (std::size_t i = 0; i < blocks; ++i)
    for (std::size_t k = 0; k < kLanes; ++k) {
      const std::size_t j = kLanes * i + k;
      const double a = std::fabs(h[j]), low = l[j] * std::copysign(1.0, h[j]);
      const bool larger = (a > sh[k]) | ((a == sh[k]) & (low > sl[k]));
      sh[k] = larger ? a : sh[k];
      sl[k] = larger ? low : sl[k];
      sr[k] = r[j] > sr[k] ? r[j] : sr[k];
      sn[k] = a != a ? 1 : sn[k];
    }
  for (std::size_t k = 0; k < kLanes; ++k) mh[k] = sh[k], ml[k] = sl[k], radius[k] = sr[k], nan[k] = sn[k];
}

/// The whole blocks by `blocks`, what is left in a block filled up with a neutral term.
template <class Blocks>
void in_blocks(const BallRow& terms, std::size_t count, double neutral, const Blocks& blocks) {
  const std::size_t whole = count / kLanes;
  blocks(terms.h, terms.l, terms.r, whole);
  if (count % kLanes == 0) return;
  double h[kLanes], l[kLanes] = {}, r[kLanes] = {};
  for (double& v : h) v = neutral;
  for (std::size_t i = kLanes * whole, k = 0; i < count; ++i, ++k)
    h[k] = terms.h[i], l[k] = terms.l[i], r[k] = terms.r[i];
  blocks(h, l, r, 1);
}

/// The least power of two not below v >= 0, from 2^-127 to 2^127.
double power_above(double v) {
  if (!(v > 0x1p-127)) return 0x1p-127;
  if (v > 0x1p126) return 0x1p127;
  int e = 0;
  return std::ldexp(1.0, std::frexp(v, &e) == 0.5 ? e - 1 : e);
}

/// Known where both ends of the ball have one power: a step has no radius.
Ball e8m0_up(const Ball& a) {
  if (a.h != a.h || a.r == ball::kInfinity) return a;
  const double size = std::fabs(a.h);
  const double spread = a.r == 0 && a.l == 0 ? 0 : (a.r + std::fabs(a.l)) * (1 + 0x1p-40) + 0x1p-50 * size;
  const double low = power_above(size - spread), high = power_above(size + spread);
  return {low, 0, low == high ? 0 : ball::kInfinity};
}

}  // namespace

Ball apply(Op op, const Ball& a, const Ball& b, const Ball& c) {
  switch (op) {
    case Op::cast:
    case Op::rotate:
    case Op::join: return a;  // the caller takes the value from its place
    case Op::add: return ball::add(a, b);
    case Op::sub: return ball::sub(a, b);
    case Op::mul: return ball::mul(a, b);
    case Op::div: return ball::div(a, b);
    case Op::neg: return ball::neg(a);
    case Op::abs: return ball::abs(a);
    case Op::square: return ball::square(a);
    case Op::sqrt: return ball::sqrt(a);
    case Op::rsqrt: return ball::rsqrt(a);
    case Op::reciprocal: return ball::reciprocal(a);
    case Op::max: return ball::max(a, b);
    case Op::min: return ball::min(a, b);
    case Op::fmax: return ball::fmax(a, b);
    case Op::fmin: return ball::fmin(a, b);
    case Op::fma: return ball::fma(a, b, c);
    case Op::exp:
    case Op::tanh:
    case Op::erf: return small_or(op, a);
    case Op::sin: return sin_of(a);
    case Op::cos: return cos_of(a);
    case Op::pow: return pow_of(a, b);
    case Op::e8m0_up: return e8m0_up(a);
    case Op::nearest_e4m3:
    case Op::unless_zero: return {0, 0, ball::kInfinity};  // steps: left to the exact tier
  }
  std::abort();
}

namespace {

/// About f(h) for |v - h| <= t = R + |l| <= 1. exp: e^h t (1 + t); tanh: (1 - s^2) t, s <= |tanh v|; erf: 1.1284 t, as
/// above; all beside the error of f(h) itself. r = -1 where another way is needed: also where R is not `share` times
/// |l|, or what R leaves open not so many times f(h)'s error.
NORMA_FMA_CLONES void quick_radii(const BallRow& a, const double* __restrict y, double* __restrict l,
                                  double* __restrict r, Op op, double bound, double share, std::size_t count) {
  const double *ah = a.h, *al = a.l, *ar = a.r;
  const bool exponential = op == Op::exp, tangent = op == Op::tanh;
  for (std::size_t i = 0; i < count; ++i) {
    const double t = ball::padded(ar[i] + std::fabs(al[i]));
    const double size = std::fabs(y[i]) * (1 + 0x1p-40);
    const double least = std::fabs(y[i]) * (1 - 0x1p-40) - t, s = least > 0 ? least : 0;
    const double slope = tangent ? (1 - s) * (1 + s) : 1.1284;
    const double spread = exponential ? size * (t * (1 + t)) : slope * t;
    const bool usual = (t <= 1) & (std::fabs(ah[i]) >= ball::kLeast) & (std::fabs(ah[i]) <= 600);
    const bool enough = (share * std::fabs(al[i]) <= ar[i]) & (share * (size * bound) <= spread);
    l[i] = 0;
    r[i] = (usual & enough) ? ball::padded(spread + size * bound) : -1;
  }
}

void in_binary64(Op op, const BallRow& a, double share, const BallRowOut& out, std::size_t count) {
  const Function f = op == Op::exp ? Function::exp : op == Op::tanh ? Function::tanh : Function::erf;
  evaluate(f, std::span(a.h, count), std::span(out.h, count));
  quick_radii(a, out.h, out.l, out.r, op, function_bound(f), share, count);
  for (std::size_t i = 0; i < count; ++i)
    if (out.r[i] < 0) out.set(i, small_or(op, a.at(i)));
}

/// Where a radius is far wider than binary64's error, double-double's gains less than a part in kShare of it.
constexpr double kShare = 64, kWide = 0x1p-46;

}  // namespace

void apply(Op op, const BallRow& a, const BallRow& b, const BallRow& c, const BallRowOut& out, std::size_t count) {
  const int arity = row_of(op).arity;
  if (const Loop loop = loop_of(op)) {
    const BallRow& second = arity > 1 ? b : a;  // not used by an operation on one operand, but loaded
    loop(a.h, a.l, a.r, second.h, second.l, second.r, out.h, out.l, out.r, count);
    return;
  }
  const Ball none;
  for (std::size_t i = 0; i < count; ++i)
    out.set(i, apply(op, a.at(i), arity > 1 ? b.at(i) : none, arity > 2 ? c.at(i) : none));
}

void apply_quick(Op op, const BallRow& a, const BallRowOut& out, std::size_t count) {
  in_binary64(op, a, 0, out, count);
}

void apply_function(Op op, const BallRow& a, const BallRowOut& out, std::size_t count) {
  if (std::any_of(a.r, a.r + count, [](double r) { return r > kWide; })) return in_binary64(op, a, kShare, out, count);
  apply(op, a, {}, {}, out, count);
}

NORMA_FMA_CLONES void exact_row(const double* values, const BallRowOut& out, std::size_t count) {
  double* __restrict h = out.h;
  double* __restrict l = out.l;
  double* __restrict r = out.r;
  for (std::size_t i = 0; i < count; ++i) {
    const Ball b = ball::exactly(values[i]);
    h[i] = b.h;
    l[i] = b.l;
    r[i] = b.r;
  }
}

NORMA_FMA_CLONES void widen_row(const float* __restrict values, double* __restrict wide, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) wide[i] = static_cast<double>(values[i]);
}

NORMA_FMA_CLONES void quick_row(const BallRow& y, const BallRow& size, double* __restrict mid,
                                double* __restrict radius, double* __restrict magnitude, std::size_t count) {
  const double *h = y.h, *l = y.l, *r = y.r, *mh = size.h, *mr = size.r;
  for (std::size_t i = 0; i < count; ++i) {
    const bool known = r[i] < ball::kInfinity;
    // |y - h| <= r + |l|, rounded up.
    const double about = ball::is_finite(h[i]) ? (r[i] + std::fabs(l[i])) * (1 + 0x1p-51) : 0;
    mid[i] = known ? h[i] : 0;
    radius[i] = known ? about : ball::kInfinity;
    magnitude[i] = mr[i] < ball::kInfinity ? std::fabs(mh[i]) : ball::kInfinity;
  }
}

namespace {

/// h is the binary64 number nearest to everything that the ball holds.
NORMA_INLINE bool nearest_of(double h, double l, double r) {
  const double size = std::fabs(h), low = std::copysign(1.0, h) * l;
  const auto bits = std::bit_cast<std::int64_t>(size);
  const double above = std::bit_cast<double>(bits + 1) - size, below = size - std::bit_cast<double>(bits - 1);
  const bool near = ((low + r) * (1 + 0x1p-50) < 0.5 * above) & ((r - low) * (1 + 0x1p-50) < 0.5 * below);
  return (r == 0) | (near & (size != 0));
}

}  // namespace

bool is_nearest(const Ball& size) { return nearest_of(size.h, size.l, size.r); }

NORMA_FMA_CLONES void settled_row(const BallRow& y, const BallRow& size, std::int64_t* __restrict settled,
                                  std::size_t count) {
  const double *h = y.h, *l = y.l, *r = y.r, *mh = size.h, *ml = size.l, *mr = size.r;
  for (std::size_t i = 0; i < count; ++i) {
    const bool known = (r[i] < ball::kInfinity) & (mr[i] < ball::kInfinity);
    const bool finite = known & ball::both(ball::is_finite(h[i]), ball::is_finite(mh[i]));
    const bool close = r[i] <= 0x1p-81 * std::fabs(mh[i]);
    const bool apart = (std::fabs(l[i]) > r[i]) & (std::fabs(h[i] + l[i]) > r[i]);  // from h and from 0
    const bool tight = (r[i] == 0) | (close & apart);
    settled[i] = ball::both(finite & tight, nearest_of(mh[i], ml[i], mr[i])) ? 1 : 0;
  }
}

// -0 is neutral: a sum of -0 alone is -0, as in IEEE arithmetic.
BallSum::BallSum() : lo_{}, radius_{}, error_{} { hi_.fill(-0.0); }

void BallSum::add(const BallRow& terms, std::size_t count) {
  in_blocks(terms, count, -0.0, [&](const double* h, const double* l, const double* r, std::size_t blocks) {
    sum_blocks(h, l, r, blocks, hi_.data(), lo_.data(), radius_.data(), error_.data());
  });
}

Ball BallSum::total() const {
  std::array<Ball, kLanes> lanes;
  for (std::size_t k = 0; k < kLanes; ++k) {
    const DoubleDouble pair = two_sum(hi_[k], lo_[k]);
    // hi is the IEEE sum: Inf and NaN where the terms make them.
    if (!ball::is_finite(hi_[k])) {
      lanes[k] = {hi_[k], 0, radius_[k] < ball::kInfinity ? 0 : ball::kInfinity};
      continue;
    }
    const double r = radius_[k] + error_[k];
    // 2^-20: up to 2^32 additions to the radius, each rounded.
    lanes[k] = {pair.h == 0 ? hi_[k] : pair.h, pair.l, r == 0 ? 0 : r * (1 + 0x1p-20) + 0x1p-1000};
  }
  for (std::size_t width = kLanes / 2; width > 0; width /= 2)
    for (std::size_t k = 0; k < width; ++k) lanes[k] = ball::add(lanes[k], lanes[k + width]);
  return lanes[0];
}

BallMax::BallMax(bool signs) : signs_(signs), h_{}, l_{}, radius_{}, nan_{} {
  if (signs) h_.fill(-ball::kInfinity);
}

void BallMax::add(const BallRow& terms, std::size_t count) {
  if (signs_) {  // one lane
    for (std::size_t i = 0; i < count; ++i) {
      const double h = terms.h[i], l = terms.l[i];
      if (h != h) nan_[0] = 1;
      const bool over_minus_zero = h == 0 && h_[0] == 0 && !std::signbit(h) && l == l_[0];  // max(-0, +0) is +0
      if (h > h_[0] || (h == h_[0] && l > l_[0]) || over_minus_zero) h_[0] = h, l_[0] = l;
      radius_[0] = std::fmax(radius_[0], terms.r[i]);
    }
    return;
  }
  in_blocks(terms, count, 0.0, [&](const double* h, const double* l, const double* r, std::size_t blocks) {
    max_blocks(h, l, r, blocks, h_.data(), l_.data(), radius_.data(), nan_.data());
  });
}

Ball BallMax::total() const {
  Ball largest{signs_ ? -ball::kInfinity : 0.0, 0, 0};
  for (std::size_t k = 0; k < kLanes; ++k) {
    const Ball lane{nan_[k] != 0 ? std::nan("") : h_[k], l_[k], radius_[k]};
    const bool larger = lane.h != lane.h || lane.h > largest.h || (lane.h == largest.h && lane.l > largest.l);
    const double radius = std::fmax(largest.r, lane.r);
    if (largest.h == largest.h && larger) largest = lane;
    largest.r = radius;
  }
  if (!ball::is_finite(largest.h) && largest.r < ball::kInfinity) return {largest.h, 0, 0};
  return largest;
}

}  // namespace norma

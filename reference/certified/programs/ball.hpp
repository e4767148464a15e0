// Balls: a double-double midpoint and a radius, and the operations of programs on them. u = 2^-53.
//
// Radii follow from the errors of double_double.hpp and first-order bounds whose remainders are in the constants.
// A = |h|(1 + 2u) covers a midpoint h + l, z = |h|(1 + 4u) a computed one. A radius is evaluated to nearest, each of
// its terms being nonnegative or a difference at least half of its minuend, so that padded() makes up for all its
// roundings; what underflows in it, or in a low part, is below 2^-1000. Where a product or quotient leaves
// [2^-900, 2^900] nothing is claimed.
//
// Everything is written without branches: loops over these functions vectorize and give the same bits at any width.
#pragma once

#include <cmath>
#include <limits>

#include "reference/certified/double_double.hpp"

namespace norma {

/// Three kinds of knowledge about a value v, which IEEE rules continue to Inf, NaN and signed zeros:
///
///   r = 0          v is h + l: a real number, a zero with h's sign, +-Inf (l = 0) or NaN
///   0 < r < Inf    v is real, |v - (h + l)| <= r, h + l is real
///   r = Inf        nothing; h is not to be used
struct Ball {
  double h = 0;
  double l = 0;
  double r = 0;
};

namespace ball {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();
inline constexpr double kLeast = 0x1p-900, kLargest = 0x1p900;
inline constexpr double kU2 = 0x1p-106;  // u^2

#if defined(__GNUC__)
#define NORMA_INLINE inline __attribute__((always_inline))
#else
#define NORMA_INLINE inline
#endif

NORMA_INLINE double padded(double r) { return r * (1 + 0x1p-40) + 0x1p-1000; }
NORMA_INLINE bool in_range(double h) { return (std::fabs(h) >= kLeast) & (std::fabs(h) <= kLargest); }
NORMA_INLINE bool is_finite(double h) { return std::fabs(h) < kInfinity; }
/// Without a branch, and without a compiler's doubt whether && was meant.
NORMA_INLINE bool both(bool a, bool b) { return a & b; }
/// A radius as it is handed on: nothing is claimed unless `known`.
NORMA_INLINE double radius_of(bool known, bool exact, double r) {
  const double finite = exact ? 0 : padded(r);
  return (known & (r < kInfinity)) ? finite : kInfinity;
}
/// The sign is known, also that of a zero; so is whether the value is zero.
NORMA_INLINE bool is_clear(const Ball& x) { return (x.r == 0) | (std::fabs(x.h) * (1 - 0x1p-52) > x.r); }
NORMA_INLINE Ball choose(bool first, const Ball& a, const Ball& b) {
  return {first ? a.h : b.h, first ? a.l : b.l, first ? a.r : b.r};
}
/// What IEEE arithmetic says of special operands, if they are known to be that special.
NORMA_INLINE Ball special(double h, bool known) { return {h, 0, known ? 0 : kInfinity}; }

/// An input.
NORMA_INLINE Ball exactly(double h) { return {h, 0, ((std::fabs(h) <= kLargest) | !is_finite(h)) ? 0 : kInfinity}; }

NORMA_INLINE Ball neg(const Ball& x) { return {-x.h, -x.l, x.r}; }

NORMA_INLINE Ball abs(const Ball& x) { return {std::fabs(x.h), x.l * std::copysign(1.0, x.h), x.r}; }

/// AccurateDWPlusDW with the errors of its two rounded additions at hand (c.l and w.l; its Fast2Sums are exact, JMP
/// 2017, proof of theorem 3.1): x + y = h + l + c.l + w.l, so R = Rx + Ry + |c.l| + |w.l|, and 0 for an exact sum.
NORMA_INLINE Ball add(const Ball& x, const Ball& y) {
  const DoubleDouble s = two_sum(x.h, y.h);
  const DoubleDouble t = two_sum(x.l, y.l);
  const DoubleDouble c = two_sum(s.l, t.h);
  const DoubleDouble v = fast_two_sum(s.h, c.h);
  const DoubleDouble w = two_sum(t.l, v.l);
  const DoubleDouble z = fast_two_sum(v.h, w.h);
  const double radii = x.r + y.r;
  const double r = radii + (std::fabs(c.l) + std::fabs(w.l));
  const bool zero = (z.h == 0) & (s.h == 0);  // s.h has the sign of -0 + -0
  const Ball sum{zero ? s.h : z.h, z.l, radius_of(std::fabs(z.h) <= kLargest, r == 0, r)};
  const bool finite = std::fabs(x.h) + std::fabs(y.h) < kInfinity;
  return choose(finite, sum, special(s.h, radii < kInfinity));
}

NORMA_INLINE Ball sub(const Ball& x, const Ball& y) { return add(x, neg(y)); }

/// R = Ax Ry + Ay Rx + Rx Ry + 6u^2 z (DWTimesDW2: 5u^2); 0 if both are binary64 numbers.
NORMA_INLINE Ball mul(const Ball& x, const Ball& y) {
  const DoubleDouble p = two_prod(x.h, y.h);
  const DoubleDouble z = fast_two_sum(p.h, p.l + std::fma(x.l, y.h, x.h * y.l));
  const double ax = std::fabs(x.h) * (1 + 0x1p-52), ay = std::fabs(y.h) * (1 + 0x1p-52);
  const double r = (ax * y.r + ay * x.r) + (x.r * y.r + 6 * kU2 * (std::fabs(z.h) * (1 + 0x1p-51)));
  const bool exact = (x.r == 0) & (y.r == 0) & (x.l == 0) & (y.l == 0);
  const bool ranged = in_range(p.h) | (x.h == 0) | (y.h == 0);
  const Ball product{z.h, z.l, radius_of(ranged, exact, r)};
  const bool finite = std::fabs(x.h) + std::fabs(y.h) < kInfinity;
  const bool zero = ((x.h == 0) & (x.r == 0)) | ((y.h == 0) & (y.r == 0));
  return choose(finite & !zero, product, special(p.h, both(is_clear(x), is_clear(y))));
}

/// R = 2 A Rx + Rx^2 + 6u^2 z: dropping Xl^2 is u^2, the rounding of 2 Xh Xl + p.l 3u^2.
NORMA_INLINE Ball square(const Ball& x) {
  const DoubleDouble p = two_prod(x.h, x.h);
  const DoubleDouble z = fast_two_sum(p.h, std::fma(2 * x.h, x.l, p.l));
  const double a = std::fabs(x.h) * (1 + 0x1p-52);
  const double r = x.r * (2 * a + x.r) + 6 * kU2 * (p.h * (1 + 0x1p-51));
  const bool exact = (x.r == 0) & (x.l == 0);
  const bool ranged = in_range(p.h) | ((x.h == 0) & (x.r > 0));
  const Ball result{z.h, z.l, radius_of(ranged, exact, r)};
  const bool ordinary = is_finite(x.h) & !((x.h == 0) & (x.r == 0));
  return choose(ordinary, result, special(p.h, x.r < kInfinity));
}

/// t = RN(Xh/Yh), X - tY = rest + (Xl - t Yl) with an exact rest: d and its quotient err by 5u^2 and 3u^2 |Xh/Yh|,
/// Yh in place of Y by 3u^2, 12u^2 z in all; 16u^2 is claimed. For |y - Y| <= Ry <= b/2, b <= |Y|:
/// |x/y - X/Y| <= (Rx + |X/Y| Ry) / (b - Ry). Exact if nothing was rounded.
NORMA_INLINE Ball div(const Ball& x, const Ball& y) {
  const double t = x.h / y.h;
  const double rest = std::fma(-t, y.h, x.h);
  const DoubleDouble d = two_sum(rest, std::fma(-t, y.l, x.l));
  const double low = d.h / y.h;
  const DoubleDouble z = fast_two_sum(t, low);
  const double b = std::fabs(y.h) * (1 - 0x1p-52);
  const double az = std::fabs(z.h) * (1 + 0x1p-51);
  const double r = (x.r + az * y.r) / (b - y.r) + 16 * kU2 * az;
  const bool last_exact = (d.h == 0) | ((std::fma(-low, y.h, d.h) == 0) & (std::fabs(d.h) >= 0x1p-960));
  const bool exact = (x.r == 0) & (y.r == 0) & (y.l == 0) & (d.l == 0) & last_exact;
  const bool ranged = both(in_range(y.h), (x.h == 0) | both(in_range(x.h), in_range(t)));
  const Ball quotient{z.h, z.l, radius_of(ranged & (y.r <= 0.5 * b), exact, r)};
  const bool finite = std::fabs(x.h) + std::fabs(y.h) < kInfinity;
  const bool zero = (y.h == 0) | ((x.h == 0) & (x.r == 0));
  return choose(finite & !zero, quotient, special(t, both(is_clear(x), is_clear(y))));
}

NORMA_INLINE Ball reciprocal(const Ball& x) { return div(Ball{1, 0, 0}, x); }

/// For x >= 0 throughout: |sqrt(x) - sqrt(X)| <= Rx / sqrt(X); 4u^2 z (SQRTDWtoDW: 25/8 u^2).
NORMA_INLINE Ball sqrt(const Ball& x) {
  const double s = std::sqrt(x.h);
  const double rest = std::fma(-s, s, x.h);
  const DoubleDouble z = fast_two_sum(s, (rest + x.l) / (2 * s));
  const double r = x.r / s + 4 * kU2 * (std::fabs(z.h) * (1 + 0x1p-51));
  const bool exact = (x.r == 0) & (x.l == 0) & (rest == 0);
  const bool nonnegative = std::fabs(x.h) * (1 - 0x1p-52) >= x.r;
  const Ball root{z.h, z.l, radius_of(in_range(x.h) & nonnegative, exact, r)};
  return choose((x.h > 0) & is_finite(x.h), root, special(s, is_clear(x)));
}

/// With rho = Rx / (X - Rx) <= 1/4: 1/sqrt(X - Rx) <= (1 + rho/2) / sqrt(X); 32u^2 z (rsqrt: 13u^2).
NORMA_INLINE Ball rsqrt(const Ball& x) {
  const double r0 = 1 / std::sqrt(x.h);
  const DoubleDouble q = two_prod(r0, r0);
  const DoubleDouble p = two_prod(x.h, q.h);
  const double e = ((1 - p.h) - p.l) - std::fma(x.h, q.l, x.l * q.h);
  const DoubleDouble z = fast_two_sum(r0, r0 * std::fma(0.375 * e, e, 0.5 * e));
  const double rho = x.r / (std::fabs(x.h) * (1 - 0x1p-52) - x.r);
  const double az = std::fabs(z.h) * (1 + 0x1p-51);
  const double r = az * (0.5 * rho) * (1 + rho) + 32 * kU2 * az;
  const bool exact = (x.r == 0) & (x.l == 0) & (q.l == 0) & (p.l == 0) & (p.h == 1);
  const Ball root{z.h, z.l, radius_of(in_range(x.h) & (rho >= 0) & (rho <= 0.25), exact, r)};
  return choose((x.h > 0) & is_finite(x.h), root, special(r0, is_clear(x)));
}

/// NaN if one is NaN. The larger's radius where the balls are apart, else the larger radius.
NORMA_INLINE Ball max(const Ball& x, const Ball& y) {
  const bool first = (x.h > y.h) | ((x.h == y.h) & (x.l >= y.l));
  Ball winner = choose(first, x, y);
  const double radii = x.r + y.r;
  const double gap = 0x1p-51 * (std::fabs(x.h) + std::fabs(y.h));
  const bool apart = std::fabs(x.h - y.h) > padded(radii + gap);
  winner.r = apart ? winner.r : (x.r > y.r ? x.r : y.r);
  winner.h = ((x.h == 0) & (y.h == 0)) ? x.h + y.h : winner.h;  // +0 of zeros with different signs
  const bool nan = (x.h != x.h) | (y.h != y.h);
  const bool finite = std::fabs(x.h) + std::fabs(y.h) < kInfinity;
  // Where one is infinite: the winner as it is; where one is NaN: NaN.
  const Ball chosen = choose(first, x, y);
  const bool real = is_finite(chosen.h) & !nan;
  const double known = real ? chosen.r : 0;
  const Ball unusual{nan ? x.h + y.h : chosen.h, real ? chosen.l : 0, radii < kInfinity ? known : kInfinity};
  return choose(finite, winner, unusual);
}

NORMA_INLINE Ball min(const Ball& x, const Ball& y) { return neg(max(neg(x), neg(y))); }

/// A NaN operand is ignored.
NORMA_INLINE Ball fmax(const Ball& x, const Ball& y) {
  const bool x_nan = (x.h != x.h) & (x.r == 0), y_nan = (y.h != y.h) & (y.r == 0);
  return choose(x_nan, y, choose(y_nan, x, max(x, y)));
}

NORMA_INLINE Ball fmin(const Ball& x, const Ball& y) { return neg(fmax(neg(x), neg(y))); }

NORMA_INLINE Ball fma(const Ball& x, const Ball& y, const Ball& z) { return add(mul(x, y), z); }

}  // namespace ball

}  // namespace norma

// Double-double arithmetic with proved errors: a value is h + l, |l| <= ulp(h)/2. u = 2^-53.
//
// Bounds hold while no product or quotient underflows: nonzero operands and results within [2^-900, 2^900]. They
// need round-to-nearest, no contraction, and std::fma rounding once (hardware or libm).
//
//   add(dd, dd)   3u^2 + 13u^3   AccurateDWPlusDW   Joldes, Muller, Popescu, TOMS 44(2), 2017, Alg. 6
//   add(dd, d)    2u^2           DWPlusFP           ibid., Alg. 4
//   mul(dd, dd)   5u^2           DWTimesDW2         ibid., Alg. 11; bound of Muller, Rideau, TOMS 48(1), 2022
//   mul(dd, d)    2u^2           DWTimesFP3         ibid., Alg. 9
//   div(dd, d)    3u^2           DWDivFP3           ibid., Alg. 15
//   div(dd, dd)   9.8u^2         DWDivDW3           ibid., Alg. 18
//   sqrt(dd)      25/8 u^2       SQRTDWtoDW         Lefevre, Louvet, Muller, Picot, Rideau, TOMS 49(1), 2023
//   rsqrt(dd)     13u^2          derived below
#pragma once

#include <cmath>

namespace norma {

struct DoubleDouble {
  double h = 0;
  double l = 0;
};

inline constexpr double kUnitRoundoff = 0x1p-53;

/// a + b = h + l exactly (Knuth), barring overflow.
inline DoubleDouble two_sum(double a, double b) {
  const double s = a + b;
  const double t = s - a;
  return {s, (a - (s - t)) + (b - t)};
}

/// The same for |a| >= |b| or a = 0 (Dekker).
inline DoubleDouble fast_two_sum(double a, double b) {
  const double s = a + b;
  return {s, b - (s - a)};
}

/// a b = h + l exactly, barring overflow and underflow.
inline DoubleDouble two_prod(double a, double b) {
  const double p = a * b;
  return {p, std::fma(a, b, -p)};
}

inline DoubleDouble neg(DoubleDouble x) { return {-x.h, -x.l}; }
inline DoubleDouble scale(DoubleDouble x, double power_of_two) { return {x.h * power_of_two, x.l * power_of_two}; }

inline DoubleDouble add(DoubleDouble x, DoubleDouble y) {
  const DoubleDouble s = two_sum(x.h, y.h);
  const DoubleDouble t = two_sum(x.l, y.l);
  const DoubleDouble v = fast_two_sum(s.h, s.l + t.h);
  return fast_two_sum(v.h, t.l + v.l);
}

inline DoubleDouble add(DoubleDouble x, double y) {
  const DoubleDouble s = two_sum(x.h, y);
  return fast_two_sum(s.h, x.l + s.l);
}

inline DoubleDouble sub(DoubleDouble x, DoubleDouble y) { return add(x, neg(y)); }
inline DoubleDouble sub(DoubleDouble x, double y) { return add(x, -y); }

inline DoubleDouble mul(DoubleDouble x, DoubleDouble y) {
  const DoubleDouble c = two_prod(x.h, y.h);
  return fast_two_sum(c.h, c.l + std::fma(x.l, y.h, x.h * y.l));
}

inline DoubleDouble mul(DoubleDouble x, double y) {
  const DoubleDouble c = two_prod(x.h, y);
  return fast_two_sum(c.h, std::fma(x.l, y, c.l));
}

inline DoubleDouble div(DoubleDouble x, double y) {
  const double t = x.h / y;
  const double rest = std::fma(-t, y, x.h);  // exact
  return fast_two_sum(t, (rest + x.l) / y);
}

inline DoubleDouble div(DoubleDouble x, DoubleDouble y) {
  const double t = 1 / y.h;
  const double rh = std::fma(-y.h, t, 1);  // exact
  const DoubleDouble e = fast_two_sum(rh, -(y.l * t));
  const DoubleDouble reciprocal = add(mul(e, t), t);
  return mul(x, reciprocal);
}

inline DoubleDouble sqrt(DoubleDouble x) {
  if (x.h == 0) return {0, 0};
  const double s = std::sqrt(x.h);
  const double rest = std::fma(-s, s, x.h);  // exact
  return fast_two_sum(s, (rest + x.l) / (2 * s));
}

/// One Newton step of third order on r0 = RN(1 / RN(sqrt(a.h))): with e = 1 - a r0^2,
///   1/sqrt(a) = r0 (1 + e/2 + 3 e^2/8 + O(e^3)).
/// Two roundings in r0 and a.l leave |e| <= 5u. r0^2 = q and a.h q.h = p are exact pairs, 1 - p.h is exact (Sterbenz).
/// Errors of e: less p.l 5u^2, a.l q.h u^2, the fma 2u^2, what is left out (a.l q.l) u^2, the last difference 5u^2:
/// 14u^2, halved by the formula; its fma 2.5u^2, the product by r0 2.5u^2: 12u^2 and terms of third order, taken as
/// 13u^2.
/// Domain: 2^-970 <= a <= 2^900. Largest seen: 4.3u^2 in 2 million.
inline DoubleDouble rsqrt(DoubleDouble a) {
  const double r0 = 1 / std::sqrt(a.h);
  const DoubleDouble q = two_prod(r0, r0);
  const DoubleDouble p = two_prod(a.h, q.h);
  const double e = ((1 - p.h) - p.l) - std::fma(a.h, q.l, a.l * q.h);
  return fast_two_sum(r0, r0 * std::fma(0.375 * e, e, 0.5 * e));
}

}  // namespace norma

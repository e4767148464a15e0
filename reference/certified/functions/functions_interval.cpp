// The functions of an interval by MPFR: each end rounded outward, the one minimum of silu and the gelus enclosed.
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "reference/certified/functions/functions.hpp"

namespace norma {

namespace {

// What the compositions lose at most before they are rounded to the result's precision: an argument below 2^62 (beyond
// it MPFR's own range ends) is known to 2^-precision of itself, and e^argument to 62 bits less.
constexpr mpfr_prec_t kExtraBits = 96;

mpfr_rnd_t opposite(mpfr_rnd_t direction) { return direction == MPFR_RNDD ? MPFR_RNDU : MPFR_RNDD; }

// 1 / (1 + e^-w) rounded in `direction`. e^-w beyond MPFR's range is Inf, or its largest number: both bounds hold.
void logistic(Real& out, const Real& w, mpfr_rnd_t direction) {
  mpfr_neg(out.get(), w.get(), MPFR_RNDN);
  mpfr_exp(out.get(), out.get(), opposite(direction));
  mpfr_add_ui(out.get(), out.get(), 1, opposite(direction));
  mpfr_ui_div(out.get(), 1, out.get(), direction);
}

// Phi(x) = erfc(-x / sqrt 2) / 2.
void normal_cdf(Real& out, const Real& x, mpfr_rnd_t direction) {
  const Interval point{[&] {
    Interval v(x.bits());
    mpfr_neg(v.lo.get(), x.get(), MPFR_RNDN);
    v.hi = v.lo;
    return v;
  }()};
  const Interval argument = mul(point, sqrt(Interval(0.5, x.bits())));
  mpfr_erfc(out.get(), (direction == MPFR_RNDD ? argument.hi : argument.lo).get(), direction);
  mpfr_div_2ui(out.get(), out.get(), 1, direction);
}

Interval point_at(const Real& x) {
  Interval v(x.bits());
  v.lo = x;
  v.hi = x;
  return v;
}

// 2 sqrt(2/pi), outward.
Interval twice_root_two_over_pi(mpfr_prec_t bits) {
  Interval pi(bits);
  mpfr_const_pi(pi.lo.get(), MPFR_RNDD);
  mpfr_const_pi(pi.hi.get(), MPFR_RNDU);
  return sqrt(div(Interval(8.0, bits), pi));
}

constexpr double kCubic = 0x1.6e4e26d4801f7p-5;  // 0.044715

// f at one real point, rounded in `direction`; x has the working precision.
void value_at(Function f, Real& out, const Real& x, mpfr_rnd_t direction) {
  switch (f) {
    case Function::exp: mpfr_exp(out.get(), x.get(), direction); return;
    case Function::tanh: mpfr_tanh(out.get(), x.get(), direction); return;
    case Function::erf: mpfr_erf(out.get(), x.get(), direction); return;
    case Function::sigmoid: logistic(out, x, direction); return;
    case Function::silu:
    case Function::gelu:
    case Function::gelu_tanh: break;
  }
  if (mpfr_zero_p(x.get()) != 0) {
    mpfr_set(out.get(), x.get(), MPFR_RNDN);
    return;
  }
  if (mpfr_inf_p(x.get()) != 0) {
    mpfr_set_d(out.get(), mpfr_sgn(x.get()) > 0 ? std::numeric_limits<double>::infinity() : -0.0, MPFR_RNDN);
    return;
  }
  // x times a factor in (0, 1).
  const mpfr_rnd_t inner = mpfr_sgn(x.get()) > 0 ? direction : opposite(direction);
  if (f == Function::silu) {
    logistic(out, x, inner);
  } else if (f == Function::gelu) {
    normal_cdf(out, x, inner);
  } else {
    const mpfr_prec_t bits = x.bits();
    const Interval p = point_at(x);
    const Interval cubic = add(Interval(1.0, bits), mul(Interval(kCubic, bits), square(p)));
    const Interval w = mul(mul(twice_root_two_over_pi(bits), p), cubic);
    logistic(out, inner == MPFR_RNDD ? w.lo : w.hi, inner);
  }
  mpfr_mul(out.get(), out.get(), x.get(), direction);
}

// ---- where silu and the gelus turn ----
//
// Each falls, then rises: with s = -x the sign of f' is that of 1 - t(s), and t crosses 1 once, at an s > 0:
//   silu        t = s / (1 + e^-s)                                   grows for s > 0
//   gelu_tanh   t = (c1 s + 3 c2 s^3) / (1 + e^-(c1 s + c2 s^3))     numerator grows, denominator falls
//   gelu        f' = Phi(x) + x phi(x), f'' = (2 - x^2) phi(x): f' falls from 0 up to -sqrt 2, rises to sqrt 2, is
//               positive at 0 and, falling to 1 after sqrt 2, ever after

// The sign of f'(x) at x in (-sqrt 2, 0): -1, 1, or 0 if the precision does not tell.
int slope_sign(Function f, const Real& x) {
  const mpfr_prec_t bits = x.bits();
  const Interval p = point_at(x);
  Interval v(bits);
  if (f == Function::gelu) {
    Interval cdf(bits), density(bits);
    normal_cdf(cdf.lo, x, MPFR_RNDD);
    normal_cdf(cdf.hi, x, MPFR_RNDU);
    const Interval exponent = mul(square(p), Interval(-0.5, bits));
    mpfr_exp(density.lo.get(), exponent.lo.get(), MPFR_RNDD);
    mpfr_exp(density.hi.get(), exponent.hi.get(), MPFR_RNDU);
    // phi = e^(-x^2/2) / sqrt(2 pi) and sqrt(2 pi) = 4 / (2 sqrt(2/pi))
    v = add(cdf, mul(p, div(mul(density, twice_root_two_over_pi(bits)), Interval(4.0, bits))));
  } else {
    Interval w = p, slope(1.0, bits);  // w and w'
    if (f == Function::gelu_tanh) {
      const Interval c1 = twice_root_two_over_pi(bits);
      const Interval c2 = mul(c1, Interval(kCubic, bits));
      w = mul(p, add(c1, mul(c2, square(p))));
      slope = add(c1, mul(mul(Interval(3.0, bits), c2), square(p)));
    }
    // 1 + x w' (1 - sigma(w))
    const Interval minus = neg(w);
    Interval rest(bits);
    logistic(rest.lo, minus.lo, MPFR_RNDD);
    logistic(rest.hi, minus.hi, MPFR_RNDU);
    v = add(Interval(1.0, bits), mul(mul(p, slope), rest));
  }
  return mpfr_sgn(v.lo.get()) > 0 ? 1 : mpfr_sgn(v.hi.get()) < 0 ? -1 : 0;
}

// [a, b] around the minimum, by bisection down to what the precision tells, and a number below f there.
struct Minimum {
  Real a, b, below;
};
Minimum find_minimum(Function f, mpfr_prec_t bits) {
  Minimum m{Real(-1.375, bits), Real(-0.625, bits), Real(bits)};
  Real middle(bits);
  for (mpfr_prec_t step = 0; step < bits; ++step) {
    mpfr_add(middle.get(), m.a.get(), m.b.get(), MPFR_RNDN);
    mpfr_div_2ui(middle.get(), middle.get(), 1, MPFR_RNDN);
    const int sign = slope_sign(f, middle);
    if (sign == 0) break;
    (sign < 0 ? m.a : m.b) = middle;
  }
  // |f'| < 1.2 everywhere: f(a) - 2 (b - a) is below.
  value_at(f, m.below, m.a, MPFR_RNDD);
  Real width(bits);
  mpfr_sub(width.get(), m.b.get(), m.a.get(), MPFR_RNDU);
  mpfr_mul_2ui(width.get(), width.get(), 1, MPFR_RNDU);
  mpfr_sub(m.below.get(), m.below.get(), width.get(), MPFR_RNDD);
  return m;
}

const Minimum& minimum_of(Function f, mpfr_prec_t bits) {
  thread_local std::map<std::pair<Function, mpfr_prec_t>, Minimum> known;
  auto found = known.find({f, bits});
  if (found == known.end()) found = known.emplace(std::pair{f, bits}, find_minimum(f, bits)).first;
  return found->second;
}

bool has_minimum(Function f) { return f == Function::silu || f == Function::gelu || f == Function::gelu_tanh; }

}  // namespace

Interval evaluate(Function f, const Interval& x) {
  const mpfr_prec_t bits = x.bits();
  if (x.is_nan() || x.is_unknown()) return x;
  const mpfr_prec_t working = bits + kExtraBits;
  const auto widened = [&](const Real& v) {
    Real w(working);
    mpfr_set(w.get(), v.get(), MPFR_RNDN);
    return w;
  };
  const Real lo = widened(x.lo), hi = widened(x.hi);
  Real low(working), high(working);
  Interval result(bits);
  const bool turns = has_minimum(f) && mpfr_cmp_d(lo.get(), -0.625) < 0 && mpfr_cmp_d(hi.get(), -1.375) > 0;
  if (turns && !x.is_point()) {
    const Minimum& m = minimum_of(f, working);
    if (mpfr_lessequal_p(hi.get(), m.a.get()) != 0) {
      value_at(f, low, hi, MPFR_RNDD);
      value_at(f, high, lo, MPFR_RNDU);
    } else if (mpfr_greaterequal_p(lo.get(), m.b.get()) != 0) {
      value_at(f, low, lo, MPFR_RNDD);
      value_at(f, high, hi, MPFR_RNDU);
    } else {
      low = m.below;
      Real other(working);
      value_at(f, other, lo, MPFR_RNDU);
      value_at(f, high, hi, MPFR_RNDU);
      mpfr_max(high.get(), high.get(), other.get(), MPFR_RNDU);
    }
  } else {
    const bool falls = has_minimum(f) && mpfr_cmp_d(hi.get(), -1) < 0;
    value_at(f, low, falls ? hi : lo, MPFR_RNDD);
    value_at(f, high, falls ? lo : hi, MPFR_RNDU);
  }
  mpfr_set(result.lo.get(), low.get(), MPFR_RNDD);
  mpfr_set(result.hi.get(), high.get(), MPFR_RNDU);
  // e^x beyond MPFR's range: these ends do not tell.
  if (mpfr_inf_p(result.hi.get()) != 0 && mpfr_inf_p(result.lo.get()) == 0) return Interval::unknown(bits);
  return result;
}

}  // namespace norma

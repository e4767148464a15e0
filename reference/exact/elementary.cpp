// MPFR's sin, cos and pow, with the ends of intervals.
#include "reference/exact/elementary.hpp"

#include <algorithm>

namespace norma {

namespace {

using MpfrFunction = int (*)(mpfr_ptr, mpfr_srcptr, mpfr_rnd_t);

constexpr mpfr_exp_t kMostExponent = 16384;

Interval between_ones(mpfr_prec_t bits) {
  Interval result(-1.0, bits);
  mpfr_set_si(result.hi.get(), 1, MPFR_RNDN);
  return result;
}

// f at the lower end, and |f(v) - f(lo)| <= v - lo.
Interval turning(MpfrFunction f, const Interval& a) {
  if (a.is_nan() || a.is_infinite()) return Interval(a.bits());
  if (a.is_unknown()) return a;
  const auto beyond = [](const Real& v) {
    return mpfr_regular_p(v.get()) != 0 && mpfr_get_exp(v.get()) > kMostExponent;
  };
  if (beyond(a.lo) || beyond(a.hi)) return between_ones(a.bits());
  Interval result(a.bits());
  if (a.is_point()) {
    if (f(result.lo.get(), a.lo.get(), MPFR_RNDD) == 0)
      mpfr_set(result.hi.get(), result.lo.get(), MPFR_RNDN);
    else
      f(result.hi.get(), a.lo.get(), MPFR_RNDU);
    return result;
  }
  f(result.lo.get(), a.lo.get(), MPFR_RNDD);
  f(result.hi.get(), a.lo.get(), MPFR_RNDU);
  Real width(a.bits());
  mpfr_sub(width.get(), a.hi.get(), a.lo.get(), MPFR_RNDU);
  mpfr_sub(result.lo.get(), result.lo.get(), width.get(), MPFR_RNDD);
  mpfr_add(result.hi.get(), result.hi.get(), width.get(), MPFR_RNDU);
  const Interval most = between_ones(a.bits());
  mpfr_max(result.lo.get(), result.lo.get(), most.lo.get(), MPFR_RNDD);
  mpfr_min(result.hi.get(), result.hi.get(), most.hi.get(), MPFR_RNDU);
  return result;
}

}  // namespace

Interval sin(const Interval& a) { return turning(mpfr_sin, a); }
Interval cos(const Interval& a) { return turning(mpfr_cos, a); }

Interval pow(const Interval& x, const Interval& y) {
  const mpfr_prec_t bits = std::max(x.bits(), y.bits());
  if (x.is_nan() || y.is_nan() || x.is_infinite() || y.is_infinite()) return Interval(bits);
  if (x.is_unknown() || y.is_unknown()) return Interval::unknown(bits);
  if (mpfr_sgn(x.hi.get()) <= 0) return Interval(bits);
  if (mpfr_sgn(x.lo.get()) <= 0) return Interval::unknown(bits);
  Interval result(bits);
  if (mpfr_pow(result.lo.get(), x.lo.get(), y.lo.get(), MPFR_RNDD) == 0 && x.is_point() && y.is_point()) {
    mpfr_set(result.hi.get(), result.lo.get(), MPFR_RNDN);
  } else {
    // Monotone in each: the least and the largest are at corners.
    mpfr_pow(result.hi.get(), x.lo.get(), y.lo.get(), MPFR_RNDU);
    Real corner(bits);
    const std::pair<const Real*, const Real*> others[] = {{&x.lo, &y.hi}, {&x.hi, &y.lo}, {&x.hi, &y.hi}};
    for (const auto& [p, q] : others) {
      mpfr_pow(corner.get(), p->get(), q->get(), MPFR_RNDD);
      mpfr_min(result.lo.get(), result.lo.get(), corner.get(), MPFR_RNDD);
      mpfr_pow(corner.get(), p->get(), q->get(), MPFR_RNDU);
      mpfr_max(result.hi.get(), result.hi.get(), corner.get(), MPFR_RNDU);
    }
  }
  return mpfr_inf_p(result.hi.get()) != 0 ? Interval::unknown(bits) : result;
}

}  // namespace norma

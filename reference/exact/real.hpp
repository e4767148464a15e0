// MPFR as values: a number, an exact dyadic number, an interval with directed roundings.
#pragma once

#include <mpfr.h>

#include <span>

#include "reference/exact/enclosure.hpp"

namespace norma {

/// One MPFR number. Constructing one gives the calling thread MPFR's widest exponent range (about 2^62), so
/// that nothing computed from binary64 values overflows or underflows.
class Real {
 public:
  explicit Real(mpfr_prec_t bits);       ///< NaN
  Real(double value, mpfr_prec_t bits);  ///< exact for bits >= 53
  Real(const Real& other);
  Real(Real&& other) noexcept;
  Real& operator=(const Real& other);  ///< takes the precision over too
  Real& operator=(Real&& other) noexcept;
  ~Real();

  mpfr_ptr get() { return value_; }
  mpfr_srcptr get() const { return value_; }
  mpfr_prec_t bits() const { return mpfr_get_prec(value_); }

 private:
  mpfr_t value_;  // value_->_mpfr_d is null after a move
};

/// Exact arithmetic on dyadic rationals n 2^k: each operation takes the precision that its result needs.
///
/// Errors:  std::logic_error if a result was rounded after all (MPFR's ternary value), or is not finite.
class Dyadic {
 public:
  Dyadic() : Dyadic(0.0) {}
  Dyadic(double value);  // implicit: every finite binary64 number is a dyadic number
  explicit Dyadic(Real value);

  int sign() const;       ///< -1, 0, 1
  bool negative() const;  ///< the sign bit: tells -0 from 0
  const Real& real() const { return value_; }

  friend Dyadic operator+(const Dyadic& a, const Dyadic& b);  ///< the sign of a zero sum as in IEEE, to nearest
  friend Dyadic operator-(const Dyadic& a, const Dyadic& b);
  friend Dyadic operator*(const Dyadic& a, const Dyadic& b);
  friend Dyadic operator-(const Dyadic& a);
  friend int order(const Dyadic& a, const Dyadic& b);  ///< sign of a - b

 private:
  Real value_;
};
Dyadic abs(const Dyadic& a);
Dyadic square(const Dyadic& a);

/// A value known to lie in [lo, hi]; outward-rounded at the larger precision of the operands. Four kinds:
///
///   real      finite ends; lo == hi is an exact value. Zeros: equal sign bits carry the sign that IEEE
///             arithmetic gives; [-0, +0] is a zero whose sign is not known
///   infinite  lo == hi == +-Inf: the value is infinite by IEEE rules (1/0, an infinite input)
///   nan       both ends NaN: the value is undefined (0/0, Inf-Inf, sqrt of a negative number, a NaN input)
///   unknown   [-Inf, Inf]: these ends do not tell which of the above (a divisor that may be zero)
struct Interval {
  Real lo, hi;

  explicit Interval(mpfr_prec_t bits) : lo(bits), hi(bits) {}  ///< nan
  Interval(double value, mpfr_prec_t bits) : lo(value, bits), hi(value, bits) {}
  /// Rounded outward to `bits`.
  Interval(const Dyadic& value, mpfr_prec_t bits);
  static Interval unknown(mpfr_prec_t bits);

  mpfr_prec_t bits() const { return lo.bits(); }
  bool is_nan() const { return mpfr_nan_p(lo.get()) != 0; }
  bool is_infinite() const { return mpfr_inf_p(lo.get()) != 0 && mpfr_equal_p(lo.get(), hi.get()) != 0; }
  bool is_unknown() const { return mpfr_inf_p(lo.get()) != 0 && mpfr_equal_p(lo.get(), hi.get()) == 0; }
  bool is_real() const { return mpfr_number_p(lo.get()) != 0 && mpfr_number_p(hi.get()) != 0; }
  bool is_point() const { return is_real() && mpfr_equal_p(lo.get(), hi.get()) != 0; }
};

Interval neg(const Interval& a);
Interval abs(const Interval& a);
Interval square(const Interval& a);
Interval sqrt(const Interval& a);   ///< sqrt(-0) = -0
Interval rsqrt(const Interval& a);  ///< +-0 gives +-Inf (IEEE 754-2019 §9.2.1), +Inf gives 0
Interval add(const Interval& a, const Interval& b);
Interval sub(const Interval& a, const Interval& b);
Interval mul(const Interval& a, const Interval& b);
Interval div(const Interval& a, const Interval& b);
Interval max(const Interval& a, const Interval& b);  ///< NaN if one is NaN
Interval min(const Interval& a, const Interval& b);
Interval fmax(const Interval& a, const Interval& b);  ///< a NaN operand is ignored
Interval fmin(const Interval& a, const Interval& b);
/// Each end rounded once (mpfr_sum); 0 for no terms.
Interval sum(std::span<const Interval> terms, mpfr_prec_t bits);

/// How y in `value` lies to m_hi + m_lo; `undecided` if the interval holds more than the answer, or no real.
Comparison compare(const Interval& value, double m_hi, double m_lo);

/// True if hi - lo <= 2^-101 |scale|, or the value is exact, infinite or NaN. The lower end of |scale| counts.
bool is_tight(const Interval& value, const Interval& scale);

/// The midpoint as a double-double and a radius, rounded up, that covers the width and the truncation: below
/// 2^-106 |y| + 2^-1074 more than half the width. `magnitude` is set to |y|. Beyond binary64's range hi is the
/// largest finite number and the radius infinite; kind unknown gives hi = 0 and an infinite radius.
Enclosure enclosure_of(const Interval& value);

/// Nearest binary64 to the midpoint of |value|; what Enclosure::magnitude takes.
double magnitude_of(const Interval& value);

}  // namespace norma

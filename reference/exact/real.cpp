// MPFR as values; every interval operation rounds its ends outward.
#include "reference/exact/real.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

namespace norma {

namespace {

// MPFR keeps its exponent range per thread.
void widen_exponents() {
  thread_local const bool done = [] {
    mpfr_set_emin(mpfr_get_emin_min());
    mpfr_set_emax(mpfr_get_emax_max());
    return true;
  }();
  static_cast<void>(done);
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

}  // namespace

Real::Real(mpfr_prec_t bits) {
  widen_exponents();
  mpfr_init2(value_, bits);
}

Real::Real(double value, mpfr_prec_t bits) : Real(bits) { mpfr_set_d(value_, value, MPFR_RNDN); }

Real::Real(const Real& other) : Real(other.bits()) { mpfr_set(value_, other.value_, MPFR_RNDN); }

Real::Real(Real&& other) noexcept {
  *value_ = *other.value_;
  other.value_->_mpfr_d = nullptr;
}

Real& Real::operator=(const Real& other) {
  if (this == &other) return *this;
  if (value_->_mpfr_d == nullptr) mpfr_init2(value_, other.bits());
  mpfr_set_prec(value_, other.bits());
  mpfr_set(value_, other.value_, MPFR_RNDN);
  return *this;
}

Real& Real::operator=(Real&& other) noexcept {
  std::swap(*value_, *other.value_);
  return *this;
}

Real::~Real() {
  if (value_->_mpfr_d != nullptr) mpfr_clear(value_);
}

// ---- dyadic numbers ----

namespace {

void require_exact(int ternary, mpfr_srcptr value) {
  if (ternary != 0 || mpfr_number_p(value) == 0) throw std::logic_error("an operation that must be exact was rounded");
}

// Bits of the significand, 1 for zero.
mpfr_prec_t significant_bits(mpfr_srcptr value) {
  return mpfr_zero_p(value) != 0 ? 1 : std::max<mpfr_prec_t>(1, mpfr_min_prec(value));
}

// The sum lies between the larger top bit, one up for the carry, and the smaller of the two last bits.
mpfr_prec_t bits_of_sum(mpfr_srcptr a, mpfr_srcptr b) {
  if (mpfr_zero_p(a) != 0) return significant_bits(b);
  if (mpfr_zero_p(b) != 0) return significant_bits(a);
  const mpfr_exp_t top = std::max(mpfr_get_exp(a), mpfr_get_exp(b)) + 1;
  const mpfr_exp_t last = std::min(mpfr_get_exp(a) - significant_bits(a), mpfr_get_exp(b) - significant_bits(b));
  return top - last;
}

}  // namespace

Dyadic::Dyadic(double value) : value_(value, 53) { require_exact(0, value_.get()); }

Dyadic::Dyadic(Real value) : value_(std::move(value)) { require_exact(0, value_.get()); }

int Dyadic::sign() const { return mpfr_sgn(value_.get()); }
bool Dyadic::negative() const { return mpfr_signbit(value_.get()) != 0; }

Dyadic operator+(const Dyadic& a, const Dyadic& b) {
  Real result(bits_of_sum(a.value_.get(), b.value_.get()));
  require_exact(mpfr_add(result.get(), a.value_.get(), b.value_.get(), MPFR_RNDN), result.get());
  return Dyadic(std::move(result));
}

Dyadic operator-(const Dyadic& a, const Dyadic& b) { return a + (-b); }

Dyadic operator*(const Dyadic& a, const Dyadic& b) {
  Real result(significant_bits(a.value_.get()) + significant_bits(b.value_.get()));
  require_exact(mpfr_mul(result.get(), a.value_.get(), b.value_.get(), MPFR_RNDN), result.get());
  return Dyadic(std::move(result));
}

Dyadic operator-(const Dyadic& a) {
  Real result(a.value_.bits());
  mpfr_neg(result.get(), a.value_.get(), MPFR_RNDN);
  return Dyadic(std::move(result));
}

int order(const Dyadic& a, const Dyadic& b) {
  const int sign = mpfr_cmp(a.value_.get(), b.value_.get());
  return (sign > 0) - (sign < 0);
}

Dyadic abs(const Dyadic& a) { return a.negative() ? -a : a; }
Dyadic square(const Dyadic& a) { return a * a; }

// ---- intervals ----

namespace {

// Which signs an interval's values have; a known sign of zero counts as a sign.
enum class Signs { positive, negative, mixed };

Signs signs_of(const Interval& a) {
  if (mpfr_signbit(a.lo.get()) == 0) return Signs::positive;
  if (mpfr_signbit(a.hi.get()) != 0) return Signs::negative;
  return Signs::mixed;
}

bool is_zero(const Interval& a) { return mpfr_zero_p(a.lo.get()) != 0 && mpfr_zero_p(a.hi.get()) != 0; }

bool may_be_zero(const Interval& a) { return mpfr_sgn(a.lo.get()) <= 0 && mpfr_sgn(a.hi.get()) >= 0; }

Interval zero(bool negative, mpfr_prec_t bits) { return Interval(negative ? -0.0 : 0.0, bits); }

Interval zero_of_unknown_sign(mpfr_prec_t bits) {
  Interval result(0.0, bits);
  mpfr_set_zero(result.lo.get(), -1);
  return result;
}

Interval infinite(bool negative, mpfr_prec_t bits) { return Interval(negative ? -kInfinity : kInfinity, bits); }

mpfr_prec_t bits_of(const Interval& a, const Interval& b) { return std::max(a.bits(), b.bits()); }

// The sign of a product or quotient of two signed operands.
bool opposite(Signs a, Signs b) { return (a == Signs::negative) != (b == Signs::negative); }

}  // namespace

Interval::Interval(const Dyadic& value, mpfr_prec_t bits) : lo(bits), hi(bits) {
  const int ternary = mpfr_set(lo.get(), value.real().get(), MPFR_RNDD);
  if (ternary == 0)
    mpfr_set(hi.get(), lo.get(), MPFR_RNDU);
  else
    mpfr_set(hi.get(), value.real().get(), MPFR_RNDU);
}

Interval Interval::unknown(mpfr_prec_t bits) {
  Interval result(-kInfinity, bits);
  mpfr_set_inf(result.hi.get(), 1);
  return result;
}

Interval neg(const Interval& a) {
  Interval result(a.bits());
  mpfr_neg(result.lo.get(), a.hi.get(), MPFR_RNDN);
  mpfr_neg(result.hi.get(), a.lo.get(), MPFR_RNDN);
  return result;
}

Interval abs(const Interval& a) {
  if (a.is_nan() || a.is_unknown()) return a;
  switch (signs_of(a)) {
    case Signs::positive: return a;
    case Signs::negative: return neg(a);
    case Signs::mixed: break;
  }
  Interval result(0.0, a.bits());
  if (mpfr_cmpabs(a.lo.get(), a.hi.get()) > 0)
    mpfr_neg(result.hi.get(), a.lo.get(), MPFR_RNDN);
  else
    mpfr_set(result.hi.get(), a.hi.get(), MPFR_RNDN);
  return result;
}

Interval square(const Interval& a) {
  if (a.is_nan() || a.is_unknown()) return a;
  Interval result = abs(a);
  if (mpfr_sqr(result.lo.get(), result.lo.get(), MPFR_RNDD) == 0 && a.is_point())
    mpfr_set(result.hi.get(), result.lo.get(), MPFR_RNDN);
  else
    mpfr_sqr(result.hi.get(), result.hi.get(), MPFR_RNDU);
  return result;
}

Interval sqrt(const Interval& a) {
  if (a.is_nan() || a.is_unknown() || is_zero(a)) return a;
  if (mpfr_sgn(a.hi.get()) < 0) return Interval(a.bits());
  if (mpfr_sgn(a.lo.get()) < 0) return Interval::unknown(a.bits());
  Interval result(a.bits());
  mpfr_sqrt(result.lo.get(), a.lo.get(), MPFR_RNDD);
  mpfr_sqrt(result.hi.get(), a.hi.get(), MPFR_RNDU);
  return result;
}

Interval rsqrt(const Interval& a) {
  if (a.is_nan() || a.is_unknown()) return a;
  if (is_zero(a)) {
    const Signs signs = signs_of(a);
    return signs == Signs::mixed ? Interval::unknown(a.bits()) : infinite(signs == Signs::negative, a.bits());
  }
  if (mpfr_sgn(a.hi.get()) < 0) return Interval(a.bits());
  if (mpfr_sgn(a.lo.get()) <= 0) return Interval::unknown(a.bits());
  Interval result(a.bits());
  mpfr_rec_sqrt(result.lo.get(), a.hi.get(), MPFR_RNDD);
  mpfr_rec_sqrt(result.hi.get(), a.lo.get(), MPFR_RNDU);
  return result;
}

Interval add(const Interval& a, const Interval& b) {
  const mpfr_prec_t bits = bits_of(a, b);
  if (a.is_nan() || b.is_nan()) return Interval(bits);
  if (a.is_unknown() || b.is_unknown()) return Interval::unknown(bits);
  Interval result(bits);
  mpfr_add(result.lo.get(), a.lo.get(), b.lo.get(), MPFR_RNDD);
  mpfr_add(result.hi.get(), a.hi.get(), b.hi.get(), MPFR_RNDU);
  // To nearest, x - x is +0; rounding down gave -0.
  if (is_zero(result) && signs_of(a) != Signs::mixed && signs_of(b) != Signs::mixed)
    mpfr_set(result.lo.get(), result.hi.get(), MPFR_RNDN);
  return result;
}

Interval sub(const Interval& a, const Interval& b) { return add(a, neg(b)); }

Interval mul(const Interval& a, const Interval& b) {
  const mpfr_prec_t bits = bits_of(a, b);
  if (a.is_nan() || b.is_nan()) return Interval(bits);
  if (a.is_unknown() || b.is_unknown()) return Interval::unknown(bits);
  const Signs sa = signs_of(a), sb = signs_of(b);
  if (a.is_infinite() || b.is_infinite()) {
    if (is_zero(a) || is_zero(b)) return Interval(bits);
    if (may_be_zero(a) || may_be_zero(b)) return Interval::unknown(bits);
    return infinite(opposite(sa, sb), bits);
  }
  Interval result(bits);
  if (sa == Signs::mixed || sb == Signs::mixed) {
    Real corner(bits);
    mpfr_mul(result.lo.get(), a.lo.get(), b.lo.get(), MPFR_RNDD);
    mpfr_mul(result.hi.get(), a.lo.get(), b.lo.get(), MPFR_RNDU);
    const std::pair<const Real*, const Real*> others[] = {{&a.lo, &b.hi}, {&a.hi, &b.lo}, {&a.hi, &b.hi}};
    for (const auto& [p, q] : others) {
      mpfr_mul(corner.get(), p->get(), q->get(), MPFR_RNDD);
      mpfr_min(result.lo.get(), result.lo.get(), corner.get(), MPFR_RNDD);
      mpfr_mul(corner.get(), p->get(), q->get(), MPFR_RNDU);
      mpfr_max(result.hi.get(), result.hi.get(), corner.get(), MPFR_RNDU);
    }
    return result;
  }
  // The products nearest to and farthest from zero: of the inner and of the outer ends.
  const Real& inner_a = sa == Signs::positive ? a.lo : a.hi;
  const Real& outer_a = sa == Signs::positive ? a.hi : a.lo;
  const Real& inner_b = sb == Signs::positive ? b.lo : b.hi;
  const Real& outer_b = sb == Signs::positive ? b.hi : b.lo;
  if (opposite(sa, sb)) {
    mpfr_mul(result.lo.get(), outer_a.get(), outer_b.get(), MPFR_RNDD);
    mpfr_mul(result.hi.get(), inner_a.get(), inner_b.get(), MPFR_RNDU);
  } else {
    mpfr_mul(result.lo.get(), inner_a.get(), inner_b.get(), MPFR_RNDD);
    mpfr_mul(result.hi.get(), outer_a.get(), outer_b.get(), MPFR_RNDU);
  }
  return result;
}

Interval div(const Interval& a, const Interval& b) {
  const mpfr_prec_t bits = bits_of(a, b);
  if (a.is_nan() || b.is_nan()) return Interval(bits);
  if (a.is_unknown() || b.is_unknown()) return Interval::unknown(bits);
  const Signs sa = signs_of(a), sb = signs_of(b);
  if (a.is_infinite() && b.is_infinite()) return Interval(bits);
  if (b.is_infinite()) return sa == Signs::mixed ? zero_of_unknown_sign(bits) : zero(opposite(sa, sb), bits);
  if (is_zero(b)) {
    if (is_zero(a)) return Interval(bits);
    if (may_be_zero(a) || sb == Signs::mixed) return Interval::unknown(bits);
    return infinite(opposite(sa, sb), bits);
  }
  if (may_be_zero(b)) return Interval::unknown(bits);
  if (a.is_infinite()) return infinite(opposite(sa, sb), bits);
  if (sb == Signs::negative) return div(neg(a), neg(b));
  Interval result(bits);
  mpfr_div(result.lo.get(), a.lo.get(), mpfr_signbit(a.lo.get()) != 0 ? b.lo.get() : b.hi.get(), MPFR_RNDD);
  mpfr_div(result.hi.get(), a.hi.get(), mpfr_signbit(a.hi.get()) != 0 ? b.hi.get() : b.lo.get(), MPFR_RNDU);
  return result;
}

Interval max(const Interval& a, const Interval& b) {
  const mpfr_prec_t bits = bits_of(a, b);
  if (a.is_nan() || b.is_nan()) return Interval(bits);
  if (a.is_unknown() || b.is_unknown()) return Interval::unknown(bits);
  Interval result(bits);
  mpfr_max(result.lo.get(), a.lo.get(), b.lo.get(), MPFR_RNDD);
  mpfr_max(result.hi.get(), a.hi.get(), b.hi.get(), MPFR_RNDU);
  return result;
}

Interval min(const Interval& a, const Interval& b) { return neg(max(neg(a), neg(b))); }

Interval fmax(const Interval& a, const Interval& b) {
  if (a.is_unknown() || b.is_unknown()) return Interval::unknown(bits_of(a, b));
  return a.is_nan() ? b : b.is_nan() ? a : max(a, b);
}

Interval fmin(const Interval& a, const Interval& b) { return neg(fmax(neg(a), neg(b))); }

Interval sum(std::span<const Interval> terms, mpfr_prec_t bits) {
  std::vector<mpfr_ptr> lows, highs;
  lows.reserve(terms.size());
  highs.reserve(terms.size());
  bool unknown = false;
  for (const Interval& term : terms) {
    if (term.is_nan()) return Interval(bits);
    unknown = unknown || term.is_unknown();
    // mpfr_sum takes pointers to non-const numbers and only reads them.
    lows.push_back(const_cast<mpfr_ptr>(term.lo.get()));
    highs.push_back(const_cast<mpfr_ptr>(term.hi.get()));
  }
  if (unknown) return Interval::unknown(bits);
  Interval result(bits);
  const auto count = static_cast<unsigned long>(terms.size());
  mpfr_sum(result.lo.get(), lows.data(), count, MPFR_RNDD);
  mpfr_sum(result.hi.get(), highs.data(), count, MPFR_RNDU);
  if (is_zero(result)) mpfr_set(result.lo.get(), result.hi.get(), MPFR_RNDN);
  return result;
}

Comparison compare(const Interval& value, double m_hi, double m_lo) {
  if (!value.is_real()) return Comparison::undecided;
  const Real m = (Dyadic(m_hi) + Dyadic(m_lo)).real();
  const int low = mpfr_cmp(value.lo.get(), m.get());
  const int high = mpfr_cmp(value.hi.get(), m.get());
  if (low > 0) return Comparison::greater;
  if (high < 0) return Comparison::less;
  return low == 0 && high == 0 ? Comparison::equal : Comparison::undecided;
}

bool is_tight(const Interval& value, const Interval& scale) {
  if (value.is_nan() || value.is_infinite() || value.is_point()) return true;
  if (!value.is_real() || !scale.is_real()) return false;
  Real width(32);
  mpfr_sub(width.get(), value.hi.get(), value.lo.get(), MPFR_RNDU);
  if (may_be_zero(scale)) return false;
  const Real& inner = mpfr_sgn(scale.lo.get()) > 0 ? scale.lo : scale.hi;
  // width < 2^exp(width) and 2^(exp(inner) - 1) <= |inner|
  return mpfr_get_exp(width.get()) <= mpfr_get_exp(inner.get()) - 102;
}

Enclosure enclosure_of(const Interval& value) {
  if (value.is_nan()) return {.hi = kNaN, .lo = 0, .radius = 0, .magnitude = kNaN};
  if (value.is_infinite())
    return {.hi = mpfr_get_d(value.lo.get(), MPFR_RNDN), .lo = 0, .radius = 0, .magnitude = kInfinity};
  if (value.is_unknown()) return {.hi = 0, .lo = 0, .radius = kInfinity, .magnitude = kInfinity};
  // Reused: this runs once for every element of a truth.
  thread_local Real middle(64), rest(64), above(64), below(64);
  const mpfr_prec_t bits = value.bits() + 1;
  if (middle.bits() != bits) {
    for (Real* r : {&middle, &rest, &above, &below}) mpfr_set_prec(r->get(), bits);
  }
  const bool point = mpfr_equal_p(value.lo.get(), value.hi.get()) != 0;
  if (point) {
    mpfr_set(middle.get(), value.hi.get(), MPFR_RNDN);
  } else {
    mpfr_add(middle.get(), value.lo.get(), value.hi.get(), MPFR_RNDN);
    mpfr_div_2ui(middle.get(), middle.get(), 1, MPFR_RNDN);
  }
  Enclosure result;
  result.hi = mpfr_get_d(middle.get(), MPFR_RNDN);
  result.magnitude = std::fabs(result.hi);
  if (std::isinf(result.hi)) {
    result.hi = std::copysign(std::numeric_limits<double>::max(), result.hi);
    result.radius = kInfinity;
    return result;
  }
  mpfr_sub_d(rest.get(), middle.get(), result.hi, MPFR_RNDN);
  result.lo = mpfr_get_d(rest.get(), MPFR_RNDN);
  mpfr_sub_d(above.get(), value.hi.get(), result.hi, MPFR_RNDU);
  mpfr_sub_d(above.get(), above.get(), result.lo, MPFR_RNDU);
  mpfr_d_sub(below.get(), result.hi, value.lo.get(), MPFR_RNDU);
  mpfr_add_d(below.get(), below.get(), result.lo, MPFR_RNDU);
  mpfr_max(above.get(), above.get(), below.get(), MPFR_RNDU);
  result.radius = mpfr_zero_p(above.get()) != 0 ? 0.0 : mpfr_get_d(above.get(), MPFR_RNDU);
  return result;
}

double magnitude_of(const Interval& value) {
  if (value.is_nan()) return kNaN;
  if (!value.is_real()) return kInfinity;
  thread_local Real middle(64);
  if (middle.bits() != value.bits() + 1) mpfr_set_prec(middle.get(), value.bits() + 1);
  mpfr_add(middle.get(), value.lo.get(), value.hi.get(), MPFR_RNDN);
  mpfr_div_2ui(middle.get(), middle.get(), 1, MPFR_RNDN);
  return std::fabs(mpfr_get_d(middle.get(), MPFR_RNDN));
}

}  // namespace norma

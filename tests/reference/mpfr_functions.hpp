// The functions by MPFR, straight from their formulas and to nearest, and roundings of MPFR numbers: what
// reference/certified is checked against, with no arithmetic of its own.
#pragma once

#include <mpfr.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <optional>

#include "reference/certified/functions/functions.hpp"
#include "reference/formats/format.hpp"

namespace norma::testing {

/// An MPFR number that knows nothing of the oracle's own.
class Number {
 public:
  explicit Number(mpfr_prec_t bits) { mpfr_init2(value_, bits); }
  Number(double v, mpfr_prec_t bits) : Number(bits) { mpfr_set_d(value_, v, MPFR_RNDN); }
  Number(const Number&) = delete;
  Number& operator=(const Number&) = delete;
  ~Number() { mpfr_clear(value_); }
  operator mpfr_ptr() { return value_; }

 private:
  mpfr_t value_;
};

/// f(x) for the x given, good to `bits` but for a few of the last.
inline void function_by_mpfr(mpfr_ptr out, Function f, mpfr_srcptr x, mpfr_prec_t bits) {
  Number v(bits), w(bits);
  switch (f) {
    case Function::exp: mpfr_exp(out, x, MPFR_RNDN); return;
    case Function::tanh: mpfr_tanh(out, x, MPFR_RNDN); return;
    case Function::erf: mpfr_erf(out, x, MPFR_RNDN); return;
    case Function::sigmoid:
    case Function::silu:
      mpfr_neg(v, x, MPFR_RNDN);
      mpfr_exp(v, v, MPFR_RNDN);
      mpfr_add_ui(v, v, 1, MPFR_RNDN);
      if (f == Function::sigmoid)
        mpfr_ui_div(out, 1, v, MPFR_RNDN);
      else
        mpfr_div(out, x, v, MPFR_RNDN);
      return;
    case Function::gelu:
      mpfr_sqrt_ui(v, 2, MPFR_RNDN);
      mpfr_div(v, x, v, MPFR_RNDN);
      mpfr_neg(v, v, MPFR_RNDN);
      mpfr_erfc(v, v, MPFR_RNDN);
      mpfr_mul(v, v, x, MPFR_RNDN);
      mpfr_div_2ui(out, v, 1, MPFR_RNDN);
      return;
    case Function::gelu_tanh: {
      // 1 + tanh(z) of a negative z loses 2|z|/ln 2 bits. Beyond |z| = 600 only the sign and the limit are right.
      const double size = std::fabs(mpfr_get_d(x, MPFR_RNDN));
      const double z = 0.8 * (size + 0.045 * size * size * size);
      const auto more = static_cast<mpfr_prec_t>(z < 600 ? 3 * z + 64 : 64.0);
      Number a(bits + more), b(bits + more);
      mpfr_sqr(a, x, MPFR_RNDN);
      mpfr_mul_d(a, a, 0.044715, MPFR_RNDN);
      mpfr_mul(a, a, x, MPFR_RNDN);
      mpfr_add(a, a, x, MPFR_RNDN);
      mpfr_const_pi(b, MPFR_RNDN);
      mpfr_ui_div(b, 2, b, MPFR_RNDN);
      mpfr_sqrt(b, b, MPFR_RNDN);
      mpfr_mul(a, a, b, MPFR_RNDN);
      mpfr_tanh(a, a, MPFR_RNDN);
      mpfr_add_ui(a, a, 1, MPFR_RNDN);
      mpfr_mul(a, a, x, MPFR_RNDN);
      mpfr_div_2ui(out, a, 1, MPFR_RNDN);
      if (mpfr_zero_p(out) != 0) mpfr_setsign(out, out, mpfr_signbit(x), MPFR_RNDN);
      return;
    }
  }
  std::abort();
}

/// The code of `value` rounded to nearest, ties to even: a multiple of the format's quantum, counted.
/// Domain: ieee overflow; NaN, infinite and zero values allowed.
inline std::uint64_t round_by_mpfr(FormatId id, mpfr_srcptr value) {
  const Format& f = format_of(id);
  if (mpfr_nan_p(value) != 0) return f.nan_code();
  const std::uint64_t sign = mpfr_signbit(value) != 0 ? f.sign_code() : 0;
  const std::uint64_t beyond = f.has_infinity() ? sign | f.infinity_code() : f.nan_code();
  const auto zero = [&] { return f.has_negative_zero() ? sign : 0; };
  if (mpfr_inf_p(value) != 0) return beyond;
  if (mpfr_zero_p(value) != 0) return zero();
  const long exponent = std::max<long>(static_cast<long>(mpfr_get_exp(value)) - 1, f.emin);
  if (exponent > f.emax) return beyond;
  Number scaled(mpfr_get_prec(value));
  mpfr_mul_2si(scaled, value, f.mantissa_bits() - exponent, MPFR_RNDN);
  mpfr_abs(scaled, scaled, MPFR_RNDN);
  Number whole(64);
  mpfr_rint(whole, scaled, MPFR_RNDN);
  // Codes of magnitudes are counted in quanta, binade by binade.
  const std::uint64_t code = (static_cast<std::uint64_t>(exponent - f.emin) << f.mantissa_bits()) +
                             static_cast<std::uint64_t>(mpfr_get_ui(whole, MPFR_RNDN));
  if (code > f.max_finite_code()) return beyond;
  return code == 0 ? zero() : sign | code;
}

/// The code of a value known to 2^-margin of itself; empty if that does not tell.
inline std::optional<std::uint64_t> round_known(FormatId id, mpfr_srcptr value, int margin) {
  if (mpfr_regular_p(value) == 0) return round_by_mpfr(id, value);
  Number low(mpfr_get_prec(value) + 2), high(mpfr_get_prec(value) + 2), step(64);
  mpfr_div_2ui(step, value, static_cast<unsigned long>(margin), MPFR_RNDA);
  mpfr_sub(low, value, step, MPFR_RNDN);
  mpfr_add(high, value, step, MPFR_RNDN);
  const std::uint64_t a = round_by_mpfr(id, low), b = round_by_mpfr(id, high);
  return a == b ? std::optional(a) : std::nullopt;
}

/// The correctly rounded f(x) by Ziv's loop of its own. silu and the gelus of a large x that is a half-way point lie
/// just below x, by less than 8192 bits tell.
inline std::uint64_t round_function_by_mpfr(Function f, double x, FormatId id) {
  Number argument(x, 53);
  for (mpfr_prec_t bits = 128; bits <= 8192; bits *= 4) {
    Number y(bits);
    function_by_mpfr(y, f, argument, bits);
    if (const auto code = round_known(id, y, static_cast<int>(bits) - 16)) return *code;
    if (bits == 8192 && x > 20 && f >= Function::silu) {
      Number inner(x, 2048);
      mpfr_nexttoward(inner, Number(0, 53));
      return round_by_mpfr(id, inner);
    }
  }
  std::abort();
}

}  // namespace norma::testing

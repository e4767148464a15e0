// Exact values as GMP integers in units of a power of two: what the tests of the certified products compare with.
#pragma once

#include <gmp.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <utility>

#include "reference/formats/format.hpp"

namespace norma::test {

class Integer {
 public:
  Integer() { mpz_init(value_); }
  Integer(const Integer& other) { mpz_init_set(value_, other.value_); }
  Integer(Integer&& other) noexcept {
    mpz_init(value_);
    mpz_swap(value_, other.value_);
  }
  Integer& operator=(Integer other) noexcept {
    mpz_swap(value_, other.value_);
    return *this;
  }
  ~Integer() { mpz_clear(value_); }
  mpz_ptr get() { return value_; }
  mpz_srcptr get() const { return value_; }

 private:
  mpz_t value_;
};

/// x 2^bits for a finite x that is a multiple of 2^-bits.
inline Integer scaled_integer(double x, int bits) {
  int exponent = 0;
  const double fraction = std::frexp(x, &exponent);
  Integer result;
  mpz_set_si(result.get(), static_cast<long>(std::ldexp(fraction, 53)));
  const int shift = exponent - 53 + bits;
  if (shift >= 0)
    mpz_mul_2exp(result.get(), result.get(), static_cast<mp_bitcnt_t>(shift));
  else
    mpz_tdiv_q_2exp(result.get(), result.get(), static_cast<mp_bitcnt_t>(-shift));
  return result;
}

inline constexpr int kFinest = 1074;  ///< every finite binary64 number is a multiple of 2^-1074

/// y 2^-bits less the terms, in units of 2^-1074.
inline Integer difference(const Integer& y, int bits, std::initializer_list<double> terms) {
  Integer d;
  mpz_mul_2exp(d.get(), y.get(), static_cast<mp_bitcnt_t>(kFinest - bits));
  for (const double t : terms) {
    const Integer i = scaled_integer(t, kFinest);
    mpz_sub(d.get(), d.get(), i.get());
  }
  return d;
}

/// True unless |y 2^-bits - the terms| <= radius; a NaN or infinite term or radius is too far.
inline bool distance_exceeds(const Integer& y, int bits, std::initializer_list<double> terms, double radius) {
  for (const double t : terms)
    if (!std::isfinite(t)) return true;
  if (!std::isfinite(radius)) return true;
  Integer d = difference(y, bits, terms);
  mpz_abs(d.get(), d.get());
  const Integer r = scaled_integer(radius, kFinest);
  return mpz_cmp(d.get(), r.get()) > 0;
}

inline int sign_of_difference(const Integer& y, int bits, std::initializer_list<double> terms) {
  return mpz_sgn(difference(y, bits, terms).get());
}

/// True if y 2^-bits is a binary64 number (bits <= 1074).
inline bool is_binary64(const Integer& y, int) {
  if (mpz_sgn(y.get()) == 0) return true;
  return mpz_sizeinbase(y.get(), 2) - mpz_scan1(y.get(), 0) <= 53;
}

/// The binary64 number nearest to y 2^-bits, ties to even, where that is normal.
inline double nearest_binary64(const Integer& y, int bits) {
  if (mpz_sgn(y.get()) == 0) return 0;
  const int cut = static_cast<int>(mpz_sizeinbase(y.get(), 2)) - 53;
  if (cut <= 0) return std::ldexp(static_cast<double>(mpz_get_si(y.get())), -bits);
  Integer quotient, rest, half;
  mpz_tdiv_q_2exp(quotient.get(), y.get(), static_cast<mp_bitcnt_t>(cut));
  mpz_tdiv_r_2exp(rest.get(), y.get(), static_cast<mp_bitcnt_t>(cut));
  mpz_setbit(half.get(), static_cast<mp_bitcnt_t>(cut - 1));
  const int side = mpz_cmpabs(rest.get(), half.get());
  long whole = mpz_get_si(quotient.get());
  if (side > 0 || (side == 0 && whole % 2 != 0)) whole += whole < 0 || mpz_sgn(y.get()) < 0 ? -1 : 1;
  return std::ldexp(static_cast<double>(whole), cut - bits);
}

/// The code of y 2^-bits: nearest, ties to even, overflow as the format has it; 0 is +0.
inline std::uint64_t rounded_code(const Integer& y, int bits, FormatId id, Overflow overflow) {
  const Format& f = format_of(id);
  const int sign = mpz_sgn(y.get());
  if (sign == 0) return 0;
  Integer magnitude = y;
  mpz_abs(magnitude.get(), magnitude.get());
  const int length = static_cast<int>(mpz_sizeinbase(magnitude.get(), 2));
  const int exponent = std::max(length - 1 - bits, f.emin);  // of the binade
  const int cut = exponent - (f.precision - 1) + bits;       // low bits of y that the format does not hold
  Integer quotient, rest, half;
  if (cut <= 0) {
    mpz_mul_2exp(quotient.get(), magnitude.get(), static_cast<mp_bitcnt_t>(-cut));
  } else {
    mpz_tdiv_q_2exp(quotient.get(), magnitude.get(), static_cast<mp_bitcnt_t>(cut));
    mpz_tdiv_r_2exp(rest.get(), magnitude.get(), static_cast<mp_bitcnt_t>(cut));
    mpz_setbit(half.get(), static_cast<mp_bitcnt_t>(cut - 1));
    const int side = mpz_cmp(rest.get(), half.get());
    if (side > 0 || (side == 0 && mpz_odd_p(quotient.get()))) mpz_add_ui(quotient.get(), quotient.get(), 1);
  }
  const std::uint64_t sign_code = sign < 0 ? f.sign_code() : 0;
  // Beyond binary64's largest binade the quotient still fits; the code below would not.
  const bool beyond = exponent > f.emax;
  const std::uint64_t code =
      beyond ? f.max_finite_code() + 1
             : mpz_get_ui(quotient.get()) + (static_cast<std::uint64_t>(exponent - f.emin) << f.mantissa_bits());
  if (code > f.max_finite_code()) {
    if (overflow == Overflow::saturate || overflow == Overflow::saturate_finite) return sign_code | f.max_finite_code();
    return f.has_infinity() && overflow == Overflow::ieee ? sign_code | f.infinity_code() : f.nan_code();
  }
  if (code == 0 && !f.has_negative_zero()) return 0;
  return sign_code | code;
}

}  // namespace norma::test

// What an element's rounding test and score need of a format; the tests themselves for one element.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "reference/formats/format.hpp"

#if defined(__GNUC__)
#define NORMA_INLINE __attribute__((always_inline)) inline
#else
#define NORMA_INLINE inline
#endif

namespace norma {

inline constexpr std::uint64_t kExponentBits = 0x7ff0'0000'0000'0000;

constexpr double exact_power(int exponent) {
  return std::bit_cast<double>(static_cast<std::uint64_t>(exponent + 1023) << 52);
}

/// A format's grid: p significand bits, least exponent emin.
struct Grid {
  double least;  ///< 2^emin
  double cut;    ///< 2^(emax+2)
  double half_quantum;       ///< times t: half the distance of neighbours, 2^-p
  std::uint64_t least_bits;  ///< of `least`
  std::uint64_t to_c;        ///< bits(1.5 * 2^(53-p) t) = bits(t) + this
  int shift;                 ///< from exponent bits to code
};
constexpr Grid grid_of(FormatId id) {
  const Format& f = format_of(id);
  return {.least = exact_power(f.emin),
          .cut = exact_power(f.emax + 2),
          .half_quantum = exact_power(-f.precision),
          .least_bits = static_cast<std::uint64_t>(f.emin + 1023) << 52,
          .to_c = (static_cast<std::uint64_t>(53 - f.precision) << 52) | (std::uint64_t{1} << 51),
          .shift = 52 - f.mantissa_bits()};
}

/// A format's ulp.
struct UlpRule {
  double least;              ///< 2^emin
  double limit;              ///< the overflow threshold less 2^-20 of it: |h| from there on is looked at again
  std::uint64_t to_inverse;  ///< bits(1 / ulp) = this - bits(2^e)
};
/// (2 - 2^-p) 2^emax, where rounding begins to overflow; for e4m3fn, whose last code of the top binade is NaN, 464.
constexpr double overflow_threshold(FormatId id) {
  const Format& f = format_of(id);
  return max_finite(id) + exact_power(f.emax - f.precision);
}
constexpr UlpRule ulp_rule(FormatId id) {
  const Format& f = format_of(id);
  return {.least = exact_power(f.emin),
          .limit = overflow_threshold(id) * (1 - 0x1p-20),
          .to_inverse = static_cast<std::uint64_t>(2 * 1023 + f.mantissa_bits()) << 52};
}

/// One element.
namespace scalar {

template <class F>
struct Words;
template <>
struct Words<double> {
  using Bits = std::uint64_t;
  using Mask = int;
};
inline double select(bool yes, double a, double b) { return yes ? a : b; }
inline double absolute(double v) { return std::fabs(v); }
template <class To, class From>
To bits_as(From v) { return std::bit_cast<To>(v); }

#include "reference/certified/element.inc"

}  // namespace scalar

}  // namespace norma

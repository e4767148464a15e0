// What an element's rounding test and score need of a format; the tests themselves for one element.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "reference/formats/format.hpp"

#if defined(__GNUC__)
#define NORMA_INLINE __attribute__((always_inline)) inline
#define NORMA_INLINE_LAMBDA __attribute__((always_inline))
#else
#define NORMA_INLINE inline
#define NORMA_INLINE_LAMBDA
#endif

namespace norma {

inline constexpr std::uint64_t kExponentBits = 0x7ff0'0000'0000'0000;

constexpr double exact_power(int exponent) {
  return std::bit_cast<double>(static_cast<std::uint64_t>(exponent + 1023) << 52);
}

/// A format's grid in binary64 or binary32 arithmetic (P = 53 or 24 bits): p significand bits, least exponent emin.
template <class F>
struct Grid {
  using Bits = std::conditional_t<sizeof(F) == 8, std::uint64_t, std::uint32_t>;
  F least;          ///< 2^emin
  F cut;            ///< 2^(emax+2)
  F half_quantum;   ///< times t: half the distance of neighbours, 2^-p
  Bits least_bits;  ///< of `least`
  Bits to_c;        ///< bits(1.5 * 2^(P-p) t) = bits(t) + this
  Bits exponent;    ///< mask
  int shift;        ///< from exponent bits to code
};
template <class F>
constexpr Grid<F> grid_of(FormatId id) {
  using Bits = typename Grid<F>::Bits;
  constexpr int kFraction = sizeof(F) == 8 ? 52 : 23, kBias = sizeof(F) == 8 ? 1023 : 127;
  const Format& f = format_of(id);
  return {.least = static_cast<F>(exact_power(f.emin)),
          .cut = f.emax + 2 > kBias ? std::numeric_limits<F>::max() : static_cast<F>(exact_power(f.emax + 2)),
          .half_quantum = static_cast<F>(exact_power(-f.precision)),
          .least_bits = static_cast<Bits>(f.emin + kBias) << kFraction,
          .to_c = static_cast<Bits>((static_cast<Bits>(kFraction + 1 - f.precision) << kFraction) |
                                    (Bits{1} << (kFraction - 1))),
          .exponent = static_cast<Bits>(2 * kBias + 1) << kFraction,
          .shift = kFraction - f.mantissa_bits()};
}

/// A format's ulp.
struct UlpRule {
  double least;              ///< 2^emin
  double limit;              ///< the overflow threshold less 2^-20 of it: |h| from there on is looked at again
  double two_to_p;           ///< y / ulp is below
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
          .two_to_p = exact_power(f.precision),
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
inline double max_of(double a, double b) { return a > b ? a : b; }
inline double min_of(double a, double b) { return a < b ? a : b; }
inline double absolute(double v) { return std::fabs(v); }
template <class To, class From>
To bits_as(From v) {
  return std::bit_cast<To>(v);
}

#include "reference/certified/element.inc"

}  // namespace scalar

}  // namespace norma

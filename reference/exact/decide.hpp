// Decisions about a real number y from its enclosure and, where that is too wide, from exact comparisons.
//
// Every function takes y as (truth, row, col) with the enclosure that `enclose_row` gave. Nothing here rounds y
// first and nothing calls `encode`: midpoints are decoded, and y is compared with them.
#pragma once

#include <cstdint>
#include <optional>

#include "reference/exact/enclosure.hpp"
#include "reference/formats/format.hpp"

namespace norma {

/// One element of a truth.
struct Element {
  const TruthSource& truth;
  std::int64_t row = 0;
  std::int64_t col = 0;
  const Enclosure& enclosure;
};

/// The sign of y - (m_hi + m_lo), from the enclosure where that suffices, else by truth.compare. y real.
Comparison compare(const Element& y, double m_hi, double m_lo = 0);

/// max(e, emin) for 2^e <= |y| < 2^(e+1): all that an ulp needs. emin for y = 0. Empty: undecided, or y is
/// not finite. Above the format's range e goes on growing.
std::optional<int> binade(const Element& y, FormatId format);

/// 2^(max(e, emin) - precision + 1): the distance of neighbouring values of the format in binade e. fp64's
/// is at least 2^-1074.
double ulp_of(FormatId format, int binade);

/// |error| in units of 2^-16 ulp is cut off here: 2^32 ulp.
inline constexpr std::int64_t kScaledErrorLimit = std::int64_t{1} << 48;

/// (got - y) / ulp_F(y) * 2^16 rounded to nearest, ties to even: exact, however much of got and y cancels.
/// Saturated to +-kScaledErrorLimit.
///
/// Domain:  finite got, finite y.
/// decided: false if the truth could not tell y's binade or which side of a half-way point it lies; the value
///          is then that of the enclosure's midpoint. For fp64 results below 2^-1000 half-way points have no
///          binary64 form, and only the enclosure decides.
struct ScaledError {
  std::int64_t value = 0;
  bool decided = true;
};
ScaledError scaled_error(const Element& y, double got, FormatId format);

/// (a - b + offset) / ulp * 2^16 of the midpoints hi + lo, added exactly and rounded once, ties to even; saturated
/// as above. For (erasure - canonical) / u. `ulp` is a power of two; midpoints finite.
std::int64_t scaled_difference(const Enclosure& a, const Enclosure& b, double ulp, double offset = 0);
inline std::int64_t scaled_difference(double a, const Enclosure& b, double ulp) {
  return scaled_difference(Enclosure{.hi = a}, b, ulp);
}

/// The code of y rounded once to nearest, ties to even, with what lies beyond the largest finite number
/// treated by `overflow`; NaN gives the canonical code. A zero result takes y's sign (the sign in the
/// enclosure where y = 0). Empty: undecided.
std::optional<std::uint64_t> round_to(const Element& y, FormatId format, Overflow overflow);

/// True if `code` is round_to's: any NaN for NaN, and for y = 0 a zero of either sign (the reals have one).
/// Empty: undecided.
std::optional<bool> is_correctly_rounded(const Element& y, FormatId format, Overflow overflow, std::uint64_t code);

/// True if `code` is y's value, or the next value of the format below or above y; beyond the largest finite
/// number: that number, or what `overflow` makes of such values. Zeros: either sign. Empty: undecided.
std::optional<bool> is_faithful(const Element& y, FormatId format, Overflow overflow, std::uint64_t code);

}  // namespace norma

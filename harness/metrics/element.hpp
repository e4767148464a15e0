// One element decided by its closer enclosure and, where that is too wide, by exact comparisons.
#pragma once

#include <cstdint>
#include <optional>

#include "harness/metrics/settle.hpp"
#include "harness/metrics/tally.hpp"
#include "reference/exact/decide.hpp"

namespace norma {

/// An element of got with all that it is held against.
struct ElementQuery {
  std::int64_t row, col, index;
  std::uint64_t code;
  double got;
  std::optional<std::uint64_t> ideal;
};

/// Counts an element that has no error to score, where y's quick enclosure tells so: a NaN or infinite y, or a got that
/// is not finite and should be. False: it does not.
bool count_special(Tally& tally, const MeasureJob& job, const ElementQuery& element, double mid, double radius);

/// Writes the element's figures at `at` of the run, or counts it as not scored and leaves its state 0. `erasure` null:
/// the definition's part is 0; it is NaN where the erasure is not finite. Counts the tier that settled it: the
/// enclosures' slower one, or exact if there was a comparison.
void decide_element(Tally& tally, const MeasureJob& job, const ElementQuery& element, const Enclosure& truth,
                    const Enclosure* erasure, Decided& decided, std::size_t at);

/// (e - c) / ulp on the grid, of the midpoints. What lies within kHalfwayMargin of a half-way point counts as that
/// point and goes to the even neighbour: so that midpoints which differ far below the margin, as those of two tiers do,
/// give the same number where y and its erasure are short binary fractions and their difference is a half-way point
/// exactly.
std::int64_t definition_part(const Enclosure& erasure, const Enclosure& truth, double unit);
inline constexpr double kHalfwayMargin = 0x1p-24;

/// (got - ideal) / ulp on the grid, exact, for finite values.
std::int64_t implementation_part(double got, double ideal, double unit);

/// The midpoint of y as a record tells it: hi is y correctly rounded to binary64, decided, where that can be.
struct Midpoint {
  double hi, lo;
};
Midpoint midpoint_of(const Element& y);

}  // namespace norma

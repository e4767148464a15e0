// From a midpoint and a radius to the correctly rounded code, or to "not settled".
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "reference/exact/decide.hpp"
#include "reference/exact/enclosure.hpp"
#include "reference/formats/format.hpp"

namespace norma {

/// Rounds each y with |y - mid[i]| <= radius[i] to `format`, nearest even, where that settles it; the codes go to
/// `stored` in storage layout (encode_row's). Positions that are not settled are appended to `open`, their codes hold
/// the rounded midpoint. Non-finite mid: radius is ignored, NaN and Inf are stored as encode does. A zero result is
/// settled only if its sign is known: mid is nonzero, or radius is 0.
///
/// Formats: any but fp64. Same result at every vector width.
void round_enclosed(FormatId format, Overflow overflow, std::span<const double> mid, std::span<const double> radius,
                    std::byte* stored, std::vector<std::uint32_t>& open);

/// The same with one relative bound: |y - mid[i]| <= relative |mid[i]|; mid = 0 means y = 0 with mid's sign.
void round_enclosed(FormatId format, Overflow overflow, std::span<const double> mid, double relative, std::byte* stored,
                    std::vector<std::uint32_t>& open);

/// Settles what binary64 left open: the element's closer enclosure, then exact comparisons (decide.hpp). Counts the
/// tier that did it. Returns the code.
std::uint64_t round_open(const TruthSource& truth, std::int64_t row, std::int64_t col, FormatId format,
                         Overflow overflow, TierCounts& tiers);

}  // namespace norma

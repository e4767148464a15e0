// The parts of rounding that row loops share: one element, and the blocks that a vector loop left.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "reference/certified/rows/kernels.hpp"
#include "reference/formats/format.hpp"

namespace norma {

/// The code of y for |y - mid| <= bound (padded, element.inc), and whether that is sure. NaN and Inf by `overflow`.
struct SettledCode {
  std::uint64_t code;
  bool settled;
};
SettledCode settle(FormatId format, Overflow overflow, double mid, double bound);

/// Looks at each element of the blocks whose bit is set, stores its code and appends first + its place to `open` if it
/// is not settled.
void settle_blocks(FormatId format, Overflow overflow, const EnclosedRun& run, std::uint64_t blocks, std::size_t first,
                   std::byte* stored, std::vector<std::uint32_t>& open);

}  // namespace norma

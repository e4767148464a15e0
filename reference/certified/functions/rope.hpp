// Rotary position embedding with certified errors.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "reference/certified/rows/row_norm.hpp"
#include "reference/exact/enclosure.hpp"
#include "reference/formats/tensor.hpp"

namespace norma {

/// Which columns turn together: 2i and 2i + 1 (interleaved; GPT-J, RoFormer), or i and i + rotary/2 (half; GPT-NeoX,
/// LLaMA).
enum class RopePairing : std::uint8_t { interleaved, half };

/// Over the reals, for each row (a token's head) and pair i < rotary/2 of its columns, at angle t = position
/// theta^(-2i/rotary):
///
///   y1 = x1 cos t - x2 sin t          y2 = x1 sin t + x2 cos t
///
/// Columns from `rotary` on are passed on. Row r stands at positions[(r / rows_each) % positions.size()].
///
/// Source:  Su et al., RoFormer, 2021.
/// Special: at position 0, y = x. Else as IEEE arithmetic on the products; a zero has the sign that it gives.
/// Formats: x of at most 24 significant bits (up to fp32).
/// Ends:    t is algebraic and not 0, so that x1 cos t - x2 sin t = m, a linear relation between e^(it), e^(-it) and 1,
///          holds only for x1 = x2 = m = 0 (Lindemann-Weierstrass). Ziv's loop ends; it is cut off at 4096 bits.
struct Rope {
  const Tensor* x = nullptr;
  std::span<const std::int64_t> positions;
  std::int64_t rows_each = 1;
  std::int64_t rotary = 0;  ///< even, at most x's columns
  double theta = 10000;     ///< finite, at least 1
  RopePairing pairing = RopePairing::half;
};

/// The truth of y with all tiers; tensor and positions must outlive it. Thread-safe.
///
/// Errors:  std::invalid_argument, one sentence, for a problem outside the domain.
std::unique_ptr<TruthSource> rope_truth(const Rope& rope);

/// Every element correctly rounded; as round_rows.
RoundedRows round_rope(const Rope& rope, FormatId format, Overflow overflow, int threads = 1);

}  // namespace norma

// RMSNorm's outputs with a scale for every block of columns: MXFP8, MXFP4, NVFP4.
#pragma once

#include <memory>

#include "reference/certified/rows/row_norm.hpp"
#include "reference/exact/enclosure.hpp"

namespace norma {

/// Codes y = n global / scale, for each block of a row; n is the norm, amax = max |n| over the block.
///
///   ceil    scale = 2^ceil(log2(amax / code_max))             what TransformerEngine and FlashInfer do
///   floor   scale = 2^(floor(log2 amax) - code_exponent)      OCP MX v1.0 §6.3: a code may exceed code_max
///   e4m3    scale = amax global / code_max, at most 448, to the nearest e4m3 number, ties to even      NVFP4
///
/// The scales are part of the function: they are numbers of E8M0 (2^-127 to 2^127; zeros have the first) or
/// e4m3, exactly. A scale of 0 (e4m3 only) makes the block's codes 0. A NaN in a block makes its scale and codes NaN;
/// an Inf makes the scale the largest there is.
struct BlockScales {
  enum class Rule { ceil, floor, e4m3 };
  Rule rule = Rule::ceil;
  std::int64_t block = 32;  ///< columns; divides those of a row
  double code_max = 448;
  int code_exponent = 8;  ///< of the largest code
  double global = 1;
};

/// The truth of the codes.
std::unique_ptr<TruthSource> block_codes_truth(const RowNorm& norm, const BlockScales& scales);
/// The truth of codes times scale: n global.
std::unique_ptr<TruthSource> block_dequantized_truth(const RowNorm& norm, const BlockScales& scales);
/// The truth of the scales, one for each block: points.
std::unique_ptr<TruthSource> block_scales_truth(const RowNorm& norm, const BlockScales& scales);

}  // namespace norma

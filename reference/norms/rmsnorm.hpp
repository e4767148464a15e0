// RMSNorm, canonical.
#pragma once

#include <cstdint>
#include <string_view>

#include "reference/norms/norm.hpp"

namespace norma {

/// Root-mean-square normalization of every row, with the residual sum before it and quantization after it.
///
///   h = x + residual            r = 1 / sqrt(mean(h^2) + eps)          (eps_place=inside)
///   n = (weight_offset + weight) h r + bias                            y = n, n / scale or n / scale[row]
///   scale[row] = max(min(max_j |n_j|, scale_cap) / quant_max, scale_floor)       (quant=per_token)
///   y = n global_scale / scale[row, block]                                        (quant=mxfp8, mxfp4, nvfp4)
///   scale[row, block]: a power of two for 32 columns, an e4m3 number for 16; rmsnorm_blocks.hpp. `dequantized` is then
///   n global_scale (1 but for nvfp4).
///
/// Shapes:  x, residual [rows, cols]; weight (absent: 1 - weight_offset, so that the factor is 1), bias [cols];
///          scale one value. All over the reals: nothing is rounded to a tensor's format.
/// Domain:  any formats. eps >= 0, weight_offset finite, scale > 0 finite, quant_max > 0, scale_floor >= 0,
///          scale_cap > 0 (may be Inf).
/// Special: a NaN in h's row makes the row NaN. An Inf makes r = 0: finite h gives a zero with the sign of
///          weight h, plus bias; Inf gives NaN. 0/0 (a zero row without eps) is NaN. A NaN or Inf weight or bias
///          acts on its column by IEEE rules. A NaN in n makes a per_token scale NaN.
/// Exact:   enclosures have radius <= 2^-100 (|q| + |bias|) + 2^-1074, and compare() is never undecided for a
///          finite y: y against m comes down to the sign of A r - c with dyadic A, c, a polynomial of degree 2.
/// Source:  Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019; eps_place as in the catalogue of
///          upstream norms (l2max: F.normalize(x) * sqrt(C); max: 1 / max(rms, eps)).
extern const NormDef rmsnorm;

/// Columns that share a scale: rows are whole numbers of them. 1 where a quant has no blocks.
constexpr std::int64_t block_columns(std::string_view quant) {
  return quant == "nvfp4" ? 16 : quant == "mxfp8" || quant == "mxfp4" ? 32 : 1;
}

}  // namespace norma

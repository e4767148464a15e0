// LayerNorm, canonical.
#pragma once

#include "reference/norms/norm.hpp"

namespace norma {

/// Layer normalization of every row, with the residual sum before it.
///
///   h = x + residual      r = 1 / sqrt(var + eps)      y = (weight_offset + weight) (h - mean(h)) r + bias
///   var = sum (h - mean(h))^2 / (cols - correction)
///
/// Shapes:  x, residual, y [..., D]; weight (absent: the factor is 1), bias [D], or one vector for each sample: [B, D]
/// (or
///          [B, 1, D]) for x [B, ..., D], as adaptive LayerNorm has them. All over the reals.
/// Domain:  any formats. eps >= 0 and weight_offset finite; 0 <= correction < D. eps_place: outside and max stand
/// beside
///          the standard deviation, none leaves eps out.
/// Special: row_norm.hpp's rules: NaN or Inf in a row make it NaN; var = 0 with eps > 0 (D = 1 too) gives the bias, a
///          zero without one; var = 0 without eps is 0/0, NaN.
/// Source:  Ba, Kiros, Hinton, "Layer Normalization", 2016; torch.nn.functional.layer_norm. correction = 1 with
///          eps_place = outside is the form with torch.std.
extern const NormDef layernorm;

}  // namespace norma

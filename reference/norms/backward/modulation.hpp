// The backward of modulation and gated residual: products, and sums of products.
#pragma once

#include "reference/norms/norm.hpp"

namespace norma {

/// y = x (scale_offset + scale) + shift:
///
///   dx = dy (scale_offset + scale)          dscale = sum over tokens of dy x          dshift = sum over tokens of dy
///
/// Shapes:  x, dy, dx [..., D]; scale, dscale, dshift [D] (sums over all rows), or one vector for each sample: [B, D]
/// (or
///          [B, 1, D]) for x [B, ..., D], or x's shape (no sum).
/// Exact:   every output is a dyadic number.
/// Special: IEEE rules; sums of Inf and -Inf are NaN.
/// Source:  the derivative of modulate's formula, without tables.
extern const NormDef modulate_backward;

/// y = residual + gate x:
///
///   dx = dy gate          dresidual = dy          dgate = sum over tokens of dy x
///
/// x is what a block adds to its stream (f of gated_residual). Shapes, special values as above.
/// Source:  the derivative of gated_residual's formula with gate_function=identity, without a table.
extern const NormDef gated_residual_backward;

}  // namespace norma

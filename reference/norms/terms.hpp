// Modulation, gated residual, residual sum: exact polynomials of their inputs.
#pragma once

#include <memory>

#include "reference/certified/rows/three_terms.hpp"
#include "reference/norms/norm.hpp"

namespace norma {

/// The truth of y by dyadic arithmetic, of tensors of any format: points, and comparisons that are always decided.
std::unique_ptr<TruthSource> terms_truth(const ThreeTerms& terms);
/// The same with binary64's tiers; null where a tensor is too wide for them.
std::unique_ptr<TruthSource> fast_terms_truth(const ThreeTerms& terms);

/// h = x + residual.
ThreeTerms residual_sum(const RowNorm& norm);

/// y = x (1 + scale) + shift
///
/// Shapes:  x, y [..., D]; scale, shift [D], or one vector for each sample: [B, D] (or [B, 1, D]) for x [B, ..., D].
/// Special: IEEE rules, element by element; 1 + scale is a factor, so that an Inf times scale = -1 is NaN.
/// Source:  adaptive LayerNorm: Peebles & Xie, "Scalable Diffusion Models with Transformers", 2022 (DiT's modulate).
extern const NormDef modulate;

/// y = x + gate f
///
/// Shapes:  x, f, y [..., D]; gate [D], [B, D] as above, or x's shape.
/// Source:  the same; FLUX, Qwen-Image and others gate what a block adds to its stream.
extern const NormDef gated_residual;

}  // namespace norma

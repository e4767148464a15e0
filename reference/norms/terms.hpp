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

/// y = x (scale_offset + scale + scale_table) + shift + shift_table
///
/// Shapes:  x, y [..., D]; scale, shift [D], or one vector for each sample: [B, D] (or [B, 1, D]) for x [B, ..., D], or
///          x's shape; tables [D] or [B, D]. One of scale and shift may be absent: no factor, no term.
/// Domain:  scale_offset 1, or 0 for FiLM's gamma.
/// Special: IEEE rules, element by element; 1 + scale is a factor, so that an Inf times scale = -1 is NaN.
/// Source:  adaptive LayerNorm: Peebles & Xie, "Scalable Diffusion Models with Transformers", 2022 (DiT's modulate);
///          gamma: Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", 2018; tables: Chen et al.,
///          "PixArt-alpha", 2023.
extern const NormDef modulate;

/// y = x + gate_function(gate + gate_table) f
///
/// Shapes:  x, f, y [..., D]; gate [D], [B, D] as above, or x's shape; gate_table [D] or [B, D].
/// Source:  Peebles & Xie as above; FLUX, Qwen-Image and others gate what a block adds to its stream; Lumina and Z-Image
///          by the tanh of their gate.
extern const NormDef gated_residual;

}  // namespace norma

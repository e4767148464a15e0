// Adaptive norms: a LayerNorm or RMSNorm and the modulation after it, with a gated residual before it where there is
// one.
#pragma once

#include "reference/norms/norm.hpp"

namespace norma {

/// Adaptive layer normalization of every row.
///
///   h = residual + (gate + gate_table) x        x itself without a residual; without a gate its factor is 1
///   n = (weight_offset + weight) (h - mean(h)) / sqrt(var(h) + eps) + bias
///   y = (scale_offset + scale + scale_table) n + shift + shift_table
///
/// Shapes:  x, residual, y [..., D]; weight, bias [D]; scale, shift, gate [D], or one vector for each sample: [B, D]
/// (or
///          [B, 1, D]) for x [B, ..., D], or x's shape; tables [D] or [B, D]. What is absent is the neutral element: 1
///          for a factor, 0 for a term.
/// Domain:  eps >= 0, weight_offset finite; scale_offset 1 or 0.
/// Outputs: y; residual, which is h, where there is a residual.
/// Special: as layernorm, then IEEE rules.
/// Source:  Peebles & Xie, "Scalable Diffusion Models with Transformers", 2022; tables: Chen et al., "PixArt-alpha",
/// 2023.
extern const NormDef ada_layernorm;

/// The same with n = (weight_offset + weight) h / sqrt(mean(h^2) + eps) + bias.
///
/// Source:  Zhang & Sennrich, 2019, modulated as above (Lumina, Mochi, Z-Image).
extern const NormDef ada_rmsnorm;

}  // namespace norma

// Adaptive group normalization: a GroupNorm and the modulation of its channels after it.
#pragma once

#include "reference/norms/norm.hpp"

namespace norma {

/// x = [N, C, ...] in groups of C / groups channels of a sample.
///
///   h = x + embedding[n, c]
///   n = weight[c] (h - mean) / sqrt(var + eps) + bias[c]      mean and variance over a group's channels and positions
///   y = (scale_offset + scale) n + shift
///
/// Shapes:  x, y [N, C, ...]; weight, bias [C]; scale, shift [C], one value for each channel of a sample, [N, C] (or
///          [N, C, 1, ...]), or x's shape; embedding [C] or [N, C]. What is absent is the neutral element: 1 for a
///          factor, 0 for a term.
/// Domain:  eps >= 0, groups a divisor of C; scale_offset 1 or 0.
/// Outputs: y.
/// Special: as groupnorm, then IEEE rules.
/// Source:  Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021 (AdaGN, and the embedding added
///          before the norm); with scale and shift of x's shape Zheng et al., "MoVQ", 2022 (spatially conditioned
///          normalization).
extern const NormDef ada_groupnorm;

}  // namespace norma

// The backward of norms of rows: RMSNorm, LayerNorm, L2 normalization, and their adaptive forms.
//
// All of them are gradients.hpp's dx, derived there, and sums over rows of dy xhat and dy; xhat = (h - centre) r. x is
// what the forward normalizes: after a residual has been added, the sum. Rules for what is not finite: gradients.hpp.
#pragma once

#include "reference/norms/norm.hpp"

namespace norma {

/// y = (weight_offset + weight) x r [+ bias] with r = 1 / sqrt(mean(x^2) + eps), g = dy (weight_offset + weight):
///
///   dx = r g - r^3 x mean(g x)          dweight = sum over rows of dy x r          dbias = sum over rows of dy
///
/// Shapes:  x, dy, dx [rows, cols]; weight, dweight, dbias [cols]. Without a weight its factor is 1 and there is no
///          dweight. dbias needs no bias and is there always: a kernel that has none does not write it.
/// Source:  the derivative of rmsnorm's formula; eps_place as there.
extern const NormDef rmsnorm_backward;

/// y = (weight_offset + weight) (x - mean(x)) r [+ bias] with r = 1 / sqrt(var(x) + eps), n = cols - correction:
///
///   dx = r (g - mean(g)) - r^3 (x - mean(x)) sum(g (x - mean(x))) / n          dweight, dbias as above
///
/// Shapes:  weight [cols], or one vector for each sample, [B, D] for x [B, ..., D]; dweight and dbias have weight's
/// shape.
/// Source:  the derivative of layernorm's formula; eps_place and correction as there.
extern const NormDef layernorm_backward;

/// y = x r with r = 1 / max(||x||, eps):
///
///   dx = r dy - r^3 x sum(dy x)          r dy where eps is larger
///
/// Source:  the derivative of l2norm's formula; eps_place as there.
extern const NormDef l2norm_backward;

/// y = (scale_offset + scale) n + shift, n = (weight_offset + weight) xhat of layernorm:
///
///   dx as layernorm's with g = dy (scale_offset + scale) (weight_offset + weight)
///   dscale = sum over tokens of dy n          dshift = sum over tokens of dy
///   dweight = sum over rows of dy (scale_offset + scale) xhat
///
/// Shapes:  scale [cols], or one vector for each sample, [B, D] or [B, 1, D]; dscale and dshift have scale's shape;
///          weight, dweight [cols].
/// Source:  the derivative of ada_layernorm's formula without a bias, a gate and tables.
extern const NormDef ada_layernorm_backward;

/// The same with rmsnorm's n.
extern const NormDef ada_rmsnorm_backward;

}  // namespace norma

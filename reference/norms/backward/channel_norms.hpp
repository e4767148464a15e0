// The backward of norms of [N, C, ...]: GroupNorm, InstanceNorm, BatchNorm.
//
// gradients.hpp's dx over the elements that share their statistics, g = dy weight[c], and sums over the samples and
// positions of a channel: dweight[c] of dy xhat, dbias[c] of dy. With given statistics r is a constant: dx = g r.
//
// Shapes:  x, dy, dx [N, C, ...]; weight, dweight, dbias [C]. Without a weight there is no dweight; dbias is there
//          always.
#pragma once

#include "reference/norms/norm.hpp"

namespace norma {

/// Source: the derivative of groupnorm's formula.
extern const NormDef groupnorm_backward;
/// Source: the derivative of instancenorm's formula.
extern const NormDef instancenorm_backward;
/// Source: the derivative of batchnorm's formula. momentum takes no part.
extern const NormDef batchnorm_backward;

}  // namespace norma

// How far a linear layer, an attention or a convolution may be from its meaning, in whatever order its sums are taken.
#pragma once

#include <vector>

#include "reference/certified/blocks/real_graph.hpp"

namespace norma {

/// For every element of the site's result: |stored - meaning| is at most this, for every order of summation in binary32
/// or wider, fused or not, flushed subnormals allowed, with the roundings that the site declares. `meant`: what
/// evaluate_site gives for these arguments. Infinite where the result may overflow.
///
/// Attention: scores, exponentials and sums in binary32, exponentials to 2^-19 of themselves (the least exact that
/// torch's fused kernels use), keys taken in blocks of at least 32 with a running maximum.
/// Domain: arguments finite. Errors: std::invalid_argument for a site that is none of the three.
std::vector<double> any_order_bound(const Site& site, const std::vector<const Tensor*>& arguments, const RealTensor& meant,
                                    int threads = 1);

}  // namespace norma

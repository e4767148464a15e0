// From a block's case to its tensors.
#pragma once

#include "harness/cases/case.hpp"
#include "reference/formats/tensor.hpp"

namespace norma {

/// As expand_defaults and make_inputs (inputs.hpp). A family fills what is no weight; of weights matrices and kernels are
/// linear_normal, vectors NAME.bias small_normal, other vectors weight_normal; cos and sin are tables of a rotary embedding,
/// ids positions in an image, timestep and guidance those of a sampler.
/// Formats are those of the case's path. A file gives all tensors: x's shape is the block's input's.
Case expand_block_defaults(const Case& c);
Tensors make_block_inputs(const Case& expanded, int threads = 1);

}  // namespace norma

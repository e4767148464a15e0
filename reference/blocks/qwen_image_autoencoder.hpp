// The residual block of Qwen-Image's and Wan's autoencoder over the reals.
#pragma once

#include "reference/blocks/block.hpp"

namespace norma::blocks {

extern const BlockDef qwen_vae_residual;

}  // namespace norma::blocks

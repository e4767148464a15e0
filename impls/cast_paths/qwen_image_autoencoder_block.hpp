// The residual block of Qwen-Image's and Wan's autoencoder as code computes it.
#pragma once

#include "impls/cast_paths/block_path.hpp"

namespace norma::blocks {

extern const BlockPath diffusers_qwen_vae_residual;

}  // namespace norma::blocks

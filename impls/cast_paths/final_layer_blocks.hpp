// Final layers whose shift and scale one linear layer gives.
#pragma once

#include "impls/cast_paths/block_path.hpp"

namespace norma::blocks {

extern const BlockPath facebook_dit_final_layer, diffusers_qwen_norm_out;

}  // namespace norma::blocks

// Blocks whose linear layers upstream computes from fp8, with the layers that it exempts.
#pragma once

#include "impls/cast_paths/block_path.hpp"

namespace norma::blocks {

extern const BlockPath diffusers_flux_double_block_layerwise, diffusers_flux_single_block_layerwise;
extern const BlockPath diffusers_qwen_image_block_layerwise, diffusers_wan_block_layerwise;
extern const BlockPath transformers_llama_block_finegrained_fp8;

}  // namespace norma::blocks

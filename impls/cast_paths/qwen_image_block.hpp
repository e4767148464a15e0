// Qwen-Image's block in diffusers.
#pragma once

#include "impls/cast_paths/block_path.hpp"

namespace norma::blocks {

extern const BlockPath diffusers_qwen_image_block;

}  // namespace norma::blocks

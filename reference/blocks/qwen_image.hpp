// Qwen-Image's transformer block.
#pragma once

#include "reference/blocks/block.hpp"

namespace norma::blocks {

extern const BlockDef qwen_image_block;

}  // namespace norma::blocks

// What stands after the blocks: a LayerNorm that the conditioning modulates, and a linear layer.
#pragma once

#include "reference/blocks/block.hpp"

namespace norma::blocks {

extern const BlockDef dit_final_layer, qwen_norm_out;

}  // namespace norma::blocks

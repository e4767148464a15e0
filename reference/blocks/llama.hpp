// The LLaMA decoder block over the reals.
#pragma once

#include "reference/blocks/block.hpp"

namespace norma::blocks {

extern const BlockDef llama_block;

}  // namespace norma::blocks

// The LLaMA decoder block as code has it.
#pragma once

#include "impls/cast_paths/block_path.hpp"

namespace norma::blocks {

extern const BlockPath transformers_llama_block;
extern const BlockPath transformers_llama_block_eager;

}  // namespace norma::blocks

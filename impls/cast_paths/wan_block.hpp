// Wan's block as code has it.
#pragma once

#include "impls/cast_paths/block_path.hpp"

namespace norma::blocks {

extern const BlockPath diffusers_wan_block;

}  // namespace norma::blocks

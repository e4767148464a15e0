// FLUX.1's blocks in their own code and in diffusers.
#pragma once

#include "impls/cast_paths/block_path.hpp"

namespace norma::blocks {

extern const BlockPath diffusers_flux_double_block, diffusers_flux_single_block, bfl_flux_double_block,
    bfl_flux_single_block, diffusers_flux_last_layer, bfl_flux_last_layer;

}  // namespace norma::blocks

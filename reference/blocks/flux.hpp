// FLUX.1's transformer: blocks of two streams, blocks of one, the last layer.
#pragma once

#include "reference/blocks/block.hpp"

namespace norma::blocks {

extern const BlockDef flux_double_block, flux_single_block, flux_last_layer;

}  // namespace norma::blocks

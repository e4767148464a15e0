// The DiT block over the reals.
#pragma once

#include "reference/blocks/block.hpp"

namespace norma::blocks {

extern const BlockDef dit_block;

}  // namespace norma::blocks

// The Wan video transformer's block over the reals.
#pragma once

#include "reference/blocks/block.hpp"

namespace norma::blocks {

extern const BlockDef wan_block;

}  // namespace norma::blocks

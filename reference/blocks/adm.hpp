// ADM's residual block over the reals.
#pragma once

#include "reference/blocks/block.hpp"

namespace norma::blocks {

extern const BlockDef adm_resblock;

}  // namespace norma::blocks

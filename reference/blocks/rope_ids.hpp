// Tables of a rotary embedding from the positions of tokens along several axes.
#pragma once

#include "reference/blocks/block.hpp"

namespace norma::blocks {

extern const BlockDef rope_from_ids;

}  // namespace norma::blocks

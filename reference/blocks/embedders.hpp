// What a diffusion transformer makes of its timestep, its guidance and its text as one vector.
#pragma once

#include "reference/blocks/block.hpp"

namespace norma::blocks {

extern const BlockDef timestep_embedding, mlp_embedder, flux_vec;

}  // namespace norma::blocks

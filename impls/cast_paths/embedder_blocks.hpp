// Embeddings of timesteps, guidance and text as code has them.
#pragma once

#include "impls/cast_paths/block_path.hpp"

namespace norma::blocks {

extern const BlockPath bfl_timestep_embedding, diffusers_flux_timestep_embedding, diffusers_qwen_timestep_embedding,
    bfl_mlp_embedder, diffusers_timestep_embedder, bfl_flux_vec, diffusers_flux_vec;

}  // namespace norma::blocks

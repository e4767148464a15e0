// Tables of rotary embeddings as code makes them from positions.
#pragma once

#include "impls/cast_paths/block_path.hpp"

namespace norma::blocks {

extern const BlockPath diffusers_flux_rope_ids, bfl_flux_rope_ids, bfl_flux_rope_ids_float64, diffusers_qwen_rope_ids,
    transformers_llama_rope_ids;

}  // namespace norma::blocks

// ADM's residual block as code computes it.
#pragma once

#include "impls/cast_paths/block_path.hpp"

namespace norma::blocks {

extern const BlockPath openai_adm_resblock;
extern const BlockPath diffusers_unet_resnet_block;

}  // namespace norma::blocks

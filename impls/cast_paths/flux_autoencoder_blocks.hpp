// The blocks of FLUX.1's autoencoder as code computes them.
#pragma once

#include "impls/cast_paths/block_path.hpp"

namespace norma::blocks {

extern const BlockPath bfl_flux_ae_resnet;
extern const BlockPath bfl_flux_ae_attention;
extern const BlockPath diffusers_flux_ae_resnet;
extern const BlockPath diffusers_flux_ae_attention;

}  // namespace norma::blocks

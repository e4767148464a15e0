// The blocks of FLUX.1's autoencoder over the reals.
#pragma once

#include "reference/blocks/block.hpp"

namespace norma::blocks {

extern const BlockDef flux_ae_resnet;
extern const BlockDef flux_ae_attention;

}  // namespace norma::blocks

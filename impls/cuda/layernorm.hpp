// The LayerNorm kernels as implementations.
#pragma once

#include <memory>

#include "impls/cuda/layernorm_launch.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

struct LayerNormVariant {
  SideKind side = SideKind::gpu;
  RowThreads row = RowThreads::warp;
  Statistic statistic = Statistic::two_pass;
  LayerNormTail tail = LayerNormTail::once;
};

/// Declares its orders and fused steps; claims no error. Formats: RowKernel.
std::unique_ptr<Implementation> make_layernorm(const LayerNormVariant& variant);

}  // namespace norma::cuda

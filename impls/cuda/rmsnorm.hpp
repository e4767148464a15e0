// The RMSNorm kernels as implementations.
#pragma once

#include <memory>

#include "impls/cuda/rmsnorm_launch.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

struct RmsVariant {
  SideKind side = SideKind::gpu;
  RowThreads row = RowThreads::warp;
  RmsTail tail = RmsTail::once;
  bool approximate_root = false;
};

/// Declares its sum's order, fused squares and its root. Formats: RowKernel.
std::unique_ptr<Implementation> make_rmsnorm(const RmsVariant& variant);

}  // namespace norma::cuda

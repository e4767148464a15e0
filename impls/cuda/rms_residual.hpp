// The kernels of residual sum and RMSNorm as implementations.
#pragma once

#include <memory>

#include "impls/cuda/rms_residual_launch.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

struct RmsResidualVariant {
  SideKind side = SideKind::gpu;
  RowThreads row = RowThreads::warp;
  ResidualSum sum = ResidualSum::rounded;
  RmsTail tail = RmsTail::once;  ///< once, before_weight or one_plus_weight
  bool approximate_root = false;
};

/// Outputs y and residual, both in x's format; x and residual in fp32, bf16, fp16, e4m3fn or e5m2.
std::unique_ptr<Implementation> make_rms_residual(const RmsResidualVariant& variant);

}  // namespace norma::cuda

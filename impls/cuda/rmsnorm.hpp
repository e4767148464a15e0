// The RMSNorm kernels as implementations.
#pragma once

#include <memory>

#include "impls/cuda/rmsnorm_launch.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

struct RmsVariant {
  SideKind side = SideKind::gpu;
  RmsRow row = RmsRow::warp;
  RmsTail tail = RmsTail::once;
  bool approximate_root = false;
};

/// x in fp32, bf16, fp16, e4m3fn or e5m2, no weight or one in x's format or fp32, y in x's format (8 bits: saturated).
/// Declares its sum's order, fused squares and its root; claims no error.
std::unique_ptr<Implementation> make_rmsnorm(const RmsVariant& variant);

}  // namespace norma::cuda

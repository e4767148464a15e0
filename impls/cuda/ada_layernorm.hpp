// LayerNorm with the modulation after it, in one kernel, as implementations.
#pragma once

#include <memory>

#include "impls/cuda/ada_layernorm_launch.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

struct AdaLayerNormVariant {
  SideKind side = SideKind::gpu;
  RowThreads row = RowThreads::warp;
  Statistic statistic = Statistic::two_pass;
  bool approximate_root = false;  ///< rsqrtf, not __frsqrt_rn
  Roundings roundings = Roundings::one;
};

/// Declares its orders and fused steps. x in fp32, bf16, fp16, e4m3fn or e5m2; parameters in x's format
/// or, with one rounding, all in fp32; scale and shift for all rows, for each sample or for each row.
std::unique_ptr<Implementation> make_ada_layernorm(const AdaLayerNormVariant& variant);

}  // namespace norma::cuda

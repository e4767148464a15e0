// One launch of LayerNorm with the modulation after it: what is compiled for both sides, and what asks for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "impls/cuda/elementwise_launch.hpp"
#include "impls/cuda/layernorm_launch.hpp"

namespace norma::cuda {

/// n = the norm with its own weight and bias, rT(fma((x - mean) r, weight, bias)) where every operation is rounded.
/// y = n (1 + scale) + shift.
struct AdaLayerNormLaunch {
  const std::byte* x = nullptr;
  const std::byte* weight = nullptr;  ///< null: none
  const std::byte* bias = nullptr;    ///< null: none
  ElementwiseLaunch::Rows scale, shift;
  std::byte* y = nullptr;
  FormatId format = FormatId::fp32;  ///< of x and y
  bool parameters_fp32 = false;      ///< the four parameters; else in x's format
  std::uint32_t rows = 0, cols = 0;
  float eps = 0;
  Statistic statistic = Statistic::two_pass;
  RowThreads row = RowThreads::warp;
  bool approximate_root = false;  ///< rsqrtf, not __frsqrt_rn
  Roundings roundings = Roundings::one;
};

void launch_ada_layernorm_on_host(const AdaLayerNormLaunch& launch, const LaunchOptions& options);
#ifdef NORMA_CUDA_BUILT
void launch_ada_layernorm_on_gpu(const AdaLayerNormLaunch& launch, const LaunchOptions& options);
#endif

}  // namespace norma::cuda

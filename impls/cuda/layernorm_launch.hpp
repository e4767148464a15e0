// One launch of a LayerNorm kernel: what is compiled for both sides, and what asks for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "impls/cuda/row_shape.hpp"
#include "impls/cuda/side.hpp"
#include "reference/formats/format.hpp"

namespace norma::cuda {

/// How mean and variance are found.
enum class Statistic : std::uint8_t {
  two_pass,  ///< the mean, then mean((x - mean)^2), squares fused
  welford,   ///< Welford by threads, times 1/count; Chan's merges
  one_pass,  ///< max(mean(x^2) - mean^2, 0), fused
};

/// Where the result meets x's format T. n = (x - mean) r in binary32.
enum class LayerNormTail : std::uint8_t {
  once,           ///< rT(fma(n, w, b))
  before_affine,  ///< rT(rT(rT(n) w) + b)
};

struct LayerNormLaunch {
  const std::byte* x = nullptr;
  const std::byte* weight = nullptr;  ///< null: none
  const std::byte* bias = nullptr;    ///< null: none; in the weight's format
  std::byte* y = nullptr;
  FormatId format = FormatId::fp32;   ///< of x and y
  bool parameters_fp32 = false;       ///< else in x's format
  std::uint32_t rows = 0, cols = 0;
  float eps = 0;
  Statistic statistic = Statistic::two_pass;
  LayerNormTail tail = LayerNormTail::once;
  RowThreads row = RowThreads::warp;
  bool approximate_root = false;      ///< rsqrtf, not __frsqrt_rn
};

void launch_layernorm_on_host(const LayerNormLaunch& launch, const LaunchOptions& options);
#ifdef NORMA_CUDA_BUILT
void launch_layernorm_on_gpu(const LayerNormLaunch& launch, const LaunchOptions& options);
#endif

}  // namespace norma::cuda

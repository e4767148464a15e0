// One launch of a kernel of residual sum and RMSNorm: what is compiled for both sides, and what asks for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "impls/cuda/rmsnorm_launch.hpp"

namespace norma::cuda {

/// What the statistics are of; handed out is the rounded sum in any case.
enum class ResidualSum : std::uint8_t {
  rounded,    ///< rT(x + residual), as vLLM's fused_add_rms_norm has it
  unrounded,  ///< x + residual in binary32, as FlashInfer and quack have it
};

struct RmsResidualLaunch {
  RmsLaunch norm;                       ///< tails once, before_weight, one_plus_weight
  const std::byte* residual = nullptr;  ///< in x's format
  std::byte* sum = nullptr;
  ResidualSum kind = ResidualSum::rounded;
};

void launch_rms_residual_on_host(const RmsResidualLaunch& launch, const LaunchOptions& options);
#ifdef NORMA_CUDA_BUILT
void launch_rms_residual_on_gpu(const RmsResidualLaunch& launch, const LaunchOptions& options);
#endif

}  // namespace norma::cuda

// One launch of an RMSNorm kernel: what is compiled for both sides, and what asks for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "impls/cuda/row_shape.hpp"
#include "impls/cuda/side.hpp"
#include "reference/formats/format.hpp"

namespace norma::cuda {

/// Where the result meets x's format T; letters of the survey's tails. n = x r in binary32.
enum class RmsTail : std::uint8_t {
  once,                     ///< B: rT(n w); J without a weight: rT(n)
  before_weight,            ///< A: rT(rT(n) w)
  one_plus_weight,          ///< C: rT(n (1 + w)), the sum in binary32
  rounded_one_plus_weight,  ///< D: rT(rT(n) rT(1 + w))
  all_rounded,              ///< F: rT(rT(x rT(r)) w)
};

struct RmsLaunch {
  const std::byte* x = nullptr;
  const std::byte* weight = nullptr;  ///< null: none
  std::byte* y = nullptr;
  FormatId format = FormatId::fp32;   ///< of x and y
  bool weight_fp32 = false;           ///< else in x's format
  std::uint32_t rows = 0, cols = 0;
  float eps = 0;
  RmsTail tail = RmsTail::once;
  RowThreads row = RowThreads::warp;
  bool approximate_root = false;      ///< rsqrtf, not __frsqrt_rn
};

void launch_rmsnorm_on_host(const RmsLaunch& launch, const LaunchOptions& options);
#ifdef NORMA_CUDA_BUILT
void launch_rmsnorm_on_gpu(const RmsLaunch& launch, const LaunchOptions& options);
#endif

}  // namespace norma::cuda

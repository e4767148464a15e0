// One launch of an RMSNorm kernel: what is compiled for both sides, and what asks for it.
#pragma once

#include <cstddef>
#include <cstdint>

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

/// Threads that share a row.
enum class RmsRow : std::uint8_t { warp, block };

struct RmsLaunch {
  const std::byte* x = nullptr;
  const std::byte* weight = nullptr;  ///< null: none
  std::byte* y = nullptr;
  FormatId format = FormatId::fp32;   ///< of x and y
  bool weight_fp32 = false;           ///< else in x's format
  std::uint32_t rows = 0, cols = 0;
  float eps = 0;
  RmsTail tail = RmsTail::once;
  RmsRow row = RmsRow::warp;
  bool approximate_root = false;      ///< rsqrtf, not __frsqrt_rn
};

/// Threads that share a row of `cols` columns of `format`, and the columns that one takes at a time.
struct RmsShape {
  unsigned threads = kWarp, vector = 1;
};
constexpr RmsShape rms_shape(RmsRow row, FormatId format, std::int64_t cols) {
  const unsigned vector = 16 / static_cast<unsigned>(format_of(format).storage_bytes());
  if (row == RmsRow::warp) return {kWarp, vector};
  // As many warps, a power of two, as hold the row at 32 values a thread; at least four.
  unsigned threads = 4 * kWarp;
  while (threads < 1024 && static_cast<std::int64_t>(threads) * 32 < cols) threads *= 2;
  return {threads, vector};
}

void launch_rmsnorm_on_host(const RmsLaunch& launch, const LaunchOptions& options);
#ifdef NORMA_CUDA_BUILT
void launch_rmsnorm_on_gpu(const RmsLaunch& launch, const LaunchOptions& options);
#endif

}  // namespace norma::cuda

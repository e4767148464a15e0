// One launch of a rotary embedding, alone or behind RMSNorm: what is compiled for both sides, and what asks for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "impls/cuda/row_shape.hpp"
#include "impls/cuda/side.hpp"
#include "reference/formats/format.hpp"

namespace norma::cuda {

/// Where a row's values meet x's format T; a b are a value and its table's, c d its partner's.
enum class RopeRoundings : std::uint8_t {
  each,  ///< rT(rT(a b) + rT(c d))
  fp32,  ///< rT(a b + c d), both products and the sum rounded to binary32
  one,   ///< rT(fma(a, b, c d))
};

struct RopeLaunch {
  /// Where a row of x finds its row of a table; reference/program/layout.hpp, Stride.
  struct TableRows {
    std::uint32_t rows_each = 1, period = 1, set = 1, sets_each = 1;
    std::uint64_t per_row = 0, per_set = 0;
  };
  const std::byte* x = nullptr;
  const std::byte* cos = nullptr;
  const std::byte* sin = nullptr;
  const std::byte* weight = nullptr;  ///< null: none
  std::byte* y = nullptr;
  FormatId format = FormatId::fp32;  ///< of x and y
  bool tables_fp32 = false;          ///< else in x's format
  bool weight_fp32 = false;          ///< else in x's format
  bool normed = false;               ///< RMSNorm first: n = rT(rT(x r) w), with one rounding x r w in binary32
  bool approximate_root = false;     ///< rsqrtf, not __frsqrt_rn
  bool interleaved = false;          ///< else pairs of halves
  bool table_of_columns = false;     ///< a value for each rotary column; else one for each pair
  std::uint32_t rows = 0, cols = 0, rotary = 0;
  float eps = 0;
  TableRows tables;
  RopeRoundings roundings = RopeRoundings::one;
};

void launch_rope_on_host(const RopeLaunch& launch, const LaunchOptions& options);
#ifdef NORMA_CUDA_BUILT
void launch_rope_on_gpu(const RopeLaunch& launch, const LaunchOptions& options);
#endif

}  // namespace norma::cuda

// One launch of a norm over channels: what is compiled for both sides, and what asks for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "impls/cuda/layernorm_launch.hpp"
#include "impls/cuda/row_shape.hpp"
#include "impls/cuda/side.hpp"
#include "reference/formats/format.hpp"

namespace norma::cuda {

/// Which of a row's channels an element is of.
enum class ChannelBy : std::uint8_t {
  row,       ///< a row is one channel
  position,  ///< column / positions: the channels of a group lie one after the other
  offset,    ///< column % each: the channels of a group lie side by side
};

/// Rows that are runs of elements in memory: element (row, col) is
///   (row % set) * per_row + (row / set) * per_set + (col / run) * apart + col % run.
struct RunRows {
  std::uint32_t rows = 0, cols = 0;
  std::uint32_t set = 1;  ///< rows of one sample
  std::uint32_t run = 1;
  std::uint32_t width = 1;  ///< elements of one load: a power of two that divides run and all distances
  std::uint32_t each = 1;   ///< channels of a row
  std::uint32_t positions = 1;
  ChannelBy channel_by = ChannelBy::row;
  std::uint64_t per_row = 0, per_set = 0, apart = 0;
};

/// Columns of a matrix [sets * rows, channels] as rows of statistics, one a set and channel.
struct ChannelColumns {
  std::uint32_t sets = 1, rows = 0, channels = 0;
};

/// Where mean and variance come from.
enum class MomentsFrom : std::uint8_t {
  block,   ///< one block a row, which reads it once as far as its threads hold it
  slices,  ///< a row's slices, each a block; their partial moments are merged by the next kernel
  given,   ///< running_mean and running_var
};

struct ChannelNormLaunch {
  const std::byte* x = nullptr;
  const std::byte* weight = nullptr;  ///< null: none. All parameters have one format
  const std::byte* bias = nullptr;    ///< null: none
  const std::byte* mean = nullptr;    ///< running_mean and running_var: what is given, or updated; null: none
  const std::byte* variance = nullptr;
  std::byte* y = nullptr;
  std::byte* new_mean = nullptr;  ///< null: not asked for
  std::byte* new_variance = nullptr;
  std::byte* partials = nullptr;     ///< of slices: partial_bytes
  FormatId format = FormatId::fp32;  ///< of x and y
  bool parameters_fp32 = false;      ///< else in x's format
  float eps = 0, momentum = 0;
  Statistic statistic = Statistic::two_pass;
  MomentsFrom from = MomentsFrom::block;
  std::uint32_t slices = 1;       ///< a power of two
  bool approximate_root = false;  ///< rsqrtf, not __frsqrt_rn
};

inline constexpr unsigned kSliceThreads = 256;  ///< of one slice of a run row: 8192 values in its registers
inline constexpr unsigned kColumnThreads = 32;  ///< that share a column, in a block of 32 columns

/// Slices of every row: a power of two, so many that the blocks fill a large GPU, each of `least` values and more.
/// A function of the shape alone, so that bits do not depend on the GPU.
constexpr unsigned slices_for(std::uint64_t blocks, std::uint64_t cols, std::uint64_t least, unsigned most) {
  constexpr std::uint64_t kEnough = 512;  // four blocks on each of 128 multiprocessors
  unsigned slices = 1;
  while (slices < most && blocks * slices < kEnough && 2 * slices * least <= cols) slices *= 2;
  return slices;
}
constexpr unsigned run_slices(const RunRows& r) { return slices_for(r.rows, r.cols, kSliceThreads * 32, 64); }
constexpr unsigned column_slices(const ChannelColumns& c) {
  return slices_for(std::uint64_t{c.sets} * ((c.channels + kWarp - 1) / kWarp), c.rows, kColumnThreads * 16, 32);
}

constexpr std::size_t partial_bytes(const RunRows& r, unsigned slices) {
  return std::size_t{r.rows} * slices * (kSliceThreads / kWarp) * 3 * sizeof(float);
}
constexpr std::size_t partial_bytes(const ChannelColumns& c, unsigned slices) {
  return std::size_t{c.sets} * c.channels * slices * 3 * sizeof(float);
}

void launch_channel_runs_on_host(const ChannelNormLaunch& launch, const RunRows& rows, const LaunchOptions& options);
void launch_channel_columns_on_host(const ChannelNormLaunch& launch, const ChannelColumns& columns,
                                    const LaunchOptions& options);
#ifdef NORMA_CUDA_BUILT
void launch_channel_runs_on_gpu(const ChannelNormLaunch& launch, const RunRows& rows, const LaunchOptions& options);
void launch_channel_columns_on_gpu(const ChannelNormLaunch& launch, const ChannelColumns& columns,
                                   const LaunchOptions& options);
#endif

}  // namespace norma::cuda

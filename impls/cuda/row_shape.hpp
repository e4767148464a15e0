// How a row is shared out among threads; a kernel's launch and the program it declares both ask here.
#pragma once

#include <cstdint>

#include "impls/cuda/host_executor.hpp"
#include "reference/formats/format.hpp"

namespace norma::cuda {

/// Threads that share a row.
enum class RowThreads : std::uint8_t { warp, block };

/// Threads that share a row of `cols` columns of `format`, and the columns that one takes at a time.
struct RowShape {
  unsigned threads = kWarp, vector = 1;
};
/// Of a block that has a row: as many as have 128 registers each on every GPU since compute capability 7.0.
inline constexpr unsigned kMostRowThreads = 512;

constexpr RowShape row_shape(RowThreads row, FormatId format, std::int64_t cols) {
  const unsigned vector = 16 / static_cast<unsigned>(format_of(format).storage_bytes());
  if (row == RowThreads::warp) return {kWarp, vector};
  // As many warps, a power of two, as hold the row at 32 values a thread; at least four.
  unsigned threads = 4 * kWarp;
  while (threads < kMostRowThreads && static_cast<std::int64_t>(threads) * 32 < cols) threads *= 2;
  return {threads, vector};
}

}  // namespace norma::cuda

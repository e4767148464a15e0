// Softmax of rows: one warp a row, or one block a row. The largest score, the sum of the exponentials in the tree of
// row_part.hpp, then each exponential once more, divided by the sum.
#pragma once

#include "impls/cuda/functions.hpp"
#include "impls/cuda/launch.hpp"
#include "impls/cuda/row_part.hpp"
#include "impls/cuda/softmax_launch.hpp"

namespace norma::cuda::inline NORMA_SIDE {

template <class T>
struct SoftmaxArguments {
  const typename T::Stored* x;
  typename T::Stored* y;
  unsigned rows, cols;
  bool aligned;
};

/// The threads of a warp, or of a block, that share a row.
struct SoftmaxWarp {
  NORMA_DEVICE float sum(float v) const { return warp_sum(v); }
  NORMA_DEVICE float largest(float v) const {
    for (unsigned mask = kWarp / 2; mask > 0; mask /= 2) v = larger(v, shuffle_xor(v, mask));
    return v;
  }
};
struct SoftmaxBlock {
  float* shared;  ///< one value a warp
  NORMA_DEVICE float sum(float v) const { return block_sum(v, shared); }
  NORMA_DEVICE float largest(float v) const {
    v = SoftmaxWarp{}.largest(v);
    if (thread_index() % kWarp == 0) shared[thread_index() / kWarp] = v;
    block_barrier();
    for (unsigned w = 0; w < block_threads() / kWarp; ++w) v = larger(v, shared[w]);
    block_barrier();  // `shared` may be used again
    return v;
  }
};

template <Exponential kExponential>
NORMA_DEVICE float exponential_of(float x) {
  return kExponential == Exponential::steps ? exp_by_steps(x) : exp_library(x);
}

template <class T, Exponential kExponential, class Threads>
NORMA_DEVICE void softmax_row(const SoftmaxArguments<T>& a, unsigned row, unsigned index, unsigned count,
                              const Threads& threads) {
  const std::size_t from = static_cast<std::size_t>(row) * a.cols;
  const RowPart<T> part(a.x + from, a.cols, a.aligned, index, count);
  const float least = from_bits(0xff800000u);  // -Inf
  const float largest = threads.largest(part.fold(least, [](float m, float v) { return larger(m, v); }));
  const float total = threads.sum(
      part.fold(0.0f, [largest](float s, float v) { return add(s, exponential_of<kExponential>(sub(v, largest))); }));
  const typename T::Stored* const none[1] = {nullptr};
  part.template write<T>(a.y + from, none, [largest, total](float v, const float(&)[1]) {
    return div(exponential_of<kExponential>(sub(v, largest)), total);
  });
}

template <class T, Exponential kExponential>
NORMA_KERNEL void softmax_warp_per_row(const SoftmaxArguments<T> a) {
  const unsigned row = block_index() * kRowsPerBlock + thread_index() / kWarp;
  if (row >= a.rows) return;
  softmax_row<T, kExponential>(a, row, thread_index() % kWarp, kWarp, SoftmaxWarp{});
}

template <class T, Exponential kExponential>
NORMA_KERNEL_OF(kMostRowThreads) void softmax_block_per_row(const SoftmaxArguments<T> a) {
  softmax_row<T, kExponential>(a, block_index(), thread_index(), block_threads(), SoftmaxBlock{shared_memory<float>()});
}

template <class T, Exponential kExponential>
void start_softmax(const SoftmaxLaunch& l, const LaunchOptions& options) {
  const SoftmaxArguments<T> arguments{.x = reinterpret_cast<const typename T::Stored*>(l.x),
                                      .y = reinterpret_cast<typename T::Stored*>(l.y),
                                      .rows = l.rows,
                                      .cols = l.cols,
                                      .aligned = std::size_t{l.cols} * sizeof(typename T::Stored) % 16 == 0};
  if (l.row == RowThreads::warp)
    start<softmax_warp_per_row<T, kExponential>>(
        {.blocks = (l.rows + kRowsPerBlock - 1) / kRowsPerBlock, .threads = kRowsPerBlock * kWarp, .shared_bytes = 0},
        options, arguments);
  else
    start<softmax_block_per_row<T, kExponential>>({.blocks = l.rows,
                                                   .threads = row_shape(l.row, l.format, l.cols).threads,
                                                   .shared_bytes = kWarp * sizeof(float)},
                                                  options, arguments);
}

template <class T>
void start_softmax(const SoftmaxLaunch& l, const LaunchOptions& options) {
  if (l.exponential == Exponential::steps)
    start_softmax<T, Exponential::steps>(l, options);
  else
    start_softmax<T, Exponential::library>(l, options);
}

inline void start_softmax(const SoftmaxLaunch& l, const LaunchOptions& options) {
  switch (l.format) {
    case FormatId::fp32: return start_softmax<Fp32>(l, options);
    case FormatId::bf16: return start_softmax<Bf16>(l, options);
    case FormatId::fp16: return start_softmax<Fp16>(l, options);
    case FormatId::e4m3fn: return start_softmax<E4m3>(l, options);
    default: return start_softmax<E5m2>(l, options);
  }
}

}  // namespace norma::cuda::inline NORMA_SIDE

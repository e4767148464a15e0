// LayerNorm of rows: one warp a row, or one block a row.
#pragma once

#include "impls/cuda/launch.hpp"
#include "impls/cuda/layernorm_launch.hpp"
#include "impls/cuda/moments.hpp"

namespace norma::cuda::inline NORMA_SIDE {

template <class T, class W>
struct LayerNormArguments {
  const typename T::Stored* x;
  const typename W::Stored* weight;
  const typename W::Stored* bias;
  typename T::Stored* y;
  unsigned rows, cols;
  float eps;
  bool aligned, approximate_root;
  Statistic statistic;
};

template <class T, LayerNormTail kTail>
NORMA_DEVICE float layernorm_tail(float n, bool weighted, float w, bool biased, float b) {
  if (kTail == LayerNormTail::once) {
    if (weighted) return biased ? fma(n, w, b) : mul(n, w);
    return biased ? add(n, b) : n;
  }
  float y = n;
  if (weighted) y = mul(rounded_to<T>(y), w);
  if (biased) y = add(rounded_to<T>(y), b);
  return y;
}

template <class T, class W, LayerNormTail kTail, class Threads>
NORMA_DEVICE void layernorm_row(const LayerNormArguments<T, W>& a, unsigned row, unsigned index, unsigned count,
                                const Threads& threads) {
  const std::size_t from = static_cast<std::size_t>(row) * a.cols;
  const RowPart<T> part(a.x + from, a.cols, a.aligned, index, count);
  const MeanAndVariance m = statistic_of(part, a.cols, a.statistic, threads);
  const float r = root_of(m.variance, a.eps, a.approximate_root);
  const typename W::Stored* const parameters[2] = {a.weight, a.bias};
  part.template write<W>(a.y + from, parameters, [&](float v, const float (&p)[2]) {
    return layernorm_tail<T, kTail>(mul(sub(v, m.mean), r), a.weight != nullptr, p[0], a.bias != nullptr, p[1]);
  });
}

template <class T, class W, LayerNormTail kTail>
NORMA_KERNEL void layernorm_warp_per_row(const LayerNormArguments<T, W> a) {
  const unsigned row = block_index() * kRowsPerBlock + thread_index() / kWarp;
  if (row >= a.rows) return;
  layernorm_row<T, W, kTail>(a, row, thread_index() % kWarp, kWarp, WarpOfRow{});
}

template <class T, class W, LayerNormTail kTail>
NORMA_KERNEL_OF(kMostRowThreads) void layernorm_block_per_row(const LayerNormArguments<T, W> a) {
  layernorm_row<T, W, kTail>(a, block_index(), thread_index(), block_threads(), BlockOfRow{shared_memory<float>()});
}

template <class T, class W, LayerNormTail kTail>
void start_layernorm(const LayerNormLaunch& l, const LaunchOptions& options) {
  const LayerNormArguments<T, W> arguments{.x = reinterpret_cast<const typename T::Stored*>(l.x),
                                           .weight = reinterpret_cast<const typename W::Stored*>(l.weight),
                                           .bias = reinterpret_cast<const typename W::Stored*>(l.bias),
                                           .y = reinterpret_cast<typename T::Stored*>(l.y),
                                           .rows = l.rows,
                                           .cols = l.cols,
                                           .eps = l.eps,
                                           .aligned = std::size_t{l.cols} * sizeof(typename T::Stored) % 16 == 0,
                                           .approximate_root = l.approximate_root,
                                           .statistic = l.statistic};
  if (l.row == RowThreads::warp)
    start<layernorm_warp_per_row<T, W, kTail>>(
        {.blocks = (l.rows + kRowsPerBlock - 1) / kRowsPerBlock, .threads = kRowsPerBlock * kWarp, .shared_bytes = 0},
        options, arguments);
  else
    start<layernorm_block_per_row<T, W, kTail>>({.blocks = l.rows,
                                                 .threads = row_shape(l.row, l.format, l.cols).threads,
                                                 .shared_bytes = 3 * kWarp * sizeof(float)},
                                                options, arguments);
}

template <class T, class W>
void start_layernorm(const LayerNormLaunch& l, const LaunchOptions& options) {
  if (l.tail == LayerNormTail::once) start_layernorm<T, W, LayerNormTail::once>(l, options);
  else start_layernorm<T, W, LayerNormTail::before_affine>(l, options);
}

template <class T>
void start_layernorm(const LayerNormLaunch& l, const LaunchOptions& options) {
  if (l.parameters_fp32) start_layernorm<T, Fp32>(l, options);
  else start_layernorm<T, T>(l, options);
}

inline void start_layernorm(const LayerNormLaunch& l, const LaunchOptions& options) {
  switch (l.format) {
    case FormatId::fp32: return start_layernorm<Fp32, Fp32>(l, options);
    case FormatId::bf16: return start_layernorm<Bf16>(l, options);
    case FormatId::fp16: return start_layernorm<Fp16>(l, options);
    case FormatId::e4m3fn: return start_layernorm<E4m3>(l, options);
    default: return start_layernorm<E5m2>(l, options);
  }
}

}  // namespace norma::cuda::inline NORMA_SIDE

// LayerNorm of rows and the modulation after it: one warp a row, or one block a row.
#pragma once

#include "impls/cuda/ada_layernorm_launch.hpp"
#include "impls/cuda/layernorm_kernel.hpp"

namespace norma::cuda::inline NORMA_SIDE {

template <class T, class W>
struct AdaLayerNormArguments {
  const typename T::Stored* x;
  const typename W::Stored* weight;
  const typename W::Stored* bias;
  const typename W::Stored* scale;
  const typename W::Stored* shift;
  typename T::Stored* y;
  unsigned rows, cols, scale_rows, shift_rows;
  float eps;
  bool aligned, approximate_root;
  Statistic statistic;
};

template <class T, class W, Roundings kRoundings, class Threads>
NORMA_DEVICE void ada_layernorm_row(const AdaLayerNormArguments<T, W>& a, std::size_t row, unsigned index, unsigned count,
                                    const Threads& threads) {
  const std::size_t cols = a.cols;
  const RowPart<T> part(a.x + row * cols, a.cols, a.aligned, index, count);
  const MeanAndVariance m = statistic_of(part, a.cols, a.statistic, threads);
  const float r = root_of(m.variance, a.eps, a.approximate_root);
  const typename W::Stored* const parameters[4] = {a.weight, a.bias, a.scale + row / a.scale_rows * cols,
                                                   a.shift == nullptr ? nullptr : a.shift + row / a.shift_rows * cols};
  part.template write<W>(a.y + row * cols, parameters, [&](float v, const float (&p)[4]) {
    const float n = layernorm_tail<T, LayerNormTail::once>(mul(sub(v, m.mean), r), a.weight != nullptr, p[0],
                                                           a.bias != nullptr, p[1]);
    const float factor = add(1.0f, p[2]);
    if (kRoundings == Roundings::one) return a.shift == nullptr ? mul(n, factor) : fma(n, factor, p[3]);
    const float product = mul(rounded_to<T>(n), rounded_to<T>(factor));
    return a.shift == nullptr ? product : add(rounded_to<T>(product), p[3]);
  });
}

template <class T, class W, Roundings kRoundings>
NORMA_KERNEL void ada_layernorm_warp_per_row(const AdaLayerNormArguments<T, W> a) {
  const unsigned row = block_index() * kRowsPerBlock + thread_index() / kWarp;
  if (row >= a.rows) return;
  ada_layernorm_row<T, W, kRoundings>(a, row, thread_index() % kWarp, kWarp, WarpOfRow{});
}

template <class T, class W, Roundings kRoundings>
NORMA_KERNEL_OF(kMostRowThreads) void ada_layernorm_block_per_row(const AdaLayerNormArguments<T, W> a) {
  ada_layernorm_row<T, W, kRoundings>(a, block_index(), thread_index(), block_threads(),
                                      BlockOfRow{shared_memory<float>()});
}

template <class T, class W, Roundings kRoundings>
void start_ada_layernorm(const AdaLayerNormLaunch& l, const LaunchOptions& options) {
  const auto parameter = [](const std::byte* p) { return reinterpret_cast<const typename W::Stored*>(p); };
  const AdaLayerNormArguments<T, W> arguments{.x = reinterpret_cast<const typename T::Stored*>(l.x),
                                              .weight = parameter(l.weight),
                                              .bias = parameter(l.bias),
                                              .scale = parameter(l.scale.values),
                                              .shift = parameter(l.shift.values),
                                              .y = reinterpret_cast<typename T::Stored*>(l.y),
                                              .rows = l.rows,
                                              .cols = l.cols,
                                              .scale_rows = l.scale.rows,
                                              .shift_rows = l.shift.rows,
                                              .eps = l.eps,
                                              .aligned = std::size_t{l.cols} * sizeof(typename T::Stored) % 16 == 0,
                                              .approximate_root = l.approximate_root,
                                              .statistic = l.statistic};
  if (l.row == RowThreads::warp)
    start<ada_layernorm_warp_per_row<T, W, kRoundings>>(
        {.blocks = (l.rows + kRowsPerBlock - 1) / kRowsPerBlock, .threads = kRowsPerBlock * kWarp, .shared_bytes = 0},
        options, arguments);
  else
    start<ada_layernorm_block_per_row<T, W, kRoundings>>({.blocks = l.rows,
                                                          .threads = row_shape(l.row, l.format, l.cols).threads,
                                                          .shared_bytes = 3 * kWarp * sizeof(float)},
                                                         options, arguments);
}

template <class T>
void start_ada_layernorm(const AdaLayerNormLaunch& l, const LaunchOptions& options) {
  // What is rounded to x's format at every operation has its parameters in it.
  if (l.roundings == Roundings::each) start_ada_layernorm<T, T, Roundings::each>(l, options);
  else if (l.parameters_fp32) start_ada_layernorm<T, Fp32, Roundings::one>(l, options);
  else start_ada_layernorm<T, T, Roundings::one>(l, options);
}

inline void start_ada_layernorm(const AdaLayerNormLaunch& l, const LaunchOptions& options) {
  switch (l.format) {
    case FormatId::fp32: return start_ada_layernorm<Fp32>(l, options);
    case FormatId::bf16: return start_ada_layernorm<Bf16>(l, options);
    case FormatId::fp16: return start_ada_layernorm<Fp16>(l, options);
    case FormatId::e4m3fn: return start_ada_layernorm<E4m3>(l, options);
    default: return start_ada_layernorm<E5m2>(l, options);
  }
}

}  // namespace norma::cuda::inline NORMA_SIDE

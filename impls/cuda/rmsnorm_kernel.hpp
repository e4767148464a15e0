// RMSNorm of rows: one warp a row, or one block a row. Each thread adds the squares of its columns, fused; then the tree
// of row_part.hpp.
#pragma once

#include "impls/cuda/launch.hpp"
#include "impls/cuda/rmsnorm_launch.hpp"
#include "impls/cuda/row_part.hpp"

namespace norma::cuda::inline NORMA_SIDE {

template <class T, class W>
struct RmsArguments {
  const typename T::Stored* x;
  const typename W::Stored* weight;
  typename T::Stored* y;
  unsigned rows, cols;
  float eps;
  bool aligned, approximate_root;
};

template <class T, RmsTail kTail>
NORMA_DEVICE float rms_tail(float x, float r, bool weighted, float w) {
  const float n = kTail == RmsTail::all_rounded ? rounded_to<T>(mul(x, r)) : mul(x, r);
  if (!weighted) return n;
  switch (kTail) {
    case RmsTail::once:
    case RmsTail::all_rounded: return mul(n, w);
    case RmsTail::before_weight: return mul(rounded_to<T>(n), w);
    case RmsTail::one_plus_weight: return mul(n, add(1.0f, w));
    case RmsTail::rounded_one_plus_weight: return mul(rounded_to<T>(n), rounded_to<T>(add(1.0f, w)));
  }
  return n;
}

NORMA_DEVICE float rms_root(float sum, unsigned cols, float eps, bool approximate) {
  const float root = add(div(sum, static_cast<float>(cols)), eps);
  return approximate ? rsqrt_approximate(root) : rsqrt_correct(root);
}

template <class T, class W, RmsTail kTail, class Sum>
NORMA_DEVICE void rmsnorm_row(const RmsArguments<T, W>& a, unsigned row, unsigned index, unsigned threads, const Sum& all) {
  const std::size_t from = static_cast<std::size_t>(row) * a.cols;
  const RowPart<T> part(a.x + from, a.cols, a.aligned, index, threads);
  const float sum = all(part.fold(0.0f, [](float s, float v) { return fma(v, v, s); }));
  float r = rms_root(sum, a.cols, a.eps, a.approximate_root);
  if (kTail == RmsTail::all_rounded) r = rounded_to<T>(r);
  const typename W::Stored* const parameters[1] = {a.weight};
  part.template write<W>(a.y + from, parameters, [&](float v, const float (&p)[1]) {
    return rms_tail<T, kTail>(v, r, a.weight != nullptr, p[0]);
  });
}

template <class T, class W, RmsTail kTail>
NORMA_KERNEL void rmsnorm_warp_per_row(const RmsArguments<T, W> a) {
  const unsigned row = block_index() * kRowsPerBlock + thread_index() / kWarp;
  if (row >= a.rows) return;
  rmsnorm_row<T, W, kTail>(a, row, thread_index() % kWarp, kWarp, [](float v) { return warp_sum(v); });
}

template <class T, class W, RmsTail kTail>
NORMA_KERNEL_OF(kMostRowThreads) void rmsnorm_block_per_row(const RmsArguments<T, W> a) {
  rmsnorm_row<T, W, kTail>(a, block_index(), thread_index(), block_threads(),
                           [](float v) { return block_sum(v, shared_memory<float>()); });
}

template <class T, class W>
RmsArguments<T, W> rms_arguments(const RmsLaunch& l) {
  return {.x = reinterpret_cast<const typename T::Stored*>(l.x),
          .weight = reinterpret_cast<const typename W::Stored*>(l.weight),
          .y = reinterpret_cast<typename T::Stored*>(l.y),
          .rows = l.rows,
          .cols = l.cols,
          .eps = l.eps,
          .aligned = std::size_t{l.cols} * sizeof(typename T::Stored) % 16 == 0,
          .approximate_root = l.approximate_root};
}

inline LaunchShape rms_shape(const RmsLaunch& l) {
  if (l.row == RowThreads::warp)
    return {.blocks = (l.rows + kRowsPerBlock - 1) / kRowsPerBlock, .threads = kRowsPerBlock * kWarp, .shared_bytes = 0};
  return {.blocks = l.rows, .threads = row_shape(l.row, l.format, l.cols).threads, .shared_bytes = kWarp * sizeof(float)};
}

template <class T, class W, RmsTail kTail>
void start_rmsnorm(const RmsLaunch& l, const LaunchOptions& options) {
  if (l.row == RowThreads::warp)
    start<rmsnorm_warp_per_row<T, W, kTail>>(rms_shape(l), options, rms_arguments<T, W>(l));
  else
    start<rmsnorm_block_per_row<T, W, kTail>>(rms_shape(l), options, rms_arguments<T, W>(l));
}

template <class T, class W>
void start_rmsnorm(const RmsLaunch& l, const LaunchOptions& options) {
  switch (l.tail) {
    case RmsTail::once: return start_rmsnorm<T, W, RmsTail::once>(l, options);
    case RmsTail::before_weight: return start_rmsnorm<T, W, RmsTail::before_weight>(l, options);
    case RmsTail::one_plus_weight: return start_rmsnorm<T, W, RmsTail::one_plus_weight>(l, options);
    case RmsTail::rounded_one_plus_weight: return start_rmsnorm<T, W, RmsTail::rounded_one_plus_weight>(l, options);
    case RmsTail::all_rounded: return start_rmsnorm<T, W, RmsTail::all_rounded>(l, options);
  }
}

template <class T>
void start_rmsnorm(const RmsLaunch& l, const LaunchOptions& options) {
  if (l.weight_fp32) start_rmsnorm<T, Fp32>(l, options);
  else start_rmsnorm<T, T>(l, options);
}

inline void start_rmsnorm(const RmsLaunch& l, const LaunchOptions& options) {
  switch (l.format) {
    case FormatId::fp32: return start_rmsnorm<Fp32, Fp32>(l, options);
    case FormatId::bf16: return start_rmsnorm<Bf16>(l, options);
    case FormatId::fp16: return start_rmsnorm<Fp16>(l, options);
    case FormatId::e4m3fn: return start_rmsnorm<E4m3>(l, options);
    default: return start_rmsnorm<E5m2>(l, options);
  }
}

}  // namespace norma::cuda::inline NORMA_SIDE

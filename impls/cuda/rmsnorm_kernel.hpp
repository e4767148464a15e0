// RMSNorm of rows: one warp a row, or one block a row.
//
// A row is read once as long as its vectors fit into registers, else a second time. Sums: each thread adds the squares of
// its vectors, fused; then the tree of row_part.hpp.
#pragma once

#include "impls/cuda/launch.hpp"
#include "impls/cuda/rmsnorm_launch.hpp"
#include "impls/cuda/row_part.hpp"

namespace norma::cuda::inline NORMA_SIDE {

inline constexpr unsigned kRowsPerBlock = 4;  // where a warp has a row of its own
/// Vectors of a row that a thread keeps: 32 values.
template <class T>
inline constexpr unsigned kHeld = 32 / kVector<T>;

template <class T, class W>
struct RmsArguments {
  const typename T::Stored* x;
  const typename W::Stored* weight;
  typename T::Stored* y;
  unsigned rows, cols;
  float eps;
  bool aligned, approximate_root;
};

template <class T>
NORMA_DEVICE float rounded_to(float v) {
  return load<T>(store<T>(v));
}

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

/// One row, as the threads that share it see it.
template <class T, class W>
struct RmsRowPart {
  const RmsArguments<T, W>& a;
  const typename T::Stored* x;
  typename T::Stored* y;
  unsigned index, threads;

  NORMA_DEVICE RmsRowPart(const RmsArguments<T, W>& arguments, unsigned row, unsigned own, unsigned all)
      : a(arguments),
        x(arguments.x + static_cast<std::size_t>(row) * arguments.cols),
        y(arguments.y + static_cast<std::size_t>(row) * arguments.cols),
        index(own),
        threads(all) {}

  /// The first column of this thread's vector k.
  NORMA_DEVICE unsigned column(unsigned k) const { return (k * threads + index) * kVector<T>; }

  /// The sum of squares of this thread's columns; `held` keeps its first vectors of an aligned row.
  NORMA_DEVICE float squares(float (&held)[kHeld<T>][kVector<T>]) const {
    float sum = 0;
    if (!a.aligned) {
      for_columns<T>(a.cols, index, threads, [&](unsigned c) {
        const float v = load<T>(x[c]);
        sum = fma(v, v, sum);
      });
      return sum;
    }
    NORMA_UNROLL
    for (unsigned k = 0; k < kHeld<T>; ++k)
      if (column(k) < a.cols) load_columns<T>(x + column(k), held[k]);
    NORMA_UNROLL
    for (unsigned k = 0; k < kHeld<T>; ++k)
      if (column(k) < a.cols) sum = plus_squares(held[k], sum);
    NORMA_NO_UNROLL
    for (unsigned k = kHeld<T>; column(k) < a.cols; ++k) {
      float values[kVector<T>];
      load_columns<T>(x + column(k), values);
      sum = plus_squares(values, sum);
    }
    return sum;
  }

  /// y of this thread's columns.
  template <RmsTail kTail>
  NORMA_DEVICE void finish(float sum, const float (&held)[kHeld<T>][kVector<T>]) const {
    const float root = add(div(sum, static_cast<float>(a.cols)), a.eps);
    float r = a.approximate_root ? rsqrt_approximate(root) : rsqrt_correct(root);
    if (kTail == RmsTail::all_rounded) r = rounded_to<T>(r);
    if (!a.aligned) {
      for_columns<T>(a.cols, index, threads, [&](unsigned c) {
        const float w = a.weight != nullptr ? load<W>(a.weight[c]) : 0.0f;
        y[c] = store<T>(rms_tail<T, kTail>(load<T>(x[c]), r, a.weight != nullptr, w));
      });
      return;
    }
    NORMA_UNROLL
    for (unsigned k = 0; k < kHeld<T>; ++k)
      if (column(k) < a.cols) vector<kTail>(column(k), r, held[k]);
    NORMA_NO_UNROLL
    for (unsigned k = kHeld<T>; column(k) < a.cols; ++k) {
      float values[kVector<T>];
      load_columns<T>(x + column(k), values);
      vector<kTail>(column(k), r, values);
    }
  }

 private:
  NORMA_DEVICE static float plus_squares(const float (&values)[kVector<T>], float sum) {
    NORMA_UNROLL
    for (unsigned i = 0; i < kVector<T>; ++i) sum = fma(values[i], values[i], sum);
    return sum;
  }

  template <RmsTail kTail>
  NORMA_DEVICE void vector(unsigned first, float r, const float (&values)[kVector<T>]) const {
    float weight[kVector<T>] = {};
    if (a.weight != nullptr) {
      constexpr unsigned kPart = kVector<W> < kVector<T> ? kVector<W> : kVector<T>;
      NORMA_UNROLL
      for (unsigned i = 0; i < kVector<T>; i += kPart) {
        float part[kPart];
        load_columns<W>(a.weight + first + i, part);
        NORMA_UNROLL
        for (unsigned j = 0; j < kPart; ++j) weight[i + j] = part[j];
      }
    }
    float results[kVector<T>];
    NORMA_UNROLL
    for (unsigned i = 0; i < kVector<T>; ++i)
      results[i] = rms_tail<T, kTail>(values[i], r, a.weight != nullptr, weight[i]);
    store_columns<T>(y + first, results);
  }
};

template <class T, class W, RmsTail kTail>
NORMA_KERNEL void rmsnorm_warp_per_row(const RmsArguments<T, W> a) {
  const unsigned row = block_index() * kRowsPerBlock + thread_index() / kWarp;
  if (row >= a.rows) return;
  const RmsRowPart<T, W> part(a, row, thread_index() % kWarp, kWarp);
  float held[kHeld<T>][kVector<T>];
  part.template finish<kTail>(warp_sum(part.squares(held)), held);
}

template <class T, class W, RmsTail kTail>
NORMA_KERNEL void rmsnorm_block_per_row(const RmsArguments<T, W> a) {
  const RmsRowPart<T, W> part(a, block_index(), thread_index(), block_threads());
  float held[kHeld<T>][kVector<T>];
  part.template finish<kTail>(block_sum(part.squares(held), shared_memory<float>()), held);
}

template <class T, class W, RmsTail kTail>
void start_rmsnorm(const RmsLaunch& l, const LaunchOptions& options) {
  const std::size_t row_bytes = std::size_t{l.cols} * sizeof(typename T::Stored);
  const RmsArguments<T, W> arguments{.x = reinterpret_cast<const typename T::Stored*>(l.x),
                                     .weight = reinterpret_cast<const typename W::Stored*>(l.weight),
                                     .y = reinterpret_cast<typename T::Stored*>(l.y),
                                     .rows = l.rows,
                                     .cols = l.cols,
                                     .eps = l.eps,
                                     .aligned = row_bytes % 16 == 0,
                                     .approximate_root = l.approximate_root};
  const unsigned threads = rms_shape(l.row, l.format, l.cols).threads;
  if (l.row == RmsRow::warp)
    start({.blocks = (l.rows + kRowsPerBlock - 1) / kRowsPerBlock, .threads = kRowsPerBlock * kWarp, .shared_bytes = 0},
          options, rmsnorm_warp_per_row<T, W, kTail>, arguments);
  else
    start({.blocks = l.rows, .threads = threads, .shared_bytes = kWarp * sizeof(float)}, options,
          rmsnorm_block_per_row<T, W, kTail>, arguments);
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

// LayerNorm of rows: one warp a row, or one block a row.
#pragma once

#include "impls/cuda/launch.hpp"
#include "impls/cuda/layernorm_launch.hpp"
#include "impls/cuda/row_part.hpp"

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

struct MeanAndVariance {
  float mean, variance;
};

/// What a part of a row says of its mean: count, mean, sum of squared distances from it.
struct Running {
  float count, mean, m2;
};
NORMA_DEVICE Running push(const Running& a, float x) {
  const float count = add(a.count, 1.0f);
  const float d = sub(x, a.mean);
  const float mean = fma(d, div(1.0f, count), a.mean);
  return {count, mean, fma(d, sub(x, mean), a.m2)};
}
/// Chan's merge in the form of torch's CUDA layer_norm: means weighted by their counts.
NORMA_DEVICE Running merge(const Running& a, const Running& b) {
  const float n = add(b.count, a.count);
  if (!(n > 0.0f)) return a;
  const float d = sub(a.mean, b.mean);
  const float c = div(1.0f, n);
  const float of_b = mul(b.count, c), of_a = mul(a.count, c);
  return {n, fma(of_b, b.mean, mul(of_a, a.mean)), fma(mul(mul(d, d), b.count), of_a, add(b.m2, a.m2))};
}

/// The threads of a warp that share a row.
struct WarpOfRow {
  NORMA_DEVICE float sum(float v) const { return warp_sum(v); }
  /// Lanes by halves; the low lane is the first operand, and its result goes to all.
  NORMA_DEVICE Running merged(Running r) const {
    for (unsigned mask = kWarp / 2; mask > 0; mask /= 2)
      r = merge(r, {shuffle_xor(r.count, mask), shuffle_xor(r.mean, mask), shuffle_xor(r.m2, mask)});
    return {shuffle(r.count, 0), shuffle(r.mean, 0), shuffle(r.m2, 0)};
  }
};
/// The threads of a block that share a row. `shared`: three values a warp.
struct BlockOfRow {
  float* shared;
  NORMA_DEVICE float sum(float v) const { return block_sum(v, shared); }
  NORMA_DEVICE Running merged(Running r) const {
    const unsigned warps = block_threads() / kWarp, lane = thread_index() % kWarp;
    r = WarpOfRow{}.merged(r);
    if (lane == 0) {
      float* own = shared + 3 * (thread_index() / kWarp);
      own[0] = r.count, own[1] = r.mean, own[2] = r.m2;
    }
    block_barrier();
    r = lane < warps ? Running{shared[3 * lane], shared[3 * lane + 1], shared[3 * lane + 2]} : Running{0, 0, 0};
    for (unsigned mask = warps / 2; mask > 0; mask /= 2)
      r = merge(r, {shuffle_xor(r.count, mask), shuffle_xor(r.mean, mask), shuffle_xor(r.m2, mask)});
    r = {shuffle(r.count, 0), shuffle(r.mean, 0), shuffle(r.m2, 0)};
    block_barrier();  // `shared` may be used again
    return r;
  }
};

template <class T, class Threads>
NORMA_DEVICE MeanAndVariance statistic_of(const RowPart<T>& part, unsigned cols, Statistic kind, const Threads& threads) {
  const float count = static_cast<float>(cols);
  if (kind == Statistic::welford) {
    const Running r = threads.merged(part.fold(Running{0, 0, 0}, [](const Running& a, float v) { return push(a, v); }));
    return {r.mean, div(r.m2, count)};
  }
  const float mean = div(threads.sum(part.fold(0.0f, [](float s, float v) { return add(s, v); })), count);
  if (kind == Statistic::two_pass) {
    const float squares = threads.sum(part.fold(0.0f, [mean](float s, float v) {
      const float d = sub(v, mean);
      return fma(d, d, s);
    }));
    return {mean, div(squares, count)};
  }
  const float mean_square = div(threads.sum(part.fold(0.0f, [](float s, float v) { return fma(v, v, s); })), count);
  const float variance = fma(-mean, mean, mean_square);
  return {mean, variance > 0.0f || variance != variance ? variance : 0.0f};
}

NORMA_DEVICE float root_of(float variance, float eps, bool approximate) {
  const float sum = add(variance, eps);
  return approximate ? rsqrt_approximate(sum) : rsqrt_correct(sum);
}

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
NORMA_KERNEL void layernorm_block_per_row(const LayerNormArguments<T, W> a) {
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
    start({.blocks = (l.rows + kRowsPerBlock - 1) / kRowsPerBlock, .threads = kRowsPerBlock * kWarp, .shared_bytes = 0},
          options, layernorm_warp_per_row<T, W, kTail>, arguments);
  else
    start({.blocks = l.rows, .threads = row_shape(l.row, l.format, l.cols).threads, .shared_bytes = 3 * kWarp * sizeof(float)},
          options, layernorm_block_per_row<T, W, kTail>, arguments);
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

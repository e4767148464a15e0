// Mean and variance of a row that threads share, and the root.
#pragma once

#include "impls/cuda/device.hpp"
#include "impls/cuda/layernorm_launch.hpp"
#include "impls/cuda/row_part.hpp"

namespace norma::cuda::inline NORMA_SIDE {

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

// Folds over what one thread has of a row: part.fold(start, step).

template <class Part>
NORMA_DEVICE float sum_of(const Part& part) {
  return part.fold(0.0f, [](float s, float v) { return add(s, v); });
}
template <class Part>
NORMA_DEVICE float squares_of(const Part& part) {
  return part.fold(0.0f, [](float s, float v) { return fma(v, v, s); });
}
template <class Part>
NORMA_DEVICE float deviations_of(const Part& part, float mean) {
  return part.fold(0.0f, [mean](float s, float v) {
    const float d = sub(v, mean);
    return fma(d, d, s);
  });
}
template <class Part>
NORMA_DEVICE Running welford_of(const Part& part) {
  return part.fold(Running{0, 0, 0}, [](const Running& a, float v) { return push(a, v); });
}

/// E[x^2] - mean^2, not below 0; NaN stays NaN.
NORMA_DEVICE float one_pass_variance(float mean, float mean_square) {
  const float variance = fma(-mean, mean, mean_square);
  return variance > 0.0f || variance != variance ? variance : 0.0f;
}

template <class Part, class Threads>
NORMA_DEVICE MeanAndVariance statistic_of(const Part& part, unsigned cols, Statistic kind, const Threads& threads) {
  const float count = static_cast<float>(cols);
  if (kind == Statistic::welford) {
    const Running r = threads.merged(welford_of(part));
    return {r.mean, div(r.m2, count)};
  }
  const float mean = div(threads.sum(sum_of(part)), count);
  if (kind == Statistic::two_pass) return {mean, div(threads.sum(deviations_of(part, mean)), count)};
  return {mean, one_pass_variance(mean, div(threads.sum(squares_of(part)), count))};
}

NORMA_DEVICE float root_of(float variance, float eps, bool approximate) {
  const float sum = add(variance, eps);
  return approximate ? rsqrt_approximate(sum) : rsqrt_correct(sum);
}

}  // namespace norma::cuda::inline NORMA_SIDE

// What the kernels of norms over channels share: partial moments of slices, and what becomes of a channel's moments.
#pragma once

#include "impls/cuda/channel_norm_launch.hpp"
#include "impls/cuda/moments.hpp"

namespace norma::cuda::inline NORMA_SIDE {

template <class T, class W>
struct ChannelTensors {
  const typename T::Stored* x;
  const typename W::Stored* weight;
  const typename W::Stored* bias;
  const typename W::Stored* mean;
  const typename W::Stored* variance;
  typename T::Stored* y;
  typename W::Stored* new_mean;
  typename W::Stored* new_variance;
  const float* partials;
  float eps, momentum;
  Statistic statistic;
  MomentsFrom from;
  unsigned slices;
  bool approximate_root;
};

template <class T, class W>
ChannelTensors<T, W> tensors_of(const ChannelNormLaunch& l) {
  const auto parameter = [](const std::byte* p) { return reinterpret_cast<const typename W::Stored*>(p); };
  return {.x = reinterpret_cast<const typename T::Stored*>(l.x),
          .weight = parameter(l.weight),
          .bias = parameter(l.bias),
          .mean = parameter(l.mean),
          .variance = parameter(l.variance),
          .y = reinterpret_cast<typename T::Stored*>(l.y),
          .new_mean = reinterpret_cast<typename W::Stored*>(l.new_mean),
          .new_variance = reinterpret_cast<typename W::Stored*>(l.new_variance),
          .partials = reinterpret_cast<const float*>(l.partials),
          .eps = l.eps,
          .momentum = l.momentum,
          .statistic = l.statistic,
          .from = l.from,
          .slices = l.slices,
          .approximate_root = l.approximate_root};
}

/// What a slice finds out of its values.
enum class Find : std::uint8_t {
  sum,              ///< partial 0
  deviations,       ///< partial 1: sum of (x - mean)^2, the mean by partial 0 of all slices
  sum_and_squares,  ///< partials 0 and 1
  running,          ///< partials 0, 1, 2: count, mean, m2
};

/// Merges `count` values of shared memory, a power of two, by halves; they lie `pitch` apart. `first`, `step`: which of
/// them this thread takes. All threads of the block take part and get the result.
template <class Value, class Merge>
NORMA_DEVICE Value by_halves(Value* values, unsigned pitch, unsigned count, unsigned first, unsigned step,
                             const Merge& merge_two) {
  for (unsigned half = count / 2; half > 0; half /= 2) {
    block_barrier();
    for (unsigned i = first; i < half; i += step)
      values[i * pitch] = merge_two(values[i * pitch], values[(i + half) * pitch]);
  }
  block_barrier();
  const Value result = values[0];
  block_barrier();  // the memory may be used again
  return result;
}

/// Moments out of the partials of all slices. `slices`: sum(which) and running(), merged over the slices.
template <class Slices>
NORMA_DEVICE MeanAndVariance moments_of(const Slices& slices, unsigned cols, Statistic kind) {
  const float count = static_cast<float>(cols);
  if (kind == Statistic::welford) {
    const Running r = slices.running();
    return {r.mean, div(r.m2, count)};
  }
  const float mean = div(slices.sum(0), count);
  const float second = div(slices.sum(1), count);
  return {mean, kind == Statistic::two_pass ? second : one_pass_variance(mean, second)};
}

/// What all elements of a channel have in common.
struct ChannelScale {
  float mean, r;
  bool weighted, biased;
};
template <class T, class W>
NORMA_DEVICE ChannelScale scale_of(const ChannelTensors<T, W>& t, const MeanAndVariance& m) {
  return {m.mean, root_of(m.variance, t.eps, t.approximate_root), t.weight != nullptr, t.bias != nullptr};
}
/// fma((v - mean) r, w, b); only what is there of w and b.
NORMA_DEVICE float normalized(const ChannelScale& s, float v, float w, float b) {
  const float n = mul(sub(v, s.mean), s.r);
  if (s.weighted) return s.biased ? fma(n, w, b) : mul(n, w);
  return s.biased ? add(n, b) : n;
}

template <class W>
NORMA_DEVICE float value_or_zero(const typename W::Stored* values, unsigned at) {
  return values == nullptr ? 0.0f : load<W>(values[at]);
}

/// (1 - momentum) running + momentum new, the variance being the unbiased one.
template <class T, class W>
NORMA_DEVICE void update_running(const ChannelTensors<T, W>& t, unsigned channel, const MeanAndVariance& m,
                                 unsigned cols) {
  const float keep = sub(1.0f, t.momentum);
  if (t.new_mean != nullptr)
    t.new_mean[channel] = store<W>(fma(keep, load<W>(t.mean[channel]), mul(t.momentum, m.mean)));
  if (t.new_variance == nullptr) return;
  const float count = static_cast<float>(cols);
  const float unbiased = div(mul(m.variance, count), sub(count, 1.0f));
  t.new_variance[channel] = store<W>(fma(keep, load<W>(t.variance[channel]), mul(t.momentum, unbiased)));
}

/// The kernels that find what `statistic` needs, in order: start(Find).
template <class Start>
void find_moments(Statistic statistic, const Start& start_finding) {
  switch (statistic) {
    case Statistic::two_pass: start_finding(Find::sum), start_finding(Find::deviations); return;
    case Statistic::one_pass: start_finding(Find::sum_and_squares); return;
    case Statistic::welford: start_finding(Find::running); return;
  }
}

/// launch(T, W) for the formats of a launch.
template <class T, class Launch>
void with_parameters(const ChannelNormLaunch& l, const Launch& launch) {
  if (l.parameters_fp32)
    launch(T{}, Fp32{});
  else
    launch(T{}, T{});
}
template <class Launch>
void with_formats(const ChannelNormLaunch& l, const Launch& launch) {
  switch (l.format) {
    case FormatId::fp32: return launch(Fp32{}, Fp32{});
    case FormatId::bf16: return with_parameters<Bf16>(l, launch);
    case FormatId::fp16: return with_parameters<Fp16>(l, launch);
    case FormatId::e4m3fn: return with_parameters<E4m3>(l, launch);
    default: return with_parameters<E5m2>(l, launch);
  }
}

}  // namespace norma::cuda::inline NORMA_SIDE

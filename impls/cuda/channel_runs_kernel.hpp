// Norms over channels whose rows are runs in memory: groups and channels of NCHW, groups of NHWC. One block a row, or
// many that share a row by slices: one block a row leaves most of a GPU idle where there are few rows (a VAE's
// GroupNorm: 32 rows of a million values).
#pragma once

#include "impls/cuda/channel_norm_kernel.hpp"
#include "impls/cuda/launch.hpp"
#include "impls/cuda/run_part.hpp"

namespace norma::cuda::inline NORMA_SIDE {

template <class T, class W>
struct ChannelRunsArguments {
  ChannelTensors<T, W> t;
  RunRows rows;
};
template <class T>
struct RunPartialsArguments {
  const typename T::Stored* x;
  float* partials;
  RunRows rows;
  unsigned slices;
  Find find;
};

inline constexpr unsigned kSliceWarps = kSliceThreads / kWarp;

/// Partial moments of a row: its warps', slice by slice. Merged by halves, which are the rest of the tree of a block of
/// all slices' threads. `shared`: three values a warp.
struct SlicesOfRow {
  const float* partials;  ///< of the row: 3 x warps
  unsigned warps;
  float* shared;

  NORMA_DEVICE float sum(unsigned which) const {
    for (unsigned i = thread_index(); i < warps; i += block_threads()) shared[i] = partials[which * warps + i];
    return by_halves(shared, 1, warps, thread_index(), block_threads(), [](float a, float b) { return add(a, b); });
  }
  NORMA_DEVICE Running running() const {
    auto* values = reinterpret_cast<Running*>(shared);
    for (unsigned i = thread_index(); i < warps; i += block_threads())
      values[i] = {partials[i], partials[warps + i], partials[2 * warps + i]};
    return by_halves(values, 1, warps, thread_index(), block_threads(),
                     [](const Running& a, const Running& b) { return merge(a, b); });
  }
};

NORMA_DEVICE SlicesOfRow slices_of_row(const float* partials, unsigned row, unsigned slices, float* shared) {
  const unsigned warps = slices * kSliceWarps;
  return {partials + std::size_t{row} * 3 * warps, warps, shared};
}

template <class T>
NORMA_KERNEL_OF(kSliceThreads)
void channel_run_partials(const RunPartialsArguments<T> a) {
  const unsigned row = block_index() / a.slices, slice = block_index() % a.slices;
  const unsigned index = slice * kSliceThreads + thread_index();
  const RunPart<T> part(a.x + start_of(a.rows, row), a.rows, index, a.slices * kSliceThreads);
  const SlicesOfRow slices = slices_of_row(a.partials, row, a.slices, shared_memory<float>());
  float* const own = a.partials + std::size_t{row} * 3 * slices.warps + index / kWarp;
  const bool lead = thread_index() % kWarp == 0;
  if (a.find == Find::running) {
    const Running r = WarpOfRow{}.merged(welford_of(part));
    if (lead) own[0] = r.count, own[slices.warps] = r.mean, own[2 * slices.warps] = r.m2;
    return;
  }
  if (a.find != Find::deviations) {
    const float sum = warp_sum(sum_of(part));
    if (lead) own[0] = sum;
  }
  if (a.find == Find::sum) return;
  float squares = 0;
  if (a.find == Find::deviations) {
    const float mean = div(slices.sum(0), static_cast<float>(a.rows.cols));
    squares = warp_sum(deviations_of(part, mean));
  } else {
    squares = warp_sum(squares_of(part));
  }
  if (lead) own[slices.warps] = squares;
}

/// Weights and biases of a vector's columns.
template <class T, class W>
NORMA_DEVICE void load_affine(const ChannelTensors<T, W>& t, const RunRows& rows, unsigned channel, unsigned first,
                              float (&w)[kVector<T>], float (&b)[kVector<T>]) {
  constexpr unsigned kCount = kVector<T>;
  const auto same = [&](unsigned at) {
    const float one_w = value_or_zero<W>(t.weight, at), one_b = value_or_zero<W>(t.bias, at);
    NORMA_UNROLL
    for (unsigned i = 0; i < kCount; ++i) w[i] = one_w, b[i] = one_b;
  };
  if (rows.channel_by == ChannelBy::row) return same(channel);
  if (rows.channel_by == ChannelBy::position) {
    unsigned of = first / rows.positions, position = first % rows.positions;
    if (position + kCount <= rows.positions) return same(channel + of);
    NORMA_UNROLL
    for (unsigned i = 0; i < kCount; ++i) {
      const bool in = first + i < rows.cols;
      w[i] = in ? value_or_zero<W>(t.weight, channel + of) : 0.0f;
      b[i] = in ? value_or_zero<W>(t.bias, channel + of) : 0.0f;
      if (++position == rows.positions) position = 0, ++of;
    }
    return;
  }
  unsigned offset = first % rows.each;
  if (rows.width >= kCount) {
    constexpr unsigned kPart = kVector<W> < kCount ? kVector<W> : kCount;
    NORMA_UNROLL
    for (unsigned i = 0; i < kCount; i += kPart) {
      float part_w[kPart] = {}, part_b[kPart] = {};
      if (t.weight != nullptr) load_columns<W>(t.weight + channel + offset + i, part_w);
      if (t.bias != nullptr) load_columns<W>(t.bias + channel + offset + i, part_b);
      NORMA_UNROLL
      for (unsigned k = 0; k < kPart; ++k) w[i + k] = part_w[k], b[i + k] = part_b[k];
    }
    return;
  }
  NORMA_UNROLL
  for (unsigned i = 0; i < kCount; ++i) {
    w[i] = value_or_zero<W>(t.weight, channel + offset);
    b[i] = value_or_zero<W>(t.bias, channel + offset);
    if (++offset == rows.each) offset = 0;
  }
}

/// y of this thread's columns, and the row's running statistics by its first thread.
template <class T, class W>
NORMA_DEVICE void write_run_row(const ChannelRunsArguments<T, W>& a, const RunPart<T>& part, unsigned row, bool first,
                                const MeanAndVariance& m) {
  const unsigned channel = row % a.rows.set * a.rows.each;
  const ChannelScale scale = scale_of(a.t, m);
  part.write(a.t.y + start_of(a.rows, row), [&](unsigned column, float(&values)[kVector<T>]) {
    float w[kVector<T>], b[kVector<T>];
    load_affine<T, W>(a.t, a.rows, channel, column, w, b);
    NORMA_UNROLL
    for (unsigned i = 0; i < kVector<T>; ++i) values[i] = normalized(scale, values[i], w[i], b[i]);
  });
  if (first) update_running(a.t, channel, m, a.rows.cols);
}

template <class T, class W>
NORMA_KERNEL_OF(kMostRowThreads)
void channel_run_block(const ChannelRunsArguments<T, W> a) {
  const unsigned row = block_index();
  const RunPart<T> part(a.t.x + start_of(a.rows, row), a.rows, thread_index(), block_threads());
  const MeanAndVariance m = statistic_of(part, a.rows.cols, a.t.statistic, BlockOfRow{shared_memory<float>()});
  write_run_row(a, part, row, thread_index() == 0, m);
}

template <class T, class W>
NORMA_KERNEL_OF(kSliceThreads)
void channel_run_slice(const ChannelRunsArguments<T, W> a) {
  const unsigned row = block_index() / a.t.slices, slice = block_index() % a.t.slices;
  const unsigned index = slice * kSliceThreads + thread_index();
  const RunPart<T> part(a.t.x + start_of(a.rows, row), a.rows, index, a.t.slices * kSliceThreads);
  if (a.t.from == MomentsFrom::given) {
    const unsigned channel = row % a.rows.set;
    write_run_row(a, part, row, false, {load<W>(a.t.mean[channel]), load<W>(a.t.variance[channel])});
    return;
  }
  const SlicesOfRow slices = slices_of_row(a.t.partials, row, a.t.slices, shared_memory<float>());
  write_run_row(a, part, row, index == 0, moments_of(slices, a.rows.cols, a.t.statistic));
}

template <class T, class W>
void start_channel_runs(const ChannelNormLaunch& l, const RunRows& rows, const LaunchOptions& options) {
  const ChannelRunsArguments<T, W> arguments{.t = tensors_of<T, W>(l), .rows = rows};
  if (l.from == MomentsFrom::block) {
    start<channel_run_block<T, W>>({.blocks = rows.rows,
                                    .threads = row_shape(RowThreads::block, l.format, rows.cols).threads,
                                    .shared_bytes = 3 * kWarp * sizeof(float)},
                                   options, arguments);
    return;
  }
  const LaunchShape shape{.blocks = rows.rows * l.slices,
                          .threads = kSliceThreads,
                          .shared_bytes = std::size_t{l.slices} * kSliceWarps * sizeof(Running)};
  if (l.from == MomentsFrom::slices)
    find_moments(l.statistic, [&](Find find) {
      const RunPartialsArguments<T> partials{.x = arguments.t.x,
                                             .partials = reinterpret_cast<float*>(l.partials),
                                             .rows = rows,
                                             .slices = l.slices,
                                             .find = find};
      start<channel_run_partials<T>>(shape, options, partials);
    });
  start<channel_run_slice<T, W>>(shape, options, arguments);
}

inline void start_channel_runs(const ChannelNormLaunch& l, const RunRows& rows, const LaunchOptions& options) {
  with_formats(l, [&]<class T, class W>(T, W) { start_channel_runs<T, W>(l, rows, options); });
}

}  // namespace norma::cuda::inline NORMA_SIDE

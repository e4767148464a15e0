// Norms of single channels where channels lie side by side (NHWC): x is a matrix [sets * rows, channels], and a column
// of a set has its own statistics. A block takes 32 columns and a slice of the rows: a warp reads 32 neighbours at a
// time, and a column is shared by the 32 threads of its lane.
#pragma once

#include "impls/cuda/channel_norm_kernel.hpp"
#include "impls/cuda/launch.hpp"

namespace norma::cuda::inline NORMA_SIDE {

template <class T, class W>
struct ChannelColumnsArguments {
  ChannelTensors<T, W> t;
  ChannelColumns columns;
};
template <class T>
struct ColumnPartialsArguments {
  const typename T::Stored* x;
  float* partials;
  ChannelColumns columns;
  unsigned slices;
  Find find;
};

/// A thread's place: its column, and which of the column's threads it is.
struct ColumnPlace {
  unsigned set, channel, slice, thread;  ///< thread: of the block's 32 that share the column
  bool inside;                           ///< else beyond the last channel: the first one's place, and no rows
};
NORMA_DEVICE ColumnPlace column_place(const ChannelColumns& c, unsigned slices) {
  const unsigned bundles = (c.channels + kWarp - 1) / kWarp;
  const unsigned bundle = block_index() / slices % bundles;
  const unsigned channel = bundle * kWarp + thread_index() % kWarp;
  const bool inside = channel < c.channels;
  return {block_index() / slices / bundles, inside ? channel : 0, block_index() % slices, thread_index() / kWarp,
          inside};
}

/// A column in the hands of one of the threads that share it: every so many rows.
template <class T>
struct ColumnPart {
  using Stored = typename T::Stored;
  static constexpr unsigned kAhead = 4;  ///< loads under way

  const Stored* column;
  unsigned rows, channels, index, threads;

  template <class Result, class Step>
  NORMA_DEVICE Result fold(Result start, const Step& step) const {
    Result result = start;
    for_rows([&](unsigned, float v) { result = step(result, v); });
    return result;
  }
  /// each(row, value), in order.
  template <class Each>
  NORMA_DEVICE void for_rows(const Each& each) const {
    NORMA_NO_UNROLL
    for (unsigned row = index; row < rows; row += kAhead * threads) {
      Stored values[kAhead] = {};
      NORMA_UNROLL
      for (unsigned k = 0; k < kAhead; ++k)
        if (row + k * threads < rows) values[k] = column[at(row + k * threads)];
      NORMA_UNROLL
      for (unsigned k = 0; k < kAhead; ++k)
        if (row + k * threads < rows) each(row + k * threads, load<T>(values[k]));
    }
  }
  NORMA_DEVICE std::size_t at(unsigned row) const { return std::size_t{row} * channels; }
};

template <class T>
NORMA_DEVICE ColumnPart<T> column_part(const typename T::Stored* x, const ChannelColumns& c, unsigned slices,
                                       const ColumnPlace& place) {
  return {x + std::size_t{place.set} * c.rows * c.channels + place.channel, place.inside ? c.rows : 0, c.channels,
          place.slice * kColumnThreads + place.thread, slices * kColumnThreads};
}

/// Over the 32 threads of a column, by halves, in shared memory; then over its slices, whose partials lie in memory
/// slice by slice.
struct ColumnThreads {
  const ColumnPlace& place;
  float* shared;  ///< three values a thread

  NORMA_DEVICE float sum(float v) const {
    float* const values = shared + thread_index() % kWarp;
    values[place.thread * kWarp] = v;
    return by_halves(values, kWarp, kColumnThreads, place.thread, kColumnThreads,
                     [](float a, float b) { return add(a, b); });
  }
  NORMA_DEVICE Running merged(const Running& r) const {
    Running* const values = reinterpret_cast<Running*>(shared) + thread_index() % kWarp;
    values[place.thread * kWarp] = r;
    return by_halves(values, kWarp, kColumnThreads, place.thread, kColumnThreads,
                     [](const Running& a, const Running& b) { return merge(a, b); });
  }
};
struct SlicesOfColumn {
  const ColumnPlace& place;
  float* shared;
  const float* partials;  ///< of this column, slice 0
  std::size_t columns;    ///< of all sets: from one slice to the next
  unsigned slices;

  NORMA_DEVICE const float& partial(unsigned which, unsigned slice) const {
    return partials[(std::size_t{which} * slices + slice) * columns];
  }
  NORMA_DEVICE float sum(unsigned which) const {
    float* const values = shared + thread_index() % kWarp;
    if (place.thread < slices) values[place.thread * kWarp] = partial(which, place.thread);
    return by_halves(values, kWarp, slices, place.thread, kColumnThreads, [](float a, float b) { return add(a, b); });
  }
  NORMA_DEVICE Running running() const {
    Running* const values = reinterpret_cast<Running*>(shared) + thread_index() % kWarp;
    if (place.thread < slices)
      values[place.thread * kWarp] = {partial(0, place.thread), partial(1, place.thread), partial(2, place.thread)};
    return by_halves(values, kWarp, slices, place.thread, kColumnThreads,
                     [](const Running& a, const Running& b) { return merge(a, b); });
  }
};
NORMA_DEVICE SlicesOfColumn slices_of_column(const float* partials, const ChannelColumns& c, unsigned slices,
                                             const ColumnPlace& place) {
  return {place, shared_memory<float>(), partials + std::size_t{place.set} * c.channels + place.channel,
          std::size_t{c.sets} * c.channels, slices};
}

template <class T>
NORMA_KERNEL_OF(kColumnThreads* kWarp)
void channel_column_partials(const ColumnPartialsArguments<T> a) {
  const ColumnPlace place = column_place(a.columns, a.slices);
  const ColumnPart<T> part = column_part<T>(a.x, a.columns, a.slices, place);
  const ColumnThreads threads{place, shared_memory<float>()};
  const SlicesOfColumn slices = slices_of_column(a.partials, a.columns, a.slices, place);
  const bool lead = place.inside && place.thread == 0;
  const auto keep = [&](unsigned which, float v) {
    if (lead)
      a.partials[(std::size_t{which} * a.slices + place.slice) * slices.columns +
                 std::size_t{place.set} * a.columns.channels + place.channel] = v;
  };
  if (a.find == Find::running) {
    const Running r = threads.merged(welford_of(part));
    keep(0, r.count), keep(1, r.mean), keep(2, r.m2);
    return;
  }
  if (a.find != Find::deviations) keep(0, threads.sum(sum_of(part)));
  if (a.find == Find::sum_and_squares) keep(1, threads.sum(squares_of(part)));
  if (a.find == Find::deviations) {
    const float mean = div(slices.sum(0), static_cast<float>(a.columns.rows));
    keep(1, threads.sum(deviations_of(part, mean)));
  }
}

template <class T, class W>
NORMA_KERNEL_OF(kColumnThreads* kWarp)
void channel_column_slice(const ChannelColumnsArguments<T, W> a) {
  const ColumnPlace place = column_place(a.columns, a.t.slices);
  const ColumnPart<T> part = column_part<T>(a.t.x, a.columns, a.t.slices, place);
  const unsigned channel = place.channel;
  const MeanAndVariance m =
      a.t.from == MomentsFrom::given
          ? MeanAndVariance{load<W>(a.t.mean[channel]), load<W>(a.t.variance[channel])}
          : moments_of(slices_of_column(a.t.partials, a.columns, a.t.slices, place), a.columns.rows, a.t.statistic);
  const ChannelScale scale = scale_of(a.t, m);
  const float w = value_or_zero<W>(a.t.weight, channel), b = value_or_zero<W>(a.t.bias, channel);
  typename T::Stored* const y = a.t.y + (part.column - a.t.x);
  part.for_rows([&](unsigned row, float v) { y[part.at(row)] = store<T>(normalized(scale, v, w, b)); });
  if (a.t.from != MomentsFrom::given && place.inside && place.slice == 0 && place.thread == 0)
    update_running(a.t, channel, m, a.columns.rows);
}

template <class T, class W>
void start_channel_columns(const ChannelNormLaunch& l, const ChannelColumns& columns, const LaunchOptions& options) {
  const ChannelColumnsArguments<T, W> arguments{.t = tensors_of<T, W>(l), .columns = columns};
  const LaunchShape shape{.blocks = columns.sets * ((columns.channels + kWarp - 1) / kWarp) * l.slices,
                          .threads = kColumnThreads * kWarp,
                          .shared_bytes = kColumnThreads * kWarp * sizeof(Running)};
  if (l.from == MomentsFrom::slices)
    find_moments(l.statistic, [&](Find find) {
      const ColumnPartialsArguments<T> partials{.x = arguments.t.x,
                                                .partials = reinterpret_cast<float*>(l.partials),
                                                .columns = columns,
                                                .slices = l.slices,
                                                .find = find};
      start<channel_column_partials<T>>(shape, options, partials);
    });
  start<channel_column_slice<T, W>>(shape, options, arguments);
}

inline void start_channel_columns(const ChannelNormLaunch& l, const ChannelColumns& columns,
                                  const LaunchOptions& options) {
  with_formats(l, [&]<class T, class W>(T, W) { start_channel_columns<T, W>(l, columns, options); });
}

}  // namespace norma::cuda::inline NORMA_SIDE

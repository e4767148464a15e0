// The rotary embedding of rows, which are heads of tokens: one warp a row, a lane every 32nd pair. Behind RMSNorm a
// lane normalizes both columns of its pairs anew: the row is in the first cache by then.
#pragma once

#include "impls/cuda/launch.hpp"
#include "impls/cuda/rope_launch.hpp"
#include "impls/cuda/row_part.hpp"

namespace norma::cuda::inline NORMA_SIDE {

template <class T, class W>
struct RopeArguments {
  const typename T::Stored* x;
  const typename W::Stored* cos;
  const typename W::Stored* sin;
  const std::byte* weight;
  typename T::Stored* y;
  unsigned rows, cols, rotary;
  float eps;
  bool aligned, weight_fp32, approximate_root, interleaved, table_of_columns;
  RopeLaunch::TableRows tables;
  RopeRoundings roundings;
};

NORMA_DEVICE std::size_t table_row(const RopeLaunch::TableRows& t, unsigned row) {
  const unsigned r = row / t.rows_each % t.period;
  return r % t.set * t.per_row + r / t.set / t.sets_each * t.per_set;
}

/// own c + partner s; the partner has its sign.
template <class T>
NORMA_DEVICE float turned(RopeRoundings roundings, float own, float c, float partner, float s) {
  const float crossed = mul(partner, s);
  if (roundings == RopeRoundings::one) return fma(own, c, crossed);
  const float product = mul(own, c);
  return roundings == RopeRoundings::fp32 ? add(product, crossed) : add(rounded_to<T>(product), rounded_to<T>(crossed));
}

/// The values of a row that are turned: x itself, or what RMSNorm makes of it.
template <class T, class W, bool kNormed>
struct RopeValues {
  const RopeArguments<T, W>& a;
  const typename T::Stored* x;
  float r;
  NORMA_DEVICE float weighted(float n, unsigned c) const {
    if (a.weight == nullptr) return n;
    const float w = a.weight_fp32 ? reinterpret_cast<const float*>(a.weight)[c]
                                  : load<T>(reinterpret_cast<const typename T::Stored*>(a.weight)[c]);
    return mul(n, w);
  }
  NORMA_DEVICE float at(unsigned c) const {
    const float v = load<T>(x[c]);
    if (!kNormed) return v;
    const float n = mul(v, r);
    return a.roundings == RopeRoundings::one ? weighted(n, c) : rounded_to<T>(weighted(rounded_to<T>(n), c));
  }
};

template <class T, class W, bool kNormed>
NORMA_KERNEL void rope_warp_per_row(const RopeArguments<T, W> a) {
  const unsigned row = block_index() * kRowsPerBlock + thread_index() / kWarp;
  if (row >= a.rows) return;
  const unsigned lane = thread_index() % kWarp, half = a.rotary / 2;
  const std::size_t from = static_cast<std::size_t>(row) * a.cols;
  float r = 1;
  if (kNormed) {
    const RowPart<T> part(a.x + from, a.cols, a.aligned, lane, kWarp);
    const float sum = warp_sum(part.fold(0.0f, [](float s, float v) { return fma(v, v, s); }));
    const float root = add(div(sum, static_cast<float>(a.cols)), a.eps);
    r = a.approximate_root ? rsqrt_approximate(root) : rsqrt_correct(root);
  }
  const RopeValues<T, W, kNormed> values{a, a.x + from, r};
  const std::size_t table = table_row(a.tables, row);
  typename T::Stored* y = a.y + from;
  NORMA_NO_UNROLL
  for (unsigned pair = lane; pair < half; pair += kWarp) {
    const unsigned first = a.interleaved ? 2 * pair : pair, second = a.interleaved ? first + 1 : pair + half;
    const std::size_t t1 = table + (a.table_of_columns ? first : pair),
                      t2 = table + (a.table_of_columns ? second : pair);
    const float n1 = values.at(first), n2 = values.at(second);
    y[first] = store<T>(turned<T>(a.roundings, n1, load<W>(a.cos[t1]), -n2, load<W>(a.sin[t1])));
    y[second] = store<T>(turned<T>(a.roundings, n2, load<W>(a.cos[t2]), n1, load<W>(a.sin[t2])));
  }
  NORMA_NO_UNROLL
  for (unsigned c = a.rotary + lane; c < a.cols; c += kWarp) y[c] = kNormed ? store<T>(values.at(c)) : values.x[c];
}

template <class T, class W>
void start_rope(const RopeLaunch& l, const LaunchOptions& options) {
  const RopeArguments<T, W> arguments{.x = reinterpret_cast<const typename T::Stored*>(l.x),
                                      .cos = reinterpret_cast<const typename W::Stored*>(l.cos),
                                      .sin = reinterpret_cast<const typename W::Stored*>(l.sin),
                                      .weight = l.weight,
                                      .y = reinterpret_cast<typename T::Stored*>(l.y),
                                      .rows = l.rows,
                                      .cols = l.cols,
                                      .rotary = l.rotary,
                                      .eps = l.eps,
                                      .aligned = std::size_t{l.cols} * sizeof(typename T::Stored) % 16 == 0,
                                      .weight_fp32 = l.weight_fp32,
                                      .approximate_root = l.approximate_root,
                                      .interleaved = l.interleaved,
                                      .table_of_columns = l.table_of_columns,
                                      .tables = l.tables,
                                      .roundings = l.roundings};
  const LaunchShape shape{
      .blocks = (l.rows + kRowsPerBlock - 1) / kRowsPerBlock, .threads = kRowsPerBlock * kWarp, .shared_bytes = 0};
  if (l.normed)
    start<rope_warp_per_row<T, W, true>>(shape, options, arguments);
  else
    start<rope_warp_per_row<T, W, false>>(shape, options, arguments);
}

template <class T>
void start_rope(const RopeLaunch& l, const LaunchOptions& options) {
  if (l.tables_fp32)
    start_rope<T, Fp32>(l, options);
  else
    start_rope<T, T>(l, options);
}

inline void start_rope(const RopeLaunch& l, const LaunchOptions& options) {
  switch (l.format) {
    case FormatId::fp32: return start_rope<Fp32, Fp32>(l, options);
    case FormatId::bf16: return start_rope<Bf16>(l, options);
    case FormatId::fp16: return start_rope<Fp16>(l, options);
    case FormatId::e4m3fn: return start_rope<E4m3>(l, options);
    default: return start_rope<E5m2>(l, options);
  }
}

}  // namespace norma::cuda::inline NORMA_SIDE

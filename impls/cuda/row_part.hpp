// A row shared out among threads: vectors of 16 bytes, each thread every so many of them. This is the order of sums that
// a program calls warp(threads, vec=v) and block(threads, vec=v).
#pragma once

#include "impls/cuda/device.hpp"

namespace norma::cuda::inline NORMA_SIDE {

/// A vector of columns, aligned to its size, as binary32.
template <class F, unsigned kCount>
NORMA_DEVICE void load_columns(const typename F::Stored* from, float (&values)[kCount]) {
  const auto pack = *reinterpret_cast<const Pack<F, kCount>*>(from);
  NORMA_UNROLL
  for (unsigned k = 0; k < kCount; ++k) values[k] = load<F>(pack.v[k]);
}

template <class F, unsigned kCount>
NORMA_DEVICE void store_columns(typename F::Stored* to, const float (&values)[kCount]) {
  Pack<F, kCount> pack;
  NORMA_UNROLL
  for (unsigned k = 0; k < kCount; ++k) pack.v[k] = store<F>(values[k]);
  *reinterpret_cast<Pack<F, kCount>*>(to) = pack;
}

/// Calls each(column) for the columns of thread `index` of `threads`, one by one in their order: for rows that are not
/// aligned to vectors.
template <class F, class Each>
NORMA_DEVICE void for_columns(unsigned cols, unsigned index, unsigned threads, const Each& each) {
  NORMA_NO_UNROLL
  for (unsigned first = index * kVector<F>; first < cols; first += threads * kVector<F>)
    NORMA_NO_UNROLL
    for (unsigned c = first; c < first + kVector<F> && c < cols; ++c) each(c);
}

/// The sum over a warp, in all lanes: lanes l and l + 16 first, as every addition commutes.
NORMA_DEVICE float warp_sum(float v) {
  for (unsigned mask = kWarp / 2; mask > 0; mask /= 2) v = add(v, shuffle_xor(v, mask));
  return v;
}

/// The sum over a block, in all threads: within each warp, then over the warps by halves. `partial`: shared memory for one
/// value a warp. The number of warps is a power of two.
NORMA_DEVICE float block_sum(float v, float* partial) {
  const unsigned warps = block_threads() / kWarp;
  v = warp_sum(v);
  if (thread_index() % kWarp == 0) partial[thread_index() / kWarp] = v;
  block_barrier();
  const unsigned lane = thread_index() % kWarp;
  v = lane < warps ? partial[lane] : 0.0f;
  for (unsigned mask = warps / 2; mask > 0; mask /= 2) v = add(v, shuffle_xor(v, mask));
  v = shuffle(v, 0);
  block_barrier();  // `partial` may be used again
  return v;
}

}  // namespace norma::cuda::inline NORMA_SIDE

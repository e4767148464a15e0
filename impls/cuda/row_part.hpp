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

/// Vectors of a row that a thread keeps: 32 values.
template <class T>
inline constexpr unsigned kHeld = 32 / kVector<T>;
inline constexpr unsigned kRowsPerBlock = 4;  ///< where a warp has a row of its own

/// A row in the hands of one of the threads that share it. A row whose vectors are aligned is read once as far as they
/// are held, and again beyond; another one is read again column by column, in the same order.
template <class T>
class RowPart {
 public:
  using Stored = typename T::Stored;

  NORMA_DEVICE RowPart(const Stored* row, unsigned cols, bool aligned, unsigned index, unsigned threads)
      : row_(row), cols_(cols), index_(index), threads_(threads), aligned_(aligned) {
    if (!aligned) return;
    NORMA_UNROLL
    for (unsigned k = 0; k < kHeld<T>; ++k)
      if (column(k) < cols_) load_columns<T>(row_ + column(k), held_[k]);
  }

  /// step(step(step(start, v0), v1), ...) over this thread's columns.
  template <class Result, class Step>
  NORMA_DEVICE Result fold(Result start, const Step& step) const {
    Result result = start;
    if (!aligned_) {
      for_columns([&](unsigned c) { result = step(result, load<T>(row_[c])); });
      return result;
    }
    for_vectors([&](unsigned, const float (&values)[kVector<T>]) {
      NORMA_UNROLL
      for (unsigned i = 0; i < kVector<T>; ++i) result = step(result, values[i]);
    });
    return result;
  }

  /// y[c] = rT(f(value, p)) with p the parameters of column c; of a parameter that is null, 0.
  template <class W, unsigned kParameters, class Function>
  NORMA_DEVICE void write(Stored* y, const typename W::Stored* const (&parameters)[kParameters], const Function& f) const {
    if (!aligned_) {
      for_columns([&](unsigned c) {
        float p[kParameters];
        NORMA_UNROLL
        for (unsigned j = 0; j < kParameters; ++j) p[j] = parameters[j] != nullptr ? load<W>(parameters[j][c]) : 0.0f;
        y[c] = store<T>(f(load<T>(row_[c]), p));
      });
      return;
    }
    for_vectors([&](unsigned first, const float (&values)[kVector<T>]) {
      constexpr unsigned kPart = kVector<W> < kVector<T> ? kVector<W> : kVector<T>;
      float vectors[kParameters][kVector<T>] = {};
      NORMA_UNROLL
      for (unsigned j = 0; j < kParameters; ++j) {
        if (parameters[j] == nullptr) continue;
        NORMA_UNROLL
        for (unsigned i = 0; i < kVector<T>; i += kPart) {
          float part[kPart];
          load_columns<W>(parameters[j] + first + i, part);
          NORMA_UNROLL
          for (unsigned k = 0; k < kPart; ++k) vectors[j][i + k] = part[k];
        }
      }
      float results[kVector<T>];
      NORMA_UNROLL
      for (unsigned i = 0; i < kVector<T>; ++i) {
        float p[kParameters];
        NORMA_UNROLL
        for (unsigned j = 0; j < kParameters; ++j) p[j] = vectors[j][i];
        results[i] = f(values[i], p);
      }
      store_columns<T>(y + first, results);
    });
  }

 private:
  /// The first column of this thread's vector k.
  NORMA_DEVICE unsigned column(unsigned k) const { return (k * threads_ + index_) * kVector<T>; }

  template <class Each>
  NORMA_DEVICE void for_columns(const Each& each) const {
    NORMA_NO_UNROLL
    for (unsigned k = 0; column(k) < cols_; ++k)
      NORMA_NO_UNROLL
      for (unsigned c = column(k); c < column(k) + kVector<T> && c < cols_; ++c) each(c);
  }
  template <class Each>
  NORMA_DEVICE void for_vectors(const Each& each) const {
    NORMA_UNROLL
    for (unsigned k = 0; k < kHeld<T>; ++k)
      if (column(k) < cols_) each(column(k), held_[k]);
    NORMA_NO_UNROLL
    for (unsigned k = kHeld<T>; column(k) < cols_; ++k) {
      float values[kVector<T>];
      load_columns<T>(row_ + column(k), values);
      each(column(k), values);
    }
  }

  const Stored* row_;
  unsigned cols_, index_, threads_;
  bool aligned_;
  float held_[kHeld<T>][kVector<T>];
};

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

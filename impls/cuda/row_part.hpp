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

/// A row as it stands in memory: values of columns.
template <class T>
struct StoredRow {
  NORMA_DEVICE StoredRow(const typename T::Stored* first) : row(first) {}
  NORMA_DEVICE float at(unsigned c) const { return load<T>(row[c]); }
  NORMA_DEVICE void take(unsigned c, float (&values)[kVector<T>]) const { load_columns<T>(row + c, values); }
  const typename T::Stored* row;
};

/// A row in the hands of one of the threads that share it. A row whose vectors are aligned is read once as far as they
/// are held, and again beyond; another one is read again column by column, in the same order.
template <class T, class Row = StoredRow<T>>
class RowPart {
 public:
  NORMA_DEVICE RowPart(const Row& row, unsigned cols, bool aligned, unsigned index, unsigned threads)
      : row_(row), cols_(cols), index_(index), threads_(threads), aligned_(aligned) {
    if (!aligned) return;
    NORMA_UNROLL
    for (unsigned k = 0; k < kHeld<T>; ++k)
      if (column(k) < cols_) row_.take(column(k), held_[k]);
  }

  /// step(step(step(start, v0), v1), ...) over this thread's columns.
  template <class Result, class Step>
  NORMA_DEVICE Result fold(Result start, const Step& step) const {
    Result result = start;
    if (!aligned_) {
      for_columns([&](unsigned c) { result = step(result, row_.at(c)); });
      return result;
    }
    for_vectors([&](unsigned, const float (&values)[kVector<T>]) {
      NORMA_UNROLL
      for (unsigned i = 0; i < kVector<T>; ++i) result = step(result, values[i]);
    });
    return result;
  }

  /// f(value, p) of this thread's columns in order, p being the parameters of the column; of a parameter that is null, 0.
  template <class W, unsigned kParameters, class Function>
  NORMA_DEVICE void visit(const typename W::Stored* const (&parameters)[kParameters], const Function& f) const {
    with_parameters<W>(
        parameters, [&](unsigned, float v, const float (&p)[kParameters]) { f(v, p); },
        [&](unsigned, const float (&values)[kVector<T>], const float (&vectors)[kVector<T>][kParameters]) {
          NORMA_UNROLL
          for (unsigned i = 0; i < kVector<T>; ++i) f(values[i], vectors[i]);
        });
  }

  /// y[c] = f(value, p) rounded to Out.
  template <class W, class Out = T, unsigned kParameters, class Function>
  NORMA_DEVICE void write(typename Out::Stored* y, const typename W::Stored* const (&parameters)[kParameters],
                          const Function& f) const {
    with_parameters<W>(
        parameters, [&](unsigned c, float v, const float (&p)[kParameters]) { y[c] = store<Out>(f(v, p)); },
        [&](unsigned first, const float (&values)[kVector<T>], const float (&vectors)[kVector<T>][kParameters]) {
          float results[kVector<T>];
          NORMA_UNROLL
          for (unsigned i = 0; i < kVector<T>; ++i) results[i] = f(values[i], vectors[i]);
          store_columns<Out>(y + first, results);
        });
  }

  /// each(first, inside, values) for every vector that this thread has and, not inside, for those that it has not while
  /// others of its warp may have theirs: the warp takes its turns together. For aligned rows.
  template <class Each>
  NORMA_DEVICE void with_warp(const Each& each) const {
    NORMA_UNROLL
    for (unsigned k = 0; k < kHeld<T>; ++k)
      if (k * threads_ * kVector<T> < cols_) each(column(k), column(k) < cols_, held_[k]);
    NORMA_NO_UNROLL
    for (unsigned k = kHeld<T>; k * threads_ * kVector<T> < cols_; ++k) {
      float values[kVector<T>] = {};
      if (column(k) < cols_) row_.take(column(k), values);
      each(column(k), column(k) < cols_, values);
    }
  }
  /// Parameters of a vector's columns.
  template <class W>
  NORMA_DEVICE static void take_parameters(const typename W::Stored* from, float (&values)[kVector<T>]) {
    constexpr unsigned kPart = kVector<W> < kVector<T> ? kVector<W> : kVector<T>;
    NORMA_UNROLL
    for (unsigned i = 0; i < kVector<T>; i += kPart) {
      float part[kPart];
      load_columns<W>(from + i, part);
      NORMA_UNROLL
      for (unsigned k = 0; k < kPart; ++k) values[i + k] = part[k];
    }
  }

 private:
  /// The first column of this thread's vector k.
  NORMA_DEVICE unsigned column(unsigned k) const { return (k * threads_ + index_) * kVector<T>; }

  /// one(c, value, p) or, for aligned rows, vector(first, values, p of each).
  template <class W, unsigned kParameters, class One, class Vector>
  NORMA_DEVICE void with_parameters(const typename W::Stored* const (&parameters)[kParameters], const One& one,
                                    const Vector& vector) const {
    if (!aligned_) {
      for_columns([&](unsigned c) {
        float p[kParameters];
        NORMA_UNROLL
        for (unsigned j = 0; j < kParameters; ++j) p[j] = parameters[j] != nullptr ? load<W>(parameters[j][c]) : 0.0f;
        one(c, row_.at(c), p);
      });
      return;
    }
    for_vectors([&](unsigned first, const float (&values)[kVector<T>]) {
      float vectors[kVector<T>][kParameters] = {};
      NORMA_UNROLL
      for (unsigned j = 0; j < kParameters; ++j) {
        if (parameters[j] == nullptr) continue;
        float taken[kVector<T>];
        take_parameters<W>(parameters[j] + first, taken);
        NORMA_UNROLL
        for (unsigned i = 0; i < kVector<T>; ++i) vectors[i][j] = taken[i];
      }
      vector(first, values, vectors);
    });
  }

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
      row_.take(column(k), values);
      each(column(k), values);
    }
  }

  Row row_;
  unsigned cols_, index_, threads_;
  bool aligned_;
  float held_[kHeld<T>][kVector<T>];
};

/// A commutative `join` over a warp, in all lanes: lanes l and l + 16 first.
template <class Join>
NORMA_DEVICE float over_warp(float v, const Join& join) {
  for (unsigned mask = kWarp / 2; mask > 0; mask /= 2) v = join(v, shuffle_xor(v, mask));
  return v;
}
NORMA_DEVICE float warp_sum(float v) { return over_warp(v, [](float a, float b) { return add(a, b); }); }

/// The same over a block, in all threads: within each warp, then over the warps by halves. `partial`: shared memory for
/// one value a warp. The number of warps is a power of two.
template <class Join>
NORMA_DEVICE float over_block(float v, float* partial, const Join& join) {
  const unsigned warps = block_threads() / kWarp;
  v = over_warp(v, join);
  if (thread_index() % kWarp == 0) partial[thread_index() / kWarp] = v;
  block_barrier();
  const unsigned lane = thread_index() % kWarp;
  v = lane < warps ? partial[lane] : 0.0f;
  for (unsigned mask = warps / 2; mask > 0; mask /= 2) v = join(v, shuffle_xor(v, mask));
  v = shuffle(v, 0);
  block_barrier();  // `partial` may be used again
  return v;
}
NORMA_DEVICE float block_sum(float v, float* partial) { return over_block(v, partial, [](float a, float b) { return add(a, b); }); }

}  // namespace norma::cuda::inline NORMA_SIDE

// A row that is runs of elements in memory, shared out among threads by vectors of kVector columns: the order that a
// program calls block(threads, vec=v). How wide its loads are is the memory's matter and changes no bit.
#pragma once

#include "impls/cuda/channel_norm_launch.hpp"
#include "impls/cuda/row_part.hpp"

namespace norma::cuda::inline NORMA_SIDE {

/// Elements of a load that is narrower than a vector: four bytes.
template <class T>
inline constexpr unsigned kPiece = sizeof(typename T::Stored) < 4 ? 4 / sizeof(typename T::Stored) : 1;

NORMA_DEVICE std::size_t start_of(const RunRows& r, unsigned row) {
  return row % r.set * r.per_row + row / r.set * r.per_set;
}

/// A row in the hands of one of the threads that share it: its first 32 values are kept, the others are read again at
/// every use.
template <class T>
class RunPart {
 public:
  using Stored = typename T::Stored;

  NORMA_DEVICE RunPart(const Stored* row, const RunRows& runs, unsigned index, unsigned threads)
      : row_(row), runs_(runs), index_(index), threads_(threads) {
    NORMA_UNROLL
    for (unsigned k = 0; k < kHeld<T>; ++k)
      if (column(k) < runs_.cols) load_vector(column(k), held_[k]);
  }

  /// step(step(step(start, v0), v1), ...) over this thread's columns.
  template <class Result, class Step>
  NORMA_DEVICE Result fold(Result start, const Step& step) const {
    Result result = start;
    for_vectors([&](unsigned first, const float(&values)[kVector<T>]) {
      if (first + kVector<T> <= runs_.cols) {
        NORMA_UNROLL
        for (unsigned i = 0; i < kVector<T>; ++i) result = step(result, values[i]);
      } else {
        NORMA_UNROLL
        for (unsigned i = 0; i < kVector<T>; ++i)
          if (first + i < runs_.cols) result = step(result, values[i]);
      }
    });
    return result;
  }

  /// y[column] = rT(...): transform(first, values) turns the values of a vector's columns into results.
  template <class Transform>
  NORMA_DEVICE void write(Stored* y, const Transform& transform) const {
    for_vectors([&](unsigned first, const float(&values)[kVector<T>]) {
      float results[kVector<T>];
      NORMA_UNROLL
      for (unsigned i = 0; i < kVector<T>; ++i) results[i] = values[i];
      transform(first, results);
      store_vector(y, first, results);
    });
  }

 private:
  /// The first column of this thread's vector k.
  NORMA_DEVICE unsigned column(unsigned k) const { return (k * threads_ + index_) * kVector<T>; }

  template <class Each>
  NORMA_DEVICE void for_vectors(const Each& each) const {
    NORMA_UNROLL
    for (unsigned k = 0; k < kHeld<T>; ++k)
      if (column(k) < runs_.cols) each(column(k), held_[k]);
    NORMA_NO_UNROLL
    for (unsigned k = kHeld<T>; column(k) < runs_.cols; ++k) {
      float values[kVector<T>];
      load_vector(column(k), values);
      each(column(k), values);
    }
  }

  /// each(first column of a piece within the vector, where it stands), for the pieces that are in the row.
  template <unsigned kCount, class Each>
  NORMA_DEVICE void for_pieces(unsigned first, const Each& each) const {
    unsigned run = first / runs_.run, offset = first % runs_.run;
    NORMA_UNROLL
    for (unsigned i = 0; i < kVector<T>; i += kCount) {
      if (first + i < runs_.cols) each(i, run * runs_.apart + offset);
      offset += kCount;
      if (offset == runs_.run) offset = 0, ++run;
    }
  }
  template <unsigned kCount>
  NORMA_DEVICE void load_pieces(unsigned first, float (&values)[kVector<T>]) const {
    for_pieces<kCount>(first, [&](unsigned i, std::size_t at) {
      float piece[kCount];
      load_columns<T>(row_ + at, piece);
      NORMA_UNROLL
      for (unsigned k = 0; k < kCount; ++k) values[i + k] = piece[k];
    });
  }
  template <unsigned kCount>
  NORMA_DEVICE void store_pieces(Stored* y, unsigned first, const float (&values)[kVector<T>]) const {
    for_pieces<kCount>(first, [&](unsigned i, std::size_t at) {
      float piece[kCount];
      NORMA_UNROLL
      for (unsigned k = 0; k < kCount; ++k) piece[k] = values[i + k];
      store_columns<T>(y + at, piece);
    });
  }
  NORMA_DEVICE void load_vector(unsigned first, float (&values)[kVector<T>]) const {
    NORMA_UNROLL
    for (unsigned i = 0; i < kVector<T>; ++i) values[i] = 0;
    if (runs_.width >= kVector<T>)
      load_pieces<kVector<T>>(first, values);
    else if (runs_.width >= kPiece<T>)
      load_pieces<kPiece<T>>(first, values);
    else
      load_pieces<1>(first, values);
  }
  NORMA_DEVICE void store_vector(Stored* y, unsigned first, const float (&values)[kVector<T>]) const {
    if (runs_.width >= kVector<T>)
      store_pieces<kVector<T>>(y, first, values);
    else if (runs_.width >= kPiece<T>)
      store_pieces<kPiece<T>>(y, first, values);
    else
      store_pieces<1>(y, first, values);
  }

  const Stored* row_;
  const RunRows& runs_;
  unsigned index_, threads_;
  float held_[kHeld<T>][kVector<T>];
};

}  // namespace norma::cuda::inline NORMA_SIDE

// Modulation and gated residual: one block a row.
#pragma once

#include "impls/cuda/elementwise_launch.hpp"
#include "impls/cuda/launch.hpp"
#include "impls/cuda/row_part.hpp"

namespace norma::cuda::inline NORMA_SIDE {

template <class T, class W>
struct ElementwiseArguments {
  const typename T::Stored* x;
  const typename W::Stored* factor;
  const typename W::Stored* term;
  typename T::Stored* y;
  unsigned cols, factor_rows, term_rows;
  bool one_plus, aligned;
};

template <class T, class W, Roundings kRoundings>
NORMA_KERNEL void multiply_add_rows(const ElementwiseArguments<T, W> a) {
  const std::size_t row = block_index(), cols = a.cols;
  const RowPart<T> part(a.x + row * cols, a.cols, a.aligned, thread_index(), block_threads());
  const typename W::Stored* const parameters[2] = {a.factor + row / a.factor_rows * cols,
                                                   a.term == nullptr ? nullptr : a.term + row / a.term_rows * cols};
  part.template write<W>(a.y + row * cols, parameters, [&](float v, const float (&p)[2]) {
    float factor = a.one_plus ? add(1.0f, p[0]) : p[0];
    if (kRoundings == Roundings::one) return a.term == nullptr ? mul(v, factor) : fma(v, factor, p[1]);
    if (a.one_plus) factor = rounded_to<T>(factor);
    const float product = mul(v, factor);
    return a.term == nullptr ? product : add(rounded_to<T>(product), p[1]);
  });
}

template <class T, class W, Roundings kRoundings>
void start_elementwise(const ElementwiseLaunch& l, const LaunchOptions& options) {
  const ElementwiseArguments<T, W> arguments{.x = reinterpret_cast<const typename T::Stored*>(l.x),
                                             .factor = reinterpret_cast<const typename W::Stored*>(l.factor.values),
                                             .term = reinterpret_cast<const typename W::Stored*>(l.term.values),
                                             .y = reinterpret_cast<typename T::Stored*>(l.y),
                                             .cols = l.cols,
                                             .factor_rows = l.factor.rows,
                                             .term_rows = l.term.rows,
                                             .one_plus = l.one_plus,
                                             .aligned = std::size_t{l.cols} * sizeof(typename T::Stored) % 16 == 0};
  start<multiply_add_rows<T, W, kRoundings>>(
      {.blocks = l.rows, .threads = row_shape(RowThreads::block, l.format, l.cols).threads, .shared_bytes = 0}, options,
      arguments);
}

template <class T>
void start_elementwise(const ElementwiseLaunch& l, const LaunchOptions& options) {
  // What is rounded to x's format at every operation has its parameters in it.
  if (l.roundings == Roundings::each) start_elementwise<T, T, Roundings::each>(l, options);
  else if (l.parameters_fp32) start_elementwise<T, Fp32, Roundings::one>(l, options);
  else start_elementwise<T, T, Roundings::one>(l, options);
}

inline void start_elementwise(const ElementwiseLaunch& l, const LaunchOptions& options) {
  switch (l.format) {
    case FormatId::fp32: return start_elementwise<Fp32>(l, options);
    case FormatId::bf16: return start_elementwise<Bf16>(l, options);
    case FormatId::fp16: return start_elementwise<Fp16>(l, options);
    case FormatId::e4m3fn: return start_elementwise<E4m3>(l, options);
    default: return start_elementwise<E5m2>(l, options);
  }
}

}  // namespace norma::cuda::inline NORMA_SIDE

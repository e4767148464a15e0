// Residual sum and RMSNorm of rows in one pass: the sum is made where its columns are read, and put out beside y.
#pragma once

#include "impls/cuda/rms_residual_launch.hpp"
#include "impls/cuda/rmsnorm_kernel.hpp"

namespace norma::cuda::inline NORMA_SIDE {

template <class T>
struct SummedRow {
  NORMA_DEVICE float sum(float a, float b) const {
    const float s = add(a, b);
    return rounded ? rounded_to<T>(s) : s;
  }
  NORMA_DEVICE float at(unsigned c) const { return sum(load<T>(x[c]), load<T>(residual[c])); }
  NORMA_DEVICE void take(unsigned c, float (&values)[kVector<T>]) const {
    float others[kVector<T>];
    load_columns<T>(x + c, values);
    load_columns<T>(residual + c, others);
    NORMA_UNROLL
    for (unsigned i = 0; i < kVector<T>; ++i) values[i] = sum(values[i], others[i]);
  }
  const typename T::Stored *x, *residual;
  bool rounded;
};

template <class T, class W>
struct RmsResidualArguments {
  RmsArguments<T, W> norm;
  const typename T::Stored* residual;
  typename T::Stored* sum;
  bool rounded;
};

template <class T, class W, RmsTail kTail, class Sum>
NORMA_DEVICE void rms_residual_row(const RmsResidualArguments<T, W>& arguments, unsigned row, unsigned index,
                                   unsigned threads, const Sum& all) {
  const RmsArguments<T, W>& a = arguments.norm;
  const std::size_t from = static_cast<std::size_t>(row) * a.cols;
  const RowPart<T, SummedRow<T>> part({a.x + from, arguments.residual + from, arguments.rounded}, a.cols, a.aligned, index,
                                      threads);
  const typename T::Stored* const none[1] = {nullptr};
  part.template write<T>(arguments.sum + from, none, [](float v, const float (&)[1]) { return v; });
  const float r = rms_root(all(part.fold(0.0f, [](float s, float v) { return fma(v, v, s); })), a.cols, a.eps,
                           a.approximate_root);
  const typename W::Stored* const parameters[1] = {a.weight};
  part.template write<W>(a.y + from, parameters, [&](float v, const float (&p)[1]) {
    return rms_tail<T, kTail>(v, r, a.weight != nullptr, p[0]);
  });
}

template <class T, class W, RmsTail kTail>
NORMA_KERNEL void rms_residual_warp_per_row(const RmsResidualArguments<T, W> a) {
  const unsigned row = block_index() * kRowsPerBlock + thread_index() / kWarp;
  if (row >= a.norm.rows) return;
  rms_residual_row<T, W, kTail>(a, row, thread_index() % kWarp, kWarp, [](float v) { return warp_sum(v); });
}

template <class T, class W, RmsTail kTail>
NORMA_KERNEL_OF(kMostRowThreads) void rms_residual_block_per_row(const RmsResidualArguments<T, W> a) {
  rms_residual_row<T, W, kTail>(a, block_index(), thread_index(), block_threads(),
                                [](float v) { return block_sum(v, shared_memory<float>()); });
}

template <class T, class W, RmsTail kTail>
void start_rms_residual(const RmsResidualLaunch& l, const LaunchOptions& options) {
  const RmsResidualArguments<T, W> arguments{.norm = rms_arguments<T, W>(l.norm),
                                             .residual = reinterpret_cast<const typename T::Stored*>(l.residual),
                                             .sum = reinterpret_cast<typename T::Stored*>(l.sum),
                                             .rounded = l.kind == ResidualSum::rounded};
  if (l.norm.row == RowThreads::warp)
    start<rms_residual_warp_per_row<T, W, kTail>>(rms_shape(l.norm), options, arguments);
  else
    start<rms_residual_block_per_row<T, W, kTail>>(rms_shape(l.norm), options, arguments);
}

template <class T, class W>
void start_rms_residual(const RmsResidualLaunch& l, const LaunchOptions& options) {
  switch (l.norm.tail) {
    case RmsTail::before_weight: return start_rms_residual<T, W, RmsTail::before_weight>(l, options);
    case RmsTail::one_plus_weight: return start_rms_residual<T, W, RmsTail::one_plus_weight>(l, options);
    default: return start_rms_residual<T, W, RmsTail::once>(l, options);
  }
}

template <class T>
void start_rms_residual(const RmsResidualLaunch& l, const LaunchOptions& options) {
  if (l.norm.weight_fp32) start_rms_residual<T, Fp32>(l, options);
  else start_rms_residual<T, T>(l, options);
}

inline void start_rms_residual(const RmsResidualLaunch& l, const LaunchOptions& options) {
  switch (l.norm.format) {
    case FormatId::fp32: return start_rms_residual<Fp32, Fp32>(l, options);
    case FormatId::bf16: return start_rms_residual<Bf16>(l, options);
    case FormatId::fp16: return start_rms_residual<Fp16>(l, options);
    case FormatId::e4m3fn: return start_rms_residual<E4m3>(l, options);
    default: return start_rms_residual<E5m2>(l, options);
  }
}

}  // namespace norma::cuda::inline NORMA_SIDE

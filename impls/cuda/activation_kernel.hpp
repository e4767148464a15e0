// Activations: one block a row.
#pragma once

#include "impls/cuda/activation_launch.hpp"
#include "impls/cuda/functions.hpp"
#include "impls/cuda/launch.hpp"
#include "impls/cuda/row_part.hpp"

namespace norma::cuda::inline NORMA_SIDE {

template <class T>
struct ActivationArguments {
  const typename T::Stored* x;
  typename T::Stored* y;
  unsigned cols;
  bool aligned;
};

template <Activation kActivation>
NORMA_DEVICE float activated(float x) {
  switch (kActivation) {
    case Activation::silu_library: return div(x, add(1.0f, exp_library(-x)));
    case Activation::silu_steps: return div(x, add(1.0f, exp_by_steps(-x)));
    case Activation::gelu_erf: return mul(mul(x, 0.5f), add(1.0f, erf_library(mul(x, 0x1.6a09e6p-1f))));
    case Activation::gelu_tanh: break;
  }
  const float inner = fma(0x1.6e4e26p-5f, mul(mul(x, x), x), x);
  return mul(mul(x, 0.5f), add(1.0f, tanh_library(mul(0x1.988454p-1f, inner))));
}

template <class T, Activation kActivation>
NORMA_KERNEL void activate_rows(const ActivationArguments<T> a) {
  const std::size_t from = std::size_t{block_index()} * a.cols;
  const RowPart<T> part(a.x + from, a.cols, a.aligned, thread_index(), block_threads());
  const typename T::Stored* const none[1] = {nullptr};
  part.template write<T>(a.y + from, none, [](float v, const float(&)[1]) { return activated<kActivation>(v); });
}

template <class T, Activation kActivation>
void start_activation(const ActivationLaunch& l, const LaunchOptions& options) {
  const ActivationArguments<T> arguments{.x = reinterpret_cast<const typename T::Stored*>(l.x),
                                         .y = reinterpret_cast<typename T::Stored*>(l.y),
                                         .cols = l.cols,
                                         .aligned = std::size_t{l.cols} * sizeof(typename T::Stored) % 16 == 0};
  start<activate_rows<T, kActivation>>(
      {.blocks = l.rows, .threads = row_shape(RowThreads::block, l.format, l.cols).threads, .shared_bytes = 0}, options,
      arguments);
}

template <class T>
void start_activation(const ActivationLaunch& l, const LaunchOptions& options) {
  switch (l.activation) {
    case Activation::silu_library: return start_activation<T, Activation::silu_library>(l, options);
    case Activation::silu_steps: return start_activation<T, Activation::silu_steps>(l, options);
    case Activation::gelu_erf: return start_activation<T, Activation::gelu_erf>(l, options);
    case Activation::gelu_tanh: return start_activation<T, Activation::gelu_tanh>(l, options);
  }
}

inline void start_activation(const ActivationLaunch& l, const LaunchOptions& options) {
  switch (l.format) {
    case FormatId::fp32: return start_activation<Fp32>(l, options);
    case FormatId::bf16: return start_activation<Bf16>(l, options);
    case FormatId::fp16: return start_activation<Fp16>(l, options);
    case FormatId::e4m3fn: return start_activation<E4m3>(l, options);
    default: return start_activation<E5m2>(l, options);
  }
}

}  // namespace norma::cuda::inline NORMA_SIDE

// Casts, one element a thread.
#pragma once

#include "impls/cuda/cast_launch.hpp"
#include "impls/cuda/launch.hpp"

namespace norma::cuda::inline NORMA_SIDE {

template <class From, class To>
struct CastArguments {
  const typename From::Stored* from;
  typename To::Stored* to;
  unsigned count;
};

template <class From, class To>
NORMA_KERNEL void cast_elements(const CastArguments<From, To> a) {
  const unsigned i = block_index() * block_threads() + thread_index();
  if (i < a.count) a.to[i] = store<To>(load<From>(a.from[i]));
}

template <class From, class To>
void start_cast(const CastLaunch& l, const LaunchOptions& options) {
  constexpr unsigned kThreads = 256;
  const CastArguments<From, To> arguments{.from = reinterpret_cast<const typename From::Stored*>(l.from),
                                          .to = reinterpret_cast<typename To::Stored*>(l.to),
                                          .count = l.count};
  start<cast_elements<From, To>>(
      {.blocks = (l.count + kThreads - 1) / kThreads, .threads = kThreads, .shared_bytes = 0}, options, arguments);
}

template <class F>
void start_cast(const CastLaunch& l, const LaunchOptions& options) {
  if (l.to_fp32) start_cast<F, Fp32>(l, options);
  else start_cast<Fp32, F>(l, options);
}

inline void start_cast(const CastLaunch& l, const LaunchOptions& options) {
  switch (l.format) {
    case FormatId::bf16: return start_cast<Bf16>(l, options);
    case FormatId::fp16: return start_cast<Fp16>(l, options);
    case FormatId::e4m3fn: return start_cast<E4m3>(l, options);
    default: return start_cast<E5m2>(l, options);
  }
}

}  // namespace norma::cuda::inline NORMA_SIDE

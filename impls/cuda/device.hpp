// What kernels are written in: one source that nvcc compiles for a GPU and any C++ compiler for the host executor.
//
// Every arithmetic operation is named and correctly rounded on both sides (nvcc runs with --fmad=false, and -prec-div,
// -prec-sqrt and -ftz=false by default), but for rsqrt_approximate. Conversions are the GPU's own instructions there and
// reference/formats here; the GPU check compares them value by value.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#define NORMA_KERNEL __global__
// Of at most so many threads a block: the compiler then keeps to the registers that they have.
#define NORMA_KERNEL_OF(threads) __global__ __launch_bounds__(threads)
#define NORMA_DEVICE __device__ __forceinline__
#define NORMA_UNROLL _Pragma("unroll")
#define NORMA_NO_UNROLL _Pragma("unroll 1")
#define NORMA_SIDE on_device
#else
#include <bit>
#include <cmath>

#include "impls/cuda/host_executor.hpp"
#include "reference/formats/format.hpp"

#define NORMA_KERNEL inline
#define NORMA_KERNEL_OF(threads) inline
#define NORMA_DEVICE inline
#define NORMA_UNROLL
#define NORMA_NO_UNROLL
#define NORMA_SIDE on_host
#endif

// The same templates are compiled for both sides into one program, so each side has a namespace of its own.
namespace norma::cuda::inline NORMA_SIDE {

// Formats of tensors in memory.
struct Fp32 {
  using Stored = float;
};
struct Bf16 {
  using Stored = std::uint16_t;
};
struct Fp16 {
  using Stored = std::uint16_t;
};
struct E4m3 {  ///< OCP, finite
  using Stored = std::uint8_t;
};
struct E5m2 {
  using Stored = std::uint8_t;
};

#ifdef __CUDACC__

NORMA_DEVICE unsigned thread_index() { return threadIdx.x; }
NORMA_DEVICE unsigned block_index() { return blockIdx.x; }
NORMA_DEVICE unsigned block_threads() { return blockDim.x; }
NORMA_DEVICE unsigned grid_blocks() { return gridDim.x; }
NORMA_DEVICE void block_barrier() { __syncthreads(); }
NORMA_DEVICE float shuffle_xor(float v, unsigned mask) { return __shfl_xor_sync(0xffffffffu, v, static_cast<int>(mask)); }
/// What lane `lane` of the warp has.
NORMA_DEVICE float shuffle(float v, unsigned lane) { return __shfl_sync(0xffffffffu, v, static_cast<int>(lane)); }
template <class T>
NORMA_DEVICE T* shared_memory() {
  extern __shared__ __align__(16) unsigned char norma_shared[];
  return reinterpret_cast<T*>(norma_shared);
}

NORMA_DEVICE float add(float a, float b) { return __fadd_rn(a, b); }
NORMA_DEVICE float sub(float a, float b) { return __fsub_rn(a, b); }
NORMA_DEVICE float mul(float a, float b) { return __fmul_rn(a, b); }
NORMA_DEVICE float div(float a, float b) { return __fdiv_rn(a, b); }
NORMA_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
NORMA_DEVICE float rsqrt_correct(float a) { return __frsqrt_rn(a); }
/// Within 2 ulp (CUDA C++ Programming Guide, table of single-precision functions).
NORMA_DEVICE float rsqrt_approximate(float a) { return rsqrtf(a); }

template <class F>
NORMA_DEVICE float load(typename F::Stored v);
template <>
NORMA_DEVICE float load<Fp32>(float v) {
  return v;
}
template <>
NORMA_DEVICE float load<Bf16>(std::uint16_t v) {
  return __uint_as_float(static_cast<unsigned>(v) << 16);
}
template <>
NORMA_DEVICE float load<Fp16>(std::uint16_t v) {
  return __half2float(__ushort_as_half(v));
}
// Before compute capability 8.9 there is no instruction to these formats: a call, lest the code of a hundred conversions
// stand in every kernel.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 890
#define NORMA_FP8_DEVICE static __device__ __noinline__
#else
#define NORMA_FP8_DEVICE NORMA_DEVICE
#endif
NORMA_FP8_DEVICE std::uint8_t to_e4m3(float v) { return __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3); }
NORMA_FP8_DEVICE std::uint8_t to_e5m2(float v) { return __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E5M2); }
NORMA_FP8_DEVICE float from_e4m3(std::uint8_t v) { return __half2float(__half(__nv_cvt_fp8_to_halfraw(v, __NV_E4M3))); }
NORMA_FP8_DEVICE float from_e5m2(std::uint8_t v) { return __half2float(__half(__nv_cvt_fp8_to_halfraw(v, __NV_E5M2))); }

template <>
NORMA_DEVICE float load<E4m3>(std::uint8_t v) {
  return from_e4m3(v);
}
template <>
NORMA_DEVICE float load<E5m2>(std::uint8_t v) {
  return from_e5m2(v);
}

/// Rounds to nearest even; the 8-bit formats saturate, Inf too.
template <class F>
NORMA_DEVICE typename F::Stored store(float v);
template <>
NORMA_DEVICE float store<Fp32>(float v) {
  return v;
}
template <>
NORMA_DEVICE std::uint16_t store<Bf16>(float v) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(v));
}
template <>
NORMA_DEVICE std::uint16_t store<Fp16>(float v) {
  return __half_as_ushort(__float2half_rn(v));
}
template <>
NORMA_DEVICE std::uint8_t store<E4m3>(float v) {
  return to_e4m3(v);
}
template <>
NORMA_DEVICE std::uint8_t store<E5m2>(float v) {
  return to_e5m2(v);
}

#else

inline unsigned thread_index() { return host::thread_index(); }
inline unsigned block_index() { return host::block_index(); }
inline unsigned block_threads() { return host::block_threads(); }
inline unsigned grid_blocks() { return host::grid_blocks(); }
inline void block_barrier() { host::block_barrier(); }
inline float shuffle(float v, unsigned lane) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(host::exchange(std::bit_cast<std::uint32_t>(v), lane)));
}
inline float shuffle_xor(float v, unsigned mask) { return shuffle(v, (thread_index() ^ mask) % kWarp); }
template <class T>
T* shared_memory() {
  return reinterpret_cast<T*>(host::shared_memory());
}

// -ffp-contract=off: one rounding each.
inline float add(float a, float b) { return a + b; }
inline float sub(float a, float b) { return a - b; }
inline float mul(float a, float b) { return a * b; }
inline float div(float a, float b) { return a / b; }
inline float fma(float a, float b, float c) { return std::fma(a, b, c); }

/// 1/sqrt(a) rounded once. The binary64 quotient is within 2 ulp of binary64, so only a midpoint of binary32 that is
/// next to it can be on the wrong side. For a midpoint m (25 bits) m^2 is exact in binary64, and the sign of
/// fma(a, m^2, -1) is that of m - 1/sqrt(a): a product of 24 and 50 bits rounds to 1 only where it is 1.
inline float rsqrt_correct(float a) {
  const double guess = 1 / std::sqrt(static_cast<double>(a));
  const float r = static_cast<float>(guess);
  if (!(a > 0) || !std::isfinite(a)) return r;
  const float other = std::nextafterf(r, guess > static_cast<double>(r) ? INFINITY : 0.0f);
  const double middle = (static_cast<double>(r) + static_cast<double>(other)) / 2;
  const double side = std::fma(static_cast<double>(a), middle * middle, -1);  // > 0: 1/sqrt(a) is below the middle
  const float below = std::fmin(r, other), above = std::fmax(r, other);
  if (side > 0) return below;
  if (side < 0) return above;
  return (std::bit_cast<std::uint32_t>(r) & 1) == 0 ? r : other;
}
/// A GPU's rsqrtf is within 2 ulp; here it is exact, which is one of the results that it may give.
inline float rsqrt_approximate(float a) { return rsqrt_correct(a); }

namespace host_formats {
template <class F>
inline constexpr FormatId id = FormatId::fp32;
template <>
inline constexpr FormatId id<Bf16> = FormatId::bf16;
template <>
inline constexpr FormatId id<Fp16> = FormatId::fp16;
template <>
inline constexpr FormatId id<E4m3> = FormatId::e4m3fn;
template <>
inline constexpr FormatId id<E5m2> = FormatId::e5m2;
}  // namespace host_formats

template <class F>
float load(typename F::Stored v) {
  if constexpr (sizeof v == sizeof(float)) return v;
  else return static_cast<float>(decode(host_formats::id<F>, v));
}
template <class F>
typename F::Stored store(float v) {
  if constexpr (sizeof(typename F::Stored) == sizeof(float)) return v;
  else
    return static_cast<typename F::Stored>(
        encode(host_formats::id<F>, static_cast<double>(v),
               sizeof(typename F::Stored) == 1 ? Overflow::saturate : Overflow::ieee));
}

#endif

template <class F>
NORMA_DEVICE float rounded_to(float v) {
  return load<F>(store<F>(v));
}

/// Elements that one load of at most 16 bytes takes.
template <class F>
inline constexpr unsigned kVector = 16 / sizeof(typename F::Stored);
template <class F, unsigned kCount>
struct alignas(sizeof(typename F::Stored) * kCount) Pack {
  typename F::Stored v[kCount];
};

}  // namespace norma::cuda::inline NORMA_SIDE

// What kernels quantize with, beside device.hpp: maxima, conversions to fp4 and scales that are powers of two.
#pragma once

#include "impls/cuda/device.hpp"

#ifdef __CUDACC__
#include <cuda_fp4.h>
#endif

namespace norma::cuda::inline NORMA_SIDE {

#ifdef __CUDACC__

NORMA_DEVICE float magnitude(float v) { return fabsf(v); }
/// Of a number and NaN the number.
NORMA_DEVICE float larger(float a, float b) { return fmaxf(a, b); }
NORMA_DEVICE float smaller(float a, float b) { return fminf(a, b); }
NORMA_DEVICE unsigned bits_of(float v) { return __float_as_uint(v); }
NORMA_DEVICE float float_of(unsigned bits) { return __uint_as_float(bits); }
// Before compute capability 10.0 there is no instruction: a call, as for fp8.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 1000
static __device__ __noinline__
#else
NORMA_DEVICE
#endif
unsigned to_e2m1(float v) { return __nv_cvt_float_to_fp4(v, __NV_E2M1, cudaRoundNearest); }

#else

inline float magnitude(float v) { return std::fabs(v); }
inline float larger(float a, float b) { return std::fmax(a, b); }
inline float smaller(float a, float b) { return std::fmin(a, b); }
inline unsigned bits_of(float v) { return std::bit_cast<std::uint32_t>(v); }
inline float float_of(unsigned bits) { return std::bit_cast<float>(bits); }
inline unsigned to_e2m1(float v) {
  return static_cast<unsigned>(encode(FormatId::e2m1, static_cast<double>(v), Overflow::saturate));
}

#endif

/// The byte of the least power of two, 2^(byte - 127), that is not below v >= 0; 254 is the most. As
/// cvt.rp.satfinite.ue8m0x2.f32 has it.
NORMA_DEVICE unsigned e8m0_up(float v) {
  const unsigned bits = bits_of(v);
  if (bits <= 0x00400000u) return 0;
  const unsigned byte = (bits >> 23) + ((bits & 0x007fffffu) != 0 ? 1 : 0);
  return byte < 254 ? byte : 254;
}

}  // namespace norma::cuda::inline NORMA_SIDE

// Exponentials and their kin in kernels: CUDA's own, and an exponential of explicit steps.
#pragma once

#include "impls/cuda/device.hpp"

#ifndef __CUDACC__
#include <bit>
#include <cmath>
#endif

namespace norma::cuda::inline NORMA_SIDE {

#ifdef __CUDACC__

/// Each within 2 ulp of the correctly rounded value, over its full range (CUDA C++ Programming Guide, table of
/// single-precision functions; later editions say 1 for expf). Not the intrinsics: nvcc runs without -use_fast_math.
NORMA_DEVICE float exp_library(float x) { return expf(x); }
NORMA_DEVICE float tanh_library(float x) { return tanhf(x); }
NORMA_DEVICE float erf_library(float x) { return erff(x); }
NORMA_DEVICE unsigned bits_of(float x) { return __float_as_uint(x); }
NORMA_DEVICE float from_bits(unsigned x) { return __uint_as_float(x); }

#else

/// The C library's, which are within 2 ulp too; the tests hold them to it.
inline float exp_library(float x) { return std::exp(x); }
inline float tanh_library(float x) { return std::tanh(x); }
inline float erf_library(float x) { return std::erf(x); }
inline unsigned bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }
inline float from_bits(unsigned x) { return std::bit_cast<float>(x); }

#endif

/// The larger; NaN if one is NaN.
NORMA_DEVICE float larger(float a, float b) { return b > a || b != b ? b : a; }

/// e^x in steps that a program can name (exponential.cpp spells out the same ones): x = n ln 2 + r, |r| <= ln 2 / 2 and
/// a little; Taylor's polynomial to r^7, whose rest is below 2^-26.9 of the result; 2^n in two factors, so that neither
/// overflows or is subnormal and the last product is the only rounding of what is. Beyond -104 the result is 0, beyond
/// 89 Inf; NaN stays.
NORMA_DEVICE float exp_by_steps(float x) {
  constexpr float kRound = 0x1.8p23f;  // x + kRound: x to an integer, which stands in the last bits
  const float low = x < -104.0f ? -104.0f : x;
  const float c = low > 89.0f ? 89.0f : low;
  const float n = sub(fma(c, 0x1.715476p+0f, kRound), kRound);
  float r = fma(n, -0x1.62e4p-1f, c);  // exact: n has 8 bits, ln 2's first part 15
  r = fma(n, -0x1.7f7d1cp-20f, r);
  float p = fma(0x1.a01a02p-13f, r, 0x1.6c16c2p-10f);  // 1/7!, 1/6!
  p = fma(p, r, 0x1.111112p-7f);
  p = fma(p, r, 0x1.555556p-5f);
  p = fma(p, r, 0x1.555556p-3f);
  p = fma(p, r, 0.5f);
  p = fma(p, r, 1.0f);
  p = fma(p, r, 1.0f);
  const float half = fma(n, 0.5f, kRound), first = sub(half, kRound);
  const float rest = add(sub(n, first), kRound);
  // 2^k for a k of at most 8 bits in the last bits of k + kRound.
  return mul(mul(p, from_bits((bits_of(half) + 127u) << 23)), from_bits((bits_of(rest) + 127u) << 23));
}

}  // namespace norma::cuda::inline NORMA_SIDE

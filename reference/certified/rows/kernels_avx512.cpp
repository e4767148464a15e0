// The loops for AVX-512. The headers stand before the pragma: what is inline in them stays code for every CPU.
#if defined(__x86_64__)

#include <immintrin.h>

#include <bit>
#include <limits>
#include <type_traits>

#include "reference/certified/rows/kernel_tables.hpp"
#include "reference/certified/rows/kernels.hpp"

namespace norma {

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC diagnostic ignored "-Wpsabi"          // vectors as arguments: all such functions are inline
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own intrinsics (GCC bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif
#define NORMA_VECTOR_BYTES 64
namespace avx512 {
#include "reference/certified/rows/kernels.inc"
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

const Kernels& avx512_kernels() {
  static constexpr Kernels kTable = avx512::table();
  return kTable;
}

}  // namespace norma

#endif

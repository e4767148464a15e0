// The loops for any CPU, and the choice between the compiled forms.
#include "reference/certified/rows/kernels.hpp"

#include <bit>
#include <cstdlib>
#include <limits>
#include <type_traits>

#include "reference/certified/rows/kernel_tables.hpp"
#include "reference/certified/vector_level.hpp"

namespace norma {

#define NORMA_VECTOR_BYTES 16
namespace baseline {
#include "reference/certified/rows/kernels.inc"
}  // namespace baseline

const Kernels& baseline_kernels() {
  static constexpr Kernels kTable = baseline::table();
  return kTable;
}

const Kernels& kernels() {
  switch (vector_level()) {
    case VectorLevel::baseline: return baseline_kernels();
#if defined(__x86_64__)
    case VectorLevel::avx2: return avx2_kernels();
    case VectorLevel::avx512: return avx512_kernels();
#else
    case VectorLevel::avx2:
    case VectorLevel::avx512: break;
#endif
  }
  std::abort();
}

}  // namespace norma

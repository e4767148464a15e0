// The compiled forms of the vector loops, one file each.
#pragma once

#include "reference/certified/rows/kernels.hpp"

namespace norma {

const Kernels& baseline_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
#endif

}  // namespace norma

// Chooses the copy of the plain loops.
#include "bench/reference/plain.hpp"

namespace norma::bench {

namespace baseline {
extern const PlainLoops kLoops;
}
#ifdef NORMA_PLAIN_WIDE
namespace avx2 {
extern const PlainLoops kLoops;
}
namespace avx512 {
extern const PlainLoops kLoops;
}
#endif

const PlainLoops& plain_loops() {
#ifdef NORMA_PLAIN_WIDE
  // x86-64-v4 and x86-64-v3, by the features that the loops use.
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
    return avx512::kLoops;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
    return avx2::kLoops;
#endif
  return baseline::kLoops;
}

}  // namespace norma::bench

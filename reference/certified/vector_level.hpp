// Which compiled form of the vector loops runs: the widest that the CPU has, unless told otherwise.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace norma {

/// The loops compute the same bits at every level.
enum class VectorLevel : std::uint8_t {
  baseline,  ///< what the compiler may assume of every CPU: SSE2 on x86-64, NEON on aarch64
  avx2,      ///< AVX2 and FMA
  avx512,    ///< AVX-512 F, BW, DQ, VL
};

std::string_view name_of(VectorLevel level);

/// The levels that this CPU and this build have, the widest last.
std::span<const VectorLevel> vector_levels();

/// The level in use. At first the widest, or the one that the environment variable NORMA_VECTORS names (baseline, avx2,
/// avx512); a name that is unknown or a level that is not there ends the process with a sentence on standard error.
VectorLevel vector_level();

/// For tests. One of vector_levels(); no loop may run meanwhile.
void set_vector_level(VectorLevel level);

}  // namespace norma

// The loops of function_loops.inc for each instruction set (docs/decisions/0007-vector-loops.md).
#include "reference/certified/functions/function_kernels.hpp"

#include <cstdint>
#include <limits>

#include "reference/certified/rows/close_loops.hpp"
#include "reference/certified/vector_level.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

// What a loop writes does not change what it reads later.
#if defined(__clang__)
#define NORMA_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define NORMA_INDEPENDENT _Pragma("GCC ivdep")
#endif

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::size_t kLanes = 32;

#define NORMA_LOOPS "reference/certified/functions/function_loops.inc"
#include "reference/certified/each_level.inc"

constexpr const FunctionKernels* kLevels[] = {
    &baseline::kKernels,
#if defined(__x86_64__)
    &avx2::kKernels,
    &avx512::kKernels,
#endif
};

}  // namespace

const FunctionKernels& function_kernels() { return *kLevels[static_cast<std::size_t>(vector_level())]; }

void decode_values(const Tensor& x, std::int64_t first, std::span<double> out) {
  const auto bytes = static_cast<std::size_t>(format_of(x.format).storage_bytes());
  const std::byte* const stored = x.bytes.data() + static_cast<std::size_t>(first) * bytes;
  if (x.format == FormatId::fp64)
    decode_row(x.format, stored, out.data(), out.size());
  else
    load_row(x.format, stored, out.data(), out.size());
}

}  // namespace norma

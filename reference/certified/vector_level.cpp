// The vector level: asked of the CPU once.
#include "reference/certified/vector_level.hpp"

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace norma {

namespace {

constexpr std::array<std::string_view, 3> kNames{"baseline", "avx2", "avx512"};

std::vector<VectorLevel> find_levels() {
  std::vector<VectorLevel> levels{VectorLevel::baseline};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    levels.push_back(VectorLevel::avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      levels.push_back(VectorLevel::avx512);
  }
#endif
  return levels;
}

VectorLevel first_level() {
  const std::span<const VectorLevel> levels = vector_levels();
  const char* asked = std::getenv("NORMA_VECTORS");
  if (asked == nullptr) return levels.back();
  for (VectorLevel level : levels)
    if (name_of(level) == asked) return level;
  std::fprintf(stderr, "norma: NORMA_VECTORS=%s is no vector level of this CPU; it has:", asked);
  for (VectorLevel level : levels) std::fprintf(stderr, " %s", std::string(name_of(level)).c_str());
  std::fprintf(stderr, ".\n");
  std::exit(2);
}

std::atomic<VectorLevel>& current() {
  static std::atomic<VectorLevel> level{first_level()};
  return level;
}

}  // namespace

std::string_view name_of(VectorLevel level) { return kNames[static_cast<std::size_t>(level)]; }

std::span<const VectorLevel> vector_levels() {
  static const std::vector<VectorLevel> levels = find_levels();
  return levels;
}

VectorLevel vector_level() { return current().load(std::memory_order_relaxed); }

void set_vector_level(VectorLevel level) { current().store(level, std::memory_order_relaxed); }

}  // namespace norma

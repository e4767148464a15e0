// The list of native CPU kernels.
#include "impls/cpu/cpu.hpp"

#include <array>

#include "impls/cpu/rmsnorm.hpp"

namespace norma {

std::span<Implementation* const> cpu_implementations() {
  static const std::array kernels{
      make_rmsnorm(kRmsSequential, RmsTail::once),
      make_rmsnorm(kRmsSequential, RmsTail::before_weight),
      make_rmsnorm(kRmsLanes, RmsTail::once),
      make_rmsnorm(kRmsLanes, RmsTail::before_weight),
      make_rmsnorm(kRmsDoubleAccumulator, RmsTail::once),
      make_rmsnorm(kRmsDoubleAccumulator, RmsTail::before_weight),
  };
  static const auto list = [] {
    std::array<Implementation*, kernels.size()> pointers{};
    for (std::size_t i = 0; i < kernels.size(); ++i) pointers[i] = kernels[i].get();
    return pointers;
  }();
  return list;
}

}  // namespace norma

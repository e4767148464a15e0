// Casts on the host executor, and the choice of a side.
#include "impls/cuda/cast_kernel.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

void launch_cast_on_host(const CastLaunch& launch, const LaunchOptions& options) { start_cast(launch, options); }

void launch_cast(SideKind side, const CastLaunch& launch) {
  if (side == SideKind::host) return launch_cast_on_host(launch, {});
#ifdef NORMA_CUDA_BUILT
  launch_cast_on_gpu(launch, {});
#else
  memory_of(side);  // throws, and says why
#endif
}

}  // namespace norma::cuda

// Casts on a GPU.
#include "impls/cuda/cast_kernel.hpp"

namespace norma::cuda {

void launch_cast_on_gpu(const CastLaunch& launch, const LaunchOptions& options) { start_cast(launch, options); }

}  // namespace norma::cuda

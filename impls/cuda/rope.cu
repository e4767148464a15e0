// Rotary embedding on a GPU.
#include "impls/cuda/rope_kernel.hpp"

namespace norma::cuda {

void launch_rope_on_gpu(const RopeLaunch& launch, const LaunchOptions& options) { start_rope(launch, options); }

}  // namespace norma::cuda

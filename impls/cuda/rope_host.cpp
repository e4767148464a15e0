// Rotary embedding on the host executor.
#include "impls/cuda/rope_kernel.hpp"

namespace norma::cuda {

void launch_rope_on_host(const RopeLaunch& launch, const LaunchOptions& options) { start_rope(launch, options); }

}  // namespace norma::cuda

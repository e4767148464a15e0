// RMSNorm on the host executor.
#include "impls/cuda/rmsnorm_kernel.hpp"

namespace norma::cuda {

void launch_rmsnorm_on_host(const RmsLaunch& launch, const LaunchOptions& options) { start_rmsnorm(launch, options); }

}  // namespace norma::cuda

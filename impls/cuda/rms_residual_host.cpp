// Residual sum and RMSNorm on the host executor.
#include "impls/cuda/rms_residual_kernel.hpp"

namespace norma::cuda {

void launch_rms_residual_on_host(const RmsResidualLaunch& launch, const LaunchOptions& options) {
  start_rms_residual(launch, options);
}

}  // namespace norma::cuda

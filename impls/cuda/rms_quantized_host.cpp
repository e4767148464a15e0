// RMSNorm with quantized output on the host executor.
#include "impls/cuda/rms_quantized_kernel.hpp"

namespace norma::cuda {

void launch_rms_quantized_on_host(const RmsQuantizedLaunch& launch, const LaunchOptions& options) {
  start_rms_quantized(launch, options);
}

}  // namespace norma::cuda

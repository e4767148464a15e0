// RMSNorm with quantized output on a GPU.
#include "impls/cuda/rms_quantized_kernel.hpp"

namespace norma::cuda {

void launch_rms_quantized_on_gpu(const RmsQuantizedLaunch& launch, const LaunchOptions& options) {
  start_rms_quantized(launch, options);
}

}  // namespace norma::cuda

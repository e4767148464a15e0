// Softmax on the host executor.
#include "impls/cuda/softmax_kernel.hpp"

namespace norma::cuda {

void launch_softmax_on_host(const SoftmaxLaunch& launch, const LaunchOptions& options) {
  start_softmax(launch, options);
}

}  // namespace norma::cuda

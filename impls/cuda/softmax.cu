// Softmax on a GPU.
#include "impls/cuda/softmax_kernel.hpp"

namespace norma::cuda {

void launch_softmax_on_gpu(const SoftmaxLaunch& launch, const LaunchOptions& options) {
  start_softmax(launch, options);
}

}  // namespace norma::cuda

// Activations on a GPU.
#include "impls/cuda/activation_kernel.hpp"

namespace norma::cuda {

void launch_activation_on_gpu(const ActivationLaunch& launch, const LaunchOptions& options) {
  start_activation(launch, options);
}

}  // namespace norma::cuda

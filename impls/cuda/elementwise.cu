// Modulation and gated residual on a GPU.
#include "impls/cuda/elementwise_kernel.hpp"

namespace norma::cuda {

void launch_elementwise_on_gpu(const ElementwiseLaunch& launch, const LaunchOptions& options) { start_elementwise(launch, options); }

}  // namespace norma::cuda

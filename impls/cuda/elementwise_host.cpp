// Modulation and gated residual on the host executor.
#include "impls/cuda/elementwise_kernel.hpp"

namespace norma::cuda {

void launch_elementwise_on_host(const ElementwiseLaunch& launch, const LaunchOptions& options) { start_elementwise(launch, options); }

}  // namespace norma::cuda

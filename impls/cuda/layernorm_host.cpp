// LayerNorm on the host executor.
#include "impls/cuda/layernorm_kernel.hpp"

namespace norma::cuda {

void launch_layernorm_on_host(const LayerNormLaunch& launch, const LaunchOptions& options) { start_layernorm(launch, options); }

}  // namespace norma::cuda

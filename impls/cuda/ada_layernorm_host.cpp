// LayerNorm with modulation on the host executor.
#include "impls/cuda/ada_layernorm_kernel.hpp"

namespace norma::cuda {

void launch_ada_layernorm_on_host(const AdaLayerNormLaunch& launch, const LaunchOptions& options) {
  start_ada_layernorm(launch, options);
}

}  // namespace norma::cuda

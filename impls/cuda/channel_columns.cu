// Norms of channels that lie side by side, on a GPU.
#include "impls/cuda/channel_columns_kernel.hpp"

namespace norma::cuda {

void launch_channel_columns_on_gpu(const ChannelNormLaunch& launch, const ChannelColumns& columns,
                                   const LaunchOptions& options) {
  start_channel_columns(launch, columns, options);
}

}  // namespace norma::cuda

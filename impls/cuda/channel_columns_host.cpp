// Norms of channels that lie side by side, on the host executor.
#include "impls/cuda/channel_columns_kernel.hpp"

namespace norma::cuda {

void launch_channel_columns_on_host(const ChannelNormLaunch& launch, const ChannelColumns& columns,
                                    const LaunchOptions& options) {
  start_channel_columns(launch, columns, options);
}

}  // namespace norma::cuda

// Norms over channels whose rows are runs in memory, on the host executor.
#include "impls/cuda/channel_runs_kernel.hpp"

namespace norma::cuda {

void launch_channel_runs_on_host(const ChannelNormLaunch& launch, const RunRows& rows, const LaunchOptions& options) {
  start_channel_runs(launch, rows, options);
}

}  // namespace norma::cuda

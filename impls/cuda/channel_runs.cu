// Norms over channels whose rows are runs in memory, on a GPU.
#include "impls/cuda/channel_runs_kernel.hpp"

namespace norma::cuda {

void launch_channel_runs_on_gpu(const ChannelNormLaunch& launch, const RunRows& rows, const LaunchOptions& options) {
  start_channel_runs(launch, rows, options);
}

}  // namespace norma::cuda

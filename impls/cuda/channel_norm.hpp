// GroupNorm, InstanceNorm and BatchNorm as implementations.
#pragma once

#include <memory>
#include <vector>

#include "impls/cuda/channel_norm_launch.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

enum class ChannelNormKind : std::uint8_t { groupnorm, instancenorm, batchnorm };

struct ChannelNormVariant {
  SideKind side = SideKind::gpu;
  ChannelNormKind kind = ChannelNormKind::groupnorm;
  bool channels_last = false;                 ///< the memory of x and y; tensors keep their shape [N, C, ...]
  MomentsFrom from = MomentsFrom::block;      ///< given: InstanceNorm and BatchNorm only; block: not of single channels
                                              ///< that lie side by side
  Statistic statistic = Statistic::two_pass;  ///< without meaning where moments are given
  bool approximate_root = false;              ///< rsqrtf, not __frsqrt_rn
};

/// x in fp32, bf16, fp16, e4m3fn or e5m2; parameters and running statistics all in x's format or all in fp32; y in x's
/// format, running statistics in their own, where 8-bit formats saturate. Declares its orders and fused steps; claims
/// no error. BatchNorm in training updates running_mean and running_var, where they are there; InstanceNorm takes none.
/// x and y pass through channels-last memory on the way to and from the kernels that work there.
std::unique_ptr<Implementation> make_channel_norm(const ChannelNormVariant& variant);

/// All variants of a side.
std::vector<std::unique_ptr<Implementation>> make_channel_norms(SideKind side);

}  // namespace norma::cuda

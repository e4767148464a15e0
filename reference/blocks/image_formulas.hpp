// What blocks of images are made of, over the reals: x is [N, C, H, W].
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "reference/blocks/block.hpp"
#include "reference/blocks/formulas.hpp"

namespace norma::blocks {

/// A modulation's values, one for each sample and channel.
struct ChannelModulation {
  Value scale, shift;
};

/// (x - mean) / sqrt(var + eps) weight + bias over groups of a sample's channels, parameters NAME.weight and NAME.bias;
/// then, with a modulation, times 1 + scale, plus shift.
Value groupnorm(GraphBuilder& g, const std::string& name, Value x, std::int64_t groups, double eps,
                const std::optional<ChannelModulation>& modulation = {});
/// x + embedding, [N, C], of each sample and channel
Value add_to_channels(GraphBuilder& g, const std::string& name, Value x, Value embedding);
/// Stride 1 and the size kept, parameters NAME.weight [out, C, side, side] and NAME.bias.
Value convolution(GraphBuilder& g, const std::string& name, Value x, std::int64_t out, std::int64_t side);

/// Channels of an image's shape, and those that a block makes of them: channels_out, 0 for as many. ProgramError,
/// naming the block: a shape of other than `rank` axes; groups (if not 0) that do not divide either.
struct ImageChannels {
  std::int64_t in = 0, out = 0;
};
ImageChannels image_channels(std::string_view block, const BlockCall& call, std::size_t rank, std::int64_t groups);

}  // namespace norma::blocks

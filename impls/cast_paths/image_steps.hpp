// What transcriptions of blocks of images share.
#pragma once

#include <string>

#include "impls/cast_paths/block_steps.hpp"

namespace norma::blocks {

/// A shape of [N, C, H, W] and the channels of what a block makes of it: the number channels_out, 0 for as many.
/// ProgramError naming `path` otherwise.
std::int64_t channels_out_of(const BlockBinding& binding, std::string_view path, std::size_t rank);

/// torch's Conv2d, stride 1 and the size kept, parameters NAME.weight and NAME.bias in T: fp32 sums, the bias before
/// the result is stored.
Value convolution(PathBuilder& p, const std::string& name, Value x, std::int64_t out, std::int64_t side);
/// The same with parameters that are kept in fp32, under autocast to a 16-bit T: x and they are cast first, at sites
/// NAME.x, NAME.weight.T and NAME.bias.T.
Value autocast_convolution(PathBuilder& p, const std::string& name, Value x, std::int64_t out, std::int64_t side);

/// A path of GroupNorm, its parameters NAME.weight and NAME.bias in `parameters`. `more`: arguments besides.
Value group_norm(PathBuilder& p, const std::string& name, std::string_view path, Value x, FormatId parameters,
                 std::vector<std::pair<std::string, Value>> more = {});

/// x + other, eager.
Value eager_add(PathBuilder& p, const std::string& name, Value x, Value other);
/// x + embedding of each sample and channel, eager.
Value eager_add_to_channels(PathBuilder& p, const std::string& name, Value x, Value embedding);
/// x in another format; itself where it has that already.
Value cast(PathBuilder& p, const std::string& name, Value x, FormatId format);

}  // namespace norma::blocks

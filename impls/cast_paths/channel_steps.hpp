// What transcriptions of GroupNorm, InstanceNorm and BatchNorm share.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "impls/cast_paths/layernorm_steps.hpp"

namespace norma {

inline constexpr View kGroups{.kind = ViewKind::groups};
inline constexpr View kGroupsChannelsLast{.kind = ViewKind::groups, .channels_last = true};
inline constexpr View kChannelsView{.kind = ViewKind::channels};
inline constexpr View kBatch{.kind = ViewKind::batch};

/// x = [samples, channels, positions...] in `groups` groups; a usual size where the binding has no shape.
struct ChannelSizes {
  std::int64_t samples = 1, channels = 64, positions = 64, groups = 32;
  std::int64_t each() const { return channels / groups; }  ///< channels of a group
};
/// ProgramError: x has no channels, or groups does not divide them.
ChannelSizes channel_sizes(const Binding& binding);

/// weight and bias of one format: x's, or fp32 beside 16-bit x (torch's mixed kernels).
void require_channel_formats(const Binding& binding, std::string_view code);
/// The format of the parameters that are there, `otherwise` if none.
FormatRef parameter_format(const Binding& binding, FormatRef otherwise);

/// a c + d in fp32, fused or not, whatever the profile.
Operand multiply_add(Builder& b, const std::string& name, bool fused, Operand a, Operand c, Operand d);

/// 1 / sqrt(variance + eps) in binary64 as C++ has it where eps is a double, then rounded to fp32.
Operand inverse_deviation_in_double(Builder& b, Operand variance);

/// factor = r gamma, offset = -factor mean + beta, x factor + offset: one value a channel each. A gamma or beta that is
/// not there is 1 or 0. `fused_offset`: the offset is one fused multiply-add.
Operand factor_and_offset(Builder& b, Operand x, Operand mean, Operand r, bool fused_offset, bool fused);

/// torch.nn.functional.group_norm of x on a CPU, contiguous, in fp32 before its last rounding: moments of fp32 or 16-bit
/// rows (`t`) by RowwiseMoments; rstd in double; x * scale + bias, or without parameters (x - mean) * rstd.
Operand torch_group_norm(Builder& b, Operand x, FormatRef t);
inline constexpr std::string_view kGroupNormProfiles[] = {"torch_cpu_moments", "torch_cpu_moments_plain",
                                                          "torch_cpu_moments_2_6"};

/// ((x - mean) r) gamma + beta in fp32, contracted as the profile says.
Operand centre_and_weigh(Builder& b, Operand x, Operand mean, Operand r);

}  // namespace norma

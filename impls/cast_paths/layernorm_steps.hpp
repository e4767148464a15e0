// What transcriptions of LayerNorm share: statistics, products that may contract, torch's own layer_norm.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "impls/cast_paths/steps.hpp"

namespace norma {

/// Mean and biased variance of a row.
struct RowMoments {
  Operand mean, variance;
};

/// The order of torch's RowwiseMoments for rows of `format`; other profiles: moments_order.
Order rowwise_moments_order(const Profile& profile, FormatRef format);
/// `block` in place of the sums' order where the profile is a CUDA block or warp, `elsewhere` otherwise.
Order block_moments_order(const Profile& profile, OrderKind block, OrderKind elsewhere = OrderKind::welford);

/// mean, then the mean of (x - mean)^2, all in fp32; squares contract where the profile says so.
RowMoments two_pass(Builder& b, Operand x);
/// E[x^2] - mean^2 in fp32, both sums of the profile's order; `floored`: max(0, .).
enum class Floor : std::uint8_t { none, zero };
RowMoments difference_of_squares(Builder& b, Operand x, Floor floor = Floor::none);
/// 1 / sqrt(variance + eps) in fp32 as the profile takes roots.
Operand inverse_deviation(Builder& b, Operand variance);

/// a c + d in fp32: one fused step where the profile contracts, else two.
Operand multiply_add(Builder& b, const std::string& name, Operand a, Operand c, Operand d);

/// gamma (r (x - mean)) + beta in fp32, whichever of gamma and beta are there.
Operand weigh(Builder& b, Operand n);

/// torch.nn.functional.layer_norm of x in fp32 before its last rounding: on a CPU the algebra depends on `t`, on CUDA
/// it is the vectorised kernel's. Weight and bias as given, if given.
struct LayerNormParameters {
  std::optional<Operand> weight, bias;
};
Operand torch_layer_norm(Builder& b, Operand x, FormatRef t, const LayerNormParameters& parameters);
LayerNormParameters affine_inputs(Builder& b);

inline constexpr std::string_view kLayerNormProfiles[] = {"torch_cpu_moments", "torch_cpu_moments_plain",
                                                          "torch_cpu_moments_2_6", "torch_cuda_fused", "sequential"};

}  // namespace norma

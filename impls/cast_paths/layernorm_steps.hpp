// What transcriptions of LayerNorm share: statistics, products that may contract, torch's own layer_norm.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
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

/// weight * n + bias in fp32, whichever of the two are there.
Operand weigh(Builder& b, Operand n);

/// torch.nn.functional.layer_norm of x in fp32 before its last rounding: on a CPU the algebra depends on `t`, on CUDA
/// it is the vectorised kernel's. Weight and bias as given, if given.
struct LayerNormParameters {
  std::optional<Operand> weight, bias;
};
Operand torch_layer_norm(Builder& b, Operand x, FormatRef t, const LayerNormParameters& parameters);
LayerNormParameters affine_inputs(Builder& b);

/// A record of the catalogue with what most LayerNorms have in common left out.
struct LayerNormPath {
  std::string_view name, title;
  PathSource source;
  std::string_view eps_default = "1e-5";
  std::string_view eps_place = "inside";
  std::string_view eps_class = "fp32";
  std::string_view root = "rsqrt";
  std::string_view tail = "B";
  std::string_view residual = "";
  std::string_view required = "";
  std::string_view optional = "weight,bias";
  std::span<const CaseDefault> norm_attributes = {};
  std::span<const std::string_view> gaps = {};
  std::span<const std::string_view> profiles;
  Program (*build)(const Binding& binding);
};
constexpr CastPath layernorm_path(const LayerNormPath& path) {
  return {.name = path.name,
          .title = path.title,
          .norm = "layernorm",
          .source = path.source,
          .eps_default = path.eps_default,
          .eps_place = path.eps_place,
          .eps_class = path.eps_class,
          .root = path.root,
          .tail = path.tail,
          .residual = path.residual,
          .required = path.required,
          .optional = path.optional,
          .norm_attributes = path.norm_attributes,
          .gaps = path.gaps,
          .profiles = path.profiles,
          .build = path.build};
}

/// The output y = T(value).
Program finish_with_cast(Builder& b, Operand value);

inline constexpr std::string_view kLayerNormProfiles[] = {"torch_cpu_moments", "torch_cpu_moments_plain",
                                                          "torch_cpu_moments_2_6", "torch_cuda_fused", "sequential"};

}  // namespace norma

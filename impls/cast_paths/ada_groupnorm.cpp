// GroupNorm under a modulation of its channels, as models write it: torch's group_norm, rounded, then factor, product
// and sum, each rounded; or an embedding added before it.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/channel_steps.hpp"
#include "impls/cast_paths/modulation.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kNorm = "ada_groupnorm";
constexpr std::string_view kCode = "an adaptive GroupNorm";

/// h = x + embedding of each channel, as eager torch adds: one rounding.
Operand embedded(Builder& b) {
  const Operand x = b.input("x");
  return b.binding().has("embedding") ? eager_sum(b, "h", x, b.input("embedding", kChannels)) : x;
}

// group_norm(x) * (1 + scale) + shift, with one value for each sample and channel
template <Factor factor, Axes axes>
Program build_eager(const Binding& binding) {
  require_float_or_half(binding, kCode);
  for (const char* own : {"weight", "bias"}) require_format(binding, own, kCode, {binding.x});
  channel_sizes(binding);
  Builder b(std::string(kNorm), binding, kGroups);
  const Operand h = embedded(b);
  const FormatRef t = b.format(h);
  const Operand n = b.cast("n_T", t, torch_group_norm(b, h, t));
  b.output("y", eager_modulation(b, n, factor, axes));
  return b.finish();
}

// GroupNorm32: norm(x.float()).type(x.dtype) by fp32 parameters; the embedding is cast to x's dtype before it is used
Program build_adm(const Binding& binding) {
  constexpr std::string_view code = "guided-diffusion's ResBlock";
  require_float_or_half(binding, code);
  for (const char* own : {"weight", "bias"}) require_format(binding, own, code, {FormatId::fp32});
  for (const char* cast : {"scale", "shift", "embedding"}) require_format(binding, cast, code, {binding.x});
  channel_sizes(binding);
  Builder b(std::string(kNorm), binding, kGroups);
  const FormatRef t = b.x_format();
  const Operand n = torch_group_norm(b, b.cast("x_f32", kFp32, embedded(b)), kFp32);
  b.output("y", eager_modulation(b, b.cast("n_T", t, n), Factor::one_plus_scale, kChannels));
  return b.finish();
}

struct Row {
  std::string_view name, title;
  PathSource source;
  std::string_view eps_default, required, optional;
  std::span<const CaseDefault> norm_attributes;
  Program (*build)(const Binding&);
};
constexpr CastPath path(const Row& row) {
  return {.name = row.name,
          .title = row.title,
          .norm = kNorm,
          .source = row.source,
          .eps_default = row.eps_default,
          .eps_place = "inside",
          .eps_class = "exact",
          .root = "1/sqrt",
          .tail = "K",
          .residual = "",
          .required = row.required,
          .optional = row.optional,
          .norm_attributes = row.norm_attributes,
          .gaps = {},
          .profiles = kGroupNormProfiles,
          .build = row.build};
}

constexpr std::string_view kResnetFile = "src/diffusers/models/resnet.py";
constexpr PathSource kAdmSource{"openai/guided-diffusion", "guided_diffusion/unet.py", "22e0df8", "read"};

}  // namespace

constinit const CastPath diffusers_ada_group_norm =
    path({.name = "diffusers.ada_group_norm",
          .title = "AdaGroupNorm: group_norm without parameters, then op by op; chunks scale, shift of a Linear",
          .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py:269", "58eb52c", "read"},
          .eps_default = "1e-5",
          .required = "scale,shift",
          .optional = "",
          .norm_attributes = {},
          .build = build_eager<Factor::one_plus_scale, kChannels>});

constinit const CastPath diffusers_resnet_norm2_scale_shift = path(
    {.name = "diffusers.resnet.norm2.scale_shift",
     .title =
         "ResnetBlock2D's norm2 with time_embedding_norm=scale_shift: GroupNorm, then op by op; chunks scale, shift",
     .source = {"huggingface/diffusers", kResnetFile, "58eb52c", "read"},
     .eps_default = "1e-6",
     .required = "weight,bias,scale,shift",
     .optional = "",
     .norm_attributes = {},
     .build = build_eager<Factor::one_plus_scale, kChannels>});

constinit const CastPath diffusers_resnet_norm2_additive =
    path({.name = "diffusers.resnet.norm2.additive",
          .title = "ResnetBlock2D's norm2 with its default time embedding: h + temb rounded, then GroupNorm",
          .source = {"huggingface/diffusers", kResnetFile, "58eb52c", "read"},
          .eps_default = "1e-6",
          .required = "weight,bias,embedding",
          .optional = "",
          .norm_attributes = {},
          .build = build_eager<Factor::one_plus_scale, kChannels>});

constinit const CastPath diffusers_spatial_norm = path(
    {.name = "diffusers.spatial_norm",
     .title =
         "SpatialNorm (MoVQ): GroupNorm(32, 1e-6), then norm(f) conv_y(zq) + conv_b(zq) op by op; maps of x's shape",
     .source = {"huggingface/diffusers", "src/diffusers/models/attention_processor.py", "58eb52c", "read"},
     .eps_default = "1e-6",
     .required = "weight,bias,scale,shift",
     .optional = "",
     .norm_attributes = kScaleItself,
     .build = build_eager<Factor::scale, kRowsCols>});

constinit const CastPath guided_diffusion_resblock_scale_shift = path(
    {.name = "guided_diffusion.resblock.scale_shift",
     .title = "ADM ResBlock with use_scale_shift_norm: GroupNorm32 in fp32, a cast, then op by op; chunks scale, shift",
     .source = kAdmSource,
     .eps_default = "1e-5",
     .required = "weight,bias,scale,shift",
     .optional = "",
     .norm_attributes = {},
     .build = build_adm});

constinit const CastPath guided_diffusion_resblock_additive =
    path({.name = "guided_diffusion.resblock.additive",
          .title = "ADM ResBlock without use_scale_shift_norm: h + emb rounded, then GroupNorm32 in fp32 and a cast",
          .source = kAdmSource,
          .eps_default = "1e-5",
          .required = "weight,bias,embedding",
          .optional = "",
          .norm_attributes = {},
          .build = build_adm});

}  // namespace norma::cast_paths

// Modulation by scale and shift, by itself: what stands between a norm and the next Linear, or behind a GroupNorm.
// FLUX, Qwen-Image, DiT, ADM, ResnetBlock2D, Lumina, Z-Image, PixArt, Sana, HunyuanDiT and FiLM are eager chains of the
// same three roundings (factor, product, sum); they are rows of their own because users look for their model by name.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/modulation.hpp"

namespace norma::cast_paths {

namespace {

// x * (1 + scale) + shift, x * scale + shift, x * (1 + scale), x + shift: each operation rounded
template <Factor factor>
Program build_eager(const Binding& binding) {
  require_float_or_half(binding, "an eager modulation");
  Builder b("modulate", binding);
  b.output("y", eager_modulation(b, b.input("x"), factor));
  return b.finish();
}

Program fused(const Binding& binding, bool contract) {
  require_float_or_half(binding, "a fused modulation");
  Builder b("modulate", binding);
  const Operand y = fp32_modulation(b, b.input("x"), Factor::one_plus_scale, contract);
  b.output("y", b.cast("y", b.x_format(), y));
  return b.finish();
}

template <bool contract>
Program build_fp32(const Binding& binding) {
  return fused(binding, contract);
}

// nvcc contracts where the profile's kernels do.
Program build_contracted(const Binding& binding) { return fused(binding, bound_profile(binding).contract_squares); }

}  // namespace

constinit const CastPath bfl_flux_modulate =
    modulation_path("modulate", "K", kElementwiseProfiles,
                    {.name = "bfl.flux.modulate",
                     .title = "FLUX.1: (1 + scale) x + shift op by op; Modulation chunks shift, scale, gate",
                     .source = {"black-forest-labs/flux", "src/flux/modules/layers.py:110-254", "802fb47", "read"},
                     .required = "scale,shift",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = {},
                     .build = build_eager<Factor::one_plus_scale>});

constinit const CastPath diffusers_flux_modulate = modulation_path(
    "modulate", "K", kElementwiseProfiles,
    {.name = "diffusers.flux.modulate",
     .title = "FLUX.1 and FLUX.2 in diffusers: x (1 + scale) + shift op by op; chunks shift, scale, gate",
     .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_flux.py", "58eb52c", "read"},
     .required = "scale,shift",
     .optional = "",
     .norm_attributes = {},
     .gaps = {},
     .build = build_eager<Factor::one_plus_scale>});

constinit const CastPath diffusers_qwen_image_modulate =
    modulation_path("modulate", "K", kElementwiseProfiles,
                    {.name = "diffusers.qwen_image.modulate",
                     .title = "Qwen-Image _modulate: x (1 + scale) + shift op by op; chunks shift, scale, gate",
                     .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_qwenimage.py",
                                "58eb52c", "read"},
                     .required = "scale,shift",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = {},
                     .build = build_eager<Factor::one_plus_scale>});

constinit const CastPath facebook_dit_modulate =
    modulation_path("modulate", "K", kElementwiseProfiles,
                    {.name = "facebook.dit.modulate",
                     .title = "DiT modulate: x (1 + scale) + shift op by op; chunks shift, scale, gate",
                     .source = {"facebookresearch/DiT", "models.py", "ed81ce2", "read"},
                     .required = "scale,shift",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = {},
                     .build = build_eager<Factor::one_plus_scale>});

constinit const CastPath guided_diffusion_scale_shift =
    modulation_path("modulate", "K", kElementwiseProfiles,
                    {.name = "guided_diffusion.scale_shift",
                     .title = "ADM ResBlock with use_scale_shift_norm, after its GroupNorm32; chunks scale, shift",
                     .source = {"openai/guided-diffusion", "guided_diffusion/unet.py", "22e0df8", "read"},
                     .required = "scale,shift",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = {},
                     .build = build_eager<Factor::one_plus_scale>});

constinit const CastPath guided_diffusion_additive =
    modulation_path("modulate", "K", kElementwiseProfiles,
                    {.name = "guided_diffusion.additive",
                     .title = "ADM ResBlock without use_scale_shift_norm: the embedding is added before the norm",
                     .source = {"openai/guided-diffusion", "guided_diffusion/unet.py", "22e0df8", "read"},
                     .required = "shift",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = {},
                     .build = build_eager<Factor::one_plus_scale>});

constinit const CastPath diffusers_resnet_scale_shift =
    modulation_path("modulate", "K", kElementwiseProfiles,
                    {.name = "diffusers.resnet.scale_shift",
                     .title = "ResnetBlock2D with time_embedding_norm=scale_shift, after norm2; chunks scale, shift",
                     .source = {"huggingface/diffusers", "src/diffusers/models/resnet.py", "58eb52c", "read"},
                     .required = "scale,shift",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = {},
                     .build = build_eager<Factor::one_plus_scale>});

constinit const CastPath diffusers_resnet_additive =
    modulation_path("modulate", "K", kElementwiseProfiles,
                    {.name = "diffusers.resnet.additive",
                     .title = "ResnetBlock2D with its default time embedding: h + temb before norm2",
                     .source = {"huggingface/diffusers", "src/diffusers/models/resnet.py", "58eb52c", "read"},
                     .required = "shift",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = {},
                     .build = build_eager<Factor::one_plus_scale>});

constinit const CastPath diffusers_lumina_modulate =
    modulation_path("modulate", "K", kElementwiseProfiles,
                    {.name = "diffusers.lumina.modulate",
                     .title = "Lumina: x (1 + scale), no shift; chunks scale, gate",
                     .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py", "58eb52c", "read"},
                     .required = "scale",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = {},
                     .build = build_eager<Factor::one_plus_scale>});

constinit const CastPath diffusers_z_image_modulate = modulation_path(
    "modulate", "K", kElementwiseProfiles,
    {.name = "diffusers.z_image.modulate",
     .title = "Z-Image: x scale with scale = 1.0 + its projection, no shift; chunks scale, gate",
     .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_z_image.py", "58eb52c", "read"},
     .required = "scale",
     .optional = "",
     .norm_attributes = {},
     .gaps = {},
     .build = build_eager<Factor::one_plus_scale>});

constinit const CastPath diffusers_pixart_modulate = modulation_path(
    "modulate", "K", kElementwiseProfiles,
    {.name = "diffusers.pixart.modulate",
     .title = "PixArt: scale_shift_table + temb, then x (1 + scale) + shift op by op; rows shift, scale, gate",
     .source = {"huggingface/diffusers", "src/diffusers/models/attention.py", "58eb52c", "read"},
     .required = "scale,shift,scale_table,shift_table",
     .optional = "",
     .norm_attributes = {},
     .gaps = {},
     .build = build_eager<Factor::one_plus_scale>});

constinit const CastPath diffusers_sana_modulate = modulation_path(
    "modulate", "K", kElementwiseProfiles,
    {.name = "diffusers.sana.modulate",
     .title = "Sana: scale_shift_table + temb, then x (1 + scale) + shift op by op; rows shift, scale, gate",
     .source = {"huggingface/diffusers", "src/diffusers/models/transformers/sana_transformer.py", "58eb52c", "read"},
     .required = "scale,shift,scale_table,shift_table",
     .optional = "",
     .norm_attributes = {},
     .gaps = {},
     .build = build_eager<Factor::one_plus_scale>});

constinit const CastPath diffusers_hunyuan_dit_modulate =
    modulation_path("modulate", "K", kElementwiseProfiles,
                    {.name = "diffusers.hunyuan_dit.modulate",
                     .title = "HunyuanDiT AdaLayerNormShift after its norm: x + shift",
                     .source = {"huggingface/diffusers", "src/diffusers/models/transformers/hunyuan_transformer_2d.py",
                                "58eb52c", "read"},
                     .required = "shift",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = {},
                     .build = build_eager<Factor::one_plus_scale>});

constinit const CastPath diffusers_wan_modulate = modulation_path(
    "modulate", "L", kElementwiseProfiles,
    {.name = "diffusers.wan.modulate",
     .title = "Wan: table + temb and x (1 + scale) + shift in fp32, one cast; rows shift, scale, gate",
     .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_wan.py", "58eb52c", "read"},
     .required = "scale,shift",
     .optional = "scale_table,shift_table",
     .norm_attributes = {},
     .gaps = {},
     .build = build_fp32<false>});

constinit const CastPath flashinfer_fused_dit_modulate = modulation_path(
    "modulate", "L", kFusedProfiles,
    {.name = "flashinfer.fused_dit.modulate",
     .title = "FlashInfer's Wan kernel, its tail: fma(x, 1 + (scale + table), shift + table) in fp32, one cast",
     .source = {"flashinfer-ai/flashinfer", "include/flashinfer/fused_dit_layernorm.cuh", "fb28d72", "read"},
     .required = "scale,shift",
     .optional = "scale_table,shift_table",
     .norm_attributes = {},
     .gaps = {},
     .build = build_fp32<true>});

constinit const CastPath sglang_fused_scale_shift = modulation_path(
    "modulate", "L", kFusedProfiles,
    {.name = "sglang.fused_scale_shift",
     .title = "SGLang's fused kernels, their tail: x (1 + scale) + shift in fp32, one cast",
     .source = {"sgl-project/sglang", "sgl-kernel/csrc/elementwise/fused_layernorm_scale_shift.cu", "82c8cae3", "read"},
     .required = "scale,shift",
     .optional = "",
     .norm_attributes = {},
     .gaps = {},
     .build = build_contracted});

constinit const CastPath film_gamma =
    modulation_path("modulate", "K", kElementwiseProfiles,
                    {.name = "film.gamma",
                     .title = "FiLM as published: gamma x + beta, no 1 +",
                     .source = {"ethanjperez/film", "vr/models/filmed_net.py", "", "quoted"},
                     .required = "scale,shift",
                     .optional = "",
                     .norm_attributes = kScaleItself,
                     .gaps = {},
                     .build = build_eager<Factor::scale>});

constinit const CastPath film_one_plus_gamma =
    modulation_path("modulate", "K", kElementwiseProfiles,
                    {.name = "film.one_plus_gamma",
                     .title = "FiLM with gamma stored as its distance from one: (1 + gamma) x + beta",
                     .source = {"ethanjperez/film", "vr/models/film_gen.py", "", "inferred"},
                     .required = "scale,shift",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = {},
                     .build = build_eager<Factor::one_plus_scale>});

constinit const CastPath diffusers_spatial_norm_modulate = modulation_path(
    "modulate", "K", kElementwiseProfiles,
    {.name = "diffusers.spatial_norm.modulate",
     .title = "SpatialNorm (MoVQ) after its GroupNorm: x conv_y(zq) + conv_b(zq), no 1 +",
     .source = {"huggingface/diffusers", "src/diffusers/models/attention_processor.py", "58eb52c", "read"},
     .required = "scale,shift",
     .optional = "",
     .norm_attributes = kScaleItself,
     .gaps = {},
     .build = build_eager<Factor::scale>});

}  // namespace norma::cast_paths

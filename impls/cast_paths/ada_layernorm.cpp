// Adaptive LayerNorm as models write it: torch's layer_norm, rounded, then factor, product and sum, each rounded: four
// roundings where a fused kernel has one. Rows differ in eps, affine, tables and what may be absent; the order of the
// chunks says which half of a Linear's output is which and changes no bit here.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/layernorm_steps.hpp"
#include "impls/cast_paths/modulation.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kCode = "an adaptive LayerNorm";

// layer_norm(x) * (1 + scale) + shift; the norm's own parameters have x's format
Program build_eager(const Binding& binding) {
  require_float_or_half(binding, kCode);
  for (const char* own : {"weight", "bias"}) require_format(binding, own, kCode, {binding.x});
  Builder b("ada_layernorm", binding);
  const Operand n = torch_layer_norm(b, b.input("x"), b.x_format(), affine_inputs(b));
  b.output("y", eager_modulation(b, b.cast("n_T", b.x_format(), n), Factor::one_plus_scale));
  return b.finish();
}

// F.layer_norm(x.float(), w.float(), b.float()).to(x.dtype) and the same: on a CPU the algebra is that of fp32 rows
Program build_fp32_layer_norm(const Binding& binding) {
  require_float_or_half(binding, kCode);
  Builder b("ada_layernorm", binding);
  const Operand n = torch_layer_norm(b, b.cast("x_f32", kFp32, b.input("x")), kFp32, affine_inputs(b));
  b.output("y", eager_modulation(b, b.cast("n_T", b.x_format(), n), Factor::one_plus_scale));
  return b.finish();
}

// (norm(x.float()) * (1 + scale) + shift).type_as(x)
Program build_wan(const Binding& binding) {
  require_float_or_half(binding, kCode);
  Builder b("ada_layernorm", binding);
  const Operand n = torch_layer_norm(b, b.cast("x_f32", kFp32, b.input("x")), kFp32, {});
  b.output("y", b.cast("y", b.x_format(), fp32_modulation(b, n, Factor::one_plus_scale, false)));
  return b.finish();
}

}  // namespace

constinit const CastPath bfl_flux_ada_layernorm{
    .name = "bfl.flux.ada_layernorm",
    .title = "FLUX.1: (1 + scale) norm(x) + shift op by op, no affine; Modulation and LastLayer chunk shift, scale",
    .norm = "ada_layernorm",
    .source = {"black-forest-labs/flux", "src/flux/modules/layers.py:110-254", "802fb47", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath bfl_flux2_ada_layernorm{
    .name = "bfl.flux2.ada_layernorm",
    .title = "FLUX.2: as FLUX.1, one modulation shared by all blocks",
    .norm = "ada_layernorm",
    .source = {"black-forest-labs/flux2", "src/flux2/model.py", "ab7cca6", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_ada_layer_norm_zero{
    .name = "diffusers.ada_layer_norm_zero",
    .title = "AdaLayerNormZero (FLUX, SD3): op by op, no affine; chunks shift, scale, gate",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py", "58eb52c", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_ada_layer_norm_zero_fp32{
    .name = "diffusers.ada_layer_norm_zero.fp32_layer_norm",
    .title = "AdaLayerNormZero with FP32LayerNorm (AuraFlow): fp32 algebra and a cast, then op by op",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py", "58eb52c", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_fp32_layer_norm,
};

constinit const CastPath diffusers_ada_layer_norm_zero_single{
    .name = "diffusers.ada_layer_norm_zero_single",
    .title = "AdaLayerNormZeroSingle (FLUX single blocks): op by op, no affine; chunks shift, scale, gate",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py", "58eb52c", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_sd35_ada_layer_norm_zero_x{
    .name = "diffusers.sd35_ada_layer_norm_zero_x",
    .title = "SD35AdaLayerNormZeroX: two modulations of one norm, each op by op; nine chunks, shift, scale, gate",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py", "58eb52c", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_ada_layer_norm{
    .name = "diffusers.ada_layer_norm",
    .title = "AdaLayerNorm, chunk_dim=0: op by op, affine if asked for; chunks scale, shift",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py", "58eb52c", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "weight,bias",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_ada_layer_norm_chunk_dim1{
    .name = "diffusers.ada_layer_norm.chunk_dim1",
    .title = "AdaLayerNorm, chunk_dim=1 (CogVideoX, OmniGen): op by op; chunks shift, scale",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py", "58eb52c", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "weight,bias",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_ada_layer_norm_continuous{
    .name = "diffusers.ada_layer_norm_continuous",
    .title =
        "AdaLayerNormContinuous with layer_norm, affine by default: op by op; chunks scale, shift of "
        "Linear(silu(c).to(x.dtype))",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py", "58eb52c", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "weight,bias",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_lumina_layer_norm_continuous{
    .name = "diffusers.lumina_layer_norm_continuous",
    .title = "LuminaLayerNormContinuous: norm(x) (1 + scale) op by op, no shift",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py", "58eb52c", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale",
    .optional = "weight,bias",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_cogvideox_layer_norm_zero{
    .name = "diffusers.cogvideox_layer_norm_zero",
    .title = "CogVideoXLayerNormZero: affine, then op by op; chunks shift, scale, gate",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py", "58eb52c", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "weight,bias",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_cogview3_ada_layer_norm_zero{
    .name = "diffusers.cogview3plus_ada_layer_norm_zero",
    .title = "CogView3PlusAdaLayerNormZeroTextImage: op by op, no affine; twelve chunks, shift, scale, gate",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py", "58eb52c", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_cogview4_ada_layer_norm_zero{
    .name = "diffusers.cogview4_ada_layer_norm_zero",
    .title = "CogView4AdaLayerNormZero: op by op, no affine; the conditioning meets its Linear without SiLU",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_cogview4.py", "58eb52c", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_cogview4_ada_layer_norm_continuous{
    .name = "diffusers.cogview4_ada_layer_norm_continuous",
    .title = "CogView4AdaLayerNormContinuous: op by op, no SiLU before the Linear; chunks scale, shift",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_cogview4.py", "58eb52c", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "weight,bias",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_qwen_image_ada_layernorm{
    .name = "diffusers.qwen_image.ada_layernorm",
    .title = "Qwen-Image: norm and _modulate op by op, no affine; chunks shift, scale, gate",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_qwenimage.py", "58eb52c",
               "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath facebook_dit_ada_layernorm{
    .name = "facebook.dit.ada_layernorm",
    .title = "DiT block and FinalLayer: modulate(norm(x), shift, scale) op by op, no affine",
    .norm = "ada_layernorm",
    .source = {"facebookresearch/DiT", "models.py", "ed81ce2", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_pixart_ada_layernorm{
    .name = "diffusers.pixart.ada_layernorm",
    .title = "PixArt (ada_norm_single): norm, scale_shift_table + temb, op by op",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/attention.py", "58eb52c", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift,scale_table,shift_table",
    .optional = "weight,bias",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_sana_modulated_norm{
    .name = "diffusers.sana.modulated_norm",
    .title = "SanaModulatedNorm: norm, scale_shift_table + temb, op by op",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/transformers/sana_transformer.py", "58eb52c", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift,scale_table,shift_table",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_hunyuan_dit_ada_layer_norm_shift{
    .name = "diffusers.hunyuan_dit.ada_layer_norm_shift",
    .title = "HunyuanDiT AdaLayerNormShift: FP32LayerNorm, affine by default, then + shift",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/transformers/hunyuan_transformer_2d.py", "58eb52c",
               "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "shift",
    .optional = "weight,bias",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_fp32_layer_norm,
};

constinit const CastPath diffusers_wan_ada_layernorm{
    .name = "diffusers.wan.ada_layernorm",
    .title = "Wan: table + temb, norm and modulation in fp32, one cast; rows shift, scale, gate",
    .norm = "ada_layernorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_wan.py", "58eb52c", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "L",
    .residual = "",
    .required = "scale,shift",
    .optional = "scale_table,shift_table",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build_wan,
};

}  // namespace norma::cast_paths

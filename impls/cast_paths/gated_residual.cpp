// The gated residual: a block's output f, times its gate, is added to the stream x.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/modulation.hpp"

namespace norma::cast_paths {

namespace {

constexpr CaseDefault kTanhGate[] = {{"gate_function", "tanh"}};

constexpr std::string_view kCode = "a gated residual";

// x + gate * f: two roundings
Operand eager(Builder& b, Operand gate) {
  const Operand x = b.input("x");
  return eager_sum(b, "sum", x, eager_product(b, "gated", gate, element_input(b, "f")));
}

Program build_eager(const Binding& binding) {
  require_float_or_half(binding, kCode);
  Builder b("gated_residual", binding);
  b.output("y", eager(b, eager_parameter(b, "gate")));
  return b.finish();
}

// if x.dtype == torch.float16: x = x.clip(-65504, 65504)
Program build_clipped(const Binding& binding) {
  require_float_or_half(binding, kCode);
  Builder b("gated_residual", binding);
  Operand y = eager(b, eager_parameter(b, "gate"));
  const FormatRef t = b.format(y);
  if (t.id == FormatId::fp16) {
    const Operand above = b.map("above", Op::max, t, {y, b.constant("least", -65504)});
    y = b.map("clipped", Op::min, t, {above, b.constant("greatest", 65504)});
  }
  b.output("y", y);
  return b.finish();
}

// x + gate.tanh() * f
Program build_tanh(const Binding& binding) {
  require_float_or_half(binding, kCode);
  Builder b("gated_residual", binding);
  const Operand gate = vector_input(b, "gate");
  const Operand opened = tanh_in_fp32(b, "tanh_f32", gate);
  b.output("y", eager(b, is_half(b.format(gate)) ? b.cast("tanh", b.format(gate), opened) : opened));
  return b.finish();
}

enum class Contraction : std::uint8_t { never, by_profile, always };

// (x.float() + f * gate).type_as(x): fp32 inside
template <Contraction contraction>
Program build_fp32(const Binding& binding) {
  require_float_or_half(binding, kCode);
  Builder b("gated_residual", binding);
  const Operand x = b.input("x");
  const Operand f = element_input(b, "f");
  const Operand gate = fp32_parameter(b, "gate");
  const bool fuse = contraction == Contraction::always ||
                    (contraction == Contraction::by_profile && bound_profile(binding).contract_squares);
  const Operand y =
      fuse ? b.map("sum", Op::fma, kFp32, {f, gate, x}) : b.add("sum", kFp32, x, b.mul("gated", kFp32, f, gate));
  b.output("y", b.cast("y", b.x_format(), y));
  return b.finish();
}

}  // namespace

constinit const CastPath bfl_flux_gated_residual =
    modulation_path("gated_residual", "K", kElementwiseProfiles,
                    {.name = "bfl.flux.gated_residual",
                     .title = "FLUX.1: x + gate f op by op",
                     .source = {"black-forest-labs/flux", "src/flux/modules/layers.py:110-254", "802fb47", "read"},
                     .required = "f,gate",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = {},
                     .build = build_eager});

constinit const CastPath diffusers_flux_gated_residual = modulation_path(
    "gated_residual", "K", kElementwiseProfiles,
    {.name = "diffusers.flux.gated_residual",
     .title = "FLUX.1 in diffusers: x + gate f op by op; an fp16 stream is clipped to +-65504",
     .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_flux.py", "58eb52c", "read"},
     .required = "f,gate",
     .optional = "",
     .norm_attributes = {},
     .gaps = kGapClamp,
     .build = build_clipped});

constinit const CastPath diffusers_qwen_image_gated_residual =
    modulation_path("gated_residual", "K", kElementwiseProfiles,
                    {.name = "diffusers.qwen_image.gated_residual",
                     .title = "Qwen-Image: x + gate f op by op; both fp16 streams are clipped to +-65504",
                     .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_qwenimage.py",
                                "58eb52c", "read"},
                     .required = "f,gate",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = kGapClamp,
                     .build = build_clipped});

constinit const CastPath facebook_dit_gated_residual =
    modulation_path("gated_residual", "K", kElementwiseProfiles,
                    {.name = "facebook.dit.gated_residual",
                     .title = "DiT: x + gate f op by op",
                     .source = {"facebookresearch/DiT", "models.py", "ed81ce2", "read"},
                     .required = "f,gate",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = {},
                     .build = build_eager});

constinit const CastPath diffusers_pixart_gated_residual =
    modulation_path("gated_residual", "K", kElementwiseProfiles,
                    {.name = "diffusers.pixart.gated_residual",
                     .title = "PixArt and Sana: x + (table + temb) f op by op",
                     .source = {"huggingface/diffusers", "src/diffusers/models/attention.py", "58eb52c", "read"},
                     .required = "f,gate,gate_table",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = {},
                     .build = build_eager});

constinit const CastPath diffusers_wan_gated_residual = modulation_path(
    "gated_residual", "L", kElementwiseProfiles,
    {.name = "diffusers.wan.gated_residual",
     .title = "Wan: x + gate f in fp32, one cast",
     .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_wan.py", "58eb52c", "read"},
     .required = "f,gate",
     .optional = "gate_table",
     .norm_attributes = {},
     .gaps = {},
     .build = build_fp32<Contraction::never>});

constinit const CastPath flashinfer_fused_dit_gated_residual = modulation_path(
    "gated_residual", "L", kFusedProfiles,
    {.name = "flashinfer.fused_dit.gated_residual",
     .title = "FlashInfer's Wan kernel, its head: fma(f, gate + table, x) in fp32, one cast",
     .source = {"flashinfer-ai/flashinfer", "include/flashinfer/fused_dit_layernorm.cuh", "fb28d72", "read"},
     .required = "f,gate",
     .optional = "gate_table",
     .norm_attributes = {},
     .gaps = {},
     .build = build_fp32<Contraction::always>});

constinit const CastPath sglang_gated_residual = modulation_path(
    "gated_residual", "L", kFusedProfiles,
    {.name = "sglang.gated_residual",
     .title = "SGLang's fused kernel, its head: T(x + f gate), computed in fp32",
     .source = {"sgl-project/sglang", "sgl-kernel/csrc/elementwise/fused_layernorm_scale_shift.cu", "82c8cae3", "read"},
     .required = "f,gate",
     .optional = "",
     .norm_attributes = {},
     .gaps = {},
     .build = build_fp32<Contraction::by_profile>});

constinit const CastPath diffusers_z_image_gated_residual = modulation_path(
    "gated_residual", "K", kElementwiseProfiles,
    {.name = "diffusers.z_image.gated_residual",
     .title = "Z-Image: x + tanh(gate) f op by op, tanh rounded too",
     .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_z_image.py", "58eb52c", "read"},
     .required = "f,gate",
     .optional = "",
     .norm_attributes = kTanhGate,
     .gaps = {},
     .build = build_tanh});

constinit const CastPath diffusers_lumina_gated_residual = modulation_path(
    "gated_residual", "K", kElementwiseProfiles,
    {.name = "diffusers.lumina.gated_residual",
     .title = "Lumina-Next and Lumina2: x + tanh(gate) f op by op, tanh rounded too",
     .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_lumina2.py", "58eb52c", "read"},
     .required = "f,gate",
     .optional = "",
     .norm_attributes = kTanhGate,
     .gaps = {},
     .build = build_tanh});

}  // namespace norma::cast_paths

// Adaptive RMSNorm: Lumina, Z-Image, Mochi, AdaLayerNormContinuous with rms_norm, Liger.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/modulation.hpp"

namespace norma::cast_paths {

namespace {

// diffusers' RMSNorm, then n (1 + scale) + shift: h.to(weight.dtype) * weight for a 16-bit weight, fp32 for an fp32
// one, h.to(x.dtype) without
Program build_eager(const Binding& binding) {
  require_float_or_half(binding, "an adaptive RMSNorm");
  Builder b("ada_rmsnorm", binding);
  Operand n = eager_x_hat(b, b.input("x"));
  if (binding.has("weight")) {
    const Operand w = b.input("weight");
    const FormatRef wf = b.format(w);
    n = b.eager("nw", Op::mul, wf, {is_half(wf) ? b.cast("n_W", wf, n) : n, w});
  } else {
    n = b.cast("n_T", b.x_format(), n);
  }
  b.output("y", eager_modulation(b, n, Factor::one_plus_scale));
  return b.finish();
}

// (norm(x.float()) * (1 + scale.float())).to(x.dtype)
template <Factor factor>
Program build_mochi(const Binding& binding) {
  require_float_or_half(binding, "Mochi's RMSNorm");
  Builder b("ada_rmsnorm", binding);
  const Operand n = eager_x_hat(b, b.input("x"));
  b.output("y", b.cast("y", b.x_format(), fp32_modulation(b, n, factor, false)));
  return b.finish();
}

// x * rsqrt(sum(x * x) / n_cols + eps); Triton divides approximately
Operand triton_x_hat(Builder& b) {
  const Operand x = b.input("x");
  const Operand squares = kernel_square_sum(b, x);
  const Operand ms = b.map("ms", Op::div, approximate(bound_profile(b.binding()), kFp32), {squares, b.count()});
  return b.mul("n", kFp32, x, reciprocal_root(b, "r", kFp32, plus_eps(b, ms)));
}

Operand offset_weight(Builder& b, double offset) {
  const Operand w = b.input("weight");
  return b.add("offset_w", kFp32, b.constant("offset", offset), w);
}

// X.to(T) * (offset + W) is fp32 by promotion of the fp32 offset, and so is what follows; without a weight all is T.
// "1.0 + Scale" is in Scale's format. Contraction of 16-bit products is not assumed.
Program build_liger_llama(const Binding& binding) {
  constexpr std::string_view code = "Liger's modulated RMSNorm";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  Builder b("ada_rmsnorm", binding);
  const FormatRef t = b.x_format();
  Operand n = b.cast("n_T", t, triton_x_hat(b));
  if (binding.has("weight")) n = b.mul("nw", kFp32, n, offset_weight(b, 0));
  b.output("y", b.cast("y", t, eager_modulation(b, n, Factor::one_plus_scale)));
  return b.finish();
}

Program build_liger_gemma(const Binding& binding) {
  constexpr std::string_view code = "Liger's modulated RMSNorm";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  Builder b("ada_rmsnorm", binding);
  const Operand x_hat = triton_x_hat(b);
  const Operand n = b.cast("n_T", b.x_format(), b.mul("nw", kFp32, x_hat, offset_weight(b, 1)));
  b.output("y", eager_modulation(b, n, Factor::one_plus_scale));
  return b.finish();
}

}  // namespace

constinit const CastPath diffusers_lumina_rms_norm_zero{
    .name = "diffusers.lumina_rms_norm_zero",
    .title = "LuminaRMSNormZero: norm(x) (1 + scale) op by op, no shift; chunks scale, gate",
    .norm = "ada_rmsnorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py", "58eb52c", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "weight,scale",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_z_image_ada_rmsnorm{
    .name = "diffusers.z_image.ada_rmsnorm",
    .title = "Z-Image: attention_norm1(x) scale with scale = 1.0 + its projection, op by op",
    .norm = "ada_rmsnorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_z_image.py", "58eb52c", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "weight,scale",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_ada_layer_norm_continuous_rms{
    .name = "diffusers.ada_layer_norm_continuous.rms_norm",
    .title = "AdaLayerNormContinuous with rms_norm, affine by default: op by op; chunks scale, shift",
    .norm = "ada_rmsnorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py", "58eb52c", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale,shift",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_eager,
};

constinit const CastPath diffusers_mochi_rms_norm_zero{
    .name = "diffusers.mochi_rms_norm_zero",
    .title = "MochiRMSNormZero and MochiLayerNormContinuous: x-hat (1 + scale) in fp32, one cast",
    .norm = "ada_rmsnorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_mochi.py", "58eb52c", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "L",
    .residual = "",
    .required = "scale",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_mochi<Factor::one_plus_scale>,
};

constinit const CastPath diffusers_mochi_modulated_rms_norm{
    .name = "diffusers.mochi_modulated_rms_norm",
    .title = "MochiModulatedRMSNorm: x-hat scale in fp32, one cast; Mochi gives it tanh(gate) or 1 + scale",
    .norm = "ada_rmsnorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_mochi.py", "58eb52c", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "L",
    .residual = "",
    .required = "scale",
    .optional = "",
    .norm_attributes = kScaleItself,
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_mochi<Factor::scale>,
};

constinit const CastPath liger_modulated_rms_norm_llama{
    .name = "liger.modulated_rms_norm.llama",
    .title = "Liger modulated RMSNorm, llama casts: x-hat cast; a weight makes the rest fp32, else op by op in T",
    .norm = "ada_rmsnorm",
    .source = {"linkedin/Liger-Kernel", "src/liger_kernel/ops/modulated_rms_norm.py", "ead96b6", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "scale",
    .optional = "weight,shift",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kTritonProfiles,
    .build = build_liger_llama,
};

constinit const CastPath liger_modulated_rms_norm_gemma{
    .name = "liger.modulated_rms_norm.gemma",
    .title = "Liger modulated RMSNorm, gemma casts: 1 + weight in fp32, cast, then op by op in T",
    .norm = "ada_rmsnorm",
    .source = {"linkedin/Liger-Kernel", "src/liger_kernel/ops/modulated_rms_norm.py", "ead96b6", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "K",
    .residual = "",
    .required = "weight,scale",
    .optional = "shift",
    .norm_attributes = kOffsetOne,
    .gaps = {},
    .profiles = kTritonProfiles,
    .build = build_liger_gemma,
};

}  // namespace norma::cast_paths

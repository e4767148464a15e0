// diffusers: RMSNorm with all its branches on formats, its NPU branch, LTX2's PixelNorm.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

void refuse_bias_alone(const Binding& binding) {
  if (binding.has("bias") && !binding.has("weight"))
    throw ProgramError("diffusers' RMSNorm has a bias only where it has a weight (elementwise_affine)");
}

// The weight's format decides:
//   fp16, bf16   h.to(weight.dtype) * weight (+ bias), output in the weight's format
//   fp32         h * weight (+ bias) in fp32, fp32 output whatever x is
//   e4m3fn       (h * weight.to(fp32) + (bias.to(fp32) or 0)).to(x.dtype); an article's copy has it
//   none         h.to(x.dtype)
// A tuple as dim changes the weight's shape only: the mean is over the last axis.
Program build_rmsnorm(const Binding& binding) {
  constexpr std::string_view code = "diffusers RMSNorm";
  require_format(binding, "x", code, {FormatId::fp32, FormatId::bf16, FormatId::fp16});
  require_format(binding, "weight", code, {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn});
  require_format(binding, "bias", code, {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn});
  refuse_bias_alone(binding);
  Builder b("rmsnorm", binding);
  const Operand h = eager_x_hat(b, b.input("x"));
  if (!binding.has("weight")) {
    b.output("y", b.cast("y", b.x_format(), h));
    return b.finish();
  }
  const Operand w = b.input("weight");
  const FormatRef wf = b.format(w);
  if (wf.id == FormatId::e4m3fn) {
    const Operand hw = b.mul("hw", kFp32, h, b.cast("weight_f32", kFp32, w));
    // "+ 0" without a bias: it turns -0 into 0.
    const Operand shift = binding.has("bias") ? b.cast("bias_f32", kFp32, b.input("bias")) : b.constant("zero", 0);
    b.output("y", b.cast("y", b.x_format(), b.add("hwb", kFp32, hw, shift)));
    return b.finish();
  }
  const Operand h_w = is_half(wf) ? b.cast("h_W", wf, h) : h;
  if (!binding.has("bias")) {
    b.output("y", b.eager("y", Op::mul, wf, {h_w, w}));
    return b.finish();
  }
  const Operand hw = b.eager("hw", Op::mul, wf, {h_w, w});
  const Operand bias = b.input("bias");
  b.output("y", b.eager("y", Op::add, promote(wf, b.format(bias)), {hw, bias}));
  return b.finish();
}

// h = x.to(weight.dtype) if that is a half format; npu_rms_norm(h, weight, eps) (+ bias).
// The operator is closed: taken as fp32 inside with one rounding to h's format.
Program build_npu(const Binding& binding) {
  require_float_or_half(binding, "diffusers RMSNorm on an NPU");
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand w = b.input("weight");
  const FormatRef wf = b.format(w);
  const Operand h = is_half(wf) ? b.cast("h", wf, x) : x;
  const FormatRef hf = b.format(h);
  const Operand nw = b.mul("nw", kFp32, kernel_x_hat(b, h), w);
  if (!binding.has("bias")) {
    b.output("y", b.cast("y", hf, nw));
    return b.finish();
  }
  const Operand normed = b.cast("nw_T", hf, nw);
  const Operand bias = b.input("bias");
  b.output("y", b.eager("y", Op::add, promote(hf, b.format(bias)), {normed, bias}));
  return b.finish();
}

// x / sqrt(mean(x**2) + eps), every operation in x's format; a Python float added to a half tensor
// is rounded to it first (1e-8 is 0 in fp16). The mean is over channels, a strided axis whose torch
// order is not modelled.
Program build_pixel_norm(const Binding& binding) {
  require_float_or_half(binding, "LTX2 PixelNorm");
  Builder b("rmsnorm", binding);
  const FormatRef t = b.x_format();
  const Profile& profile = bound_profile(binding);
  const Operand x = b.input("x");
  const Operand squares = b.eager("sq", Op::square, t, {x});
  const Operand mean = b.reduce("ms_f32", kFp32, squares, reduction(ReduceKind::mean, Term::value, profile.sum));
  const Operand eps = b.cast("eps_T", t, b.cast("eps_f32", kFp32, b.attribute("eps")));
  const Operand sum = b.eager("ms_eps", Op::add, t, {b.cast("ms", t, mean), eps});
  b.output("y", b.eager("y", Op::div, t, {x, b.eager("rms", Op::sqrt, t, {sum})}));
  return b.finish();
}

constexpr std::string_view kNpuProfiles[] = {"exact", "sequential", "pairwise"};

// (x.float() * rsqrt(ms + eps) * weight).to(x.dtype): a half weight is promoted
Program build_weight_then_cast(const Binding& binding) {
  require_float_or_half(binding, "this RMSNorm");
  Builder b("rmsnorm", binding);
  return finish_weight_then_cast(b, eager_x_hat(b, b.input("x")));
}

// F.rms_norm(x.float(), (dim,), weight + 1.0, eps).to(x.dtype): the sum is formed in the weight's format, which the
// model keeps at fp32
Program build_krea2(const Binding& binding) {
  require_float_or_half(binding, "Krea 2's RMSNorm");
  Builder b("rmsnorm", binding);
  const Operand n = eager_x_hat(b, b.input("x"));
  const Operand w = b.input("weight");
  const Operand factor = b.eager("w_one", Op::add, b.format(w), {w, b.constant("one", 1)});
  b.output("y", b.cast("y", b.x_format(), b.mul("nw", kFp32, n, factor)));
  return b.finish();
}

}  // namespace

constinit const CastPath diffusers_rmsnorm{
    .name = "diffusers.rmsnorm",
    .title =
        "diffusers RMSNorm (Qwen-Image): the weight's format decides the cast; e4m3fn after an "
        "article",
    .norm = "rmsnorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py", "58eb52c", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "",
    .optional = "weight,bias",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_rmsnorm,
};

constinit const CastPath diffusers_rmsnorm_npu{
    .name = "diffusers.rmsnorm.npu",
    .title =
        "diffusers RMSNorm on Ascend: x cast to the weight's format, then one closed operator "
        "(inferred)",
    .norm = "rmsnorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py", "58eb52c", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "bias",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kNpuProfiles,
    .build = build_npu,
};

constinit const CastPath diffusers_ltx2_pixel_norm{
    .name = "diffusers.ltx2.pixel_norm",
    .title =
        "LTX2 PixelNorm: every operation in x's format (the order of the sum, over channels, is "
        "open)",
    .norm = "rmsnorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/autoencoders/autoencoder_kl_ltx2_audio.py", "58eb52c",
               "read"},
    .eps_default = "1e-8",
    .eps_place = "inside",
    .eps_class = "rounded to T",
    .root = "x/sqrt",
    .tail = "F",
    .residual = "",
    .required = "",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kOpenProfiles,
    .build = build_pixel_norm,
};

constinit const CastPath diffusers_mochi_rmsnorm{
    .name = "diffusers.mochi.rmsnorm",
    .title = "MochiRMSNorm: weight in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py:572", "58eb52c", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_weight_then_cast,
};

constinit const CastPath diffusers_kolors_rmsnorm{
    .name = "diffusers.kolors.rmsnorm",
    .title = "RMSNorm of Kolors' text encoder: weight in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"huggingface/diffusers", "src/diffusers/pipelines/kolors/text_encoder.py", "58eb52c", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_weight_then_cast,
};

constinit const CastPath diffusers_cosmos3_rmsnorm{
    .name = "diffusers.cosmos3.rmsnorm",
    .title = "RMSNorm of Cosmos3 (Nemotron) and Stable Audio 3: weight in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_cosmos3.py", "58eb52c", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_weight_then_cast,
};

constinit const CastPath diffusers_krea2_rmsnorm{
    .name = "diffusers.krea2.rmsnorm",
    .title = "Krea 2: F.rms_norm of x.float() by weight + 1, formed in the weight's format; one cast",
    .norm = "rmsnorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_krea2.py", "v0.42.1", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "D",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = kOffsetOne,
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_krea2,
};

}  // namespace norma::cast_paths

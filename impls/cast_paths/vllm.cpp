// vLLM: the Python forms, the CUDA kernels (weight outside, then inside the cast), fp8 outputs.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kCode = "vLLM";

// x.float() + residual.float(), kept in fp32; residual = sum.to(x.dtype)
Operand unrounded_sum(Builder& b) {
  const Operand x = b.input("x");
  if (!b.binding().has("residual")) return x;
  const Operand h = b.add("h", kFp32, x, b.input("residual"));
  b.output("residual", b.cast("h_T", b.x_format(), h));
  return h;
}

Program build_native(const Binding& binding) {
  require_float_or_half(binding, kCode);
  Builder b("rmsnorm", binding);
  const Operand n = eager_x_hat(b, unrounded_sum(b));
  return binding.has("weight") ? finish_cast_then_weight(b, n) : finish_weight_then_cast(b, n);
}

// x = x.float() + residual.float() if x.dtype == float16 else x + residual; residual = x, as it is
Program build_gemma_native(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_format(binding, "residual", "vLLM's GemmaRMSNorm beside such an x", {binding.x});
  Builder b("rmsnorm", binding);
  Operand h = b.input("x");
  if (binding.has("residual")) {
    const FormatRef t = b.x_format();
    h = b.eager("h", Op::add, t.id == FormatId::fp16 ? kFp32 : t, {h, b.input("residual")});
    b.output("residual", h);
  }
  return finish_one_plus_weight_then_cast(b, eager_x_hat(b, h));
}

// ((scalar_t)(x * r)) * weight, a product of two scalar_t
Operand cast_then_weight(Builder& b, Operand n) {
  const FormatRef t = b.x_format();
  return b.eager("nw", Op::mul, t, {b.cast("n_T", t, n), b.input("weight")});
}

Program build_old(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_one_format(binding, kCode);
  Builder b("rmsnorm", binding);
  return finish_cast_then_weight(b, kernel_x_hat(b, b.input("x")));
}

Program build_new(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_one_format(binding, kCode);
  Builder b("rmsnorm", binding);
  return finish_weight_then_cast(b, kernel_x_hat(b, b.input("x")));
}

// temp = input; temp += residual in scalar_t; stored; the variance is of the rounded sum
Operand rounded_sum(Builder& b) {
  const Operand x = b.input("x");
  const Operand h = b.add("h", b.x_format(), x, b.input("residual"));
  b.output("residual", h);
  return h;
}

Program build_fused_add_old(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_one_format(binding, kCode);
  Builder b("rmsnorm", binding);
  return finish_cast_then_weight(b, kernel_x_hat(b, rounded_sum(b)));
}

Program build_fused_add_new(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_one_format(binding, kCode);
  Builder b("rmsnorm", binding);
  return finish_weight_then_cast(b, kernel_x_hat(b, rounded_sum(b)));
}

void require_quantizable(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_format(binding, "scale", kCode, {FormatId::fp32});
  for (const std::string_view tensor : {"weight", "residual"})
    require_format(binding, tensor, "vLLM beside such an x", {binding.x});
}

// scale_inv = 1.0f / scale; clamp(nw * scale_inv). c10's conversion does not saturate; after the
// clamp it need not.
Program build_static_fp8(const Binding& binding) {
  require_quantizable(binding);
  Builder b("rmsnorm", binding);
  const Operand nw = cast_then_weight(b, kernel_x_hat(b, b.input("x")));
  const Operand inverse = b.map("scale_inv", Op::reciprocal, kFp32, {b.input("scale")});
  b.output("y", clamp_to_e4m3(b, "y", b.mul("q", kFp32, nw, inverse), Overflow::ieee));
  return b.finish();
}

// scale = max(min(absmax, scale_ub) / 448, 1 / (448 * 512)), in fp32; y = clamp(nw / scale).
// The maxima are fmaxf: a NaN counts as 0. scale_ub is there if the case sets scale_cap.
Program build_dynamic_fp8(const Binding& binding) {
  require_quantizable(binding);
  Builder b("rmsnorm", binding);
  const Operand nw = cast_then_weight(b, kernel_x_hat(b, unrounded_sum(b)));
  const Operand magnitude = b.map("abs_nw", Op::abs, b.x_format(), {nw});
  const Operand counted = b.map("abs_or_0", Op::fmax, b.x_format(), {magnitude, b.constant("zero", 0)});
  Operand largest = b.reduce("absmax", kFp32, counted, reduction(ReduceKind::amax, Term::value, {}));
  const auto cap = binding.attributes.find("scale_cap");
  if (cap != binding.attributes.end() && cap->second < max_finite(FormatId::fp32))
    largest = b.map("capped", Op::fmin, kFp32, {largest, b.cast("scale_ub", kFp32, b.attribute("scale_cap"))});
  const Operand ratio = b.div("absmax_ratio", kFp32, largest, b.constant("qmax", 448));
  const Operand floor = b.constant("min_scaling_factor", 0x1.24924ap-18);  // float(1 / (448 * 512))
  const Operand scale = b.map("row_scale", Op::fmax, kFp32, {ratio, floor});
  b.output("y", clamp_to_e4m3(b, "y", b.div("q", kFp32, nw, scale), Overflow::ieee));
  b.output("scale", scale);
  return b.finish();
}

constexpr CaseDefault kStatic[] = {{"quant", "static"}};
constexpr CaseDefault kPerToken[] = {{"quant", "per_token"}, {"quant_max", "448"}, {"scale_floor", "0x1.24924ap-18"}};

}  // namespace

constinit const CastPath vllm_rms_norm_native{
    .name = "vllm.rms_norm.native",
    .title = "vLLM RMSNorm.forward_native: residual sum unrounded, cast, then weight",
    .norm = "rmsnorm",
    .source = {"vllm-project/vllm", "vllm/model_executor/layers/layernorm.py", "00cba797", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "unrounded",
    .required = "",
    .optional = "weight,residual",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_native,
};

constinit const CastPath vllm_gemma_rms_norm_native{
    .name = "vllm.gemma_rms_norm.native",
    .title = "vLLM GemmaRMSNorm: residual sum in fp32 for fp16 inputs only, 1 + w in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"vllm-project/vllm", "vllm/model_executor/layers/layernorm.py", "00cba797", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "C",
    .residual = "fp32 for fp16 only",
    .required = "weight",
    .optional = "residual",
    .norm_attributes = kOffsetOne,
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_gemma_native,
};

constinit const CastPath vllm_rms_norm_old{
    .name = "vllm.rms_norm.old",
    .title = "vLLM rms_norm kernel, old: cast, then weight",
    .norm = "rmsnorm",
    .source = {"vllm-project/vllm", "csrc/layernorm_kernels.cu", "c6691785", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kBlockProfiles,
    .build = build_old,
};

constinit const CastPath vllm_rms_norm_new{
    .name = "vllm.rms_norm.new",
    .title = "vLLM rms_norm kernel, new: weight in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"vllm-project/vllm", "csrc/layernorm_kernels.cu", "0b9c5412", "read"},
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
    .profiles = kBlockProfiles,
    .build = build_new,
};

constinit const CastPath vllm_fused_add_rms_norm_old{
    .name = "vllm.fused_add_rms_norm.old",
    .title = "vLLM fused_add_rms_norm kernel, old: residual sum rounded to T, cast, then weight",
    .norm = "rmsnorm",
    .source = {"vllm-project/vllm", "csrc/layernorm_kernels.cu", "c6691785", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "rounded",
    .required = "weight,residual",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kBlockProfiles,
    .build = build_fused_add_old,
};

constinit const CastPath vllm_fused_add_rms_norm_new{
    .name = "vllm.fused_add_rms_norm.new",
    .title = "vLLM fused_add_rms_norm kernel, new: residual sum rounded to T, weight in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"vllm-project/vllm", "csrc/layernorm_kernels.cu", "0b9c5412", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "rounded",
    .required = "weight,residual",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kBlockProfiles,
    .build = build_fused_add_new,
};

constinit const CastPath vllm_rms_norm_static_fp8{
    .name = "vllm.rms_norm.static_fp8",
    .title = "vLLM rms_norm_static_fp8_quant: two roundings to T, times 1 / scale, clamp, e4m3",
    .norm = "rmsnorm",
    .source = {"vllm-project/vllm", "csrc/layernorm_quant_kernels.cu", "0e1d935d", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "weight,scale",
    .optional = "",
    .norm_attributes = kStatic,
    .gaps = kGapClamp,
    .profiles = kBlockProfiles,
    .build = build_static_fp8,
};

constinit const CastPath vllm_rms_norm_dynamic_fp8{
    .name = "vllm.rms_norm.dynamic_fp8",
    .title =
        "vLLM dynamic per-token fp8: two roundings to T, row scale, division, clamp (acts with "
        "scale_cap only)",
    .norm = "rmsnorm",
    .source = {"vllm-project/vllm", "csrc/quantization/fused_kernels/layernorm_utils.cuh", "0112cf23", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "unrounded",
    .required = "weight",
    .optional = "residual",
    .norm_attributes = kPerToken,
    .gaps = kGapClamp,
    .profiles = kBlockProfiles,
    .build = build_dynamic_fp8,
};

}  // namespace norma::cast_paths

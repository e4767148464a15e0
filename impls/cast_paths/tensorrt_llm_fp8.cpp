// TensorRT-LLM generalRmsNorm with fp8 outputs: codes are made from the row rounded to T.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kCode = "TensorRT-LLM";

void require_quantizable(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_format(binding, "scale", kCode, {FormatId::fp32});
  for (const std::string_view tensor : {"weight", "bias"})
    require_format(binding, tensor, "TensorRT-LLM beside such an x", {binding.x});
}

// val * r * gamma (+ beta) in fp32, cast to T
Operand rounded_row(Builder& b) {
  const Operand n = kernel_x_hat(b, b.input("x"));
  const Operand w = b.input("weight");
  Operand sum = n;
  if (!b.binding().has("bias")) {
    sum = b.mul("nw", kFp32, n, w);
  } else if (bound_profile(b.binding()).contract_squares) {
    sum = b.map("nwb", Op::fma, kFp32, {n, w, b.input("bias")});
  } else {
    const Operand product = b.mul("nw", kFp32, n, w);
    sum = b.add("nwb", kFp32, product, b.input("bias"));
  }
  return b.cast("nw_T", b.x_format(), sum);
}

Operand saturated(Builder& b, Operand q) {
  return b.map("y", Op::cast, Rounding{.format = kE4m3fn, .overflow = Overflow::saturate}, {q});
}

// float(val) * scale_orig_quant. The factor that the host passes is taken as 1 / scale.
Program build_static(const Binding& binding) {
  require_quantizable(binding);
  Builder b("rmsnorm", binding);
  const Operand val = rounded_row(b);
  const Operand factor = b.map("scale_orig_quant", Op::reciprocal, kFp32, {b.input("scale")});
  b.output("y", saturated(b, b.mul("q", kFp32, val, factor)));
  return b.finish();
}

// val clamped to +-clampMax in T (a case's scale_cap), amax from 1e-6 on in T; codes are val * min(448 / amax, 448 *
// 512), and the scale handed out is max(amax / 448, 1 / (448 * 512)): each rounded by itself.
Program build_per_token(const Binding& binding) {
  require_quantizable(binding);
  Builder b("rmsnorm", binding);
  const FormatRef t = b.x_format();
  Operand val = rounded_row(b);
  const auto cap = binding.attributes.find("scale_cap");
  if (cap != binding.attributes.end() && cap->second < max_finite(t.id)) {
    const Operand most = b.cast("clamp_max", t, b.attribute("scale_cap"));
    const Operand below = b.map("val_below", Op::fmin, t, {val, most});
    val = b.map("val_clamped", Op::fmax, t, {below, b.map("clamp_min", Op::neg, t, {most})});
  }
  const Operand magnitude = b.map("abs_val", Op::abs, t, {val});
  const Operand start = b.cast("amax_start", t, b.constant("amax_start_f32", 0x1.0c6f7ap-20));  // 1e-6f
  const Operand counted = b.map("abs_or_start", Op::fmax, t, {magnitude, start});
  const Operand amax = b.reduce("amax", kFp32, counted, reduction(ReduceKind::amax, Term::value, {}));
  const Operand qmax = b.constant("qmax", 448);
  const Operand most = b.constant("most_factor", 448 * 512);
  const Operand factor = b.map("factor", Op::fmin, kFp32, {b.div("qmax_over_amax", kFp32, qmax, amax), most});
  b.output("y", saturated(b, b.mul("q", kFp32, val, factor)));
  const Operand floor = b.constant("least_scale", 0x1.24924ap-18);  // float(1 / (448 * 512))
  b.output("scale", b.map("row_scale", Op::fmax, kFp32, {b.div("amax_ratio", kFp32, amax, qmax), floor}));
  return b.finish();
}

constexpr CaseDefault kStatic[] = {{"quant", "static"}};
constexpr CaseDefault kPerToken[] = {{"quant", "per_token"}, {"quant_max", "448"}, {"scale_floor", "0x1.24924ap-18"}};

}  // namespace

constinit const CastPath tensorrt_llm_general_rms_norm_static_fp8{
    .name = "tensorrt_llm.general_rms_norm.static_fp8",
    .title = "TensorRT-LLM generalRmsNorm, per-tensor e4m3: from the row rounded to T, times 1 / scale",
    .norm = "rmsnorm",
    .source = {"NVIDIA/TensorRT-LLM", "cpp/tensorrt_llm/kernels/rmsnormKernels.cu", "06255cb", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight,scale",
    .optional = "bias",
    .norm_attributes = kStatic,
    .gaps = {},
    .profiles = kBlockProfiles,
    .build = build_static,
};

constinit const CastPath tensorrt_llm_general_rms_norm_per_token_fp8{
    .name = "tensorrt_llm.general_rms_norm.per_token_fp8",
    .title = "TensorRT-LLM generalRmsNorm, per-token e4m3: from the row rounded to T; its factor is not 1 / its scale",
    .norm = "rmsnorm",
    .source = {"NVIDIA/TensorRT-LLM", "cpp/tensorrt_llm/kernels/rmsnormKernels.cu", "06255cb", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "bias",
    .norm_attributes = kPerToken,
    .gaps = kGapClamp,
    .profiles = kBlockProfiles,
    .build = build_per_token,
};

}  // namespace norma::cast_paths

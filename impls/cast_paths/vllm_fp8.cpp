// More of vLLM's fp8 outputs: with the residual sum before them, and as AMD's formats have them.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/quantize.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kCode = "vLLM";
// quant_type_max of e4m3fnuz: 224, not the format's 240, so that ROCm's accuracy is that of e4m3fn.
constexpr double kRocmMax = 224;

void require_quantizable(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_format(binding, "scale", kCode, {FormatId::fp32});
  for (const std::string_view tensor : {"weight", "residual"})
    require_format(binding, tensor, "vLLM beside such an x", {binding.x});
}

// ((scalar_t)(x * r)) * weight, a product of two scalar_t
Operand cast_then_weight(Builder& b, Operand n) {
  const FormatRef t = b.x_format();
  return b.eager("nw", Op::mul, t, {b.cast("n_T", t, n), b.input("weight")});
}

enum class Sum { none, rounded };

// temp += residual in scalar_t, stored and read again; then as rms_norm_static_fp8_quant
template <Sum sum, FormatId to>
Program build_static(const Binding& binding) {
  require_quantizable(binding);
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand h = sum == Sum::rounded ? b.add("h", b.x_format(), x, b.input("residual")) : x;
  const Operand nw = cast_then_weight(b, kernel_x_hat(b, h));
  const Operand inverse = b.map("scale_inv", Op::reciprocal, kFp32, {b.input("scale")});
  const double limit = to == FormatId::e4m3fnuz ? kRocmMax : max_finite(to);
  b.output("y", clamp_to(b, "y", b.mul("q", kFp32, nw, inverse), FormatRef{to}, limit, Overflow::ieee));
  if (sum == Sum::rounded) b.output("residual", h);
  return b.finish();
}

// scale = max(min(absmax, scale_ub) / 224, 1 / (224 * 512)); the row's sum is not rounded
Program build_dynamic_rocm(const Binding& binding) {
  require_quantizable(binding);
  Builder b("rmsnorm", binding);
  Operand h = b.input("x");
  if (binding.has("residual")) {
    h = b.add("h", kFp32, h, b.input("residual"));
    b.output("residual", b.cast("h_T", b.x_format(), h));
  }
  const Operand nw = cast_then_weight(b, kernel_x_hat(b, h));
  const Operand counted =
      b.map("abs_or_0", Op::fmax, b.x_format(), {b.map("abs_nw", Op::abs, b.x_format(), {nw}), b.constant("zero", 0)});
  Operand largest = b.reduce("absmax", kFp32, counted, reduction(ReduceKind::amax, Term::value, {}));
  const auto cap = binding.attributes.find("scale_cap");
  if (cap != binding.attributes.end() && cap->second < max_finite(FormatId::fp32))
    largest = b.map("capped", Op::fmin, kFp32, {largest, b.cast("scale_ub", kFp32, b.attribute("scale_cap"))});
  const Operand ratio = b.div("absmax_ratio", kFp32, largest, b.constant("qmax", kRocmMax));
  const Operand floor = b.constant("min_scaling_factor", 0x1.24924ap-17);  // float(1 / (224 * 512))
  const Operand scale = b.map("row_scale", Op::fmax, kFp32, {ratio, floor});
  b.output("y",
           clamp_to(b, "y", b.div("q", kFp32, nw, scale), FormatRef{FormatId::e4m3fnuz}, kRocmMax, Overflow::ieee));
  b.output("scale", scale);
  return b.finish();
}

constexpr CaseDefault kStatic[] = {{"quant", "static"}};
constexpr CaseDefault kPerToken[] = {{"quant", "per_token"}, {"quant_max", "224"}, {"scale_floor", "0x1.24924ap-17"}};

}  // namespace

constinit const CastPath vllm_fused_add_rms_norm_static_fp8{
    .name = "vllm.fused_add_rms_norm.static_fp8",
    .title = "vLLM fused_add_rms_norm_static_fp8_quant: residual sum rounded to T, two roundings to T, 1 / scale, e4m3",
    .norm = "rmsnorm",
    .source = {"vllm-project/vllm", "csrc/layernorm_quant_kernels.cu", "0e1d935d", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "rounded",
    .required = "weight,residual,scale",
    .optional = "",
    .norm_attributes = kStatic,
    .gaps = kGapClamp,
    .profiles = kBlockProfiles,
    .build = build_static<Sum::rounded, FormatId::e4m3fn>,
};

constinit const CastPath vllm_rms_norm_static_fp8_rocm{
    .name = "vllm.rms_norm.static_fp8.rocm",
    .title = "vLLM rms_norm_static_fp8_quant on ROCm: e4m3fnuz, clamped to 224",
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
    .build = build_static<Sum::none, FormatId::e4m3fnuz>,
};

constinit const CastPath vllm_rms_norm_dynamic_fp8_rocm{
    .name = "vllm.rms_norm.dynamic_fp8.rocm",
    .title = "vLLM dynamic per-token fp8 on ROCm: e4m3fnuz, largest code 224 (clamp acts with scale_cap only)",
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
    .build = build_dynamic_rocm,
};

}  // namespace norma::cast_paths

// FlashInfer's CUDA templates. They are compiled with -use_fast_math: approximate division, no
// subnormals. Flushing of subnormals is not written here.
#include <cstdint>
#include <numeric>

#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/quantize.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

void require_half(const Binding& binding) {
  constexpr std::string_view code = "FlashInfer";
  require_format(binding, "x", code, {FormatId::bf16, FormatId::fp16});
  require_format(binding, "scale", code, {FormatId::fp32});
  for (const std::string_view tensor : {"weight", "residual"})
    require_format(binding, tensor, "FlashInfer beside such an x", {binding.x});
}

// n = x * rsqrt(ss / float(d) + eps); a thread loads gcd(16 / sizeof(T), d) elements at a time
Operand x_hat(Builder& b, Operand h) {
  const Profile& profile = bound_profile(b.binding());
  Reduction sum = reduction(ReduceKind::sum, Term::square, profile.sum);
  sum.contract = profile.contract_squares;
  if (profile.name == "flashinfer" && b.binding().cols > 0)
    sum.order.vec = static_cast<int>(std::gcd(std::int64_t{8}, b.binding().cols));
  const Operand ms = b.map("ms", Op::div, approximate(profile, kFp32), {b.reduce("ss", kFp32, h, sum), b.count()});
  return b.mul("n", kFp32, h, reciprocal_root(b, "r", kFp32, plus_eps(b, ms)));
}

// weight_bias + float(weight): 0 + -0 is 0
Operand weighted(Builder& b, Operand n, double weight_bias) {
  const Operand w = b.input("weight");
  const Operand factor = b.add("bias_w", kFp32, b.constant("weight_bias", weight_bias), w);
  return b.mul("nw", kFp32, n, factor);
}

template <int weight_bias>
Program build(const Binding& binding) {
  require_half(binding);
  Builder b("rmsnorm", binding);
  b.output("y", b.cast("y", b.x_format(), weighted(b, x_hat(b, b.input("x")), weight_bias)));
  return b.finish();
}

// x = float(input) + float(residual), kept in shared memory; residual = (T)x
template <int weight_bias>
Program build_fused_add(const Binding& binding) {
  require_half(binding);
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand h = b.add("h", kFp32, x, b.input("residual"));
  b.output("y", b.cast("y", b.x_format(), weighted(b, x_hat(b, h), weight_bias)));
  b.output("residual", b.cast("h_T", b.x_format(), h));
  return b.finish();
}

// x * r * (bias + w) * scale_inv, clamp, the saturating conversion; no rounding to T in between. With a residual,
// its unrounded sum with x in x's place.
template <FormatId to, bool fused_add>
Program build_quant(const Binding& binding) {
  require_half(binding);
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand h = fused_add ? b.add("h", kFp32, x, b.input("residual")) : x;
  const Operand nw = weighted(b, x_hat(b, h), 0);
  const Operand inverse =
      b.map("scale_inv", Op::reciprocal, approximate(bound_profile(binding), kFp32), {b.input("scale")});
  b.output("y", clamp_to(b, "y", b.mul("q", kFp32, nw, inverse), FormatRef{to}, max_finite(to), Overflow::saturate));
  if (fused_add) b.output("residual", b.cast("h_T", b.x_format(), h));
  return b.finish();
}

constexpr std::string_view kProfiles[] = {"flashinfer", "cuda_block", "cuda_warp", "sequential", "exact"};
constexpr CaseDefault kStatic[] = {{"quant", "static"}};

}  // namespace

constinit const CastPath flashinfer_rmsnorm{
    .name = "flashinfer.rmsnorm",
    .title = "FlashInfer RMSNorm: weight in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"flashinfer-ai/flashinfer", "include/flashinfer/norm.cuh", "fb28d72", "read"},
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
    .profiles = kProfiles,
    .build = build<0>,
};

constinit const CastPath flashinfer_gemma_rmsnorm{
    .name = "flashinfer.gemma_rmsnorm",
    .title = "FlashInfer GemmaRMSNorm: 1 + w in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"flashinfer-ai/flashinfer", "include/flashinfer/norm.cuh", "fb28d72", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "C",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = kOffsetOne,
    .gaps = {},
    .profiles = kProfiles,
    .build = build<1>,
};

constinit const CastPath flashinfer_fused_add_rmsnorm{
    .name = "flashinfer.fused_add_rmsnorm",
    .title = "FlashInfer FusedAddRMSNorm: residual sum unrounded, weight in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"flashinfer-ai/flashinfer", "include/flashinfer/norm.cuh", "fb28d72", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "unrounded",
    .required = "weight,residual",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kProfiles,
    .build = build_fused_add<0>,
};

constinit const CastPath flashinfer_rmsnorm_quant{
    .name = "flashinfer.rmsnorm_quant",
    .title = "FlashInfer RMSNormQuant: fp32 times 1 / scale, clamp, e4m3 (saturating)",
    .norm = "rmsnorm",
    .source = {"flashinfer-ai/flashinfer", "include/flashinfer/norm.cuh", "fb28d72", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight,scale",
    .optional = "",
    .norm_attributes = kStatic,
    .gaps = kGapClamp,
    .profiles = kProfiles,
    .build = build_quant<FormatId::e4m3fn, false>,
};

constinit const CastPath flashinfer_gemma_fused_add_rmsnorm{
    .name = "flashinfer.gemma_fused_add_rmsnorm",
    .title = "FlashInfer GemmaFusedAddRMSNorm: residual sum unrounded, 1 + w in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"flashinfer-ai/flashinfer", "include/flashinfer/norm.cuh", "fb28d72", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "C",
    .residual = "unrounded",
    .required = "weight,residual",
    .optional = "",
    .norm_attributes = kOffsetOne,
    .gaps = {},
    .profiles = kProfiles,
    .build = build_fused_add<1>,
};

constinit const CastPath flashinfer_rmsnorm_quant_e5m2{
    .name = "flashinfer.rmsnorm_quant.e5m2",
    .title = "FlashInfer RMSNormQuant: fp32 times 1 / scale, clamp, e5m2 (saturating)",
    .norm = "rmsnorm",
    .source = {"flashinfer-ai/flashinfer", "include/flashinfer/norm.cuh", "fb28d72", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight,scale",
    .optional = "",
    .norm_attributes = kStatic,
    .gaps = kGapClamp,
    .profiles = kProfiles,
    .build = build_quant<FormatId::e5m2, false>,
};

constinit const CastPath flashinfer_fused_add_rmsnorm_quant{
    .name = "flashinfer.fused_add_rmsnorm_quant",
    .title = "FlashInfer FusedAddRMSNormQuant: residual sum unrounded, fp32 times 1 / scale, clamp, e4m3",
    .norm = "rmsnorm",
    .source = {"flashinfer-ai/flashinfer", "include/flashinfer/norm.cuh:612", "fb28d72", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "unrounded",
    .required = "weight,residual,scale",
    .optional = "",
    .norm_attributes = kStatic,
    .gaps = kGapClamp,
    .profiles = kProfiles,
    .build = build_quant<FormatId::e4m3fn, true>,
};

// sgl-kernel calls FlashInfer's kernels.
namespace {

constexpr CastPath sgl_kernel(std::string_view name, std::string_view title, bool offset, std::string_view residual,
                              Program (*build)(const Binding&)) {
  return {
      .name = name,
      .title = title,
      .norm = "rmsnorm",
      .source = {"sgl-project/sglang", "sgl-kernel/csrc/elementwise/fused_add_rms_norm_kernel.cu", "48c848ac", "read"},
      .eps_default = "1e-6",
      .eps_place = "inside",
      .eps_class = "fp32",
      .root = "rsqrt",
      .tail = offset ? "C" : "B",
      .residual = residual,
      .required = residual.empty() ? "weight" : "weight,residual",
      .optional = "",
      .norm_attributes = offset ? std::span<const CaseDefault>(kOffsetOne) : std::span<const CaseDefault>(),
      .gaps = {},
      .profiles = kProfiles,
      .build = build};
}

}  // namespace

constinit const CastPath sgl_kernel_rmsnorm = sgl_kernel(
    "sgl_kernel.rmsnorm", "sgl-kernel rmsnorm: FlashInfer's kernel, weight in fp32, one cast", false, "", build<0>);

constinit const CastPath sgl_kernel_gemma_rmsnorm =
    sgl_kernel("sgl_kernel.gemma_rmsnorm", "sgl-kernel gemma_rmsnorm: FlashInfer's kernel, 1 + w in fp32, one cast",
               true, "", build<1>);

constinit const CastPath sgl_kernel_fused_add_rmsnorm = sgl_kernel(
    "sgl_kernel.fused_add_rmsnorm", "sgl-kernel fused_add_rmsnorm: FlashInfer's kernel, residual sum unrounded", false,
    "unrounded", build_fused_add<0>);

constinit const CastPath sgl_kernel_gemma_fused_add_rmsnorm =
    sgl_kernel("sgl_kernel.gemma_fused_add_rmsnorm",
               "sgl-kernel gemma_fused_add_rmsnorm: FlashInfer's kernel, residual sum unrounded, 1 + w in fp32", true,
               "unrounded", build_fused_add<1>);

}  // namespace norma::cast_paths

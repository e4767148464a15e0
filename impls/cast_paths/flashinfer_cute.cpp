// FlashInfer's kernels in CuTe-DSL, the default from Python, and its fused queries and keys. rsqrt and the reciprocal
// of a scale are the fast ones (PTX rsqrt.approx within 2 ulp, rcp.approx within 1).
#include "impls/cast_paths/catalog.hpp"
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

// x * rstd * (w + weight_bias), left to right in fp32
template <int weight_bias>
Operand normed(Builder& b, Operand h) {
  const Operand n = kernel_x_hat(b, h);
  const Operand w = b.input("weight");
  const Operand factor = b.add("w_bias", kFp32, w, b.constant("weight_bias", weight_bias));
  return b.mul("nw", kFp32, n, factor);
}

template <int weight_bias>
Program build(const Binding& binding) {
  require_half(binding);
  Builder b("rmsnorm", binding);
  b.output("y", b.cast("y", b.x_format(), normed<weight_bias>(b, b.input("x"))));
  return b.finish();
}

// the sum stays in fp32 for the norm and is stored rounded
template <int weight_bias>
Program build_fused_add(const Binding& binding) {
  require_half(binding);
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand h = b.add("h", kFp32, x, b.input("residual"));
  b.output("y", b.cast("y", b.x_format(), normed<weight_bias>(b, h)));
  b.output("residual", b.cast("h_T", b.x_format(), h));
  return b.finish();
}

Program build_quant(const Binding& binding) {
  require_half(binding);
  Builder b("rmsnorm", binding);
  const Operand nw = normed<0>(b, b.input("x"));
  const bool fast = bound_profile(binding).root == Profile::Root::within_2_ulp;
  const Rounding reciprocal{.format = kFp32, .within_ulp = fast ? 1 : 0};
  const Operand inverse = b.map("scale_inv", Op::reciprocal, reciprocal, {b.input("scale")});
  b.output("y", clamp_to_e4m3(b, "y", b.mul("q", kFp32, nw, inverse), Overflow::saturate));
  return b.finish();
}

constexpr std::string_view kProfiles[] = {"cuda_warp", "cuda_4warps", "sequential", "exact"};
constexpr CaseDefault kStatic[] = {{"quant", "static"}};

}  // namespace

constinit const CastPath flashinfer_cute_rmsnorm{
    .name = "flashinfer.cute.rmsnorm",
    .title = "FlashInfer RMSNorm in CuTe-DSL: weight in fp32, one cast, fast root",
    .norm = "rmsnorm",
    .source = {"flashinfer-ai/flashinfer", "flashinfer/norm/kernels/rmsnorm.py", "11b2d40", "read"},
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

constinit const CastPath flashinfer_cute_gemma_rmsnorm{
    .name = "flashinfer.cute.gemma_rmsnorm",
    .title = "FlashInfer GemmaRMSNorm in CuTe-DSL: w + 1 in fp32, one cast, fast root",
    .norm = "rmsnorm",
    .source = {"flashinfer-ai/flashinfer", "flashinfer/norm/kernels/rmsnorm.py", "11b2d40", "read"},
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

constinit const CastPath flashinfer_cute_fused_add_rmsnorm{
    .name = "flashinfer.cute.fused_add_rmsnorm",
    .title = "FlashInfer FusedAddRMSNorm in CuTe-DSL: residual sum unrounded, fast root",
    .norm = "rmsnorm",
    .source = {"flashinfer-ai/flashinfer", "flashinfer/norm/kernels/fused_add_rmsnorm.py", "fb28d72", "inferred"},
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

constinit const CastPath flashinfer_cute_rmsnorm_quant{
    .name = "flashinfer.cute.rmsnorm_quant",
    .title = "FlashInfer RMSNormQuant in CuTe-DSL: fp32 times a fast 1 / scale, clamp, e4m3",
    .norm = "rmsnorm",
    .source = {"flashinfer-ai/flashinfer", "flashinfer/norm/kernels/rmsnorm.py", "fb28d72", "read"},
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
    .build = build_quant,
};

constinit const CastPath flashinfer_fused_qk_rmsnorm{
    .name = "flashinfer.fused_qk_rmsnorm",
    .title = "FlashInfer fused_qk_rmsnorm_rope, the norm before the rotation: rounded to T so as to match unfused code",
    .norm = "rmsnorm",
    .source = {"flashinfer-ai/flashinfer", "include/flashinfer/norm/fused_qk_rmsnorm_rope.cuh", "b447fc6", "read"},
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

}  // namespace norma::cast_paths

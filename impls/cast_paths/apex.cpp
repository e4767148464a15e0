// apex: V is the output's format; its operators round every product.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kCode = "apex";

// ovals = gamma * static_cast<V>(r * x), V = T
Program build(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_one_format(binding, "FusedRMSNorm (mixed formats: apex.rms_norm.mixed)");
  Builder b("rmsnorm", binding);
  const Operand n = kernel_x_hat(b, b.input("x"));
  return binding.has("weight") ? finish_cast_then_weight(b, n) : finish_weight_then_cast(b, n);
}

// the same with V = the weight's format, which is the output's
Program build_mixed(const Binding& binding) {
  require_float_or_half(binding, kCode);
  Builder b("rmsnorm", binding);
  const Operand n = kernel_x_hat(b, b.input("x"));
  const Operand w = b.input("weight");
  const FormatRef v = b.format(w);
  b.output("y", b.eager("y", Op::mul, v, {w, b.cast("n_V", v, n)}));
  return b.finish();
}

constexpr std::string_view kProfiles[] = {"cuda_4warps", "cuda_warp", "sequential", "exact"};

// input * rsqrt(ms + eps), promoted to fp32; cast to the weight's format only if that is a half one
Program build_manual(const Binding& binding) {
  require_float_or_half(binding, "manual_rms_norm");
  Builder b("rmsnorm", binding);
  const Operand n = eager_x_hat(b, b.input("x"));
  if (!binding.has("weight")) {
    b.output("y", n);
    return b.finish();
  }
  const Operand w = b.input("weight");
  const FormatRef wf = b.format(w);
  b.output("y", b.eager("y", Op::mul, wf, {w, is_half(wf) ? b.cast("n_W", wf, n) : n}));
  return b.finish();
}

}  // namespace

constinit const CastPath apex_rms_norm{
    .name = "apex.rms_norm",
    .title = "apex FusedRMSNorm: cast, then weight",
    .norm = "rmsnorm",
    .source = {"NVIDIA/apex", "csrc/layer_norm_cuda_kernel.cu:333-352", "6424da3", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kProfiles,
    .build = build,
};

constinit const CastPath apex_rms_norm_mixed{
    .name = "apex.rms_norm.mixed",
    .title = "apex MixedFusedRMSNorm: computed and returned in the weight's format, usually fp32",
    .norm = "rmsnorm",
    .source = {"NVIDIA/apex", "csrc/layer_norm_cuda_kernel.cu:333-352", "6424da3", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "E",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kProfiles,
    .build = build_mixed,
};

constinit const CastPath apex_manual_rms_norm{
    .name = "apex.manual_rms_norm",
    .title = "apex manual_rms_norm: as T5, and without a weight the fp32 product as it is",
    .norm = "rmsnorm",
    .source = {"NVIDIA/apex", "apex/normalization/fused_layer_norm.py", "6424da3", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_manual,
};

}  // namespace norma::cast_paths

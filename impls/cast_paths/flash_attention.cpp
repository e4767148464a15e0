// FlashAttention's Triton layer_norm in its RMSNorm mode. tl.sqrt and / are Triton's approximate ones.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

// x += residual in fp32, stored in the residual's format; rstd = 1 / tl.sqrt(var + eps); x_hat * w (+ b), one cast
template <int weight_bias>
Program build(const Binding& binding) {
  require_float_or_half(binding, "FlashAttention's layer_norm");
  Builder b("rmsnorm", binding);
  const Profile& profile = bound_profile(binding);
  Operand h = b.input("x");
  if (binding.has("residual")) {
    h = b.add("h", kFp32, h, b.input("residual"));
    b.output("residual", b.cast("h_stored", binding.format("residual"), h));
  }
  const Operand var = b.map("var", Op::div, approximate(profile, kFp32), {kernel_square_sum(b, h), b.count()});
  const Operand root = b.map("root", Op::sqrt, approximate(profile, kFp32), {plus_eps(b, var)});
  const Operand n = b.mul("n", kFp32, h, b.map("rstd", Op::reciprocal, approximate(profile, kFp32), {root}));
  Operand w = b.input("weight");
  if (weight_bias != 0) w = b.add("w_plus", kFp32, w, b.constant("weight_bias", weight_bias));
  Operand y = n;
  if (!binding.has("bias")) {
    y = b.mul("nw", kFp32, n, w);
  } else if (profile.contract_squares) {
    y = b.map("nwb", Op::fma, kFp32, {n, w, b.input("bias")});
  } else {
    const Operand product = b.mul("nw", kFp32, n, w);
    y = b.add("nwb", kFp32, product, b.input("bias"));
  }
  b.output("y", b.cast("y", b.x_format(), y));
  return b.finish();
}

}  // namespace

constinit const CastPath flash_attention_triton_rms_norm{
    .name = "flash_attention.triton.rms_norm",
    .title = "FlashAttention's Triton rms_norm: residual sum unrounded, weight and bias in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"Dao-AILab/flash-attention", "flash_attn/ops/triton/layer_norm.py:201-285", "0251105", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "1/sqrt",
    .tail = "B",
    .residual = "unrounded",
    .required = "weight",
    .optional = "bias,residual",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kTritonProfiles,
    .build = build<0>,
};

constinit const CastPath flash_attention_triton_rms_norm_zero_centered{
    .name = "flash_attention.triton.rms_norm.zero_centered",
    .title = "FlashAttention's Triton rms_norm with zero-centered weights: w + 1 in fp32",
    .norm = "rmsnorm",
    .source = {"Dao-AILab/flash-attention", "flash_attn/ops/triton/layer_norm.py:201-285", "0251105", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "1/sqrt",
    .tail = "C",
    .residual = "unrounded",
    .required = "weight",
    .optional = "bias,residual",
    .norm_attributes = kOffsetOne,
    .gaps = {},
    .profiles = kTritonProfiles,
    .build = build<1>,
};

}  // namespace norma::cast_paths

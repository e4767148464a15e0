// Adaptive LayerNorm as one kernel: everything in fp32, one cast at the end.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/layernorm_steps.hpp"
#include "impls/cast_paths/modulation.hpp"

namespace norma::cast_paths {

namespace {

constexpr double kSglangEps = 1e-5;

// h = fma(x, gate + gate_bias, residual); Sum h and Sum h^2 in one pass, times the rounded 1/N; h - mean; then
// fma(., r weight, bias), or fma(. r, 1 + (scale + scale_bias), shift + shift_bias). Every operation is an intrinsic:
// nothing is left to the compiler. The kernel stores the rounded h and goes on with the unrounded one.
Program build_flashinfer(const Binding& binding) {
  constexpr std::string_view code = "FlashInfer's fused_dit_layernorm";
  for (const char* half : {"x", "residual", "gate", "scale", "shift"})
    require_format(binding, half, code, {FormatId::bf16});
  for (const char* full : {"weight", "bias", "gate_table", "scale_table", "shift_table"})
    require_format(binding, full, code, {FormatId::fp32});
  Builder b("ada_layernorm", binding);
  const Operand x = b.input("x");
  const Operand residual = b.input("residual");
  Operand h;
  if (binding.has("gate")) {
    const Operand gate = fp32_parameter(b, "gate");
    h = b.map("h", Op::fma, kFp32, {x, gate, residual});
  } else {
    h = b.add("h", kFp32, x, residual);
  }
  const Profile& profile = bound_profile(binding);
  Reduction squares = reduction(ReduceKind::sum, Term::square, profile.sum);
  squares.contract = true;
  const Operand total = b.reduce("total", kFp32, h, reduction(ReduceKind::sum, Term::value, profile.sum));
  const Operand total_squares = b.reduce("total_sq", kFp32, h, squares);
  const Operand each = b.map("one_Nth", Op::reciprocal, kFp32, {b.count()});
  const Operand mean = b.mul("mean", kFp32, total, each);
  const Operand ms = b.mul("ms", kFp32, total_squares, each);
  const Operand opposite = b.map("minus_mean", Op::neg, kFp32, {mean});
  const Operand difference = b.map("var", Op::fma, kFp32, {opposite, mean, ms});
  const Operand variance = b.map("var_or_0", Op::fmax, kFp32, {difference, b.constant("zero", 0)});
  const Operand r = b.rsqrt("r", kFp32, plus_eps(b, variance, "var_eps"));
  const Operand c = b.sub("centred", kFp32, h, mean);
  Operand y;
  if (binding.has("weight")) {
    const Operand factor = b.mul("r_w", kFp32, r, b.input("weight"));
    y = b.map("nwb", Op::fma, kFp32, {c, factor, b.input("bias")});
  } else {
    y = fp32_modulation(b, b.mul("n", kFp32, c, r), Factor::one_plus_scale, true);
  }
  b.output("residual", b.cast("residual_out", kBf16, h));
  b.output("y", b.cast("y", kBf16, y));
  return b.finish();
}

// mean, mean of (x - mean)^2, rsqrt(var + 1e-5f); ((x - mean) r weight + bias) (1 + scale) + shift. With a residual the
// sum is rounded first and all that follows reads it rounded.
Program build_sglang(const Binding& binding) {
  constexpr std::string_view code = "SGLang's fused_layernorm_scale_shift";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  Builder b("ada_layernorm", binding);
  Operand h = b.input("x");
  if (binding.has("residual")) {
    const Operand residual = b.input("residual");
    const Operand sum = binding.has("gate") ? multiply_add(b, "h_f32", h, vector_input(b, "gate"), residual)
                                            : b.add("h_f32", kFp32, residual, h);
    h = b.cast("h", b.x_format(), sum);
    b.output("residual", h);
  }
  const RowMoments moments = two_pass(b, h);
  const Operand eps = b.cast("eps_f32", kFp32, b.constant("eps_literal", kSglangEps));
  const Operand r = reciprocal_root(b, "r", kFp32, b.add("var_eps", kFp32, moments.variance, eps));
  const Operand c = b.sub("centred", kFp32, h, moments.mean);
  const Operand n = weigh(b, b.mul("n", kFp32, c, r));
  const bool contract = bound_profile(binding).contract_squares;
  b.output("y", b.cast("y", b.x_format(), fp32_modulation(b, n, Factor::one_plus_scale, contract)));
  return b.finish();
}

// 384 threads of 8 neighbours each in the real kernel.
constexpr std::string_view kFlashInferProfiles[] = {"cuda_block_vec8", "cuda_warp", "sequential", "exact"};
constexpr std::string_view kSglangProfiles[] = {"cuda_4warps", "cuda_block_vec8", "cuda_warp", "sequential", "exact"};

}  // namespace

constinit const CastPath flashinfer_fused_dit_layernorm_affine{
    .name = "flashinfer.fused_dit_layernorm.gate_residual_gamma_beta",
    .title = "FlashInfer's Wan kernel: gated residual in fp32, its own weight and bias, one cast",
    .norm = "ada_layernorm",
    .source = {"flashinfer-ai/flashinfer", "include/flashinfer/fused_dit_layernorm.cuh", "fb28d72", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "L",
    .residual = "unrounded",
    .required = "residual,gate,gate_table,weight,bias",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kFlashInferProfiles,
    .build = build_flashinfer,
};

constinit const CastPath flashinfer_fused_dit_layernorm_no_gate{
    .name = "flashinfer.fused_dit_layernorm.residual_scale_shift",
    .title = "FlashInfer's Wan kernel: residual and modulation in fp32, one cast",
    .norm = "ada_layernorm",
    .source = {"flashinfer-ai/flashinfer", "include/flashinfer/fused_dit_layernorm.cuh", "fb28d72", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "L",
    .residual = "unrounded",
    .required = "residual,scale,shift,scale_table,shift_table",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kFlashInferProfiles,
    .build = build_flashinfer,
};

constinit const CastPath flashinfer_fused_dit_layernorm{
    .name = "flashinfer.fused_dit_layernorm.gate_residual_scale_shift",
    .title = "FlashInfer's Wan kernel: gated residual and modulation in fp32, one cast",
    .norm = "ada_layernorm",
    .source = {"flashinfer-ai/flashinfer", "include/flashinfer/fused_dit_layernorm.cuh", "fb28d72", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "L",
    .residual = "unrounded",
    .required = "residual,gate,gate_table,scale,shift,scale_table,shift_table",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kFlashInferProfiles,
    .build = build_flashinfer,
};

constinit const CastPath sglang_fused_layernorm_scale_shift{
    .name = "sglang.fused_layernorm_scale_shift",
    .title = "SGLang's kernel: norm and modulation in fp32, one cast; eps is a literal",
    .norm = "ada_layernorm",
    .source = {"sgl-project/sglang", "sgl-kernel/csrc/elementwise/fused_layernorm_scale_shift.cu", "82c8cae3", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "hard-coded",
    .root = "rsqrt",
    .tail = "L",
    .residual = "",
    .required = "scale,shift",
    .optional = "weight,bias",
    .norm_attributes = {},
    .gaps = kGapHardCoded,
    .profiles = kSglangProfiles,
    .build = build_sglang,
};

constinit const CastPath sglang_fused_gated_layernorm_scale_shift{
    .name = "sglang.fused_scale_residual_layernorm_scale_shift",
    .title =
        "SGLang's kernel: residual + x gate rounded and stored, its norm and modulation in fp32, one cast; eps is a "
        "literal",
    .norm = "ada_layernorm",
    .source = {"sgl-project/sglang", "sgl-kernel/csrc/elementwise/fused_layernorm_scale_shift.cu", "82c8cae3", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "hard-coded",
    .root = "rsqrt",
    .tail = "L",
    .residual = "rounded",
    .required = "residual,scale,shift",
    .optional = "gate,weight,bias",
    .norm_attributes = {},
    .gaps = kGapHardCoded,
    .profiles = kSglangProfiles,
    .build = build_sglang,
};

}  // namespace norma::cast_paths

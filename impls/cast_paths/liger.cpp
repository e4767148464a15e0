// Liger-Kernel's Triton kernel by casting mode. Triton divides approximately (div.full.f32).
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kCode = "Liger";

// rsqrt(sum / n_cols + eps)
Operand inverse_rms(Builder& b, Operand square_sum, FormatRef eps_format) {
  const Profile& profile = bound_profile(b.binding());
  const Operand eps_f32 = eps_in_fp32(b);
  const Operand eps = eps_format == kFp32 ? eps_f32 : b.cast("eps_T", eps_format, eps_f32);
  const Operand ms = b.map("ms", Op::div, approximate(profile, kFp32), {square_sum, b.count()});
  return reciprocal_root(b, "r", kFp32, b.add("ms_eps", kFp32, ms, eps));
}

Operand x_hat(Builder& b, Operand h) { return b.mul("n", kFp32, h, inverse_rms(b, kernel_square_sum(b, h), kFp32)); }

// offset + W in fp32, because offset is an fp32 tensor: 0 + -0 is 0
Operand fp32_factor(Builder& b, double offset) {
  const Operand w = b.input("weight");
  return b.add("offset_w", kFp32, b.constant("offset", offset), w);
}

// X_row.to(X_dtype) * (offset + W_row): fp32 again by promotion, rounded by the store
Program finish_llama(Builder& b, Operand n) {
  const FormatRef t = b.x_format();
  const Operand n_t = b.cast("n_T", t, n);
  b.output("y", b.cast("y", t, b.mul("nw", kFp32, n_t, fp32_factor(b, 0))));
  return b.finish();
}

Program build_llama(const Binding& binding) {
  require_float_or_half(binding, kCode);
  Builder b("rmsnorm", binding);
  return finish_llama(b, x_hat(b, b.input("x")));
}

Program build_gemma(const Binding& binding) {
  require_float_or_half(binding, kCode);
  Builder b("rmsnorm", binding);
  const Operand n = x_hat(b, b.input("x"));
  b.output("y", b.cast("y", b.x_format(), b.mul("nw", kFp32, n, fp32_factor(b, 1))));
  return b.finish();
}

// eps and offset in T, squares in T. tl.sum takes bf16 to fp32 and leaves fp16; "/ n_cols" is fp32
// for both, and with it the root and all that it multiplies.
Program build_none(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_one_format(binding, kCode);
  Builder b("rmsnorm", binding);
  const FormatRef t = b.x_format();
  const Operand x = b.input("x");
  const Operand squares = b.mul("sq", t, x, x);
  const FormatRef accumulator = t.id == FormatId::fp16 ? t : kFp32;
  const Operand sum =
      b.reduce("ss", accumulator, squares, reduction(ReduceKind::sum, Term::value, bound_profile(binding).sum));
  const Operand n = b.mul("n", kFp32, x, inverse_rms(b, sum, t));
  const Operand w = b.input("weight");
  const Operand factor = b.add("offset_w", t, b.constant("offset", 0), w);
  b.output("y", b.cast("y", t, b.mul("nw", kFp32, n, factor)));
  return b.finish();
}

// S = X + R rounded to T and stored; the norm reads the stored S
Program build_fused_add(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_format(binding, "residual", "Liger beside such an x", {binding.x});
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand h = b.add("h", b.x_format(), x, b.input("residual"));
  b.output("residual", h);
  return finish_llama(b, x_hat(b, h));
}

}  // namespace

constinit const CastPath liger_rms_norm_llama{
    .name = "liger.rms_norm.llama",
    .title = "Liger, casting mode llama: cast, then weight",
    .norm = "rmsnorm",
    .source = {"linkedin/Liger-Kernel", "src/liger_kernel/ops/rms_norm.py", "ead96b6", "read"},
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
    .profiles = kTritonProfiles,
    .build = build_llama,
};

constinit const CastPath liger_rms_norm_gemma{
    .name = "liger.rms_norm.gemma",
    .title = "Liger, casting mode gemma: 1 + w in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"linkedin/Liger-Kernel", "src/liger_kernel/ops/rms_norm.py", "ead96b6", "read"},
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
    .profiles = kTritonProfiles,
    .build = build_gemma,
};

constinit const CastPath liger_rms_norm_none{
    .name = "liger.rms_norm.none",
    .title = "Liger, casting mode none: squares and eps in T, then fp32 by Triton's promotion",
    .norm = "rmsnorm",
    .source = {"linkedin/Liger-Kernel", "src/liger_kernel/ops/rms_norm.py", "ead96b6", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "rounded to T",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kTritonProfiles,
    .build = build_none,
};

constinit const CastPath liger_fused_add_rms_norm{
    .name = "liger.fused_add_rms_norm",
    .title = "Liger fused_add_rms_norm, mode llama: residual sum rounded to T before the norm",
    .norm = "rmsnorm",
    .source = {"linkedin/Liger-Kernel", "src/liger_kernel/ops/fused_add_rms_norm.py", "ead96b6", "read"},
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
    .profiles = kTritonProfiles,
    .build = build_fused_add,
};

}  // namespace norma::cast_paths

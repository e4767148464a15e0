// SGLang: Gemma's norm in Python, and its kernels for a CPU.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kCode = "SGLang's CPU kernel";

// x + residual in T, stored; _norm(x.float()) * (1.0 + weight.float()), cast
Program build_gemma(const Binding& binding) {
  require_float_or_half(binding, "SGLang");
  Builder b("rmsnorm", binding);
  Operand h = b.input("x");
  if (binding.has("residual")) {
    require_format(binding, "residual", "SGLang's GemmaRMSNorm beside such an x", {binding.x});
    h = b.eager("h", Op::add, b.x_format(), {h, b.input("residual")});
    b.output("residual", h);
  }
  return finish_one_plus_weight_then_cast(b, eager_x_hat(b, h));
}

void require_reduced(const Binding& binding) {
  require_format(binding, "x", kCode, {FormatId::bf16, FormatId::fp16});
  require_one_format(binding, kCode);
}

// 1 / sqrt(sum / hidden_size + eps), whatever the profile's root; x * r * w, one cast
Operand cpu_x_hat(Builder& b, Operand h) {
  const Operand ss = kernel_square_sum(b, h);
  const Operand root = b.sqrt("rms", kFp32, plus_eps(b, b.div("ms", kFp32, ss, b.count())));
  return b.mul("n", kFp32, h, b.map("r", Op::reciprocal, kFp32, {root}));
}

Program build_cpu(const Binding& binding) {
  require_reduced(binding);
  Builder b("rmsnorm", binding);
  return finish_weight_then_cast(b, cpu_x_hat(b, b.input("x")));
}

// the sum goes to residual in T and to a buffer in fp32; the buffer is what is normalized
Program build_cpu_fused_add(const Binding& binding) {
  require_reduced(binding);
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand h = b.add("h", kFp32, x, b.input("residual"));
  b.output("residual", b.cast("h_T", b.x_format(), h));
  return finish_weight_then_cast(b, cpu_x_hat(b, h));
}

constexpr std::string_view kCpuProfiles[] = {"sequential", "pairwise", "exact"};

}  // namespace

constinit const CastPath sglang_gemma_rmsnorm_native{
    .name = "sglang.gemma_rmsnorm.native",
    .title = "SGLang GemmaRMSNorm.forward_native: residual sum rounded to T, 1 + w in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"sgl-project/sglang", "python/sglang/srt/layers/layernorm.py", "000fc1a8", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "C",
    .residual = "rounded",
    .required = "weight",
    .optional = "residual",
    .norm_attributes = kOffsetOne,
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_gemma,
};

constinit const CastPath sglang_cpu_rmsnorm{
    .name = "sglang.cpu.rmsnorm",
    .title = "sgl-kernel rmsnorm_cpu: weight in fp32, one cast (its 16 lanes of sums are not modelled)",
    .norm = "rmsnorm",
    .source = {"sgl-project/sglang", "sgl-kernel/csrc/cpu/norm.cpp", "00b0408e", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "1/sqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kCpuProfiles,
    .build = build_cpu,
};

constinit const CastPath sglang_cpu_fused_add_rmsnorm{
    .name = "sglang.cpu.fused_add_rmsnorm",
    .title = "sgl-kernel fused_add_rmsnorm_cpu: the unrounded sum from an fp32 buffer, weight in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"sgl-project/sglang", "sgl-kernel/csrc/cpu/norm.cpp", "00b0408e", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "1/sqrt",
    .tail = "B",
    .residual = "unrounded",
    .required = "weight,residual",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kCpuProfiles,
    .build = build_cpu_fused_add,
};

constinit const CastPath sglang_cpu_l2norm{
    .name = "sglang.cpu.l2norm",
    .title = "sgl-kernel l2norm_cpu (Llama4TextL2Norm): a mean of squares, no weight, one cast",
    .norm = "rmsnorm",
    .source = {"sgl-project/sglang", "sgl-kernel/csrc/cpu/norm.cpp", "00b0408e", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "1/sqrt",
    .tail = "J",
    .residual = "",
    .required = "",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kCpuProfiles,
    .build = build_cpu,
};

}  // namespace norma::cast_paths

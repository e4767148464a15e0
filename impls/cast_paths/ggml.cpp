// ggml: fp32 in and out. On a CPU the squares are fp32 and their sum is a double.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

void require_fp32(const Binding& binding) {
  require_format(binding, "x", "ggml", {FormatId::fp32});
  require_one_format(binding, "ggml");
}

void refuse_bias_alone(const Binding& binding) {
  if (binding.has("bias") && !binding.has("weight")) throw ProgramError("ggml adds a bias only after a weight");
}

// sum += (double)(x * x); mean = sum / n; scale = 1.0f / sqrtf(mean + eps); y = x * scale; y * w is
// an op of its own
Program build_cpu(const Binding& binding) {
  require_fp32(binding);
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  Reduction squares = reduction(ReduceKind::sum, Term::square, bound_profile(binding).sum);
  squares.term_format = kFp32;
  const Operand sum = b.reduce("ss", kFp64, x, squares);
  const Operand mean = b.cast("ms", kFp32, b.div("ms_f64", kFp64, sum, b.count()));
  const Operand root = b.sqrt("rms", kFp32, plus_eps(b, mean));
  const Operand n = b.mul("n", kFp32, x, b.map("r", Op::reciprocal, kFp32, {root}));
  b.output("y", binding.has("weight") ? b.mul("y", kFp32, n, b.input("weight")) : n);
  return b.finish();
}

// scale = rsqrtf(sum / ncols + eps); scale * x * mul + add, the last two contracted
// (-use_fast_math)
Program build_cuda(const Binding& binding) {
  require_fp32(binding);
  refuse_bias_alone(binding);
  Builder b("rmsnorm", binding);
  const Profile& profile = bound_profile(binding);
  const Operand x = b.input("x");
  const Operand mean = b.map("ms", Op::div, approximate(profile, kFp32), {kernel_square_sum(b, x), b.count()});
  const Operand r = reciprocal_root(b, "r", kFp32, plus_eps(b, mean));
  const Operand n = b.mul("n", kFp32, r, x);
  if (!binding.has("weight")) {
    b.output("y", n);
    return b.finish();
  }
  const Operand w = b.input("weight");
  if (!binding.has("bias")) {
    b.output("y", b.mul("y", kFp32, n, w));
  } else if (profile.contract_squares) {
    b.output("y", b.map("y", Op::fma, kFp32, {n, w, b.input("bias")}));
  } else {
    const Operand product = b.mul("nw", kFp32, n, w);
    b.output("y", b.add("y", kFp32, product, b.input("bias")));
  }
  return b.finish();
}

constexpr std::string_view kCpuProfiles[] = {"sequential", "pairwise", "exact"};

}  // namespace

constinit const CastPath ggml_cpu_rms_norm{
    .name = "ggml.cpu.rms_norm",
    .title = "ggml on a CPU: fp32 squares, a double accumulator, 1 / sqrtf",
    .norm = "rmsnorm",
    .source = {"ggml-org/ggml", "src/ggml-cpu/ops.cpp", "d99724f", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "1/sqrt",
    .tail = "E",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kCpuProfiles,
    .build = build_cpu,
};

constinit const CastPath ggml_cuda_rms_norm{
    .name = "ggml.cuda.rms_norm",
    .title = "ggml on CUDA: fp32 throughout, weight and bias fused",
    .norm = "rmsnorm",
    .source = {"ggml-org/ggml", "src/ggml-cuda/norm.cu", "d99724f", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "E",
    .residual = "",
    .required = "",
    .optional = "weight,bias",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kBlockProfiles,
    .build = build_cuda,
};

}  // namespace norma::cast_paths

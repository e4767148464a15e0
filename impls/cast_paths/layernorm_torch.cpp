// torch.nn.functional.layer_norm, by device and version.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/layernorm_steps.hpp"

namespace norma::cast_paths {

namespace {

// Parameters are of x's format, or, for 16-bit rows on a CPU, all fp32.
enum class Mixed { taken, refused };
void require_torch_formats(const Binding& binding, Mixed mixed) {
  require_float_or_half(binding, "torch.layer_norm");
  for (const auto& [name, format] : binding.formats) {
    if (format == binding.x) continue;
    if (mixed == Mixed::taken && format == FormatId::fp32 && is_half({.id = binding.x})) continue;
    throw ProgramError(name + " is " + std::string(name_of(format)) + " and x is " + std::string(name_of(binding.x)) +
                       "; torch.layer_norm takes x's format for both" +
                       (mixed == Mixed::taken ? ", or fp32 parameters with 16-bit x" : ""));
  }
  if (binding.has("weight") && binding.has("bias") && !(binding.format("weight") == binding.format("bias")))
    throw ProgramError("weight is " + std::string(name_of(binding.format("weight").id)) + " and bias is " +
                       std::string(name_of(binding.format("bias").id)) +
                       "; torch.layer_norm takes one format for both");
}

Program build_cpu(const Binding& binding) {
  require_torch_formats(binding, Mixed::taken);
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  return finish_with_cast(b, torch_layer_norm(b, x, b.x_format(), affine_inputs(b)));
}

// WelfordOps over a block of 512; (x - mean) * rstd * gamma + beta, an absent gamma 1, an absent beta 0
Program fallback(const Binding& binding) {
  Builder b("layernorm", binding);
  const Profile& profile = bound_profile(binding);
  const Operand x = b.input("x");
  const Operand mean = b.moments("mean", "var", kFp32, x, block_moments_order(profile, OrderKind::welford_block),
                                 profile.contract_squares);
  const Operand r = inverse_deviation(b, {mean.node, 1});
  const Operand d = b.sub("d", kFp32, x, mean);
  const LayerNormParameters given = affine_inputs(b);
  const Operand beta = given.bias ? *given.bias : b.constant("no_bias", 0);
  if (!given.weight) return finish_with_cast(b, multiply_add(b, "nb", d, r, beta));
  return finish_with_cast(b, multiply_add(b, "nwb", b.mul("n", kFp32, d, r), *given.weight, beta));
}

Program build_cuda_fallback(const Binding& binding) {
  require_torch_formats(binding, Mixed::refused);
  return fallback(binding);
}

// Rows whose length is no multiple of 4 go to the fallback.
Program build_cuda(const Binding& binding) {
  require_torch_formats(binding, Mixed::refused);
  if (binding.cols % 4 != 0) {
    Binding other = binding;
    if (other.profile == "torch_cuda_fused") other.profile = "torch_cuda_moments";
    return fallback(other);
  }
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  return finish_with_cast(b, torch_layer_norm(b, x, b.x_format(), affine_inputs(b)));
}

// Statistics without contraction in every build; (x * rstd + (-rstd * mean)) * gamma + beta, which is contracted
Program build_1_13(const Binding& binding) {
  constexpr std::string_view code = "torch.layer_norm of 1.13";
  require_format(binding, "x", code, {FormatId::fp32});
  require_one_format(binding, code);
  Builder b("layernorm", binding);
  const Profile& profile = bound_profile(binding);
  const Operand x = b.input("x");
  const Operand mean = b.moments("mean", "var", kFp32, x, rowwise_moments_order(profile, b.x_format()), false);
  const Operand r = inverse_deviation(b, {mean.node, 1});
  const Operand offset = b.mul("offset", kFp32, b.map("minus_r", Op::neg, kFp32, {r}), mean);
  const LayerNormParameters given = affine_inputs(b);
  const Operand n = multiply_add(b, "n", x, r, offset);
  const Operand beta = given.bias ? *given.bias : b.constant("no_bias", 0);
  if (!given.weight) return finish_with_cast(b, b.add("nb", kFp32, n, beta));
  return finish_with_cast(b, multiply_add(b, "nwb", n, *given.weight, beta));
}

// bf16 throughout: every step of the statistics, eps, the root and the offset; the last line is fp32
Program build_bf16_moments(const Binding& binding) {
  constexpr std::string_view code = "torch.layer_norm of 1.12 to 1.13 for bf16";
  require_format(binding, "x", code, {FormatId::bf16});
  require_one_format(binding, code);
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  const Operand mean = b.moments("mean", "var", kBf16, x, rowwise_moments_order(bound_profile(binding), kFp32), false);
  const Operand eps = b.cast("eps_T", kBf16, b.attribute("eps"));
  const Operand sum = b.eager("var_eps", Op::add, kBf16, {{mean.node, 1}, eps});
  const Operand root = b.eager("r_sqrt", Op::sqrt, kBf16, {sum});
  const Operand r = b.eager("r", Op::reciprocal, kBf16, {root});
  const Operand offset = b.eager("offset", Op::mul, kBf16, {b.map("minus_r", Op::neg, kBf16, {r}), mean});
  const LayerNormParameters given = affine_inputs(b);
  const Operand n = multiply_add(b, "n", x, r, offset);
  const Operand beta = given.bias ? *given.bias : b.constant("no_bias", 0);
  if (!given.weight) return finish_with_cast(b, b.add("nb", kFp32, n, beta));
  return finish_with_cast(b, multiply_add(b, "nwb", n, *given.weight, beta));
}

// E[x^2] - E[x]^2 floored at 0, both sums times 1 / N; (x * rstd + (-rstd * mean)) * gamma + beta
Program build_2019(const Binding& binding) {
  constexpr std::string_view code = "torch.layer_norm of 2019";
  require_format(binding, "x", code, {FormatId::fp32});
  require_one_format(binding, code);
  Builder b("layernorm", binding);
  const Profile& profile = bound_profile(binding);
  const Operand x = b.input("x");
  const Operand c = b.map("rn", Op::reciprocal, kFp32, {b.count()});
  const Operand sum = b.reduce("sum", kFp32, x, reduction(ReduceKind::sum, Term::value, profile.sum));
  const Operand ss = kernel_square_sum(b, x);
  const Operand mean = b.mul("mean", kFp32, sum, c);
  const Operand ms = b.mul("ms", kFp32, ss, c);
  const Operand variance = b.sub("var", kFp32, ms, b.map("mean_sq", Op::square, kFp32, {mean}));
  const Operand floored = b.map("var_or_0", Op::max, kFp32, {variance, b.constant("zero", 0)});
  const Operand r = inverse_deviation(b, floored);
  const Operand offset = b.mul("offset", kFp32, b.map("minus_r", Op::neg, kFp32, {r}), mean);
  const LayerNormParameters given = affine_inputs(b);
  const Operand n = multiply_add(b, "n", x, r, offset);
  const Operand beta = given.bias ? *given.bias : b.constant("no_bias", 0);
  if (!given.weight) return finish_with_cast(b, b.add("nb", kFp32, n, beta));
  return finish_with_cast(b, multiply_add(b, "nwb", n, *given.weight, beta));
}

constexpr std::string_view kCpuProfiles[] = {"torch_cpu_moments", "torch_cpu_moments_plain", "torch_cpu_moments_2_6",
                                             "sequential"};
constexpr std::string_view kOldCpuProfiles[] = {"torch_cpu_moments_2_6", "sequential"};
constexpr std::string_view kBf16Profiles[] = {"torch_cpu_moments_bf16"};
constexpr std::string_view kCudaProfiles[] = {"torch_cuda_fused", "cuda_warp", "sequential"};
constexpr std::string_view kFallbackProfiles[] = {"torch_cuda_moments", "cuda_warp", "sequential"};

}  // namespace

constinit const CastPath torch_layer_norm_cpu = layernorm_path({
    .name = "torch.layer_norm.cpu",
    .title = "torch layer_norm on a CPU: ((x - mean) r) w + b for fp32 rows, (x r - r mean) w + b for 16-bit rows",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/cpu/layer_norm_kernel.cpp:26-140", "v2.6.0", "read"},
    .root = "1/sqrt",
    .profiles = kCpuProfiles,
    .build = build_cpu,
});

constinit const CastPath torch_layer_norm_cuda = layernorm_path({
    .name = "torch.layer_norm.cuda",
    .title = "torch layer_norm on CUDA: w (r (x - mean)) + b; rows not a multiple of 4 take the fallback",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/cuda/layer_norm_kernel.cu", "0005c538", "read"},
    .profiles = kCudaProfiles,
    .build = build_cuda,
});

constinit const CastPath torch_layer_norm_cuda_fallback = layernorm_path({
    .name = "torch.layer_norm.cuda.fallback",
    .title = "torch layer_norm on CUDA, unaligned rows: WelfordOps over a block, ((x - mean) r) w + b",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/cuda/layer_norm_kernel.cu", "0005c538", "read"},
    .profiles = kFallbackProfiles,
    .build = build_cuda_fallback,
});

constinit const CastPath torch_layer_norm_cpu_1_13 = layernorm_path({
    .name = "torch.layer_norm.cpu.1_13",
    .title = "torch layer_norm on a CPU up to 1.13, fp32: (x r - r mean) w + b, statistics never contracted",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/cpu/layer_norm_kernel.cpp:23-90", "00a9f88", "read"},
    .root = "1/sqrt",
    .profiles = kOldCpuProfiles,
    .build = build_1_13,
});

constinit const CastPath torch_layer_norm_cpu_1_12_bf16 = layernorm_path({
    .name = "torch.layer_norm.cpu.1_12.bf16",
    .title = "torch layer_norm on a CPU, 1.11 to 1.13, bf16: the statistics themselves in bf16 (issue 77507)",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/cpu/layer_norm_kernel.cpp:23-90", "00a9f88", "read"},
    .eps_class = "rounded to T",
    .root = "1/sqrt",
    .tail = "F",
    .profiles = kBf16Profiles,
    .build = build_bf16_moments,
});

constinit const CastPath torch_layer_norm_cpu_2019 = layernorm_path({
    .name = "torch.layer_norm.cpu.2019",
    .title = "torch layer_norm on a CPU in 2019: E[x^2] - E[x]^2 floored at 0 (the sums' order is open)",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/cpu/layer_norm_kernel.cpp", "0354b60", "inferred"},
    .root = "1/sqrt",
    .profiles = kOpenProfiles,
    .build = build_2019,
});

}  // namespace norma::cast_paths

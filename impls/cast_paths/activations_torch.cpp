// silu, gelu and softmax of torch on a CPU and in CUDA: fp32 inside, one cast at the end. That the CPU's steps are
// these, contracted as written, was measured with 2.15 on AVX-512: with SLEEF's own exp and tanh in their place every
// recorded bit comes out.
#include "impls/cast_paths/activation_steps.hpp"
#include "impls/cast_paths/catalog.hpp"

namespace norma::cast_paths {

namespace {

Program finish_in_t(Builder& b, Operand y) {
  b.output("y", b.cast("y", b.x_format(), y));
  return b.finish();
}

Operand fp32_constant(Builder& b, const std::string& name, double value) {
  return b.cast(name + "_f32", kFp32, b.constant(name, value));
}

// x / (1 + exp(-x)): -Inf gives NaN, where x sigmoid(x) ends in -0
Program build_silu(const Binding& binding) {
  require_float_or_half(binding, "torch's silu");
  Builder b("silu", binding);
  const Operand x = b.input("x");
  return finish_in_t(b, b.div("silu", kFp32, x, one_plus_exp_of_minus(b, x)));
}

Operand half_of(Builder& b, Operand x) {
  const Operand half = b.constant("half", 0.5);
  return b.mul("half_x", kFp32, x, half);
}

// x * 0.5 * (1 + erf)
Operand times_one_plus(Builder& b, Operand x, Operand erf) {
  const Operand half = half_of(b, x);
  const Operand one = b.constant("one", 1);
  return b.mul("gelu", kFp32, half, b.add("one_erf", kFp32, one, erf));
}

// x / sqrt 2 with M_SQRT1_2 as a float, which is 1 / sqrt 2 rounded
Operand over_root_two(Builder& b, Operand x) {
  const Operand alpha = b.rsqrt("alpha", kFp32, b.constant("two", 2));
  return b.mul("z", kFp32, x, alpha);
}

// sign(z) of a z that is not 0, exactly; 0 of 0, where gelu is 0 whatever this is
Operand sign_of(Builder& b, Operand z) {
  const Operand large = b.constant("large", 0x1p200);
  const Operand scaled = b.mul("z_large", kFp64, z, large);
  const Operand one = b.constant("sign_one", 1);
  const Operand below = b.map("z_to_one", Op::min, kFp64, {scaled, one});
  const Operand minus_one = b.constant("minus_one", -1);
  return b.map("sign", Op::max, kFp64, {below, minus_one});
}

// Vectorized<float>::erf: Abramowitz & Stegun 7.1.26, |error| <= 1.5e-7; r is its polynomial in t = 1 / (1 + p |z|)
Operand polynomial_erf(Builder& b, Operand z) {
  const Operand size = b.map("z_abs", Op::abs, kFp32, {z});
  const Operand p = fp32_constant(b, "p", 0.3275911);
  const Operand one = b.constant("one_t", 1);
  const Operand divisor = b.map("t_divisor", Op::fma, kFp32, {p, size, one});
  const Operand t = b.map("t", Op::reciprocal, kFp32, {divisor});
  Operand r = fp32_constant(b, "p5", 1.061405429);
  constexpr double kCoefficients[] = {-1.453152027, 1.421413741, -0.284496736, 0.254829592};
  for (int k = 0; k < 4; ++k) {
    const Operand c = fp32_constant(b, "p" + std::to_string(4 - k), kCoefficients[k]);
    r = b.map("r" + std::to_string(4 - k), Op::fma, kFp32, {r, t, c});
  }
  const Operand square = b.mul("z_square", kFp32, z, z);
  const Operand e = library_function(b, "e", Op::exp, b.map("minus_square", Op::neg, kFp32, {square}));
  const Operand et = b.mul("minus_e_t", kFp32, b.map("minus_e", Op::neg, kFp32, {e}), t);
  const Operand size_erf = b.map("erf_abs", Op::fma, kFp32, {et, r, one});
  return b.mul("erf", kFp32, sign_of(b, z), size_erf);
}

Program build_gelu_cpu(const Binding& binding) {
  require_float_or_half(binding, "torch's gelu");
  Builder b("gelu", binding);
  const Operand x = b.input("x");
  const Operand z = over_root_two(b, x);
  return finish_in_t(b, times_one_plus(b, x, polynomial_erf(b, z)));
}

Program build_gelu_erf(const Binding& binding) {
  require_float_or_half(binding, "torch's gelu");
  Builder b("gelu", binding);
  const Operand x = b.input("x");
  const Operand z = over_root_two(b, x);
  return finish_in_t(b, times_one_plus(b, x, library_function(b, "erf", Op::erf, z)));
}

// 0.5 * x * (1 + tanh(beta * (x + kappa * x^3))), the inner sum contracted on a CPU with FMA and by nvcc
Program build_gelu_tanh(const Binding& binding) {
  require_float_or_half(binding, "torch's gelu");
  Builder b("gelu", binding);
  const Operand x = b.input("x");
  const Operand square = b.mul("x2", kFp32, x, x);
  const Operand cube = b.mul("x3", kFp32, square, x);
  const Operand kappa = fp32_constant(b, "kappa", 0.044715);
  const Operand sum = b.map("inner_sum", Op::fma, kFp32, {kappa, cube, x});
  const Operand beta = fp32_constant(b, "beta", 0x1.9884533d43651p-1);  // M_SQRT2 * M_2_SQRTPI * 0.5 in binary64
  const Operand tanh = library_function(b, "tanh", Op::tanh, b.mul("inner", kFp32, beta, sum));
  return finish_in_t(b, times_one_plus(b, x, tanh));
}

struct Exponentials {
  Operand terms, total;
};
// e^(x - largest) and its sum
Exponentials exponentials(Builder& b, Order order) {
  const Operand x = b.input("x");
  const Operand largest = b.reduce("largest", kFp32, x, reduction(ReduceKind::largest, Term::value, {}));
  const Operand e = library_function(b, "e", Op::exp, b.sub("below", kFp32, x, largest));
  return {e, b.reduce("total", kFp32, e, reduction(ReduceKind::sum, Term::value, order))};
}

// e * (1 / sum): vec::reduce_all of fp32 rows, a loop over whole vectors and a tail of 16-bit rows
Program build_softmax_cpu(const Binding& binding) {
  require_float_or_half(binding, "torch's softmax");
  Builder b("softmax", binding);
  const Profile& profile = bound_profile(binding);
  const auto [e, total] = exponentials(b, is_half(b.x_format()) ? profile.sum_half : profile.sum);
  return finish_in_t(b, b.mul("softmax", kFp32, e, b.map("r", Op::reciprocal, kFp32, {total})));
}

// Which of host_softmax's kernels takes a row: up to 2048 elements and 8 KiB one warp, each lane every 32nd element;
// then 1024 threads, each every 1024th element in registers, up to nine; then whole vectors of 16 bytes from shared
// memory.
Order cuda_softmax_order(const Binding& binding) {
  const std::int64_t bytes = format_of(binding.x).storage_bytes(), cols = binding.cols;
  const std::int64_t vector = 16 / bytes;
  if (cols <= 2048 && cols * bytes <= 8192) return {.kind = OrderKind::warp, .count = 32, .vec = 1};
  if (cols <= 9 * 1024) return {.kind = OrderKind::block, .count = 1024, .vec = 1};
  constexpr std::int64_t kSharedBytes = 48 * 1024 - 32 * 4;
  if (cols % vector != 0 || cols >= kSharedBytes / bytes)
    throw ProgramError("x has rows of " + std::to_string(cols) +
                       " columns; of torch's CUDA softmax the kernels for rows of " +
                       "up to 9216 columns, or of whole 16-byte vectors that fit 48 KiB, are known here");
  return {.kind = OrderKind::block, .count = 1024, .vec = static_cast<int>(vector)};
}

// e / sum
Program build_softmax_cuda(const Binding& binding) {
  require_float_or_half(binding, "torch's softmax");
  Builder b("softmax", binding);
  const Profile& profile = bound_profile(binding);
  const bool exact = profile.sum.kind == OrderKind::exact;
  const auto [e, total] = exponentials(b, exact ? profile.sum : cuda_softmax_order(binding));
  return finish_in_t(b, b.div("softmax", kFp32, e, total));
}

constexpr std::string_view kCpuProfiles[] = {"torch_cpu", "exact"};
constexpr std::string_view kCudaProfiles[] = {"torch_cuda", "exact"};
constexpr std::string_view kCpuSoftmaxProfiles[] = {"torch_cpu_softmax", "torch_cpu_softmax_avx2", "exact"};
constexpr std::string_view kGapErf[] = {"erf_polynomial"};
constexpr std::string_view kGapConstant[] = {"constant_in_binary64"};

}  // namespace

constinit const CastPath torch_silu = activation_path(
    "silu", "L", kElementwiseProfiles,
    {.name = "torch.silu",
     .title = "F.silu on a CPU and in CUDA: x / (1 + exp(-x)) in fp32, one cast; NaN at -Inf",
     .source = {"pytorch/pytorch", "aten/src/ATen/native/cpu/Activation.cpp, native/cuda/ActivationSiluKernel.cu",
                "02def0c", "read"},
     .required = "",
     .optional = "",
     .norm_attributes = {},
     .gaps = {},
     .build = build_silu});

constinit const CastPath torch_gelu_cpu = activation_path(
    "gelu", "L", kCpuProfiles,
    {.name = "torch.gelu.cpu",
     .title = "F.gelu on a CPU by ATen's kernel (fp16; fp32 and bf16 where oneDNN is off): erf by a polynomial, error "
              "1.5e-7",
     .source = {"pytorch/pytorch", "aten/src/ATen/native/cpu/Gelu.h, ATen/cpu/vec/vec512/vec512_float.h:289-320",
                "d0f2af8b", "read"},
     .required = "",
     .optional = "",
     .norm_attributes = {},
     .gaps = kGapErf,
     .build = build_gelu_cpu});

constinit const CastPath torch_gelu_cpu_scalar = activation_path(
    "gelu", "L", kCpuProfiles,
    {.name = "torch.gelu.cpu.scalar",
     .title =
         "as torch.gelu.cpu, the elements left after whole pairs of vectors (the last numel mod 32, 16-bit mod 64): "
         "std::erf",
     .source = {"pytorch/pytorch", "aten/src/ATen/native/cpu/Gelu.h:64-69", "d0f2af8b", "read"},
     .required = "",
     .optional = "",
     .norm_attributes = {},
     .gaps = {},
     .build = build_gelu_erf});

constinit const CastPath torch_gelu_cuda = activation_path(
    "gelu", "L", kCudaProfiles,
    {.name = "torch.gelu.cuda",
     .title = "F.gelu in CUDA: x * 0.5 * (1 + erff(x / sqrt 2)) in fp32, one cast",
     .source = {"pytorch/pytorch", "aten/src/ATen/native/cuda/ActivationGeluKernel.cu:33-40", "", "quoted"},
     .required = "",
     .optional = "",
     .norm_attributes = {},
     .gaps = {},
     .build = build_gelu_erf});

constinit const CastPath torch_gelu_tanh = activation_path(
    "gelu", "L", kElementwiseProfiles,
    {.name = "torch.gelu_tanh",
     .title = "F.gelu(approximate='tanh') on a CPU and in CUDA: in fp32, x + 0.044715 x^3 contracted, one cast",
     .source = {"pytorch/pytorch", "aten/src/ATen/native/cpu/Gelu.h:33-61, native/cuda/ActivationGeluKernel.cu:22-32",
                "d0f2af8b", "read"},
     .required = "",
     .optional = "",
     .norm_attributes = kApproximateTanh,
     .gaps = kGapConstant,
     .build = build_gelu_tanh});

constinit const CastPath torch_softmax_cpu =
    activation_path("softmax", "L", kCpuSoftmaxProfiles,
                    {.name = "torch.softmax.cpu",
                     .title = "F.softmax over the last axis on a CPU: e^(x - max) in fp32 times 1 / sum, one cast",
                     .source = {"pytorch/pytorch", "aten/src/ATen/native/cpu/SoftMaxKernel.cpp", "029586d", "read"},
                     .required = "",
                     .optional = "",
                     .norm_attributes = {},
                     .gaps = {},
                     .build = build_softmax_cpu});

constinit const CastPath torch_softmax_cuda = activation_path(
    "softmax", "L", kCudaProfiles,
    {.name = "torch.softmax.cuda",
     .title = "F.softmax over the last axis in CUDA: e^(x - max) / sum in fp32, a warp or a block a row, one cast",
     .source = {"pytorch/pytorch", "aten/src/ATen/native/cuda/PersistentSoftmax.cuh, SoftMax.cu (v2.10.0)", "d0f2af8b",
                "read"},
     .required = "",
     .optional = "",
     .norm_attributes = {},
     .gaps = {},
     .build = build_softmax_cuda});

}  // namespace norma::cast_paths

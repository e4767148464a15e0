// GroupNorm outside torch: ONNX, ONNX Runtime, Liger, ggml.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/channel_steps.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kNorm = "groupnorm";

Operand mean_of(Builder& b, const std::string& name, FormatRef to, Operand of, Term term, bool contract) {
  Reduction mean = reduction(ReduceKind::mean, term, bound_profile(b.binding()).sum);
  mean.contract = contract;
  return b.reduce(name, to, of, mean);
}

// In fp32: (x - mean) / sqrt(mean(x^2) - mean^2 + eps); Cast(T); Mul(scale) and Add(bias) in T
Program build_onnx(const Binding& binding) {
  constexpr std::string_view code = "GroupNormalization-21";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  channel_sizes(binding);
  Builder b(std::string(kNorm), binding, kGroups);
  const FormatRef t = b.x_format();
  const Operand x = b.input("x");
  const Operand mean = mean_of(b, "mean", kFp32, x, Term::value, false);
  const Operand ms = mean_of(b, "ms", kFp32, x, Term::square, false);
  const Operand var = b.sub("var", kFp32, ms, b.map("mean_sq", Op::square, kFp32, {mean}));
  const Operand root = b.sqrt("std", kFp32, plus_eps(b, var, "var_eps"));
  const Operand d = b.sub("d", kFp32, x, mean);
  const Operand n = b.cast("n_T", t, b.div("n", kFp32, d, root));
  const Operand scaled = b.eager("scaled", Op::mul, t, {n, b.input("weight")});
  b.output("y", b.eager("y", Op::add, t, {scaled, b.input("bias")}));
  return b.finish();
}

// Sums of x and x^2 over NHWC, times 1 / HWC; rsqrtf(E[x^2] - mean^2 + eps); gamma * ((x - mean) * r) + beta, one cast
Program build_ort_nhwc(const Binding& binding) {
  constexpr std::string_view code = "ONNX Runtime's NHWC GroupNorm";
  require_float_or_half(binding, code);
  require_format(binding, "weight", code, {FormatId::fp32});
  require_format(binding, "bias", code, {FormatId::fp32});
  channel_sizes(binding);
  Builder b(std::string(kNorm), binding, kGroupsChannelsLast);
  const Profile& profile = bound_profile(binding);
  const Operand x = b.input("x");
  const Operand c = b.map("rn", Op::reciprocal, kFp32, {b.count()});
  const Operand sum = b.reduce("sum", kFp32, x, reduction(ReduceKind::sum, Term::value, profile.sum));
  const Operand ss = kernel_square_sum(b, x);
  const Operand mean = b.mul("mean", kFp32, sum, c);
  const Operand square = b.map("mean_sq", Op::square, kFp32, {mean});
  const Operand opposite = b.map("minus_mean_sq", Op::neg, kFp32, {square});
  const Operand var = multiply_add(b, "var", profile.contract_squares, ss, c, opposite);
  const Operand r = inverse_deviation(b, var);
  return finish_with_cast(b, centre_and_weigh(b, x, mean, r));
}

// E[x^2] - mean^2, unclamped, x * x in x's format; ((x - mean) * r) * w + b, one cast
Program build_liger(const Binding& binding) {
  constexpr std::string_view code = "Liger's group_norm";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  channel_sizes(binding);
  Builder b(std::string(kNorm), binding, kGroups);
  const Profile& profile = bound_profile(binding);
  const FormatRef t = b.x_format();
  const Operand x = b.input("x");
  const Operand sum = b.reduce("sum", kFp32, x, reduction(ReduceKind::sum, Term::value, profile.sum));
  const Operand product = b.eager("xx", Op::mul, t, {x, x});
  const Operand ss = b.reduce("ss", kFp32, product, reduction(ReduceKind::sum, Term::value, profile.sum));
  const Operand mean = b.map("mean", Op::div, approximate(profile, kFp32), {sum, b.count()});
  const Operand ms = b.map("ms", Op::div, approximate(profile, kFp32), {ss, b.count()});
  const Operand square = b.map("mean_sq", Op::square, kFp32, {mean});
  const Operand r = inverse_deviation(b, b.sub("var", kFp32, ms, square));
  return finish_with_cast(b, centre_and_weigh(b, x, mean, r));
}

void require_ggml(const Binding& binding) {
  require_format(binding, "x", "ggml", {FormatId::fp32});
  channel_sizes(binding);
}

// Double sums of the image rows, added up; v = x - mean; y = v * (1.0f / sqrtf(variance + eps))
Program build_ggml_cpu(const Binding& binding) {
  require_ggml(binding);
  Builder b(std::string(kNorm), binding, kGroups);
  const int row = binding.shape.size() < 3 ? 1 : static_cast<int>(binding.shape.back());
  const Order order{.kind = OrderKind::blocked, .count = row};
  const Operand x = b.input("x");
  const Operand sum = b.reduce("sum", kFp64, x, reduction(ReduceKind::sum, Term::value, order));
  const Operand mean = b.cast("mean", kFp32, b.div("mean_f64", kFp64, sum, b.count()));
  const Operand d = b.sub("d", kFp32, x, mean);
  Reduction squares = reduction(ReduceKind::sum, Term::square, order);
  squares.term_format = kFp32;
  const Operand sum2 = b.reduce("sum2", kFp64, d, squares);
  const Operand var = b.cast("var", kFp32, b.div("var_f64", kFp64, sum2, b.count()));
  const Operand root = b.sqrt("std", kFp32, plus_eps(b, var, "var_eps"));
  b.output("y", b.mul("y", kFp32, d, b.map("r", Op::reciprocal, kFp32, {root})));
  return b.finish();
}

// mean, then the variance of what is left, in fp32 over a block; x * rsqrtf(variance + eps)
Program build_ggml_cuda(const Binding& binding) {
  require_ggml(binding);
  Builder b(std::string(kNorm), binding, kGroups);
  const bool contracts = bound_profile(binding).contract_squares;
  const Operand x = b.input("x");
  const Operand d = b.sub("d", kFp32, x, mean_of(b, "mean", kFp32, x, Term::value, false));
  const Operand r = inverse_deviation(b, mean_of(b, "var", kFp32, d, Term::square, contracts));
  b.output("y", b.mul("y", kFp32, d, r));
  return b.finish();
}

constexpr std::string_view kGgmlCpu[] = {"sequential"};

}  // namespace

constinit const CastPath onnx_groupnormalization_21{
    .name = "onnx.groupnormalization.21",
    .title = "ONNX GroupNormalization-21, its function body: E[x^2] - mean^2 in fp32, cast, then scale and bias in T",
    .norm = kNorm,
    .source = {"onnx/onnx", "onnx/defs/nn/defs.cc:2726-2860", "f754691", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "x/sqrt",
    .tail = "A",
    .residual = "",
    .required = "weight,bias",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kOpenProfiles,
    .build = build_onnx,
};

constinit const CastPath onnxruntime_cuda_group_norm_nhwc{
    .name = "onnxruntime.cuda.group_norm_nhwc",
    .title = "ONNX Runtime and TensorRT NHWC GroupNorm: E[x^2] - mean^2 unclamped, fp32 parameters, one cast",
    .norm = kNorm,
    .source = {"microsoft/onnxruntime", "onnxruntime/contrib_ops/cuda/diffusion/group_norm_impl.cu", "1.21.0", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight,bias",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kBlockProfiles,
    .build = build_ort_nhwc,
};

constinit const CastPath liger_group_norm{
    .name = "liger.group_norm",
    .title = "Liger group_norm: E[x^2] - mean^2 unclamped, x * x in x's format",
    .norm = kNorm,
    .source = {"linkedin/Liger-Kernel", "src/liger_kernel/ops/group_norm.py", "ead96b6", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight,bias",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kTritonProfiles,
    .build = build_liger,
};

constinit const CastPath ggml_cpu_group_norm{
    .name = "ggml.cpu.group_norm",
    .title = "ggml group_norm on a CPU: double sums of fp32 deviations and squares, 1 / sqrtf, no parameters",
    .norm = kNorm,
    .source = {"ggml-org/ggml", "src/ggml-cpu/ops.cpp", "d99724f", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "1/sqrt",
    .tail = "E",
    .residual = "",
    .required = "",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kGgmlCpu,
    .build = build_ggml_cpu,
};

constinit const CastPath ggml_cuda_group_norm{
    .name = "ggml.cuda.group_norm",
    .title = "ggml group_norm on CUDA: two passes in fp32, rsqrtf, no parameters",
    .norm = kNorm,
    .source = {"ggml-org/ggml", "src/ggml-cuda/norm.cu", "d99724f", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "E",
    .residual = "",
    .required = "",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kBlockProfiles,
    .build = build_ggml_cuda,
};

}  // namespace norma::cast_paths

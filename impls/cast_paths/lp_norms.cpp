// Rows divided by their length: F.normalize as diffusers calls it, its p = 1, ONNX, ggml's l2_norm.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

// x / x.norm(p, -1, keepdim).clamp_min(eps): the norm accumulates in fp32 and is rounded to T; eps meets it in T (1e-12
// is 0 in fp16)
Program finish_normalize(Builder& b, Operand x, Operand norm_f32) {
  const FormatRef t = b.x_format();
  const Operand norm = b.cast("norm", t, norm_f32);
  const Operand divisor = b.map("divisor", Op::max, t, {norm, b.cast("eps_T", t, eps_in_fp32(b))});
  b.output("y", b.eager("y", Op::div, t, {x, divisor}));
  return b.finish();
}

Program build_normalize(const Binding& binding) {
  require_float_or_half(binding, "F.normalize");
  Builder b("l2norm", binding);
  const Operand x = b.input("x");
  return finish_normalize(b, x, b.sqrt("norm_f32", kFp32, kernel_square_sum(b, x)));
}

Operand magnitude_sum(Builder& b, FormatRef accumulator, Operand x) {
  const Operand size = b.map("size", Op::abs, b.x_format(), {x});
  return b.reduce("norm_f32", accumulator, size,
                  reduction(ReduceKind::sum, Term::value, bound_profile(b.binding()).sum));
}

Program build_normalize_p1(const Binding& binding) {
  require_float_or_half(binding, "F.normalize");
  Builder b("lp_norm", binding);
  const Operand x = b.input("x");
  return finish_normalize(b, x, magnitude_sum(b, kFp32, x));
}

// x / norm in T, without eps: 0/0 is NaN
template <int p>
Program build_onnx(const Binding& binding) {
  require_float_or_half(binding, "LpNormalization");
  Builder b("lp_norm", binding);
  const FormatRef t = b.x_format();
  const Operand x = b.input("x");
  const Operand norm = p == 1 ? magnitude_sum(b, kFp32, x) : b.sqrt("norm_f32", kFp32, kernel_square_sum(b, x));
  b.output("y", b.div("y", t, x, b.cast("norm", t, norm)));
  return b.finish();
}

void require_fp32(const Binding& binding) { require_format(binding, "x", "ggml", {FormatId::fp32}); }

// sum += (double)(x * x); scale = 1.0f / fmaxf(sqrtf(sum), eps); y = x * scale
Program build_ggml_cpu(const Binding& binding) {
  require_fp32(binding);
  Builder b("l2norm", binding);
  const Operand x = b.input("x");
  Reduction squares = reduction(ReduceKind::sum, Term::square, bound_profile(binding).sum);
  squares.term_format = kFp32;
  const Operand sum = b.cast("ss_f32", kFp32, b.reduce("ss", kFp64, x, squares));
  const Operand length = b.sqrt("length", kFp32, sum);
  const Operand divisor = b.map("divisor", Op::fmax, kFp32, {length, eps_in_fp32(b)});
  b.output("y", b.mul("y", kFp32, x, b.map("scale", Op::reciprocal, kFp32, {divisor})));
  return b.finish();
}

// scale = rsqrtf(fmaxf(sum, eps * eps)); y = scale * x
Program build_ggml_cuda(const Binding& binding) {
  require_fp32(binding);
  Builder b("l2norm", binding);
  const Operand x = b.input("x");
  const Operand sum = kernel_square_sum(b, x);
  const Operand eps = eps_in_fp32(b);
  const Operand least = b.mul("eps_eps", kFp32, eps, eps);
  const Operand scale = reciprocal_root(b, "scale", kFp32, b.map("divisor", Op::fmax, kFp32, {sum, least}));
  b.output("y", b.mul("y", kFp32, scale, x));
  return b.finish();
}

constexpr std::string_view kNormProfiles[] = {"torch_cpu_norm", "torch_cpu_strided", "torch_cuda", "pairwise", "exact"};
constexpr std::string_view kCpuProfiles[] = {"sequential", "pairwise", "exact"};
constexpr CaseDefault kP1[] = {{"p", "1"}};
constexpr CaseDefault kNoEps[] = {{"p", "2"}, {"eps", "0"}};
constexpr CaseDefault kP1NoEps[] = {{"p", "1"}, {"eps", "0"}};

}  // namespace

constinit const CastPath diffusers_lp_norm{
    .name = "diffusers.lp_norm",
    .title = "diffusers LpNorm of queries and keys, F.normalize with p = 2: every result in T; in fp16 eps is 0",
    .norm = "l2norm",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py:620", "58eb52c", "read"},
    .eps_default = "1e-12",
    .eps_place = "max",
    .eps_class = "rounded to T",
    .root = "x/max(sqrt(sum),eps)",
    .tail = "",
    .residual = "",
    .required = "",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kNormProfiles,
    .build = build_normalize,
};

constinit const CastPath torch_normalize_p1{
    .name = "torch.normalize.p1",
    .title = "F.normalize with p = 1: a sum of magnitudes, every result in T (the order of the sum is open)",
    .norm = "lp_norm",
    .source = {"pytorch/pytorch", "torch/nn/functional.py", "v2.6.0", "inferred"},
    .eps_default = "1e-12",
    .eps_place = "max",
    .eps_class = "rounded to T",
    .root = "x/max(sum,eps)",
    .tail = "",
    .residual = "",
    .required = "",
    .optional = "",
    .norm_attributes = kP1,
    .gaps = {},
    .profiles = kOpenProfiles,
    .build = build_normalize_p1,
};

constinit const CastPath onnx_lpnormalization{
    .name = "onnx.lpnormalization",
    .title = "ONNX LpNormalization, p = 2: division by the norm in T, no eps (the order of the sum is open)",
    .norm = "lp_norm",
    .source = {"onnx/onnx", "onnx/defs/nn/defs.cc", "f754691", "inferred"},
    .eps_default = "0",
    .eps_place = "max",
    .eps_class = "exact",
    .root = "x/sqrt",
    .tail = "",
    .residual = "",
    .required = "",
    .optional = "",
    .norm_attributes = kNoEps,
    .gaps = {},
    .profiles = kOpenProfiles,
    .build = build_onnx<2>,
};

constinit const CastPath onnx_lpnormalization_p1{
    .name = "onnx.lpnormalization.p1",
    .title = "ONNX LpNormalization, p = 1: division by the norm in T, no eps (the order of the sum is open)",
    .norm = "lp_norm",
    .source = {"onnx/onnx", "onnx/defs/nn/defs.cc", "f754691", "inferred"},
    .eps_default = "0",
    .eps_place = "max",
    .eps_class = "exact",
    .root = "x/sum",
    .tail = "",
    .residual = "",
    .required = "",
    .optional = "",
    .norm_attributes = kP1NoEps,
    .gaps = {},
    .profiles = kOpenProfiles,
    .build = build_onnx<1>,
};

constinit const CastPath ggml_cpu_l2_norm{
    .name = "ggml.cpu.l2_norm",
    .title = "ggml l2_norm on a CPU: fp32 squares, a double accumulator, 1 / max(sqrtf, eps)",
    .norm = "l2norm",
    .source = {"ggml-org/ggml", "src/ggml-cpu/ops.cpp", "d99724f", "read"},
    .eps_default = "1e-6",
    .eps_place = "max",
    .eps_class = "fp32",
    .root = "1/max(sqrt(sum),eps)",
    .tail = "",
    .residual = "",
    .required = "",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kCpuProfiles,
    .build = build_ggml_cpu,
};

constinit const CastPath ggml_cuda_l2_norm{
    .name = "ggml.cuda.l2_norm",
    .title = "ggml l2_norm on CUDA: rsqrtf(max(sum, eps^2))",
    .norm = "l2norm",
    .source = {"ggml-org/ggml", "src/ggml-cuda/norm.cu", "d99724f", "read"},
    .eps_default = "1e-6",
    .eps_place = "max",
    .eps_class = "fp32",
    .root = "rsqrt(max(sum,eps^2))",
    .tail = "",
    .residual = "",
    .required = "",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kBlockProfiles,
    .build = build_ggml_cuda,
};

}  // namespace norma::cast_paths

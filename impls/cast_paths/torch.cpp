// torch.nn.functional.rms_norm by version. eps=None is a constant of the code, hence a gap.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kCode = "torch.rms_norm";

double epsilon_of(FormatRef format) {
  switch (format.id) {
    case FormatId::bf16: return 0x1p-7;
    case FormatId::fp16: return 0x1p-10;
    default: return 0x1p-23;  // require_float_or_half leaves fp32
  }
}

enum class Eps { given, none };

// eps_val is a scalar_t until 2.6: given as a double, it passes through float into x's format.
Operand eps_in_x_format(Builder& b, Eps eps) {
  const FormatRef t = b.x_format();
  if (eps == Eps::none) return b.cast("eps_T", t, b.constant("eps_finfo", epsilon_of(t)));
  return b.cast("eps_T", t, eps_in_fp32(b));
}

Operand eps_in_accumulator(Builder& b, Eps eps) {
  if (eps == Eps::none) return b.cast("eps_f32", kFp32, b.constant("eps_finfo", epsilon_of(kFp32)));
  return eps_in_fp32(b);
}

// input.mul(rsqrt(pow(input, 2).mean(-1).add_(eps))).mul(weight), every operation in T (no upcast)
template <Eps eps>
Program build_2_4_0(const Binding& binding) {
  require_float_or_half(binding, kCode);
  Builder b("rmsnorm", binding);
  const FormatRef t = b.x_format();
  const Operand x = b.input("x");
  const Operand squares = b.eager("sq", Op::square, t, {x});
  const Operand mean =
      b.reduce("ms_f32", kFp32, squares, reduction(ReduceKind::mean, Term::value, bound_profile(binding).sum));
  const Operand sum = b.eager("ms_eps", Op::add, t, {b.cast("ms", t, mean), eps_in_x_format(b, eps)});
  const Operand n = b.eager("n", Op::mul, t, {x, eager_rsqrt(b, "r", t, sum)});
  if (!binding.has("weight")) {
    b.output("y", n);
    return b.finish();
  }
  const Operand w = b.input("weight");
  b.output("y", b.eager("y", Op::mul, promote(t, b.format(w)), {n, w}));
  return b.finish();
}

// upcast.mul(rsqrt(pow(upcast, 2).mean(-1).add_(eps_val))).type_as(input).mul(weight)
template <Eps eps>
Program build_2_6(const Binding& binding) {
  require_float_or_half(binding, kCode);
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand n = eager_x_hat(b, x, eps_in_x_format(b, eps));
  return binding.has("weight") ? finish_cast_then_weight(b, n) : finish_weight_then_cast(b, n);
}

// upcast.mul(rsqrt(...)).mul(weight).type_as(input)
template <Eps eps>
Program build_2_8(const Binding& binding) {
  require_float_or_half(binding, kCode);
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  return finish_weight_then_cast(b, eager_x_hat(b, x, eps_in_accumulator(b, eps)));
}

// r = rsqrt(var + mean * mean + eps) from Welford moments; x * r * weight, one cast
Program fallback(Builder& b, Eps eps) {
  const Profile& profile = bound_profile(b.binding());
  const Operand x = b.input("x");
  const Operand mean = b.moments("mean", "var", kFp32, x, moments_order(profile), profile.contract_squares);
  const Operand var{mean.node, 1};
  Operand ms;
  if (profile.contract_squares) {
    ms = b.map("ms", Op::fma, kFp32, {mean, mean, var});
  } else {
    const Operand mean_square = b.mul("mean_sq", kFp32, mean, mean);
    ms = b.add("ms", kFp32, var, mean_square);
  }
  const Operand r = reciprocal_root(b, "r", kFp32, b.add("ms_eps", kFp32, ms, eps_in_accumulator(b, eps)));
  return finish_weight_then_cast(b, b.mul("n", kFp32, x, r));
}

template <Eps eps>
Program build_fallback(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_one_format(binding, "torch's fused rms_norm (else the composite, torch.rms_norm.2_8)");
  Builder b("rmsnorm", binding);
  return fallback(b, eps);
}

// vectorised: weight * (r * x), one cast. Rows whose length is no multiple of 4 go to the fallback.
template <Eps eps>
Program build_fused(const Binding& binding) {
  if (binding.cols % 4 != 0) {
    Binding other = binding;
    if (other.profile == "torch_cuda_fused") other.profile = "torch_cuda_moments";
    return build_fallback<eps>(other);
  }
  require_float_or_half(binding, kCode);
  require_one_format(binding, "torch's fused rms_norm (else the composite, torch.rms_norm.2_8)");
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  return finish_weight_then_cast(b, kernel_x_hat(b, x, eps_in_accumulator(b, eps)));
}

// No exact profile: there is no exact order that gives moments.
constexpr std::string_view kFusedProfiles[] = {"torch_cuda_fused", "cuda_block", "cuda_warp", "sequential"};
constexpr std::string_view kMomentsProfiles[] = {"torch_cuda_moments", "cuda_warp", "sequential"};

// rms_norm is in autocast's fp32 list: both tensors are cast first and nothing is cast back
Program build_autocast(const Binding& binding) {
  require_float_or_half(binding, "torch rms_norm");
  Builder b("rmsnorm", binding);
  const Operand n = eager_x_hat(b, b.input("x"));
  b.output("y", binding.has("weight") ? b.mul("y", kFp32, n, b.input("weight")) : n);
  return b.finish();
}

// sum(x * x) / N + eps, libdevice.rsqrt, x * r * weight in fp32, one store
Program build_inductor(const Binding& binding) {
  require_float_or_half(binding, "torch rms_norm");
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand ms =
      b.map("ms", Op::div, approximate(bound_profile(binding), kFp32), {kernel_square_sum(b, x), b.count()});
  return finish_weight_then_cast(b, b.mul("n", kFp32, x, reciprocal_root(b, "r", kFp32, plus_eps(b, ms))));
}

}  // namespace

constinit const CastPath torch_rms_norm_2_4_0{
    .name = "torch.rms_norm.2_4_0",
    .title = "torch rms_norm up to 2.4.0: every operation in T, squares overflow in fp16 beyond 255",
    .norm = "rmsnorm",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/layer_norm.cpp", "before #133085 and #134106", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "rounded to T",
    .root = "rsqrt",
    .tail = "F",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerHalfProfiles,
    .build = build_2_4_0<Eps::given>,
};

constinit const CastPath torch_rms_norm_2_4_0_eps_none{
    .name = "torch.rms_norm.2_4_0.eps_none",
    .title = "torch rms_norm up to 2.4.0 with eps=None: finfo(x.dtype).eps",
    .norm = "rmsnorm",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/layer_norm.cpp", "before #133085 and #134106", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "finfo(T)",
    .root = "rsqrt",
    .tail = "F",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = kGapFinfoInput,
    .profiles = kEagerHalfProfiles,
    .build = build_2_4_0<Eps::none>,
};

constinit const CastPath torch_rms_norm_2_6{
    .name = "torch.rms_norm.2_6",
    .title = "torch rms_norm 2.4.1 to 2.6: fp32 inside, cast, then weight; eps rounded to T",
    .norm = "rmsnorm",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/layer_norm.cpp:265-310", "v2.6.0", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "rounded to T",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_2_6<Eps::given>,
};

constinit const CastPath torch_rms_norm_2_6_eps_none{
    .name = "torch.rms_norm.2_6.eps_none",
    .title = "torch rms_norm 2.4.1 to 2.6 with eps=None: finfo(x.dtype).eps, 0.0078125 for bf16",
    .norm = "rmsnorm",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/layer_norm.cpp:265-310", "v2.6.0", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "finfo(T)",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = kGapFinfoInput,
    .profiles = kEagerProfiles,
    .build = build_2_6<Eps::none>,
};

constinit const CastPath torch_rms_norm_2_8{
    .name = "torch.rms_norm.2_8",
    .title = "torch rms_norm composite from 2.7/2.8: weight in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/layer_norm.cpp", "3de78edb", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_2_8<Eps::given>,
};

constinit const CastPath torch_rms_norm_2_8_eps_none{
    .name = "torch.rms_norm.2_8.eps_none",
    .title = "torch rms_norm composite from 2.7/2.8 with eps=None: finfo(float32).eps",
    .norm = "rmsnorm",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/layer_norm.cpp", "3de78edb", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "finfo(fp32)",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = kGapFinfoFp32,
    .profiles = kEagerProfiles,
    .build = build_2_8<Eps::none>,
};

constinit const CastPath torch_rms_norm_fused_cuda{
    .name = "torch.rms_norm.fused_cuda",
    .title = "torch _fused_rms_norm on CUDA: vectorised for N % 4 == 0, else the moments fallback",
    .norm = "rmsnorm",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/cuda/layer_norm_kernel.cu", "#153666", "quoted"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kFusedProfiles,
    .build = build_fused<Eps::given>,
};

constinit const CastPath torch_rms_norm_fused_cuda_eps_none{
    .name = "torch.rms_norm.fused_cuda.eps_none",
    .title = "torch _fused_rms_norm on CUDA with eps=None: finfo(float32).eps",
    .norm = "rmsnorm",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/cuda/layer_norm_kernel.cu", "#153666", "quoted"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "finfo(fp32)",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = kGapFinfoFp32,
    .profiles = kFusedProfiles,
    .build = build_fused<Eps::none>,
};

constinit const CastPath torch_rms_norm_fused_cuda_fallback{
    .name = "torch.rms_norm.fused_cuda.fallback",
    .title = "torch _fused_rms_norm on CUDA, unaligned rows: Welford moments, rsqrt(var + mean^2 + eps)",
    .norm = "rmsnorm",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/cuda/layer_norm_kernel.cu", "#153666", "quoted"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt(var+mean^2)",
    .tail = "B",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kMomentsProfiles,
    .build = build_fallback<Eps::given>,
};

constinit const CastPath torch_rms_norm_fused_cuda_fallback_eps_none{
    .name = "torch.rms_norm.fused_cuda.fallback.eps_none",
    .title = "torch _fused_rms_norm on CUDA, unaligned rows, with eps=None: finfo(float32).eps",
    .norm = "rmsnorm",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/cuda/layer_norm_kernel.cu", "#153666", "quoted"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "finfo(fp32)",
    .root = "rsqrt(var+mean^2)",
    .tail = "B",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = kGapFinfoFp32,
    .profiles = kMomentsProfiles,
    .build = build_fallback<Eps::none>,
};

constinit const CastPath torch_rms_norm_autocast{
    .name = "torch.rms_norm.autocast",
    .title = "torch rms_norm under autocast from 2.12: x and weight cast to fp32, fp32 output",
    .norm = "rmsnorm",
    .source = {"pytorch/pytorch", "aten/src/ATen/autocast_mode.h", "2.12", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "E",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_autocast,
};

constinit const CastPath torch_inductor_rms_norm{
    .name = "torch.inductor.rms_norm",
    .title = "torch.compile of rms_norm: the composite fused into one Triton kernel",
    .norm = "rmsnorm",
    .source = {"pytorch/pytorch", "torch/_decomp/decompositions.py", "2.8", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kTritonProfiles,
    .build = build_inductor,
};

}  // namespace norma::cast_paths

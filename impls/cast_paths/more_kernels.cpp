// One path each: MLX, quack, SGLang, TensorRT-LLM.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

// w * T(x * precise::rsqrt(ss / N + eps)); without a weight the factor is 1
Program build_mlx(const Binding& binding) {
  require_float_or_half(binding, "MLX");
  require_one_format(binding, "MLX's kernel");
  Builder b("rmsnorm", binding);
  const Operand n = kernel_x_hat(b, b.input("x"));
  return binding.has("weight") ? finish_cast_then_weight(b, n) : finish_weight_then_cast(b, n);
}

// x.float() + residual.float() unrounded; x * r * w (+ bias) in fp32, one cast
Operand unrounded_sum(Builder& b, FormatRef stored) {
  const Operand x = b.input("x");
  if (!b.binding().has("residual")) return x;
  const Operand h = b.add("h", kFp32, x, b.input("residual"));
  b.output("residual", b.cast("h_stored", stored, h));
  return h;
}

Program build_quack(const Binding& binding) {
  require_float_or_half(binding, "quack");
  Builder b("rmsnorm", binding);
  const FormatRef stored = binding.has("residual") ? binding.format("residual") : b.x_format();
  const Operand n = kernel_x_hat(b, unrounded_sum(b, stored));
  return finish_weight_then_cast(b, n);
}

Program build_sglang(const Binding& binding) {
  require_float_or_half(binding, "SGLang");
  Builder b("rmsnorm", binding);
  return finish_weight_then_cast(b, eager_x_hat(b, unrounded_sum(b, b.x_format())));
}

// val * r * gamma (+ beta) in fp32, cast to T
Program build_tensorrt_llm(const Binding& binding) {
  require_float_or_half(binding, "TensorRT-LLM");
  require_one_format(binding, "TensorRT-LLM's kernel");
  Builder b("rmsnorm", binding);
  const Operand n = kernel_x_hat(b, b.input("x"));
  if (!binding.has("bias")) return finish_weight_then_cast(b, n);
  const Operand w = b.input("weight");
  const Operand bias = b.input("bias");
  const bool contract = bound_profile(binding).contract_squares;
  const Operand sum =
      contract ? b.map("nwb", Op::fma, kFp32, {n, w, bias}) : b.add("nwb", kFp32, b.mul("nw", kFp32, n, w), bias);
  b.output("y", b.cast("y", b.x_format(), sum));
  return b.finish();
}

constexpr std::string_view kMetalProfiles[] = {"metal", "sequential", "exact"};

// mean(square(x)) is a sum times 1 / N; multiply(x, rsqrt(. + eps)); astype; multiply(weight, x)
Program build_mlx_fallback(const Binding& binding) {
  require_float_or_half(binding, "MLX");
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Profile& profile = bound_profile(binding);
  const Operand ss = b.reduce("ss", kFp32, x, reduction(ReduceKind::sum, Term::square, profile.sum));
  const Operand ms = b.mul("ms", kFp32, ss, b.map("rn", Op::reciprocal, kFp32, {b.count()}));
  const Operand n = b.mul("n", kFp32, x, reciprocal_root(b, "r", kFp32, plus_eps(b, ms)));
  return binding.has("weight") ? finish_cast_then_weight(b, n) : finish_weight_then_cast(b, n);
}

// x_hat * (w + weight_offset)
Program build_quack_offset(const Binding& binding) {
  require_float_or_half(binding, "quack");
  Builder b("rmsnorm", binding);
  const FormatRef stored = binding.has("residual") ? binding.format("residual") : b.x_format();
  return finish_one_plus_weight_then_cast(b, kernel_x_hat(b, unrounded_sum(b, stored)));
}

}  // namespace

constinit const CastPath mlx_fast_rms_norm{
    .name = "mlx.fast.rms_norm",
    .title = "MLX fast.rms_norm on Metal: cast, then weight",
    .norm = "rmsnorm",
    .source = {"ml-explore/mlx", "mlx/backend/metal/kernels/rms_norm.metal", "846d176", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kMetalProfiles,
    .build = build_mlx,
};

constinit const CastPath quack_rmsnorm{
    .name = "quack.rmsnorm",
    .title = "quack rmsnorm: residual sum unrounded, weight in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"Dao-AILab/quack", "quack/rmsnorm.py:311,324", "c8ec317", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "unrounded",
    .required = "",
    .optional = "weight,residual",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kBlockProfiles,
    .build = build_quack,
};

constinit const CastPath sglang_rmsnorm_native{
    .name = "sglang.rmsnorm.native",
    .title = "SGLang RMSNorm.forward_native: residual sum unrounded, weight in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"sgl-project/sglang", "python/sglang/srt/layers/layernorm.py", "000fc1a8", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "unrounded",
    .required = "weight",
    .optional = "residual",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_sglang,
};

constinit const CastPath tensorrt_llm_general_rms_norm{
    .name = "tensorrt_llm.general_rms_norm",
    .title = "TensorRT-LLM generalRmsNorm: weight and bias in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"NVIDIA/TensorRT-LLM", "cpp/tensorrt_llm/kernels/rmsnormKernels.cu", "06255cb", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "bias",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kBlockProfiles,
    .build = build_tensorrt_llm,
};

constinit const CastPath mlx_cuda_rms_norm{
    .name = "mlx.cuda.rms_norm",
    .title = "MLX fast.rms_norm on CUDA: cast, then weight",
    .norm = "rmsnorm",
    .source = {"ml-explore/mlx", "mlx/backend/cuda/rms_norm.cu", "846d176", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kBlockProfiles,
    .build = build_mlx,
};

constinit const CastPath mlx_fallback_rms_norm{
    .name = "mlx.fallback.rms_norm",
    .title = "MLX fast.rms_norm by its own operations: mean times the rounded 1 / N, cast, then weight",
    .norm = "rmsnorm",
    .source = {"ml-explore/mlx", "mlx/fast.cpp", "846d176", "inferred"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kOpenProfiles,
    .build = build_mlx_fallback,
};

constinit const CastPath quack_rmsnorm_weight_offset{
    .name = "quack.rmsnorm.weight_offset",
    .title = "quack rmsnorm with weight_offset 1: w + 1 in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"Dao-AILab/quack", "quack/rmsnorm.py:311,324", "c8ec317", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "C",
    .residual = "unrounded",
    .required = "weight",
    .optional = "residual",
    .norm_attributes = kOffsetOne,
    .gaps = {},
    .profiles = kBlockProfiles,
    .build = build_quack_offset,
};

}  // namespace norma::cast_paths

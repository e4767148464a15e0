// LayerNorm in kernels: apex, TransformerEngine, Liger, MLX, FlashInfer and TensorRT-LLM.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/layernorm_steps.hpp"

namespace norma::cast_paths {

namespace {

void require_both_or_none(const Binding& binding, std::string_view code) {
  if (binding.has("weight") != binding.has("bias"))
    throw ProgramError(std::string(code) + " takes weight and bias together, or neither");
}

// gamma * v + beta on values of `v`, each operation rounded to it: an fp32 v contracts where the profile says so.
Operand affine_in(Builder& b, FormatRef v, Operand n) {
  if (!b.binding().has("weight")) return n;
  const Operand w = b.input("weight");
  const Operand bias = b.input("bias");
  if (v == kFp32) return multiply_add(b, "y", w, n, bias);
  return b.eager("y", Op::add, v, {b.eager("nw", Op::mul, v, {w, n}), bias});
}

// cuApplyLayerNorm: ovals = gamma * static_cast<V>(r * (x - mean)) + beta; V is x's format, or the weight's
enum class Output { as_x, as_weight };
template <Output output>
Program build_apex(const Binding& binding) {
  constexpr std::string_view code = "apex FusedLayerNorm";
  require_float_or_half(binding, code);
  require_both_or_none(binding, code);
  if (output == Output::as_x) require_one_format(binding, "apex FusedLayerNorm (mixed formats: apex.layer_norm.mixed)");
  Builder b("layernorm", binding);
  const Profile& profile = bound_profile(binding);
  const Operand x = b.input("x");
  Order order = block_moments_order(profile, OrderKind::apex_moments);
  if (order.kind == OrderKind::apex_moments && b.x_format().id == FormatId::fp16) order.vec = 8;  // its own kernel
  const Operand mean = b.moments("mean", "var", kFp32, x, order, profile.contract_squares);
  const Operand r = inverse_deviation(b, {mean.node, 1});
  const Operand n = b.mul("n", kFp32, r, b.sub("d", kFp32, x, mean));
  const FormatRef v = output == Output::as_x || !binding.has("weight") ? b.x_format() : binding.format("weight");
  b.output("y", affine_in(b, v, b.cast("n_V", v, n)));
  return b.finish();
}

// One warp a row: mean, then m2 around it. z = gamma * output_t(rs * (x - mu)) + beta in output_t
Program build_apex_fast(const Binding& binding) {
  constexpr std::string_view code = "apex FastLayerNorm";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  const auto [mean, variance] = two_pass(b, x);
  const Operand r = inverse_deviation(b, variance);
  const Operand n = b.mul("n", kFp32, r, b.sub("centred", kFp32, x, mean));
  b.output("y", affine_in(b, b.x_format(), b.cast("n_T", b.x_format(), n)));
  return b.finish();
}

// mu = sum * rn; m2 around it; rs = rsqrt(rn * m2 + eps); z = g * (rs * (x - mu)) + b, one cast
enum class Gamma { as_it_is, zero_centered };
template <Gamma gamma>
Program build_transformer_engine(const Binding& binding) {
  constexpr std::string_view code = "TransformerEngine";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  Builder b("layernorm", binding);
  const Profile& profile = bound_profile(binding);
  const Operand x = b.input("x");
  const Operand rn = b.map("rn", Op::reciprocal, kFp32, {b.count()});
  const Operand sum = b.reduce("sum", kFp32, x, reduction(ReduceKind::sum, Term::value, profile.sum));
  const Operand mean = b.mul("mean", kFp32, sum, rn);
  Reduction squares = reduction(ReduceKind::sum, Term::square, profile.sum);
  squares.contract = profile.contract_squares;
  const Operand d = b.sub("d", kFp32, x, mean);
  const Operand m2 = b.reduce("m2", kFp32, d, squares);
  const Operand eps = eps_in_fp32(b);
  const Operand r = reciprocal_root(b, "r", kFp32, multiply_add(b, "var_eps", rn, m2, eps));
  const Operand n = b.mul("n", kFp32, r, d);
  const Operand w = b.input("weight");
  const Operand g = gamma == Gamma::zero_centered ? b.add("one_w", kFp32, b.constant("one", 1), w) : w;
  const Operand bias = b.input("bias");
  return finish_with_cast(b, multiply_add(b, "nwb", g, n, bias));
}

// mean = sum / n; var = sum of squares of (x - mean) / n; rstd = rsqrt(var + eps); (x - mean) * rstd * W + B, one cast
Program build_liger(const Binding& binding) {
  require_float_or_half(binding, "Liger");
  Builder b("layernorm", binding);
  const Profile& profile = bound_profile(binding);
  const auto over_n = [&](const std::string& name, Operand sum) {
    return b.map(name, Op::div, approximate(profile, kFp32), {sum, b.count()});
  };
  const Operand x = b.input("x");
  const Operand mean = over_n("mean", b.reduce("sum", kFp32, x, reduction(ReduceKind::sum, Term::value, profile.sum)));
  const Operand d = b.sub("d", kFp32, x, mean);
  const Operand variance = over_n("var", b.reduce("m2", kFp32, b.map("d_sq", Op::square, kFp32, {d}),
                                                  reduction(ReduceKind::sum, Term::value, profile.sum)));
  const Operand n = b.mul("n", kFp32, d, inverse_deviation(b, variance));
  const Operand w = b.input("weight");
  return finish_with_cast(b, multiply_add(b, "nwb", n, w, b.input("bias")));
}

// out = w * T((x - mean) * r) + b, both operations in T; without parameters the factor is 1 and the term 0
Program build_mlx(const Binding& binding) {
  constexpr std::string_view code = "MLX's kernel";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  Builder b("layernorm", binding);
  const FormatRef t = b.x_format();
  const Operand x = b.input("x");
  const auto [mean, variance] = two_pass(b, x);
  const Operand r = inverse_deviation(b, variance);
  Operand y = b.cast("n_T", t, b.mul("n", kFp32, b.sub("centred", kFp32, x, mean), r));
  if (binding.has("weight")) y = b.mul("nw", t, b.input("weight"), y);
  if (binding.has("bias")) y = b.add("nwb", t, y, b.input("bias"));
  b.output("y", y);
  return b.finish();
}

// ((x - mean) * r) * gamma + beta in fp32, one cast
enum class Squares { deviations, differences };
template <Squares squares>
Program build_general(const Binding& binding) {
  constexpr std::string_view code = "generalLayerNorm";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  const auto [mean, variance] = squares == Squares::deviations ? two_pass(b, x) : difference_of_squares(b, x);
  const Operand r = inverse_deviation(b, variance);
  const Operand n = b.mul("n", kFp32, b.sub("centred", kFp32, x, mean), r);
  const Operand w = b.input("weight");
  if (!binding.has("bias")) return finish_with_cast(b, b.mul("nw", kFp32, n, w));
  return finish_with_cast(b, multiply_add(b, "nwb", n, w, b.input("bias")));
}

constexpr std::string_view kApexProfiles[] = {"cuda_4warps", "cuda_warp", "sequential"};
constexpr std::string_view kWarpProfiles[] = {"cuda_warp", "sequential", "exact"};
constexpr std::string_view kMetalProfiles[] = {"metal", "sequential", "exact"};

}  // namespace

constinit const CastPath apex_layer_norm = layernorm_path({
    .name = "apex.layer_norm",
    .title = "apex FusedLayerNorm: x-hat rounded to x's format, then the product, then the sum",
    .source = {"NVIDIA/apex", "csrc/layer_norm_cuda_kernel.cu:333-352", "6424da3", "read"},
    .tail = "A",
    .profiles = kApexProfiles,
    .build = build_apex<Output::as_x>,
});

constinit const CastPath apex_layer_norm_mixed = layernorm_path({
    .name = "apex.layer_norm.mixed",
    .title = "apex MixedFusedLayerNorm: computed and returned in the weight's format, usually fp32",
    .source = {"NVIDIA/apex", "csrc/layer_norm_cuda_kernel.cu:333-352", "6424da3", "read"},
    .tail = "E",
    .required = "weight,bias",
    .optional = "",
    .profiles = kApexProfiles,
    .build = build_apex<Output::as_weight>,
});

constinit const CastPath apex_fast_layer_norm = layernorm_path({
    .name = "apex.fast_layer_norm",
    .title = "apex contrib FastLayerNorm: two passes, x-hat rounded, then the affine in x's format (a warp a row)",
    .source = {"NVIDIA/apex", "apex/contrib/csrc/layer_norm/ln_fwd_kernels.cuh", "6424da3", "read"},
    .tail = "A",
    .required = "weight,bias",
    .optional = "",
    .profiles = kWarpProfiles,
    .build = build_apex_fast,
});

constinit const CastPath transformer_engine_layernorm = layernorm_path({
    .name = "transformer_engine.layernorm",
    .title = "TransformerEngine LayerNorm: two passes, sums times the rounded 1/N, one cast (a warp a row)",
    .source = {"NVIDIA/TransformerEngine", "transformer_engine/common/normalization/layernorm/ln_fwd_kernels.cuh:109",
               "d0067d0", "read"},
    .required = "weight,bias",
    .optional = "",
    .profiles = kWarpProfiles,
    .build = build_transformer_engine<Gamma::as_it_is>,
});

constinit const CastPath transformer_engine_layernorm_zero_centered = layernorm_path({
    .name = "transformer_engine.layernorm.zero_centered",
    .title = "TransformerEngine LayerNorm with zero-centered gamma: 1 + gamma in fp32 (a warp a row)",
    .source = {"NVIDIA/TransformerEngine", "transformer_engine/common/normalization/layernorm/ln_fwd_kernels.cuh:109",
               "d0067d0", "read"},
    .tail = "C",
    .required = "weight,bias",
    .optional = "",
    .norm_attributes = kOffsetOne,
    .profiles = kWarpProfiles,
    .build = build_transformer_engine<Gamma::zero_centered>,
});

constinit const CastPath liger_layer_norm = layernorm_path({
    .name = "liger.layer_norm",
    .title = "Liger LayerNorm (Triton): two passes, approximate divisions, one cast",
    .source = {"linkedin/Liger-Kernel", "src/liger_kernel/ops/layer_norm.py", "ead96b6", "read"},
    .eps_default = "1e-6",
    .required = "weight,bias",
    .optional = "",
    .profiles = kTritonProfiles,
    .build = build_liger,
});

constinit const CastPath mlx_fast_layer_norm = layernorm_path({
    .name = "mlx.fast.layer_norm",
    .title = "MLX fast.layer_norm on Metal: two passes; cast, then weight, then bias",
    .source = {"ml-explore/mlx", "mlx/backend/metal/kernels/layer_norm.metal:109", "846d176", "read"},
    .tail = "A",
    .profiles = kMetalProfiles,
    .build = build_mlx,
});

constinit const CastPath flashinfer_general_layernorm = layernorm_path({
    .name = "flashinfer.general_layernorm",
    .title = "FlashInfer generalLayerNorm (from TensorRT-LLM): two passes, one cast",
    .source = {"flashinfer-ai/flashinfer", "include/flashinfer/norm.cuh:800-860", "fb28d72", "inferred"},
    .required = "weight",
    .optional = "bias",
    .profiles = kBlockProfiles,
    .build = build_general<Squares::deviations>,
});

constinit const CastPath tensorrt_llm_general_layernorm_diff = layernorm_path({
    .name = "tensorrt_llm.general_layernorm.diff_of_squares",
    .title = "TensorRT-LLM generalLayerNorm with USE_DIFF_OF_SQUARES: E[x^2] - mean^2, one cast",
    .source = {"NVIDIA/TensorRT-LLM", "cpp/tensorrt_llm/kernels/layernormKernels.cu", "", "quoted"},
    .required = "weight",
    .optional = "bias",
    .profiles = kBlockProfiles,
    .build = build_general<Squares::differences>,
});

}  // namespace norma::cast_paths

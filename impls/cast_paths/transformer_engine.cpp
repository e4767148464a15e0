// TransformerEngine's own kernels. Both multiply by the rounded 1 / N; the tuned one takes
// LayerNorm's moments.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kCode = "TransformerEngine";

Operand reciprocal_count(Builder& b) { return b.map("rn", Op::reciprocal, kFp32, {b.count()}); }

// mu = sum * rn; m2 = sum((x - mu)^2); rn * m2 + mu * mu. As one warp a row has it; more warps
// merge by Chan's rule.
Operand mean_square_by_moments(Builder& b, Operand x) {
  const Profile& profile = bound_profile(b.binding());
  const Operand rn = reciprocal_count(b);
  const Operand mu =
      b.mul("mu", kFp32, b.reduce("sum", kFp32, x, reduction(ReduceKind::sum, Term::value, profile.sum)), rn);
  Reduction squares = reduction(ReduceKind::sum, Term::square, profile.sum);
  squares.contract = profile.contract_squares;
  const Operand m2 = b.reduce("m2", kFp32, b.sub("d", kFp32, x, mu), squares);
  const Operand mu_mu = b.mul("mu_mu", kFp32, mu, mu);
  if (profile.contract_squares) return b.map("ms", Op::fma, kFp32, {rn, m2, mu_mu});
  const Operand variance = b.mul("var", kFp32, rn, m2);
  return b.add("ms", kFp32, variance, mu_mu);
}

Operand mean_square(Builder& b, Operand x) {
  const Operand ss = kernel_square_sum(b, x);
  return b.mul("ms", kFp32, ss, reciprocal_count(b));
}

constexpr std::string_view kWarpProfiles[] = {"cuda_warp", "cuda_block_vec8", "sequential", "exact"};

enum class Moments { used, not_used };
enum class Gamma { as_it_is, zero_centered };

// y = r * x; g = gamma (+ 1); z = g * y, one cast
template <Moments moments, Gamma gamma>
Program build(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_one_format(binding, kCode);
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand ms = moments == Moments::used ? mean_square_by_moments(b, x) : mean_square(b, x);
  const Operand n = b.mul("n", kFp32, reciprocal_root(b, "r", kFp32, plus_eps(b, ms)), x);
  return gamma == Gamma::zero_centered ? finish_one_plus_weight_then_cast(b, n) : finish_weight_then_cast(b, n);
}

// z * scale, cast. TransformerEngine's scale multiplies; a case's scale divides codes, as scale_inv does, and the
// factor is taken as its reciprocal.
Program build_fp8(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_format(binding, "weight", "TransformerEngine beside such an x", {binding.x});
  require_format(binding, "scale", kCode, {FormatId::fp32});
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand r = reciprocal_root(b, "r", kFp32, plus_eps(b, mean_square_by_moments(b, x)));
  const Operand n = b.mul("n", kFp32, r, x);
  const Operand z = b.mul("z", kFp32, n, b.input("weight"));
  const Operand factor = b.map("factor", Op::reciprocal, kFp32, {b.input("scale")});
  const Operand q = b.mul("q", kFp32, z, factor);
  b.output("y", b.map("y", Op::cast, Rounding{.format = kE4m3fn, .overflow = Overflow::saturate}, {q}));
  return b.finish();
}

template <Gamma gamma>
Program build_cudnn(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_one_format(binding, kCode);
  Builder b("rmsnorm", binding);
  const Operand n = kernel_x_hat(b, b.input("x"));
  if (gamma == Gamma::as_it_is) return finish_weight_then_cast(b, n);
  const Operand w = b.input("weight");
  const Operand factor = b.eager("one_w", Op::add, b.format(w), {b.constant("one", 1), w});
  b.output("y", b.cast("y", b.x_format(), b.mul("nw", kFp32, n, factor)));
  return b.finish();
}

constexpr CaseDefault kStatic[] = {{"quant", "static"}};
constexpr std::string_view kClosedProfiles[] = {"exact", "cuda_warp", "cuda_block", "sequential"};

}  // namespace

constinit const CastPath transformer_engine_rmsnorm_tuned{
    .name = "transformer_engine.rmsnorm.tuned",
    .title = "TransformerEngine, tuned kernel: mean square as var + mean^2",
    .norm = "rmsnorm",
    .source = {"NVIDIA/TransformerEngine", "transformer_engine/common/normalization/rmsnorm/rmsnorm_fwd_kernels.cuh",
               "d0067d0", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt(var+mean^2)",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kWarpProfiles,
    .build = build<Moments::used, Gamma::as_it_is>,
};

constinit const CastPath transformer_engine_rmsnorm_tuned_zero_centered{
    .name = "transformer_engine.rmsnorm.tuned.zero_centered",
    .title = "TransformerEngine, tuned kernel: mean square as var + mean^2; 1 + gamma in fp32",
    .norm = "rmsnorm",
    .source = {"NVIDIA/TransformerEngine", "transformer_engine/common/normalization/rmsnorm/rmsnorm_fwd_kernels.cuh",
               "d0067d0", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt(var+mean^2)",
    .tail = "C",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = kOffsetOne,
    .gaps = {},
    .profiles = kWarpProfiles,
    .build = build<Moments::used, Gamma::zero_centered>,
};

constinit const CastPath transformer_engine_rmsnorm_general{
    .name = "transformer_engine.rmsnorm.general",
    .title = "TransformerEngine, general kernel: the sum of squares times 1 / N",
    .norm = "rmsnorm",
    .source = {"NVIDIA/TransformerEngine", "transformer_engine/common/normalization/rmsnorm/rmsnorm_fwd_kernels.cuh",
               "d0067d0", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kWarpProfiles,
    .build = build<Moments::not_used, Gamma::as_it_is>,
};

constinit const CastPath transformer_engine_rmsnorm_general_zero_centered{
    .name = "transformer_engine.rmsnorm.general.zero_centered",
    .title = "TransformerEngine, general kernel: the sum of squares times 1 / N; 1 + gamma in fp32",
    .norm = "rmsnorm",
    .source = {"NVIDIA/TransformerEngine", "transformer_engine/common/normalization/rmsnorm/rmsnorm_fwd_kernels.cuh",
               "d0067d0", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "C",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = kOffsetOne,
    .gaps = {},
    .profiles = kWarpProfiles,
    .build = build<Moments::not_used, Gamma::zero_centered>,
};

constinit const CastPath transformer_engine_rmsnorm_tuned_fp8{
    .name = "transformer_engine.rmsnorm.tuned.fp8",
    .title = "TransformerEngine, tuned kernel: fp32 times 1 / scale, e4m3 (saturating); no rounding to T before",
    .norm = "rmsnorm",
    .source = {"NVIDIA/TransformerEngine", "transformer_engine/common/normalization/rmsnorm/rmsnorm_fwd_kernels.cuh",
               "d0067d0", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt(var+mean^2)",
    .tail = "B",
    .residual = "",
    .required = "weight,scale",
    .optional = "",
    .norm_attributes = kStatic,
    .gaps = {},
    .profiles = kWarpProfiles,
    .build = build_fp8,
};

constinit const CastPath transformer_engine_rmsnorm_cudnn{
    .name = "transformer_engine.rmsnorm.cudnn",
    .title = "TransformerEngine by cuDNN, a closed kernel: fp32, one cast",
    .norm = "rmsnorm",
    .source = {"NVIDIA/TransformerEngine", "transformer_engine/common/normalization/common.cpp", "d0067d0", "inferred"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kClosedProfiles,
    .build = build_cudnn<Gamma::as_it_is>,
};

constinit const CastPath transformer_engine_rmsnorm_cudnn_zero_centered_in_wtype{
    .name = "transformer_engine.rmsnorm.cudnn.zero_centered_in_wtype",
    .title = "TransformerEngine by cuDNN with NVTE_ZERO_CENTERED_GAMMA_IN_WTYPE: 1 + gamma in gamma's format",
    .norm = "rmsnorm",
    .source = {"NVIDIA/TransformerEngine", "transformer_engine/common/normalization/common.cpp", "d0067d0", "inferred"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "D",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = kOffsetOne,
    .gaps = {},
    .profiles = kClosedProfiles,
    .build = build_cudnn<Gamma::zero_centered>,
};

}  // namespace norma::cast_paths

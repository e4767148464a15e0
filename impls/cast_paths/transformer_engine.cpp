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

}  // namespace norma::cast_paths

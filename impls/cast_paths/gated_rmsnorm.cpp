// RMSNorm with a gate: Mamba2 and its like gate first, Qwen3-Next and its like norm first. silu and sigmoid are made
// of a library's e^x: within 1 ulp in Sleef (torch on a CPU) and in CUDA's expf, by their documents. Triton's is
// ex2.approx(x log2(e)): 2 ulp of its own and 1.3 |x| ulp of the rounded product and constant, 8 where |x| <= 4.
#include <string>

#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

Rounding library(int ulp) { return {.format = kFp32, .within_ulp = ulp}; }

enum class Activation { silu, sigmoid };

// x / (1 + exp(-x)), as torch writes silu; sigmoid is 1 / (1 + exp(-x))
Operand eager_activation(Builder& b, Activation activation, Operand gate) {
  const Operand e = b.map("e", Op::exp, library(1), {b.map("minus_gate", Op::neg, kFp32, {gate})});
  const Operand divisor = b.add("one_e", kFp32, b.constant("one", 1), e);
  if (activation == Activation::sigmoid) return b.map("a", Op::reciprocal, kFp32, {divisor});
  return b.div("a", kFp32, gate, divisor);
}

// tl.sigmoid: 1 / (1 + exp(-x)), the division Triton's approximate one
Operand triton_sigmoid(Builder& b, Operand gate) {
  const Operand e = b.map("e", Op::exp, library(8), {b.map("minus_gate", Op::neg, kFp32, {gate})});
  const Operand divisor = b.add("one_e", kFp32, b.constant("one", 1), e);
  return b.map("sigmoid", Op::reciprocal, library(2), {divisor});
}

// More than one group: a group is a channel group of a sample of one position.
View view_of(const Binding& binding) {
  const auto groups = binding.attributes.find("groups");
  if (groups == binding.attributes.end() || groups->second == 1) return {};
  if (!binding.shape.empty() && binding.shape.size() != 2)
    throw ProgramError("groups need x as [rows, cols]; its shape has " + std::to_string(binding.shape.size()) +
                       " axes");
  return {.kind = ViewKind::groups};
}

Operand gate_of(Builder& b) { return b.input("gate", kRowsCols); }

// h = x.float() * silu(gate.float()); weight * (h * rsqrt(ms + eps)).to(input_dtype), group by group
Program build_gate_first(const Binding& binding) {
  require_float_or_half(binding, "MambaRMSNormGated");
  Builder b("rmsnorm_gated", binding, view_of(binding));
  const Operand x = b.input("x");
  const Operand a = eager_activation(b, Activation::silu, gate_of(b));
  return finish_cast_then_weight(b, eager_x_hat(b, b.mul("h", kFp32, x, a)));
}

// h = weight * (x.float() * rsqrt(ms + eps)).to(input_dtype); (h * silu(gate.float())).to(input_dtype)
Program build_norm_first(const Binding& binding) {
  require_float_or_half(binding, "Qwen3NextRMSNormGated");
  Builder b("rmsnorm_gated", binding);
  const FormatRef t = b.x_format();
  const Operand n_t = b.cast("n_T", t, eager_x_hat(b, b.input("x")));
  const Operand w = b.input("weight");
  const Operand nw = b.eager("nw", Op::mul, promote(t, b.format(w)), {n_t, w});
  const Operand a = eager_activation(b, Activation::silu, gate_of(b));
  b.output("y", b.cast("y", t, b.mul("nwa", kFp32, nw, a)));
  return b.finish();
}

// weight.float() * (x.float() * rsqrt(ms + eps)) * sigmoid(gate.float()), one cast
Program build_kimi(const Binding& binding) {
  require_float_or_half(binding, "KimiLinearRMSNormGated");
  Builder b("rmsnorm_gated", binding);
  const Operand n = eager_x_hat(b, b.input("x"));
  const Operand nw = b.mul("nw", kFp32, b.input("weight"), n);
  const Operand a = eager_activation(b, Activation::sigmoid, gate_of(b));
  b.output("y", b.cast("y", b.x_format(), b.mul("nwa", kFp32, nw, a)));
  return b.finish();
}

// x * rstd, rstd = 1 / tl.sqrt(sum(x * x) / D + eps)
Operand triton_x_hat(Builder& b, Operand h) {
  const Profile& profile = bound_profile(b.binding());
  const Operand var = b.map("var", Op::div, approximate(profile, kFp32), {kernel_square_sum(b, h), b.count()});
  const Operand root = b.map("root", Op::sqrt, approximate(profile, kFp32), {plus_eps(b, var)});
  return b.mul("n", kFp32, h, b.map("rstd", Op::reciprocal, approximate(profile, kFp32), {root}));
}

Operand weighted(Builder& b, Operand n) {
  return b.binding().has("weight") ? b.mul("nw", kFp32, n, b.input("weight")) : n;
}

// y = x_hat * w; y * g * tl.sigmoid(g), left to right, one cast
template <Activation activation>
Program build_fla(const Binding& binding) {
  require_float_or_half(binding, "FLA's FusedRMSNormGated");
  Builder b("rmsnorm_gated", binding);
  Operand y = weighted(b, triton_x_hat(b, b.input("x")));
  const Operand gate = gate_of(b);
  if (activation == Activation::silu) y = b.mul("yg", kFp32, y, gate);
  b.output("y", b.cast("y", b.x_format(), b.mul("ya", kFp32, y, triton_sigmoid(b, gate))));
  return b.finish();
}

enum class First { gate, norm };

// x *= z * tl.sigmoid(z) first, or y *= z * tl.sigmoid(z) last; y = x_hat * w, one cast
template <First first>
Program build_mamba_ssm(const Binding& binding) {
  require_float_or_half(binding, "mamba_ssm's RMSNormGated");
  Builder b("rmsnorm_gated", binding, view_of(binding));
  const Operand x = b.input("x"), gate = gate_of(b);
  const Operand a = b.mul("a", kFp32, gate, triton_sigmoid(b, gate));
  Operand y = weighted(b, triton_x_hat(b, first == First::gate ? b.mul("h", kFp32, x, a) : x));
  if (first == First::norm) y = b.mul("ya", kFp32, y, a);
  b.output("y", b.cast("y", b.x_format(), y));
  return b.finish();
}

constexpr CaseDefault kBefore[] = {{"gate_place", "before"}};
constexpr CaseDefault kSigmoid[] = {{"activation", "sigmoid"}};

}  // namespace

constinit const CastPath transformers_mamba2_rmsnorm_gated{
    .name = "transformers.mamba2.rmsnorm_gated",
    .title = "MambaRMSNormGated (Mamba 2, Bamba, NemotronH): gate first in fp32, group by group; cast, then weight",
    .norm = "rmsnorm_gated",
    .source = {"huggingface/transformers", "src/transformers/models/mamba2/modeling_mamba2.py", "v5.23.0", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "",
    .residual = "",
    .required = "gate,weight",
    .optional = "",
    .norm_attributes = kBefore,
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_gate_first,
};

constinit const CastPath transformers_zamba2_rmsnorm_gated{
    .name = "transformers.zamba2.rmsnorm_gated",
    .title = "Zamba2RMSNormGated: gate first in fp32, group by group; cast, then weight",
    .norm = "rmsnorm_gated",
    .source = {"huggingface/transformers", "src/transformers/models/zamba2/modeling_zamba2.py", "00511f5d", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "",
    .residual = "",
    .required = "gate,weight",
    .optional = "",
    .norm_attributes = kBefore,
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_gate_first,
};

constinit const CastPath transformers_qwen3_next_rmsnorm_gated{
    .name = "transformers.qwen3_next.rmsnorm_gated",
    .title = "Qwen3NextRMSNormGated: norm first; cast, weight, then silu in fp32 and a cast",
    .norm = "rmsnorm_gated",
    .source = {"huggingface/transformers", "src/transformers/models/qwen3_next/modular_qwen3_next.py", "043bb8dd",
               "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "",
    .residual = "",
    .required = "gate,weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_norm_first,
};

constinit const CastPath transformers_kimi_linear_rmsnorm_gated{
    .name = "transformers.kimi_linear.rmsnorm_gated",
    .title = "KimiLinearRMSNormGated: norm, weight and sigmoid in fp32, one cast",
    .norm = "rmsnorm_gated",
    .source = {"huggingface/transformers", "src/transformers/models/kimi_linear/modeling_kimi_linear.py", "v5.23.0",
               "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "",
    .residual = "",
    .required = "gate,weight",
    .optional = "",
    .norm_attributes = kSigmoid,
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_kimi,
};

constinit const CastPath fla_fused_rmsnorm_gated{
    .name = "fla.fused_rmsnorm_gated",
    .title = "FLA FusedRMSNormGated: norm first, weight, gate and sigmoid in fp32, one cast",
    .norm = "rmsnorm_gated",
    .source = {"fla-org/flash-linear-attention", "fla/modules/fused_norm_gate.py", "18cc5e8", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "1/sqrt",
    .tail = "",
    .residual = "",
    .required = "gate",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kTritonProfiles,
    .build = build_fla<Activation::silu>,
};

constinit const CastPath fla_fused_rmsnorm_gated_sigmoid{
    .name = "fla.fused_rmsnorm_gated.sigmoid",
    .title = "FLA FusedRMSNormGated with activation sigmoid: in fp32, one cast",
    .norm = "rmsnorm_gated",
    .source = {"fla-org/flash-linear-attention", "fla/modules/fused_norm_gate.py", "18cc5e8", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "1/sqrt",
    .tail = "",
    .residual = "",
    .required = "gate",
    .optional = "weight",
    .norm_attributes = kSigmoid,
    .gaps = {},
    .profiles = kTritonProfiles,
    .build = build_fla<Activation::sigmoid>,
};

constinit const CastPath mamba_ssm_rmsnorm_gated{
    .name = "mamba_ssm.rmsnorm_gated",
    .title = "mamba_ssm's Triton RMSNorm, norm_before_gate: group by group in fp32, one cast",
    .norm = "rmsnorm_gated",
    .source = {"state-spaces/mamba", "mamba_ssm/ops/triton/layernorm_gated.py", "60dadf2", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "1/sqrt",
    .tail = "",
    .residual = "",
    .required = "gate,weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kTritonProfiles,
    .build = build_mamba_ssm<First::norm>,
};

constinit const CastPath mamba_ssm_rmsnorm_gated_gate_first{
    .name = "mamba_ssm.rmsnorm_gated.gate_first",
    .title = "mamba_ssm's Triton RMSNorm as Mamba 2 calls it: gate first, group by group in fp32, one cast",
    .norm = "rmsnorm_gated",
    .source = {"state-spaces/mamba", "mamba_ssm/ops/triton/layernorm_gated.py", "60dadf2", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "1/sqrt",
    .tail = "",
    .residual = "",
    .required = "gate,weight",
    .optional = "",
    .norm_attributes = kBefore,
    .gaps = {},
    .profiles = kTritonProfiles,
    .build = build_mamba_ssm<First::gate>,
};

}  // namespace norma::cast_paths

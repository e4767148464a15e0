// flax.linen's norms of rows as JAX runs them: scale meets the root first, the output is promoted.
#include <optional>
#include <string>

#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/layernorm_steps.hpp"

namespace norma::cast_paths {

namespace {

/// XLA's windows of 32 terms, padded alike on both sides: the first one has fewer. Found with inputs that show which
/// terms are added before which; up to 1024 terms, arrays of fewer than 4096 elements.
Order windows(Order order, std::int64_t terms) {
  const std::int64_t size = order.count, padded = (terms + size - 1) / size * size;
  const std::int64_t missing = terms > size ? (padded - terms) / 2 : 0;
  order.vec = missing == 0 ? 0 : static_cast<int>(size - missing);
  return order;
}

/// jnp.mean in fp32. XLA multiplies the sum by the rounded 1 / N, and may do so where it adds something else.
struct Mean {
  std::string name;
  Operand sum;  ///< without a reciprocal: the mean itself
  std::optional<Operand> reciprocal;
};

Mean mean(Builder& b, const std::string& name, Operand x, Term term) {
  const Order order = bound_profile(b.binding()).sum;
  if (order.kind != OrderKind::blocked)
    return {name, b.reduce(name, kFp32, x, reduction(ReduceKind::mean, term, order)), {}};
  const Reduction sum = reduction(ReduceKind::sum, term, windows(order, b.binding().cols));
  const Operand total = b.reduce("sum_" + name, kFp32, x, sum);
  const Operand count = b.count();
  return {name, total, b.map("rn_" + name, Op::reciprocal, kFp32, {count})};
}

Operand value(Builder& b, const Mean& m) { return m.reciprocal ? b.mul(m.name, kFp32, m.sum, *m.reciprocal) : m.sum; }

Operand plus(Builder& b, const std::string& name, const Mean& m, Operand added) {
  if (m.reciprocal && bound_profile(b.binding()).contract_squares)
    return b.map(name, Op::fma, kFp32, {m.sum, *m.reciprocal, added});
  return b.add(name, kFp32, value(b, m), added);
}

/// x * (rsqrt(var + eps) * scale) + bias, in fp32; cast to the promotion of all three formats.
Program finish(Builder& b, Operand x, Operand variance_plus_eps) {
  FormatRef out = b.x_format();
  Operand factor = reciprocal_root(b, "r", kFp32, variance_plus_eps);
  if (b.binding().has("weight")) {
    const Operand w = b.input("weight");
    out = promote(out, b.format(w));
    factor = b.mul("rw", kFp32, factor, w);
  }
  if (!b.binding().has("bias")) {
    b.output("y", b.cast("y", out, b.mul("n", kFp32, x, factor)));
    return b.finish();
  }
  const Operand bias = b.input("bias");
  const Operand y = multiply_add(b, "nb", x, factor, bias);
  b.output("y", b.cast("y", promote(out, b.format(bias)), y));
  return b.finish();
}

// mul = rsqrt(mean(x^2) + eps); mul *= scale; y = x * mul
Program build_rms_norm(const Binding& binding) {
  require_float_or_half(binding, "flax");
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Mean squares = mean(b, "ms", x, Term::square);
  return finish(b, x, plus(b, "ms_eps", squares, eps_in_fp32(b)));
}

enum class Variance { fast, two_pass };
template <Variance kind>
Program build_layer_norm(const Binding& binding) {
  require_float_or_half(binding, "flax");
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  const Operand mu = value(b, mean(b, "mean", x, Term::value));
  const Operand centred = b.sub("centred", kFp32, x, mu);
  if (kind == Variance::two_pass) {
    const Mean variance = mean(b, "var", centred, Term::square);
    return finish(b, centred, plus(b, "var_eps", variance, eps_in_fp32(b)));
  }
  const Mean squares = mean(b, "ms", x, Term::square);
  const Operand opposite = b.map("minus_mean_sq", Op::neg, kFp32, {b.map("mean_sq", Op::square, kFp32, {mu})});
  const Operand difference = plus(b, "var", squares, opposite);
  const Operand variance = b.map("var_or_0", Op::max, kFp32, {b.constant("zero_var", 0), difference});
  return finish(b, centred, plus_eps(b, variance, "var_eps"));
}

constexpr std::string_view kProfiles[] = {"sequential", "xla_cpu", "xla_cpu_jit", "pairwise", "exact"};
constexpr PathSource kSource{"google/flax", "flax/linen/normalization.py:47-210", "18f8f31", "read"};

}  // namespace

constinit const CastPath flax_linen_rmsnorm{
    .name = "flax.linen.rmsnorm",
    .title = "flax RMSNorm: scale times root first, output promoted (bits compared under xla_cpu and xla_cpu_jit)",
    .norm = "rmsnorm",
    .source = kSource,
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "H",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kProfiles,
    .build = build_rms_norm,
};

constinit const CastPath flax_linen_layernorm = layernorm_path({
    .name = "flax.linen.layernorm",
    .title = "flax LayerNorm: E[x^2] - E[x]^2 floored at 0, scale times root first (bits compared under xla_cpu and "
             "xla_cpu_jit)",
    .source = kSource,
    .eps_default = "1e-6",
    .tail = "H",
    .profiles = kProfiles,
    .build = build_layer_norm<Variance::fast>,
});

constinit const CastPath flax_linen_layernorm_two_pass = layernorm_path({
    .name = "flax.linen.layernorm.two_pass",
    .title = "flax LayerNorm with use_fast_variance=False: two passes (bits compared under xla_cpu and xla_cpu_jit)",
    .source = kSource,
    .eps_default = "1e-6",
    .tail = "H",
    .profiles = kProfiles,
    .build = build_layer_norm<Variance::two_pass>,
});

}  // namespace norma::cast_paths

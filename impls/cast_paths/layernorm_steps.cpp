// Steps that transcriptions of LayerNorm share.
#include "impls/cast_paths/layernorm_steps.hpp"

namespace norma {

Order rowwise_moments_order(const Profile& profile, FormatRef format) {
  Order order = is_half(format) ? profile.sum_half : profile.sum;
  const bool fp16 = format.id == FormatId::fp16;
  if (order.kind == OrderKind::torch_moments && fp16) order.kind = OrderKind::torch_moments_fp16;
  if (order.kind == OrderKind::torch_moments_2_6 && fp16) order.kind = OrderKind::torch_moments_2_6_fp16;
  return gives_moments(order.kind) ? order : moments_order(profile);
}

Order block_moments_order(const Profile& profile, OrderKind block, OrderKind elsewhere) {
  const bool gpu = profile.sum.kind == OrderKind::block || profile.sum.kind == OrderKind::warp;
  if (!gpu) return {.kind = elsewhere};
  return {.kind = block, .count = profile.sum.count, .vec = profile.sum.vec};
}

namespace {

Operand kernel_mean(Builder& b, const std::string& name, Operand of, Term term) {
  const Profile& profile = bound_profile(b.binding());
  Reduction mean = reduction(ReduceKind::mean, term, profile.sum);
  mean.contract = term == Term::square && profile.contract_squares;
  return b.reduce(name, kFp32, of, mean);
}

}  // namespace

RowMoments two_pass(Builder& b, Operand x) {
  const Operand mean = kernel_mean(b, "mean", x, Term::value);
  const Operand d = b.sub("d", kFp32, x, mean);
  return {mean, kernel_mean(b, "var", d, Term::square)};
}

RowMoments difference_of_squares(Builder& b, Operand x, Floor floor) {
  const Operand mean = kernel_mean(b, "mean", x, Term::value);
  const Operand squares = kernel_mean(b, "ms", x, Term::square);
  Operand variance;
  if (bound_profile(b.binding()).contract_squares) {
    const Operand opposite = b.map("minus_mean", Op::neg, kFp32, {mean});
    variance = b.map("var", Op::fma, kFp32, {opposite, mean, squares});
  } else {
    const Operand square = b.map("mean_sq", Op::square, kFp32, {mean});
    variance = b.sub("var", kFp32, squares, square);
  }
  if (floor == Floor::zero) variance = b.map("var_or_0", Op::max, kFp32, {b.constant("zero_var", 0), variance});
  return {mean, variance};
}

Operand inverse_deviation(Builder& b, Operand variance) {
  return reciprocal_root(b, "r", kFp32, plus_eps(b, variance, "var_eps"));
}

Operand multiply_add(Builder& b, const std::string& name, Operand a, Operand c, Operand d) {
  if (bound_profile(b.binding()).contract_squares) return b.map(name, Op::fma, kFp32, {a, c, d});
  return b.add(name, kFp32, b.mul(name + "_product", kFp32, a, c), d);
}

Operand weigh(Builder& b, Operand n) {
  const bool weighted = b.binding().has("weight");
  if (weighted && b.binding().has("bias")) {
    const Operand w = b.input("weight");
    return multiply_add(b, "nwb", w, n, b.input("bias"));
  }
  if (weighted) return b.mul("nw", kFp32, b.input("weight"), n);
  return b.binding().has("bias") ? b.add("nb", kFp32, n, b.input("bias")) : n;
}

Program finish_with_cast(Builder& b, Operand value) {
  b.output("y", b.cast("y", b.x_format(), value));
  return b.finish();
}

LayerNormParameters affine_inputs(Builder& b) {
  LayerNormParameters parameters;
  if (b.binding().has("weight")) parameters.weight = b.input("weight");
  if (b.binding().has("bias")) parameters.bias = b.input("bias");
  return parameters;
}

namespace {

// gamma * (rstd * (x - mean)) + beta; a root rounded for each of gamma, beta absent is not taken.
Operand on_cuda(Builder& b, Operand x, const LayerNormParameters& parameters) {
  const Profile& profile = bound_profile(b.binding());
  const Operand mean = b.moments("mean", "var", kFp32, x, block_moments_order(profile, OrderKind::torch_cuda_moments),
                                 profile.contract_squares);
  const Operand r = inverse_deviation(b, {mean.node, 1});
  const Operand d = b.sub("d", kFp32, x, mean);
  if (!parameters.weight && parameters.bias) return multiply_add(b, "nb", r, d, *parameters.bias);
  const Operand n = b.mul("n", kFp32, r, d);
  if (!parameters.weight) return n;
  if (!parameters.bias) return b.mul("nw", kFp32, *parameters.weight, n);
  return multiply_add(b, "nwb", *parameters.weight, n, *parameters.bias);
}

// fp32: ((x + (-mean)) * rstd) * gamma + beta. 16 bits: (x * rstd + (-rstd * mean)) * gamma + beta. An absent gamma is
// 1 and folded away, an absent beta is 0 and added.
Operand on_cpu(Builder& b, Operand x, FormatRef t, const LayerNormParameters& parameters) {
  const Profile& profile = bound_profile(b.binding());
  const Operand mean = b.moments("mean", "var", kFp32, x, rowwise_moments_order(profile, t), profile.contract_squares);
  const Operand r = inverse_deviation(b, {mean.node, 1});
  const Operand beta = parameters.bias ? *parameters.bias : b.constant("no_bias", 0);
  if (is_half(t)) {
    const Operand offset = b.mul("offset", kFp32, b.map("minus_r", Op::neg, kFp32, {r}), mean);
    const Operand n = multiply_add(b, "n", x, r, offset);
    return parameters.weight ? multiply_add(b, "nwb", n, *parameters.weight, beta) : b.add("nb", kFp32, n, beta);
  }
  const Operand d = b.sub("d", kFp32, x, mean);
  if (!parameters.weight) return multiply_add(b, "nb", d, r, beta);
  return multiply_add(b, "nwb", b.mul("n", kFp32, d, r), *parameters.weight, beta);
}

}  // namespace

Operand torch_layer_norm(Builder& b, Operand x, FormatRef t, const LayerNormParameters& parameters) {
  const OrderKind kind = bound_profile(b.binding()).sum.kind;
  return kind == OrderKind::block || kind == OrderKind::warp ? on_cuda(b, x, parameters) : on_cpu(b, x, t, parameters);
}

}  // namespace norma

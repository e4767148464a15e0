// The gradients of modulations and gates as eager torch takes them by autograd (FLUX, DiT, Qwen-Image: one vector a
// sample). Every operation rounds to the tensors' format; what is summed over tokens is rounded first.
#include "impls/cast_paths/backward_steps.hpp"
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/modulation.hpp"

namespace norma::cast_paths {

namespace {

/// x = [samples, tokens, channels]; [tokens, channels] is one sample.
View tokens_of(const Binding& binding) { return binding.shape.size() == 2 ? kColumns : View{.kind = ViewKind::tokens}; }

void require_one(const Binding& binding) {
  require_float_or_half(binding, "autograd");
  require_one_format(binding, "the gradient of a modulation");
}

/// at::sum over the tokens of each sample: fp32 inside, one rounding.
void put_token_sum(Builder& b, const std::string& name, Operand of) {
  const Profile& profile = bound_profile(b.binding());
  const Order order = profile.sum.kind == OrderKind::torch_cpu ? torch_outer_order(b.binding().cols) : profile.sum;
  put_out(b, name, b.x_format(), value_sum(b, name + "_sum", kFp32, of, order));
}

/// x (1 + scale) + shift: dx = dy (1 + scale), dscale = sum dy x, dshift = sum dy.
template <Factor factor>
Program build_modulate(const Binding& binding) {
  require_one(binding);
  Builder b("modulate_backward", binding);
  const FormatRef t = b.x_format();
  const Operand dy = b.input("dy"), scale = vector_input(b, "scale");
  const Operand f =
      factor == Factor::one_plus_scale ? b.eager("factor", Op::add, t, {b.constant("one", 1), scale}) : scale;
  b.output("dx", b.eager("dx", Op::mul, t, {dy, f}));
  Builder sums = b.next_stage(tokens_of(binding));
  const Operand x = sums.input("x"), g = sums.input("dy");
  put_token_sum(sums, "dscale", sums.eager("dyx", Op::mul, t, {g, x}));
  put_token_sum(sums, "dshift", g);
  return sums.finish();
}

/// residual + gate x: dresidual = dy, dx = dy gate, dgate = sum dy x.
Program build_gated_residual(const Binding& binding) {
  require_one(binding);
  Builder b("gated_residual_backward", binding);
  const FormatRef t = b.x_format();
  const Operand dy = b.input("dy"), gate = vector_input(b, "gate");
  b.output("dx", b.eager("dx", Op::mul, t, {dy, gate}));
  b.output("dresidual", b.cast("dresidual", t, dy));
  Builder sums = b.next_stage(tokens_of(binding));
  const Operand x = sums.input("x"), g = sums.input("dy");
  put_token_sum(sums, "dgate", sums.eager("dyx", Op::mul, t, {g, x}));
  return sums.finish();
}

constexpr std::string_view kProfiles[] = {"torch_cpu", "torch_cuda", "sequential"};

constexpr CastPath eager(std::string_view norm, std::string_view name, std::string_view title, PathSource source,
                         std::string_view required, std::span<const CaseDefault> attributes,
                         Program (*build)(const Binding&)) {
  return modulation_path(norm, "K", kProfiles,
                         {.name = name,
                          .title = title,
                          .source = source,
                          .required = required,
                          .optional = "",
                          .norm_attributes = attributes,
                          .gaps = {},
                          .build = build});
}

constexpr PathSource kDerivatives{"pytorch/pytorch", "tools/autograd/derivatives.yaml (mul, add; sum_to)", "2.15.0",
                                  "inferred"};

}  // namespace

constinit const CastPath torch_modulate_backward =
    eager("modulate_backward", "torch.modulate_backward",
          "autograd of x (1 + scale) + shift, one vector a sample: products rounded, then summed over tokens (bits "
          "compared, 2.15)",
          kDerivatives, "dy,scale", {}, build_modulate<Factor::one_plus_scale>);

constinit const CastPath torch_film_backward =
    eager("modulate_backward", "torch.film_backward",
          "autograd of x gamma + beta, one vector a sample: products rounded, then summed over tokens", kDerivatives,
          "dy,scale", kScaleItself, build_modulate<Factor::scale>);

constinit const CastPath torch_gated_residual_backward = eager(
    "gated_residual_backward", "torch.gated_residual_backward",
    "autograd of residual + gate x, one vector a sample: products rounded, then summed over tokens (bits compared, "
    "2.15)",
    kDerivatives, "dy,gate", {}, build_gated_residual);

}  // namespace norma::cast_paths

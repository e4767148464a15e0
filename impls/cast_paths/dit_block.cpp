// facebookresearch/DiT models.py DiTBlock with timm's Attention and Mlp, every tensor in one format.
#include "impls/cast_paths/dit_block.hpp"

#include "impls/cast_paths/block_steps.hpp"

namespace norma::blocks {

namespace {

Graph build(const BlockBinding& binding) {
  PathBuilder p(binding, "dit_block");
  GraphBuilder& g = p.g;
  const std::int64_t batch = binding.x[0], width = binding.x[2];
  const auto heads = static_cast<std::int64_t>(binding.numbers.at("heads"));
  const double ratio = binding.numbers.at("mlp"), eps = binding.numbers.at("eps");
  const std::int64_t mlp = ratio == 0 ? 4 * width : static_cast<std::int64_t>(ratio);

  const Value x = p.input("x", binding.x), c = p.input("c", {batch, width});
  const Value modulation = p.linear("adaLN_modulation.1", p.silu("adaLN_modulation.0", c), 6 * width);
  const auto parts = g.chunk("modulation", g.reshape("modulation", modulation, {batch, 1, 6 * width}), -1, 6);

  const auto modulated = [&](const std::string& which, Value from, Value scale, Value shift) {
    const Value n = p.by_path("norm" + which, "torch.layer_norm.cpu", {{"x", from}}, {{"eps", eps}});
    return p.by_path("modulate" + which, "facebook.dit.modulate", {{"x", n}, {"scale", scale}, {"shift", shift}});
  };
  const auto gated = [&](const std::string& name, Value from, Value gate, Value f) {
    return p.by_path(name, "facebook.dit.gated_residual", {{"x", from}, {"gate", gate}, {"f", f}});
  };
  const Value m1 = modulated("1", x, parts[1], parts[0]);
  const auto each = g.chunk("attn.parts", p.linear("attn.qkv", m1, 3 * width), -1, 3);
  const Value q = p.g.split_heads("attn.q", each[0], heads), k = p.g.split_heads("attn.k", each[1], heads),
              v = p.g.split_heads("attn.v", each[2], heads);
  const Value a = p.g.merge_heads("attn.merged", p.attention("attn.attention", q, k, v));
  const Value x1 = gated("gate1", x, parts[2], p.linear("attn.proj", a, width));

  const Value m2 = modulated("2", x1, parts[4], parts[3]);
  const Value hidden = p.gelu_tanh("mlp.act", p.linear("mlp.fc1", m2, mlp));
  g.output(gated("y", x1, parts[5], p.linear("mlp.fc2", hidden, width)));
  return g.finish();
}

}  // namespace

constinit const BlockPath facebook_dit_block{
    .name = "facebook.dit.block",
    .title = "DiTBlock: LayerNorm and modulation op by op, timm's Attention and Mlp",
    .block = "dit_block",
    .source = {"facebookresearch/DiT", "models.py:101-121", "ed81ce2", "read"},
    .build = build,
};

}  // namespace norma::blocks

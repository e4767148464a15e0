// Peebles & Xie, Scalable Diffusion Models with Transformers, 2023: the block with adaLN-Zero.
#include "reference/blocks/dit.hpp"

#include "reference/blocks/formulas.hpp"

namespace norma::blocks {

namespace {

constexpr BlockAttribute kAttributes[] = {
    {"heads", "16", "attention heads; they divide the width"},
    {"mlp", "0", "the MLP's width; 0: four times the block's"},
    {"eps", "1e-6", "of both LayerNorms"},
};

constexpr std::pair<std::string_view, std::string_view> kStreams[] = {{"y", "x"}};

Graph build(const BlockCall& call) {
  if (call.x.size() != 3)
    throw ProgramError("dit_block needs x of shape [batch, tokens, width], got " + shape_text(call.x));
  const std::int64_t batch = call.x[0], width = call.x[2], heads = whole(call, "heads");
  const std::int64_t mlp = call.numbers.at("mlp") == 0 ? 4 * width : whole(call, "mlp");
  const double eps = call.numbers.at("eps");
  if (width % heads != 0)
    throw ProgramError("heads=" + std::to_string(heads) + " must divide the width " + std::to_string(width));

  GraphBuilder g("dit_block");
  const Value x = g.input("x", call.x), c = g.input("c", {batch, width});
  const auto linear = [&](const std::string& name, Value from, std::int64_t in, std::int64_t out) {
    const Value weight = g.weight(name + ".weight", {out, in}), bias = g.weight(name + ".bias", {out});
    return g.linear(name, {}, from, weight, bias);
  };
  const Value modulation = linear("adaLN_modulation.1", silu(g, "adaLN_modulation.0", c), width, 6 * width);
  const auto parts = g.chunk("modulation", g.reshape("modulation", modulation, {batch, 1, 6 * width}), -1, 6);

  const Value m1 = modulate(g, "modulate1", layernorm(g, "norm1", x, eps), parts[1], parts[0]);
  const Value qkv = linear("attn.qkv", m1, width, 3 * width);
  const auto each = g.chunk("attn.parts", qkv, -1, 3);
  const Value q = g.split_heads("attn.q", each[0], heads), k = g.split_heads("attn.k", each[1], heads),
              v = g.split_heads("attn.v", each[2], heads);
  const Value a = g.merge_heads("attn.merged", g.attention("attn.attention", {}, q, k, v));
  const Value x1 = gated_residual(g, "gate1", x, parts[2], linear("attn.proj", a, width, width));

  const Value m2 = modulate(g, "modulate2", layernorm(g, "norm2", x1, eps), parts[4], parts[3]);
  const Value hidden = gelu_tanh(g, "mlp.act", linear("mlp.fc1", m2, width, mlp));
  g.output(gated_residual(g, "y", x1, parts[5], linear("mlp.fc2", hidden, mlp, width)));
  return g.finish();
}

}  // namespace

constinit const BlockDef dit_block{
    .name = "dit_block",
    .title = "DiT block with adaLN-Zero",
    .formula = "x1 = x + g1 attention(LN(x) (1 + s1) + t1); y = x1 + g2 mlp(LN(x1) (1 + s2) + t2); "
               "t1, s1, g1, t2, s2, g2 = Linear(silu(c))",
    .source = "Peebles, Xie, arXiv:2212.09748; facebookresearch/DiT models.py ed81ce2",
    .attributes = kAttributes,
    .build = build,
    .streams = kStreams,
};

}  // namespace norma::blocks

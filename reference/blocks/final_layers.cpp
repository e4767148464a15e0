// Final layers whose shift and scale are the halves of one linear layer's output.
#include "reference/blocks/final_layers.hpp"

#include "reference/blocks/formulas.hpp"
#include "reference/blocks/joint_streams.hpp"

namespace norma::blocks {

namespace {

constexpr BlockAttribute kDit[] = {
    {"out", "32", "numbers a token: a patch's pixels times channels"},
    {"eps", "1e-6", "of the LayerNorm"},
};
constexpr BlockAttribute kQwen[] = {
    {"out", "64", "numbers a token: a patch's pixels times channels"},
    {"eps", "1e-6", "of the LayerNorm"},
};

struct Names {
  std::string block, condition, activation, modulation, last;
  bool scale_first;
};

Graph build(const BlockCall& call, const Names& names) {
  if (call.x.size() != 3)
    throw ProgramError(names.block + " needs x of shape [batch, tokens, width], got " + shape_text(call.x));
  const std::int64_t batch = call.x[0], width = call.x[2];
  GraphBuilder g(names.block);
  const Value x = g.input("x", call.x), c = g.input(names.condition, {batch, width});
  const Value all = linear(g, names.modulation, silu(g, names.activation, c), 2 * width);
  const auto halves = g.chunk("modulation", g.reshape("modulation", all, {batch, 1, 2 * width}), -1, 2);
  const Value &scale = halves[names.scale_first ? 0 : 1], &shift = halves[names.scale_first ? 1 : 0];
  const Value m = modulate(g, "modulate", layernorm(g, "norm", x, call.numbers.at("eps")), scale, shift);
  g.output(linear(g, names.last, m, whole(call, "out")));
  return g.finish();
}

Graph build_dit(const BlockCall& call) {
  return build(call, {"dit_final_layer", "c", "adaLN_modulation.0", "adaLN_modulation.1", "linear", false});
}
Graph build_qwen(const BlockCall& call) {
  return build(call, {"qwen_norm_out", "temb", "norm_out.silu", "norm_out.linear", "proj_out", true});
}

}  // namespace

constinit const BlockDef dit_final_layer{
    .name = "dit_final_layer",
    .title = "DiT's final layer",
    .formula = "y = Linear(LN(x) (1 + scale) + shift); shift, scale = Linear(silu(c))",
    .source = "facebookresearch/DiT models.py ed81ce2",
    .attributes = kDit,
    .build = build_dit,
};

constinit const BlockDef qwen_norm_out{
    .name = "qwen_norm_out",
    .title = "Qwen-Image's last norm and projection",
    .formula = "y = Linear(LN(x) (1 + scale) + shift); scale, shift = Linear(silu(temb))",
    .source = "huggingface/diffusers src/diffusers/models/transformers/transformer_qwenimage.py v0.42.1",
    .attributes = kQwen,
    .build = build_qwen,
};

}  // namespace norma::blocks

// FLUX.1's blocks, from their first code (black-forest-labs/flux) and the paper whose two streams they take over.
#include "reference/blocks/flux.hpp"

#include "reference/blocks/joint_streams.hpp"

namespace norma::blocks {

namespace {

constexpr BlockAttribute kDouble[] = {
    {"heads", "24", "attention heads; they divide the width"},
    {"text", "512", "text tokens"},
    {"mlp", "0", "the MLPs' width; 0: four times the block's"},
    {"eps", "1e-6", "of all norms"},
};
constexpr BlockAttribute kSingle[] = {
    {"heads", "24", "attention heads; they divide the width"},
    {"mlp", "0", "the MLP's width; 0: four times the block's"},
    {"eps", "1e-6", "of all norms"},
};
constexpr BlockAttribute kLast[] = {
    {"out", "64", "numbers a token: a patch's pixels times channels"},
    {"eps", "1e-6", "of the LayerNorm"},
};

constexpr std::pair<std::string_view, std::string_view> kBoth[] = {{"img.out", "img"}, {"txt.out", "txt"}};
constexpr std::pair<std::string_view, std::string_view> kOne[] = {{"y", "x"}};

Graph build_double(const BlockCall& call) {
  const JointSizes s = joint_sizes("flux_double_block", call);
  const std::int64_t text = whole(call, "text"), all = text + s.tokens;
  GraphBuilder g("flux_double_block");
  const Value img = g.input("img", call.x), txt = g.input("txt", {s.batch, text, s.width});
  const Value vec = g.input("vec", {s.batch, s.width});
  const Value cos = g.input("cos", {all, s.head / 2}), sin = g.input("sin", {all, s.head / 2});
  const Value activated = silu(g, "vec.silu", vec);
  const TokenStream image = before_attention(g, "img", img, activated, s),
                    words = before_attention(g, "txt", txt, activated, s);
  const auto joined = [&](const std::string& name, Value first, Value second) {
    return g.concat(name, 1, {first, second});
  };
  const Value q = rotated(g, "q.rope", joined("q", words.heads.q, image.heads.q), cos, sin);
  const Value k = rotated(g, "k.rope", joined("k", words.heads.k, image.heads.k), cos, sin);
  const Value a = attended(g, {q, k, joined("v", words.heads.v, image.heads.v)}, s);
  after_attention(g, image, g.slice("img.attended", a, 1, text, s.tokens), s);
  after_attention(g, words, g.slice("txt.attended", a, 1, 0, text), s);
  return g.finish();
}

Graph build_single(const BlockCall& call) {
  const JointSizes s = joint_sizes("flux_single_block", call);
  GraphBuilder g("flux_single_block");
  const Value x = g.input("x", call.x), vec = g.input("vec", {s.batch, s.width});
  const Value cos = g.input("cos", {s.tokens, s.head / 2}), sin = g.input("sin", {s.tokens, s.head / 2});
  const auto mod = modulations(g, "mod", silu(g, "vec.silu", vec), s, 3);
  const Value m = modulate(g, "modulate", layernorm(g, "norm", x, s.eps), mod[1], mod[0]);
  Heads heads = heads_of(g, "", m, s);
  heads.q = rotated(g, "q.rope", heads.q, cos, sin);
  heads.k = rotated(g, "k.rope", heads.k, cos, sin);
  const Value a = attended(g, heads, s), hidden = gelu_tanh(g, "mlp.1", linear(g, "mlp.0", m, s.mlp));
  const Value f = linear(g, "proj", g.concat("both", 2, {a, hidden}), s.width);
  g.output(gated_residual(g, "y", x, mod[2], f));
  return g.finish();
}

Graph build_last(const BlockCall& call) {
  if (call.x.size() != 3)
    throw ProgramError("flux_last_layer needs x of shape [batch, tokens, width], got " + shape_text(call.x));
  const std::int64_t batch = call.x[0], width = call.x[2];
  GraphBuilder g("flux_last_layer");
  const Value x = g.input("x", call.x), vec = g.input("vec", {batch, width});
  const Value activated = silu(g, "vec.silu", vec);
  const auto part = [&](const std::string& name) {
    return g.reshape(name + ".rows", linear(g, name, activated, width), {batch, 1, width});
  };
  const Value shift = part("shift"), scale = part("scale");
  const Value m = modulate(g, "modulate", layernorm(g, "norm", x, call.numbers.at("eps")), scale, shift);
  g.output(linear(g, "y", m, whole(call, "out")));
  return g.finish();
}

}  // namespace

constinit const BlockDef flux_double_block{
    .name = "flux_double_block",
    .title = "FLUX.1 block of two streams",
    .formula =
        "both streams s: n = LN(s) (1 + c1) + t1; s1 = s + g1 Wo a; s' = s1 + g2 mlp(LN(s1) (1 + c2) + t2); "
        "a = attention(R rms(Wq n), R rms(Wk n), Wv n) of the text's and the image's tokens together; "
        "t1, c1, g1, t2, c2, g2 = Linear(silu(vec)); R turns columns 2k and 2k + 1",
    .source = "black-forest-labs/flux src/flux/modules/layers.py 802fb47; Esser et al., arXiv:2403.03206",
    .attributes = kDouble,
    .build = build_double,
    .input = "img",
    .streams = kBoth,
};

constinit const BlockDef flux_single_block{
    .name = "flux_single_block",
    .title = "FLUX.1 block of one stream, its MLP beside the attention",
    .formula =
        "n = LN(x) (1 + c) + t; y = x + g Linear([attention(R rms(Wq n), R rms(Wk n), Wv n), gelu(W n)]); "
        "t, c, g = Linear(silu(vec)); R turns columns 2k and 2k + 1",
    .source = "black-forest-labs/flux src/flux/modules/layers.py 802fb47",
    .attributes = kSingle,
    .build = build_single,
    .streams = kOne,
};

constinit const BlockDef flux_last_layer{
    .name = "flux_last_layer",
    .title = "FLUX.1's last layer",
    .formula = "y = Linear(LN(x) (1 + scale) + shift); shift, scale = Linear(silu(vec))",
    .source = "black-forest-labs/flux src/flux/modules/layers.py 802fb47",
    .attributes = kLast,
    .build = build_last,
};

}  // namespace norma::blocks

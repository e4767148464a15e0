// Wan: Open and Advanced Large-Scale Video Generative Models, 2025: the block of the text-to-video transformer.
#include "reference/blocks/wan.hpp"

#include "reference/blocks/formulas.hpp"

namespace norma::blocks {

namespace {

constexpr BlockAttribute kAttributes[] = {
    {"heads", "40", "attention heads; they divide the width"},
    {"mlp", "0", "the feed-forward width; 0: four times the block's"},
    {"text", "512", "tokens of the text"},
    {"eps", "1e-6", "of all norms"},
};

constexpr std::pair<std::string_view, std::string_view> kStreams[] = {{"y", "x"}};

/// Columns 2k and 2k + 1 of a head are a point in the plane, turned by the angle that the tables give.
Value rotated(GraphBuilder& g, const std::string& name, Value x, Value cos, Value sin) {
  return formula(g, name,
                 "norm rope\n"
                 "view rows interleaved\n"
                 "in x:T cos:fp64[pairs] sin:fp64[pairs]\n"
                 "other = rotate exact x\n"
                 "own = mul exact x, cos\n"
                 "out y = fma exact other, sin, own\n",
                 {{"x", x}, {"cos", cos}, {"sin", sin}});
}

Graph build(const BlockCall& call) {
  if (call.x.size() != 3)
    throw ProgramError("wan_block needs x of shape [batch, tokens, width], got " + shape_text(call.x));
  const std::int64_t batch = call.x[0], tokens = call.x[1], width = call.x[2], heads = whole(call, "heads");
  const std::int64_t mlp = call.numbers.at("mlp") == 0 ? 4 * width : whole(call, "mlp"), text = whole(call, "text");
  const double eps = call.numbers.at("eps");
  if (width % heads != 0 || width / heads % 2 != 0)
    throw ProgramError("heads=" + std::to_string(heads) + " must divide the width " + std::to_string(width) +
                       " into heads with an even number of columns");
  const std::int64_t size = width / heads;

  GraphBuilder g("wan_block");
  const Value x = g.input("x", call.x), context = g.input("context", {batch, text, width});
  const Value temb = g.input("temb", {batch, 6, width});
  const Value cos = g.input("cos", {tokens, 1, size}), sin = g.input("sin", {tokens, 1, size});
  const auto linear = [&](const std::string& name, Value from, std::int64_t in, std::int64_t out) {
    const Value weight = g.weight(name + ".weight", {out, in}), bias = g.weight(name + ".bias", {out});
    return g.linear(name, {}, from, weight, bias);
  };
  const auto qk_norm = [&](const std::string& name, Value from) {
    return rmsnorm(g, name, from, g.weight(name + ".weight", {width}), eps);
  };
  /// The norm goes over all heads before they are split; Wan turns [batch, tokens, heads, columns].
  const auto heads_of = [&](const std::string& name, Value from, bool turn) {
    Value split = g.reshape(name + ".split", from, {g.shape(from)[0], g.shape(from)[1], heads, size});
    if (turn) split = rotated(g, name + "_rope", split, cos, sin);
    return g.permute(name, split, {0, 2, 1, 3});
  };
  const auto attention = [&](const std::string& name, Value from, Value to, bool turn) {
    const Value q = qk_norm(name + ".norm_q", linear(name + ".to_q", from, width, width));
    const Value k = qk_norm(name + ".norm_k", linear(name + ".to_k", to, width, width));
    const Value v = linear(name + ".to_v", to, width, width);
    const Value hq = heads_of(name + ".q", q, turn), hk = heads_of(name + ".k", k, turn),
                hv = heads_of(name + ".v", v, false);
    const Value a = g.attention(name + ".attention", {}, hq, hk, hv);
    return linear(name + ".to_out.0", g.merge_heads(name + ".merged", a), width, width);
  };

  const Value table = g.reshape("scale_shift_table.row", g.weight("scale_shift_table", {1, 6, width}), {6 * width});
  const Value sum = formula(g, "modulation", "norm add\nin x:T table:fp64[cols]\nout y = add exact x, table\n",
                            {{"x", g.reshape("temb.row", temb, {batch, 6 * width})}, {"table", table}});
  const auto parts = g.chunk("modulation", g.reshape("modulation.rows", sum, {batch, 6, width}), 1, 6);

  const Value m1 = modulate(g, "modulate1", layernorm(g, "norm1", x, eps), parts[1], parts[0]);
  const Value x1 = gated_residual(g, "gate1", x, parts[2], attention("attn1", m1, m1, true));
  const Value n2 =
      formula(g, "norm2",
              "norm layernorm\n"
              "in x:T weight:fp64 bias:fp64 eps\n"
              "m = mean fp64 x order=exact\n"
              "d = sub exact x, m\n"
              "v = mean fp64 square(d) order=exact\n"
              "r = rsqrt exact v + eps\n"
              "out y = fma exact d * r, weight, bias\n",
              {{"x", x1}, {"weight", g.weight("norm2.weight", {width})}, {"bias", g.weight("norm2.bias", {width})}},
              {{"eps", eps}});
  const Value x2 = add(g, "residual2", x1, attention("attn2", n2, context, false));
  const Value m3 = modulate(g, "modulate3", layernorm(g, "norm3", x2, eps), parts[4], parts[3]);
  const Value hidden = gelu_tanh(g, "ffn.net.0", linear("ffn.net.0.proj", m3, width, mlp));
  g.output(gated_residual(g, "y", x2, parts[5], linear("ffn.net.2", hidden, mlp, width)));
  return g.finish();
}

}  // namespace

constinit const BlockDef wan_block{
    .name = "wan_block",
    .title = "Wan video block: modulated self-attention, text cross-attention, modulated feed-forward",
    .formula =
        "x1 = x + g1 attention(LN(x) (1 + s1) + t1); x2 = x1 + attention(LN(x1) w + b, text); "
        "y = x2 + g3 ffn(LN(x2) (1 + s3) + t3); t1, s1, g1, t3, s3, g3 = table + temb",
    .source = "Wan team, arXiv:2503.20314; huggingface/diffusers transformer_wan.py 58eb52c",
    .attributes = kAttributes,
    .build = build,
    .streams = kStreams,
};

}  // namespace norma::blocks

// diffusers' WanTransformerBlock: activations and Linears in T; modulation, LayerNorms and their parameters in fp32
// (_keep_in_fp32_modules), one cast behind each.
#include "impls/cast_paths/wan_block.hpp"

#include "impls/cast_paths/block_steps.hpp"

namespace norma::blocks {

namespace {

Graph build(const BlockBinding& binding) {
  PathBuilder p(binding, "wan_block");
  GraphBuilder& g = p.g;
  const std::int64_t batch = binding.x[0], tokens = binding.x[1], width = binding.x[2];
  const auto heads = static_cast<std::int64_t>(binding.numbers.at("heads")), size = width / heads;
  const double given = binding.numbers.at("mlp"), eps = binding.numbers.at("eps");
  const std::int64_t mlp = given == 0 ? 4 * width : static_cast<std::int64_t>(given);

  const Value x = p.input("x", binding.x);
  const Value context = p.input("context", {batch, static_cast<std::int64_t>(binding.numbers.at("text")), width});
  const Value temb = p.input("temb", {batch, 6, width});
  const Value cos = g.input("cos", {tokens, 1, size}, FormatId::fp32),
              sin = g.input("sin", {tokens, 1, size}, FormatId::fp32);

  // torch.nn.RMSNorm over all heads, then neighbours turned in [batch, tokens, heads, columns].
  const auto normed = [&](const std::string& attn, const std::string& which, Value from) {
    const std::string norm = attn + ".norm_" + which;
    return p.by_path(
        norm, "torch.rms_norm.2_8",
        {{"x", p.linear(attn + ".to_" + which, from, width)}, {"weight", p.weight(norm + ".weight", {width})}},
        {{"eps", eps}});
  };
  const auto heads_of = [&](const std::string& name, Value from, bool turn) {
    Value split = g.reshape(name + ".split", from, {g.shape(from)[0], g.shape(from)[1], heads, size});
    if (turn) split = p.by_path(name + "_rope", "diffusers.rope", {{"x", split}, {"cos", cos}, {"sin", sin}});
    return g.permute(name, split, {0, 2, 1, 3});
  };
  const auto attention = [&](const std::string& name, Value from, Value to, bool turn) {
    const Value q = normed(name, "q", from), k = normed(name, "k", to), v = p.linear(name + ".to_v", to, width);
    const Value hq = heads_of(name + ".q", q, turn), hk = heads_of(name + ".k", k, turn),
                hv = heads_of(name + ".v", v, false);
    const Value a = p.attention(name + ".attention", hq, hk, hv);
    return p.linear(name + ".to_out.0", p.g.merge_heads(name + ".merged", a), width);
  };
  const auto modulated = [&](const std::string& name, Value from, Value scale, Value shift) {
    return p.by_path(name, "diffusers.wan.ada_layernorm", {{"x", from}, {"scale", scale}, {"shift", shift}},
                     {{"eps", eps}});
  };
  const auto gated = [&](const std::string& name, Value from, Value gate, Value f) {
    return p.by_path(name, "diffusers.wan.gated_residual", {{"x", from}, {"gate", gate}, {"f", f}});
  };

  // scale_shift_table + temb.float()
  const Value table =
      g.reshape("scale_shift_table.row", g.weight("scale_shift_table", {1, 6, width}, FormatId::fp32), {6 * width});
  const Value sum = p.by_text("modulation", "norm add\nin x:T table:fp32[cols]\nout y = add fp32 x, table\n",
                              {{"x", g.reshape("temb.row", temb, {batch, 6 * width})}, {"table", table}});
  const auto parts = g.chunk("modulation", g.reshape("modulation.rows", sum, {batch, 6, width}), 1, 6);

  const Value m1 = modulated("modulate1", x, parts[1], parts[0]);
  const Value x1 = gated("gate1", x, parts[2], attention("attn1", m1, m1, true));
  const Value weight = g.weight("norm2.weight", {width}, FormatId::fp32),
              bias = g.weight("norm2.bias", {width}, FormatId::fp32);
  const Value n2 =
      p.by_path("norm2", "diffusers.fp32_layer_norm", {{"x", x1}, {"weight", weight}, {"bias", bias}}, {{"eps", eps}});
  const Value x2 =
      p.by_text("residual2", "norm add\nin x:T other:T[rows,cols]\ns = add fp32 x, other\nout y = cast T s\n",
                {{"x", x1}, {"other", attention("attn2", n2, context, false)}});
  const Value m3 = modulated("modulate3", x2, parts[4], parts[3]);
  const Value hidden = p.gelu_tanh("ffn.net.0", p.linear("ffn.net.0.proj", m3, mlp));
  g.output(gated("y", x2, parts[5], p.linear("ffn.net.2", hidden, width)));
  return g.finish();
}

}  // namespace

constinit const BlockPath diffusers_wan_block{
    .name = "diffusers.wan.block",
    .title =
        "WanTransformerBlock: one rounding for norm and modulation, one for gate and residual; QK RMSNorm over all "
        "heads",
    .block = "wan_block",
    .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_wan.py", "v0.42.1", "read"},
    .build = build,
};

}  // namespace norma::blocks

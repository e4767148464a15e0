// Touvron et al., LLaMA, 2023 (pre-normalization, SwiGLU, rotary embedding), with the grouped queries of Ainslie et
// al., 2023.
#include "reference/blocks/llama.hpp"

#include "reference/blocks/formulas.hpp"

namespace norma::blocks {

namespace {

constexpr BlockAttribute kAttributes[] = {
    {"heads", "32", "query heads"},
    {"kv_heads", "0", "heads of keys and values; 0: as many as there are queries'"},
    {"head_dim", "0", "columns of a head; 0: the width over the heads"},
    {"mlp", "0", "the MLP's width; 0: 8/3 of the block's, up to a multiple of 256"},
    {"eps", "1e-6", "of both RMSNorms"},
};

constexpr std::pair<std::string_view, std::string_view> kStreams[] = {{"y", "x"}};

std::int64_t or_else(const BlockCall& call, std::string_view name, std::int64_t otherwise) {
  return call.numbers.find(name)->second == 0 ? otherwise : whole(call, name);
}

/// Column k and column k + D / 2 of a head are a point in the plane, turned by the angle that the tables give.
Value rotated(GraphBuilder& g, const std::string& name, Value x, Value cos, Value sin) {
  return formula(g, name,
                 "norm rope\n"
                 "view rows half\n"
                 "in x:T cos:fp64[pairs] sin:fp64[pairs]\n"
                 "other = rotate exact x\n"
                 "own = mul exact x, cos\n"
                 "out y = fma exact other, sin, own\n",
                 {{"x", x}, {"cos", cos}, {"sin", sin}});
}

Graph build(const BlockCall& call) {
  if (call.x.size() != 3)
    throw ProgramError("llama_block needs x of shape [batch, tokens, width], got " + shape_text(call.x));
  const std::int64_t tokens = call.x[1], width = call.x[2], heads = whole(call, "heads");
  const std::int64_t kv_heads = or_else(call, "kv_heads", heads), size = or_else(call, "head_dim", width / heads);
  const std::int64_t mlp = or_else(call, "mlp", (width * 8 / 3 + 255) / 256 * 256);
  const double eps = call.numbers.at("eps");
  if (call.numbers.at("head_dim") == 0 && width % heads != 0)
    throw ProgramError("heads=" + std::to_string(heads) + " must divide the width " + std::to_string(width) +
                       ", or head_dim be given");
  if (heads % kv_heads != 0)
    throw ProgramError("kv_heads=" + std::to_string(kv_heads) + " must divide heads=" + std::to_string(heads));
  if (size < 2 || size % 2 != 0)
    throw ProgramError("a head of " + std::to_string(size) + " columns cannot be turned: head_dim must be even");

  GraphBuilder g("llama_block");
  const Value x = g.input("x", call.x), cos = g.input("cos", {tokens, size}), sin = g.input("sin", {tokens, size});
  const auto linear = [&](const std::string& name, Value from, std::int64_t in, std::int64_t out) {
    return g.linear(name, {}, from, g.weight(name + ".weight", {out, in}));
  };
  const auto norm = [&](const std::string& name, Value from) {
    return rmsnorm(g, name, from, g.weight(name + ".weight", {width}), eps);
  };
  const Value n1 = norm("input_layernorm", x);
  const Value q = g.split_heads("self_attn.q", linear("self_attn.q_proj", n1, width, heads * size), heads);
  const Value k = g.split_heads("self_attn.k", linear("self_attn.k_proj", n1, width, kv_heads * size), kv_heads);
  const Value v = g.split_heads("self_attn.v", linear("self_attn.v_proj", n1, width, kv_heads * size), kv_heads);
  const Value turned_q = rotated(g, "self_attn.q_rope", q, cos, sin),
              turned_k = rotated(g, "self_attn.k_rope", k, cos, sin);
  const Value a = g.attention("self_attn.attention", {.causal = true}, turned_q, turned_k, v);
  const Value attended = linear("self_attn.o_proj", g.merge_heads("self_attn.merged", a), heads * size, width);
  const Value x1 = add(g, "self_attn.residual", x, attended);

  const Value n2 = norm("post_attention_layernorm", x1);
  const Value gate = silu(g, "mlp.act_fn", linear("mlp.gate_proj", n2, width, mlp));
  const Value hidden = mul(g, "mlp.product", gate, linear("mlp.up_proj", n2, width, mlp));
  g.output(add(g, "y", x1, linear("mlp.down_proj", hidden, mlp, width)));
  return g.finish();
}

}  // namespace

constinit const BlockDef llama_block{
    .name = "llama_block",
    .title = "LLaMA decoder block",
    .formula =
        "x1 = x + Wo attention(R Wq n1, R Wk n1, Wv n1), n1 = RMSNorm(x); "
        "y = x1 + Wd (silu(Wg n2) Wu n2), n2 = RMSNorm(x1); R turns columns k and k + D/2 by the tables' angle",
    .source = "Touvron et al., arXiv:2302.13971; Su et al., arXiv:2104.09864; meta-llama/llama llama/model.py 689c7f2",
    .attributes = kAttributes,
    .build = build,
    .streams = kStreams,
};

}  // namespace norma::blocks

// transformers' LlamaDecoderLayer, every tensor in one format.
#include "impls/cast_paths/llama_block.hpp"

#include "impls/cast_paths/block_steps.hpp"

namespace norma::blocks {

namespace {

enum class Attend { sdpa, eager };

// eager_attention_forward: q k^T is stored in T, times the scaling stored in T again; softmax in fp32, stored in T;
// times v.
Value eager_attention(PathBuilder& p, const std::string& name, Value q, Value k, Value v) {
  const Rounding stored{.format = FormatRef{p.format()}};
  const AttentionSite site{.causal = true,
                           .sum = {.order = ProductOrder::sequential},
                           .products = stored,
                           .scores = stored,
                           .probabilities = stored,
                           .rounding = stored,
                           .normalized_first = true};
  return p.g.attention(name, site, q, k, v);
}

template <Attend attend>
Graph build(const BlockBinding& binding) {
  PathBuilder p(binding, "llama_block");
  GraphBuilder& g = p.g;
  const std::int64_t tokens = binding.x[1], width = binding.x[2];
  const auto number = [&](std::string_view name, std::int64_t otherwise) {
    const double given = binding.numbers.find(name)->second;
    return given == 0 ? otherwise : static_cast<std::int64_t>(given);
  };
  const std::int64_t heads = number("heads", 0), kv_heads = number("kv_heads", heads);
  const std::int64_t size = number("head_dim", width / heads), mlp = number("mlp", (width * 8 / 3 + 255) / 256 * 256);
  const double eps = binding.numbers.at("eps");

  const Value x = p.input("x", binding.x), cos = p.input("cos", {tokens, size}), sin = p.input("sin", {tokens, size});
  const auto norm = [&](const std::string& name, Value from) {
    return p.by_path(name, "transformers.llama.rmsnorm", {{"x", from}, {"weight", p.weight(name + ".weight", {width})}},
                     {{"eps", eps}});
  };
  const auto heads_of = [&](const std::string& name, Value from, std::int64_t count) {
    return p.g.split_heads(name, p.linear(name + "_proj", from, count * size, false), count);
  };
  const auto rotated = [&](const std::string& name, Value from) {
    return p.by_path(name + "_rope", "transformers.llama.rope", {{"x", from}, {"cos", cos}, {"sin", sin}});
  };
  const auto added = [&](const std::string& name, Value a, Value b) {
    return p.by_text(name, "norm add\nin x:T other:T[rows,cols]\ns = add fp32 x, other\nout y = cast T s\n",
                     {{"x", a}, {"other", b}});
  };
  const Value n1 = norm("input_layernorm", x);
  const Value q = heads_of("self_attn.q", n1, heads), k = heads_of("self_attn.k", n1, kv_heads),
              v = heads_of("self_attn.v", n1, kv_heads);
  const Value turned_q = rotated("self_attn.q", q), turned_k = rotated("self_attn.k", k);
  const Value a = attend == Attend::sdpa ? p.attention("self_attn.attention", turned_q, turned_k, v, true)
                                         : eager_attention(p, "self_attn.attention", turned_q, turned_k, v);
  const Value attended = p.linear("self_attn.o_proj", p.g.merge_heads("self_attn.merged", a), width, false);
  const Value x1 = added("self_attn.residual", x, attended);

  const Value n2 = norm("post_attention_layernorm", x1);
  const Value gate = p.silu("mlp.act_fn", p.linear("mlp.gate_proj", n2, mlp, false));
  const Value hidden =
      p.by_text("mlp.product", "norm mul\nin x:T other:T[rows,cols]\ns = mul fp32 x, other\nout y = cast T s\n",
                {{"x", gate}, {"other", p.linear("mlp.up_proj", n2, mlp, false)}});
  g.output(added("y", x1, p.linear("mlp.down_proj", hidden, width, false)));
  return g.finish();
}

}  // namespace

constinit const BlockPath transformers_llama_block{
    .name = "transformers.llama.block",
    .title = "LlamaDecoderLayer with scaled_dot_product_attention; RMSNorm, rotary embedding and SwiGLU op by op",
    .block = "llama_block",
    .source = {"huggingface/transformers", "src/transformers/models/llama/modeling_llama.py", "v5.23.0", "read"},
    .build = build<Attend::sdpa>,
};

constinit const BlockPath transformers_llama_block_eager{
    .name = "transformers.llama.block.eager",
    .title = "LlamaDecoderLayer with eager attention: products, scores and probabilities are stored in T",
    .block = "llama_block",
    .source = {"huggingface/transformers", "src/transformers/models/llama/modeling_llama.py", "v5.23.0", "read"},
    .build = build<Attend::eager>,
};

}  // namespace norma::blocks

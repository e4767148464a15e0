// Two streams of tokens, each with its own weights, one attention.
#include "reference/blocks/joint_streams.hpp"

namespace norma::blocks {

JointSizes joint_sizes(std::string_view block, const BlockCall& call) {
  if (call.x.size() != 3)
    throw ProgramError(std::string(block) + " needs tokens of shape [batch, tokens, width], got " + shape_text(call.x));
  JointSizes s{.batch = call.x[0], .tokens = call.x[1], .width = call.x[2], .heads = whole(call, "heads")};
  if (s.width % s.heads != 0)
    throw ProgramError("heads=" + std::to_string(s.heads) + " must divide the width " + std::to_string(s.width));
  s.head = s.width / s.heads;
  if (s.head % 2 != 0)
    throw ProgramError("a head of " + std::to_string(s.head) + " columns has no pairs to turn: heads=" +
                       std::to_string(s.heads) + " must leave an even number of the width " + std::to_string(s.width));
  s.mlp = call.numbers.at("mlp") == 0 ? 4 * s.width : whole(call, "mlp");
  s.eps = call.numbers.at("eps");
  return s;
}

Value linear(GraphBuilder& g, const std::string& name, Value x, std::int64_t out) {
  const Value weight = g.weight(name + ".weight", {out, g.shape(x).back()}), bias = g.weight(name + ".bias", {out});
  return g.linear(name, {}, x, weight, bias);
}

Heads heads_of(GraphBuilder& g, const std::string& prefix, Value x, const JointSizes& sizes) {
  const Shape& tokens = g.shape(x);
  const Shape split{tokens[0], tokens[1], sizes.heads, sizes.head};
  const auto part = [&](const std::string& name) {
    return g.reshape(prefix + name + "_heads", linear(g, prefix + name, x, sizes.width), split);
  };
  const auto normed = [&](const std::string& name) {
    const Value from = part(name);
    return rmsnorm(g, prefix + name + "_norm", from, g.weight(prefix + name + "_norm.weight", {sizes.head}), sizes.eps);
  };
  const Value q = normed("q"), k = normed("k");
  return {q, k, part("v")};
}

Value rotated(GraphBuilder& g, const std::string& name, Value x, Value cos, Value sin) {
  const Shape table{g.shape(cos)[0], 1, g.shape(cos)[1]};
  return formula(
      g, name,
      "norm rope\n"
      "view rows interleaved\n"
      "in x:T cos:fp64[pairs] sin:fp64[pairs]\n"
      "other = rotate exact x\n"
      "own = mul exact x, cos\n"
      "out y = fma exact other, sin, own\n",
      {{"x", x}, {"cos", g.reshape(name + ".cos", cos, table)}, {"sin", g.reshape(name + ".sin", sin, table)}});
}

Value attended(GraphBuilder& g, const Heads& heads, const JointSizes& sizes) {
  const auto by_head = [&](const std::string& name, Value x) { return g.permute(name + ".by_head", x, {0, 2, 1, 3}); };
  const Value q = by_head("q", heads.q), k = by_head("k", heads.k), v = by_head("v", heads.v);
  const Value y = g.permute("attention.tokens", g.attention("attention", {}, q, k, v), {0, 2, 1, 3});
  return g.reshape("attention.merged", y, {g.shape(y)[0], g.shape(y)[1], sizes.width});
}

std::vector<Value> modulations(GraphBuilder& g, const std::string& name, Value activated, const JointSizes& sizes,
                               std::int64_t parts) {
  const Value all = linear(g, name, activated, parts * sizes.width);
  return g.chunk(name + ".parts", g.reshape(name + ".parts", all, {sizes.batch, 1, parts * sizes.width}), -1, parts);
}

TokenStream before_attention(GraphBuilder& g, const std::string& name, Value x, Value activated,
                             const JointSizes& sizes) {
  TokenStream s{.name = name, .x = x, .modulation = modulations(g, name + ".mod", activated, sizes, 6), .heads = {}};
  const Value n = layernorm(g, name + ".norm1", x, sizes.eps);
  s.heads = heads_of(g, name + ".", modulate(g, name + ".modulate1", n, s.modulation[1], s.modulation[0]), sizes);
  return s;
}

Value after_attention(GraphBuilder& g, const TokenStream& stream, Value attended, const JointSizes& sizes) {
  const std::string name = stream.name + ".";
  const auto& mod = stream.modulation;
  const Value x = gated_residual(g, name + "gate1", stream.x, mod[2], linear(g, name + "proj", attended, sizes.width));
  const Value m = modulate(g, name + "modulate2", layernorm(g, name + "norm2", x, sizes.eps), mod[4], mod[3]);
  const Value hidden = gelu_tanh(g, name + "mlp.1", linear(g, name + "mlp.0", m, sizes.mlp));
  const Value y = gated_residual(g, name + "out", x, mod[5], linear(g, name + "mlp.2", hidden, sizes.width));
  g.output(y);
  return y;
}

}  // namespace norma::blocks

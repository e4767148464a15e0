// Two streams of tokens as torch computes them, op by op.
#include "impls/cast_paths/joint_steps.hpp"

#include <cmath>

namespace norma::blocks {

JointBuilder::JointBuilder(const BlockBinding& binding, const JointCode& which)
    : p(binding, std::string(which.block)), code(which) {
  if (binding.x.size() != 3)
    throw ProgramError(std::string(code.path) + " needs tokens of shape [batch, tokens, width], got " +
                       shape_text(binding.x));
  batch = binding.x[0], tokens = binding.x[1], width = binding.x[2], heads = number("heads");
  if (heads < 1 || width % heads != 0 || width / heads % 2 != 0)
    throw ProgramError("heads=" + std::to_string(heads) + " must divide the width " + std::to_string(width) +
                       " into heads of an even number of columns");
  head = width / heads;
  const std::int64_t given = number("mlp");
  mlp = given == 0 ? 4 * width : given;
  const auto found = binding.numbers.find("eps");
  if (found == binding.numbers.end()) throw ProgramError(std::string(code.path) + " needs the number eps");
  eps = found->second;
  if (code.eps_written && eps != 1e-6)
    throw ProgramError(std::string(code.path) + " has eps=1e-6 written in it and takes no other");
}

std::int64_t JointBuilder::number(std::string_view name) const {
  const auto found = p.binding().numbers.find(name);
  if (found == p.binding().numbers.end() || found->second != std::floor(found->second) || !(found->second >= 0) ||
      found->second > 0x1p31)
    throw ProgramError(std::string(code.path) + " needs " + std::string(name) + ", a whole number");
  return static_cast<std::int64_t>(found->second);
}

Value JointBuilder::table(const std::string& name, std::int64_t rows) {
  return p.g.input(name, {rows, head / 2}, FormatId::fp32);
}

std::vector<Value> JointBuilder::modulations(const std::string& name, Value activated, std::int64_t parts) {
  const Value all = p.linear(name, activated, parts * width);
  return p.g.chunk(name + ".parts", p.g.reshape(name + ".parts", all, {batch, 1, parts * width}), -1, parts);
}

Value JointBuilder::modulated(const std::string& norm, const std::string& name, Value x, Value scale, Value shift) {
  const Value n = p.by_path(norm, "torch.layer_norm.cpu", {{"x", x}}, {{"eps", eps}});
  return p.by_path(name, code.modulate, {{"x", n}, {"scale", scale}, {"shift", shift}});
}

JointBuilder::Heads JointBuilder::heads_of(const std::string& prefix, Value x) {
  const Shape split{batch, p.g.shape(x)[1], heads, head};
  const auto part = [&](const std::string& name) {
    return p.g.reshape(prefix + name + "_heads", p.linear(prefix + name, x, width), split);
  };
  const auto normed = [&](const std::string& name) {
    const Value from = part(name), weight = p.weight(prefix + name + "_norm.weight", {head});
    return p.by_path(prefix + name + "_norm", code.rmsnorm, {{"x", from}, {"weight", weight}}, {{"eps", eps}});
  };
  const Value q = normed("q"), k = normed("k");
  return {q, k, part("v")};
}

Value JointBuilder::rotated(const std::string& name, Value x, Value cos, Value sin) {
  const Shape rows{p.g.shape(cos)[0], 1, head / 2};
  const Value c = p.g.reshape(name + ".cos", cos, rows), s = p.g.reshape(name + ".sin", sin, rows);
  return p.by_path(name, code.rope, {{"x", x}, {"cos", c}, {"sin", s}});
}

Value JointBuilder::attended(const Heads& all) {
  const auto by_head = [&](const std::string& name, Value x) {
    return p.g.permute(name + ".by_head", x, {0, 2, 1, 3});
  };
  const Value q = by_head("q", all.q), k = by_head("k", all.k), v = by_head("v", all.v);
  const Value y = p.g.permute("attention.tokens", p.attention("attention", q, k, v), {0, 2, 1, 3});
  return p.g.reshape("attention.merged", y, {batch, p.g.shape(y)[1], width});
}

Value JointBuilder::gated(std::string_view path, const std::string& name, Value x, Value gate, Value f) {
  return p.by_path(name, path, {{"x", x}, {"gate", gate}, {"f", f}});
}

JointBuilder::Stream JointBuilder::before_attention(const std::string& name, Value x, Value activated) {
  Stream s{.name = name + ".", .x = x, .mod = modulations(name + ".mod", activated, 6), .heads = {}};
  s.heads = heads_of(s.name, modulated(s.name + "norm1", s.name + "modulate1", x, s.mod[1], s.mod[0]));
  return s;
}

void JointBuilder::after_attention(const Stream& s, Value attended, std::string_view last) {
  const Value x =
      gated(code.gated_residual, s.name + "gate1", s.x, s.mod[2], p.linear(s.name + "proj", attended, width));
  const Value m = modulated(s.name + "norm2", s.name + "modulate2", x, s.mod[4], s.mod[3]);
  const Value hidden = p.gelu_tanh(s.name + "mlp.1", p.linear(s.name + "mlp.0", m, mlp));
  p.g.output(gated(last, s.name + "out", x, s.mod[5], p.linear(s.name + "mlp.2", hidden, width)));
}

}  // namespace norma::blocks

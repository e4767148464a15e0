// Sites of blocks as torch computes them.
#include "impls/cast_paths/block_steps.hpp"

#include "reference/program/builder.hpp"

namespace norma::blocks {

Binding PathBuilder::binding_of(const std::vector<std::pair<std::string, Value>>& arguments,
                                const Attributes& attributes) const {
  Binding binding{.x = format(), .formats = {}, .attributes = attributes, .profile = binding_.profile};
  for (const auto& [role, value] : arguments) {
    const FormatId stored = g.format(value).value_or(FormatId::fp32);
    if (role == "x") {
      binding.x = stored;
      binding.shape = g.shape(value);
      binding.cols = binding.shape.empty() ? 1 : binding.shape.back();
    } else {
      binding.formats[role] = stored;
    }
  }
  return binding;
}

Value PathBuilder::by_path(const std::string& name, std::string_view path,
                           std::vector<std::pair<std::string, Value>> arguments, Attributes attributes) {
  const CastPath* found = find_cast_path(path);
  if (found == nullptr) throw ProgramError("site " + name + " names no cast path: " + std::string(path));
  Program program = build_path(*found, binding_of(arguments, attributes));
  return g.program(name, {.program = std::move(program), .attributes = std::move(attributes), .path = std::string(path)},
                   std::move(arguments));
}

Value PathBuilder::by_text(const std::string& name, const std::string& text,
                           std::vector<std::pair<std::string, Value>> arguments, Attributes attributes) {
  Program program = parse_program(text, binding_of(arguments, attributes));
  return g.program(name, {.program = std::move(program), .attributes = std::move(attributes)}, std::move(arguments));
}

Value PathBuilder::linear(const std::string& name, Value x, std::int64_t out, bool bias) {
  const Value w = weight(name + ".weight", {out, g.shape(x).back()});
  const LinearSite site{.sum = {.order = ProductOrder::sequential}, .rounding = {.format = FormatRef{format()}}};
  if (!bias) return g.linear(name, site, x, w);
  return g.linear(name, site, x, w, weight(name + ".bias", {out}));
}

// aten/src/ATen/native/cpu/Activation.cpp: x / (1 + exp(-x)) in fp32, one cast; Sleef's exp is within 1 ulp.
Value PathBuilder::silu(const std::string& name, Value x) {
  return by_text(name,
                 "norm silu\n"
                 "in x:T\n"
                 "n = neg fp32 x\n"
                 "e = exp fp32 n within=1\n"
                 "q = div fp32 x, 1 + e\n"
                 "out y = cast T q\n",
                 {{"x", x}});
}

// The same file: 0.5 x (1 + tanh(kBeta (x + kKappa x x x))) in fp32, one cast; Sleef's tanh is within 1 ulp.
Value PathBuilder::gelu_tanh(const std::string& name, Value x) {
  return by_text(name,
                 "norm gelu\n"
                 "in x:T\n"
                 "c = mul fp32 x * x, x\n"
                 "k = mul fp32 c, 0x1.6e4e26p-5\n"
                 "i = add fp32 x, k\n"
                 "s = mul fp32 i, 0x1.988454p-1\n"
                 "t = tanh fp32 s within=1\n"
                 "h = mul fp32 x, 0.5\n"
                 "p = mul fp32 h, 1 + t\n"
                 "out y = cast T p\n",
                 {{"x", x}});
}

Value PathBuilder::attention(const std::string& name, Value q, Value k, Value v, bool causal) {
  const AttentionSite site{.causal = causal,
                           .sum = {.order = ProductOrder::sequential},
                           .scores = {},
                           .probabilities = {.format = FormatRef{format()}},
                           .rounding = {.format = FormatRef{format()}},
                           .normalized_first = false};
  return g.attention(name, site, q, k, v);
}

Value PathBuilder::split_heads(const std::string& name, Value x, std::int64_t heads) {
  const Shape s = g.shape(x);
  if (s.size() != 3 || heads < 1 || s[2] % heads != 0)
    throw ProgramError("heads=" + std::to_string(heads) + " must divide the width of " + name + ", which is " +
                       std::to_string(s.empty() ? 1 : s.back()));
  return g.permute(name, g.reshape(name + ".split", x, {s[0], s[1], heads, s[2] / heads}), {0, 2, 1, 3});
}

Value PathBuilder::merge_heads(const std::string& name, Value x) {
  const Shape s = g.shape(x);
  return g.reshape(name, g.permute(name + ".tokens", x, {0, 2, 1, 3}), {s[0], s[2], s[1] * s[3]});
}

}  // namespace norma::blocks

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

Value PathBuilder::silu(const std::string& name, Value x) { return by_path(name, "torch.silu", {{"x", x}}); }

Value PathBuilder::gelu_tanh(const std::string& name, Value x) { return by_path(name, "torch.gelu_tanh", {{"x", x}}); }

Value PathBuilder::attention(const std::string& name, Value q, Value k, Value v, bool causal) {
  const AttentionSite site{.causal = causal,
                           .sum = {.order = ProductOrder::sequential},
                           .scores = {},
                           .probabilities = {.format = FormatRef{format()}},
                           .rounding = {.format = FormatRef{format()}},
                           .normalized_first = false};
  return g.attention(name, site, q, k, v);
}

}  // namespace norma::blocks

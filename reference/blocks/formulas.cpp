// The formulas of blocks, written from their definitions.
#include "reference/blocks/formulas.hpp"

#include <utility>

namespace norma::blocks {

Value formula(GraphBuilder& g, const std::string& name, const std::string& text,
              std::vector<std::pair<std::string, Value>> arguments, Attributes attributes) {
  Binding binding{.x = FormatId::fp64, .formats = {}, .attributes = attributes, .profile = {}};
  for (const auto& [role, value] : arguments)
    if (role == "x")
      binding.shape = g.shape(value), binding.cols = binding.shape.empty() ? 1 : binding.shape.back();
    else
      binding.formats[role] = FormatId::fp64;
  return g.program(name, {.program = erase_roundings(parse_program(text, binding)), .attributes = std::move(attributes)},
                   std::move(arguments));
}

Value layernorm(GraphBuilder& g, const std::string& name, Value x, double eps) {
  return formula(g, name,
                 "norm layernorm\n"
                 "in x:T eps\n"
                 "m = mean fp64 x order=exact\n"
                 "d = sub exact x, m\n"
                 "v = mean fp64 square(d) order=exact\n"
                 "r = rsqrt exact v + eps\n"
                 "out y = mul exact d, r\n",
                 {{"x", x}}, {{"eps", eps}});
}

Value rmsnorm(GraphBuilder& g, const std::string& name, Value x, Value weight, double eps) {
  return formula(g, name,
                 "norm rmsnorm\n"
                 "in x:T weight:fp64 eps\n"
                 "ms = mean fp64 square(x) order=exact\n"
                 "r = rsqrt exact ms + eps\n"
                 "out y = mul exact x * r, weight\n",
                 {{"x", x}, {"weight", weight}}, {{"eps", eps}});
}

Value modulate(GraphBuilder& g, const std::string& name, Value x, Value scale, Value shift) {
  return formula(g, name,
                 "norm modulate\n"
                 "in x:T scale:fp64[cols] shift:fp64[cols]\n"
                 "out y = fma exact x, 1 + scale, shift\n",
                 {{"x", x}, {"scale", scale}, {"shift", shift}});
}

Value gated_residual(GraphBuilder& g, const std::string& name, Value x, Value gate, Value f) {
  return formula(g, name,
                 "norm gated_residual\n"
                 "in x:T gate:fp64[cols] f:fp64[rows,cols]\n"
                 "out y = fma exact gate, f, x\n",
                 {{"x", x}, {"gate", gate}, {"f", f}});
}

Value add(GraphBuilder& g, const std::string& name, Value x, Value other) {
  return formula(g, name, "norm add\nin x:T other:fp64[rows,cols]\nout y = add exact x, other\n",
                 {{"x", x}, {"other", other}});
}

Value mul(GraphBuilder& g, const std::string& name, Value x, Value other) {
  return formula(g, name, "norm mul\nin x:T other:fp64[rows,cols]\nout y = mul exact x, other\n",
                 {{"x", x}, {"other", other}});
}

Value silu(GraphBuilder& g, const std::string& name, Value x) {
  return formula(g, name,
                 "norm silu\n"
                 "in x:T\n"
                 "n = neg exact x\n"
                 "e = exp exact n\n"
                 "out y = div exact x, 1 + e\n",
                 {{"x", x}});
}

Value gelu_tanh(GraphBuilder& g, const std::string& name, Value x) {
  return formula(g, name,
                 "norm gelu\n"
                 "in x:T\n"
                 "c = mul exact x * x, x\n"
                 "i = fma exact c, 0.044715, x\n"
                 "s = mul exact i, 0x1.9884533d43651p-1\n"
                 "t = tanh exact s\n"
                 "h = mul exact x, 0.5\n"
                 "out y = mul exact h, 1 + t\n",
                 {{"x", x}});
}

Value gelu(GraphBuilder& g, const std::string& name, Value x) {
  return formula(g, name,
                 "norm gelu\n"
                 "in x:T\n"
                 "two = const 2\n"
                 "q = sqrt exact two\n"
                 "s = div exact x, q\n"
                 "t = erf exact s\n"
                 "h = mul exact x, 0.5\n"
                 "out y = mul exact h, 1 + t\n",
                 {{"x", x}});
}

}  // namespace norma::blocks

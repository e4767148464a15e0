// What transcriptions of blocks share: sites by cast paths of the catalogue, and torch's eager operations.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "impls/cast_paths/block_path.hpp"

namespace norma::blocks {

using Value = GraphBuilder::Value;

/// Writes the sites of one path.
class PathBuilder {
 public:
  PathBuilder(const BlockBinding& binding, std::string block) : g(std::move(block)), binding_(binding) {}

  FormatId format() const { return binding_.format; }
  const BlockBinding& binding() const { return binding_; }
  Value input(const std::string& name, Shape shape) { return g.input(name, std::move(shape), format()); }
  Value weight(const std::string& name, Shape shape) { return g.weight(name, std::move(shape), format()); }

  /// A site by a path of the catalogue, its inputs by name.
  Value by_path(const std::string& name, std::string_view path, std::vector<std::pair<std::string, Value>> arguments,
                Attributes attributes = {});
  /// A site by a program's text (docs/program_text.md).
  Value by_text(const std::string& name, const std::string& text, std::vector<std::pair<std::string, Value>> arguments,
                Attributes attributes = {});
  /// torch's Linear with parameters NAME.weight and NAME.bias: fp32 sums, the bias before the result is stored.
  Value linear(const std::string& name, Value x, std::int64_t out, bool bias = true);
  Value silu(const std::string& name, Value x);
  Value gelu_tanh(const std::string& name, Value x);
  /// scaled_dot_product_attention: scores and exponentials in fp32, as its fused kernels keep them; one rounding.
  Value attention(const std::string& name, Value q, Value k, Value v, bool causal = false);

  GraphBuilder g;

 private:
  Binding binding_of(const std::vector<std::pair<std::string, Value>>& arguments, const Attributes& attributes) const;
  BlockBinding binding_;
};

}  // namespace norma::blocks

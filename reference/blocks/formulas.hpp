// What blocks are made of, over the reals: one site a formula.
#pragma once

#include <string>

#include "reference/program/graph.hpp"

namespace norma::blocks {

using Value = GraphBuilder::Value;

/// A formula in the text form of programs (docs/program_text.md), every step exact; its arguments by name.
Value formula(GraphBuilder& g, const std::string& name, const std::string& text,
              std::vector<std::pair<std::string, Value>> arguments, Attributes attributes = {});

/// (x - mean) / sqrt(var + eps), along the last axis.
Value layernorm(GraphBuilder& g, const std::string& name, Value x, double eps);
/// x / sqrt(mean(x^2) + eps) weight, along the last axis.
Value rmsnorm(GraphBuilder& g, const std::string& name, Value x, Value weight, double eps);
/// x (1 + scale) + shift; scale and shift [B, 1, C] or as x.
Value modulate(GraphBuilder& g, const std::string& name, Value x, Value scale, Value shift);
/// x + gate f
Value gated_residual(GraphBuilder& g, const std::string& name, Value x, Value gate, Value f);
Value add(GraphBuilder& g, const std::string& name, Value x, Value other);
Value mul(GraphBuilder& g, const std::string& name, Value x, Value other);
/// x / (1 + e^-x)
Value silu(GraphBuilder& g, const std::string& name, Value x);
/// x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2, with the binary64 numbers next to sqrt(2/pi) and 0.044715
Value gelu_tanh(GraphBuilder& g, const std::string& name, Value x);
/// x Phi(x)
Value gelu(GraphBuilder& g, const std::string& name, Value x);


}  // namespace norma::blocks

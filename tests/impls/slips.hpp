// One wrong operation put into a program: what a transcription test must find.
#pragma once

#include <optional>
#include <utility>

#include "reference/program/program.hpp"

namespace norma {

/// The program with step `i` computing something else; none where the step has no such neighbour, or where a constant
/// zero makes both the same (h - 0 is h + 0).
inline std::optional<Program> slip(const Program& program, std::size_t i) {
  const Node& step = program.nodes[i];
  if (step.kind != NodeKind::map) return std::nullopt;
  const Operand last = step.operands.back();
  const Node& second = program.nodes[static_cast<std::size_t>(last.node)];
  if (step.operands.size() > 1 && second.kind == NodeKind::constant && second.constant == 0) return std::nullopt;
  Program wrong = program;
  Node& node = wrong.nodes[i];
  switch (node.op) {
    case Op::mul: node.op = Op::div; break;
    case Op::div: node.op = Op::mul; break;
    case Op::add: node.op = Op::sub; break;
    case Op::sub: node.op = Op::add; break;
    case Op::tanh: node.op = Op::erf; break;
    case Op::fma: std::swap(node.operands[1], node.operands[2]); break;
    default: return std::nullopt;
  }
  return wrong;
}

}  // namespace norma

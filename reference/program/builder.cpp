// Writes programs step by step.
#include "reference/program/builder.hpp"

#include <algorithm>

namespace norma {

FormatRef Binding::format(std::string_view input) const {
  if (input == "x") return {x, 'T'};
  const auto found = formats.find(input);
  if (found == formats.end()) throw ProgramError("no tensor '" + std::string(input) + "' is bound");
  if (input == "weight") return {found->second, 'W'};
  return {found->second, 0};
}

FormatRef promote(FormatRef a, FormatRef b) {
  if (a.id == b.id) return a;
  const auto rank = [](FormatRef f) {
    switch (f.id) {
      case FormatId::fp64: return 3;
      case FormatId::fp32: return 2;
      case FormatId::bf16:
      case FormatId::fp16: return 1;
      case FormatId::tf32:
      case FormatId::e4m3fn:
      case FormatId::e5m2:
      case FormatId::e4m3fnuz:
      case FormatId::e5m2fnuz:
      case FormatId::e2m1: return 0;
    }
    return 0;
  };
  const int ra = rank(a);
  const int rb = rank(b);
  if (ra == 0 || rb == 0)
    throw ProgramError("torch does not promote " + std::string(name_of(a.id)) + " with " +
                       std::string(name_of(b.id)) + "; cast one of them first");
  if (ra == rb) return kFp32;  // bf16 with fp16
  return ra > rb ? a : b;
}

std::optional<Axes> standard_axes(std::string_view name, const View& view) {
  if (name == "x" || name == "residual" || name == "dy") return kRowsCols;
  if (name == "scale") return kScalar;
  if (view.pairing != Pairing::none && (name == "cos" || name == "sin")) return kPairs;
  const bool running = name == "running_mean" || name == "running_var";
  if (running) return kChannels;
  if (name == "weight" || name == "bias") return view.kind == ViewKind::rows ? kCols : kChannels;
  return std::nullopt;
}

Builder::Builder(std::string norm, const Binding& binding, View view) : binding_(binding) {
  program_.norm = std::move(norm);
  program_.view = view;
}

Operand Builder::push(Node node) {
  for (const std::string& name : node.names)
    if (program_.find_value(name))
      throw ProgramError("the name '" + name + "' is given to two values");
  program_.nodes.push_back(std::move(node));
  return {static_cast<int>(program_.nodes.size()) - 1, 0};
}

FormatRef Builder::format(Operand value) const {
  const Node& node = program_.nodes[static_cast<std::size_t>(value.node)];
  if (!node.rounding.format) throw ProgramError("'" + node.names[0] + "' is exact and has no format");
  return *node.rounding.format;
}

Operand Builder::input(const std::string& name) {
  return input(name, standard_axes(name, program_.view).value_or(kRowsCols));
}

Operand Builder::input(const std::string& name, Axes axes) {
  if (const auto known = program_.find_value(name)) return *known;
  Node node;
  node.kind = NodeKind::input;
  node.names = {name};
  node.axes = axes;
  const auto from = source_of(program_, program_.stages.size(), name);
  if (from) {
    const Program& stage = program_.stages[*from];
    node.rounding.format = stage.nodes[static_cast<std::size_t>(stage.find_output(name)->value.node)].rounding.format;
    if (!node.rounding.format) throw ProgramError("'" + name + "' is passed exact and has no format");
  } else {
    node.rounding.format = binding_.format(name);
  }
  return push(std::move(node));
}

Operand Builder::attribute(const std::string& name) {
  if (const auto known = program_.find_value(name)) return *known;
  Node node;
  node.kind = NodeKind::attribute;
  node.names = {name};
  return push(std::move(node));
}

Operand Builder::constant(const std::string& name, double value) {
  Node node;
  node.kind = NodeKind::constant;
  node.names = {name};
  node.constant = value;
  return push(std::move(node));
}

Operand Builder::count() {
  if (const auto known = program_.find_value("N")) return *known;
  Node node;
  node.kind = NodeKind::count;
  node.names = {"N"};
  return push(std::move(node));
}

Operand Builder::map(const std::string& name, Op op, Rounding to, std::initializer_list<Operand> operands) {
  Node node;
  node.kind = NodeKind::map;
  node.names = {name};
  node.op = op;
  node.rounding = to;
  node.operands = operands;
  for (const Operand& o : operands)
    node.axes = node.axes | program_.nodes[static_cast<std::size_t>(o.node)].axes;
  return push(std::move(node));
}

Operand Builder::reduce(const std::string& name, FormatRef accumulator, Operand of, const Reduction& reduction) {
  Node node;
  node.kind = NodeKind::reduce;
  node.names = {name};
  node.rounding.format = accumulator;
  node.operands = {of};
  node.reduction = reduction;
  node.axes = {static_cast<std::uint8_t>(program_.nodes[static_cast<std::size_t>(of.node)].axes.mask & kRows.mask)};
  return push(std::move(node));
}

Operand Builder::moments(const std::string& mean, const std::string& variance, FormatRef accumulator,
                         Operand of, Order order, bool contract) {
  const Operand first = reduce(mean, accumulator, of,
                               {.kind = ReduceKind::moments, .term = Term::value, .order = order,
                                .contract = contract, .term_format = {}});
  if (program_.find_value(variance)) throw ProgramError("the name '" + variance + "' is given to two values");
  program_.nodes.back().names.push_back(variance);
  return first;
}

Operand Builder::eager(const std::string& name, Op op, FormatRef to, std::initializer_list<Operand> operands) {
  if (to.id == FormatId::fp32 || to.id == FormatId::fp64) return map(name, op, to, operands);
  if (op == Op::cast) return map(name, op, to, operands);
  return cast(name, to, map(name + "_f32", op, kFp32, operands));
}

void Builder::add_output(ProgramOutput output) {
  if (program_.find_output(output.name) != nullptr)
    throw ProgramError("the output '" + output.name + "' is given twice");
  if (!output.passed && stage_of(program_, output.name) != nullptr)
    throw ProgramError("the output '" + output.name + "' is given by two stages");
  program_.outputs.push_back(std::move(output));
}

void Builder::output(const std::string& name, Operand value) { add_output({.name = name, .value = value}); }

void Builder::pass(const std::string& name, Operand value) {
  add_output({.name = name, .value = value, .passed = true});
}

void Builder::pass(Operand value) {
  pass(program_.nodes[static_cast<std::size_t>(value.node)].names[static_cast<std::size_t>(value.port)], value);
}

Builder Builder::next_stage(View view) {
  if (program_.outputs.empty()) throw ProgramError("a stage that neither puts out nor passes anything does nothing");
  put_in_order(program_);
  Builder next(program_.norm, binding_, view);
  next.program_.stages = std::move(program_.stages);
  program_.stages.clear();
  next.program_.stages.push_back(std::move(program_));
  program_ = {};
  return next;
}

Program Builder::finish() {
  const auto puts_out = [](const Program* stage) {
    return std::ranges::any_of(stage->outputs, [](const ProgramOutput& o) { return !o.passed; });
  };
  if (std::ranges::none_of(stages_of(program_), puts_out)) throw ProgramError("a program needs an output, such as y");
  put_in_order(program_);
  return std::move(program_);
}

}  // namespace norma

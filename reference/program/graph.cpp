// Blocks as data: shapes, erasure, and what a rearrangement moves where.
#include "reference/program/graph.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "reference/program/layout.hpp"

namespace norma {

namespace {

[[noreturn]] void refuse(const std::string& site, const std::string& what) {
  throw ProgramError("site " + site + ": " + what);
}

std::int64_t normal_axis(const std::string& site, std::int64_t axis, const Shape& shape) {
  const auto rank = static_cast<std::int64_t>(shape.size());
  const std::int64_t at = axis < 0 ? axis + rank : axis;
  if (at < 0 || at >= rank)
    refuse(site, "axis " + std::to_string(axis) + " is none of " + shape_text(shape));
  return at;
}

/// Elements between neighbours along each axis.
std::vector<std::int64_t> steps_of(const Shape& shape) {
  std::vector<std::int64_t> steps(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;) steps[i - 1] = steps[i] * shape[i];
  return steps;
}

/// Elements from `axis` on, `axis` not counted, and those before it.
std::int64_t inner_of(const Shape& shape, std::size_t axis) {
  return element_count(Shape(shape.begin() + static_cast<std::ptrdiff_t>(axis) + 1, shape.end()));
}

FormatId stored_format(const Program& program, Operand value) {
  const Node& node = program.nodes[static_cast<std::size_t>(value.node)];
  return node.rounding.format ? node.rounding.format->id : FormatId::fp64;
}

bool is_rounded(const Program& program, Operand value) {
  return program.nodes[static_cast<std::size_t>(value.node)].rounding.format.has_value();
}

void erase(ProgramSite& site) { site.program = erase_roundings(site.program); }
void erase(LinearSite& site) { site = {.block = site.block}; }
void erase(AttentionSite& site) { site = {.scale = site.scale, .causal = site.causal}; }
void erase(ConvolutionSite& site) {
  site = {.stride = site.stride, .padding = site.padding, .dilation = site.dilation, .groups = site.groups};
}
void erase(Rearrangement&) {}

}  // namespace

std::string text_of(const ProductSum& sum) {
  switch (sum.order) {
    case ProductOrder::exact: return "exact";
    case ProductOrder::sequential: return "sequential";
    case ProductOrder::blocked: return "blocked(" + std::to_string(sum.count) + ")";
    case ProductOrder::split: return "split(" + std::to_string(sum.count) + ")";
    case ProductOrder::tensor_core: return "tensor_core(" + std::to_string(sum.count) + ")";
  }
  return {};
}

ScaleLayout scale_layout(const Shape& codes, const Shape& scales, std::int64_t block) {
  const std::int64_t rows = element_count(codes) / codes.back(), blocks = (codes.back() + block - 1) / block;
  return {.blocks = blocks, .rows_each = rows * blocks / element_count(scales)};
}

const Argument* Site::find(std::string_view role) const {
  const auto found = std::ranges::find(arguments, role, &Argument::role);
  return found == arguments.end() ? nullptr : &*found;
}

const GraphValue* Graph::find(std::string_view value) const {
  for (const GraphInput& input : inputs)
    if (input.value.name == value) return &input.value;
  for (const Site& site : sites)
    for (const GraphValue& result : site.results)
      if (result.name == value) return &result;
  return nullptr;
}

Graph erase_roundings(const Graph& graph) {
  Graph erased = graph;
  for (GraphInput& input : erased.inputs) input.value.format.reset();
  for (Site& site : erased.sites) {
    std::visit([](auto& what) { erase(what); }, site.what);
    for (GraphValue& result : site.results) result.format.reset();
  }
  return erased;
}

Graph stacked(const Graph& graph, std::span<const Stream> streams, int count) {
  if (count < 1) throw ProgramError("a stack has at least one block, not " + std::to_string(count));
  Graph stack{.block = graph.block, .inputs = {}, .sites = {}, .outputs = {}};
  for (const Stream& stream : streams)
    if (graph.find(stream.input) == nullptr || std::ranges::find(graph.outputs, stream.output) == graph.outputs.end())
      throw ProgramError("block " + graph.block + " hands on no " + stream.output + " as " + stream.input);
  std::map<std::string, std::string> names;  // of this block's values, in the stack
  for (int k = 0; k < count; ++k) {
    const std::string prefix = std::to_string(k) + ".";
    std::map<std::string, std::string> own;
    for (const GraphInput& input : graph.inputs) {
      const std::string& name = input.value.name;
      const auto stream = std::ranges::find(streams, name, &Stream::input);
      if (stream != streams.end() && k > 0) {
        own[name] = names.at(stream->output);
        continue;
      }
      own[name] = input.weight ? prefix + name : name;
      if (!input.weight && k > 0) continue;
      stack.inputs.push_back(input);
      stack.inputs.back().value.name = own[name];
    }
    for (const Site& site : graph.sites) {
      stack.sites.push_back(site);
      for (Argument& argument : stack.sites.back().arguments) argument.value = own.at(argument.value);
      for (GraphValue& result : stack.sites.back().results) {
        const bool last = k + 1 == count && std::ranges::find(graph.outputs, result.name) != graph.outputs.end();
        own[result.name] = last ? result.name : prefix + result.name;
        result.name = own[result.name];
      }
    }
    names = std::move(own);
  }
  for (const std::string& output : graph.outputs) stack.outputs.push_back(names.at(output));
  return stack;
}

std::vector<Source> sources_of(const Rearrangement& what, const std::vector<Shape>& arguments, const Shape& result) {
  std::vector<Source> sources(static_cast<std::size_t>(element_count(result)));
  switch (what.kind) {
    case Rearrangement::Kind::reshape:
      for (std::size_t i = 0; i < sources.size(); ++i) sources[i].element = static_cast<std::int64_t>(i);
      break;
    case Rearrangement::Kind::permute: {
      const std::vector<std::int64_t> from = steps_of(arguments.front());
      Shape at(result.size(), 0);
      std::int64_t element = 0;
      for (Source& source : sources) {
        source.element = element;
        for (std::size_t axis = result.size(); axis-- > 0;) {
          const std::int64_t step = from[static_cast<std::size_t>(what.numbers[axis])];
          element += step;
          if (++at[axis] < result[axis]) break;
          element -= step * result[axis];
          at[axis] = 0;
        }
      }
      break;
    }
    case Rearrangement::Kind::slice: {
      const auto axis = static_cast<std::size_t>(what.numbers[0]);
      const std::int64_t inner = inner_of(result, axis), run = result[axis] * inner;
      const std::int64_t whole = arguments.front()[axis] * inner, first = what.numbers[1] * inner;
      for (std::size_t i = 0; i < sources.size(); ++i) {
        const auto at = static_cast<std::int64_t>(i);
        sources[i].element = at / run * whole + first + at % run;
      }
      break;
    }
    case Rearrangement::Kind::concat: {
      const auto axis = static_cast<std::size_t>(what.numbers[0]);
      const std::int64_t inner = inner_of(result, axis), run = result[axis] * inner;
      std::int64_t first = 0;
      for (std::size_t k = 0; k < arguments.size(); ++k) {
        const std::int64_t own = arguments[k][axis] * inner;
        for (std::int64_t i = 0; i < element_count(arguments[k]); ++i)
          sources[static_cast<std::size_t>(i / own * run + first + i % own)] = {static_cast<std::int32_t>(k), i};
        first += own;
      }
      break;
    }
    case Rearrangement::Kind::pad: {
      const auto axis = static_cast<std::size_t>(what.numbers[0]);
      const std::int64_t inner = inner_of(result, axis), run = result[axis] * inner;
      const std::int64_t own = arguments.front()[axis] * inner, first = what.numbers[1] * inner;
      for (std::size_t i = 0; i < sources.size(); ++i) {
        const auto at = static_cast<std::int64_t>(i);
        const std::int64_t in_run = at % run - first;
        if (in_run < 0 || in_run >= own)
          sources[i].argument = Source::kZero;
        else
          sources[i].element = at / run * own + in_run;
      }
      break;
    }
    case Rearrangement::Kind::repeat: {
      const auto axis = static_cast<std::size_t>(what.numbers[0]);
      const std::int64_t inner = inner_of(result, axis), run = result[axis] * inner;
      for (std::size_t i = 0; i < sources.size(); ++i) {
        const auto at = static_cast<std::int64_t>(i);
        sources[i].element = at / run * inner + at % inner;
      }
      break;
    }
    case Rearrangement::Kind::count: break;  // from nowhere
  }
  return sources;
}

Shape convolved_shape(const ConvolutionSite& what, const Shape& x, const Shape& weight) {
  Shape shape{x[0], weight[0]};
  for (std::size_t i = 0; i < 2; ++i)
    shape.push_back((x[2 + i] + 2 * what.padding[i] - what.dilation[i] * (weight[2 + i] - 1) - 1) / what.stride[i] + 1);
  return shape;
}

// ---- the builder ----

const GraphValue& GraphBuilder::value_of(const Value& value) const {
  const GraphValue* found = graph_.find(value.name);
  if (found == nullptr) throw ProgramError("block " + graph_.block + " has no value " + value.name);
  return *found;
}

GraphBuilder::Value GraphBuilder::input(const std::string& name, Shape shape, std::optional<FormatId> format) {
  if (graph_.find(name) != nullptr) throw ProgramError("block " + graph_.block + " has two values " + name);
  graph_.inputs.push_back({.value = {name, std::move(shape), format}, .weight = false});
  return {name};
}

GraphBuilder::Value GraphBuilder::weight(const std::string& name, Shape shape, std::optional<FormatId> format) {
  const Value value = input(name, std::move(shape), format);
  graph_.inputs.back().weight = true;
  return value;
}

void GraphBuilder::adopt(const GraphInput& input) {
  this->input(input.value.name, input.value.shape, input.value.format);
  graph_.inputs.back().weight = input.weight;
}

GraphBuilder::Value GraphBuilder::push(Site site) {
  for (const GraphValue& result : site.results)
    if (graph_.find(result.name) != nullptr)
      throw ProgramError("block " + graph_.block + " has two values " + result.name);
  graph_.sites.push_back(std::move(site));
  return {graph_.sites.back().name()};
}

GraphBuilder::Value GraphBuilder::program(const std::string& name, ProgramSite what,
                                          std::vector<std::pair<std::string, Value>> arguments) {
  // Shapes only: no bits are read.
  Tensors shapes;
  Site site;
  for (const auto& [role, value] : arguments) {
    const GraphValue& v = value_of(value);
    shapes[role] = {.format = v.format.value_or(FormatId::fp64), .shape = v.shape, .bytes = {}};
    site.arguments.push_back({role, value.name});
  }
  TensorRefs made;
  Tensors passed;
  const std::vector<const Program*> stages = stages_of(what.program);
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const PlacedProgram placed = place(*stages[i], inputs_of_stage(what.program, i, shapes, made), what.attributes);
    for (const ProgramOutput& output : stages[i]->outputs) {
      const Axes axes = placed.program.nodes[static_cast<std::size_t>(output.value.node)].axes;
      const Shape shape = output_shape(placed, axes, placed.x);
      passed[output.name] = {.format = stored_format(*stages[i], output.value), .shape = shape, .bytes = {}};
      made[output.name] = &passed[output.name];
      if (output.passed) continue;
      GraphValue result{.name = name + "." + output.name, .shape = shape};
      if (is_rounded(*stages[i], output.value)) result.format = stored_format(*stages[i], output.value);
      if (output.name == "y") {
        result.name = name;
        site.results.insert(site.results.begin(), std::move(result));
      } else {
        site.results.push_back(std::move(result));
      }
    }
  }
  site.what = std::move(what);
  return push(std::move(site));
}

GraphBuilder::Value GraphBuilder::linear(const std::string& name, const LinearSite& what, Value x, Value weight,
                                         std::optional<Value> bias) {
  const Shape& w = shape(weight);
  Shape y = shape(x);
  if (w.size() != 2 || y.empty() || w[1] != y.back())
    refuse(name, "x is " + shape_text(y) + ", so weight must be Nx" + std::to_string(y.empty() ? 1 : y.back()) +
                     ", got " + shape_text(w));
  if (bias && shape(*bias) != Shape{w[0]})
    refuse(name, "bias must be " + std::to_string(w[0]) + ", got " + shape_text(shape(*bias)));
  y.back() = w[0];
  Site site{.what = what, .arguments = {{"x", x.name}, {"weight", weight.name}}, .results = {{.name = name, .shape = y}}};
  if (bias) site.arguments.push_back({"bias", bias->name});
  if (what.rounding.format) site.results[0].format = what.rounding.format->id;
  return push(std::move(site));
}

GraphBuilder::Value GraphBuilder::scaled_linear(const std::string& name, const LinearSite& what, Value x, Value weight,
                                                const Scales& scales, std::optional<Value> bias) {
  if (what.block < 1) refuse(name, "scales need a block of at least 1 term, got " + std::to_string(what.block));
  if (what.bias == BiasPlace::first && bias) refuse(name, "a product of scaled codes cannot begin with its bias");
  for (const auto& [codes, scale] : {std::pair{x, scales.x}, std::pair{weight, scales.weight}}) {
    const Shape &c = shape(codes), &s = shape(scale);
    const std::int64_t rows = element_count(c) / c.back(), blocks = (c.back() + what.block - 1) / what.block;
    const std::int64_t count = element_count(s);
    if (count == 0 || count % blocks != 0 || rows % (count / blocks) != 0)
      refuse(name, scale.name + " is " + shape_text(s) + ", and " + codes.name + " of " + shape_text(c) + " needs " +
                       std::to_string(blocks) + " scales for each row, or for as many rows each");
  }
  const Value y = linear(name, what, x, weight, bias);
  std::vector<Argument>& arguments = graph_.sites.back().arguments;
  arguments.insert(arguments.begin() + 2, {{"x_scale", scales.x.name}, {"weight_scale", scales.weight.name}});
  return y;
}

GraphBuilder::Value GraphBuilder::attention(const std::string& name, const AttentionSite& what, Value q, Value k,
                                            Value v) {
  const Shape &qs = shape(q), &ks = shape(k), &vs = shape(v);
  if (qs.size() != 4 || ks.size() != 4 || vs.size() != 4)
    refuse(name, "q, k and v must have four axes, got " + shape_text(qs) + ", " + shape_text(ks) + " and " + shape_text(vs));
  if (ks[0] != qs[0] || vs[0] != qs[0] || ks[1] != vs[1] || ks[2] != vs[2] || ks[3] != qs[3])
    refuse(name, "q is " + shape_text(qs) + ", k is " + shape_text(ks) + " and v is " + shape_text(vs) +
                     "; batch, heads, keys and head sizes must agree");
  if (qs[1] % ks[1] != 0)
    refuse(name, std::to_string(ks[1]) + " key heads do not divide " + std::to_string(qs[1]) + " query heads");
  Site site{.what = what,
            .arguments = {{"q", q.name}, {"k", k.name}, {"v", v.name}},
            .results = {{.name = name, .shape = {qs[0], qs[1], qs[2], vs[3]}}}};
  if (what.rounding.format) site.results[0].format = what.rounding.format->id;
  return push(std::move(site));
}

GraphBuilder::Value GraphBuilder::convolution(const std::string& name, const ConvolutionSite& what, Value x,
                                              Value weight, std::optional<Value> bias) {
  const Shape &xs = shape(x), &ws = shape(weight);
  if (xs.size() != 4 || ws.size() != 4 || what.groups < 1 || xs[1] % what.groups != 0 || ws[1] != xs[1] / what.groups ||
      ws[0] % what.groups != 0)
    refuse(name, "x is " + shape_text(xs) + " and weight is " + shape_text(ws) + "; weight must be [O, " +
                     (xs.size() == 4 ? std::to_string(xs[1] / std::max<std::int64_t>(1, what.groups)) : "C") +
                     ", kh, kw] with O in " + std::to_string(what.groups) + " groups");
  if (bias && shape(*bias) != Shape{ws[0]})
    refuse(name, "bias must be " + std::to_string(ws[0]) + ", got " + shape_text(shape(*bias)));
  Site site{.what = what,
            .arguments = {{"x", x.name}, {"weight", weight.name}},
            .results = {{.name = name, .shape = convolved_shape(what, xs, ws)}}};
  if (std::ranges::any_of(site.results[0].shape, [](std::int64_t side) { return side < 1; }))
    refuse(name, "the image " + shape_text(xs) + " is smaller than the kernel " + shape_text(ws));
  if (bias) site.arguments.push_back({"bias", bias->name});
  if (what.rounding.format) site.results[0].format = what.rounding.format->id;
  return push(std::move(site));
}

GraphBuilder::Value GraphBuilder::reshape(const std::string& name, Value x, Shape shape_to) {
  const GraphValue from = value_of(x);
  if (element_count(from.shape) != element_count(shape_to))
    refuse(name, shape_text(from.shape) + " cannot be seen as " + shape_text(shape_to));
  return push({.what = Rearrangement{},
               .arguments = {{"x", x.name}},
               .results = {{.name = name, .shape = std::move(shape_to), .format = from.format}}});
}

GraphBuilder::Value GraphBuilder::permute(const std::string& name, Value x, std::vector<std::int64_t> axes) {
  const GraphValue from = value_of(x);
  std::vector<std::int64_t> sorted = axes, all(from.shape.size());
  std::ranges::sort(sorted);
  std::iota(all.begin(), all.end(), 0);
  if (sorted != all) refuse(name, "the axes of a permutation must be each of " + shape_text(from.shape) + "'s once");
  Shape to;
  for (const std::int64_t axis : axes) to.push_back(from.shape[static_cast<std::size_t>(axis)]);
  return push({.what = Rearrangement{.kind = Rearrangement::Kind::permute, .numbers = std::move(axes)},
               .arguments = {{"x", x.name}},
               .results = {{.name = name, .shape = std::move(to), .format = from.format}}});
}

GraphBuilder::Value GraphBuilder::slice(const std::string& name, Value x, std::int64_t axis, std::int64_t first,
                                        std::int64_t count) {
  const GraphValue from = value_of(x);
  const std::int64_t at = normal_axis(name, axis, from.shape);
  Shape to = from.shape;
  const std::int64_t side = to[static_cast<std::size_t>(at)];
  if (first < 0 || count < 1 || first + count > side)
    refuse(name, std::to_string(count) + " from " + std::to_string(first) + " on are not in an axis of " +
                     std::to_string(side));
  to[static_cast<std::size_t>(at)] = count;
  return push({.what = Rearrangement{.kind = Rearrangement::Kind::slice, .numbers = {at, first}},
               .arguments = {{"x", x.name}},
               .results = {{.name = name, .shape = std::move(to), .format = from.format}}});
}

GraphBuilder::Value GraphBuilder::concat(const std::string& name, std::int64_t axis, const std::vector<Value>& parts) {
  const GraphValue first = value_of(parts.front());
  const auto at = static_cast<std::size_t>(normal_axis(name, axis, first.shape));
  Site site{.what = Rearrangement{.kind = Rearrangement::Kind::concat, .numbers = {static_cast<std::int64_t>(at)}},
            .arguments = {},
            .results = {{.name = name, .shape = first.shape, .format = first.format}}};
  site.results[0].shape[at] = 0;
  for (std::size_t k = 0; k < parts.size(); ++k) {
    const GraphValue& part = value_of(parts[k]);
    Shape alike = part.shape;
    if (alike.size() == first.shape.size()) alike[at] = first.shape[at];
    if (alike != first.shape || part.format != first.format)
      refuse(name, shape_text(part.shape) + " does not continue " + shape_text(first.shape) + " along axis " +
                       std::to_string(at) + " in one format");
    site.results[0].shape[at] += part.shape[at];
    site.arguments.push_back({std::to_string(k), part.name});
  }
  return push(std::move(site));
}

GraphBuilder::Value GraphBuilder::pad(const std::string& name, Value x, std::int64_t axis, std::int64_t before,
                                      std::int64_t after) {
  const GraphValue from = value_of(x);
  const std::int64_t at = normal_axis(name, axis, from.shape);
  if (before < 0 || after < 0)
    refuse(name, "there cannot be " + std::to_string(std::min(before, after)) + " zeros beside an axis");
  Shape to = from.shape;
  to[static_cast<std::size_t>(at)] += before + after;
  return push({.what = Rearrangement{.kind = Rearrangement::Kind::pad, .numbers = {at, before}},
               .arguments = {{"x", x.name}},
               .results = {{.name = name, .shape = std::move(to), .format = from.format}}});
}

GraphBuilder::Value GraphBuilder::repeat(const std::string& name, Value x, std::int64_t axis, std::int64_t times) {
  const GraphValue from = value_of(x);
  const std::int64_t at = normal_axis(name, axis, from.shape);
  Shape to = from.shape;
  std::int64_t& side = to[static_cast<std::size_t>(at)];
  if (side != 1 || times < 1)
    refuse(name, "an axis of one is repeated once at least, and this is one of " + std::to_string(side) + ", " +
                     std::to_string(times) + " times");
  side = times;
  return push({.what = Rearrangement{.kind = Rearrangement::Kind::repeat, .numbers = {at}},
               .arguments = {{"x", x.name}},
               .results = {{.name = name, .shape = std::move(to), .format = from.format}}});
}

GraphBuilder::Value GraphBuilder::count(const std::string& name, std::int64_t length, std::int64_t first,
                                        std::int64_t step, std::optional<FormatId> format) {
  if (length < 1) refuse(name, "there are at least 1 number, not " + std::to_string(length));
  for (std::int64_t i = 0; i < length; ++i) {
    const auto value = static_cast<double>(first + i * step);
    const FormatId to = format.value_or(FormatId::fp64);
    if (decode(to, encode(to, value, Overflow::ieee)) != value)
      refuse(name, std::string(name_of(to)) + " does not hold " + std::to_string(first + i * step));
  }
  return push({.what = Rearrangement{.kind = Rearrangement::Kind::count, .numbers = {first, step}},
               .arguments = {},
               .results = {{.name = name, .shape = {length}, .format = format}}});
}

std::vector<GraphBuilder::Value> GraphBuilder::chunk(const std::string& name, Value x, std::int64_t axis,
                                                     std::int64_t parts) {
  const Shape from = shape(x);
  const std::int64_t at = normal_axis(name, axis, from), side = from[static_cast<std::size_t>(at)];
  if (side % parts != 0)
    refuse(name, std::to_string(parts) + " parts do not divide an axis of " + std::to_string(side));
  std::vector<Value> values;
  for (std::int64_t k = 0; k < parts; ++k)
    values.push_back(slice(name + "." + std::to_string(k), x, at, k * (side / parts), side / parts));
  return values;
}

GraphBuilder::Value GraphBuilder::split_heads(const std::string& name, Value x, std::int64_t heads) {
  const Shape s = shape(x);
  if (s.size() != 3 || heads < 1 || s[2] % heads != 0)
    refuse(name, "heads=" + std::to_string(heads) + " must divide the width of [batch, tokens, width], and x is " +
                     shape_text(s));
  return permute(name, reshape(name + ".split", x, {s[0], s[1], heads, s[2] / heads}), {0, 2, 1, 3});
}

GraphBuilder::Value GraphBuilder::merge_heads(const std::string& name, Value x) {
  const Shape s = shape(x);
  if (s.size() != 4) refuse(name, "x must be [batch, heads, tokens, size], got " + shape_text(s));
  return reshape(name, permute(name + ".tokens", x, {0, 2, 1, 3}), {s[0], s[2], s[1] * s[3]});
}

Graph GraphBuilder::finish() {
  if (graph_.outputs.empty()) throw ProgramError("block " + graph_.block + " has no output");
  return std::move(graph_);
}

}  // namespace norma

// Rows and columns of a view, and the tensors that fit it.
#include "reference/program/layout.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

namespace norma {

namespace {

[[noreturn]] void refuse(const std::string& why) { throw ProgramError(why); }

std::int64_t groups_of(const View& view, std::int64_t channels, const Attributes& attributes) {
  if (view.kind == ViewKind::channels) return channels;
  const auto found = attributes.find("groups");
  if (found == attributes.end()) refuse("the attribute 'groups' is missing; it says how many groups the channels make");
  const double groups = found->second;
  if (!(groups >= 1) || groups != std::floor(groups) || groups > static_cast<double>(channels) ||
      channels % static_cast<std::int64_t>(groups) != 0)
    refuse("groups is " + std::to_string(groups) + " but must be a whole number that divides the " +
           std::to_string(channels) + " channels of x");
  return static_cast<std::int64_t>(groups);
}

Layout layout_of(const View& view, const Shape& x, const Attributes& attributes) {
  Layout l;
  l.view = view;
  const std::int64_t size = element_count(x);
  if (l.columns_are_rows()) {
    l.channels = x.empty() ? 1 : x.back();
    l.samples = x.size() < 2 ? 1 : x.front();
    l.positions = size / (l.samples * l.channels);
    l.groups = l.channels;
    l.block = l.channels;
    l.elements = {.per_row = 1, .step = l.channels};
    l.rows = l.channels, l.cols = l.samples * l.positions;
    if (view.kind == ViewKind::columns) return l;
    l.rows = l.samples * l.channels, l.cols = l.positions;
    l.elements.set = l.channels, l.elements.per_set = l.channels * l.positions;
    return l;
  }
  if (view.kind == ViewKind::rows || view.kind == ViewKind::blocks) {
    l.cols = x.empty() ? 1 : x.back();
    if (view.kind == ViewKind::blocks) {
      if (view.block < 1 || l.cols % view.block != 0)
        refuse("the program takes blocks of " + std::to_string(view.block) + " columns, and the " +
               std::to_string(l.cols) + " of x are no multiple of them");
      l.runs = l.cols / view.block;
      l.cols = view.block;
    }
    l.rows = size / l.cols;
    l.samples = x.size() < 2 ? 1 : x.front();
    l.groups = l.rows / l.samples;
    l.channels = l.positions = 1;
    l.elements = {.per_row = l.cols, .step = 1};
    l.block = l.cols;
    return l;
  }
  if (x.size() < 2)
    refuse("x has shape " + shape_text(x) + " but a program with 'view " + std::string(name_of(view.kind)) +
           "' takes samples and channels, [N, C, ...]");
  l.samples = x[0];
  l.channels = x[1];
  l.positions = size / (x[0] * x[1]);
  if (view.kind == ViewKind::batch) {
    l.rows = l.channels;
    l.cols = l.samples * l.positions;
    l.elements = {.per_row = l.positions, .run = l.positions, .per_run = l.channels * l.positions, .step = 1};
    l.block = l.positions;
    return l;
  }
  l.groups = groups_of(view, l.channels, attributes);
  const std::int64_t each = l.channels / l.groups;
  l.rows = l.samples * l.groups;
  l.cols = each * l.positions;
  l.block = l.cols;
  l.elements = view.channels_last ? Stride{.per_row = l.cols, .run = each, .per_run = 1, .step = l.positions}
                                  : Stride{.per_row = l.cols, .step = 1};
  return l;
}

/// [first, ones..., last] beside x's number of axes or fewer.
bool is_first_and_last(const Shape& shape, std::int64_t first, std::int64_t last) {
  return shape.size() >= 2 && shape.front() == first && shape.back() == last && element_count(shape) == first * last;
}

/// [first, second, ones...].
bool is_first_and_second(const Shape& shape, std::int64_t first, std::int64_t second) {
  return shape.size() >= 2 && shape[0] == first && shape[1] == second && element_count(shape) == first * second;
}

struct Fit {
  Axes axes;
  Stride stride;
};

/// One value a channel, or one a channel and sample.
Fit channel_values(const Layout& l, bool each_sample) {
  const std::int64_t each = l.channels / l.groups;
  switch (l.view.kind) {
    case ViewKind::batch:
      if (each_sample)
        return {kRowsCols, {.per_row = 1, .run = l.positions, .per_run = l.channels}};
      return {kRows, {.per_row = 1}};
    case ViewKind::columns:
      if (each_sample)
        return {kRowsCols, {.per_row = 1, .run = l.positions, .per_run = l.channels, .step = 0}};
      return {kRows, {.per_row = 1}};
    case ViewKind::tokens:
    case ViewKind::channels: return {kRows, each_sample ? Stride{.per_row = 1} : Stride{.period = l.groups, .per_row = 1}};
    case ViewKind::groups: {
      Stride s = l.view.channels_last ? Stride{.per_row = each, .run = each, .per_run = 0, .step = 1}
                                      : Stride{.per_row = each, .run = l.positions, .per_run = 1, .step = 0};
      if (!each_sample) s.period = l.groups;
      return {kRowsCols, s};
    }
    case ViewKind::rows:
    case ViewKind::blocks: break;
  }
  refuse("values of channels need a view: groups, channels, batch, columns or tokens");
}

/// A table of `width` values a row, whose axes before the last broadcast to x's. From the right: axes of x that all share
/// a row, axes that have one each, axes that share those, axes that have sets of their own, axes that share all.
std::optional<Stride> broadcast_rows(const Shape& table, const Shape& x, std::int64_t width) {
  if (table.size() > x.size()) return std::nullopt;
  std::int64_t sizes[5] = {1, 1, 1, 1, 1};
  std::size_t part = 0;
  for (std::size_t k = 1; k < x.size(); ++k) {
    const std::int64_t own = k < table.size() ? table[table.size() - 1 - k] : 1, n = x[x.size() - 1 - k];
    if (own != 1 && own != n) return std::nullopt;
    if (n == 1) continue;
    if ((own == n) != (part % 2 == 1)) ++part;
    if (part == 5) return std::nullopt;
    sizes[part] *= n;
  }
  return Stride{.rows_each = sizes[0],
                .period = sizes[1] * sizes[2] * sizes[3],
                .per_row = width,
                .set = sizes[1],
                .sets_each = sizes[2],
                .per_set = sizes[3] == 1 ? 0 : sizes[1] * width};
}

Fit pair_values(const Layout& l, const std::string& name, const Tensor& t, const Shape& x) {
  const std::int64_t rotary = l.rotary(), width = t.shape.empty() ? 1 : t.shape.back();
  std::optional<Stride> stride = broadcast_rows(t.shape, x, width);
  if (!stride || t.shape.empty() || (width != rotary && 2 * width != rotary))
    refuse("tensor '" + name + "' has shape " + shape_text(t.shape) + " but must have " + std::to_string(rotary) + " or " +
           std::to_string(rotary / 2) + " values for each axis of x, or 1 for all of it, beside x of shape " +
           shape_text(x));
  if (width == rotary) stride->run = rotary, stride->step = 1;
  else if (l.view.pairing == Pairing::half) stride->run = width, stride->step = 1;
  else stride->run = 2, stride->per_run = 1, stride->columns = rotary;
  return {t.size() == width ? kCols : kRowsCols, *stride};
}

void check_pairs(const Layout& l, const Program& program) {
  const bool paired = l.view.pairing != Pairing::none;
  if (paired && l.view.kind != ViewKind::rows) refuse("pairs of columns need the view rows");
  if (paired && (l.rotary() > l.cols || l.rotary() < 2 || l.rotary() % 2 != 0))
    refuse("there are " + std::to_string(l.rotary()) + " rotary columns, but they must be even and at most the " +
           std::to_string(l.cols) + " of a row");
  for (const Node& node : program.nodes) {
    if (node.kind != NodeKind::map || (node.op != Op::rotate && node.op != Op::join)) continue;
    if (!paired) refuse("step '" + node.names.front() + "' needs pairs: a view such as 'view rows half'");
    if (node.op == Op::rotate && !node.axes.has(Axis::cols))
      refuse("step '" + node.names.front() + "' rotates a value that has no columns");
  }
}

Fit fit(const Layout& l, const Node& node, const Tensor& t, const Shape& x) {
  const std::string& name = node.names.front();
  const auto wrong = [&](const std::string& wanted) {
    refuse("tensor '" + name + "' has shape " + shape_text(t.shape) + ", " + wanted + " elements would fit x of shape " +
           shape_text(x));
  };
  if (node.axes.has(Axis::channels)) {
    if (l.view.kind == ViewKind::rows || l.view.kind == ViewKind::blocks)
      refuse("tensor '" + name + "' has a value for each channel, which needs a view");
    if (t.size() == l.channels) return channel_values(l, false);
    const bool each_sample = l.columns_are_rows() ? is_first_and_last(t.shape, l.samples, l.channels)
                                                  : is_first_and_second(t.shape, l.samples, l.channels);
    if (!each_sample) wrong(std::to_string(l.channels));
    return channel_values(l, true);
  }
  if (node.axes.has(Axis::pairs) && l.view.pairing == Pairing::none)
    refuse("tensor '" + name + "' has a value for each pair, which needs pairs: a view such as 'view rows half'");
  if (node.axes.has(Axis::pairs)) return pair_values(l, name, t, x);
  if (node.axes == kRowsCols) {
    if (t.size() != l.rows * l.cols) wrong(std::to_string(l.rows * l.cols));
    return {kRowsCols, l.elements};
  }
  if (node.axes == kCols) {
    if (t.size() == l.cols) return {kCols, {.step = 1}};
    if (l.view.kind == ViewKind::rows && is_first_and_last(t.shape, l.samples, l.cols))
      return {kRowsCols, {.rows_each = l.rows / l.samples, .per_row = l.cols, .step = 1}};
    if (l.view.kind == ViewKind::tokens && t.size() == l.samples * l.positions)
      return {kRowsCols, {.rows_each = l.channels, .per_row = l.positions, .step = 1}};
    if (t.shape == x) return {kRowsCols, l.elements};
    wrong(std::to_string(l.cols));
  }
  const std::int64_t wanted = node.axes == kRows ? l.rows : 1;
  if (t.size() != wanted) wrong(std::to_string(wanted));
  return {node.axes, {.per_row = node.axes == kRows ? 1 : 0}};
}

const Shape* leading_shape(const Program& program, const TensorRefs& inputs) {
  if (const auto x = inputs.find("x"); x != inputs.end()) return &x->second->shape;
  const Tensor* columns = nullptr;
  for (const Node& node : program.nodes) {
    if (node.kind != NodeKind::input) continue;
    const auto found = inputs.find(node.names.front());
    if (found == inputs.end()) continue;
    if (node.axes == kRowsCols) return &found->second->shape;
    if (node.axes.has(Axis::cols)) columns = found->second;
  }
  return columns == nullptr ? nullptr : &columns->shape;
}

}  // namespace

Layout::Partner Layout::partner_of(std::int64_t col) const {
  if (view.pairing == Pairing::interleaved) return {.col = col ^ 1, .first = col % 2 == 0};
  const std::int64_t half = rotary() / 2;
  return col < half ? Partner{.col = col + half, .first = true} : Partner{.col = col - half, .first = false};
}

Layout::Place Layout::place_of(std::int64_t at) const {
  const std::int64_t r = at / block, j = at % block;
  if (columns_are_rows()) {
    const std::int64_t set = r / cols;  // 0 for columns of all samples
    return {.row = set * channels + j, .col = r % cols};
  }
  if (view.kind == ViewKind::batch) return {.row = r % channels, .col = (r / channels) * positions + j};
  if (view.channels_last) return {.row = r, .col = (j % positions) * (channels / groups) + j / positions};
  return {.row = r, .col = j};
}

TensorRefs refs_to(const Tensors& tensors) {
  TensorRefs refs;
  for (const auto& [name, tensor] : tensors) refs[name] = &tensor;
  return refs;
}

TensorRefs inputs_of_stage(const Program& program, std::size_t stage, const Tensors& given, const TensorRefs& made) {
  if (program.stages.empty()) return refs_to(given);
  TensorRefs refs;
  for (const Node& node : stages_of(program)[stage]->nodes) {
    if (node.kind != NodeKind::input) continue;
    const std::string& name = node.names.front();
    if (const auto passed = made.find(name); passed != made.end()) {
      refs[name] = passed->second;
      continue;
    }
    const auto found = given.find(name);
    if (found == given.end())
      refuse("the tensor '" + name + "' is missing: it is not given and no stage before stage " +
             std::to_string(stage + 1) + " passes it");
    refs[name] = &found->second;
  }
  return refs;
}

PlacedProgram place(Program program, const Tensors& inputs, const Attributes& attributes) {
  return place(std::move(program), refs_to(inputs), attributes);
}

PlacedProgram place(Program program, const TensorRefs& inputs, const Attributes& attributes) {
  PlacedProgram placed;
  for (const Node& node : program.nodes)
    if (node.kind == NodeKind::input && !inputs.contains(node.names.front()))
      refuse("the tensor '" + node.names.front() + "' is missing");
  const Shape none;
  const Shape* leading = leading_shape(program, inputs);
  const Shape& x = leading == nullptr ? none : *leading;
  if (element_count(x) < 1) refuse("x has shape " + shape_text(x) + " but must have at least one row and one column");
  placed.layout = layout_of(program.view, x, attributes);
  placed.x = x;
  for (Node& node : program.nodes) {
    placed.tensors.push_back(nullptr);
    placed.strides.emplace_back();
    if (node.kind == NodeKind::input) {
      const Tensor& t = *inputs.find(node.names.front())->second;
      const Fit found = fit(placed.layout, node, t, x);
      placed.tensors.back() = &t;
      placed.strides.back() = found.stride;
      node.axes = found.axes;
    } else if (node.kind == NodeKind::map || node.kind == NodeKind::reduce) {
      node.axes = kScalar;
      for (const Operand& o : node.operands) node.axes = node.axes | program.nodes[static_cast<std::size_t>(o.node)].axes;
      if (node.kind == NodeKind::reduce) node.axes.mask &= kRows.mask;
    }
  }
  check_pairs(placed.layout, program);
  placed.program = std::move(program);
  return placed;
}

Shape output_shape(const PlacedProgram& placed, Axes axes, const Shape& x) {
  const Layout& l = placed.layout;
  if (axes == kRowsCols) return x;
  const Shape without_last = x.empty() ? Shape{} : Shape(x.begin(), x.end() - 1);
  if (axes == kCols) return l.view.kind == ViewKind::columns ? without_last : Shape{l.cols};
  if (axes == kScalar) return {};
  switch (l.view.kind) {
    case ViewKind::rows: return without_last;
    case ViewKind::columns:
    case ViewKind::batch: return {l.rows};
    case ViewKind::tokens: return {l.samples, l.channels};
    case ViewKind::groups:
    case ViewKind::channels: return {l.samples, l.groups};
    case ViewKind::blocks: {
      Shape shape = x;
      if (!shape.empty()) shape.back() /= l.cols;
      return shape;
    }
  }
  refuse("the program has an unknown view");
}

}  // namespace norma

// Sites in balls: programs row by row, products by slices, attention head by head.
#include "reference/certified/blocks/real_graph.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "reference/certified/blocks/patches.hpp"
#include "reference/certified/products/numbers.hpp"
#include "reference/certified/share_out.hpp"
#include "reference/program/layout.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kPatchNumbers = 1 << 21;  // of a convolution at a time

std::shared_ptr<BallTensor> balls_of_size(std::int64_t size) {
  auto balls = std::make_shared<BallTensor>();
  const auto n = static_cast<std::size_t>(size);
  balls->h.resize(n), balls->l.resize(n), balls->r.resize(n);
  return balls;
}

void set(BallTensor& to, std::size_t at, const Ball& ball) { to.h[at] = ball.h, to.l[at] = ball.l, to.r[at] = ball.r; }
Ball get(const BallTensor& from, std::size_t at) { return {from.h[at], from.l[at], from.r[at]}; }

BallMatrix matrix_of(const RealTensor& x, std::int64_t rows, std::int64_t depth, std::int64_t first = 0) {
  return {.rows = rows, .depth = depth, .exact = x.exact.get(), .balls = x.balls.get(), .first = first};
}

std::shared_ptr<const BallTensor> balls_of(const RealTensor& x) {
  if (x.balls) return x.balls;
  const auto balls = balls_of_size(x.size());
  for (std::int64_t i = 0; i < x.size(); ++i)
    set(*balls, static_cast<std::size_t>(i), ball::exactly(x.exact->value(i)));
  return balls;
}

// ---- programs ----

struct Wanted {
  std::string name;
  Operand value;
  Axes axes;
  Shape shape;
};

/// Some values of one stage, in memory order.
std::vector<std::shared_ptr<const BallTensor>> run_stage(PlacedProgram placed, const Attributes& attributes,
                                                         const std::vector<Wanted>& wanted, PassedBalls passed,
                                                         int threads) {
  const Layout layout = placed.layout;
  std::vector<Operand> values;
  std::vector<std::shared_ptr<BallTensor>> made;
  for (const Wanted& w : wanted) {
    values.push_back(w.value);
    made.push_back(balls_of_size(element_count(w.shape)));
  }
  const BallProgram program(std::move(placed), attributes, values, std::move(passed));
  const std::int64_t grain = std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(1, layout.cols));
  share_out(layout.rows, grain, threads, [&](std::int64_t first, std::int64_t last) {
    BallProgram::Workspace work = program.workspace();
    for (std::int64_t row = first; row < last; ++row) {
      program.run(work, row);
      for (std::size_t k = 0; k < wanted.size(); ++k) {
        const BallRow from = program.row_of(work, values[k]);
        const Axes axes = wanted[k].axes;
        const std::int64_t count = axes.has(Axis::cols) ? layout.cols : 1;
        if (!axes.has(Axis::rows) && row != 0) continue;
        if (const Stride& place = layout.elements;
            axes == kRowsCols && place.step == 1 && place.run >= count && place.columns >= count) {  // side by side
          const std::int64_t at = place.at(row, 0);
          std::copy_n(from.h, count, made[k]->h.begin() + at);
          std::copy_n(from.l, count, made[k]->l.begin() + at);
          std::copy_n(from.r, count, made[k]->r.begin() + at);
          continue;
        }
        for (std::int64_t col = 0; col < count; ++col) {
          const std::int64_t at = axes == kRowsCols ? layout.elements.at(row, col) : axes.has(Axis::rows) ? row : col;
          set(*made[k], static_cast<std::size_t>(at), from.at(static_cast<std::size_t>(col)));
        }
      }
    }
  });
  return {made.begin(), made.end()};
}

std::vector<RealTensor> evaluate(const ProgramSite& site, const Site& whole, const std::vector<RealTensor>& arguments,
                                 const RealOptions& options) {
  // Balls stand beside tensors that have their shapes only.
  Tensors shapes;
  TensorRefs given;
  std::map<std::string, std::shared_ptr<const BallTensor>, std::less<>> balls;
  for (std::size_t k = 0; k < arguments.size(); ++k) {
    const std::string& role = whole.arguments[k].role;
    const RealTensor& argument = arguments[k];
    if (argument.exact) {
      given[role] = argument.exact.get();
      continue;
    }
    given[role] = &(shapes[role] = {.format = FormatId::fp32, .shape = argument.shape, .bytes = {}});
    balls[role] = argument.balls;
  }
  std::map<std::string, RealTensor, std::less<>> outputs;
  const std::vector<const Program*> stages = stages_of(site.program);
  for (const Program* stage : stages) {
    TensorRefs named;
    for (const Node& node : stage->nodes)
      if (node.kind == NodeKind::input)
        if (const auto found = given.find(node.names.front()); found != given.end()) named.insert(*found);
    PlacedProgram placed = place(erase_roundings(*stage), named, site.attributes);
    PassedBalls passed(placed.program.nodes.size());
    for (std::size_t i = 0; i < passed.size(); ++i)
      if (placed.program.nodes[i].kind == NodeKind::input)
        if (const auto found = balls.find(placed.program.nodes[i].names.front()); found != balls.end())
          passed[i] = found->second;
    std::vector<Wanted> wanted;
    for (const ProgramOutput& output : stage->outputs) {
      const Axes axes = placed.program.nodes[static_cast<std::size_t>(output.value.node)].axes;
      wanted.push_back({output.name, output.value, axes, output_shape(placed, axes, placed.x)});
    }
    const auto made = run_stage(std::move(placed), site.attributes, wanted, std::move(passed), options.threads);
    for (std::size_t k = 0; k < wanted.size(); ++k) {
      const std::string& name = wanted[k].name;
      given[name] = &(shapes[name] = {.format = FormatId::fp32, .shape = wanted[k].shape, .bytes = {}});
      balls[name] = made[k];
      outputs[name] = {.shape = wanted[k].shape, .balls = made[k]};
    }
  }
  std::vector<RealTensor> results;
  for (const GraphValue& result : whole.results)
    results.push_back(outputs.at(result.name == whole.name() ? "y" : result.name.substr(whole.name().size() + 1)));
  return results;
}

// ---- products ----

/// What codes stand for.
RealTensor times_scales(const RealTensor& codes, const RealTensor& scales, std::int64_t block) {
  const std::int64_t depth = codes.shape.back();
  const ScaleLayout layout = scale_layout(codes.shape, scales.shape, block);
  const auto balls = balls_of_size(codes.size());
  for (std::int64_t i = 0; i < codes.size(); ++i)
    set(*balls, static_cast<std::size_t>(i),
        ball::mul(codes.at(i), scales.at(layout.at(i / depth, i % depth / block))));
  return {.shape = codes.shape, .balls = balls};
}

std::vector<RealTensor> evaluate(const LinearSite& site, const Site& whole, const std::vector<RealTensor>& arguments,
                                 const RealOptions& options) {
  if (site.block != 0) {
    std::vector<RealTensor> values{times_scales(arguments[0], arguments[2], site.block),
                                   times_scales(arguments[1], arguments[3], site.block)};
    if (arguments.size() > 4) values.push_back(arguments[4]);
    return evaluate(LinearSite{}, whole, values, options);
  }
  const RealTensor &x = arguments[0], &weight = arguments[1];
  const std::int64_t depth = weight.shape[1], rows = x.size() / depth;
  const auto bias = arguments.size() > 2 ? balls_of(arguments[2]) : nullptr;
  auto y =
      std::make_shared<BallTensor>(ball_matmul(matrix_of(x, rows, depth), matrix_of(weight, weight.shape[0], depth),
                                               bias.get(), options.slices, options.threads));
  return {{.shape = whole.results[0].shape, .balls = std::move(y)}};
}

/// The transpose of a matrix that stands at `first`.
BallTensor transposed(const BallTensor& x, std::int64_t first, std::int64_t rows, std::int64_t cols) {
  BallTensor t;
  const auto size = static_cast<std::size_t>(rows * cols);
  t.h.resize(size), t.l.resize(size), t.r.resize(size);
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < cols; ++j)
      set(t, static_cast<std::size_t>(j * rows + i), get(x, static_cast<std::size_t>(first + i * cols + j)));
  return t;
}

/// Balls side by side, of which an operation on rows needs some.
struct Row {
  std::vector<double> h, l, r;
  explicit Row(std::int64_t count, const Ball& b = {})
      : h(static_cast<std::size_t>(count), b.h), l(h.size(), b.l), r(h.size(), b.r) {}
  BallRow in() const { return {h.data(), l.data(), r.data()}; }
  BallRowOut out() { return {h.data(), l.data(), r.data()}; }
};
BallRow row_at(const BallTensor& x, std::int64_t at) { return {x.h.data() + at, x.l.data() + at, x.r.data() + at}; }
BallRowOut row_at(BallTensor& x, std::int64_t at) { return {x.h.data() + at, x.l.data() + at, x.r.data() + at}; }

/// softmax does not change when the same number is taken from all scores: the largest midpoint here, exactly. The rows
/// have room for them all.
void exponentials(const BallRowOut& scores, std::size_t count, const Row& factor, Row& scaled, Row& shift,
                  Row& shifted) {
  apply(Op::mul, {scores.h, scores.l, scores.r}, factor.in(), {}, scaled.out(), count);
  double largest = -kInfinity;
  for (std::size_t j = 0; j < count; ++j)
    if (scaled.r[j] < kInfinity) largest = std::max(largest, scaled.h[j]);
  if (!(std::fabs(largest) < kInfinity)) largest = 0;
  std::fill_n(shift.h.begin(), count, largest);
  apply(Op::sub, scaled.in(), shift.in(), {}, shifted.out(), count);
  apply_function(Op::exp, shifted.in(), scores, count);
}

std::vector<RealTensor> evaluate(const AttentionSite& site, const Site& whole, const std::vector<RealTensor>& arguments,
                                 const RealOptions& options) {
  const RealTensor &q = arguments[0], &k = arguments[1];
  const auto v = balls_of(arguments[2]);
  const Shape &qs = q.shape, &ks = k.shape, &vs = arguments[2].shape;
  const std::int64_t queries = qs[2], keys = ks[2], size = qs[3], out = vs[3], shared = qs[1] / ks[1];
  const Ball scale = site.scale ? Ball{*site.scale, 0, 0} : ball::rsqrt({static_cast<double>(size), 0, 0});
  const auto y = balls_of_size(element_count(whole.results[0].shape));
  const Row factor(keys, scale);
  share_out(qs[0] * qs[1], 1, options.threads, [&](std::int64_t begin, std::int64_t end) {
    Row scaled(keys), shift(keys), shifted(keys);
    for (std::int64_t head = begin; head < end; ++head) {
      const std::int64_t of_keys = head / qs[1] * ks[1] + head % qs[1] / shared;
      BallTensor weights = ball_matmul(matrix_of(q, queries, size, head * queries * size),
                                       matrix_of(k, keys, size, of_keys * keys * size), nullptr, options.slices);
      std::vector<Ball> sums(static_cast<std::size_t>(queries));
      for (std::int64_t i = 0; i < queries; ++i) {
        const std::int64_t seen = site.causal ? std::clamp<std::int64_t>(i + 1 + keys - queries, 0, keys) : keys;
        exponentials(row_at(weights, i * keys), static_cast<std::size_t>(seen), factor, scaled, shift, shifted);
        BallSum sum;
        sum.add(row_at(std::as_const(weights), i * keys), static_cast<std::size_t>(seen));
        sums[static_cast<std::size_t>(i)] = sum.total();
        for (std::int64_t j = seen; j < keys; ++j) set(weights, static_cast<std::size_t>(i * keys + j), {});
      }
      const BallTensor columns = transposed(*v, of_keys * keys * out, keys, out);
      const BallTensor product = ball_matmul({.rows = queries, .depth = keys, .balls = &weights},
                                             {.rows = out, .depth = keys, .balls = &columns}, nullptr, options.slices);
      for (std::int64_t i = 0; i < queries; ++i) {
        const Row sum(out, sums[static_cast<std::size_t>(i)]);
        apply(Op::div, row_at(product, i * out), sum.in(), {}, row_at(*y, (head * queries + i) * out),
              static_cast<std::size_t>(out));
      }
    }
  });
  return {{.shape = whole.results[0].shape, .balls = y}};
}

std::vector<RealTensor> evaluate(const ConvolutionSite& site, const Site& whole,
                                 const std::vector<RealTensor>& arguments, const RealOptions& options) {
  const auto x = balls_of(arguments[0]);
  const RealTensor& weight = arguments[1];
  const auto bias = arguments.size() > 2 ? balls_of(arguments[2]) : nullptr;
  const Shape &xs = arguments[0].shape, &ws = weight.shape, &ys = whole.results[0].shape;
  const std::int64_t depth = ws[1] * ws[2] * ws[3], each = ws[0] / site.groups, positions = ys[2] * ys[3];
  const auto y = balls_of_size(element_count(ys));
  // Some 16 MiB of patches at a time: memory that the allocator keeps and need not be cleared anew.
  const std::int64_t step = std::max<std::int64_t>(64, kPatchNumbers / depth), all = xs[0] * positions;
  for (std::int64_t group = 0; group < site.groups; ++group)
    for (std::int64_t begin = 0; begin < all; begin += step) {
      const Pixels pixels{.begin = begin, .end = std::min(begin + step, all)};
      const auto part = [&](const std::vector<double>& of) {
        return patches_of(of, site, xs, ws, ys, group, pixels, options.threads);
      };
      const BallTensor patches{.h = part(x->h), .l = part(x->l), .r = part(x->r)};
      const BallTensor product =
          ball_matmul({.rows = pixels.count(), .depth = depth, .balls = &patches},
                      matrix_of(weight, each, depth, group * each * depth), nullptr, options.slices, options.threads);
      share_out(each, 1, options.threads, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t o = first; o < last; ++o)
          for (std::int64_t at = 0; at < pixels.count(); ++at) {
            const std::int64_t n = (begin + at) / positions, p = (begin + at) % positions, channel = group * each + o;
            Ball value = get(product, static_cast<std::size_t>(at * each + o));
            if (bias) value = ball::add(value, get(*bias, static_cast<std::size_t>(channel)));
            set(*y, static_cast<std::size_t>((n * ys[1] + channel) * positions + p), value);
          }
      });
    }
  return {{.shape = ys, .balls = y}};
}

// ---- moves ----

std::vector<RealTensor> evaluate(const Rearrangement& site, const Site& whole, const std::vector<RealTensor>& arguments,
                                 const RealOptions& options) {
  const Shape& shape = whole.results[0].shape;
  if (site.kind == Rearrangement::Kind::count) {
    auto numbers = std::make_shared<Tensor>(Tensor::zeros(FormatId::fp64, shape));
    for (std::int64_t i = 0; i < numbers->size(); ++i)
      numbers->set_code(
          i, encode(FormatId::fp64, static_cast<double>(site.numbers[0] + i * site.numbers[1]), Overflow::ieee));
    return {{.shape = shape, .exact = std::move(numbers)}};
  }
  if (site.kind == Rearrangement::Kind::reshape) {
    RealTensor moved = arguments[0];
    moved.shape = shape;
    if (moved.exact) {
      auto exact = std::make_shared<Tensor>(*moved.exact);
      exact->shape = shape;
      moved.exact = std::move(exact);
    }
    return {std::move(moved)};
  }
  std::vector<Shape> shapes;
  bool exact = true;
  for (const RealTensor& argument : arguments) {
    shapes.push_back(argument.shape);
    exact = exact && argument.exact && argument.exact->format == arguments[0].exact->format;
  }
  const std::vector<Source> sources = sources_of(site, shapes, shape);
  if (exact) {
    auto moved = std::make_shared<Tensor>(Tensor::zeros(arguments[0].exact->format, shape));
    for (std::size_t i = 0; i < sources.size(); ++i)
      if (sources[i].argument != Source::kZero)
        moved->set_code(static_cast<std::int64_t>(i),
                        arguments[static_cast<std::size_t>(sources[i].argument)].exact->code(sources[i].element));
    return {{.shape = shape, .exact = std::move(moved)}};
  }
  std::vector<std::shared_ptr<const BallTensor>> from;
  for (const RealTensor& argument : arguments) from.push_back(balls_of(argument));
  const auto moved = balls_of_size(element_count(shape));
  share_out(static_cast<std::int64_t>(sources.size()), 1 << 14, options.threads,
            [&](std::int64_t begin, std::int64_t end) {
              for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
                if (sources[i].argument != Source::kZero)
                  set(*moved, i,
                      get(*from[static_cast<std::size_t>(sources[i].argument)],
                          static_cast<std::size_t>(sources[i].element)));
            });
  return {{.shape = shape, .balls = moved}};
}

}  // namespace

Ball RealTensor::at(std::int64_t i) const {
  return balls ? get(*balls, static_cast<std::size_t>(i)) : ball::exactly(exact->value(i));
}

RealTensor exactly(const Tensor& tensor) {
  return {.shape = tensor.shape, .exact = std::shared_ptr<const Tensor>(&tensor, [](const Tensor*) {})};
}

RealTensor midpoints(const RealTensor& x) {
  if (!x.balls) return x;
  auto balls = std::make_shared<BallTensor>(*x.balls);
  std::ranges::fill(balls->r, 0.0);
  return {.shape = x.shape, .balls = std::move(balls)};
}

std::vector<RealTensor> evaluate_site(const Site& site, const std::vector<RealTensor>& arguments,
                                      const RealOptions& options) {
  return std::visit([&](const auto& what) { return evaluate(what, site, arguments, options); }, site.what);
}

void check_inputs(const Graph& graph, const Tensors& inputs, bool formats) {
  for (const GraphInput& input : graph.inputs) {
    const auto found = inputs.find(input.value.name);
    if (found == inputs.end())
      throw ProgramError("block " + graph.block + " needs the tensor " + input.value.name + " of shape " +
                         shape_text(input.value.shape) + ", and it is missing");
    if (found->second.shape != input.value.shape)
      throw ProgramError("block " + graph.block + ": " + input.value.name + " must be " +
                         shape_text(input.value.shape) + ", got " + shape_text(found->second.shape));
    if (formats && input.value.format && found->second.format != *input.value.format)
      throw ProgramError("block " + graph.block + ": " + input.value.name + " must be " +
                         std::string(name_of(*input.value.format)) + ", got " +
                         std::string(name_of(found->second.format)));
  }
  for (const auto& [name, tensor] : inputs)
    if (std::ranges::none_of(graph.inputs, [&](const GraphInput& input) { return input.value.name == name; }))
      throw ProgramError("block " + graph.block + " has no tensor " + name);
}

RealTensors evaluate_graph(const Graph& graph, const Tensors& inputs, const RealOptions& options,
                           const std::function<bool(const std::string&)>& keep) {
  check_inputs(graph, inputs, false);
  RealTensors values;
  for (const GraphInput& input : graph.inputs)
    values[input.value.name] = exactly(inputs.find(input.value.name)->second);
  std::map<std::string, std::size_t> last_use;
  for (std::size_t i = 0; i < graph.sites.size(); ++i)
    for (const Argument& argument : graph.sites[i].arguments) last_use[argument.value] = i;
  const auto kept = [&](const std::string& name) {
    return !keep || keep(name) || std::ranges::find(graph.outputs, name) != graph.outputs.end();
  };
  for (std::size_t i = 0; i < graph.sites.size(); ++i) {
    const Site& site = graph.sites[i];
    std::vector<RealTensor> arguments;
    for (const Argument& argument : site.arguments) arguments.push_back(values.at(argument.value));
    std::vector<RealTensor> results = evaluate_site(site, arguments, options);
    for (std::size_t k = 0; k < results.size(); ++k) values[site.results[k].name] = std::move(results[k]);
    for (const Argument& argument : site.arguments)
      if (last_use[argument.value] == i && !kept(argument.value)) values.erase(argument.value);
  }
  return values;
}

}  // namespace norma

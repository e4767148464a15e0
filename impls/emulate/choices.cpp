// Ranges of results: rounded interval arithmetic on rows.
#include "impls/emulate/choices.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "impls/emulate/arithmetic.hpp"
#include "impls/emulate/orders.hpp"
#include "reference/program/layout.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// low <= v <= high; NaN: v is NaN; unknown: anything.
struct Range {
  double low = kNaN, high = kNaN;
  static Range unknown() { return {kNaN, 0}; }
  bool is_nan() const { return low != low && high != high; }
  bool is_unknown() const { return low != low && high == high; }
  bool holds_zero() const { return low <= 0 && high >= 0; }
};

/// The ends of results at the corners of the operands' ranges.
class Corners {
 public:
  void add(double value) {
    if (value != value)
      ++nan_;
    else
      low_ = std::min(low_, value), high_ = std::max(high_, value);
    ++count_;
  }
  Range range() const {
    if (nan_ == count_) return {};
    return nan_ == 0 ? Range{low_, high_} : Range::unknown();
  }

 private:
  double low_ = kInfinity, high_ = -kInfinity;
  int count_ = 0, nan_ = 0;
};

bool is_even(Op op) { return op == Op::square || op == Op::abs; }

/// sin and cos turn where x/pi, less a half for sin, is whole. Nothing is said of large arguments.
void add_turns(Op op, const Range& x, Corners& corners) {
  constexpr double kPi = 3.141592653589793;
  if (!(std::fabs(x.low) < 0x1p30 && std::fabs(x.high) < 0x1p30)) {
    corners.add(-1), corners.add(1);
    return;
  }
  // 2^-20: the rounding of a quotient below 2^30. An extremum too many makes the range wider.
  const double shift = op == Op::sin ? 0.5 : 0.0;
  const double first = std::ceil(x.low / kPi - shift - 0x1p-20), last = std::floor(x.high / kPi - shift + 0x1p-20);
  for (double k = first; k <= std::fmin(last, first + 1); ++k) corners.add(std::fmod(k, 2) == 0 ? 1 : -1);
}

Range map_range(const Node& node, std::span<const Range> operands) {
  bool any_unknown = false;
  for (const Range& r : operands) any_unknown = any_unknown || r.is_unknown();
  // Values of other columns are not looked up here.
  if (any_unknown || node.op == Op::rotate || node.op == Op::join) return Range::unknown();
  const bool ignores_nan = node.op == Op::fmax || node.op == Op::fmin;
  if (!ignores_nan)
    for (const Range& r : operands)
      if (r.is_nan()) return {};
  const auto is_point = [](const Range& r) { return r.is_nan() || r.low == r.high; };
  const bool divides = node.op == Op::div || node.op == Op::reciprocal || node.op == Op::rsqrt;
  if (divides && !is_point(operands.back()) && operands.back().holds_zero()) return Range::unknown();
  if (node.op == Op::sqrt && !is_point(operands[0]) && operands[0].low < 0) return Range::unknown();
  Corners corners;
  const std::size_t count = std::size_t{1} << operands.size();
  for (std::size_t corner = 0; corner < count; ++corner) {
    double v[3] = {0, 0, 0};
    for (std::size_t k = 0; k < operands.size(); ++k)
      v[k] = (corner >> k & 1) != 0 ? operands[k].high : operands[k].low;
    corners.add(rounded_op(node.op, v[0], v[1], v[2], node.rounding.format->id, node.rounding.overflow));
  }
  const bool turns = node.op == Op::sin || node.op == Op::cos;
  if (turns && !is_point(operands[0])) add_turns(node.op, operands[0], corners);
  if (is_even(node.op) && !operands[0].is_nan() && operands[0].holds_zero()) corners.add(0);
  Range range = corners.range();
  const int within = node.rounding.within_ulp;
  if (within == 0 || range.is_nan() || range.is_unknown()) return range;
  const FormatId format = node.rounding.format->id;
  const Range correct = range;
  for (int k = 1; k <= within; ++k) {  // a nudge that would leave the finite numbers of a sign does nothing
    range.low = std::min(range.low, nudge(format, correct.low, -k));
    range.high = std::max(range.high, nudge(format, correct.high, k));
  }
  return range;
}

double reduced(const Node& node, std::vector<double> terms) {
  const Reduction& r = node.reduction;
  const FormatId accumulator = node.rounding.format->id;
  const auto count = static_cast<double>(terms.size());
  if (is_maximum(r.kind)) {
    double largest = r.kind == ReduceKind::amax ? 0 : -kInfinity;
    for (const double t : terms) largest = std::max(largest, r.kind == ReduceKind::amax ? std::fabs(t) : t);
    return rounded_op(Op::cast, largest, 0, 0, accumulator, node.rounding.overflow);
  }
  const bool square = r.term == Term::square, unrounded = !square && r.contract;
  const bool fused = square && r.contract && !r.term_format;
  const FormatId term_format = r.term_format ? r.term_format->id : accumulator;
  if (!fused && !unrounded)
    for (double& t : terms) t = rounded_op(square ? Op::square : Op::cast, t, 0, 0, term_format, Overflow::ieee);
  const double sum = unrounded ? fused_sum(r.order, accumulator, terms)
                               : ordered_sum(r.order, accumulator, fused, std::span<const double>(terms));
  return r.kind == ReduceKind::mean ? rounded_op(Op::div, sum, count, 0, accumulator, node.rounding.overflow) : sum;
}

Range reduce_range(const Node& node, const std::vector<Range>& operand, std::size_t cols) {
  if (node.reduction.kind == ReduceKind::moments) return Range::unknown();
  const bool sizes = node.reduction.term == Term::square || node.reduction.kind == ReduceKind::amax;
  std::vector<double> low(cols), high(cols);
  bool nan = false;
  for (std::size_t c = 0; c < cols; ++c) {
    Range t = operand[operand.size() == 1 ? 0 : c];
    if (t.is_unknown()) return Range::unknown();
    nan = nan || t.is_nan();
    if (sizes) {
      const double least = std::min(std::fabs(t.low), std::fabs(t.high)),
                   most = std::max(std::fabs(t.low), std::fabs(t.high));
      t = {t.holds_zero() ? 0.0 : least, most};
    }
    low[c] = t.low, high[c] = t.high;
  }
  if (nan) return {};
  Corners ends;
  ends.add(reduced(node, std::move(low)));
  ends.add(reduced(node, std::move(high)));
  return ends.range();
}

bool is_choice(const Node& node) { return node.rounding.within_ulp > 0; }

/// Which steps a choice reaches.
std::vector<bool> reached_by_choices(const Program& program) {
  std::vector<bool> reached(program.nodes.size());
  for (std::size_t i = 0; i < program.nodes.size(); ++i) {
    reached[i] = is_choice(program.nodes[i]);
    for (const Operand& o : program.nodes[i].operands)
      reached[i] = reached[i] || reached[static_cast<std::size_t>(o.node)];
  }
  return reached;
}

}  // namespace

ChoiceKind choice_kind(const Program& program) {
  if (choice_ulp(program) == 0) return ChoiceKind::none;
  if (!program.stages.empty()) return ChoiceKind::row;
  bool rows = false, elements = false, meet = false;
  std::vector<std::set<std::size_t>> choices(program.nodes.size());  // of columns, by node
  for (std::size_t i = 0; i < program.nodes.size(); ++i) {
    const Node& node = program.nodes[i];
    for (const Operand& o : node.operands) {
      const auto& before = choices[static_cast<std::size_t>(o.node)];
      choices[i].insert(before.begin(), before.end());
    }
    const bool mixes = node.kind == NodeKind::reduce || node.op == Op::rotate || node.op == Op::join;
    if (mixes && !choices[i].empty()) meet = true;
    if (!is_choice(node)) continue;
    if (node.axes.has(Axis::cols))
      choices[i].insert(i), elements = true;
    else
      rows = true;
  }
  for (const auto& of_node : choices) meet = meet || of_node.size() > 1;
  if (!elements) return ChoiceKind::row;
  return rows || meet ? ChoiceKind::range : ChoiceKind::element;
}

OutputRange emulate_range(const Program& program, const Tensors& inputs, const Attributes& attributes) {
  if (!program.stages.empty()) throw ProgramError("the range of a program of several stages is not known");
  OutputRange range{emulate(program, inputs, attributes), {}};
  range.high = range.low;
  const std::vector<bool> reached = reached_by_choices(program);
  const PlacedProgram placed = place(program, inputs, attributes);
  const auto cols = static_cast<std::size_t>(placed.layout.cols);
  for (std::int64_t row = 0; row < placed.layout.rows; ++row) {
    const RowTrace plain = trace_row(program, inputs, attributes, row);
    std::vector<std::vector<std::vector<Range>>> values(program.nodes.size());
    const auto at = [&](const Operand& o, std::size_t c) {
      const auto& of = values[static_cast<std::size_t>(o.node)][static_cast<std::size_t>(o.port)];
      return of[of.size() == 1 ? 0 : c];
    };
    for (std::size_t i = 0; i < program.nodes.size(); ++i) {
      const Node& node = program.nodes[i];
      values[i].resize(node.names.size());
      if (!reached[i]) {
        for (std::size_t port = 0; port < node.names.size(); ++port)
          for (const double v : plain.values[i][port]) values[i][port].push_back({v, v});
      } else if (node.kind == NodeKind::reduce) {
        const Operand o = node.operands[0];
        const Range of_row =
            reduce_range(node, values[static_cast<std::size_t>(o.node)][static_cast<std::size_t>(o.port)], cols);
        for (auto& port : values[i]) port = {of_row};
      } else {
        const std::size_t count = plain.values[i][0].size();
        for (std::size_t c = 0; c < count; ++c) {
          Range operands[3];
          for (std::size_t k = 0; k < node.operands.size(); ++k) operands[k] = at(node.operands[k], c);
          values[i][0].push_back(map_range(node, std::span(operands).first(node.operands.size())));
        }
      }
    }
    for (const ProgramOutput& output : program.outputs) {
      const Node& node = placed.program.nodes[static_cast<std::size_t>(output.value.node)];
      Tensor &low = range.low.at(output.name), &high = range.high.at(output.name);
      const auto store = [&](std::int64_t element, const Range& r) {
        low.set_code(element, encode(low.format, r.low, node.rounding.overflow));
        high.set_code(element, encode(high.format, r.high, node.rounding.overflow));
      };
      if (!node.axes.has(Axis::cols)) {
        store(node.axes.has(Axis::rows) ? row : 0, at(output.value, 0));
        continue;
      }
      for (std::size_t c = 0; c < cols; ++c) {
        const auto col = static_cast<std::int64_t>(c);
        store(node.axes.has(Axis::rows) ? placed.layout.elements.at(row, col) : col, at(output.value, c));
      }
    }
  }
  return range;
}

Tensor held_against(ChoiceKind kind, std::span<const Tensor> ideals, const Tensor& got) {
  Tensor held = ideals.front();
  const auto same = [&](const Tensor& ideal, std::int64_t i) {
    return ideal.code(i) == got.code(i) ||
           (is_nan_code(got.format, ideal.code(i)) && is_nan_code(got.format, got.code(i)));
  };
  const auto in_range = [&](std::int64_t i) {
    const double low = ideals[1].value(i), high = ideals[2].value(i), value = got.value(i);
    if (low != low) return high == high || value != value;
    return low <= value && value <= high;
  };
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const bool allowed = kind == ChoiceKind::range
                             ? in_range(i)
                             : std::ranges::any_of(ideals, [&](const Tensor& ideal) { return same(ideal, i); });
    if (allowed) held.set_code(i, got.code(i));
  }
  return held;
}

}  // namespace norma

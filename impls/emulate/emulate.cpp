// Bit-exact evaluation of a program, a row at a time: elementwise steps run over chunks that stay in the first
// cache, where an eager framework streams every intermediate through memory.
#include "impls/emulate/emulate.hpp"

#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "impls/emulate/arithmetic.hpp"
#include "impls/emulate/orders.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

constexpr std::size_t kChunk = 512;  // columns at a time: ten live values of 2 KiB fit in any first cache

/// How a node's values are held: everything up to fp32 as float; fp64 and exact scalars as double.
bool held_as_float(const Node& node) {
  return node.rounding.format && contains(FormatId::fp32, node.rounding.format->id);
}

/// Values of one port of one node for one row: `size` entries (cols or 1).
struct Slot {
  std::vector<float> narrow;
  std::vector<double> wide;
  bool is_float = true;
  bool per_column = false;

  double at(std::size_t i) const {
    const std::size_t k = per_column ? i : 0;
    return is_float ? static_cast<double>(narrow[k]) : wide[k];
  }
};

/// What does not change from row to row.
struct Plan {
  const Program* program = nullptr;
  const Tensors* inputs = nullptr;
  std::vector<const Tensor*> tensor_of;        ///< by node; null for other kinds
  std::vector<std::vector<double>> constants;  ///< by node: attribute, constant, count
  std::size_t cols = 0;
  std::int64_t rows = 0;
  int nudge_ulp = 0;
};

[[noreturn]] void refuse(const std::string& why) { throw ProgramError(why); }

Plan make_plan(const Program& program, const Tensors& inputs, const Attributes& attributes,
               const EmulateOptions& options) {
  Plan plan;
  plan.program = &program;
  plan.inputs = &inputs;
  plan.nudge_ulp = options.nudge_ulp;
  const auto x = inputs.find("x");
  if (x == inputs.end()) refuse("the tensor 'x' is missing");
  if (x->second.size() == 0) refuse("the tensor 'x' is empty (" + shape_text(x->second.shape) + ")");
  plan.cols = static_cast<std::size_t>(x->second.cols());
  plan.rows = x->second.rows();
  plan.tensor_of.resize(program.nodes.size(), nullptr);
  plan.constants.resize(program.nodes.size());
  for (std::size_t i = 0; i < program.nodes.size(); ++i) {
    const Node& node = program.nodes[i];
    const std::string& name = node.names[0];
    switch (node.kind) {
      case NodeKind::input: {
        const auto found = inputs.find(name);
        if (found == inputs.end()) refuse("the tensor '" + name + "' is missing");
        const Tensor& t = found->second;
        if (t.format != node.rounding.format->id)
          refuse("tensor '" + name + "' is " + std::string(name_of(t.format)) + " but the program takes " +
                 std::string(name_of(node.rounding.format->id)));
        const std::int64_t wanted = (node.axes.has(Axis::rows) ? plan.rows : 1) *
                                    (node.axes.has(Axis::cols) ? static_cast<std::int64_t>(plan.cols) : 1);
        if (t.size() != wanted)
          refuse("tensor '" + name + "' has shape " + shape_text(t.shape) + ", " + std::to_string(wanted) +
                 " elements would fit x of shape " + shape_text(x->second.shape));
        plan.tensor_of[i] = &t;
        break;
      }
      case NodeKind::attribute: {
        const auto found = attributes.find(name);
        if (found == attributes.end()) refuse("the attribute '" + name + "' is missing");
        plan.constants[i] = {found->second};
        break;
      }
      case NodeKind::constant: plan.constants[i] = {node.constant}; break;
      case NodeKind::count: plan.constants[i] = {static_cast<double>(plan.cols)}; break;
      case NodeKind::map:
      case NodeKind::reduce:
        if (!node.rounding.format)
          refuse("step '" + name + "' keeps an exact result; a path that is emulated rounds every step");
        break;
    }
  }
  return plan;
}

/// The values of one row at a time; one per thread.
class RowMachine {
 public:
  explicit RowMachine(const Plan& plan) : plan_(plan) {
    const auto& nodes = plan.program->nodes;
    slots_.resize(nodes.size());
    for (std::size_t i = 0; i < nodes.size(); ++i)
      for (std::size_t port = 0; port < nodes[i].names.size(); ++port) {
        Slot slot;
        slot.is_float = held_as_float(nodes[i]) ||
                        (!plan.constants[i].empty() &&  // an exact scalar that binary32 holds
                         static_cast<double>(static_cast<float>(plan.constants[i][0])) == plan.constants[i][0]);
        slot.per_column = nodes[i].axes.has(Axis::cols);
        const std::size_t size = slot.per_column ? plan.cols : std::min(plan.cols, kChunk);
        // A value without columns is kept repeated over a chunk, so that every loop runs on two arrays.
        if (slot.is_float) slot.narrow.resize(size);
        else slot.wide.resize(slot.per_column ? size : 1);
        slots_[i].push_back(std::move(slot));
      }
    for (std::size_t i = 0; i < nodes.size(); ++i)
      if (!nodes[i].axes.has(Axis::rows)) run_node(i, 0);
  }

  void run(std::int64_t row) {
    const auto& nodes = plan_.program->nodes;
    pending_.clear();
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (!nodes[i].axes.has(Axis::rows)) continue;
      if (nodes[i].axes == kRowsCols && nodes[i].kind != NodeKind::reduce) {
        pending_.push_back(i);
        continue;
      }
      if (nodes[i].kind == NodeKind::reduce) flush(row);
      run_node(i, row);
    }
    flush(row);
  }

  const Slot& slot(const Operand& o) const {
    return slots_[static_cast<std::size_t>(o.node)][static_cast<std::size_t>(o.port)];
  }
  const std::vector<std::vector<Slot>>& slots() const { return slots_; }

 private:
  /// Chunk by chunk, every pending elementwise step in turn.
  void flush(std::int64_t row) {
    for (std::size_t from = 0; from < plan_.cols && !pending_.empty(); from += kChunk) {
      const std::size_t count = std::min(kChunk, plan_.cols - from);
      for (const std::size_t i : pending_) run_chunk(i, row, from, count);
    }
    pending_.clear();
  }

  void run_node(std::size_t i, std::int64_t row) {
    const Node& node = plan_.program->nodes[i];
    if (node.kind == NodeKind::reduce) {
      reduce(i);
      return;
    }
    if (node.axes.has(Axis::cols)) {
      for (std::size_t from = 0; from < plan_.cols; from += kChunk)
        run_chunk(i, row, from, std::min(kChunk, plan_.cols - from));
      return;
    }
    Slot& slot = slots_[i][0];
    switch (node.kind) {
      case NodeKind::attribute:
      case NodeKind::constant:
      case NodeKind::count: set_scalar(slot, plan_.constants[i][0]); return;
      case NodeKind::input: set_scalar(slot, plan_.tensor_of[i]->value(node.axes.has(Axis::rows) ? row : 0)); return;
      case NodeKind::map: set_scalar(slot, nudged(node, one(node, 0))); return;
      case NodeKind::reduce: return;
    }
  }

  static void set_scalar(Slot& slot, double value) {
    if (slot.is_float) std::fill(slot.narrow.begin(), slot.narrow.end(), static_cast<float>(value));
    else slot.wide[0] = value;
  }

  double nudged(const Node& node, double value) const {
    if (node.rounding.within_ulp == 0 || plan_.nudge_ulp == 0) return value;
    const int bound = node.rounding.within_ulp;
    return nudge(node.rounding.format->id, value, std::clamp(plan_.nudge_ulp, -bound, bound));
  }

  double one(const Node& node, std::size_t column) const {
    double v[3] = {0, 0, 0};
    for (std::size_t k = 0; k < node.operands.size(); ++k) v[k] = slot(node.operands[k]).at(column);
    return rounded_op(node.op, v[0], v[1], v[2], node.rounding.format->id, node.rounding.overflow);
  }

  void run_chunk(std::size_t i, std::int64_t row, std::size_t from, std::size_t count) {
    const Node& node = plan_.program->nodes[i];
    Slot& out = slots_[i][0];
    if (node.kind == NodeKind::input) {
      const Tensor& t = *plan_.tensor_of[i];
      const std::size_t first = (node.axes.has(Axis::rows) ? static_cast<std::size_t>(row) * plan_.cols : 0) + from;
      const std::byte* stored = t.bytes.data() + first * static_cast<std::size_t>(format_of(t.format).storage_bytes());
      if (out.is_float) decode_row(t.format, stored, out.narrow.data() + from, count);
      else decode_row(t.format, stored, out.wide.data() + from, count);
      return;
    }
    const FormatId target = node.rounding.format->id;
    const bool on_floats = out.is_float && std::all_of(node.operands.begin(), node.operands.end(),
                                                       [&](const Operand& o) { return slot(o).is_float; });
    if (on_floats && (target == FormatId::fp32 || exact_in_fp32(node.op))) {
      const float* operand[3] = {nullptr, nullptr, nullptr};
      for (std::size_t k = 0; k < node.operands.size(); ++k) {
        const Slot& s = slot(node.operands[k]);
        operand[k] = s.narrow.data() + (s.per_column ? from : 0);
      }
      float* result = out.narrow.data() + from;
      fp32_op(node.op, operand[0], operand[1], operand[2], result, count);
      round_row(target, result, count, node.rounding.overflow);
      if (node.rounding.within_ulp != 0)
        for (std::size_t c = 0; c < count; ++c) result[c] = static_cast<float>(nudged(node, static_cast<double>(result[c])));
      return;
    }
    for (std::size_t c = from; c < from + count; ++c) {
      const double value = nudged(node, one(node, c));
      if (out.is_float) out.narrow[c] = static_cast<float>(value);
      else out.wide[c] = value;
    }
  }

  void reduce(std::size_t i) {
    const Node& node = plan_.program->nodes[i];
    const Reduction& r = node.reduction;
    const Slot& of = slot(node.operands[0]);
    const FormatId accumulator = node.rounding.format->id;
    if (r.kind == ReduceKind::amax) {
      double largest = 0;
      for (std::size_t c = 0; c < plan_.cols; ++c) {
        const double t = std::fabs(of.at(c));
        largest = t != t || largest != largest ? std::nan("") : std::max(largest, t);
      }
      set_scalar(slots_[i][0], decode(accumulator, encode(accumulator, largest, node.rounding.overflow)));
      return;
    }
    const FormatId term_format = r.term_format ? r.term_format->id : accumulator;
    const bool square = r.term == Term::square;
    const bool fused = square && r.contract && !r.term_format;
    if (r.kind == ReduceKind::moments) {
      terms_wide_.resize(plan_.cols);
      for (std::size_t c = 0; c < plan_.cols; ++c) terms_wide_[c] = of.at(c);
      const Moments m = ordered_moments(r.order, accumulator, r.contract, terms_wide_);
      set_scalar(slots_[i][0], m.mean);
      set_scalar(slots_[i][1], m.variance);
      return;
    }
    double sum = 0;
    if (of.is_float && accumulator == FormatId::fp32 && term_format == FormatId::fp32) {
      std::span<const float> terms(of.narrow.data(), plan_.cols);
      if (square && !fused) {
        terms_.resize(plan_.cols);
        fp32_op(Op::square, of.narrow.data(), nullptr, nullptr, terms_.data(), plan_.cols);
        terms = terms_;
      }
      sum = ordered_sum(r.order, accumulator, fused, terms);
    } else {
      terms_wide_.resize(plan_.cols);
      for (std::size_t c = 0; c < plan_.cols; ++c) {
        const double t = of.at(c);
        if (fused) terms_wide_[c] = t;
        else if (square) terms_wide_[c] = rounded_op(Op::square, t, 0, 0, term_format, Overflow::ieee);
        else terms_wide_[c] = rounded_op(Op::cast, t, 0, 0, term_format, Overflow::ieee);
      }
      sum = ordered_sum(r.order, accumulator, fused, terms_wide_);
    }
    if (r.kind == ReduceKind::mean)
      sum = rounded_op(Op::div, sum, static_cast<double>(plan_.cols), 0, accumulator, node.rounding.overflow);
    set_scalar(slots_[i][0], sum);
  }

  const Plan& plan_;
  std::vector<std::vector<Slot>> slots_;  ///< [node][port]
  std::vector<std::size_t> pending_;
  std::vector<float> terms_;
  std::vector<double> terms_wide_;
};

void store_row(const RowMachine& machine, const Program& program, const ProgramOutput& output, std::int64_t row,
               Tensor& into) {
  const Node& node = program.nodes[static_cast<std::size_t>(output.value.node)];
  const Slot& slot = machine.slot(output.value);
  const std::size_t count = node.axes.has(Axis::cols) ? static_cast<std::size_t>(into.cols()) : 1;
  const auto width = static_cast<std::size_t>(format_of(into.format).storage_bytes());
  const std::size_t first = (node.axes.has(Axis::rows) ? static_cast<std::size_t>(row) : 0) * count;
  std::byte* stored = into.bytes.data() + first * width;
  if (slot.is_float) encode_row(into.format, slot.narrow.data(), stored, count, node.rounding.overflow);
  else encode_row(into.format, slot.wide.data(), stored, count, node.rounding.overflow);
}

}  // namespace

Tensors emulate(const Program& program, const Tensors& inputs, const Attributes& attributes,
                const EmulateOptions& options) {
  const Plan plan = make_plan(program, inputs, attributes, options);
  const Shape& shape = inputs.find("x")->second.shape;
  Tensors outputs;
  std::vector<Tensor*> targets;
  for (const ProgramOutput& output : program.outputs) {
    const Node& node = program.nodes[static_cast<std::size_t>(output.value.node)];
    if (!node.rounding.format) refuse("output '" + output.name + "' is exact and has no format");
    Shape out_shape;
    if (node.axes.has(Axis::rows)) out_shape.assign(shape.begin(), shape.end() - 1);
    if (node.axes.has(Axis::cols)) out_shape.push_back(shape.back());
    outputs[output.name] = Tensor::zeros(node.rounding.format->id, std::move(out_shape));
    targets.push_back(&outputs[output.name]);
  }
  const auto rows = [&](std::int64_t from, std::int64_t to) {
    RowMachine machine(plan);
    for (std::int64_t row = from; row < to; ++row) {
      machine.run(row);
      for (std::size_t k = 0; k < targets.size(); ++k)
        store_row(machine, program, program.outputs[k], row, *targets[k]);
    }
  };
  if (options.threads <= 1 || plan.rows == 1) {
    rows(0, plan.rows);
    return outputs;
  }
  oneapi::tbb::task_arena arena(options.threads);
  const std::int64_t grain = std::max<std::int64_t>(1, plan.rows / (4 * options.threads));
  arena.execute([&] {
    oneapi::tbb::parallel_for(oneapi::tbb::blocked_range<std::int64_t>(0, plan.rows, static_cast<std::size_t>(grain)),
                              [&](const auto& range) { rows(range.begin(), range.end()); });
  });
  return outputs;
}

int choice_ulp(const Program& program) {
  int widest = 0;
  for (const Node& node : program.nodes) widest = std::max(widest, node.rounding.within_ulp);
  return widest;
}

RowTrace trace_row(const Program& program, const Tensors& inputs, const Attributes& attributes, std::int64_t row,
                   const EmulateOptions& options) {
  const Plan plan = make_plan(program, inputs, attributes, options);
  RowMachine machine(plan);
  machine.run(row);
  RowTrace trace;
  for (const auto& ports : machine.slots()) {
    auto& values = trace.values.emplace_back();
    for (const Slot& slot : ports) {
      auto& column = values.emplace_back();
      for (std::size_t c = 0; c < (slot.per_column ? plan.cols : 1); ++c) column.push_back(slot.at(c));
    }
  }
  return trace;
}

}  // namespace norma

// Bit-exact evaluation of a program, a row at a time: elementwise steps run over chunks that stay in the first
// cache, where an eager framework streams every intermediate through memory.
#include "impls/emulate/emulate.hpp"

#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "impls/emulate/arithmetic.hpp"
#include "impls/emulate/orders.hpp"
#include "reference/formats/convert.hpp"
#include "reference/program/layout.hpp"

namespace norma {

namespace {

// Floor of a bf16 RMSNorm: 4 bytes an element to and from memory, 0.2 ns at 20 GB/s. Its eight vector loops (decode,
// square and sum, twice multiply and round, store) take some 0.3 ns on one core, as long as what one leaves the next
// finds in the first cache.
constexpr std::size_t kChunk = 1024;  // columns at a time, a power of two: five live values of 4 KiB

constexpr std::size_t kLargePages = std::size_t{8} << 20;  // bytes from which an output asks for large pages

/// How a node's values are held: everything up to fp32 as float; fp64 and exact scalars as double.
bool held_as_float(const Node& node) {
  return node.rounding.format && contains(FormatId::fp32, node.rounding.format->id);
}

/// A cast that changes no value: to binary32 or to the format that its operand has.
bool keeps_values(const Program& program, const Node& node) {
  if (node.kind != NodeKind::map || node.op != Op::cast || node.rounding.overflow != Overflow::ieee) return false;
  const Node& of = program.nodes[static_cast<std::size_t>(node.operands[0].node)];
  return held_as_float(node) && held_as_float(of) && of.axes == node.axes &&
         (node.rounding.format->id == FormatId::fp32 || node.rounding.format->id == of.rounding.format->id);
}

/// Values of one port of one node for one row.
struct Slot {
  std::vector<float> narrow;
  std::vector<double> wide;
  bool is_float = true;
  bool per_column = false;
  bool whole = false;     ///< holds every column; else those of one chunk
  bool repeated = false;  ///< a value without columns that steps on columns use: stands there for a whole chunk

  /// Where the columns from a chunk's first on stand.
  std::size_t start(std::size_t from) const { return per_column && whole ? from : 0; }
  double at(std::size_t column) const {
    const std::size_t k = !per_column ? 0 : whole ? column : column % kChunk;
    return is_float ? static_cast<double>(narrow[k]) : wide[k];
  }
};

/// What does not change from row to row.
struct Plan {
  PlacedProgram placed;
  std::vector<std::vector<double>> constants;  ///< by node: attribute, constant, count
  std::vector<Operand> held_by;                ///< by node: itself, or for a cast that keeps values what it casts
  std::size_t cols = 0;
  std::int64_t rows = 0;
  int nudge_ulp = 0;

  const std::vector<Node>& nodes() const { return placed.program.nodes; }
  /// The value that holds what an operand asks for.
  Operand source(Operand o) const { return o.port == 0 ? held_by[static_cast<std::size_t>(o.node)] : o; }
  bool computed(std::size_t node) const { return held_by[node].node == static_cast<int>(node); }
};

[[noreturn]] void refuse(const std::string& why) { throw ProgramError(why); }

/// Of one stage.
Plan make_plan(const Program& program, const TensorRefs& inputs, const Attributes& attributes,
               const EmulateOptions& options) {
  Plan plan{.placed = place(program, inputs, attributes), .constants = {}, .held_by = {}};
  plan.nudge_ulp = options.nudge_ulp;
  plan.cols = static_cast<std::size_t>(plan.placed.layout.cols);
  plan.rows = plan.placed.layout.rows;
  plan.constants.resize(program.nodes.size());
  for (std::size_t i = 0; i < program.nodes.size(); ++i) {
    const Node& node = plan.nodes()[i];
    const std::string& name = node.names[0];
    const Operand itself{.node = static_cast<int>(i), .port = 0};
    plan.held_by.push_back(keeps_values(plan.placed.program, node) ? plan.source(node.operands[0]) : itself);
    switch (node.kind) {
      case NodeKind::input:
        if (plan.placed.tensors[i]->format != node.rounding.format->id)
          refuse("tensor '" + name + "' is " + std::string(name_of(plan.placed.tensors[i]->format)) +
                 " but the program takes " + std::string(name_of(node.rounding.format->id)));
        break;
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

/// Elements of `width` bytes that a row's columns from `from` on read or write, run by run: each(element, column, count).
template <class Each>
void for_runs(const Stride& stride, std::int64_t row, std::size_t from, std::size_t count, const Each& each) {
  for (std::size_t done = 0; done < count;) {
    const auto col = static_cast<std::int64_t>(from + done);
    const std::size_t left = static_cast<std::size_t>(stride.run - col % stride.run);
    const std::size_t n = std::min(count - done, left);
    each(static_cast<std::size_t>(stride.at(row, col)), done, n);
    done += n;
  }
}

/// The values of one row at a time; one per thread.
class RowMachine {
 public:
  /// `every_value`: all that is computed is there to be read after a row, not only what is needed again.
  explicit RowMachine(const Plan& plan, bool every_value = false) : plan_(plan) {
    const auto& nodes = plan.nodes();
    slots_.resize(nodes.size());
    for (std::size_t i = 0; i < nodes.size(); ++i)
      for (std::size_t port = 0; port < nodes[i].names.size(); ++port) {
        Slot slot;
        slot.is_float = held_as_float(nodes[i]) ||
                        (!plan.constants[i].empty() &&  // an exact scalar that binary32 holds
                         static_cast<double>(static_cast<float>(plan.constants[i][0])) == plan.constants[i][0]);
        slot.per_column = nodes[i].axes.has(Axis::cols);
        slot.whole = every_value || !nodes[i].axes.has(Axis::rows);
        slots_[i].push_back(std::move(slot));
      }
    mark_uses();
    for (std::size_t i = 0; i < nodes.size(); ++i)
      for (Slot& slot : slots_[i]) {
        if (!plan.computed(i)) continue;
        const std::size_t chunk = std::min(plan.cols, kChunk);
        const std::size_t size = slot.per_column ? (slot.whole ? plan.cols : chunk) : (slot.repeated ? chunk : 1);
        if (slot.is_float) slot.narrow.resize(size);
        else slot.wide.resize(size);
      }
    for (std::size_t i = 0; i < nodes.size(); ++i)
      if (!nodes[i].axes.has(Axis::rows) && plan.computed(i)) run_node(i, 0);
  }

  void run(std::int64_t row) {
    const auto& nodes = plan_.nodes();
    pending_.clear();
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (!nodes[i].axes.has(Axis::rows) || !plan_.computed(i)) continue;
      if (reads_whole_rows(nodes[i])) flush(row);
      if (nodes[i].axes == kRowsCols && nodes[i].kind != NodeKind::reduce) {
        pending_.push_back(i);
        continue;
      }
      run_node(i, row);
    }
    flush(row);
  }

  const Slot& slot(const Operand& o) const {
    const Operand held = plan_.source(o);
    return slots_[static_cast<std::size_t>(held.node)][static_cast<std::size_t>(held.port)];
  }

 private:
  static bool reads_whole_rows(const Node& node) {
    return node.kind == NodeKind::reduce || (node.kind == NodeKind::map && node.op == Op::rotate);
  }

  /// What outlives its chunk: outputs, what is reduced or rotated, and what is used after a later such step than it was
  /// made before. And which values without columns meet columns.
  void mark_uses() {
    const auto& nodes = plan_.nodes();
    std::vector<int> group(nodes.size());  // the steps of one group run chunk by chunk
    int barriers = 0;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      const bool elementwise = nodes[i].axes.has(Axis::cols) && nodes[i].kind != NodeKind::reduce;
      if (reads_whole_rows(nodes[i])) ++barriers;
      group[i] = barriers;
      if (!plan_.computed(i)) continue;
      for (const Operand& o : nodes[i].operands) {
        const Operand held = plan_.source(o);
        Slot& used = slots_[static_cast<std::size_t>(held.node)][static_cast<std::size_t>(held.port)];
        used.repeated = used.repeated || elementwise;
        used.whole = used.whole || !elementwise || group[static_cast<std::size_t>(held.node)] != group[i];
      }
    }
    for (const ProgramOutput& output : plan_.placed.program.outputs) {
      const Operand held = plan_.source(output.value);
      slots_[static_cast<std::size_t>(held.node)][static_cast<std::size_t>(held.port)].whole = true;
    }
  }

  /// Chunk by chunk, every pending elementwise step in turn.
  void flush(std::int64_t row) {
    for (std::size_t from = 0; from < plan_.cols && !pending_.empty(); from += kChunk) {
      const std::size_t count = std::min(kChunk, plan_.cols - from);
      for (const std::size_t i : pending_) run_chunk(i, row, from, count);
    }
    pending_.clear();
  }

  void run_node(std::size_t i, std::int64_t row) {
    const Node& node = plan_.nodes()[i];
    if (node.kind == NodeKind::reduce) {
      reduce(i, row);
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
      case NodeKind::input:
        set_scalar(slot, plan_.placed.tensors[i]->value(plan_.placed.strides[i].at(row, 0)));
        return;
      case NodeKind::map: set_scalar(slot, nudged(node, one(node, 0))); return;
      case NodeKind::reduce: return;
    }
  }

  static void set_scalar(Slot& slot, double value) {
    if (slot.is_float) std::fill(slot.narrow.begin(), slot.narrow.end(), static_cast<float>(value));
    else std::fill(slot.wide.begin(), slot.wide.end(), value);
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
    const Node& node = plan_.nodes()[i];
    Slot& out = slots_[i][0];
    if (node.kind == NodeKind::input) {
      if (out.is_float) load(i, row, from, count, out.narrow.data() + out.start(from));
      else load(i, row, from, count, out.wide.data() + out.start(from));
      return;
    }
    if (node.op == Op::rotate || node.op == Op::join) {
      move_columns(node, out, from, count);
      return;
    }
    const FormatId target = node.rounding.format->id;
    const bool on_floats = out.is_float && std::all_of(node.operands.begin(), node.operands.end(),
                                                       [&](const Operand& o) { return slot(o).is_float; });
    if (on_floats && (target == FormatId::fp32 || exact_in_fp32(node.op))) {
      const float* operand[3] = {nullptr, nullptr, nullptr};
      for (std::size_t k = 0; k < node.operands.size(); ++k) {
        const Slot& s = slot(node.operands[k]);
        operand[k] = s.narrow.data() + s.start(from);
      }
      float* result = out.narrow.data() + out.start(from);
      if (node.op == Op::cast) {
        round_row(target, operand[0], result, count, node.rounding.overflow);
      } else {
        fp32_op(node.op, operand[0], operand[1], operand[2], result, count);
        round_row(target, result, count, node.rounding.overflow);
      }
      if (node.rounding.within_ulp != 0)
        for (std::size_t c = 0; c < count; ++c) result[c] = static_cast<float>(nudged(node, static_cast<double>(result[c])));
      return;
    }
    for (std::size_t c = 0; c < count; ++c) {
      const double value = nudged(node, one(node, from + c));
      if (out.is_float) out.narrow[out.start(from) + c] = static_cast<float>(value);
      else out.wide[out.start(from) + c] = value;
    }
  }

  /// rotate and join: values of other columns or other operands, then a cast.
  void move_columns(const Node& node, Slot& out, std::size_t from, std::size_t count) {
    const Layout& layout = plan_.placed.layout;
    for (std::size_t c = 0; c < count; ++c) {
      const auto col = static_cast<std::int64_t>(from + c);
      const bool rotary = col < layout.rotary();
      double value = 0;
      if (node.op == Op::join) {
        value = slot(node.operands[rotary ? 0 : 1]).at(from + c);
      } else if (rotary) {
        const Layout::Partner partner = layout.partner_of(col);
        value = slot(node.operands[0]).at(static_cast<std::size_t>(partner.col));
        if (partner.first) value = -value;
      }
      value = nudged(node, rounded_op(Op::cast, value, 0, 0, node.rounding.format->id, node.rounding.overflow));
      if (out.is_float) out.narrow[out.start(from) + c] = static_cast<float>(value);
      else out.wide[out.start(from) + c] = value;
    }
  }

  /// Columns of an input, decoded.
  template <class Value>
  void load(std::size_t i, std::int64_t row, std::size_t from, std::size_t count, Value* into) {
    const Tensor& t = *plan_.placed.tensors[i];
    const Stride& stride = plan_.placed.strides[i];
    const auto width = static_cast<std::size_t>(format_of(t.format).storage_bytes());
    for_runs(stride, row, from, count, [&](std::size_t element, std::size_t at, std::size_t n) {
      const std::byte* stored = t.bytes.data() + element * width;
      if (stride.step == 1) {
        decode_row(t.format, stored, into + at, n);
      } else if (stride.step == 0) {
        decode_row(t.format, stored, into + at, 1);
        std::fill(into + at + 1, into + at + n, into[at]);
      } else {
        gathered_.resize(n * width);
        const auto apart = static_cast<std::size_t>(stride.step) * width;
        for (std::size_t k = 0; k < n; ++k) std::memcpy(gathered_.data() + k * width, stored + k * apart, width);
        decode_row(t.format, gathered_.data(), into + at, n);
      }
    });
  }

  void reduce(std::size_t i, std::int64_t row) {
    const Node& node = plan_.nodes()[i];
    const Reduction& r = node.reduction;
    const Slot& of = slot(node.operands[0]);
    const FormatId accumulator = node.rounding.format->id;
    if (is_maximum(r.kind)) {
      double largest = r.kind == ReduceKind::amax ? 0 : -HUGE_VAL;
      for (std::size_t c = 0; c < plan_.cols; ++c) {
        const double t = r.kind == ReduceKind::amax ? std::fabs(of.at(c)) : of.at(c);
        largest = t != t || largest != largest ? std::nan("") : std::max(largest, t);
      }
      set_scalar(slots_[i][0], decode(accumulator, encode(accumulator, largest, node.rounding.overflow)));
      return;
    }
    const FormatId term_format = r.term_format ? r.term_format->id : accumulator;
    const bool square = r.term == Term::square;
    const bool fused = square && r.contract && !r.term_format;
    const bool unrounded = !square && r.contract;
    if (r.kind == ReduceKind::moments) {
      terms_wide_.resize(plan_.cols);
      for (std::size_t c = 0; c < plan_.cols; ++c) terms_wide_[c] = of.at(c);
      const Moments m = ordered_moments(r.order, accumulator, r.contract, terms_wide_);
      set_scalar(slots_[i][0], m.mean);
      set_scalar(slots_[i][1], m.variance);
      return;
    }
    double sum = 0;
    if (unrounded || r.order.kind == OrderKind::torch_outer) {
      terms_wide_.resize(plan_.cols);
      for (std::size_t c = 0; c < plan_.cols; ++c)
        terms_wide_[c] = unrounded ? of.at(c) : rounded_op(Op::cast, of.at(c), 0, 0, term_format, Overflow::ieee);
      sum = unrounded ? fused_sum(r.order, accumulator, terms_wide_)
                      : column_sum(r.order, accumulator, terms_wide_, row % plan_.placed.layout.channels);
    } else if (of.is_float && accumulator == FormatId::fp32 && term_format == FormatId::fp32) {
      const std::span<const float> terms(of.narrow.data(), plan_.cols);
      sum = square && !fused ? fp32_square_sum(r.order, terms, squares_) : ordered_sum(r.order, accumulator, fused, terms);
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
  std::vector<float> squares_;
  std::vector<double> terms_wide_;
  std::vector<std::byte> gathered_;
};

void encode_slot(const Slot& slot, std::size_t from, std::size_t count, Overflow overflow, FormatId format,
                 std::byte* stored) {
  if (slot.is_float) store_row(format, slot.narrow.data() + from, stored, count);
  else encode_row(format, slot.wide.data() + from, stored, count, overflow);
}

void store_output(const RowMachine& machine, const Plan& plan, const ProgramOutput& output, std::int64_t row,
                  Tensor& into) {
  const Node& node = plan.nodes()[static_cast<std::size_t>(output.value.node)];
  const Slot& slot = machine.slot(output.value);
  const auto width = static_cast<std::size_t>(format_of(into.format).storage_bytes());
  const Overflow overflow = node.rounding.overflow;
  if (node.axes != kRowsCols) {
    const std::size_t count = node.axes.has(Axis::cols) ? plan.cols : 1;
    const std::size_t first = node.axes.has(Axis::rows) ? static_cast<std::size_t>(row) : 0;
    encode_slot(slot, 0, count, overflow, into.format, into.bytes.data() + first * width);
    return;
  }
  const Stride& stride = plan.placed.layout.elements;
  std::vector<std::byte> apart;
  for_runs(stride, row, 0, plan.cols, [&](std::size_t element, std::size_t at, std::size_t n) {
    std::byte* stored = into.bytes.data() + element * width;
    if (stride.step == 1) {
      encode_slot(slot, at, n, overflow, into.format, stored);
      return;
    }
    apart.resize(n * width);
    encode_slot(slot, at, n, overflow, into.format, apart.data());
    for (std::size_t k = 0; k < n; ++k)
      std::memcpy(stored + k * static_cast<std::size_t>(stride.step) * width, apart.data() + k * width, width);
  });
}

/// Tensor::zeros, on large pages where it is large: faults of 4 KiB, all in the thread that zeroes, would cost more
/// than what follows.
Tensor output_zeros(FormatId format, Shape shape) {
  const auto size = static_cast<std::size_t>(element_count(shape) * format_of(format).storage_bytes());
  Tensor t{.format = format, .shape = std::move(shape), .bytes = {}};
  t.bytes.reserve(size);
#if defined(MADV_HUGEPAGE)
  if (size >= kLargePages) {
    constexpr std::uintptr_t kPage = 4096;
    const auto first = (reinterpret_cast<std::uintptr_t>(t.bytes.data()) + kPage - 1) & ~(kPage - 1);
    const auto last = (reinterpret_cast<std::uintptr_t>(t.bytes.data()) + size) & ~(kPage - 1);
    ::madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // a wish; nothing depends on it
  }
#endif
  t.bytes.resize(size);
  return t;
}

}  // namespace

namespace {

/// The outputs of one stage, passed or not.
Tensors emulate_stage(const Program& program, const TensorRefs& inputs, const Attributes& attributes,
                      const EmulateOptions& options) {
  const Plan plan = make_plan(program, inputs, attributes, options);
  const Shape& shape = plan.placed.x;
  Tensors outputs;
  std::vector<Tensor*> targets;
  for (const ProgramOutput& output : program.outputs) {
    const Node& node = plan.nodes()[static_cast<std::size_t>(output.value.node)];
    if (!node.rounding.format) refuse("output '" + output.name + "' is exact and has no format");
    outputs[output.name] = output_zeros(node.rounding.format->id, output_shape(plan.placed, node.axes, shape));
    targets.push_back(&outputs[output.name]);
  }
  const auto rows = [&](std::int64_t from, std::int64_t to) {
    RowMachine machine(plan);
    for (std::int64_t row = from; row < to; ++row) {
      machine.run(row);
      for (std::size_t k = 0; k < targets.size(); ++k)
        store_output(machine, plan, program.outputs[k], row, *targets[k]);
    }
  };
  if (options.threads <= 1 || plan.rows == 1) {
    rows(0, plan.rows);
    return outputs;
  }
  oneapi::tbb::task_arena arena(options.threads);
  // Fine enough that a thread which lost its core for a while leaves the others work to take.
  const std::int64_t grain = std::max<std::int64_t>(1, plan.rows / (16 * options.threads));
  arena.execute([&] {
    oneapi::tbb::parallel_for(oneapi::tbb::blocked_range<std::int64_t>(0, plan.rows, static_cast<std::size_t>(grain)),
                              [&](const auto& range) { rows(range.begin(), range.end()); });
  });
  return outputs;
}

/// What a program's stages gave so far, and what the next one reads.
class Stages {
 public:
  Stages(const Program& program, const Tensors& inputs, const Attributes& attributes, const EmulateOptions& options)
      : program_(program), stages_(stages_of(program)), inputs_(inputs), attributes_(attributes), options_(options) {
    if (!program.stages.empty()) return;
    const auto x = inputs.find("x");
    if (x == inputs.end()) refuse("the tensor 'x' is missing");
    if (x->second.size() == 0) refuse("the tensor 'x' is empty (" + shape_text(x->second.shape) + ")");
  }

  TensorRefs next_inputs() const { return inputs_of_stage(program_, results_.size(), inputs_, made_); }
  void run_next() {
    results_.push_back(emulate_stage(*stages_[results_.size()], next_inputs(), attributes_, options_));
    for (const auto& [name, tensor] : results_.back()) made_[name] = &tensor;
  }
  void run_until(std::size_t stage) {
    results_.reserve(stages_.size());
    while (results_.size() < stage) run_next();
  }
  Tensors outputs() && {
    Tensors outputs;
    for (std::size_t i = 0; i < results_.size(); ++i)
      for (const ProgramOutput& output : stages_[i]->outputs)
        if (!output.passed) outputs.insert(results_[i].extract(output.name));
    return outputs;
  }

 private:
  const Program& program_;
  std::vector<const Program*> stages_;
  const Tensors& inputs_;
  const Attributes& attributes_;
  const EmulateOptions& options_;
  std::vector<Tensors> results_;
  TensorRefs made_;
};

}  // namespace

Tensors emulate(const Program& program, const Tensors& inputs, const Attributes& attributes,
                const EmulateOptions& options) {
  Stages stages(program, inputs, attributes, options);
  stages.run_until(program.stages.size() + 1);
  return std::move(stages).outputs();
}

int choice_ulp(const Program& program) {
  int widest = 0;
  for (const Program* stage : stages_of(program))
    for (const Node& node : stage->nodes) widest = std::max(widest, node.rounding.within_ulp);
  return widest;
}

RowTrace trace_row(const Program& whole, const Tensors& inputs, const Attributes& attributes, std::int64_t row,
                   const EmulateOptions& options, std::optional<std::size_t> stage) {
  const std::size_t traced = stage.value_or(whole.stages.size());
  Stages stages(whole, inputs, attributes, options);
  stages.run_until(traced);
  const Program& program = *stages_of(whole)[traced];
  const Plan plan = make_plan(program, stages.next_inputs(), attributes, options);
  RowMachine machine(plan, true);
  machine.run(row);
  RowTrace trace;
  for (std::size_t i = 0; i < program.nodes.size(); ++i) {
    auto& values = trace.values.emplace_back();
    for (std::size_t port = 0; port < program.nodes[i].names.size(); ++port) {
      const Slot& slot = machine.slot({.node = static_cast<int>(i), .port = static_cast<int>(port)});
      auto& column = values.emplace_back();
      for (std::size_t c = 0; c < (slot.per_column ? plan.cols : 1); ++c) column.push_back(slot.at(c));
    }
  }
  return trace;
}

}  // namespace norma

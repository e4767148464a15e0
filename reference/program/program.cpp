// Tables of operations and orders, and what can be told of a program without evaluating it.
#include "reference/program/program.hpp"

#include <algorithm>
#include <charconv>

namespace norma {

namespace {

constexpr OpRow kOps[] = {
#define NORMA_OP(name, arity, onnx, meaning) {Op::name, #name, arity, onnx, meaning},
#include "reference/program/ops.def"
#undef NORMA_OP
};

constexpr OrderRow kOrders[] = {
    {OrderKind::exact, "exact", "", false, "the exact sum, rounded once"},
    {OrderKind::sequential, "sequential", "", false, "one accumulator, first to last"},
    {OrderKind::pairwise, "pairwise", "leaf", false, "halves, recursively; leaves first to last"},
    {OrderKind::lanes, "lanes", "lanes", false, "term i into accumulator i mod lanes, then those in order"},
    {OrderKind::lanes_tree, "lanes_tree", "lanes", false, "as lanes, accumulators then by halves"},
    {OrderKind::blocked, "blocked", "size", true, "blocks first to last, then the block sums; vec: terms of the first block"},
    {OrderKind::warp, "warp", "threads", true, "thread-strided vectors, then a shuffle tree"},
    {OrderKind::block, "block", "threads", true, "a shuffle tree in each warp of 32, then one over warps"},
    {OrderKind::torch_cpu, "torch_cpu", "lanes", false, "torch's fp32 row sum on a CPU"},
    {OrderKind::torch_cpu_half, "torch_cpu_half", "lanes", false, "torch's 16-bit row sum on a CPU"},
    {OrderKind::torch_norm, "torch_norm", "lanes", true, "torch.linalg.vector_norm over a row"},
    {OrderKind::torch_columns, "torch_columns", "lanes", true, "torch's channels-last group_norm: lanes begin anew with each run"},
    {OrderKind::torch_columns_half, "torch_columns_half", "lanes", true, "torch_columns of 16-bit rows: halves of a load first"},
    {OrderKind::torch_runs, "torch_runs", "lanes", true, "torch's batch_norm of 16 bits: whole loads of each run, then the rest"},
    {OrderKind::torch_runs_loads, "torch_runs_loads", "lanes", true, "torch_runs; only the whole loads contract"},
    {OrderKind::torch_reduce, "torch_reduce", "lanes", true, "torch's vec::reduce_all: lanes over whole loads, by halves"},
    {OrderKind::torch_reduce_rest, "torch_reduce_rest", "lanes", true, "torch_reduce; only what is left after loads contracts"},
    {OrderKind::torch_images, "torch_images", "lanes", true, "each run by torch_reduce_rest in fp32, then the runs in order"},
    {OrderKind::torch_cpu_runs, "torch_cpu_runs", "lanes", true, "each run by torch_cpu, then the runs in order"},
    {OrderKind::torch_norm_fours, "torch_norm_fours", "lanes", true, "torch_norm; whole fours of the rest do not contract"},
    {OrderKind::torch_vectors, "torch_vectors", "lanes", true, "each vector by halves, then the vectors in order"},
    {OrderKind::torch_outer, "torch_outer", "columns", false, "torch's sum over the rows of a matrix of so many columns"},
    {OrderKind::through_fp32, "through_fp32", "", false, "one accumulator; every sum rounded to fp32 first"},
    {OrderKind::ort_rows, "ort_rows", "lanes", true, "ONNX Runtime's rows on a CPU: vectors into lanes, by halves, then the rest"},
    {OrderKind::welford, "welford", "", false, "moments: sequential, true division"},
    {OrderKind::welford_mul, "welford_mul", "", false, "moments: sequential, times the rounded 1/count"},
    {OrderKind::welford_warp, "welford_warp", "threads", true, "moments: per thread, Chan merges in a tree"},
    {OrderKind::torch_moments, "torch_moments", "lanes", true, "moments: torch's RowwiseMoments on a CPU"},
    {OrderKind::torch_moments_fp16, "torch_moments_fp16", "lanes", true, "as torch_moments; the tail contracts too"},
    {OrderKind::torch_moments_2_6, "torch_moments_2_6", "lanes", true, "torch_moments as torch up to 2.6 merges"},
    {OrderKind::torch_moments_2_6_fp16, "torch_moments_2_6_fp16", "lanes", true,
     "torch_moments_fp16 as torch up to 2.6 merges"},
    {OrderKind::torch_cuda_moments, "torch_cuda_moments", "threads", true, "moments: torch's layer_norm on CUDA"},
    {OrderKind::apex_moments, "apex_moments", "threads", true, "moments: apex, neighbouring lanes first"},
    {OrderKind::ort_moments, "ort_moments", "threads", true, "moments: ONNX Runtime on CUDA, lanes by halves"},
    {OrderKind::welford_block, "welford_block", "threads", true, "moments: torch's WelfordOps over a CUDA block"},
};

bool is_source(const Node& n) { return n.kind == NodeKind::input || n.kind == NodeKind::attribute; }

}  // namespace

std::span<const OpRow> all_ops() { return kOps; }
const OpRow& row_of(Op op) { return kOps[static_cast<std::size_t>(op)]; }
std::optional<Op> find_op(std::string_view name) {
  for (const OpRow& row : kOps)
    if (row.name == name) return row.op;
  return std::nullopt;
}

std::span<const OrderRow> all_orders() { return kOrders; }

std::string_view name_of(ViewKind kind) {
  constexpr std::string_view kNames[] = {"rows", "groups", "channels", "batch", "columns", "tokens", "blocks"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::string_view name_of(Pairing pairing) {
  constexpr std::string_view kNames[] = {"none", "interleaved", "half"};
  return kNames[static_cast<std::size_t>(pairing)];
}

std::string text_of(const Order& order) {
  const OrderRow& row = kOrders[static_cast<std::size_t>(order.kind)];
  std::string text(row.name);
  if (row.count.empty()) return text;
  text += "(" + std::to_string(order.count);
  if (row.vec && order.vec != 0) text += ",vec=" + std::to_string(order.vec);
  return text + ")";
}

Order parse_order(std::string_view text) {
  const auto open = text.find('(');
  const std::string_view name = text.substr(0, open);
  const auto* row = std::find_if(std::begin(kOrders), std::end(kOrders),
                                 [&](const OrderRow& r) { return r.name == name; });
  const auto refuse = [&](const std::string& why) -> ProgramError {
    return ProgramError("order '" + std::string(text) + "': " + why);
  };
  if (row == std::end(kOrders)) {
    std::string known;
    for (const OrderRow& r : kOrders) known += (known.empty() ? "" : " ") + std::string(r.name);
    throw refuse("unknown; known: " + known);
  }
  const bool whole = row->kind == OrderKind::blocked;  // its first block is as long as the others, if nothing is said
  Order order{.kind = row->kind, .count = 0, .vec = row->vec && !whole ? 1 : 0};
  if (row->count.empty()) {
    if (open != std::string_view::npos) throw refuse(std::string(name) + " takes no parameter");
    return order;
  }
  const std::string shape = std::string(name) + "(" + std::string(row->count) + (row->vec ? ",vec=N)" : ")");
  if (open == std::string_view::npos || text.back() != ')') throw refuse("write " + shape);
  std::string_view inside = text.substr(open + 1, text.size() - open - 2);
  std::string_view rest;
  if (const auto comma = inside.find(','); comma != std::string_view::npos) {
    rest = inside.substr(comma + 1);
    inside = inside.substr(0, comma);
    if (!row->vec || !rest.starts_with("vec=")) throw refuse("write " + shape);
    rest.remove_prefix(4);
  }
  const auto number = [&](std::string_view word) {
    int value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size() || value < 1 || value > 1 << 20)
      throw refuse("'" + std::string(word) + "' is not a whole number from 1 to 1048576");
    return value;
  };
  order.count = number(inside);
  if (!rest.empty()) order.vec = number(rest);
  const bool tree = order.kind == OrderKind::torch_reduce || order.kind == OrderKind::torch_reduce_rest ||
                    order.kind == OrderKind::torch_images || order.kind == OrderKind::torch_vectors ||
                    order.kind == OrderKind::lanes_tree || order.kind == OrderKind::ort_rows || order.kind == OrderKind::warp ||
                    order.kind == OrderKind::block || order.kind == OrderKind::welford_warp;
  if (tree && (order.count & (order.count - 1)) != 0)
    throw refuse("a tree needs a power of two, got " + std::to_string(order.count));
  return order;
}

const ProgramOutput* Program::find_output(std::string_view name) const {
  for (const ProgramOutput& o : outputs)
    if (o.name == name) return &o;
  return nullptr;
}

std::optional<Operand> Program::find_value(std::string_view name) const {
  for (std::size_t i = 0; i < nodes.size(); ++i)
    for (std::size_t port = 0; port < nodes[i].names.size(); ++port)
      if (nodes[i].names[port] == name) return Operand{static_cast<int>(i), static_cast<int>(port)};
  return std::nullopt;
}

std::vector<const Program*> stages_of(const Program& program) {
  std::vector<const Program*> stages;
  for (const Program& stage : program.stages) stages.push_back(&stage);
  stages.push_back(&program);
  return stages;
}

const Program* stage_of(const Program& program, std::string_view output) {
  for (const Program* stage : stages_of(program)) {
    const ProgramOutput* found = stage->find_output(output);
    if (found != nullptr && !found->passed) return stage;
  }
  return nullptr;
}

std::optional<std::size_t> source_of(const Program& program, std::size_t reader, std::string_view input) {
  for (std::size_t i = std::min(reader, program.stages.size()); i-- > 0;)
    if (program.stages[i].find_output(input) != nullptr) return i;
  return std::nullopt;
}

Program erase_roundings(const Program& program) {
  Program erased = program;
  for (Program& stage : erased.stages) stage = erase_roundings(stage);
  for (Node& node : erased.nodes) {
    if (node.kind == NodeKind::input) continue;  // an input's format says what it holds, not a step
    node.rounding = {};
    node.reduction.order = Order{.kind = OrderKind::exact};
    node.reduction.contract = false;
    node.reduction.term_format.reset();
  }
  return erased;
}

bool rounds(const Program& program, int index) {
  const Node& node = program.nodes[static_cast<std::size_t>(index)];
  if (!node.rounding.format) return false;
  if (node.kind == NodeKind::reduce)
    return !is_maximum(node.reduction.kind);
  if (node.kind != NodeKind::map) return false;
  const auto holds_operands = [&] {
    return std::all_of(node.operands.begin(), node.operands.end(), [&](const Operand& o) {
      const auto& format = program.nodes[static_cast<std::size_t>(o.node)].rounding.format;
      return format && contains(node.rounding.format->id, format->id);
    });
  };
  switch (node.op) {
    case Op::cast:
    case Op::neg:
    case Op::abs:
    case Op::max:
    case Op::min:
    case Op::fmax:
    case Op::fmin:
    case Op::rotate:
    case Op::join:
    case Op::e8m0_up:
    case Op::nearest_e4m3:
    case Op::unless_zero: return !holds_operands();
    case Op::add:
    case Op::sub:
    case Op::mul:
    case Op::div:
    case Op::square:
    case Op::sqrt:
    case Op::rsqrt:
    case Op::reciprocal:
    case Op::fma:
    case Op::exp:
    case Op::tanh:
    case Op::erf:
    case Op::sin:
    case Op::cos:
    case Op::pow: return true;
  }
  return true;
}

void put_in_order(Program& program) {
  std::vector<int> order(program.nodes.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  const auto rank = [&](int i) {
    const Node& n = program.nodes[static_cast<std::size_t>(i)];
    return is_source(n) ? 0 : n.kind == NodeKind::count ? 1 : 2;
  };
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return rank(a) < rank(b); });
  std::vector<int> place(order.size());
  std::vector<Node> nodes;
  nodes.reserve(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    place[static_cast<std::size_t>(order[i])] = static_cast<int>(i);
    nodes.push_back(std::move(program.nodes[static_cast<std::size_t>(order[i])]));
  }
  const auto move_operand = [&](Operand& o) { o.node = place[static_cast<std::size_t>(o.node)]; };
  for (Node& n : nodes) std::for_each(n.operands.begin(), n.operands.end(), move_operand);
  for (ProgramOutput& o : program.outputs) move_operand(o.value);
  program.nodes = std::move(nodes);
  std::stable_sort(program.outputs.begin(), program.outputs.end(),
                   [](const ProgramOutput& a, const ProgramOutput& b) {
                     const auto key = [](const ProgramOutput& o) { return o.name == "y" ? -1 : o.value.node; };
                     return key(a) < key(b);
                   });
}

}  // namespace norma

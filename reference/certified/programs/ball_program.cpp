// Programs in balls: layout, passes, evaluation.
#include "reference/certified/programs/ball_program.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "reference/formats/convert.hpp"

namespace norma {

namespace {

/// A step that reads columns that its own piece need not hold: what it reads is made in an earlier pass.
bool rotates(const Node& node) { return node.kind == NodeKind::map && node.op == Op::rotate; }

/// e^c >= 2^865 for c >= 600: a quotient by k + e^c is within |a| 2^-865 of 0, also where e^c itself is beyond what a ball
/// holds. a: 1 of a reciprocal.
constexpr double kLargeExponent = 600;
Ball by_large_power(const Ball& quotient, const Ball& a, const Ball& c) {
  if (quotient.r < ball::kInfinity || !(a.r < ball::kInfinity) || !ball::is_finite(a.h) || !ball::is_finite(c.h)) return quotient;
  if (!(c.h * (1 - 0x1p-50) - c.r >= kLargeExponent)) return quotient;
  return {0, 0, ball::padded((std::fabs(a.h) * (1 + 0x1p-50) + a.r) * 0x1p-865)};
}

}  // namespace

BallProgram::BallProgram(PlacedProgram placed, const Attributes& attributes, const std::vector<Operand>& wanted,
                         PassedBalls passed)
    : program_(std::move(placed.program)),
      tensors_(std::move(placed.tensors)),
      passed_(std::move(passed)),
      strides_(std::move(placed.strides)),
      scalars_(program_.nodes.size()),
      layout_(placed.layout),
      cols_(static_cast<std::size_t>(placed.layout.cols)),
      zeros_(cols_ + kPiece) {
  tensors_.resize(program_.nodes.size());  // steps may have been appended
  passed_.resize(program_.nodes.size());
  strides_.resize(program_.nodes.size());
  for (std::size_t i = 0; i < program_.nodes.size(); ++i) {
    const Node& node = program_.nodes[i];
    switch (node.kind) {
      case NodeKind::attribute: scalars_[i] = attributes.find(node.names.front())->second; break;
      case NodeKind::constant: scalars_[i] = node.constant; break;
      case NodeKind::count: scalars_[i] = static_cast<double>(cols_); break;
      case NodeKind::input:
      case NodeKind::map:
      case NodeKind::reduce: break;
    }
  }
  lay_out(wanted);
  passes_ = schedule(false);
  fixed_.resize(slots_.size());
  Workspace work = workspace();
  run_passes(schedule(true), work, 0);
  for (std::size_t i = 0; i < slots_.size(); ++i)
    if (slots_[i].fixed) fixed_[i] = std::move(work.values[i]);
}

Operand BallProgram::source(Operand o) const {
  const Node& node = program_.nodes[static_cast<std::size_t>(o.node)];
  return node.kind == NodeKind::map && node.op == Op::cast ? source(node.operands.front()) : o;
}

std::optional<Operand> BallProgram::exponent_under(const Node& node) const {
  const auto node_of = [&](Operand o) -> const Node& { return program_.nodes[static_cast<std::size_t>(source(o).node)]; };
  if (node.kind != NodeKind::map || (node.op != Op::div && node.op != Op::reciprocal)) return std::nullopt;
  const Node& divisor = node_of(node.operands.back());
  if (divisor.kind != NodeKind::map || divisor.op != Op::add) return std::nullopt;
  for (const std::size_t k : {0U, 1U}) {
    const Node &power = node_of(divisor.operands[k]), &rest = node_of(divisor.operands[1 - k]);
    if (power.kind == NodeKind::map && power.op == Op::exp && rest.kind == NodeKind::constant && rest.constant >= 0)
      return power.operands.front();
  }
  return std::nullopt;
}

std::size_t BallProgram::slot_of(Operand o) const {
  const Operand s = source(o);
  return first_slot_[static_cast<std::size_t>(s.node)] + static_cast<std::size_t>(s.port);
}

void BallProgram::lay_out(const std::vector<Operand>& wanted) {
  const std::vector<Node>& nodes = program_.nodes;
  needed_.assign(nodes.size(), 0);
  for (const Operand& o : wanted) needed_[static_cast<std::size_t>(source(o).node)] = 1;
  for (std::size_t i = nodes.size(); i-- > 0;) {
    if (needed_[i] == 0) continue;
    for (const Operand& o : nodes[i].operands) needed_[static_cast<std::size_t>(source(o).node)] = 1;
  }
  // Which pass a value is made in: a step waits for the reductions that it depends on.
  std::vector<int> made(nodes.size(), 0), ready(nodes.size(), 0);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const Node& node = nodes[i];
    first_slot_.push_back(slots_.size());
    const bool fixed = !node.axes.has(Axis::rows);
    const bool given = node.kind == NodeKind::input && passed_[i] == nullptr;
    const bool plain = given && contains(FormatId::fp32, tensors_[i]->format);
    for (std::size_t port = 0; port < node.names.size(); ++port)
      slots_.push_back({.fixed = fixed, .per_column = node.axes.has(Axis::cols), .whole = fixed, .plain = plain});
    for (const Operand& o : node.operands) {
      const int before = ready[static_cast<std::size_t>(source(o).node)];
      made[i] = std::max(made[i], rotates(node) ? before + 1 : before);
    }
    ready[i] = made[i] + (node.kind == NodeKind::reduce ? 1 : 0);
  }
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const Node& node = nodes[i];
    if (needed_[i] == 0) continue;
    std::vector<Operand> read = node.operands;
    if (const auto exponent = exponent_under(node)) read.push_back(*exponent);
    for (const Operand& o : read) {
      Slot& used = slots_[slot_of(o)];
      const bool twice = node.kind == NodeKind::reduce && node.reduction.kind == ReduceKind::moments;
      used.whole = used.whole || twice || made[static_cast<std::size_t>(source(o).node)] != made[i];
      used.repeated = used.repeated || node.axes.has(Axis::cols) || node.kind == NodeKind::reduce;
    }
  }
  for (const Operand& o : wanted) slots_[slot_of(o)].whole = true;
}

std::vector<BallProgram::Pass> BallProgram::schedule(bool fixed) const {
  const std::vector<Node>& nodes = program_.nodes;
  std::vector<std::size_t> ready(nodes.size(), 0);
  std::vector<Pass> passes(1);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const Node& node = nodes[i];
    const bool cast = node.kind == NodeKind::map && node.op == Op::cast;
    if (needed_[i] == 0 || cast || fixed == node.axes.has(Axis::rows)) continue;
    std::size_t pass = 0;
    for (const Operand& o : node.operands) {
      const std::size_t before = ready[static_cast<std::size_t>(source(o).node)];
      pass = std::max(pass, rotates(node) ? before + 1 : before);
    }
    ready[i] = pass + (node.kind == NodeKind::reduce ? 1 : 0);
    passes.resize(std::max(passes.size(), pass + 1));
    Pass& p = passes[pass];
    (node.kind == NodeKind::reduce ? p.reductions : node.axes.has(Axis::cols) ? p.columns : p.scalars).push_back(i);
  }
  return passes;
}

BallProgram::Workspace BallProgram::workspace() const {
  Workspace work;
  work.values.resize(slots_.size());
  work.narrow.resize(kPiece);
  work.decoded.resize(kPiece);
  for (std::vector<double>& v : work.scratch) v.resize(kPiece);
  for (std::size_t i = 0; i < program_.nodes.size(); ++i) {
    const Node& node = program_.nodes[i];
    if (needed_[i] == 0 || (node.kind == NodeKind::map && node.op == Op::cast)) continue;
    for (std::size_t port = 0; port < node.names.size(); ++port) {
      const Slot& slot = slots_[first_slot_[i] + port];
      Value& value = work.values[first_slot_[i] + port];
      if (!fixed_[first_slot_[i] + port].h.empty()) continue;
      const std::size_t size = slot.per_column ? (slot.whole ? cols_ : std::min(cols_, kPiece))
                               : slot.repeated ? kPiece
                                               : 1;
      value.h.resize(size);
      if (!slot.plain) value.l.resize(size), value.r.resize(size);
    }
  }
  return work;
}

const BallProgram::Value& BallProgram::value(const Workspace& work, Operand o) const {
  const std::size_t i = slot_of(o);
  // Empty while the fixed values themselves are made.
  return slots_[i].fixed && !fixed_[i].h.empty() ? fixed_[i] : work.values[i];
}

BallRow BallProgram::piece(const Workspace& work, Operand o, std::size_t from) const {
  const Slot& slot = slots_[slot_of(o)];
  const Value& v = value(work, o);
  const std::size_t start = slot.per_column && slot.whole ? from : 0;
  if (slot.plain) return {v.h.data() + start, zeros_.data(), zeros_.data()};
  return {v.h.data() + start, v.l.data() + start, v.r.data() + start};
}

BallRow BallProgram::row_of(const Workspace& work, Operand wanted) const { return piece(work, wanted, 0); }

void BallProgram::set_scalar(Value& value, const Slot& slot, const Ball& ball) const {
  value.one = ball;
  std::fill(value.h.begin(), value.h.end(), ball.h);
  if (slot.plain) return;
  std::fill(value.l.begin(), value.l.end(), ball.l);
  std::fill(value.r.begin(), value.r.end(), ball.r);
}

void BallProgram::run(Workspace& work, std::int64_t row, Effort effort) const {
  work.effort = effort;
  run_passes(passes_, work, row);
}

void BallProgram::run_passes(const std::vector<Pass>& passes, Workspace& work, std::int64_t row) const {
  for (const Pass& pass : passes) {
    for (const std::size_t i : pass.scalars) run_scalar(i, work, row);
    std::vector<BallSum> sums(pass.reductions.size());
    std::vector<BallMax> largest;
    for (const std::size_t i : pass.reductions)
      largest.emplace_back(program_.nodes[i].reduction.kind == ReduceKind::largest);
    for (std::size_t from = 0; from < cols_ && !(pass.columns.empty() && pass.reductions.empty()); from += kPiece) {
      const std::size_t count = std::min(kPiece, cols_ - from);
      for (const std::size_t i : pass.columns) run_piece(i, work, row, from, count);
      for (std::size_t k = 0; k < pass.reductions.size(); ++k) {
        const Node& node = program_.nodes[pass.reductions[k]];
        const BallRow terms = terms_of(node.reduction, piece(work, node.operands.front(), from), work, count);
        if (is_maximum(node.reduction.kind))
          largest[k].add(terms, count);
        else
          sums[k].add(terms, count);
      }
    }
    for (std::size_t k = 0; k < pass.reductions.size(); ++k) finish(pass.reductions[k], sums[k], largest[k], work);
  }
}

void BallProgram::run_scalar(std::size_t i, Workspace& work, std::int64_t row) const {
  const Node& node = program_.nodes[i];
  const auto operand = [&](std::size_t k) {
    return k < node.operands.size() ? value(work, node.operands[k]).one : Ball{};
  };
  Ball ball;
  switch (node.kind) {
    case NodeKind::input: {
      const std::int64_t element = strides_[i].at(row, 0);
      const auto at = static_cast<std::size_t>(element);
      ball = passed_[i] == nullptr ? ball::exactly(tensors_[i]->value(element))
                                   : Ball{passed_[i]->h[at], passed_[i]->l[at], passed_[i]->r[at]};
      break;
    }
    case NodeKind::map:
      ball = apply(node.op, operand(0), operand(1), operand(2));
      if (const auto exponent = exponent_under(node))
        ball = by_large_power(ball, node.op == Op::div ? operand(0) : Ball{1, 0, 0}, value(work, *exponent).one);
      break;
    case NodeKind::attribute:
    case NodeKind::constant:
    case NodeKind::count:
    case NodeKind::reduce: ball = ball::exactly(scalars_[i]); break;
  }
  set_scalar(work.values[first_slot_[i]], slots_[first_slot_[i]], ball);
}

void BallProgram::load(std::size_t i, Workspace& work, std::int64_t row, std::size_t from, std::size_t count) const {
  const Tensor& tensor = *tensors_[i];
  const Slot& slot = slots_[first_slot_[i]];
  Value& out = work.values[first_slot_[i]];
  const Stride& stride = strides_[i];
  const std::size_t start = slot.whole ? from : 0;
  const auto width = static_cast<std::size_t>(format_of(tensor.format).storage_bytes());
  for (std::size_t done = 0; done < count;) {
    const auto col = static_cast<std::int64_t>(from + done);
    // What is neither side by side nor one value is read one at a time.
    const std::int64_t run = stride.step <= 1 ? stride.run - col % stride.run : 1;
    const std::size_t n = std::min(count - done, static_cast<std::size_t>(run));
    const std::size_t read = stride.step == 0 ? 1 : n;
    const std::byte* stored = tensor.bytes.data() + static_cast<std::size_t>(stride.at(row, col)) * width;
    if (slot.plain) {
      decode_row(tensor.format, stored, work.narrow.data() + done, read);
      std::fill(work.narrow.data() + done + read, work.narrow.data() + done + n, work.narrow[done]);
    } else {
      decode_row(tensor.format, stored, work.decoded.data() + done, read);
      std::fill(work.decoded.data() + done + read, work.decoded.data() + done + n, work.decoded[done]);
    }
    done += n;
  }
  if (slot.plain) {
    widen_row(work.narrow.data(), out.h.data() + start, count);
    return;
  }
  exact_row(work.decoded.data(), {out.h.data() + start, out.l.data() + start, out.r.data() + start}, count);
}

void BallProgram::load_passed(std::size_t i, Workspace& work, std::int64_t row, std::size_t from,
                              std::size_t count) const {
  const BallTensor& tensor = *passed_[i];
  Value& out = work.values[first_slot_[i]];
  const std::size_t start = slots_[first_slot_[i]].whole ? from : 0;
  const Stride& stride = strides_[i];
  const auto last = static_cast<std::int64_t>(from + count);
  if (stride.step == 1 && stride.run >= last && stride.columns >= last) {  // side by side
    const std::int64_t at = stride.at(row, static_cast<std::int64_t>(from));
    std::copy_n(tensor.h.begin() + at, count, out.h.data() + start);
    std::copy_n(tensor.l.begin() + at, count, out.l.data() + start);
    std::copy_n(tensor.r.begin() + at, count, out.r.data() + start);
    return;
  }
  for (std::size_t j = 0; j < count; ++j) {
    const auto at = static_cast<std::size_t>(strides_[i].at(row, static_cast<std::int64_t>(from + j)));
    out.h[start + j] = tensor.h[at], out.l[start + j] = tensor.l[at], out.r[start + j] = tensor.r[at];
  }
}

void BallProgram::run_piece(std::size_t i, Workspace& work, std::int64_t row, std::size_t from,
                            std::size_t count) const {
  const Node& node = program_.nodes[i];
  if (node.kind == NodeKind::input) {
    passed_[i] == nullptr ? load(i, work, row, from, count) : load_passed(i, work, row, from, count);
    return;
  }
  std::array<BallRow, 3> operands;
  for (std::size_t k = 0; k < node.operands.size(); ++k) operands[k] = piece(work, node.operands[k], from);
  Value& out = work.values[first_slot_[i]];
  const std::size_t start = slots_[first_slot_[i]].whole ? from : 0;
  const BallRowOut to{out.h.data() + start, out.l.data() + start, out.r.data() + start};
  if (node.op == Op::rotate || node.op == Op::join) {
    move_columns(node, work, to, from, count);
    return;
  }
  if (node.op == Op::exp || node.op == Op::tanh || node.op == Op::erf) {
    work.effort == Effort::quick ? apply_quick(node.op, operands[0], to, count)
                                 : apply_function(node.op, operands[0], to, count);
    return;
  }
  if (node.op != Op::fma) {
    apply(node.op, operands[0], operands[1], operands[2], to, count);
    if (const auto exponent = exponent_under(node)) {
      const BallRow c = piece(work, *exponent, from);
      for (std::size_t j = 0; j < count; ++j)
        if (!(to.r[j] < ball::kInfinity))
          to.set(j, by_large_power({to.h[j], to.l[j], to.r[j]}, node.op == Op::div ? operands[0].at(j) : Ball{1, 0, 0}, c.at(j)));
    }
    return;
  }
  const BallRowOut product{work.scratch[0].data(), work.scratch[1].data(), work.scratch[2].data()};
  apply(Op::mul, operands[0], operands[1], {}, product, count);
  apply(Op::add, {product.h, product.l, product.r}, operands[2], {}, to, count);
}

void BallProgram::move_columns(const Node& node, const Workspace& work, const BallRowOut& to, std::size_t from,
                               std::size_t count) const {
  for (std::size_t j = 0; j < count; ++j) {
    const auto col = static_cast<std::int64_t>(from + j);
    const bool rotary = col < layout_.rotary();
    if (node.op == Op::join) {
      to.set(j, piece(work, node.operands[rotary ? 0 : 1], from).at(j));
    } else if (rotary) {
      const Layout::Partner partner = layout_.partner_of(col);
      const Ball other = piece(work, node.operands[0], 0).at(static_cast<std::size_t>(partner.col));
      to.set(j, partner.first ? ball::neg(other) : other);
    } else {
      to.set(j, Ball{});
    }
  }
}

BallRow BallProgram::terms_of(const Reduction& reduction, const BallRow& values, Workspace& work,
                              std::size_t count) const {
  if (reduction.term == Term::value) return values;
  const BallRowOut squares{work.scratch[0].data(), work.scratch[1].data(), work.scratch[2].data()};
  apply(Op::square, values, {}, {}, squares, count);
  return {squares.h, squares.l, squares.r};
}

void BallProgram::finish(std::size_t i, const BallSum& sum, const BallMax& largest, Workspace& work) const {
  const Node& node = program_.nodes[i];
  const Ball count{static_cast<double>(cols_), 0, 0};
  const std::size_t first = first_slot_[i];
  const auto set = [&](std::size_t port, const Ball& ball) {
    set_scalar(work.values[first + port], slots_[first + port], ball);
  };
  switch (node.reduction.kind) {
    case ReduceKind::sum: set(0, sum.total()); return;
    case ReduceKind::mean: set(0, ball::div(sum.total(), count)); return;
    case ReduceKind::amax:
    case ReduceKind::largest: set(0, largest.total()); return;
    case ReduceKind::moments: break;
  }
  const Ball mean = ball::div(sum.total(), count);
  std::vector<double> mean_h(kPiece, mean.h), mean_l(kPiece, mean.l), mean_r(kPiece, mean.r);
  const BallRowOut deviation{work.scratch[3].data(), work.scratch[4].data(), work.scratch[5].data()};
  const BallRowOut squares{work.scratch[0].data(), work.scratch[1].data(), work.scratch[2].data()};
  BallSum total;
  for (std::size_t from = 0; from < cols_; from += kPiece) {
    const std::size_t n = std::min(kPiece, cols_ - from);
    const BallRow terms = terms_of(node.reduction, piece(work, node.operands.front(), from), work, n);
    apply(Op::sub, terms, {mean_h.data(), mean_l.data(), mean_r.data()}, {}, deviation, n);
    apply(Op::square, {deviation.h, deviation.l, deviation.r}, {}, {}, squares, n);
    total.add({squares.h, squares.l, squares.r}, n);
  }
  set(0, mean);
  set(1, ball::div(total.total(), count));
}

}  // namespace norma

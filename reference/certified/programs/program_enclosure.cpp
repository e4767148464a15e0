// The fast truth of a program: balls where they are tight, program_truth elsewhere.
#include "reference/certified/programs/program_enclosure.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "reference/certified/programs/ball_program.hpp"
#include "reference/exact/program_truth.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// ---- the program of the magnitude ----

/// Appends steps that compute what RowEvaluator calls the magnitude of `target`: |terms| of the sum that it is, through
/// casts. Empty if it is no sum: then its own size.
class Magnitude {
 public:
  explicit Magnitude(Program& program) : program_(program) {}

  std::optional<Operand> of(Operand target) {
    const Node& node = program_.nodes[static_cast<std::size_t>(target.node)];
    if (node.kind != NodeKind::map) return std::nullopt;
    if (node.op == Op::cast) return of(node.operands.front());
    if (node.op == Op::add || node.op == Op::sub || node.op == Op::fma || node.op == Op::join) return size(target);
    return std::nullopt;
  }

 private:
  Operand size(Operand o) {
    const auto known = made_.find({o.node, o.port});
    if (known != made_.end()) return known->second;
    const Node node = program_.nodes[static_cast<std::size_t>(o.node)];
    const bool map = node.kind == NodeKind::map;
    Operand result;
    if (map && node.op == Op::cast)
      result = size(node.operands[0]);
    else if (map && (node.op == Op::add || node.op == Op::sub))
      result = step(Op::add, {size(node.operands[0]), size(node.operands[1])});
    else if (map && node.op == Op::join)
      result = step(Op::join, {size(node.operands[0]), size(node.operands[1])});
    else if (map && node.op == Op::fma)
      result =
          step(Op::add, {step(Op::abs, {step(Op::mul, {node.operands[0], node.operands[1]})}), size(node.operands[2])});
    else
      result = step(Op::abs, {o});
    made_[{o.node, o.port}] = result;
    return result;
  }

  Operand step(Op op, std::vector<Operand> operands) {
    Node node;
    node.kind = NodeKind::map;
    node.names = {""};
    node.op = op;
    for (const Operand& o : operands) node.axes = node.axes | program_.nodes[static_cast<std::size_t>(o.node)].axes;
    node.operands = std::move(operands);
    program_.nodes.push_back(std::move(node));
    return {static_cast<int>(program_.nodes.size()) - 1, 0};
  }

  Program& program_;
  std::map<std::pair<int, int>, Operand> made_;
};

/// True if the value is made from an exp, tanh, erf, sin or cos, in its own stage or before: then program_truth never
/// finds it equal to a number that the balls do not find it equal to, except 0.
bool is_transcendental(const Program& whole, std::size_t stage, Operand value) {
  const Program& program = *stages_of(whole)[stage];
  std::vector<char> needed(program.nodes.size(), 0);
  needed[static_cast<std::size_t>(value.node)] = 1;
  for (std::size_t i = program.nodes.size(); i-- > 0;) {
    if (needed[i] == 0) continue;
    const Node& node = program.nodes[i];
    if (node.kind == NodeKind::map && is_transcendental(node.op)) return true;
    if (node.kind == NodeKind::input)
      if (const auto from = source_of(whole, stage, node.names.front()))
        if (is_transcendental(whole, *from, whole.stages[*from].find_output(node.names.front())->value)) return true;
    for (const Operand& o : node.operands) needed[static_cast<std::size_t>(o.node)] = 1;
  }
  return false;
}

struct Plan {
  Operand y;
  std::optional<Operand> magnitude;
  bool transcendental = false;
  bool elements = false;  ///< y is like x
  Layout layout;
  BallProgram balls;
};

/// What earlier stages give, as balls and as shapes.
struct Passed {
  std::map<std::string, std::shared_ptr<const BallTensor>, std::less<>> balls;
  std::map<std::string, Tensor, std::less<>> shapes;

  TensorRefs refs() const { return refs_to(shapes); }
  /// By node.
  PassedBalls of(const Program& program) const {
    PassedBalls passed(program.nodes.size());
    for (std::size_t i = 0; i < program.nodes.size(); ++i) {
      const auto found = balls.find(program.nodes[i].names.front());
      if (program.nodes[i].kind == NodeKind::input && found != balls.end()) passed[i] = found->second;
    }
    return passed;
  }
};

/// All elements of some values of one stage, in memory order.
std::vector<BallTensor> tensors_of(const BallProgram& balls, const Layout& layout, const std::vector<Operand>& values,
                                   const std::vector<Axes>& axes) {
  std::vector<BallTensor> tensors(values.size());
  for (std::size_t k = 0; k < values.size(); ++k) {
    const auto size = static_cast<std::size_t>((axes[k].has(Axis::rows) ? layout.rows : 1) *
                                               (axes[k].has(Axis::cols) ? layout.cols : 1));
    tensors[k].h.resize(size), tensors[k].l.resize(size), tensors[k].r.resize(size);
  }
  BallProgram::Workspace work = balls.workspace();
  for (std::int64_t row = 0; row < layout.rows; ++row) {
    balls.run(work, row);
    for (std::size_t k = 0; k < values.size(); ++k) {
      const BallRow from = balls.row_of(work, values[k]);
      const bool elements = axes[k] == kRowsCols;
      const std::int64_t first = axes[k] == kRows ? row : 0, count = axes[k].has(Axis::cols) ? layout.cols : 1;
      for (std::int64_t col = 0; col < count; ++col) {
        const auto at = static_cast<std::size_t>(elements ? layout.elements.at(row, col) : first + col);
        const auto c = static_cast<std::size_t>(col);
        tensors[k].h[at] = from.h[c], tensors[k].l[at] = from.l[c], tensors[k].r[at] = from.r[c];
      }
    }
  }
  return tensors;
}

/// True if a stage up to `last` reads this output of stage `from`.
bool is_read(const Program& whole, std::size_t from, std::size_t last, std::string_view output) {
  const std::vector<const Program*> stages = stages_of(whole);
  for (std::size_t i = from + 1; i <= last; ++i)
    if (source_of(whole, i, output) == from)
      for (const Node& node : stages[i]->nodes)
        if (node.kind == NodeKind::input && node.names.front() == output) return true;
  return false;
}

/// What the stages before `stage` give it.
Passed passed_before(const Program& whole, std::size_t stage, const Tensors& inputs, const Attributes& attributes) {
  Passed passed;
  for (std::size_t i = 0; i < stage; ++i) {
    PlacedProgram placed = place(whole.stages[i], inputs_of_stage(whole, i, inputs, passed.refs()), attributes);
    PassedBalls own = passed.of(placed.program);
    const Layout layout = placed.layout;
    std::vector<std::string> names;
    std::vector<Operand> values;
    std::vector<Axes> axes;
    std::vector<Shape> shapes;
    for (const ProgramOutput& output : whole.stages[i].outputs) {
      if (!is_read(whole, i, stage, output.name)) continue;
      names.push_back(output.name);
      values.push_back(output.value);
      axes.push_back(placed.program.nodes[static_cast<std::size_t>(output.value.node)].axes);
      shapes.push_back(output_shape(placed, axes.back(), placed.x));
    }
    const BallProgram balls(std::move(placed), attributes, values, std::move(own));
    std::vector<BallTensor> tensors = tensors_of(balls, layout, values, axes);
    for (std::size_t k = 0; k < values.size(); ++k) {
      const std::string& name = names[k];
      passed.balls[name] = std::make_shared<const BallTensor>(std::move(tensors[k]));
      passed.shapes[name] = {.format = FormatId::fp32, .shape = shapes[k], .bytes = {}};
    }
  }
  return passed;
}

Plan plan_of(const Program& whole, const Tensors& inputs, const Attributes& attributes, std::string_view output) {
  const std::vector<const Program*> stages = stages_of(whole);
  const Program* program = stage_of(whole, output);
  const auto stage = static_cast<std::size_t>(std::ranges::find(stages, program) - stages.begin());
  const Operand y = program->find_output(output)->value;
  const Passed passed = passed_before(whole, stage, inputs, attributes);
  PlacedProgram placed =
      place(erase_roundings(*program), inputs_of_stage(whole, stage, inputs, passed.refs()), attributes);
  PassedBalls own = passed.of(placed.program);
  const std::optional<Operand> magnitude = Magnitude(placed.program).of(y);
  std::vector<Operand> wanted{y};
  if (magnitude) wanted.push_back(*magnitude);
  const bool elements = placed.program.nodes[static_cast<std::size_t>(y.node)].axes == kRowsCols;
  const Layout layout = placed.layout;
  return {y,        magnitude, is_transcendental(whole, stage, y),
          elements, layout,    BallProgram(std::move(placed), attributes, wanted, std::move(own))};
}

// ---- from balls to enclosures ----

bool is_special(const Ball& b) { return !ball::is_finite(b.h); }

Enclosure enclosure_of(const Ball& y, const Ball& size) {
  return {.hi = y.h, .lo = y.l + 0.0, .radius = y.r, .magnitude = std::fabs(size.h), .tier = Tier::double_double};
}

class CertifiedProgramTruth final : public TruthSource {
 public:
  CertifiedProgramTruth(Plan plan, std::unique_ptr<TruthSource> exact)
      : plan_(std::move(plan)), exact_(std::move(exact)), kept_(kept(plan_)) {}

  std::int64_t rows() const override { return exact_->rows(); }
  std::int64_t cols() const override { return exact_->cols(); }

  Tier enclose_quick(std::int64_t row, const QuickRow& out) const override {
    const Effort effort = plan_.transcendental ? Effort::quick : Effort::close;
    const Lease work(*this, row, effort);
    const auto [y, size] = work.values();
    quick_row(y, size, out.mid.data(), out.radius.data(), out.magnitude.data(), out.mid.size());
    return effort == Effort::quick ? Tier::binary64 : Tier::double_double;
  }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    std::vector<std::size_t> open;
    {
      const Lease work(*this, row, Effort::close);
      const auto [y, size] = work.values();
      std::vector<std::int64_t> settled(out.size());
      settled_row(y, size, settled.data(), out.size());
      for (std::size_t j = 0; j < out.size(); ++j) {
        out[j] = enclosure_of(y.at(j), size.at(j));
        if (settled[j] != 0 || settle(y.at(j), size.at(j), row, static_cast<std::int64_t>(j), out[j])) continue;
        open.push_back(j);
      }
    }
    if (open.empty()) return;
    if (4 * open.size() < out.size()) {
      for (const std::size_t j : open) out[j] = exact_->enclose(row, static_cast<std::int64_t>(j));
      return;
    }
    std::vector<Enclosure> all(out.size());
    exact_->enclose_row(row, all);
    for (const std::size_t j : open) out[j] = all[j];
  }

  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    {
      const Lease work(*this, row, Effort::close);
      const auto [values, sizes] = work.values();
      const auto j = static_cast<std::size_t>(col);
      const Ball y = values.at(j), size = sizes.at(j);
      Enclosure e = enclosure_of(y, size);
      if (settle(y, size, row, col, e)) return e;
    }
    return exact_->enclose(row, col);
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    return exact_->compare(row, col, m_hi, m_lo);
  }

 private:
  /// What settled_row leaves: special values, and a y that may be a binary64 number. False if the balls do not do.
  bool settle(const Ball& y, const Ball& size, std::int64_t row, std::int64_t col, Enclosure& e) const {
    if (!(y.r < kInfinity) || !(size.r < kInfinity)) return false;
    if (is_special(y) || is_special(size)) {
      e.magnitude = size.h != size.h ? kNaN : std::fabs(size.h);
      return y.r == 0;
    }
    if (!(y.r <= 0x1p-81 * e.magnitude) || !is_nearest(size)) return false;
    if (y.r == 0) return true;
    // As program_truth does: a y that is a binary64 number is handed out exactly.
    for (const double candidate : {y.h, 0.0}) {
      if (std::fabs((y.h - candidate) + y.l) > y.r || (candidate != 0 && plan_.transcendental)) continue;
      if (exact_->compare(row, col, candidate, 0) != Comparison::equal) continue;
      e = {.hi = candidate, .lo = 0, .radius = 0, .magnitude = e.magnitude, .tier = Tier::exact};
      break;
    }
    return true;
  }

  /// Balls in the output's order.
  struct Sorted {
    std::vector<double> h, l, r;
  };
  struct Work {
    BallProgram::Workspace values;
    std::int64_t row = -1;  ///< whose values it holds: a row of the program
    std::array<Sorted, 2> sorted{};
  };

  /// A workspace taken out of the store, with the values in it that one row of the output needs; those it had, if they
  /// are the ones.
  class Lease {
   public:
    Lease(const CertifiedProgramTruth& truth, std::int64_t row, Effort effort) : truth_(truth), row_(row) {
      const std::int64_t in_program = truth.first_of(row).row;
      {
        const std::lock_guard lock(truth.mutex_);
        auto& idle = truth.idle_;
        const auto same = std::ranges::find_if(idle, [&](const auto& work) { return holds(*work, in_program, effort); });
        const auto chosen = same != idle.end() || idle.size() < truth.kept_ ? same : idle.begin();
        if (chosen != idle.end()) {
          work_ = std::move(*chosen);
          idle.erase(chosen);
        }
      }
      if (!work_) work_ = std::make_unique<Work>(Work{truth.plan_.balls.workspace()});
      if (holds(*work_, in_program, effort)) return;
      truth.plan_.balls.run(work_->values, in_program, effort);
      work_->row = in_program;
    }
    ~Lease() {
      const std::lock_guard lock(truth_.mutex_);
      truth_.idle_.push_back(std::move(work_));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    struct Values {
      BallRow y, size;
    };
    /// In the output's order. They live as long as the lease.
    Values values() const {
      const BallRow y = in_order(truth_.plan_.y, 0);
      return {y, truth_.plan_.magnitude ? in_order(*truth_.plan_.magnitude, 1) : y};
    }

   private:
    static bool holds(const Work& work, std::int64_t row, Effort effort) {
      return work.row == row && (work.values.effort == effort || work.values.effort == Effort::close);
    }

    BallRow in_order(Operand value, std::size_t which) const {
      const BallRow row = truth_.plan_.balls.row_of(work_->values, value);
      if (!truth_.plan_.elements) return row;
      if (!truth_.plan_.layout.view.channels_last) {
        const auto first = static_cast<std::size_t>(truth_.first_of(row_).col);
        return {row.h + first, row.l + first, row.r + first};
      }
      Sorted& sorted = work_->sorted[which];
      const auto cols = static_cast<std::size_t>(truth_.cols());
      sorted.h.resize(cols), sorted.l.resize(cols), sorted.r.resize(cols);
      for (std::size_t j = 0; j < cols; ++j) {
        const auto at = static_cast<std::int64_t>(j) + row_ * truth_.cols();
        const auto col = static_cast<std::size_t>(truth_.plan_.layout.place_of(at).col);
        sorted.h[j] = row.h[col], sorted.l[j] = row.l[col], sorted.r[j] = row.r[col];
      }
      return {sorted.h.data(), sorted.l.data(), sorted.r.data()};
    }

    const CertifiedProgramTruth& truth_;
    std::int64_t row_;
    std::unique_ptr<Work> work_;
  };

  /// Where the first element of a row of the output stands in the program.
  Layout::Place first_of(std::int64_t row) const {
    return plan_.elements ? plan_.layout.place_of(row * cols()) : Layout::Place{.row = row, .col = 0};
  }

  /// Workspaces to keep. The rows of one batch channel come far apart: each keeps its values, if memory allows.
  static std::size_t kept(const Plan& plan) {
    constexpr std::int64_t kKeptValues = std::int64_t{1} << 22;
    const Layout& l = plan.layout;
    return l.view.kind == ViewKind::batch && l.rows * l.cols <= kKeptValues ? static_cast<std::size_t>(l.rows) : 0;
  }

  Plan plan_;
  std::unique_ptr<TruthSource> exact_;
  std::size_t kept_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Work>> idle_;
};

}  // namespace

std::unique_ptr<TruthSource> certified_program_truth(const Program& program, const Tensors& inputs,
                                                     const Attributes& attributes, std::string_view output) {
  std::unique_ptr<TruthSource> exact = program_truth(program, inputs, attributes, output);  // which refuses bad input
  if (stage_of(program, output)->view.kind == ViewKind::blocks) return exact;  // scales are steps: no balls
  Plan plan = plan_of(program, inputs, attributes, output);
  if (plan.elements && plan.layout.columns_are_rows()) return exact;  // each element of a row in a row of its own
  return std::make_unique<CertifiedProgramTruth>(std::move(plan), std::move(exact));
}

}  // namespace norma

// The fast truth of a program: balls where they are tight, program_truth elsewhere.
#include "reference/certified/program_enclosure.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "reference/certified/ball_program.hpp"
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
    if (node.op == Op::add || node.op == Op::sub || node.op == Op::fma) return size(target);
    return std::nullopt;
  }

 private:
  Operand size(Operand o) {
    const auto known = made_.find({o.node, o.port});
    if (known != made_.end()) return known->second;
    const Node node = program_.nodes[static_cast<std::size_t>(o.node)];
    const bool map = node.kind == NodeKind::map;
    Operand result;
    if (map && node.op == Op::cast) result = size(node.operands[0]);
    else if (map && (node.op == Op::add || node.op == Op::sub))
      result = step(Op::add, {size(node.operands[0]), size(node.operands[1])});
    else if (map && node.op == Op::fma)
      result = step(Op::add, {step(Op::abs, {step(Op::mul, {node.operands[0], node.operands[1]})}), size(node.operands[2])});
    else result = step(Op::abs, {o});
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

/// True if the value is made from an exp, tanh or erf: then program_truth never finds it equal to a number that the
/// balls do not find it equal to, except 0.
bool is_transcendental(const Program& program, Operand value) {
  std::vector<char> needed(program.nodes.size(), 0);
  needed[static_cast<std::size_t>(value.node)] = 1;
  for (std::size_t i = program.nodes.size(); i-- > 0;) {
    if (needed[i] == 0) continue;
    const Node& node = program.nodes[i];
    if (node.kind == NodeKind::map && (node.op == Op::exp || node.op == Op::tanh || node.op == Op::erf)) return true;
    for (const Operand& o : node.operands) needed[static_cast<std::size_t>(o.node)] = 1;
  }
  return false;
}

struct Plan {
  Operand y;
  std::optional<Operand> magnitude;
  bool transcendental = false;
  BallProgram balls;
};

Plan plan_of(const Program& program, const Tensors& inputs, const Attributes& attributes, Operand y) {
  Program extended = erase_roundings(program);
  const std::optional<Operand> magnitude = Magnitude(extended).of(y);
  std::vector<Operand> wanted{y};
  if (magnitude) wanted.push_back(*magnitude);
  const std::int64_t cols = RowEvaluator(program, inputs, attributes).cols();
  return {y, magnitude, is_transcendental(program, y),
          BallProgram(std::move(extended), inputs, attributes, cols, wanted)};
}

// ---- from balls to enclosures ----

/// h is the binary64 number nearest to all that the ball holds.
bool is_nearest(const Ball& b) {
  if (b.r == 0) return true;
  const double size = std::fabs(b.h);
  const double low = std::copysign(1.0, b.h) * b.l;
  const auto bits = std::bit_cast<std::uint64_t>(size);
  if (bits == 0) return false;
  const double above = std::bit_cast<double>(bits + 1) - size, below = size - std::bit_cast<double>(bits - 1);
  return (low + b.r) * (1 + 0x1p-50) < 0.5 * above && (b.r - low) * (1 + 0x1p-50) < 0.5 * below;
}

bool is_special(const Ball& b) { return !ball::is_finite(b.h); }

/// What the exact truth says of an infinite or undefined value, and of its magnitude.
double finite_or_special(const Ball& b) { return is_special(b) ? (b.h != b.h ? kNaN : kInfinity) : std::fabs(b.h); }

class CertifiedProgramTruth final : public TruthSource {
 public:
  CertifiedProgramTruth(Plan plan, std::unique_ptr<TruthSource> exact)
      : plan_(std::move(plan)), exact_(std::move(exact)) {}

  std::int64_t rows() const override { return exact_->rows(); }
  std::int64_t cols() const override { return exact_->cols(); }

  Tier enclose_quick(std::int64_t row, const QuickRow& out) const override {
    const Lease work(*this, row);
    const BallRow y = work.row(plan_.y);
    const BallRow size = plan_.magnitude ? work.row(*plan_.magnitude) : y;
    for (std::size_t j = 0; j < out.mid.size(); ++j) {
      const Ball b = y.at(j), m = size.at(j);
      const bool known = b.r < kInfinity;
      out.mid[j] = known ? b.h : 0;
      out.radius[j] = !known ? kInfinity : is_special(b) ? 0 : (b.r + std::fabs(b.l)) * (1 + 0x1p-52);
      out.magnitude[j] = m.r < kInfinity ? finite_or_special(m) : kInfinity;
    }
    return Tier::double_double;
  }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    bool open = false;
    {
      const Lease work(*this, row);
      const BallRow y = work.row(plan_.y);
      const BallRow size = plan_.magnitude ? work.row(*plan_.magnitude) : y;
      for (std::size_t j = 0; j < out.size(); ++j) {
        const std::optional<Enclosure> e = settle(y.at(j), size.at(j), row, static_cast<std::int64_t>(j));
        out[j] = e ? *e : Enclosure{.hi = 0, .lo = 0, .radius = kInfinity, .magnitude = -1};
        open = open || !e;
      }
    }
    if (!open) return;
    std::vector<Enclosure> all(out.size());
    exact_->enclose_row(row, all);
    for (std::size_t j = 0; j < out.size(); ++j)
      if (out[j].magnitude == -1) out[j] = all[j];
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    return exact_->compare(row, col, m_hi, m_lo);
  }

 private:
  /// The enclosure that the balls give, if it is what TruthSource promises.
  std::optional<Enclosure> settle(const Ball& y, const Ball& size, std::int64_t row, std::int64_t col) const {
    if (!(y.r < kInfinity) || !(size.r < kInfinity) || !is_nearest(size)) return std::nullopt;
    Enclosure e{.hi = y.h, .lo = y.l + 0.0, .radius = y.r, .magnitude = finite_or_special(size), .tier = Tier::double_double};
    if (is_special(y)) return e;
    if (y.r == 0) return e;
    if (!(y.r <= 0x1p-81 * e.magnitude)) return std::nullopt;
    // As program_truth does: a y that is a binary64 number is handed out exactly.
    for (const double candidate : {y.h, 0.0}) {
      if (std::fabs((y.h - candidate) + y.l) > y.r || (candidate != 0 && plan_.transcendental)) continue;
      if (exact_->compare(row, col, candidate, 0) == Comparison::equal)
        return Enclosure{.hi = candidate, .lo = 0, .radius = 0, .magnitude = e.magnitude, .tier = Tier::exact};
    }
    return e;
  }

  /// A workspace taken out of the store, with one row's values in it.
  class Lease {
   public:
    Lease(const CertifiedProgramTruth& truth, std::int64_t row) : truth_(truth) {
      {
        const std::lock_guard lock(truth.mutex_);
        if (!truth.idle_.empty()) {
          work_ = std::move(truth.idle_.back());
          truth.idle_.pop_back();
        }
      }
      if (!work_) work_ = std::make_unique<BallProgram::Workspace>(truth.plan_.balls.workspace());
      truth.plan_.balls.run(*work_, row);
    }
    ~Lease() {
      const std::lock_guard lock(truth_.mutex_);
      truth_.idle_.push_back(std::move(work_));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    BallRow row(Operand value) const { return truth_.plan_.balls.row_of(*work_, value); }

   private:
    const CertifiedProgramTruth& truth_;
    std::unique_ptr<BallProgram::Workspace> work_;
  };

  Plan plan_;
  std::unique_ptr<TruthSource> exact_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<BallProgram::Workspace>> idle_;
};

}  // namespace

std::unique_ptr<TruthSource> certified_program_truth(const Program& program, const Tensors& inputs,
                                                     const Attributes& attributes, std::string_view output) {
  std::unique_ptr<TruthSource> exact = program_truth(program, inputs, attributes, output);  // which refuses bad input
  return std::make_unique<CertifiedProgramTruth>(
      plan_of(program, inputs, attributes, program.find_output(output)->value), std::move(exact));
}

}  // namespace norma

// Interval evaluation of programs, one row at a time.
#include "reference/exact/program_truth.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include "reference/exact/elementary.hpp"
#include "reference/exact/passed_value.hpp"

namespace norma {

namespace {

using Values = std::vector<Interval>;

// A node that varies along the columns has one interval for each, others one for all.
const Interval& at(const Values& values, std::size_t j) { return values.size() == 1 ? values[0] : values[j]; }

// e^x, tanh and erf increase, so each end goes to its own. A positive result beyond MPFR's range (x above some 2^61)
// has no finite upper end.
Interval increasing(int (*f)(mpfr_ptr, mpfr_srcptr, mpfr_rnd_t), const Interval& a) {
  if (a.is_nan() || a.is_unknown()) return a;
  Interval result(a.bits());
  if (f(result.lo.get(), a.lo.get(), MPFR_RNDD) == 0 && a.is_point())
    mpfr_set(result.hi.get(), result.lo.get(), MPFR_RNDN);
  else
    f(result.hi.get(), a.hi.get(), MPFR_RNDU);
  const bool overflow = !a.is_infinite() && mpfr_inf_p(result.hi.get()) != 0;
  return overflow ? Interval::unknown(a.bits()) : result;
}

// ---- scales of blocks: steps, decided where both ends of the interval fall on one of them ----

Interval between(double lo, double hi, mpfr_prec_t bits) {
  Interval result(lo, bits);
  mpfr_set_d(result.hi.get(), hi, MPFR_RNDN);
  return result;
}

// |v| = m 2^e, 1/2 <= m < 1: 2^e, or v itself where m = 1/2.
double power_above(mpfr_srcptr v) {
  constexpr int kLeast = -127, kMost = 127;
  if (mpfr_inf_p(v) != 0) return std::ldexp(1.0, kMost);
  if (mpfr_zero_p(v) != 0) return std::ldexp(1.0, kLeast);
  const mpfr_exp_t e = mpfr_get_exp(v);
  const bool is_power = mpfr_min_prec(v) == 1;
  return std::ldexp(1.0, static_cast<int>(std::clamp<mpfr_exp_t>(is_power ? e - 1 : e, kLeast, kMost)));
}

Interval e8m0_up(const Interval& a) {
  const Interval size = abs(a);
  if (size.is_nan()) return size;
  if (size.is_unknown()) return between(power_above(Real(0.0, 64).get()), std::ldexp(1.0, 127), a.bits());
  return between(power_above(size.lo.get()), power_above(size.hi.get()), a.bits());
}

// The last code whose midpoint with the one before lies below |v|, or on it where the code is even.
double e4m3_near(mpfr_srcptr v) {
  const auto value = [](std::uint64_t k) { return decode(FormatId::e4m3fn, k); };
  std::uint64_t low = 0, high = format_of(FormatId::e4m3fn).max_finite_code();
  while (low < high) {
    const std::uint64_t k = (low + high + 1) / 2;
    const Real midpoint((value(k - 1) + value(k)) / 2, 64);
    const int sign = mpfr_cmpabs(v, midpoint.get());
    if (sign > 0 || (sign == 0 && k % 2 == 0))
      low = k;
    else
      high = k - 1;
  }
  return mpfr_signbit(v) != 0 ? -value(low) : value(low);
}

Interval nearest_e4m3(const Interval& a) {
  if (a.is_nan()) return a;
  return between(e4m3_near(a.lo.get()), e4m3_near(a.hi.get()), a.bits());
}

Interval unless_zero(const Interval& a, const Interval& b) {
  const mpfr_prec_t bits = std::max(a.bits(), b.bits());
  if (a.is_nan()) return b;
  if (a.is_unknown()) return Interval::unknown(bits);
  if (mpfr_sgn(a.lo.get()) > 0 || mpfr_sgn(a.hi.get()) < 0) return b;
  return a.is_point() ? Interval(0.0, bits) : Interval::unknown(bits);
}

Interval value_of(Op op, const std::array<const Interval*, 3>& x) {
  switch (op) {
    case Op::cast: return *x[0];
    case Op::add: return add(*x[0], *x[1]);
    case Op::sub: return sub(*x[0], *x[1]);
    case Op::mul: return mul(*x[0], *x[1]);
    case Op::div: return div(*x[0], *x[1]);
    case Op::neg: return neg(*x[0]);
    case Op::abs: return abs(*x[0]);
    case Op::square: return square(*x[0]);
    case Op::sqrt: return sqrt(*x[0]);
    case Op::rsqrt: return rsqrt(*x[0]);
    case Op::reciprocal: return div(Interval(1.0, x[0]->bits()), *x[0]);
    case Op::max: return max(*x[0], *x[1]);
    case Op::min: return min(*x[0], *x[1]);
    case Op::fmax: return fmax(*x[0], *x[1]);
    case Op::fmin: return fmin(*x[0], *x[1]);
    case Op::fma: return add(mul(*x[0], *x[1]), *x[2]);
    case Op::exp: return increasing(mpfr_exp, *x[0]);
    case Op::tanh: return increasing(mpfr_tanh, *x[0]);
    case Op::erf: return increasing(mpfr_erf, *x[0]);
    case Op::sin: return sin(*x[0]);
    case Op::cos: return cos(*x[0]);
    case Op::pow: return pow(*x[0], *x[1]);
    case Op::rotate:
    case Op::join: return *x[0];  // moved_value
    case Op::e8m0_up: return e8m0_up(*x[0]);
    case Op::nearest_e4m3: return nearest_e4m3(*x[0]);
    case Op::unless_zero: return unless_zero(*x[0], *x[1]);
  }
  std::abort();
}

// A value that does not vary along the columns is a term as often as there are columns.
Values terms_of(const Values& operand, Term term, std::size_t cols) {
  Values terms;
  terms.reserve(cols);
  for (std::size_t j = 0; j < cols; ++j)
    terms.push_back(term == Term::square ? square(at(operand, j)) : at(operand, j));
  return terms;
}

// One value for each port; of a mean also the sum.
Values reduce(const Reduction& reduction, const Values& operand, std::size_t cols, mpfr_prec_t bits) {
  const Interval count(static_cast<double>(cols), bits);
  const Values terms = terms_of(operand, reduction.term, cols);
  switch (reduction.kind) {
    case ReduceKind::sum: return {sum(terms, bits)};
    case ReduceKind::mean: {
      const Interval total = sum(terms, bits);
      return {div(total, count), total};
    }
    case ReduceKind::amax: {
      Interval largest(0.0, bits);
      for (const Interval& t : terms) largest = max(largest, abs(t));
      return {largest};
    }
    case ReduceKind::largest: {
      Interval largest(-std::numeric_limits<double>::infinity(), bits);
      for (const Interval& t : terms) largest = max(largest, t);
      return {largest};
    }
    case ReduceKind::moments: {
      const Interval mean = div(sum(terms, bits), count);
      Values squares;
      squares.reserve(cols);
      for (const Interval& t : terms) squares.push_back(square(sub(t, mean)));
      return {mean, div(sum(squares, bits), count)};
    }
  }
  std::abort();
}

bool moves_columns(const Node& node) {
  return node.kind == NodeKind::map && (node.op == Op::rotate || node.op == Op::join);
}

// Where a value of rotate or join comes from; no operand: it is 0.
struct Source {
  std::optional<Operand> operand;
  std::int64_t col = 0;
  bool negated = false;
};
Source source_of_column(const Node& node, const Layout& layout, std::int64_t col) {
  const bool rotary = col < layout.rotary();
  if (node.op == Op::join) return {.operand = node.operands[rotary ? 0 : 1], .col = col};
  if (!rotary) return {};
  const Layout::Partner partner = layout.partner_of(col);
  return {.operand = node.operands[0], .col = partner.col, .negated = partner.first};
}

std::size_t ports_of(const Node& node) {
  return node.kind == NodeKind::reduce && node.reduction.kind == ReduceKind::moments ? 2 : 1;
}

[[noreturn]] void fail(const std::string& message) { throw ProgramError(message); }

}  // namespace

// ---- what stages pass ----

namespace {

TensorRefs shapes_of(const auto& passed) {
  TensorRefs refs;
  for (const auto& [name, value] : passed) refs[name] = &value->tensor();
  return refs;
}

}  // namespace

RowEvaluator::PassedValues RowEvaluator::passed_before(const Program& program, std::size_t stage, const Tensors& inputs,
                                                       const Attributes& attributes) {
  const std::vector<const Program*> stages = stages_of(program);
  PassedValues passed;
  for (std::size_t i = 0; i < stage; ++i) {
    // One evaluator a stage: the roots of two of its outputs keep their names.
    const std::shared_ptr<const RowEvaluator> from(new RowEvaluator(program, i, inputs, attributes, passed));
    for (const ProgramOutput& output : stages[i]->outputs)
      passed[output.name] = std::make_shared<PassedValue>(from, output.value);
  }
  return passed;
}

// ---- a stage's rows ----

RowEvaluator::RowEvaluator(const Program& program, const Tensors& inputs, const Attributes& attributes,
                           std::optional<std::size_t> stage)
    : RowEvaluator(program, stage.value_or(program.stages.size()), inputs, attributes,
                   passed_before(program, stage.value_or(program.stages.size()), inputs, attributes)) {}

RowEvaluator::RowEvaluator(const Program& program, std::size_t stage, const Tensors& inputs,
                           const Attributes& attributes, const PassedValues& passed)
    : placed_(place(*stages_of(program)[stage], inputs_of_stage(program, stage, inputs, shapes_of(passed)), attributes)),
      scalars_(placed_.program.nodes.size()),
      passed_(placed_.program.nodes.size()) {
  for (std::size_t i = 0; i < scalars_.size(); ++i) {
    const Node& node = placed_.program.nodes[i];
    switch (node.kind) {
      case NodeKind::attribute: {
        const auto found = attributes.find(node.names.front());
        if (found == attributes.end()) fail("the program needs the attribute " + node.names.front() + ".");
        scalars_[i] = found->second;
        break;
      }
      case NodeKind::constant: scalars_[i] = node.constant; break;
      case NodeKind::count: scalars_[i] = static_cast<double>(cols()); break;
      case NodeKind::input:
        if (const auto found = passed.find(node.names.front()); found != passed.end()) passed_[i] = found->second;
        break;
      case NodeKind::map:
      case NodeKind::reduce: break;
    }
  }
}

Layout::Place RowEvaluator::place_of(Operand value, std::int64_t element) const {
  const Axes has = axes(value);
  if (has == kRowsCols) return placed_.layout.place_of(element);
  return has == kRows ? Layout::Place{.row = element, .col = 0} : Layout::Place{.row = 0, .col = element};
}

std::int64_t RowEvaluator::width(Operand value) const {
  return placed_.program.nodes[static_cast<std::size_t>(value.node)].axes.has(Axis::cols) ? cols() : 1;
}

RowValues RowEvaluator::evaluate(Operand target, std::int64_t row, mpfr_prec_t bits, const Overrides& overrides) const {
  return evaluate(target, row, bits, Scope{.overrides = &overrides, .col = {}, .shared = nullptr});
}

RowValues RowEvaluator::evaluate_column(Operand target, std::int64_t row, std::int64_t col, mpfr_prec_t bits,
                                        const RowValues* shared) const {
  const Overrides none;
  return evaluate(target, row, bits, Scope{.overrides = &none, .col = col, .shared = shared});
}

RowValues RowEvaluator::shared_part(RowValues values) const {
  for (std::size_t i = 0; i < values.nodes.size(); ++i)
    if (placed_.program.nodes[i].axes.has(Axis::cols)) values.nodes[i].clear();
  return values;
}

RowValues RowEvaluator::evaluate(Operand target, std::int64_t row, mpfr_prec_t bits, const Scope& scope) const {
  const std::vector<Node>& nodes = placed_.program.nodes;
  const Overrides& overrides = *scope.overrides;
  const auto is_known = [&](std::size_t i) { return scope.shared != nullptr && !scope.shared->nodes[i].empty(); };
  // What the target depends on, not looking behind what is given; and of that, what a reduction needs whole.
  std::vector<char> needed(nodes.size(), 0), whole(nodes.size(), scope.col ? 0 : 1);
  needed[static_cast<std::size_t>(target.node)] = 1;
  for (std::size_t i = nodes.size(); i-- > 0;) {
    if (needed[i] == 0 || overrides.contains(static_cast<int>(i)) || is_known(i)) continue;
    for (const Operand& operand : nodes[i].operands) {
      const auto k = static_cast<std::size_t>(operand.node);
      needed[k] = 1;
      const bool elsewhere = nodes[i].kind == NodeKind::map && nodes[i].op == Op::rotate;
      if (whole[i] != 0 || elsewhere || nodes[i].kind == NodeKind::reduce) whole[k] = 1;
    }
  }

  const auto width_of_row = static_cast<std::size_t>(cols());
  RowValues values;
  values.row = row;
  values.nodes.resize(nodes.size());
  values.totals.resize(nodes.size());
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (is_known(i)) {  // needed or not: algebraic_of looks behind them
      values.nodes[i] = scope.shared->nodes[i];
      values.totals[i] = scope.shared->totals[i];
      continue;
    }
    if (needed[i] == 0) continue;
    const Node& node = nodes[i];
    const bool one_column = node.axes.has(Axis::cols) && whole[i] == 0;
    const std::size_t width = node.axes.has(Axis::cols) && !one_column ? width_of_row : 1;
    const std::int64_t from = one_column ? *scope.col : 0;
    std::vector<Values>& result = values.nodes[i];
    result.resize(ports_of(node));
    for (Values& v : result) v.reserve(width);
    if (const auto given = overrides.find(static_cast<int>(i)); given != overrides.end()) {
      if (given->second.size() != width * result.size())
        fail("an override of " + node.names.front() + " has the wrong size.");
      for (std::size_t k = 0; k < given->second.size(); ++k) result[k / width].emplace_back(given->second[k], bits);
      continue;
    }
    switch (node.kind) {
      case NodeKind::input: {
        const Stride& stride = placed_.strides[i];
        if (const PassedValue* passed = passed_[i].get()) {
          const auto& level = passed->level(bits);
          for (std::size_t j = 0; j < width; ++j)
            result[0].push_back(passed->at(level, stride.at(row, from + static_cast<std::int64_t>(j))));
          break;
        }
        for (std::size_t j = 0; j < width; ++j)
          result[0].emplace_back(placed_.tensors[i]->value(stride.at(row, from + static_cast<std::int64_t>(j))), bits);
        break;
      }
      case NodeKind::attribute:
      case NodeKind::constant:
      case NodeKind::count: result[0].emplace_back(scalars_[i], bits); break;
      case NodeKind::map: {
        if (moves_columns(node)) {
          for (std::size_t j = 0; j < width; ++j) {
            const Source s = source_of_column(node, placed_.layout, from + static_cast<std::int64_t>(j));
            if (!s.operand) result[0].emplace_back(0.0, bits);
            else result[0].push_back(s.negated ? neg(values.at(*s.operand, s.col)) : values.at(*s.operand, s.col));
          }
          break;
        }
        std::array<const Interval*, 3> x{};
        for (std::size_t j = 0; j < width; ++j) {
          for (std::size_t k = 0; k < node.operands.size(); ++k)
            x[k] = &values.at(node.operands[k], from + static_cast<std::int64_t>(j));
          result[0].push_back(value_of(node.op, x));
        }
        break;
      }
      case NodeKind::reduce: {
        Values ports = reduce(node.reduction, values.of(node.operands.front()), width_of_row, bits);
        if (node.reduction.kind == ReduceKind::mean) {
          values.totals[i] = std::move(ports.back());
          ports.pop_back();
        }
        for (std::size_t p = 0; p < ports.size(); ++p) result[p].push_back(std::move(ports[p]));
        break;
      }
    }
  }
  return values;
}

// |terms| of the sum that the target is, seen through casts; |target| where it is no sum.
Interval RowEvaluator::magnitude(const RowValues& values, Operand target, std::int64_t col,
                                 const Overrides& overrides) const {
  const auto of = [&](const auto& self, Operand o, std::int64_t j) -> Interval {
    const Node& node = placed_.program.nodes[static_cast<std::size_t>(o.node)];
    if (node.kind == NodeKind::map && !overrides.contains(o.node)) {
      const auto& x = node.operands;
      if (node.op == Op::cast) return self(self, x[0], j);
      if (node.op == Op::join) return self(self, *source_of_column(node, placed_.layout, j).operand, j);
      if (node.op == Op::add || node.op == Op::sub) return add(self(self, x[0], j), self(self, x[1], j));
      if (node.op == Op::fma) return add(abs(mul(values.at(x[0], j), values.at(x[1], j))), self(self, x[2], j));
    }
    return abs(values.at(o, j));
  };
  return of(of, target, col);
}

std::optional<Algebraic> RowEvaluator::algebraic_of(const RowValues& values, Operand value, std::int64_t col,
                                                    RootNames& names) const {
  const Interval& interval = values.at(value, col);
  if (interval.is_point()) return algebraic(interval.lo.get());
  const auto index = static_cast<std::size_t>(value.node);
  const Node& node = placed_.program.nodes[index];
  if (node.kind == NodeKind::input && passed_[index] != nullptr)
    return passed_[index]->algebraic(placed_.strides[index].at(values.row, col), interval.bits(), names);
  if (node.kind == NodeKind::reduce) {
    // A mean of dyadic terms whose sum is exact at this precision: the only rounded step is the division.
    const std::optional<Interval>& total = values.totals[static_cast<std::size_t>(value.node)];
    if (!total || !total->is_point()) return std::nullopt;
    return quotient(algebraic(total->lo.get()), algebraic(Interval(static_cast<double>(cols()), 64).lo.get()));
  }
  if (node.kind != NodeKind::map) return std::nullopt;
  if (moves_columns(node)) {  // a rotated 0 is a point
    const Source s = source_of_column(node, placed_.layout, col);
    return algebraic_of(values, *s.operand, s.col, names);
  }
  if (node.op == Op::unless_zero) {
    const Interval& condition = values.at(node.operands[0], col);
    const bool is_not_zero = mpfr_sgn(condition.lo.get()) > 0 || mpfr_sgn(condition.hi.get()) < 0;
    return is_not_zero ? algebraic_of(values, node.operands[1], col, names) : std::nullopt;
  }
  std::vector<Algebraic> x;
  for (const Operand& operand : node.operands) {
    std::optional<Algebraic> a = algebraic_of(values, operand, col, names);
    if (!a) return std::nullopt;
    x.push_back(std::move(*a));
  }
  const Algebraic one;
  const auto root_name = [&] { return names.of(this, values.row, node.axes.has(Axis::cols) ? col : 0, value.node); };
  switch (node.op) {
    case Op::cast:
    case Op::neg:
    case Op::abs: return x[0];
    case Op::add:
    case Op::sub: return sum_or_difference(x[0], x[1]);
    case Op::mul: return product(x[0], x[1]);
    case Op::div: return quotient(x[0], x[1]);
    case Op::square: return product(x[0], x[0]);
    case Op::sqrt: return root(x[0], root_name());
    case Op::rsqrt: return quotient(one, root(x[0], root_name()));
    case Op::reciprocal: return quotient(one, x[0]);
    case Op::max:
    case Op::min:
    case Op::fmax:
    case Op::fmin: return either(x[0], x[1]);
    case Op::fma: return sum_or_difference(product(x[0], x[1]), x[2]);
    case Op::rotate:
    case Op::join: break;
    case Op::exp:  // not algebraic, but where the argument is 0, and there the interval is a point
    case Op::tanh:
    case Op::erf:
    case Op::sin:
    case Op::cos:
    case Op::pow: return std::nullopt;  // an exact power is a point
    case Op::e8m0_up:  // points, but where they are not decided
    case Op::nearest_e4m3:
    case Op::unless_zero: return std::nullopt;
  }
  std::abort();
}

Comparison RowEvaluator::compare(const RowValues& values, Operand value, std::int64_t col, double m_hi,
                                 double m_lo) const {
  const Interval& interval = values.at(value, col);
  const Comparison c = norma::compare(interval, m_hi, m_lo);
  if (c != Comparison::undecided || !interval.is_real()) return c;
  RootNames names;
  const std::optional<Algebraic> y = algebraic_of(values, value, col, names);
  if (!y) return c;
  const Dyadic m = Dyadic(m_hi) + Dyadic(m_lo);
  const double separation = separation_bits(sum_or_difference(*y, algebraic(m.real().get())));
  // The interval holds m; so narrow, it holds nothing else that y can be.
  Real width(64);
  mpfr_sub(width.get(), interval.hi.get(), interval.lo.get(), MPFR_RNDU);
  return static_cast<double>(mpfr_get_exp(width.get())) < -separation ? Comparison::equal : c;
}

std::vector<Enclosure> RowEvaluator::enclose(Operand value, std::int64_t row, const Overrides& overrides) const {
  std::vector<Enclosure> result(static_cast<std::size_t>(width(value)));
  std::vector<std::size_t> open(result.size());
  std::iota(open.begin(), open.end(), std::size_t{0});
  for (mpfr_prec_t bits = kFirstBits;; bits = std::min(2 * bits, kLastBits)) {
    const RowValues values = evaluate(value, row, bits, overrides);
    std::erase_if(open, [&](std::size_t j) {
      const auto col = static_cast<std::int64_t>(j);
      const Interval& y = values.at(value, col);
      const Interval scale = magnitude(values, value, col, overrides);
      if (!is_tight(y, scale) && bits < kLastBits) return false;
      result[j] = enclosure_of(y);
      result[j].magnitude = magnitude_of(scale);
      return true;
    });
    if (open.empty()) return result;
  }
}

Enclosure RowEvaluator::enclose_column(
    Operand value, std::int64_t row, std::int64_t col,
    const std::function<std::shared_ptr<const RowValues>(mpfr_prec_t)>& shared_at) const {
  for (mpfr_prec_t bits = kFirstBits;; bits = std::min(2 * bits, kLastBits)) {
    const std::shared_ptr<const RowValues> shared = shared_at(bits);
    const RowValues values = evaluate_column(value, row, col, bits, shared.get());
    const Interval scale = magnitude(values, value, col, {});
    const Interval& y = values.at(value, col);
    if (!is_tight(y, scale) && bits < kLastBits) continue;
    Enclosure result = enclosure_of(y);
    result.magnitude = magnitude_of(scale);
    return result;
  }
}

namespace {

class ProgramTruth final : public TruthSource {
 public:
  ProgramTruth(RowEvaluator evaluator, Operand output, Axes axes)
      : evaluator_(std::move(evaluator)), output_(output), elements_(axes == kRowsCols) {
    const Layout& l = evaluator_.layout();
    rows_ = axes.has(Axis::rows) ? l.rows : 1;
    cols_ = evaluator_.width(output_);
    if (elements_) rows_ = l.rows * l.cols / l.block, cols_ = l.block;
    // Blocks are put together to x's rows again; where a block has one value, its columns are the blocks.
    if (axes.has(Axis::rows)) runs_ = l.runs;
    rows_ /= runs_, cols_ *= runs_;
  }

  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    const Layout& l = evaluator_.layout();
    // Part of the program's row, the rest of which is not asked for; or elements of several rows.
    if (elements_ && (l.view.kind == ViewKind::batch || l.columns_are_rows())) {
      for (std::int64_t j = 0; j < cols_; ++j) out[static_cast<std::size_t>(j)] = enclose(row, j);
      return;
    }
    const std::int64_t width = cols_ / runs_;
    for (std::int64_t run = 0; run < runs_; ++run) {
      const std::vector<Enclosure> enclosures = evaluator_.enclose(output_, row * runs_ + run);
      for (std::int64_t j = run * width; j < (run + 1) * width; ++j) {
        const Layout::Place at = place(row, j);
        out[static_cast<std::size_t>(j)] = settle(enclosures[static_cast<std::size_t>(at.col)], at);
      }
    }
  }

  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    const Layout::Place at = place(row, col);
    const auto shared_at = [&](mpfr_prec_t bits) { return row_at(at, bits); };
    return settle(evaluator_.enclose_column(output_, at.row, at.col, shared_at), at);
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    return compare(place(row, col), m_hi, m_lo);
  }

 private:
  /// Where an element of the output stands in the program.
  Layout::Place place(std::int64_t row, std::int64_t col) const {
    if (!elements_ && runs_ > 1) return {.row = row * runs_ + col, .col = 0};
    return elements_ ? evaluator_.layout().place_of(row * cols_ + col) : Layout::Place{.row = row, .col = col};
  }

  Comparison compare(const Layout::Place& at, double m_hi, double m_lo) const {
    for (mpfr_prec_t bits = kFirstBits;; bits = std::min(2 * bits, kLastBits)) {
      const std::shared_ptr<const RowValues> shared = row_at(at, bits);
      const RowValues values = evaluator_.evaluate_column(output_, at.row, at.col, bits, shared.get());
      const Comparison c = evaluator_.compare(values, output_, at.col, m_hi, m_lo);
      if (c != Comparison::undecided || bits == kLastBits) return c;
    }
  }

  // A y that is a binary64 number is handed out exactly, like a canonical norm's, so that their midpoints agree.
  // Zero is tried too: terms that cancel leave an interval about it.
  Enclosure settle(const Enclosure& e, const Layout::Place& at) const {
    if (!(e.radius > 0 && e.radius < std::numeric_limits<double>::infinity())) return e;
    for (const double candidate : {e.hi, 0.0}) {
      const bool inside = std::fabs((e.hi - candidate) + e.lo) <= e.radius;
      if (inside && compare(at, candidate, 0) == Comparison::equal)
        return {.hi = candidate, .lo = 0, .radius = 0, .magnitude = e.magnitude};
    }
    return e;
  }

  // Questions come in runs on one row, of a batch on a few: what a row's columns share is kept, a set a precision.
  std::shared_ptr<const RowValues> row_at(const Layout::Place& at, mpfr_prec_t bits) const {
    const std::pair key(at.row, bits);
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = cached_.find(key); found != cached_.end()) return found->second;
    }
    auto values = std::make_shared<const RowValues>(
        evaluator_.shared_part(evaluator_.evaluate_column(output_, at.row, at.col, bits)));
    const std::lock_guard lock(mutex_);
    if (cached_.size() >= kKeptRows) cached_.clear();
    return cached_[key] = std::move(values);
  }

  static constexpr std::size_t kKeptRows = 4096;  // a few intervals each

  RowEvaluator evaluator_;
  Operand output_;
  bool elements_;  ///< the output is like x
  std::int64_t rows_ = 0, cols_ = 0;
  std::int64_t runs_ = 1;  ///< rows of the program in one of the output
  mutable std::mutex mutex_;
  mutable std::map<std::pair<std::int64_t, mpfr_prec_t>, std::shared_ptr<const RowValues>> cached_;
};

}  // namespace

std::unique_ptr<TruthSource> program_truth(const Program& program, const Tensors& inputs, const Attributes& attributes,
                                           std::string_view output) {
  const Program* stage = stage_of(program, output);
  if (stage == nullptr) fail("the program has no output " + std::string(output) + ".");
  const std::vector<const Program*> stages = stages_of(program);
  const Operand value = stage->find_output(output)->value;
  RowEvaluator evaluator(program, inputs, attributes,
                         static_cast<std::size_t>(std::ranges::find(stages, stage) - stages.begin()));
  const Axes axes = evaluator.axes(value);
  return std::make_unique<ProgramTruth>(std::move(evaluator), value, axes);
}

}  // namespace norma

// Running error analysis of a declared program (Wilkinson 1963; Higham, Accuracy and Stability of Numerical Algorithms,
// 2nd ed., section 3.3): every value carries a bound on how far the kernel's may lie from the exact one, and every step
// passes it on and adds its own rounding.
//
// What the bounds rest on, for a rounding to format F of precision P: half an ulp is at most 2^-P of the rounded value,
// and never less than half the least subnormal is assumed. Additions in a given order: a term passes through at most h
// of them, so that the sum errs by gamma(h) = h u / (1 - h u) of the sum of magnitudes (Higham, section 3.1, 4.2).
// A square that is added by a fused multiply-add is not rounded by itself; its own fma is one more that it passes
// through. The analysis itself runs in binary64; a second radius bounds its own rounding by the same rules with u =
// 2^-53.
#include "impls/claim.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "impls/operands.hpp"

namespace norma {

namespace {

constexpr double kMostUlp = 0x1p24;
constexpr double kSlack = 1 + 0x1p-20;  // the roundings of a bound's own few operations

/// No bound: the row's result may be anything.
struct Unbounded {};

/// `v` lies within `own` of the exact value, the kernel's value within `error` of the exact one.
struct Ball {
  double v = 0, own = 0, error = 0;
  bool exact_zero() const { return v == 0 && own == 0 && error == 0; }
  double most() const { return std::fabs(v) + own; }  ///< of the exact value's magnitude
  double least() const { return std::max(std::fabs(v) - own, 0.0); }
};

/// Of one row: a value for each column, or one.
using Balls = std::vector<Ball>;

/// How a step rounds: u = 2^-P, and half the least subnormal.
struct Unit {
  double u, least, largest;
};
Unit unit_of(FormatId format) {
  const Format& f = format_of(format);
  return {.u = std::ldexp(1.0, -f.precision), .least = min_subnormal(format) / 2, .largest = max_finite(format)};
}
constexpr Unit kOwn{.u = 0x1p-53, .least = 0x1p-1074, .largest = 0};

/// What a value that is rounded to `unit` errs by in all, if it errs by `error` before.
double rounded_error(double magnitude, double error, const Unit& unit) {
  return error + (magnitude + error) * unit.u + unit.least;
}

Ball rounded(const Ball& b, const Unit& unit) {
  if (!std::isfinite(b.v) || b.exact_zero()) return b;
  if (!(b.most() + b.error <= unit.largest)) throw Unbounded{};
  return {.v = b.v, .own = b.own, .error = rounded_error(b.most(), b.error, unit)};
}

/// The same for v's own radius.
Ball computed(double v, double own, double error) {
  if (!std::isfinite(v)) return {.v = v, .own = 0, .error = 0};
  if (!(own >= 0) || !(error >= 0)) throw Unbounded{};
  if (v == 0 && own == 0) return {.v = v, .own = 0, .error = error};
  return {.v = v, .own = rounded_error(std::fabs(v), own, kOwn), .error = error};
}

Ball sum(const Ball& a, const Ball& b, double sign) {
  return computed(a.v + sign * b.v, a.own + b.own, a.error + b.error);
}

Ball product(const Ball& a, const Ball& b) {
  if ((a.exact_zero() && std::isfinite(b.v)) || (b.exact_zero() && std::isfinite(a.v))) return {.v = a.v * b.v};
  const double own = std::fabs(a.v) * b.own + std::fabs(b.v) * a.own + a.own * b.own;
  return computed(a.v * b.v, own, a.most() * b.error + b.most() * a.error + a.error * b.error);
}

/// |1/(x + d) - 1/x| = d / (x (x + d)).
Ball reciprocal(const Ball& a) {
  if (!std::isfinite(a.v) || (a.own == 0 && a.error == 0)) return computed(1 / a.v, 0, 0);
  const double low = a.least();
  if (!(a.own + a.error <= low / 2)) throw Unbounded{};
  return computed(1 / a.v, a.own / (low * std::fabs(a.v)) * kSlack, a.error / (low * (low - a.error)) * kSlack);
}

/// |sqrt(x + d) - sqrt(x)| = d / (sqrt(x + d) + sqrt(x)). A variance that is lost in its error has no root to speak of.
Ball root(const Ball& a) {
  if (!std::isfinite(a.v) || (a.own == 0 && a.error == 0)) return computed(std::sqrt(a.v), 0, 0);
  const double low = a.v - a.own;
  if (!(a.own + a.error <= low / 4)) throw Unbounded{};
  return computed(std::sqrt(a.v), a.own / (std::sqrt(low) + std::sqrt(a.v)) * kSlack,
                  a.error / (std::sqrt(low - a.error) + std::sqrt(low)) * kSlack);
}

/// max(x, 0) moves nothing further apart.
Ball largest(const Ball& a, const Ball& b) {
  return {.v = a.v < b.v ? b.v : a.v, .own = std::max(a.own, b.own), .error = std::max(a.error, b.error)};
}

/// The additions that a term passes through at most; the first one, to an empty accumulator, is exact.
double depth(const Order& order, double terms) {
  const double count = order.count, vec = order.vec;
  switch (order.kind) {
    case OrderKind::sequential: return terms - 1;
    case OrderKind::lanes: return std::ceil(terms / count) - 1 + std::min(terms, count) - 1;
    // A thread's own columns one after the other, then a tree over the threads (a power of two of them).
    case OrderKind::warp:
    case OrderKind::block: return std::ceil(terms / (count * vec)) * vec - 1 + std::log2(count);
    default: throw Unbounded{};
  }
}

double gamma(double roundings, double u) {
  if (!(roundings * u <= 0.25)) throw Unbounded{};
  return roundings * u / (1 - roundings * u);
}

/// `fused`: every term is a product that a fused multiply-add rounds together with the sum, in underflow too.
Ball ordered_sum(const Order& order, const Balls& terms, const Unit& unit, bool fused) {
  double v = 0, own = 0, error = 0, magnitude = 0, reached = 0;
  for (const Ball& t : terms) {
    v += t.v;
    own += t.own;
    error += t.error;
    magnitude += std::fabs(t.v);
    reached += t.most() + t.error;
  }
  const double n = static_cast<double>(terms.size());
  if (!(reached * 1.5 <= unit.largest)) throw Unbounded{};
  own += gamma(n, 0x1p-53) * magnitude;
  error += gamma(depth(order, n) + (fused ? 1 : 0), unit.u) * reached;
  if (fused) error += n * unit.least;
  return {.v = v, .own = own * kSlack, .error = error * kSlack};
}

/// Welford's recurrence in one format on exact values, m_k = m_{k-1} + (x_k - m_{k-1}) / k and
/// M_k = M_{k-1} + (x_k - m_{k-1}) (x_k - m_k), with d = x_k - m_{k-1} and e_k the error of the k-th mean:
///
///   the mean: d errs by e_{k-1}, and is then rounded, divided by k, rounded, added, rounded:
///             e_k <= (1 - 1/k) e_{k-1} + 2 u (d + e_{k-1}) / k + u |m_k|, each with its second order
///   the term: both factors err by their mean's error and a rounding, the product and the sum are rounded
///
/// The first value is taken as it is: d = x_1, m_1 = x_1, M_1 = 0, all exact.
struct MomentErrors {
  double mean = 0, variance = 0;  ///< values
  double of_mean = 0, of_variance = 0;
};
MomentErrors welford_errors(const Balls& x, const Unit& unit) {
  const double u = unit.u, least = unit.least;
  double m = 0, total = 0, e = 0, of_total = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double k = static_cast<double>(i + 1), v = x[i].v, d = v - m, before = e;
    m += d / k;
    const double d2 = v - m;
    total += d * d2;
    if (i == 0) continue;
    const double reach = std::fabs(d) + before;
    const double step = reach / k;
    e = (1 - 1 / k) * before + step * (2 * u + u * u) + least;
    e = rounded_error(std::fabs(m), e, unit);
    const double of_d = rounded_error(std::fabs(d), before, unit), of_d2 = rounded_error(std::fabs(d2), e, unit);
    const double of_term = std::fabs(d) * of_d2 + std::fabs(d2) * of_d + of_d * of_d2;
    of_total = rounded_error(total, of_total + rounded_error(std::fabs(d * d2), of_term, unit), unit);
  }
  const double n = static_cast<double>(x.size());
  const double variance = total / n;
  if (x.size() > 1) {
    e *= kSlack;
    of_total = rounded_error(variance, of_total / n, unit) * kSlack;
  }
  return {.mean = m, .variance = variance, .of_mean = e, .of_variance = of_total};
}

/// One row of a program.
class Row {
 public:
  Row(const PlacedProgram& placed, const Attributes& attributes) : placed_(placed) {
    const auto& nodes = placed.program.nodes;
    const std::size_t cols = static_cast<std::size_t>(placed.layout.cols);
    values_.resize(nodes.size());
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      const Node& node = nodes[i];
      statistics_ = statistics_ || node.kind == NodeKind::reduce;
      inputs_.emplace_back(placed, node.kind == NodeKind::input ? node.names.front() : std::string_view());
      values_[i].resize(node.names.size(), Balls(node.axes.has(Axis::cols) ? cols : 1));
      if (node.kind == NodeKind::attribute) set(i, attributes.find(node.names.front())->second);
      if (node.kind == NodeKind::constant) set(i, node.constant);
      if (node.kind == NodeKind::count) set(i, static_cast<double>(placed.layout.cols));
    }
  }

  /// The bound on this row's finite outputs y in ulp; 0 if x is not finite and its statistics make all of y NaN, 0 or
  /// its bias.
  double claim(std::int64_t row) {
    const auto& nodes = placed_.program.nodes;
    const int y = placed_.program.find_output("y")->value.node;
    for (std::size_t i = 0; i <= static_cast<std::size_t>(y); ++i) {
      if (nodes[i].kind == NodeKind::input) read(i, row);
      if (statistics_ && nodes[i].names.front() == "x" && !all_finite(values_[i][0])) return 0;
      if (nodes[i].kind == NodeKind::reduce) reduce(i);
      if (nodes[i].kind == NodeKind::map) map(i, static_cast<int>(i) != y);
    }
    const FormatId t = nodes[static_cast<std::size_t>(y)].rounding.format->id;
    double most = 0;
    for (const Ball& ball : values_[static_cast<std::size_t>(y)][0])
      if (std::isfinite(ball.v)) most = std::max(most, in_ulp(ball, t));
    return most;
  }

 private:
  void set(std::size_t node, double value) { values_[node][0] = {{.v = value}}; }

  void read(std::size_t node, std::int64_t row) {
    const RowValues::Values decoded = inputs_[node].of(row);
    Balls& balls = values_[node][0];
    for (std::size_t c = 0; c < balls.size(); ++c) balls[c] = {.v = decoded.first[c]};
  }

  static bool all_finite(const Balls& balls) {
    return std::ranges::all_of(balls, [](const Ball& b) { return std::isfinite(b.v); });
  }

  const Ball& operand(const Node& node, std::size_t k, std::size_t column) const {
    const Operand& o = node.operands[k];
    const Balls& balls = values_[static_cast<std::size_t>(o.node)][static_cast<std::size_t>(o.port)];
    return balls[balls.size() == 1 ? 0 : column];
  }

  /// Significant bits that a node's values may have.
  int precision(const Operand& o) const {
    const Node& node = placed_.program.nodes[static_cast<std::size_t>(o.node)];
    return node.rounding.format ? format_of(node.rounding.format->id).precision : 53;
  }
  /// A product of few enough bits is exact, but for underflow.
  Unit unit_of_product(const Operand& a, const Operand& b, FormatId to) const {
    Unit unit = unit_of(to);
    if (precision(a) + precision(b) <= format_of(to).precision) unit.u = 0;
    return unit;
  }

  /// A step before its rounding.
  Ball before(const Node& node, std::size_t c) const {
    const auto a = [&](std::size_t k) -> const Ball& { return operand(node, k, c); };
    switch (node.op) {
      case Op::cast: return a(0);
      case Op::neg: return {.v = -a(0).v, .own = a(0).own, .error = a(0).error};
      case Op::add: return sum(a(0), a(1), 1);
      case Op::sub: return sum(a(0), a(1), -1);
      case Op::mul: return product(a(0), a(1));
      case Op::square: return product(a(0), a(0));
      case Op::div: return product(a(0), reciprocal(a(1)));
      case Op::fma: return sum(product(a(0), a(1)), a(2), 1);
      case Op::reciprocal: return reciprocal(a(0));
      case Op::sqrt: return root(a(0));
      case Op::rsqrt: return reciprocal(root(a(0)));
      case Op::max: return largest(a(0), a(1));
      default: throw Unbounded{};
    }
  }

  void map(std::size_t i, bool round) {
    const Node& node = placed_.program.nodes[i];
    const FormatId to = node.rounding.format->id;
    Unit unit = unit_of(to);
    if (node.op == Op::mul) unit = unit_of_product(node.operands[0], node.operands[1], to);
    // Within k ulp of the rounded result: k + 1/2 ulp of the exact one, each at most 2^(1-P) of what lies there.
    if (node.rounding.within_ulp > 0) unit.u = (2 * node.rounding.within_ulp + 1) * unit.u * kSlack;
    if (node.op == Op::neg || node.op == Op::max ||
        (node.op == Op::cast && precision(node.operands[0]) <= format_of(to).precision))
      round = false;
    Balls& out = values_[i][0];
    for (std::size_t c = 0; c < out.size(); ++c) out[c] = round ? rounded(before(node, c), unit) : before(node, c);
  }

  void reduce(std::size_t i) {
    const Node& node = placed_.program.nodes[i];
    const Operand& of = node.operands[0];
    const Balls& terms = values_[static_cast<std::size_t>(of.node)][static_cast<std::size_t>(of.port)];
    const FormatId accumulator = node.rounding.format->id;
    const Unit unit = unit_of(accumulator);
    if (node.reduction.kind == ReduceKind::moments) {
      moments(i, terms, unit);
      return;
    }
    const bool fused = node.reduction.contract;
    if (node.reduction.term_format || (fused && node.reduction.term != Term::square)) throw Unbounded{};
    Ball total;
    if (node.reduction.term == Term::square) {
      const Unit squares = unit_of_product(of, of, accumulator);
      squares_.clear();
      for (const Ball& t : terms) squares_.push_back(fused ? product(t, t) : rounded(product(t, t), squares));
      total = ordered_sum(node.reduction.order, squares_, unit, fused);
    } else {
      total = ordered_sum(node.reduction.order, terms, unit, false);
    }
    if (node.reduction.kind == ReduceKind::mean)
      total = rounded(product(total, reciprocal({.v = static_cast<double>(terms.size())})), unit);
    values_[i][0][0] = total;
  }

  void moments(std::size_t i, const Balls& terms, const Unit& unit) {
    const bool exact = std::ranges::all_of(terms, [](const Ball& t) { return t.own == 0 && t.error == 0; });
    double most = 0;
    for (const Ball& t : terms) most = std::max(most, std::fabs(t.v));
    const double n = static_cast<double>(terms.size());
    if (!exact || placed_.program.nodes[i].reduction.order.kind != OrderKind::welford ||
        placed_.program.nodes[i].reduction.contract || !(4 * n * most * std::max(most, 1.0) * 1.5 <= unit.largest))
      throw Unbounded{};
    const MomentErrors errors = welford_errors(terms, unit), own = welford_errors(terms, kOwn);
    values_[i][0][0] = {.v = own.mean, .own = own.of_mean, .error = errors.of_mean + own.of_mean};
    values_[i][1][0] = {.v = own.variance, .own = own.of_variance, .error = errors.of_variance + own.of_variance};
  }

  /// What y errs by after its last rounding, to T: let p be the value that is rounded, |p - y| = e ulp(y). If p lies in
  /// y's binade or below, the rounding adds 1/2 ulp(y) at most. Above, for e <= 1, p is at most half of its binade's
  /// ulp from the binade's edge and rounds to the edge itself, which lies between y and p. Else it adds 2^-P |p| at
  /// most, and |p| < 2^P ulp(y) + e ulp(y).
  static double in_ulp(const Ball& ball, FormatId t) {
    const Format& f = format_of(t);
    if (!(ball.most() + ball.error <= max_finite(t))) throw Unbounded{};
    const double least = ball.least();
    const int exponent = least == 0 ? f.emin : std::max(std::ilogb(least), f.emin);
    const double e = ball.error / std::ldexp(1.0, exponent - f.precision + 1) * kSlack;
    return e <= 1 ? e + 0.5 : e * (1 + std::ldexp(1.0, -f.precision)) + 1;
  }

  const PlacedProgram& placed_;
  bool statistics_ = false;
  std::vector<RowValues> inputs_;           ///< by node
  std::vector<std::vector<Balls>> values_;  ///< by node and port
  Balls squares_;
};

}  // namespace

std::optional<double> proved_claim(const PlacedProgram& placed, const Attributes& attributes) {
  try {
    Row row(placed, attributes);
    double claim = 0;
    for (std::int64_t i = 0; i < placed.layout.rows; ++i) claim = std::max(claim, row.claim(i));
    if (!(claim <= kMostUlp) || claim == 0) return std::nullopt;
    return claim;
  } catch (const Unbounded&) {
    return std::nullopt;
  }
}

Declaration declare_claim(const Program& program, const ImplCall& call) {
  Declaration declared;
  if (const auto quant = call.words.find("quant"); quant != call.words.end() && quant->second != "none")
    return declared;
  declared.claim_ulp = proved_claim(placed_call(program, call), call.numbers);
  return declared;
}

}  // namespace norma

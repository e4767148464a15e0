// Global response normalization. With C channels and v = m - bias - x, for a positive sum of lengths and eps,
//
//   y > m    as    weight x C g[c] - v (sum of all g) - v C eps > 0,
//
// dyadic multiples of square roots of dyadic numbers.
#include "reference/norms/grn.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <vector>

#include "reference/exact/real.hpp"
#include "reference/norms/call.hpp"
#include "reference/norms/formula.hpp"

namespace norma {

namespace {

constexpr mpfr_prec_t kFirstBits = 192, kLastBits = 4096;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

constexpr NormInput kInputs[] = {
    {"x", "rows,cols", true, "what is normalized, channels last"},
    {"weight", "cols", true, "factor of every channel's response"},
    {"bias", "cols", false, "added to every channel"},
};
constexpr NormAttribute kAttributes[] = {{"eps", "1e-6", "", "added to the mean length"}};
constexpr std::array<std::string_view, 1> kOutputs{"y"};

struct Call {
  const Tensor* x = nullptr;
  const Tensor* weight = nullptr;
  const Tensor* bias = nullptr;
  double eps = 0;
  std::int64_t samples = 0, positions = 0, channels = 0;
};

Call read_call(const NormCall& call) {
  const CallReader reader("grn", call);
  const Tensor& x = reader.x();
  if (x.shape.size() < 2)
    reader.refuse("x has shape " + shape_text(x.shape) + " but must be [samples, positions..., channels].");
  Call c{.x = &x,
         .weight = reader.vector("weight", x.cols()),
         .bias = reader.vector("bias", x.cols()),
         .eps = reader.eps(1e-6),
         .samples = x.shape.front(),
         .positions = x.rows() / x.shape.front(),
         .channels = x.cols()};
  if (c.weight == nullptr) reader.refuse("there is no tensor weight.");
  return c;
}

void check(const NormCall& call) { static_cast<void>(read_call(call)); }

/// Lengths of one sample's channels, at one precision.
struct Lengths {
  std::vector<Interval> each;
  Interval total;
};

struct Sample {
  bool nan = false, infinite = false;
  std::vector<bool> infinite_channel;
  std::vector<Dyadic> squares;  ///< of each channel, summed
  bool one_length = true;       ///< all squares are equal
};

class GrnTruth final : public TruthSource {
 public:
  explicit GrnTruth(const Call& call) : c_(call) {}

  std::int64_t rows() const override { return c_.samples * c_.positions; }
  std::int64_t cols() const override { return c_.channels; }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::int64_t j = 0; j < cols(); ++j) out[static_cast<std::size_t>(j)] = enclose(row, j);
  }

  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    const Element e = element(row, col);
    if (!e.real) return {.hi = e.special, .lo = 0, .radius = 0, .magnitude = std::fabs(e.special)};
    for (mpfr_prec_t bits = kFirstBits;; bits = std::min(2 * bits, kLastBits)) {
      const auto [y, terms] = value(e, row, col, bits);
      if (!is_tight(y, terms) && bits < kLastBits) continue;
      Enclosure result = enclosure_of(y);
      result.magnitude = magnitude_of(terms);
      const bool near = result.radius > 0 && std::isfinite(result.radius) && std::fabs(result.lo) <= result.radius;
      if (near && compare(row, col, result.hi, 0) == Comparison::equal) result.lo = result.radius = 0;
      return result;
    }
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    const Element e = element(row, col);
    if (!e.real) return Comparison::undecided;
    const Dyadic m = Dyadic(m_hi) + Dyadic(m_lo);
    const Dyadic v = m - Dyadic(e.bias) - Dyadic(e.x);
    const Dyadic count(static_cast<double>(c_.channels)), own = Dyadic(e.weight) * Dyadic(e.x) * count;
    const Dyadic rest = -(v * count * Dyadic(c_.eps));
    const Sample& s = *e.sample;
    // One length g, or none that counts: (weight x C - v C) g + rest.
    const bool no_lengths = own.sign() == 0 && v.sign() == 0;
    if (no_lengths) return Comparison::equal;
    const Dyadic only = own - v * count;
    if (s.one_length && (only.sign() == 0 || rest.sign() == 0))
      return sign_of(only.sign() == 0 ? rest.sign() : only.sign() * s.squares.front().sign());
    for (mpfr_prec_t bits = kFirstBits;; bits = std::min(2 * bits, kLastBits)) {
      const auto lengths = lengths_of(e, row / c_.positions, bits);
      const Interval left = mul(Interval(own, bits), lengths->each[static_cast<std::size_t>(col)]);
      const Interval right = mul(Interval(v, bits), lengths->total);
      const Interval difference = add(sub(left, right), Interval(rest, bits));
      const Comparison answer = norma::compare(difference, 0, 0);
      if (answer != Comparison::undecided || bits == kLastBits) return answer;
    }
  }

 private:
  struct Element {
    bool real = true;
    double special = 0;  ///< y where it is not
    double x, weight, bias;
    std::shared_ptr<const Sample> sample;
  };
  struct Value {
    Interval y, terms;
  };

  static Comparison sign_of(int sign) { return static_cast<Comparison>((sign > 0) - (sign < 0)); }

  Element element(std::int64_t row, std::int64_t col) const {
    Element e{.x = c_.x->value(row * c_.channels + col),
              .weight = c_.weight->value(col),
              .bias = c_.bias == nullptr ? 0.0 : c_.bias->value(col),
              .sample = sample(row / c_.positions)};
    const Sample& s = *e.sample;
    const bool zero = s.one_length && !s.squares.empty() && s.squares.front().sign() == 0 && c_.eps == 0;
    const bool undefined = s.nan || s.infinite_channel[static_cast<std::size_t>(col)] || zero;
    const bool finite = std::isfinite(e.weight) && std::isfinite(e.bias);
    if (finite && !undefined && !s.infinite) return e;
    e.real = false;
    // A response is 0, or a positive number whose size does not matter beside what is not finite.
    const double response = undefined                                                            ? kNaN
                            : s.infinite || s.squares[static_cast<std::size_t>(col)].sign() == 0 ? 0
                                                                                                 : 1;
    e.special = e.weight * (e.x * response) + e.bias + e.x;
    return e;
  }

  Value value(const Element& e, std::int64_t row, std::int64_t col, mpfr_prec_t bits) const {
    const auto lengths = lengths_of(e, row / c_.positions, bits);
    const Interval count(static_cast<double>(c_.channels), bits);
    const Interval divisor = add(div(lengths->total, count), Interval(c_.eps, bits));
    const Interval response = div(lengths->each[static_cast<std::size_t>(col)], divisor);
    const Interval x(e.x, bits), bias(e.bias, bits);
    const Interval scaled = mul(mul(Interval(e.weight, bits), x), response);
    return {add(add(scaled, bias), x), add(add(abs(scaled), abs(bias)), abs(x))};
  }

  // Rows come in runs of questions, from several threads at once.
  std::shared_ptr<const Sample> sample(std::int64_t n) const {
    {
      const std::lock_guard lock(mutex_);
      if (at_ == n) return sample_;
    }
    auto s = std::make_shared<Sample>();
    const auto channels = static_cast<std::size_t>(c_.channels);
    s->infinite_channel.assign(channels, false);
    s->squares.assign(channels, Dyadic());
    for (std::int64_t i = 0; i < c_.positions * c_.channels; ++i) {
      const double x = c_.x->value(n * c_.positions * c_.channels + i);
      const auto c = static_cast<std::size_t>(i % c_.channels);
      if (std::isnan(x)) s->nan = true;
      if (std::isinf(x)) s->infinite = s->infinite_channel[c] = true;
      if (std::isfinite(x)) s->squares[c] = s->squares[c] + square(Dyadic(x));
    }
    for (const Dyadic& q : s->squares) s->one_length = s->one_length && order(q, s->squares.front()) == 0;
    const std::lock_guard lock(mutex_);
    at_ = n;
    sample_ = s;
    lengths_.clear();
    return s;
  }

  std::shared_ptr<const Lengths> lengths_of(const Element& e, std::int64_t n, mpfr_prec_t bits) const {
    {
      const std::lock_guard lock(mutex_);
      if (at_ == n)
        if (const auto found = lengths_.find(bits); found != lengths_.end()) return found->second;
    }
    std::vector<Interval> each;
    for (const Dyadic& q : e.sample->squares) each.push_back(sqrt(Interval(q, bits)));
    Interval total = sum(each, bits);
    auto lengths = std::make_shared<const Lengths>(Lengths{std::move(each), std::move(total)});
    const std::lock_guard lock(mutex_);
    if (at_ == n) lengths_[bits] = lengths;
    return lengths;
  }

  Call c_;
  mutable std::mutex mutex_;
  mutable std::int64_t at_ = -1;
  mutable std::shared_ptr<const Sample> sample_;
  mutable std::map<mpfr_prec_t, std::shared_ptr<const Lengths>> lengths_;
};

/// The formula in stages: lengths, their mean, elements. The formats are ignored.
Program formula(const NormCall& call) {
  const auto sum_or_mean = [](ReduceKind kind, Term term) {
    return Reduction{.kind = kind, .term = term, .order = {.kind = OrderKind::exact}, .term_format = {}};
  };
  Builder lengths("grn", formula_binding(call), {.kind = ViewKind::tokens});
  const Operand squares =
      lengths.reduce("squares", kFp64, lengths.input("x"), sum_or_mean(ReduceKind::sum, Term::square));
  lengths.pass(lengths.sqrt("g", kFp64, squares));
  Builder channels = lengths.next_stage();
  const Operand g = channels.input("g", kRowsCols);
  const Operand mean = channels.reduce("mean", kFp64, g, sum_or_mean(ReduceKind::mean, Term::value));
  channels.pass(channels.div("r", kFp64, g, channels.add("divisor", kFp64, mean, channels.attribute("eps"))));
  Builder b = channels.next_stage();
  const Operand x = b.input("x");
  const Operand scaled = b.mul("scaled", kFp64, x, b.input("r", kCols));
  Operand y = b.mul("weighed", kFp64, b.input("weight", kCols), scaled);
  if (call.inputs->contains("bias")) y = b.add("shifted", kFp64, y, b.input("bias", kCols));
  b.output("y", b.add("y", kFp64, y, x));
  return b.finish();
}

/// Balls for finite values of finite samples; the truth for the rest, and for all that is to be decided.
class FastGrnTruth final : public TruthSource {
 public:
  explicit FastGrnTruth(const NormCall& call)
      : exact_(read_call(call)), balls_(formula_truth(formula(call), with_eps(call), "y", TruthKind::fast)) {
    const Call c = read_call(call);
    positions_ = c.positions;
    finite_.assign(static_cast<std::size_t>(c.samples), true);
    for (std::int64_t i = 0; i < c.x->size(); ++i)
      if (!std::isfinite(c.x->value(i))) finite_[static_cast<std::size_t>(i / (c.positions * c.channels))] = false;
  }

  std::int64_t rows() const override { return exact_.rows(); }
  std::int64_t cols() const override { return exact_.cols(); }
  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override { exact_.enclose_row(row, out); }
  Enclosure enclose(std::int64_t row, std::int64_t col) const override { return exact_.enclose(row, col); }
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    return exact_.compare(row, col, m_hi, m_lo);
  }
  Tier enclose_quick(std::int64_t row, const QuickRow& out) const override {
    const Tier tier = balls_->enclose_quick(row, out);
    const bool finite = finite_[static_cast<std::size_t>(row / positions_)];
    for (std::size_t j = 0; j < out.mid.size(); ++j)
      if (!finite || !std::isfinite(out.mid[j])) out.mid[j] = 0, out.radius[j] = std::numeric_limits<double>::infinity();
    return tier;
  }

 private:
  static NormCall with_eps(NormCall call) {
    call.numbers.insert_or_assign("eps", read_call(call).eps);
    return call;
  }

  GrnTruth exact_;
  std::unique_ptr<TruthSource> balls_;
  std::int64_t positions_ = 1;
  std::vector<bool> finite_;  ///< by sample
};

std::unique_ptr<TruthSource> truth(const NormCall& call, std::string_view output) {
  if (output != "y") CallReader("grn", call).refuse("there is no output " + std::string(output) + "; known: y.");
  return std::make_unique<GrnTruth>(read_call(call));
}

std::unique_ptr<TruthSource> fast(const NormCall& call, std::string_view output) {
  if (output != "y") return truth(call, output);
  return std::make_unique<FastGrnTruth>(call);
}

std::vector<NormOutput> outputs_of(const NormCall& call) { return {{"y", read_call(call).x->shape}}; }

}  // namespace

constinit const NormDef grn{
    .name = "grn",
    .title = "Global response normalization",
    .formula =
        "y = weight x g / (mean over channels(g) + eps) + bias + x, g the length of a channel over its positions",
    .source = "Woo et al., ConvNeXt V2, 2023",
    .inputs = kInputs,
    .attributes = kAttributes,
    .outputs = kOutputs,
    .check = check,
    .truth = truth,
    .outputs_of = outputs_of,
    .fast = fast,
};

}  // namespace norma

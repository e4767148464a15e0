// Gradients in double-double arithmetic with proved radii; what they do not settle goes to the exact ones.
//
// u = 2^-53; bounds of single operations in double_double.hpp. For each group of n elements, with bounds on absolute
// errors e_ and relative ones rho_ (each computed in binary64 from nonnegative terms and padded):
//
//   g         products of at most four terms: 8u^2 |g|
//   sum       additions of pairs: 3.2 n u^2 (sum of sizes); a quotient by n: 3.1u^2 more
//   mean      e_mu = (4n + 8) u^2 (sum |h|) / n; the mean of g, with its own error: e_gbar = (4n + 16) u^2 (sum |g|) /
//   n d         d^ = h - mean^ errs by e_mu + 2.1u^2 |d^| S         sum of d^^2, each of whose terms errs by 2 |d^|
//   (e_mu + 2.1u^2 |d^|) + (...)^2 + 5u^2 d^^2:
//             e_S = (4n + 16) u^2 S + 2.1 e_mu sum |d^| + 1.1 n e_mu^2
//   c         sum of g d^: e_c = (4n + 24) u^2 sum |g d^| + 1.1 e_mu sum |g|
//   v         S / count + eps: rho_v = e_S / (count v) + 6u^2, at most 2^-20
//   r         rsqrt: rho_r = 0.51 rho_v + 14u^2; eps outside, a root, a sum, a quotient: 0.51 rho_v + 16u^2
//   k         c / (count v), what (h - mean) is multiplied by: e_k = 1.1 e_c / (count v) + |k| (1.1 rho_v + 16u^2);
//             outside, c r / (count s): e_k = 1.1 e_c r / (count s) + |k| (1.1 rho_r + 0.6 rho_v + 24u^2)
//   dx        r ((g - mean(g)) - d k), of magnitude M = r (|g| + |mean(g)| + |d k|):
//             1.1 r (e_gbar + |k| e_mu + (|d^| + e_mu) e_k) + M (rho_r + 40u^2)
//   dweight   sum over groups of dy f d r; a term t errs by |dy f| r 1.1 e_mu + |t| (rho_r + 24u^2), the sum of N terms
//             by 3.2 N u^2 sum |t|
//
// No operand leaves binary64's range: elements are of at most fp32's exponents, offsets below 2^100, r within 2^+-200
// and k, v, c within 2^+-450 or zero; a result whose magnitude lies outside 2^+-700 is not used. What underflows on the
// way is below 2^-1000, less than the last term of its bound.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <mutex>
#include <utility>

#include "reference/certified/double_double.hpp"
#include "reference/certified/share_out.hpp"
#include "reference/formats/convert.hpp"
#include "reference/norms/backward/gradients.hpp"
#include "reference/norms/call.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kU2 = 0x1p-106;
constexpr double kPad = 1 + 0x1p-20;  // the roundings of a bound, all of whose terms are nonnegative

/// y and the magnitude of its terms, each within its radius; or NaN; or nothing.
struct Pair {
  enum class Kind { known, nan, unknown } kind = Kind::unknown;
  DoubleDouble y{}, size{};
  double y_radius = 0, size_radius = 0;
};

bool within(double v, double limit) { return std::fabs(v) <= limit && std::fabs(v) >= 1 / limit; }
bool zero_or_within(double v, double limit) { return v == 0 || within(v, limit); }

Pair pair_of(DoubleDouble y, double y_radius, DoubleDouble size, double size_radius) {
  if (!(zero_or_within(size.h, 0x1p700) && y_radius < kInfinity && size_radius < kInfinity)) return {};
  if (y.h == 0) y = {};  // zeros are +0
  return {.kind = Pair::Kind::known, .y = y, .size = size, .y_radius = y_radius, .size_radius = size_radius};
}

DoubleDouble magnitude(DoubleDouble v) { return v.h < 0 ? neg(v) : v; }

/// size.h is the binary64 number next to everything within the radius: no half-way point comes into it.
bool is_nearest(DoubleDouble size, double radius) {
  if (size.h == 0) return size.l == 0 && radius == 0;
  if (radius == 0) return true;
  const double above = std::nextafter(size.h, kInfinity) - size.h, below = size.h - std::nextafter(size.h, 0);
  constexpr double kHalf = 0.5 - 0x1p-40;  // for the roundings of the two sums
  return size.l + radius < kHalf * above && size.l - radius > -kHalf * below;
}

/// Fills the pairs of columns [first, last) of a row.
using PairRow = std::function<void(std::int64_t row, std::int64_t first, std::int64_t last, std::span<Pair> out)>;

class PairTruth final : public TruthSource {
 public:
  PairTruth(PairRow pairs, std::unique_ptr<TruthSource> exact) : pairs_(std::move(pairs)), exact_(std::move(exact)) {}

  std::int64_t rows() const override { return exact_->rows(); }
  std::int64_t cols() const override { return exact_->cols(); }

  Tier enclose_quick(std::int64_t row, const QuickRow& out) const override {
    std::vector<Pair> pairs(out.mid.size());
    pairs_(row, 0, cols(), pairs);
    for (std::size_t j = 0; j < pairs.size(); ++j) {
      const Pair& p = pairs[j];
      const bool known = p.kind == Pair::Kind::known;
      out.mid[j] = known ? p.y.h : p.kind == Pair::Kind::nan ? kNaN : 0;
      out.radius[j] = known ? (p.y_radius + std::fabs(p.y.l)) * kPad : p.kind == Pair::Kind::nan ? 0 : kInfinity;
      out.magnitude[j] = known ? p.size.h : p.kind == Pair::Kind::nan ? kNaN : 0;
    }
    return Tier::double_double;
  }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    std::vector<Pair> pairs(out.size());
    pairs_(row, 0, cols(), pairs);
    for (std::size_t j = 0; j < out.size(); ++j) out[j] = settle(pairs[j], row, static_cast<std::int64_t>(j));
  }

  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    Pair pair;
    pairs_(row, col, col + 1, {&pair, 1});
    return settle(pair, row, col);
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    return exact_->compare(row, col, m_hi, m_lo);
  }

 private:
  Enclosure settle(const Pair& p, std::int64_t row, std::int64_t col) const {
    if (p.kind == Pair::Kind::nan)
      return {.hi = kNaN, .lo = 0, .radius = 0, .magnitude = kNaN, .tier = Tier::double_double};
    const bool close = p.kind == Pair::Kind::known && p.y_radius <= 0x1p-81 * p.size.h;
    if (!close || !is_nearest(p.size, p.size_radius)) return exact_->enclose(row, col);
    Enclosure e{.hi = p.y.h, .lo = p.y.l, .radius = p.y_radius, .magnitude = p.size.h, .tier = Tier::double_double};
    if (e.radius == 0) return e;
    // A y that is a binary64 number is handed out exactly, as the exact truth does.
    for (const double candidate : {e.hi, 0.0}) {
      if (std::fabs((e.hi - candidate) + e.lo) > e.radius * kPad) continue;
      if (exact_->compare(row, col, candidate, 0) != Comparison::equal) continue;
      return {.hi = candidate, .lo = 0, .radius = 0, .magnitude = e.magnitude, .tier = Tier::exact};
    }
    return e;
  }

  PairRow pairs_;
  std::unique_ptr<TruthSource> exact_;
};

// ---- tensors as rows of numbers ----

void read_run(const Tensor& t, std::int64_t at, std::span<double> out) {
  const std::int64_t bytes = format_of(t.format).storage_bytes();
  decode_row(t.format, t.bytes.data() + at * bytes, out.data(), out.size());
}

/// values *= offset + parameter, of columns [first, first + values.size()) of a row.
void multiply(const Parameter& p, std::int64_t row, std::int64_t first, std::span<DoubleDouble> values,
              std::vector<double>& work) {
  if (p.tensor == nullptr) return;
  const std::int64_t span = p.index.span, at = p.index.at(row, first);
  const auto count = static_cast<std::int64_t>(values.size());
  work.resize(static_cast<std::size_t>((first + count - 1) / span - first / span + 1));
  read_run(*p.tensor, at, work);
  for (std::int64_t j = 0; j < count; ++j) {
    const double w = work[static_cast<std::size_t>((first + j) / span - first / span)];
    DoubleDouble& v = values[static_cast<std::size_t>(j)];
    if (p.offset == 0) {
      v = v.l == 0 ? two_prod(v.h, w) : mul(v, w);
    } else {
      v = mul(v, two_sum(w, p.offset));
    }
  }
}

struct RunOfRow {
  std::vector<double> h, dy, work;
  std::vector<DoubleDouble> g;
};

// ---- groups ----

struct Group {
  bool nan = false;     ///< of the statistics
  bool nan_dy = false;  ///< some g is not finite
  bool known = false, slope_known = false;
  DoubleDouble mean{}, r{}, gbar{}, k{};
  double e_mu = 0, rho_r = 0, e_gbar = 0, e_k = 0;
};

class PairGradients {
 public:
  explicit PairGradients(const Gradients& gradients) : g_(gradients) {}

  /// The group of a row. All groups are read at the first question.
  const Group& group(std::int64_t row) const {
    std::call_once(once_, [&] {
      groups_.resize(static_cast<std::size_t>(g_.forward.groups));
      share_out(g_.forward.groups, 1, 0, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t group = first; group < last; ++group)
          groups_[static_cast<std::size_t>(group)] =
              g_.forward.statistics == Statistics::given ? given(group) : read(group);
      });
    });
    return groups_[static_cast<std::size_t>(row % g_.forward.groups)];
  }

  void dx(std::int64_t row, std::int64_t first, std::int64_t last, std::span<Pair> out) const {
    const Group& group = this->group(row);
    RunOfRow run;
    if (group.nan || group.nan_dy || !group.slope_known) {
      for (Pair& p : out) p = {.kind = group.nan || group.nan_dy ? Pair::Kind::nan : Pair::Kind::unknown};
      return;
    }
    read_row(row, first, last, run);
    for (std::size_t j = 0; j < out.size(); ++j) out[j] = element(group, run.h[j], run.g[j]);
  }

  /// The places [begin, end) of a normalized sum.
  void sum(const GradientSum& sum, std::int64_t begin, std::int64_t end, std::span<Pair> out) const {
    struct Total {
      DoubleDouble y{}, size{};
      double error = 0, terms = 0;
      bool nan = false, unknown = false;
    };
    std::vector<Total> totals(out.size());
    RunOfRow run;
    for_each_run(sum.index, g_.forward.rows, g_.forward.cols, begin, end,
                 [&](std::int64_t row, std::int64_t first, std::int64_t last) {
                   const Group& group = this->group(row);
                   const auto count = static_cast<std::size_t>(last - first);
                   read_dy(row, first, count, run);
                   multiply(sum.factor, row, first, run.g, run.work);
                   run.h.resize(count);
                   read_run(*g_.forward.x, row * g_.forward.cols + first, run.h);
                   for (std::size_t j = 0; j < count; ++j) {
                     Total& t = totals[j / static_cast<std::size_t>(sum.index.span)];
                     const DoubleDouble& q = run.g[j];
                     t.nan = t.nan || group.nan || !std::isfinite(q.h) || !std::isfinite(run.h[j]);
                     t.unknown = t.unknown || !group.known;
                     const DoubleDouble d = sub(DoubleDouble{run.h[j], 0}, group.mean);
                     const DoubleDouble term = mul(mul(d, group.r), q);
                     t.y = add(t.y, term);
                     t.size = add(t.size, magnitude(term));
                     t.error +=
                         std::fabs(q.h) * group.r.h * group.e_mu * 1.1 + std::fabs(term.h) * (group.rho_r + 24 * kU2);
                     t.terms += 1;
                   }
                 });
    for (std::size_t o = 0; o < out.size(); ++o) {
      const Total& t = totals[o];
      const double error = (t.error + 3.2 * t.terms * kU2 * t.size.h) * kPad;
      out[o] = t.nan ? Pair{.kind = Pair::Kind::nan} : t.unknown ? Pair{} : pair_of(t.y, error, t.size, error);
    }
  }

 private:
  void read_dy(std::int64_t row, std::int64_t first, std::size_t count, RunOfRow& run) const {
    run.dy.resize(count);
    run.g.resize(count);
    read_run(*g_.dy, row * g_.forward.cols + first, run.dy);
    for (std::size_t j = 0; j < count; ++j) run.g[j] = {run.dy[j], 0};
  }

  /// h and g.
  void read_row(std::int64_t row, std::int64_t first, std::int64_t last, RunOfRow& run) const {
    const auto count = static_cast<std::size_t>(last - first);
    read_dy(row, first, count, run);
    multiply(g_.forward.weight, row, first, run.g, run.work);
    multiply(g_.forward.scale, row, first, run.g, run.work);
    run.h.resize(count);
    read_run(*g_.forward.x, row * g_.forward.cols + first, run.h);
  }

  Pair element(const Group& f, double h, const DoubleDouble& g) const {
    const DoubleDouble d = sub(DoubleDouble{h, 0}, f.mean), along = mul(d, f.k);
    const DoubleDouble y = mul(sub(sub(g, f.gbar), along), f.r);
    const DoubleDouble size = mul(add(add(magnitude(g), magnitude(f.gbar)), magnitude(along)), f.r);
    const double radius = (1.1 * f.r.h * (f.e_gbar + std::fabs(f.k.h) * f.e_mu + (std::fabs(d.h) + f.e_mu) * f.e_k) +
                           size.h * (f.rho_r + 40 * kU2)) *
                          kPad;
    return pair_of(y, radius, size, radius);
  }

  Group given(std::int64_t group) const {
    const RowNorm& norm = g_.forward;
    Group f;
    const double variance = norm.variance->value(group), mean = norm.mean == nullptr ? 0.0 : norm.mean->value(group);
    f.nan = !std::isfinite(variance) || !std::isfinite(mean);
    if (f.nan) return f;
    const DoubleDouble v = two_sum(variance, norm.eps);
    f.mean = {mean, 0};
    if (v.h > 0 && within(v.h, 0x1p400)) set_root(f, rsqrt(v), 14 * kU2);
    return f;
  }

  static void set_root(Group& f, DoubleDouble r, double rho) {
    f.r = r;
    f.rho_r = rho * kPad;
    f.known = within(r.h, 0x1p200);
  }

  Group read(std::int64_t group) const {
    const RowNorm& norm = g_.forward;
    const bool centred = norm.statistics == Statistics::moments;
    const auto rows = static_cast<double>(norm.rows / norm.groups);
    const double n = rows * static_cast<double>(norm.cols);
    Group f;
    RunOfRow run;
    const bool one_row = norm.groups == norm.rows;
    const auto each = [&](bool first_time, const auto& visit) {
      for (std::int64_t row = group; row < norm.rows; row += norm.groups) {
        if (first_time || !one_row) read_row(row, 0, norm.cols, run);
        for (std::size_t j = 0; j < run.h.size(); ++j) visit(run.h[j], run.g[j]);
      }
    };
    DoubleDouble sum_h{}, sum_g{};
    double size_h = 0, size_g = 0;
    each(true, [&](double h, const DoubleDouble& g) {
      if (centred) {
        sum_h = add(sum_h, h);
        sum_g = add(sum_g, g);
      }
      size_h += std::fabs(h);
      size_g += std::fabs(g.h);
    });
    f.nan = !std::isfinite(size_h);
    f.nan_dy = !std::isfinite(size_g);
    if (f.nan) return f;
    if (f.nan_dy) sum_g = {}, size_g = 0;
    if (centred) {
      f.mean = div(sum_h, n);
      f.gbar = div(sum_g, n);
      f.e_mu = (4 * n + 8) * kU2 * size_h / n * kPad;
      f.e_gbar = (4 * n + 16) * kU2 * size_g / n * kPad;
    }
    DoubleDouble s{}, c{};
    double size_d = 0, size_gd = 0;
    each(false, [&](double h, const DoubleDouble& g) {
      const DoubleDouble d = sub(DoubleDouble{h, 0}, f.mean), product = mul(g, d);
      s = add(s, mul(d, d));
      c = add(c, product);
      size_d += std::fabs(d.h);
      size_gd += std::fabs(product.h);
    });
    if (f.nan_dy) c = {}, size_gd = 0;
    const double e_s = ((4 * n + 16) * kU2 * s.h + 2.1 * f.e_mu * size_d + 1.1 * n * f.e_mu * f.e_mu) * kPad;
    const double e_c = ((4 * n + 24) * kU2 * size_gd + 1.1 * f.e_mu * size_g) * kPad;
    set_factor(f, s, e_s, c, e_c);
    return f;
  }

  /// r and k, by the place of eps.
  void set_factor(Group& f, DoubleDouble s, double e_s, DoubleDouble c, double e_c) const {
    const RowNorm& norm = g_.forward;
    const EpsPlace place = norm.eps_place;
    const double eps = norm.eps, count = place == EpsPlace::sum ? 1 : norm.count;
    const bool joins = place == EpsPlace::inside || place == EpsPlace::sum;
    const bool clipped = place == EpsPlace::max || place == EpsPlace::l2max;
    if (s.h == 0 && e_s == 0) {  // all elements are their centre
      f.nan = eps == 0 || place == EpsPlace::none;
      if (f.nan) return;
    }
    DoubleDouble v = div(s, count);
    double e_v = e_s / count * kPad + 3.1 * kU2 * v.h;
    if (joins) v = add(v, eps);
    if (clipped) {
      // The length against eps, both squared; l2max: S against eps^2.
      const double own = place == EpsPlace::l2max ? s.h : v.h, e_own = place == EpsPlace::l2max ? e_s : e_v;
      const DoubleDouble limit = two_prod(eps, eps);
      const bool longer = own - e_own > limit.h * kPad, shorter = own + e_own < limit.h / kPad;
      if (!longer && !shorter) return;
      if (shorter) {
        const DoubleDouble one = place == EpsPlace::l2max ? sqrt(DoubleDouble{count, 0}) : DoubleDouble{1, 0};
        if (!within(eps, 0x1p200)) return;
        set_root(f, div(one, eps), 8 * kU2);
        f.slope_known = f.known;
        return;
      }
    }
    if (place == EpsPlace::outside && s.h == 0 && e_s == 0) {
      if (!within(eps, 0x1p200)) return;
      set_root(f, div(DoubleDouble{1, 0}, eps), 4 * kU2);
      f.slope_known = f.known;
      return;
    }
    const double rho_v = (e_v / v.h + 6 * kU2) * kPad;
    if (!(rho_v <= 0x1p-20) || !within(v.h, 0x1p400)) return;
    if (place == EpsPlace::outside) {
      const DoubleDouble length = sqrt(v);
      set_root(f, div(DoubleDouble{1, 0}, add(length, eps)), 0.51 * rho_v + 16 * kU2);
      const DoubleDouble below = mul(length, count);
      f.k = div(mul(c, f.r), below);
      f.e_k = (1.1 * e_c * f.r.h / below.h + std::fabs(f.k.h) * (1.1 * f.rho_r + 0.6 * rho_v + 24 * kU2)) * kPad;
    } else {
      set_root(f, rsqrt(v), 0.51 * rho_v + 14 * kU2);
      const DoubleDouble below = mul(v, count);
      f.k = div(c, below);
      f.e_k = (1.1 * e_c / below.h + std::fabs(f.k.h) * (1.1 * rho_v + 16 * kU2)) * kPad;
    }
    f.slope_known = f.known && zero_or_within(c.h, 0x1p450) && zero_or_within(f.k.h, 0x1p450) && f.e_k < kInfinity;
  }

  Gradients g_;
  mutable std::once_flag once_;
  mutable std::vector<Group> groups_;
};

/// The places of a sum, all made at the first question.
class PairSums {
 public:
  PairSums(const Gradients& gradients, const GradientSum& sum) : pairs_(gradients), sum_(sum) {}

  std::span<const Pair> all() const {
    std::call_once(once_, [&] {
      made_.resize(static_cast<std::size_t>(sum_.size()));
      static_cast<void>(pairs_.group(0));  // before the parts wait for it
      // Whole periods of the index, cut into parts that fit the caches: neither threads nor parts change a sum.
      constexpr std::int64_t kPart = 256;
      const std::int64_t period = sum_.index.per_row == 0 ? sum_.size() : sum_.index.per_row;
      const std::int64_t parts = (period + kPart - 1) / kPart;
      share_out(sum_.size() / period * parts, 1, 0, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t part = first; part < last; ++part) {
          const std::int64_t base = part / parts * period;
          const std::int64_t begin = part % parts * kPart, end = std::min(period, begin + kPart);
          pairs_.sum(
              sum_, base + begin, base + end,
              std::span(made_).subspan(static_cast<std::size_t>(base + begin), static_cast<std::size_t>(end - begin)));
        }
      });
    });
    return made_;
  }

 private:
  PairGradients pairs_;
  GradientSum sum_;
  mutable std::once_flag once_;
  mutable std::vector<Pair> made_;
};

bool is_fast(const Gradients& gradients, const Parameter& factor) {
  const auto narrow = [](const Tensor* t) {
    return t == nullptr || (format_of(t->format).precision <= 24 && format_of(t->format).emax <= 127);
  };
  const auto usual = [](const Parameter& p) { return p.offset == 0 || within(p.offset, 0x1p100); };
  const RowNorm& n = gradients.forward;
  return narrow(n.x) && narrow(gradients.dy) && narrow(n.mean) && narrow(n.variance) && narrow(n.weight.tensor) &&
         narrow(n.scale.tensor) && narrow(factor.tensor) && usual(n.weight) && usual(n.scale) && usual(factor) &&
         (n.eps == 0 || within(n.eps, 0x1p400)) && within(n.count, 0x1p60);
}

}  // namespace

std::unique_ptr<TruthSource> fast_dx(const Gradients& gradients) {
  if (!is_fast(gradients, {})) return nullptr;
  std::unique_ptr<TruthSource> exact = exact_dx(gradients);
  if (gradients.forward.statistics == Statistics::given) {
    RowNorm scaled = gradients.forward;
    scaled.x = gradients.dy;
    scaled.mean = nullptr;
    return has_fast_tiers(scaled) ? certified_truth(scaled, std::move(exact)) : nullptr;
  }
  const auto pairs = std::make_shared<const PairGradients>(gradients);
  return std::make_unique<PairTruth>([pairs](std::int64_t row, std::int64_t first, std::int64_t last,
                                             std::span<Pair> out) { pairs->dx(row, first, last, out); },
                                     std::move(exact));
}

std::unique_ptr<TruthSource> fast_normalized_sum(const Gradients& gradients, const GradientSum& sum) {
  if (!is_fast(gradients, sum.factor)) return nullptr;
  std::unique_ptr<TruthSource> exact = exact_normalized_sum(gradients, sum);
  const auto sums = std::make_shared<const PairSums>(gradients, sum);
  const std::int64_t cols = exact->cols();
  return std::make_unique<PairTruth>(
      [sums, cols](std::int64_t row, std::int64_t first, std::int64_t last, std::span<Pair> out) {
        const auto all = sums->all();
        std::copy_n(all.begin() + row * cols + first, last - first, out.begin());
      },
      std::move(exact));
}

}  // namespace norma

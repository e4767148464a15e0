// Running statistics: numerator / denominator, both dyadic, so that y against m is the sign of numerator - m
// denominator.
#include "reference/norms/running.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "reference/exact/real.hpp"
#include "reference/norms/exact_rows.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr mpfr_prec_t kBits = 192;  // a division and a sum stay far below 2^-100

enum class Which { mean, variance };

/// One running statistic: (1 - momentum) running + momentum top / bottom, or, if `special`, what IEEE rules give.
struct Update {
  bool is_special = false;
  double special = 0;
  Dyadic numerator, denominator{1.0};
  double magnitude = 0;
};

/// What an update takes from x, added over the samples that have statistics of their own: the batch is one.
struct Batch {
  Dyadic top;  ///< sum of the samples' sums, or of their n sum x^2 - (sum x)^2
  bool positive = false, negative = false, nan = false;  ///< Inf and NaN among the samples' statistics
  bool finite() const { return !positive && !negative && !nan; }
  double special() const { return nan || (positive && negative) ? kNaN : positive ? kInfinity : -kInfinity; }
};

void add_sample(Batch& batch, Which which, const ExactSums& sums, double n) {
  if (!sums.finite()) {
    const bool undefined = which == Which::variance || sums.nan || (sums.positive_infinity && sums.negative_infinity);
    batch.nan = batch.nan || undefined;
    batch.positive = batch.positive || sums.positive_infinity;
    batch.negative = batch.negative || sums.negative_infinity;
    return;
  }
  batch.top = batch.top + (which == Which::mean ? sums.sum : Dyadic(n) * sums.squares - square(sums.sum));
}

/// A sign that stands for a finite number in IEEE rules.
double class_of(double v) { return std::isfinite(v) && v != 0 ? std::copysign(1.0, v) : v; }

Update make_update(Which which, const Batch& batch, double samples, double n, double running, double momentum) {
  Update u;
  const Dyadic rest = Dyadic(1.0) - Dyadic(momentum);
  if (!batch.finite() || !std::isfinite(running)) {
    u.is_special = true;
    u.special = rest.sign() * class_of(running) + class_of(momentum) * (batch.finite() ? 1.0 : batch.special());
    return u;
  }
  u.denominator = Dyadic(samples) * Dyadic(n);
  if (which == Which::variance) u.denominator = u.denominator * Dyadic(n - 1);
  const Dyadic old_part = rest * Dyadic(running) * u.denominator, new_part = Dyadic(momentum) * batch.top;
  u.numerator = old_part + new_part;
  u.magnitude = magnitude_of(div(Interval(abs(old_part) + abs(new_part), kBits), Interval(u.denominator, kBits)));
  return u;
}

class RunningTruth final : public TruthSource {
 public:
  RunningTruth(const RowNorm& norm, const Tensor& running, double momentum, Which which) {
    const std::int64_t channels = running.size(), samples = norm.groups / channels;
    for (std::int64_t c = 0; c < channels; ++c) {
      Batch batch;
      double n = 1;
      for (std::int64_t sample = 0; sample < samples; ++sample) {
        const GroupElements elements{.x = norm.x,
                                     .residual = norm.residual,
                                     .rows = norm.rows,
                                     .cols = norm.cols,
                                     .groups = norm.groups,
                                     .group = sample * channels + c};
        n = static_cast<double>(elements.count());
        add_sample(batch, which, exact_sums(elements), n);
      }
      updates_.push_back(make_update(which, batch, static_cast<double>(samples), n, running.value(c), momentum));
    }
  }

  std::int64_t rows() const override { return static_cast<std::int64_t>(updates_.size()); }
  std::int64_t cols() const override { return 1; }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    const Update& u = updates_[static_cast<std::size_t>(row)];
    if (u.is_special) {
      out[0] = enclosure_of(Interval(u.special, kBits));
      return;
    }
    Enclosure e = enclosure_of(div(Interval(u.numerator, kBits), Interval(u.denominator, kBits)));
    // |lo| <= radius: y may be the binary64 number hi; if it is, it is handed out exactly.
    if (e.radius > 0 && std::fabs(e.lo) <= e.radius && sign(u, Dyadic(e.hi)) == 0) e.lo = e.radius = 0;
    e.magnitude = u.magnitude;
    out[0] = e;
  }

  Comparison compare(std::int64_t row, std::int64_t, double m_hi, double m_lo) const override {
    const Update& u = updates_[static_cast<std::size_t>(row)];
    if (u.is_special) return Comparison::undecided;
    const int s = sign(u, Dyadic(m_hi) + Dyadic(m_lo));
    return static_cast<Comparison>((s > 0) - (s < 0));
  }

 private:
  static int sign(const Update& u, const Dyadic& m) { return order(u.numerator, m * u.denominator); }

  std::vector<Update> updates_;
};

}  // namespace

std::unique_ptr<TruthSource> running_mean_truth(const RowNorm& norm, const Tensor& running, double momentum) {
  return std::make_unique<RunningTruth>(norm, running, momentum, Which::mean);
}

std::unique_ptr<TruthSource> running_variance_truth(const RowNorm& norm, const Tensor& running, double momentum) {
  return std::make_unique<RunningTruth>(norm, running, momentum, Which::variance);
}

}  // namespace norma

// The figures of a record from what a pass over the output kept.
#include <mpfr.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "harness/metrics/element.hpp"
#include "harness/metrics/tally.hpp"
#include "reference/exact/decide.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// atan2 rounded correctly: the C library's differs from machine to machine.
double atan2_exactly(double y, double x) {
  mpfr_t a, b;
  mpfr_init2(a, 53);
  mpfr_init2(b, 53);
  mpfr_set_d(a, y, MPFR_RNDN);
  mpfr_set_d(b, x, MPFR_RNDN);
  mpfr_atan2(a, a, b, MPFR_RNDN);
  const double angle = mpfr_get_d(a, MPFR_RNDN);
  mpfr_clear(a);
  mpfr_clear(b);
  return angle;
}

/// |d|/|c| and the angle between c and c + d. |c|^2 |d|^2 - (c.d)^2 is the squared area they span.
void set_norms(UlpFigures& figures, double truth_squares, double truth_error, double error_squares) {
  const double got_squares = truth_squares + 2 * truth_error + error_squares;
  if (truth_squares == 0) {
    figures.relative_l2 = error_squares == 0 ? 0 : kInfinity;
  } else {
    figures.relative_l2 = std::sqrt(error_squares / truth_squares);
  }
  constexpr double kRightAngle = 0x1.921fb54442d18p+0;
  if (truth_squares == 0 || !(got_squares > 0)) {
    figures.angle = truth_squares == 0 && got_squares == 0 ? 0 : kRightAngle;
    return;
  }
  const double along = truth_error / truth_squares;
  const double area = std::max(0.0, error_squares / truth_squares - along * along);
  figures.angle = atan2_exactly(std::sqrt(area), 1 + along);
}

Place place_of(std::int64_t index, std::int64_t cols) {
  return index < 0 ? Place{} : Place{.row = index / cols, .col = index % cols};
}

double quotient(double sum, std::int64_t count) { return count == 0 ? kNan : sum / static_cast<double>(count); }

SplitPart part_of(const GridSum& sum) {
  return {.bias = sum.bias(), .max = sum.count == 0 ? kNan : ulps(sum.largest), .rms = sum.rms()};
}

void set_sums(UlpFigures& figures, const GridSum& error) {
  figures.mean_abs = error.mean_magnitude();
  figures.rms = error.rms();
  figures.bias = error.bias();
}

constexpr std::array<std::pair<std::uint64_t, std::uint64_t>, kQuantiles.size()> kRanks = {
    {{1, 2}, {9, 10}, {99, 100}, {999, 1000}}};

double median_admitted(const std::vector<std::pair<std::uint64_t, std::uint64_t>>& truths, const Tolerance& tolerance,
                       const Format& format) {
  std::vector<std::pair<double, std::uint64_t>> admitted;
  std::uint64_t count = 0;
  for (const auto& [key, times] : truths) {
    const double size = std::bit_cast<double>(key << 45);
    const int exponent = size == 0 ? format.emin : std::max(std::ilogb(size), format.emin);
    admitted.emplace_back((tolerance.atol + tolerance.rtol * size) / ulp_of(format.id, exponent), times);
    count += times;
  }
  std::sort(admitted.begin(), admitted.end());
  std::uint64_t before = (count + 1) / 2;
  for (const auto& [value, times] : admitted) {
    if (before <= times) return value;
    before -= times;
  }
  return kNan;
}

WorstElement worst_of(const Candidate& candidate, const MeasureJob& job) {
  const Place at = place_of(candidate.index, job.truth.cols());
  const Enclosure enclosure = job.truth.enclose(at.row, at.col);
  const Midpoint truth = midpoint_of({.truth = job.truth, .row = at.row, .col = at.col, .enclosure = enclosure});
  WorstElement worst{.at = at,
                     .code = job.got.code(candidate.index),
                     .hi = truth.hi,
                     .lo = truth.lo,
                     .ideal = candidate.ideal,
                     .ulp = candidate.key == kInfiniteKey ? kInfinity : ulps(candidate.error)};
  if (candidate.split && (candidate.ideal || job.erasure != nullptr)) {
    worst.definition = ulps(candidate.split->definition);
  }
  if (candidate.split && candidate.ideal) {
    worst.path = ulps(candidate.split->path);
    worst.implementation = ulps(candidate.split->implementation);
  }
  return worst;
}

}  // namespace

Measures figures_of(Tally& tally, const TaskSums& sums, const MeasureJob& job) {
  const std::int64_t cols = job.truth.cols();
  const std::int64_t compared = tally.counts.compared;
  Measures m{.format = job.got.format,
             .shape = job.got.shape,
             .elements = job.got.size(),
             .counts = tally.counts,
             .tiers = tally.tiers};
  for (const Candidate& candidate : tally.worst) m.worst.push_back(worst_of(candidate, job));

  m.ulp.max = compared == 0 ? kNan : tally.max.value / static_cast<double>(kGridUlp);
  m.ulp.max_at = place_of(tally.max.index, cols);
  m.ulp.condition_max = compared == 0 ? kNan : tally.condition.value;
  m.ulp.condition_max_at = place_of(tally.condition.index, cols);
  if (tally.counts.nan_unexpected + tally.counts.inf_unexpected > 0) {
    m.ulp.max = m.ulp.condition_max = kInfinity;
    m.ulp.max_at = m.ulp.condition_max_at = m.worst.front().at;
  }
  set_sums(m.ulp, tally.error);
  m.ulp.histogram = tally.histogram;
  m.ulp.condition_mean_abs = quotient(sums.condition, compared);
  m.ulp.correct = tally.correct;
  m.ulp.faithful = tally.faithful;
  set_norms(m.ulp, sums.truth_squares, sums.truth_error, sums.error_squares);

  m.zeros.max = compared == 0 ? kNan : tally.zeros_max.value / static_cast<double>(kGridUlp);
  m.zeros.max_at = place_of(tally.zeros_max.index, cols);
  m.zeros.condition_max = compared == 0 ? kNan : tally.zeros_condition.value;
  m.zeros.condition_max_at = place_of(tally.zeros_condition.index, cols);
  set_sums(m.zeros, tally.zeros_error);
  m.zeros.condition_mean_abs = quotient(sums.zeros_condition, compared);
  m.zeros.correct = tally.zeros_correct;
  m.zeros.faithful = tally.zeros_faithful;
  set_norms(m.zeros, sums.truth_squares, -sums.truth_squares, sums.truth_squares);
  m.zeros_equal = tally.zeros_equal;
  for (std::size_t i = 0; i < kRanks.size(); ++i) {
    const auto [numerator, denominator] = kRanks[i];
    m.ulp.quantiles[i] =
        compared == 0 ? kNan : ulps(static_cast<std::int64_t>(tally.magnitudes.quantile(numerator, denominator)));
    m.zeros.quantiles[i] = compared == 0 ? kNan
                                         : ulps(static_cast<std::int64_t>(from_leading_bits(
                                               tally.zeros_magnitudes.quantile(numerator, denominator))));
  }

  const bool have_ideal = !job.ideals.empty();
  m.total = part_of(tally.split_total);
  if (have_ideal || job.erasure != nullptr) m.definition = part_of(tally.definition);
  m.got_is_ideal = job.options.got_is_ideal;
  if (have_ideal) {
    m.path = part_of(tally.path);
    m.implementation = part_of(tally.implementation);
    m.conformance = Conformance{.equal = tally.equal,
                                .of = m.elements,
                                .first_difference = place_of(tally.first_difference, cols),
                                .choice_ulp = job.options.choice_ulp};
    if (tally.furthest) m.conformance->furthest = worst_of(*tally.furthest, job);
  }
  m.ideal_nonfinite = tally.ideal_nonfinite;
  m.unexpected_in_ideal = tally.unexpected_in_ideal;

  if (tally.counts.unknown != 0) return m;  // what a tolerance says would be of a part
  const auto truths = tally.truths.sorted();
  for (std::size_t i = 0; i < job.tolerances.size(); ++i) {
    const Tolerance& tolerance = job.tolerances[i];
    m.allclose.push_back({.name = tolerance.name,
                          .rtol = tolerance.rtol,
                          .atol = tolerance.atol,
                          .passes = !tally.refused[i] && tally.counts.nan_missing + tally.counts.inf_missing == 0,
                          .admits_ulp_max = compared == 0 ? kNan : tally.admits[i],
                          .admits_ulp_median = median_admitted(truths, tolerance, job.format)});
  }
  return m;
}

}  // namespace norma

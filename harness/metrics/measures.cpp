// One pass over an output: scores every element, sums on the grid, keeps the worst.
#include "harness/metrics/measures.hpp"

#include <fmt/core.h>
#include <mpfr.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <exception>
#include <limits>
#include <stdexcept>
#include <thread>

#include "harness/metrics/tolerances.hpp"
#include "reference/exact/decide.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t kHalfUlp = kGridUlp / 2;
constexpr std::size_t kWorst = 8;
// Elements a task takes: enough to hide its cost, few enough to share out. Sums in binary64 are
// made per task and added in task order, so this number, and not the number of threads, fixes their
// last bits.
constexpr std::int64_t kTaskElements = 8192;
// Below this many elements threads cost more than they save.
constexpr std::int64_t kFewElements = 16384;
constexpr std::size_t kMaxTolerances = 8;

/// What stays the same for all elements.
struct Job {
  const TruthSource& truth;
  const TruthSource* erasure;
  std::span<const Tensor> ideals;
  const Tensor& got;
  Overflow policy;
  const MeasureOptions& options;
  const Format& format;
  double largest, half_beyond;  // magnitudes above largest + half_beyond round beyond the range
  bool tie_overflows;           // and so does the sum itself: the largest significand is odd
  int scale;                    // 2-norms are summed of values times 2^scale, against overflow of squares
  std::vector<Tolerance> tolerances;
};

/// Sums in binary64 of one task, in element order. Their terms come from decided errors, not from
/// midpoints.
struct TaskSums {
  double truth_squares = 0, truth_error = 0, error_squares = 0;  // c*c, d*c, d*d with d = g - c
  double condition = 0, zeros_condition = 0;
};

struct Largest {
  double value = 0;
  std::int64_t index = -1;
  void see(double candidate, std::int64_t at) {
    if (index < 0 || candidate > value || (candidate == value && at < index)) {
      value = candidate;
      index = at;
    }
  }
  void merge(const Largest& other) {
    if (other.index >= 0) see(other.value, other.index);
  }
};

struct Split {
  std::int64_t definition = 0, path = 0, implementation = 0;
};

struct Candidate {
  std::int64_t key = 0;  // |error|; infinite first
  std::int64_t index = 0;
  std::int64_t error = 0;
  double hi = 0, lo = 0;
  std::optional<std::uint64_t> ideal{};
  std::optional<Split> split{};
  bool differs = false;  // from the ideal, in its bits
};
constexpr std::int64_t kInfiniteKey = std::numeric_limits<std::int64_t>::max();

bool worse(const Candidate& a, const Candidate& b) { return a.key != b.key ? a.key > b.key : a.index < b.index; }

/// What does not depend on the order of elements; one per thread, merged at the end.
struct Tally {
  Counts counts;
  GridSum error, split_total, definition, path, implementation, zeros_error;
  GridCounts magnitudes, zeros_magnitudes, truths;
  std::array<std::int64_t, kHistogramBins> histogram{};
  Largest max, condition, zeros_max, zeros_condition;
  std::int64_t correct = 0, faithful = 0, zeros_correct = 0, zeros_faithful = 0;
  std::int64_t equal = 0, first_difference = -1, ideal_nonfinite = 0, zeros_equal = 0, unexpected_in_ideal = 0;
  std::array<double, kMaxTolerances> admits{};
  std::array<bool, kMaxTolerances> refused{};
  std::vector<Candidate> worst;
  std::optional<Candidate> furthest;  // from its ideal, of those whose bits differ; the first of those as far

  void keep_furthest(const Candidate& candidate) {
    const auto distance = [](const Candidate& c) {
      return c.split ? std::abs(c.split->implementation) : kInfiniteKey;
    };
    if (!furthest || distance(candidate) > distance(*furthest) ||
        (distance(candidate) == distance(*furthest) && candidate.index < furthest->index))
      furthest = candidate;
  }

  void keep(const Candidate& candidate) {
    if (candidate.differs) keep_furthest(candidate);
    if (worst.size() == kWorst && !worse(candidate, worst.back())) return;
    worst.insert(std::upper_bound(worst.begin(), worst.end(), candidate, worse), candidate);
    if (worst.size() > kWorst) worst.pop_back();
  }
};

void merge(Counts& a, const Counts& b) {
  a.compared += b.compared;
  a.nan_expected += b.nan_expected;
  a.nan_unexpected += b.nan_unexpected;
  a.nan_missing += b.nan_missing;
  a.inf_expected += b.inf_expected;
  a.inf_unexpected += b.inf_unexpected;
  a.inf_missing += b.inf_missing;
  a.overflow += b.overflow;
  a.underflow += b.underflow;
  a.subnormal += b.subnormal;
  a.undecided += b.undecided;
  a.beyond_scale += b.beyond_scale;
}

void merge(Tally& a, Tally& b) {
  merge(a.counts, b.counts);
  a.error.merge(b.error);
  a.split_total.merge(b.split_total);
  a.definition.merge(b.definition);
  a.path.merge(b.path);
  a.implementation.merge(b.implementation);
  a.zeros_error.merge(b.zeros_error);
  a.magnitudes.merge(b.magnitudes);
  a.zeros_magnitudes.merge(b.zeros_magnitudes);
  a.truths.merge(b.truths);
  for (std::size_t i = 0; i < a.histogram.size(); ++i) a.histogram[i] += b.histogram[i];
  a.max.merge(b.max);
  a.condition.merge(b.condition);
  a.zeros_max.merge(b.zeros_max);
  a.zeros_condition.merge(b.zeros_condition);
  a.correct += b.correct;
  a.faithful += b.faithful;
  a.zeros_correct += b.zeros_correct;
  a.zeros_faithful += b.zeros_faithful;
  a.equal += b.equal;
  if (a.first_difference < 0 || (b.first_difference >= 0 && b.first_difference < a.first_difference)) {
    a.first_difference = b.first_difference;
  }
  a.ideal_nonfinite += b.ideal_nonfinite;
  a.zeros_equal += b.zeros_equal;
  a.unexpected_in_ideal += b.unexpected_in_ideal;
  for (std::size_t i = 0; i < kMaxTolerances; ++i) {
    a.admits[i] = std::max(a.admits[i], b.admits[i]);
    a.refused[i] = a.refused[i] || b.refused[i];
  }
  for (const Candidate& candidate : b.worst) a.keep(candidate);
  if (b.furthest) a.keep_furthest(*b.furthest);
}

bool same_bits(const Format& format, std::uint64_t a, std::uint64_t b) {
  return a == b || (is_nan_code(format.id, a) && is_nan_code(format.id, b));
}

/// What the overflow rule makes of a finite value beyond the range.
std::uint64_t overflow_code(const Format& format, Overflow policy, bool negative) {
  const std::uint64_t sign = negative ? format.sign_code() : 0;
  switch (policy) {
    case Overflow::ieee: return format.has_infinity() ? (sign | format.infinity_code()) : format.nan_code();
    case Overflow::saturate_finite: return sign | format.max_finite_code();
    case Overflow::saturate: return sign | format.max_finite_code();
    case Overflow::nan: return format.nan_code();
  }
  return format.nan_code();
}

/// value * 2^exponent; the exponent is nearly always 0.
double scaled_by(double value, int exponent) { return exponent == 0 ? value : std::ldexp(value, exponent); }

enum class Answer : std::uint8_t { no, yes, undecided };

/// Whether a real y rounds beyond the range.
Answer overflows(const Job& job, const Element& y) {
  const double hi = y.enclosure.hi;
  // A quarter below the largest number no radius that decides anything reaches the threshold.
  if (std::fabs(hi) < 0.75 * job.largest && y.enclosure.radius < 0.125 * job.largest) return Answer::no;
  const double sign = std::signbit(hi) ? -1.0 : 1.0;
  switch (compare(y, sign * job.largest, sign * job.half_beyond)) {
    case Comparison::less: return sign < 0 ? Answer::yes : Answer::no;
    case Comparison::equal: return job.tie_overflows ? Answer::yes : Answer::no;
    case Comparison::greater: return sign < 0 ? Answer::no : Answer::yes;
    case Comparison::undecided: return Answer::undecided;
  }
  return Answer::undecided;
}

/// Zero for certain.
bool is_zero(const Element& y) { return compare(y, 0.0) == Comparison::equal; }

void count_unexpected(Tally& tally, const Job& job, std::int64_t index, const Enclosure& truth, double got,
                      std::optional<std::uint64_t> ideal) {
  if (std::isnan(got)) {
    ++tally.counts.nan_unexpected;
  } else {
    ++tally.counts.inf_unexpected;
  }
  if (ideal && same_bits(job.format, *ideal, job.got.code(index))) ++tally.unexpected_in_ideal;
  for (bool& refused : tally.refused) refused = true;
  tally.keep({.key = kInfiniteKey,
              .index = index,
              .hi = truth.hi,
              .lo = truth.lo,
              .ideal = ideal,
              .differs = ideal && !same_bits(job.format, *ideal, job.got.code(index))});
}

/// scaled_difference in binary64 where it is clear, i.e. away from the half-way points; always the
/// same value.
std::int64_t grid_difference(const Enclosure& a, const Enclosure& b, double unit) {
  const double grid = static_cast<double>(kGridUlp) / unit;
  const double sum = a.hi - b.hi;
  const double back = sum - a.hi;
  const double rest = (a.hi - (sum - back)) + (-b.hi - back);  // a.hi - b.hi = sum + rest (Knuth's TwoSum)
  const double high = sum * grid;
  const double whole = std::nearbyint(high);
  const double part = (high - whole) + (rest + (a.lo - b.lo)) * grid;
  const double nearest = std::nearbyint(part);
  // Below 2^46 units and with low halves of less than 2^30, part is good to 2^-22.
  const bool clear = unit > 0x1p-900 && std::fabs(high) < 0x1p46 && std::fabs(part) < 0x1p30 &&
                     std::fabs(part - nearest) < 0.5 - 0x1p-20;
  return clear ? static_cast<std::int64_t>(whole + nearest) : scaled_difference(a, b, unit);
}

/// The part of the error that belongs to definition, path and implementation; empty if one of the
/// values that tell is not finite.
std::optional<Split> split_error(const Job& job, const Enclosure& truth, const Enclosure* erasure,
                                 std::optional<std::uint64_t> ideal, double got, double unit, std::int64_t total) {
  Split split;
  if (erasure != nullptr) {
    if (!std::isfinite(erasure->hi) || !std::isfinite(erasure->radius)) return std::nullopt;
    split.definition = grid_difference(*erasure, truth, unit);
  }
  if (ideal) {
    const double i = decode(job.format.id, *ideal);
    if (!std::isfinite(i)) return std::nullopt;
    split.implementation = got == i ? 0 : grid_difference(Enclosure{.hi = got}, Enclosure{.hi = i}, unit);
  }
  split.path = total - split.definition - split.implementation;
  return split;
}

void score(Tally& tally, TaskSums& sums, const Job& job, const Element& y, const Enclosure* erasure,
           std::optional<std::uint64_t> ideal, std::int64_t index) {
  const Enclosure& truth = y.enclosure;
  const FormatId format = job.format.id;
  const std::uint64_t code = job.got.code(index);
  const double got = decode(format, code);

  if (std::isnan(truth.hi)) {
    ++tally.counts.nan_expected;
    if (!std::isnan(got)) ++tally.counts.nan_missing;
    return;
  }
  if (std::isinf(truth.hi)) {
    ++tally.counts.inf_expected;
    if (!same_bits(job.format, code, encode(format, truth.hi, job.policy))) ++tally.counts.inf_missing;
    return;
  }
  const Answer over = overflows(job, y);
  if (over == Answer::yes) {
    ++tally.counts.overflow;
    if (same_bits(job.format, code, overflow_code(job.format, job.policy, std::signbit(truth.hi)))) return;
  }
  if (!std::isfinite(got)) {
    count_unexpected(tally, job, index, truth, got, ideal);
    return;
  }

  bool decided = over != Answer::undecided;
  std::optional<int> exponent = binade(y, format);
  if (!exponent) {
    decided = false;
    if (!std::isfinite(truth.radius)) {  // nothing is known of y
      ++tally.counts.undecided;
      return;
    }
    exponent = truth.hi == 0 ? job.format.emin : std::max(std::ilogb(truth.hi), job.format.emin);
  }
  const double unit = ulp_of(format, *exponent);
  const ScaledError scaled = scaled_error(y, got, format);
  decided = decided && scaled.decided;
  const std::int64_t error = scaled.value;
  const std::int64_t magnitude = error < 0 ? -error : error;

  ++tally.counts.compared;
  const bool beyond = magnitude >= kScaledErrorLimit;
  if (beyond) ++tally.counts.beyond_scale;
  if (got == 0) {
    if (!is_zero(y)) ++tally.counts.underflow;
  } else if ((code & job.format.exponent_mask()) == 0) {
    ++tally.counts.subnormal;
  }

  // Off the grid's own half-way points the rounded error decides: below half an ulp it is the
  // nearest value, above half an ulp not, above one ulp not even a neighbour.
  bool correct = magnitude < kHalfUlp;
  if (magnitude == kHalfUlp || !scaled.decided) {
    const std::optional<bool> answer = is_correctly_rounded(y, format, job.policy, code);
    decided = decided && answer.has_value();
    correct = answer.value_or(false);
  }
  bool faithful = correct;
  if (!correct && (magnitude <= kGridUlp || !scaled.decided)) {
    const std::optional<bool> answer = is_faithful(y, format, job.policy, code);
    decided = decided && answer.has_value();
    faithful = answer.value_or(false);
  }
  tally.correct += correct ? 1 : 0;
  tally.faithful += faithful ? 1 : 0;
  if (!decided) ++tally.counts.undecided;

  tally.error.add(error);
  tally.magnitudes.add(static_cast<std::uint64_t>(magnitude));
  ++tally.histogram[static_cast<std::size_t>(histogram_bin(error))];
  tally.max.see(static_cast<double>(magnitude), index);

  const int coarse = truth.magnitude > 0 && std::isfinite(truth.magnitude)
                         ? std::max(std::ilogb(truth.magnitude), *exponent)
                         : *exponent;
  const double condition = scaled_by(ulps(magnitude), *exponent - coarse);
  tally.condition.see(condition, index);
  sums.condition += condition;

  // y from the decided error, good to 2^-17 ulp: the same on every machine and tier.
  const bool use_midpoint = beyond || !scaled.decided;
  const double error_value = use_midpoint ? (got - truth.hi) - truth.lo : ulps(error) * unit;
  const double d = scaled_by(error_value, job.scale);
  const double c = scaled_by(use_midpoint ? truth.hi : got - error_value, job.scale);
  sums.truth_squares += c * c;
  sums.truth_error += d * c;
  sums.error_squares += d * d;

  const std::optional<Split> split = split_error(job, truth, erasure, ideal, got, unit, error);
  if (split) {
    tally.split_total.add(error);
    tally.definition.add(split->definition);
    tally.path.add(split->path);
    tally.implementation.add(split->implementation);
  }

  const double size = std::fabs(truth.hi);
  tally.truths.add(std::bit_cast<std::uint64_t>(size) >> 45);
  for (std::size_t i = 0; i < job.tolerances.size(); ++i) {
    const double admitted = job.tolerances[i].atol + job.tolerances[i].rtol * size;
    if (!(std::fabs((got - truth.hi) - truth.lo) <= admitted)) tally.refused[i] = true;
    tally.admits[i] = std::max(tally.admits[i], admitted / unit);
  }

  // The same element, had the output been all zeros.
  const double zeros_scaled = std::min(size / unit * static_cast<double>(kGridUlp), 0x1p48);
  const auto zeros_magnitude = static_cast<std::int64_t>(std::nearbyint(zeros_scaled));
  const std::int64_t zeros_error = truth.hi > 0 ? -zeros_magnitude : zeros_magnitude;
  tally.zeros_error.add(zeros_error);
  tally.zeros_magnitudes.add(leading_bits(static_cast<std::uint64_t>(zeros_magnitude)));
  tally.zeros_max.see(static_cast<double>(zeros_magnitude), index);
  tally.zeros_correct += zeros_magnitude <= kHalfUlp ? 1 : 0;
  tally.zeros_faithful += zeros_magnitude < kGridUlp ? 1 : 0;
  const double zeros_condition = scaled_by(ulps(zeros_magnitude), *exponent - coarse);
  tally.zeros_condition.see(zeros_condition, index);
  sums.zeros_condition += zeros_condition;

  tally.keep({.key = magnitude,
              .index = index,
              .error = error,
              .hi = truth.hi,
              .lo = truth.lo,
              .ideal = ideal,
              .split = split,
              .differs = ideal && !same_bits(job.format, *ideal, job.got.code(index))});
}

/// The ideal that a row is held against: the first that it equals bit for bit, else the plain one.
const Tensor* ideal_of_row(Tally& tally, const Job& job, std::int64_t begin, std::int64_t end) {
  if (job.ideals.empty()) return nullptr;
  const auto first_difference = [&](const Tensor& ideal) {
    std::int64_t i = begin;
    while (i < end && same_bits(job.format, ideal.code(i), job.got.code(i))) ++i;
    return i;
  };
  const Tensor* chosen = &job.ideals.front();
  std::int64_t difference = first_difference(*chosen);
  for (const Tensor& other : job.ideals.subspan(1)) {
    if (difference == end) break;
    if (first_difference(other) == end) {
      chosen = &other;
      difference = end;
    }
  }
  if (difference < end && (tally.first_difference < 0 || difference < tally.first_difference)) {
    tally.first_difference = difference;
  }
  for (std::int64_t i = begin; i < end; ++i) {
    const std::uint64_t code = chosen->code(i);
    if (i < difference || same_bits(job.format, code, job.got.code(i))) ++tally.equal;
    if (code == 0) ++tally.zeros_equal;
    if (!std::isfinite(decode(job.format.id, code))) ++tally.ideal_nonfinite;
  }
  return chosen;
}

void score_rows(Tally& tally, TaskSums& sums, const Job& job, std::int64_t row_begin, std::int64_t row_end) {
  const std::int64_t cols = job.truth.cols();
  std::vector<Enclosure> truth(static_cast<std::size_t>(cols));
  std::vector<Enclosure> erasure(job.erasure == nullptr ? 0 : static_cast<std::size_t>(cols));
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    job.truth.enclose_row(row, truth);
    if (job.erasure != nullptr) job.erasure->enclose_row(row, erasure);
    const std::int64_t begin = row * cols;
    const Tensor* ideal = ideal_of_row(tally, job, begin, begin + cols);
    for (std::int64_t col = 0; col < cols; ++col) {
      const auto c = static_cast<std::size_t>(col);
      const Element y{.truth = job.truth, .row = row, .col = col, .enclosure = truth[c]};
      score(tally, sums, job, y, job.erasure == nullptr ? nullptr : &erasure[c],
            ideal == nullptr ? std::nullopt : std::optional(ideal->code(begin + col)), begin + col);
    }
  }
}

void require(bool condition, std::string_view message) {
  if (!condition) throw std::invalid_argument(std::string(message));
}

void check_shapes(const TruthSource& truth, const TruthSource* erasure, std::span<const Tensor> ideals,
                  const Tensor& got) {
  require(truth.rows() * truth.cols() == got.size(),
          fmt::format("measure: the output has shape {}, but the truth has {} rows of {} values", shape_text(got.shape),
                      truth.rows(), truth.cols()));
  require(erasure == nullptr || (erasure->rows() == truth.rows() && erasure->cols() == truth.cols()),
          "measure: the erasure's truth and the canonical truth differ in shape");
  for (const Tensor& ideal : ideals) {
    require(ideal.format == got.format && ideal.size() == got.size(),
            fmt::format("measure: the output is {} {}, but the ideal is {} {}", name_of(got.format),
                        shape_text(got.shape), name_of(ideal.format), shape_text(ideal.shape)));
  }
}

/// A power of two that keeps squares of the output's values within binary64; 0 but for extreme fp64
/// values.
int scale_of(const Tensor& got) {
  if (got.format != FormatId::fp64) return 0;
  double largest = 0;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const double value = std::fabs(got.value(i));
    if (std::isfinite(value)) largest = std::max(largest, value);
  }
  const int exponent = largest == 0 ? 0 : std::ilogb(largest);
  return std::abs(exponent) > 300 ? -exponent : 0;
}

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

WorstElement worst_of(const Candidate& candidate, const Job& job) {
  WorstElement worst{.at = place_of(candidate.index, job.truth.cols()),
                     .code = job.got.code(candidate.index),
                     .hi = candidate.hi,
                     .lo = candidate.lo,
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

Measures figures_of(Tally& tally, const TaskSums& sums, const Job& job) {
  const std::int64_t cols = job.truth.cols();
  const std::int64_t compared = tally.counts.compared;
  Measures m{.format = job.got.format, .shape = job.got.shape, .elements = job.got.size(), .counts = tally.counts};
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

}  // namespace

Measures measure(const TruthSource& truth, const TruthSource* erasure, std::span<const Tensor> ideals,
                 const Tensor& got, Overflow policy, const MeasureOptions& options) {
  check_shapes(truth, erasure, ideals, got);
  const Format& format = format_of(got.format);
  const double largest = max_finite(format.id);
  const Job job{.truth = truth,
                .erasure = erasure,
                .ideals = options.got_is_ideal ? std::span(&got, 1) : ideals,
                .got = got,
                .policy = policy,
                .options = options,
                .format = format,
                .largest = largest,
                .half_beyond = ulp_of(format.id, format.emax) / 2,
                .tie_overflows = (format.max_finite_code() & 1) != 0,
                .scale = scale_of(got),
                .tolerances = tolerances_for(format.id)};
  require(job.tolerances.size() <= kMaxTolerances, "measure: more tolerances for one format than it has room for");

  const std::int64_t rows = got.size() == 0 ? 0 : truth.rows();
  const std::int64_t rows_a_task = std::max<std::int64_t>(1, kTaskElements / std::max<std::int64_t>(1, truth.cols()));
  const std::int64_t tasks = (rows + rows_a_task - 1) / rows_a_task;
  std::vector<TaskSums> sums(static_cast<std::size_t>(tasks));
  const auto run_task = [&](Tally& tally, std::int64_t task) {
    score_rows(tally, sums[static_cast<std::size_t>(task)], job, task * rows_a_task,
               std::min(rows, (task + 1) * rows_a_task));
  };

  // Each thread takes the next task and keeps a tally of its own.
  const auto threads = static_cast<std::size_t>(
      got.size() < kFewElements ? 1 : std::clamp<std::int64_t>(options.threads, 1, std::max<std::int64_t>(1, tasks)));
  std::vector<Tally> tallies(threads);
  std::vector<std::exception_ptr> errors(threads);
  std::atomic<std::int64_t> next = 0;
  const auto work = [&](std::size_t thread) {
    try {
      for (std::int64_t task = next++; task < tasks; task = next++) run_task(tallies[thread], task);
    } catch (...) {
      errors[thread] = std::current_exception();
      next = tasks;
    }
  };
  {
    std::vector<std::jthread> others;
    for (std::size_t thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
    work(0);
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
  Tally& tally = tallies.front();
  for (std::size_t thread = 1; thread < threads; ++thread) merge(tally, tallies[thread]);

  TaskSums all;
  for (const TaskSums& s : sums) {
    all.truth_squares += s.truth_squares;
    all.truth_error += s.truth_error;
    all.error_squares += s.error_squares;
    all.condition += s.condition;
    all.zeros_condition += s.zeros_condition;
  }
  return figures_of(tally, all, job);
}

Measures measure(const TruthSource& truth, const TruthSource* erasure, const Tensor* ideal, const Tensor& got,
                 Overflow policy, const MeasureOptions& options) {
  return measure(truth, erasure, ideal == nullptr ? std::span<const Tensor>{} : std::span<const Tensor>(ideal, 1), got,
                 policy, options);
}

}  // namespace norma

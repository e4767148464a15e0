// One element decided by its closer enclosure and by exact comparisons.
#include "harness/metrics/element.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/metrics/watched.hpp"

namespace norma {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t kHalfUlp = kGridUlp / 2;

enum class Answer : std::uint8_t { no, yes, undecided };

/// Whether a real y rounds beyond the range.
Answer overflows(const MeasureJob& job, const Element& y) {
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

void count_unexpected(Tally& tally, const MeasureJob& job, const ElementQuery& element) {
  if (std::isnan(element.got)) {
    ++tally.counts.nan_unexpected;
  } else {
    ++tally.counts.inf_unexpected;
  }
  for (bool& refused : tally.refused) refused = true;
  const Candidate candidate{.key = kInfiniteKey, .index = element.index, .ideal = element.ideal};
  tally.keep(candidate);
  if (!element.ideal) return;
  if (same_bits(job.format, *element.ideal, element.code)) {
    ++tally.unexpected_in_ideal;
  } else {
    tally.keep_furthest(candidate);
  }
}

void count_nonfinite(Tally& tally, const MeasureJob& job, double truth, const ElementQuery& element) {
  if (std::isnan(truth)) {
    ++tally.counts.nan_expected;
    if (!std::isnan(element.got)) ++tally.counts.nan_missing;
    return;
  }
  ++tally.counts.inf_expected;
  if (!same_bits(job.format, element.code, encode(job.format.id, truth, job.policy))) ++tally.counts.inf_missing;
}

/// y correctly rounded to binary64, the largest finite number beyond it; empty: undecided.
std::optional<double> nearest_binary64(const Element& y) {
  const auto code = round_to(y, FormatId::fp64, Overflow::saturate_finite);
  return code ? std::optional(decode(FormatId::fp64, *code)) : std::nullopt;
}

/// The figures of a finite got against a real y; false: nothing is known of y.
bool score(const MeasureJob& job, const Element& y, const Enclosure* erasure, const ElementQuery& element,
           bool& undecided, Decided& out, std::size_t at) {
  const Enclosure& truth = y.enclosure;
  const FormatId format = job.format.id;
  std::optional<int> exponent = binade(y, format);
  if (!exponent) {
    undecided = true;
    if (!std::isfinite(truth.radius)) return false;
    exponent = truth.hi == 0 ? job.format.emin : std::max(std::ilogb(truth.hi), job.format.emin);
  }
  const double unit = ulp_of(format, *exponent);
  const ScaledError error = scaled_error(y, element.got, format);
  const std::int64_t magnitude = error.value < 0 ? -error.value : error.value;

  std::uint64_t state = state_bit(settled_field);
  if (element.got == 0) {
    if (compare(y, 0.0) != Comparison::equal) state |= state_bit(underflow_field);
  } else if ((element.code & job.format.exponent_mask()) == 0) {
    state |= state_bit(subnormal_field);
  }

  // Off the grid's own half-way points the rounded error decides: below half an ulp it is the
  // nearest value, above half an ulp not, above one ulp not even a neighbour.
  bool correct = magnitude < kHalfUlp;
  if (magnitude == kHalfUlp || !error.decided) {
    const std::optional<bool> answer = is_correctly_rounded(y, format, job.policy, element.code);
    undecided = undecided || !answer.has_value();
    correct = answer.value_or(false);
  }
  bool faithful = correct;
  if (!correct && (magnitude <= kGridUlp || !error.decided)) {
    const std::optional<bool> answer = is_faithful(y, format, job.policy, element.code);
    undecided = undecided || !answer.has_value();
    faithful = answer.value_or(false);
  }
  undecided = undecided || !error.decided;
  if (correct) state |= state_bit(correct_field);
  if (faithful) state |= state_bit(faithful_field);

  const int coarse = truth.magnitude > 0 && std::isfinite(truth.magnitude)
                         ? std::max(std::ilogb(truth.magnitude), *exponent)
                         : *exponent;
  // y from the decided error, good to 2^-17 ulp: the same on every machine and tier. Where the error says nothing of y,
  // y's nearest binary64 number does.
  double difference = ulps(error.value) * unit, value = element.got - difference;
  if (magnitude >= kScaledErrorLimit || !error.decided) {
    value = nearest_binary64(y).value_or(truth.hi);
    difference = element.got - value;
  }
  out.error[at] = static_cast<double>(error.value);
  out.unit[at] = unit;
  out.per_unit[at] = 1 / unit;
  out.shrink[at] = std::ldexp(1.0, *exponent - coarse);
  out.value[at] = value;
  out.difference[at] = difference;
  out.definition[at] = 0;
  if (erasure != nullptr) {
    const bool finite = std::isfinite(erasure->hi) && std::isfinite(erasure->radius);
    out.definition[at] = finite ? static_cast<double>(definition_part(*erasure, truth, unit)) : kNan;
  }
  out.state[at] = state;
  return true;
}

/// scaled_difference in binary64 where it is farther than `margin` from the half-way points; empty elsewhere.
std::optional<std::int64_t> clear_difference(const Enclosure& a, const Enclosure& b, double unit, double margin) {
  const double grid = static_cast<double>(kGridUlp) / unit;
  const double sum = a.hi - b.hi;
  const double back = sum - a.hi;
  const double rest = (a.hi - (sum - back)) + (-b.hi - back);  // a.hi - b.hi = sum + rest (Knuth's TwoSum)
  const double high = sum * grid;
  const double whole = std::nearbyint(high);
  const double part = (high - whole) + (rest + (a.lo - b.lo)) * grid;
  const double nearest = std::nearbyint(part);
  // Below 2^46 units and with low halves of less than 2^26, part is good to 2^-25.
  const bool clear = unit > 0x1p-900 && std::fabs(high) < 0x1p46 && std::fabs(part) < 0x1p26 &&
                     std::fabs(part - nearest) < 0.5 - margin;
  return clear ? std::optional(static_cast<std::int64_t>(whole + nearest)) : std::nullopt;
}

}  // namespace

std::int64_t implementation_part(double got, double ideal, double unit) {
  const Enclosure a{.hi = got}, b{.hi = ideal};
  const auto clear = clear_difference(a, b, unit, 0x1p-20);
  return clear ? *clear : scaled_difference(a, b, unit);
}

std::int64_t definition_part(const Enclosure& erasure, const Enclosure& truth, double unit) {
  if (const auto clear = clear_difference(erasure, truth, unit, 4 * kHalfwayMargin)) return *clear;
  const double margin = kHalfwayMargin * unit / static_cast<double>(kGridUlp);
  const std::int64_t low = scaled_difference(erasure, truth, unit, -margin);
  const std::int64_t high = scaled_difference(erasure, truth, unit, margin);
  return low == high || (low & 1) == 0 ? low : high;
}

bool count_special(Tally& tally, const MeasureJob& job, const ElementQuery& element, double mid, double radius) {
  if (!std::isfinite(mid)) {
    count_nonfinite(tally, job, mid, element);
    return true;
  }
  // As a negation, so that an infinite or undefined radius tells nothing.
  if (std::isfinite(element.got) || !(std::fabs(mid) + radius < job.largest)) return false;
  count_unexpected(tally, job, element);
  return true;
}

void decide_element(Tally& tally, const MeasureJob& job, const ElementQuery& element, const Enclosure& truth,
                    const Enclosure* erasure, Decided& decided, std::size_t at) {
  decided.state[at] = 0;
  const WatchedTruth watched(job.truth);
  const Element y{.truth = watched, .row = element.row, .col = element.col, .enclosure = truth};
  bool undecided = false;
  const auto decide = [&] {
    if (!std::isfinite(truth.hi)) {
      count_nonfinite(tally, job, truth.hi, element);
      return;
    }
    const Answer over = overflows(job, y);
    if (over == Answer::yes) {
      ++tally.counts.overflow;
      const bool negative = std::signbit(truth.hi);
      const std::uint64_t sign = negative ? job.format.sign_code() : 0;
      if (same_bits(job.format, element.code, beyond_code(job.format, job.policy, sign, false))) return;
    }
    if (!std::isfinite(element.got)) {
      count_unexpected(tally, job, element);
      return;
    }
    undecided = over == Answer::undecided;
    if (!score(job, y, erasure, element, undecided, decided, at)) ++tally.counts.unknown;
  };
  decide();
  Tier tier = truth.tier;
  if (erasure != nullptr) tier = std::max(tier, erasure->tier);
  if (undecided) {
    ++tally.counts.undecided;
    ++tally.tiers.undecided;
  } else {
    tally.tiers.settle(watched.settled(tier));
  }
}

Midpoint midpoint_of(const Element& y) {
  const Enclosure& e = y.enclosure;
  if (!std::isfinite(e.hi) || !std::isfinite(e.radius)) return {e.hi, e.lo};
  const std::optional<double> hi = nearest_binary64(y);
  if (!hi || *hi == e.hi) return {e.hi, e.lo};
  return {*hi, (e.hi - *hi) + e.lo};  // neighbours: the difference is exact
}

}  // namespace norma

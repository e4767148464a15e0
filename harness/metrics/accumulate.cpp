// Sums, maxima and counts of a run's decided numbers.
#include "harness/metrics/accumulate.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "harness/metrics/grid.hpp"
#include "reference/formats/clones.hpp"

namespace norma {

namespace {

constexpr double kGrid = static_cast<double>(kGridUlp);
constexpr double kSaturation = static_cast<double>(kScaledErrorLimit);

/// Nearest integer, ties to even, for magnitudes below 2^51.
double nearest(double x) { return (x + 0x1.8p52) - 0x1.8p52; }

/// What a run comes to beside its errors. The zeros are of the same elements, had the output been all zeros.
struct Derived {
  alignas(64) RunArray magnitude, condition, zeros, zeros_error, zeros_condition;
  alignas(64) std::array<std::uint32_t, kRunElements> truth_key, zeros_key;
  std::int64_t zeros_correct = 0, zeros_faithful = 0;
};

/// leading_bits of an integer below 2^53, from its binary64 form: its exponent and seven bits follow each other there.
std::uint32_t leading_bits_of(double integer) {
  const auto from_bits = static_cast<std::uint32_t>(std::bit_cast<std::uint64_t>(integer) >> 45) - (1023 + 6) * 128;
  return integer < 256 ? static_cast<std::uint32_t>(static_cast<std::int32_t>(integer)) : from_bits;
}

NORMA_CLONES void derive(const Decided& __restrict d, std::size_t count, Derived& __restrict out) {
  std::int64_t correct = 0, faithful = 0;
  for (std::size_t j = 0; j < count; ++j) {
    const double magnitude = std::fabs(d.error[j]);
    const double per_ulp = d.shrink[j] * (1 / kGrid);
    const double size = std::fabs(d.value[j]);
    const double scaled = size / d.unit[j] * kGrid;
    const double zeros = nearest(scaled < kSaturation ? scaled : kSaturation);
    out.magnitude[j] = magnitude;
    out.condition[j] = magnitude * per_ulp;
    out.zeros[j] = zeros;
    out.zeros_error[j] = d.value[j] > 0 ? -zeros : zeros;
    out.zeros_condition[j] = zeros * per_ulp;
    correct += zeros <= 0.5 * kGrid ? 1 : 0;
    faithful += zeros < kGrid ? 1 : 0;
  }
  for (std::size_t j = 0; j < count; ++j) {
    out.truth_key[j] = static_cast<std::uint32_t>(std::bit_cast<std::uint64_t>(std::fabs(d.value[j])) >> 45);
    out.zeros_key[j] = leading_bits_of(out.zeros[j]);
  }
  out.zeros_correct = correct;
  out.zeros_faithful = faithful;
}

std::span<const double> first(const RunArray& values, std::size_t count) { return std::span(values).first(count); }

/// The largest value, which is returned, and its first place.
double see(Largest& known, const RunArray& values, std::span<const std::int64_t> index) {
  const double top = largest_magnitude(first(values, index.size()));
  if (known.index < 0 || top > known.value) {
    const auto at = std::find(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(index.size()), top);
    known.see(top, index[static_cast<std::size_t>(at - values.begin())]);
  }
  return top;
}

/// What a tolerance admits of each element, in ulp; how many it refuses.
NORMA_CLONES std::int64_t admit(double atol, double rtol, const Decided& __restrict d, std::size_t count,
                                RunArray& __restrict in_ulp) {
  std::int64_t refused = 0;
  for (std::size_t j = 0; j < count; ++j) {
    const double admitted = atol + rtol * std::fabs(d.value[j]);
    in_ulp[j] = admitted * d.per_unit[j];
    refused += std::fabs(d.difference[j]) <= admitted ? 0 : 1;
  }
  return refused;
}

/// Five sums side by side, each in element order.
void add_sums(TaskSums& sums, const Decided& d, const Derived& derived, std::size_t count, int scale) {
  TaskSums s = sums;
  for (std::size_t j = 0; j < count; ++j) {
    const double difference = scale == 0 ? d.difference[j] : std::ldexp(d.difference[j], scale);
    const double value = scale == 0 ? d.value[j] : std::ldexp(d.value[j], scale);
    s.truth_squares += value * value;
    s.truth_error += difference * value;
    s.error_squares += difference * difference;
    s.condition += derived.condition[j];
    s.zeros_condition += derived.zeros_condition[j];
  }
  sums = s;
}

/// The parts of the split elements, moved together in place; how many there are.
std::size_t split_parts(Decided& d, RunArray& total, RunArray& path, std::size_t count) {
  std::size_t kept = 0;
  for (std::size_t j = 0; j < count; ++j) {
    if (std::isnan(d.definition[j]) || std::isnan(d.implementation[j])) continue;
    total[kept] = d.error[j];
    path[kept] = d.error[j] - d.definition[j] - d.implementation[j];
    d.definition[kept] = d.definition[j];
    d.implementation[kept] = d.implementation[j];
    ++kept;
  }
  return kept;
}

void add_split(Tally& tally, const ScoredRun& run, const GridSum& error) {
  Decided& d = run.decided;
  if (!run.has_definition && !run.has_implementation) {  // all of it belongs to the path
    tally.split_total.merge(error);
    tally.path.merge(error);
    tally.definition.count += error.count;
    tally.implementation.count += error.count;
    return;
  }
  alignas(64) RunArray total, path;
  const std::size_t count = split_parts(d, total, path, run.index.size());
  tally.split_total.add(first(total, count));
  tally.definition.add(first(d.definition, count));
  tally.path.add(first(path, count));
  tally.implementation.add(first(d.implementation, count));
}

}  // namespace

void accumulate(Tally& tally, TaskSums& sums, const MeasureJob& job, const ScoredRun& run) {
  const std::size_t count = run.index.size();
  if (count == 0) return;
  Decided& d = run.decided;
  Derived derived;
  derive(d, count, derived);

  const double top = see(tally.max, derived.magnitude, run.index);
  GridSum error;
  error.add(first(d.error, count), top);
  tally.error.merge(error);
  add_errors(first(d.error, count), top, tally.magnitudes, tally.histogram);
  if (error.largest >= kScaledErrorLimit) {
    tally.counts.beyond_scale += std::count(
        derived.magnitude.begin(), derived.magnitude.begin() + static_cast<std::ptrdiff_t>(count), kSaturation);
  }
  see(tally.condition, derived.condition, run.index);
  tally.truths.add(std::span(derived.truth_key).first(count));
  add_sums(sums, d, derived, count, job.scale);

  for (std::size_t i = 0; i < job.tolerances.size(); ++i) {
    alignas(64) RunArray in_ulp;
    const std::int64_t refused = admit(job.tolerances[i].atol, job.tolerances[i].rtol, d, count, in_ulp);
    tally.admits[i] = std::max(tally.admits[i], largest_magnitude(first(in_ulp, count)));
    tally.refused[i] = tally.refused[i] || refused > 0;
  }

  const double zeros_top = see(tally.zeros_max, derived.zeros, run.index);
  tally.zeros_error.add(first(derived.zeros_error, count), zeros_top);
  tally.zeros_magnitudes.add(std::span(derived.zeros_key).first(count));
  see(tally.zeros_condition, derived.zeros_condition, run.index);
  tally.zeros_correct += derived.zeros_correct;
  tally.zeros_faithful += derived.zeros_faithful;
  add_split(tally, run, error);
}

}  // namespace norma

// What a pass over an output keeps.
#include "harness/metrics/tally.hpp"

#include <algorithm>
#include <cstdlib>

namespace norma {

namespace {

constexpr std::size_t kWorst = 8;

bool worse(const Candidate& a, const Candidate& b) { return a.key != b.key ? a.key > b.key : a.index < b.index; }

std::int64_t distance(const Candidate& c) { return c.split ? std::abs(c.split->implementation) : kInfiniteKey; }

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
  a.unknown += b.unknown;
  a.beyond_scale += b.beyond_scale;
}

}  // namespace

std::int64_t Tally::least_worst_key() const { return worst.size() < kWorst ? -1 : worst.back().key; }

std::int64_t Tally::furthest_distance() const { return furthest ? distance(*furthest) : -1; }

void Tally::keep(const Candidate& candidate) {
  if (worst.size() == kWorst && !worse(candidate, worst.back())) return;
  worst.insert(std::upper_bound(worst.begin(), worst.end(), candidate, worse), candidate);
  if (worst.size() > kWorst) worst.pop_back();
}

void Tally::keep_furthest(const Candidate& candidate) {
  const std::int64_t own = distance(candidate), known = furthest_distance();
  if (own > known || (own == known && candidate.index < furthest->index)) furthest = candidate;
}

void merge(Tally& a, Tally& b) {
  merge(a.counts, b.counts);
  a.tiers += b.tiers;
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

}  // namespace norma

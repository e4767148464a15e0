// What a pass over an output keeps, one per thread: counts, sums on the grid, the worst elements.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "harness/metrics/grid.hpp"
#include "harness/metrics/measures.hpp"
#include "harness/metrics/tolerances.hpp"

namespace norma {

inline constexpr std::size_t kMaxTolerances = 8;

/// What stays the same for all elements.
struct MeasureJob {
  const TruthSource& truth;
  const TruthSource* erasure;
  std::span<const Tensor> ideals;
  const Tensor& got;
  Overflow policy;
  const MeasureOptions& options;
  const Format& format;
  double largest, half_beyond;  ///< magnitudes above largest + half_beyond round beyond the range
  bool tie_overflows;           ///< and so does the sum itself: the largest significand is odd
  int scale;                    ///< 2-norms are summed of values times 2^scale, against overflow of squares
  std::vector<Tolerance> tolerances;
};

/// Sums in binary64 of one task, in element order. Their terms come from decided errors, not from midpoints.
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

/// One that may be among the worst elements; its truth is asked for again at the end.
struct Candidate {
  std::int64_t key = 0;  ///< |error|; infinite first
  std::int64_t index = 0;
  std::int64_t error = 0;
  std::optional<std::uint64_t> ideal{};
  std::optional<Split> split{};
};
inline constexpr std::int64_t kInfiniteKey = std::numeric_limits<std::int64_t>::max();

/// What does not depend on the order of elements; merged at the end.
struct Tally {
  Counts counts;
  TierCounts tiers;
  GridSum error, split_total, definition, path, implementation, zeros_error;
  GridCounts magnitudes, zeros_magnitudes, truths;
  std::array<std::int64_t, kHistogramBins> histogram{};
  Largest max, condition, zeros_max, zeros_condition;
  std::int64_t correct = 0, faithful = 0, zeros_correct = 0, zeros_faithful = 0;
  std::int64_t equal = 0, first_difference = -1, ideal_nonfinite = 0, zeros_equal = 0, unexpected_in_ideal = 0;
  std::array<double, kMaxTolerances> admits{};
  std::array<bool, kMaxTolerances> refused{};
  std::vector<Candidate> worst;
  std::optional<Candidate> furthest;  ///< from its ideal, of those whose bits differ; the first of those as far

  /// An element that cannot be among the worst any more has a key of at most this and a later index.
  std::int64_t least_worst_key() const;
  std::int64_t furthest_distance() const;  ///< -1: none yet
  void keep(const Candidate& candidate);
  void keep_furthest(const Candidate& candidate);
};

/// Empties `b` in part.
void merge(Tally& a, Tally& b);

/// The figures that all of it comes to.
Measures figures_of(Tally& tally, const TaskSums& sums, const MeasureJob& job);

inline bool same_bits(const Format& format, std::uint64_t a, std::uint64_t b) {
  return a == b || (is_nan_code(format.id, a) && is_nan_code(format.id, b));
}

}  // namespace norma

// The last pass over a run: sums, maxima and counts of decided numbers. Nothing here knows where they come from.
#pragma once

#include <cstdint>
#include <span>

#include "harness/metrics/settle.hpp"
#include "harness/metrics/tally.hpp"

namespace norma {

/// The scored elements of a run, moved together: `index[j]` is the place of the j-th in the output. A part that there
/// is not stands as zeros.
struct ScoredRun {
  Decided& decided;
  std::span<const std::int64_t> index;
  bool has_definition, has_implementation;
};

void accumulate(Tally& tally, TaskSums& sums, const MeasureJob& job, const ScoredRun& run);

}  // namespace norma

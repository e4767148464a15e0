// The last pass over a run: sums, maxima and counts of decided numbers. Nothing here knows where they come from.
#pragma once

#include <cstdint>
#include <span>

#include "harness/metrics/settle.hpp"
#include "harness/metrics/tally.hpp"

namespace norma {

/// The scored elements of a run, moved together: `index[j]` is the place of the j-th in the output. `split` and `parts`
/// are as in MeasureJob: whether the error is split at all, and whether its parts can differ from 0 and the whole.
struct ScoredRun {
  Decided& decided;
  std::span<const std::int64_t> index;
  bool has_definition, has_implementation;
};

void accumulate(Tally& tally, TaskSums& sums, const MeasureJob& job, const ScoredRun& run);

}  // namespace norma

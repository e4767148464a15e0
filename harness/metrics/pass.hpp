// The pass over an output: encloses rows, settles, decides what is left, sums up.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "harness/metrics/element.hpp"
#include "harness/metrics/settle.hpp"
#include "harness/metrics/tally.hpp"

namespace norma {

/// One thread's share. Rows must come in ascending order.
class RowPass {
 public:
  explicit RowPass(const MeasureJob& job);
  void measure(TaskSums& sums, std::int64_t row_begin, std::int64_t row_end);
  Tally& tally() { return tally_; }

 private:
  /// Quick enclosures of the rows in hand.
  struct QuickRows {
    std::vector<double> mid, radius, magnitude;
    QuickRun from(std::size_t at) const { return {mid.data() + at, radius.data() + at, magnitude.data() + at}; }
  };
  /// Closer enclosures, of the row that was last asked for as a whole.
  struct CloserRow {
    std::int64_t row = -1;
    std::vector<Enclosure> enclosures;
  };
  struct Segment {  // the part of a row in a run
    std::int64_t row, begin, end;
  };

  void enclose(const TruthSource& truth, QuickRows& into, std::int64_t row_begin, std::int64_t row_end);
  void choose_ideals(std::int64_t row_begin, std::int64_t row_end);
  void measure_run(TaskSums& sums, std::int64_t begin, std::int64_t end);
  void settle_run(std::size_t count);
  void decide_open(const Segment& segment);
  Enclosure closer(const TruthSource& truth, CloserRow& held, std::int64_t row, std::int64_t col, bool whole);
  void compare_with_ideal(std::size_t count);
  void move_together(std::size_t count, std::int64_t scored);
  void keep_candidates();
  Candidate candidate_at(std::size_t j) const;
  std::int64_t row_of(std::int64_t index) const { return index / cols_; }
  const Tensor* ideal_of(std::int64_t index) const;

  const MeasureJob& job_;
  const SettleFormat format_;
  const std::int64_t cols_;
  Tally tally_;
  // Of the rows in hand.
  std::int64_t batch_begin_ = 0;
  QuickRows truth_, erasure_;
  std::vector<Tier> tiers_;
  std::vector<const Tensor*> ideals_;
  CloserRow closer_truth_, closer_erasure_;
  // Of the run in hand.
  std::int64_t run_begin_ = 0;
  std::unique_ptr<Decided> decided_;
  alignas(64) RunArray got_, ideal_;
  std::vector<std::int64_t> index_;  ///< of the scored elements
  bool any_differs_ = false;         ///< from its ideal
};

}  // namespace norma

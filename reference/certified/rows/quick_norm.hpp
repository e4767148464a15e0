// The binary64 tier of the row norms: enclosures, roundings and scores of whole rows with a proved a-priori bound.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "reference/certified/rows/row_norm.hpp"

namespace norma {

/// Signed errors of the elements that binary64 could score, summed row after row (RowScore's words).
struct RowScoreSums {
  std::int64_t scored = 0, not_scored = 0;
  std::int64_t incorrect = 0, near_half = 0;
  double max = 0;
  std::int64_t max_row = -1;  ///< the first row that has it; find_error gives the column
  double sum = 0, sum_abs = 0, sum_squares = 0;
  double bar = 0;
};

/// An error is scored here if it is known to this many ulp.
inline constexpr double kScoreBar = 0x1p-20;

/// |error| is cut off here, as in decide.hpp: binary64 cannot hold larger ones to kScoreBar.
inline constexpr double kScoreLimit = 0x1p32;

/// Domain:  norms for which has_fast_tiers is true. The tensors must outlive it.
/// Threads: all functions are thread-safe; each thread has its own memory for a row.
/// Results: the same bits at every vector width, with and without FMA.
class QuickNorm {
 public:
  explicit QuickNorm(const RowNorm& norm);
  QuickNorm(QuickNorm&&) noexcept;
  QuickNorm& operator=(QuickNorm&&) noexcept;
  ~QuickNorm();

  /// Midpoint, radius, magnitude of a row's elements, as TruthSource::enclose_quick. The spans hold cols numbers each.
  void enclose(std::int64_t row, const QuickRow& out) const;

  /// The row's correctly rounded codes, to `stored` (cols elements in storage layout). The columns that binary64 does
  /// not settle are appended to `open`, ascending; their codes are any.
  void round_row(std::int64_t row, FormatId format, Overflow overflow, std::byte* stored,
                 std::vector<std::uint32_t>& open) const;

  /// Short rows at once, so that the latency of one row's statistics hides behind the others'. Rounds rows first, first +
  /// 1, ... (at most kAhead) as round_row does; bit k of the answer tells that row first + k is done with nothing open.
  /// The others' codes are any. Nothing is done where rows are long or need more than this.
  static constexpr std::int64_t kAhead = 8;
  std::uint32_t round_ahead(std::int64_t first, std::int64_t count, FormatId format, Overflow overflow,
                            std::byte* stored) const;

  /// Adds the row's errors of `got` (cols elements of `format` in storage layout) to `sums`. The columns whose error is
  /// not known to kScoreBar here, or that may not be scored, are appended to `open`, ascending, and are in no sum.
  void score_row(std::int64_t row, FormatId format, const std::byte* got, RowScoreSums& sums,
                 std::vector<std::uint32_t>& open) const;

  /// The first column that score_row scores with an |error| of `size`; -1 if there is none.
  std::int64_t find_error(std::int64_t row, FormatId format, const std::byte* got, double size) const;

 private:
  struct State;
  std::unique_ptr<const State> state_;
};

}  // namespace norma

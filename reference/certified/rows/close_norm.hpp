// The double-double tier of the row norms, and the exact one where a row's root is rational.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "reference/certified/rows/close_columns.hpp"
#include "reference/certified/rows/close_row.hpp"
#include "reference/certified/rows/row_norm.hpp"
#include "reference/exact/enclosure.hpp"

namespace norma {

/// Enclosures of columns, an array a figure. Infinite radius: not known here.
struct CloseArrays {
  std::span<double> hi, lo, radius, magnitude;
};

/// Domain:  norms for which has_fast_tiers is true. The tensors must outlive it.
/// Threads: all functions are thread-safe. Results: the same bits at every vector width, with and without FMA.
/// Columns: as many as the arrays hold; what a column gets does not depend on the others.
class CloseNorm {
 public:
  explicit CloseNorm(const RowNorm& norm);

  /// What all columns of a row need, kept for the rows of its group.
  std::shared_ptr<const CloseRow> row_at(std::int64_t row) const;

  void enclose(const CloseRow& row, std::int64_t at, const ColumnList& columns, const CloseArrays& out) const;
  Enclosure enclose(std::int64_t row, std::int64_t col) const;

  /// A binary64 number next to y and the side of it on which y lies (close_loops.hpp): exact. NaN side: not known here.
  /// False, and nothing is written, if the row's root is not known to be rational.
  bool bracket(const CloseRow& row, std::int64_t at, const ColumnList& columns, std::span<double> value,
               std::span<double> side) const;

  /// A binary64 number from which any rounding to 30 bits or fewer is that of y (NaN and Inf: y is). NaN side: not
  /// known here. At most kCloseBlock columns. Returns the tier.
  Tier odd(const CloseRow& row, std::int64_t at, const ColumnList& columns, std::span<double> odd,
           std::span<double> side) const;

 private:
  bool odd_at_once(const CloseRow& row, std::int64_t at, const ColumnList& columns, std::span<double> odd,
                   std::span<double> side) const;

  struct Slot {
    std::int64_t group = -1;
    std::shared_ptr<const CloseRow> value;
  };
  RowNorm norm_;
  bool plain_;  ///< x, weight and bias alone take part
  mutable std::mutex mutex_;
  mutable std::vector<Slot> slots_;
};

}  // namespace norma

// The double-double tier of the row norms, and the exact one where a row's root is rational.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "reference/certified/rows/close_loops.hpp"
#include "reference/certified/rows/row_norm.hpp"
#include "reference/exact/enclosure.hpp"

namespace norma {

/// What the rows of one group have in common:  y = w s n r + bias,  n = factor h - centre  (centre and r scaled alike,
/// so that a mean costs no rounding: n = D h - sum h).
struct CloseRow {
  double factor = 1;
  DoubleDouble centre;
  double centre_error = 0;  ///< of n, absolute
  DoubleDouble r;           ///< NaN, 0 or Inf where IEEE's rules say so
  double relative = 0;      ///< of y - bias, all roundings included
  bool known = true;        ///< false: double-double cannot tell
  std::optional<RationalRoot> rational;
};

/// Enclosures of columns, an array a figure. Infinite radius: not known here.
struct CloseArrays {
  std::span<double> hi, lo, radius, magnitude;
};

/// Domain:  norms for which has_fast_tiers is true. The tensors must outlive it.
/// Threads: all functions are thread-safe. Results: the same bits at every vector width, with and without FMA.
class CloseNorm {
 public:
  explicit CloseNorm(const RowNorm& norm);

  /// Columns first, first + 1, ... as many as `out` holds; what a column gets does not depend on the others.
  void enclose(std::int64_t row, std::int64_t first, const CloseArrays& out) const;
  Enclosure enclose(std::int64_t row, std::int64_t col) const;

  /// The same columns as a binary64 number next to y and the side of it on which y lies (close_loops.hpp): exact. NaN
  /// side: not known here. False, and nothing is written, if the row's root is not known to be rational.
  bool bracket(std::int64_t row, std::int64_t first, std::span<double> value, std::span<double> side) const;

 private:
  std::shared_ptr<const CloseRow> row_at(std::int64_t row) const;

  struct Slot {
    std::int64_t group = -1;
    std::shared_ptr<const CloseRow> value;
  };
  RowNorm norm_;
  mutable std::mutex mutex_;
  mutable std::vector<Slot> slots_;
};

}  // namespace norma

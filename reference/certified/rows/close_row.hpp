// Centre and factor of a row in double-double.
#pragma once

#include <cstdint>
#include <optional>

#include "reference/certified/rows/close_loops.hpp"
#include "reference/certified/rows/row_norm.hpp"

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
  bool narrow = false;      ///< every n is factor h - centre.h in binary64, exactly
  std::optional<RationalRoot> rational;
};

CloseRow read_close_row(const RowNorm& norm, std::int64_t group);

}  // namespace norma

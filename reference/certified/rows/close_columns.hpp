// Columns of a row as the double-double tier reads them: values and parameters as arrays of pairs.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "reference/certified/rows/close_loops.hpp"
#include "reference/certified/rows/row_norm.hpp"

namespace norma {

/// Columns first, first + 1, ..., or those of a list.
struct ColumnList {
  std::int64_t first = 0;
  std::size_t count = 0;
  const std::uint32_t* list = nullptr;

  std::int64_t at(std::size_t i) const { return list == nullptr ? first + static_cast<std::int64_t>(i) : list[i]; }
  /// `some` of them from the i-th on, or as many as there are.
  ColumnList part(std::size_t i, std::size_t some) const {
    const std::size_t left = std::min(some, count - i);
    return list == nullptr ? ColumnList{first + static_cast<std::int64_t>(i), left} : ColumnList{0, left, list + i};
  }
};

/// A thread's memory for at most kCloseBlock columns.
struct CloseBlock {
  alignas(64) std::array<double, kCloseBlock> h, l;
  Pairs pairs() { return {h.data(), l.data()}; }
  ConstPairs values() const { return {h.data(), l.data()}; }
};

/// t[first + column] for every column; Number is double or float.
template <class Number>
void load_values(const Tensor& t, std::int64_t first, const ColumnList& columns, Number* out);

/// The tensor's values without the offset; without a tensor the neutral element.
template <class Number>
void load_values(const Parameter& p, Number neutral, std::int64_t row, const ColumnList& columns, Number* out);

/// The same where they lie in memory as floats already, else in `spare`, which has room for the columns.
const float* floats_at(const Tensor& t, std::int64_t first, const ColumnList& columns, float* spare);

/// h = x + residual, exactly. `spare` has room for the columns.
void load_elements(const RowNorm& norm, std::int64_t row, const ColumnList& columns, Pairs out, double* spare);

/// offset + tensor, exactly; without a tensor the neutral element.
void load_parameter(const Parameter& p, double neutral, std::int64_t row, const ColumnList& columns, Pairs out,
                    double* spare);

}  // namespace norma

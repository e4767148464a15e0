// The orders in which a Reduce adds, each written once for every accumulator (sums: orders.cpp, moments: moments.cpp).
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "reference/program/program.hpp"

namespace norma {

struct Moments {
  double mean = 0;
  double variance = 0;  ///< biased
};

/// The sum of `terms` (or of their squares by fma where `contract`) in an accumulator of format `accumulator`,
/// in the given order, starting from +0. Terms are values of the accumulator's format (contract: of any format
/// whose square fits binary64 exactly). fp32 terms come as float, others as double.
double ordered_sum(const Order& order, FormatId accumulator, bool contract, std::span<const float> terms);
double ordered_sum(const Order& order, FormatId accumulator, bool contract, std::span<const double> terms);
/// The same of terms that are added unrounded wherever the order contracts. `column`: which column of a matrix these
/// terms are, for orders that differ between columns.
double fused_sum(const Order& order, FormatId accumulator, std::span<const double> terms);
double column_sum(const Order& order, FormatId accumulator, std::span<const double> terms, std::int64_t column);

/// The fp32 sum of squares that are each rounded to fp32: ordered_sum over them. `scratch` may hold them.
double fp32_square_sum(const Order& order, std::span<const float> values, std::vector<float>& scratch);

/// Mean and biased variance; ProgramError if the order gives none.
Moments ordered_moments(const Order& order, FormatId accumulator, bool contract, std::span<const double> terms);

/// The exact sum of binary64 numbers, rounded once to `target`, ties to even.
double exact_sum(std::span<const double> terms, FormatId target, Overflow overflow);

}  // namespace norma

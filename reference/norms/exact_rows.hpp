// Exact numbers of rows: an element, the sums over the elements that share their statistics.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>

#include "reference/exact/real.hpp"
#include "reference/formats/tensor.hpp"

namespace norma {

__extension__ typedef __int128 Wide;

/// -0 is neutral in IEEE addition: it leaves the sign of a zero alone.
inline constexpr double kNeutral = -0.0;

/// a + b over the reals, of binary64 numbers. `negative` is the sign bit that IEEE addition would give.
struct Sum {
  double a = 0, b = kNeutral;
  bool is_nan() const { return std::isnan(a) || std::isnan(b) || (std::isinf(a) && std::isinf(b) && a != b); }
  bool is_infinite() const { return std::isinf(a) || std::isinf(b); }
  bool is_zero() const { return a == -b; }
  bool negative() const { return is_zero() ? std::signbit(a) && std::signbit(b) : a < -b; }
  /// The value as one binary64 number if it is one: no rounding error (TwoSum, Knuth), no overflow.
  std::optional<double> single() const {
    const double s = a + b;
    const double t = s - a;
    const double error = (a - (s - t)) + (b - t);
    return std::isfinite(s) && error == 0 ? std::optional(s) : std::nullopt;
  }
  Dyadic exact() const { return Dyadic(a) + Dyadic(b); }
};

/// The elements h = x + residual of rows group, group + groups, ... of a view rows x cols.
struct GroupElements {
  const Tensor* x = nullptr;
  const Tensor* residual = nullptr;  ///< null: none
  std::int64_t rows = 0, cols = 0, groups = 0, group = 0;
  Sum at(std::int64_t row, std::int64_t col) const {
    const std::int64_t i = row * cols + col;
    return {x->value(i), residual == nullptr ? kNeutral : residual->value(i)};
  }
  std::int64_t count() const { return (rows - group + groups - 1) / groups * cols; }
};

/// Their sums over the reals.
struct ExactSums {
  bool nan = false, positive_infinity = false, negative_infinity = false;  ///< there is one; then the rest says nothing
  Dyadic sum, squares;                                                     ///< of h and h^2; a zero is +0
  /// Ordinary spread: every h is k 2^unit with |k| < 2^53, and the sum is units 2^unit.
  bool ordinary = false;
  int unit = 0;
  Wide units = 0;

  bool finite() const { return !nan && !positive_infinity && !negative_infinity; }
};
ExactSums exact_sums(const GroupElements& elements);

}  // namespace norma

// What both ways to a product of balls share: rows of a matrix, the grids that they are cut on, bounds of norms.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "reference/certified/products/ball_matmul.hpp"

namespace norma::ball_products {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();
inline constexpr double kSmallest = 0x1p-400, kLargest = 0x1p400;

/// Enough for all roundings of sums of squares, products and additions of bounds below 2^20 terms.
inline double up(double bound) { return bound * (1 + 0x1p-30); }

/// A power of two not below |x|; 0 for 0; infinite for what is not finite or out of range.
double ceiling(double largest);

/// The most bits a slice may have beside one of `other` bits: K (2^s + 1)(2^other + 1) <= 2^53; at least 1.
int bits_beside(int other, std::int64_t depth);
/// The most bits that the slices of both sides may have.
int bits_of_both(std::int64_t depth);

/// At least sqrt(total), `total` a computed sum of squares of numbers in [-2^400, 2^400]: where squares may have
/// underflowed 2^-440, or 0 if `zero` says that all are.
double norm_from(double total, bool zero);

/// Two slices: two products in binary64 where b's values are 16 bits wide or less, three elsewhere.
BallTensor quick_matmul(const BallMatrix& a, const BallMatrix& b, const BallTensor* bias, int threads);

}  // namespace norma::ball_products

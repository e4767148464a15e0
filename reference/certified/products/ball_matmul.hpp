// Products of matrices of balls: what a linear layer makes of values that are known up to a radius.
#pragma once

#include <cstdint>
#include <vector>

#include "reference/certified/programs/ball_program.hpp"
#include "reference/formats/tensor.hpp"

namespace norma {

/// Rows of equal length, one after the other: of a tensor's exact numbers, or of balls.
struct BallMatrix {
  std::int64_t rows = 0, depth = 0;
  const Tensor* exact = nullptr;
  const BallTensor* balls = nullptr;
  std::int64_t first = 0;  ///< the element that the first row begins with
};

/// Slices of each factor; the last one is what the others leave. Products of the first slices are exact, what is left is
/// added in binary64: errors of about K 2^-73 |a| |b| for two, of double-double for four.
inline constexpr int kQuickSlices = 2, kCloseSlices = 4;

/// c[i][j] = sum over k of a[i][k] b[j][k] + bias[j], row-major [a.rows, b.rows]; no bias: 0.
///
/// Radii:   c's radius covers all that a's, b's and the bias' balls allow.
/// Special: nothing is claimed (an infinite radius) where a row holds what is not finite or beyond 2^+-400.
/// Threads: same bits for any number of them.
BallTensor ball_matmul(const BallMatrix& a, const BallMatrix& b, const BallTensor* bias, int slices, int threads = 1);

}  // namespace norma

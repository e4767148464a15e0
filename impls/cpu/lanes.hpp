// Sums of a row in lanes: term i goes into accumulator i mod n, and the accumulators are added in order at the end. The
// bits are the same at every vector width.
#pragma once

#include <cstddef>

#include "reference/program/program.hpp"

namespace norma {

constexpr int kFloatLanes = 16;  ///< one AVX-512 register, two of AVX2
constexpr int kDoubleLanes = 8;
inline constexpr Order kInFloatLanes{.kind = OrderKind::lanes, .count = kFloatLanes};
inline constexpr Order kInDoubleLanes{.kind = OrderKind::lanes, .count = kDoubleLanes};

/// Each operation rounded to fp32.
float sum_in_lanes(const float* x, std::size_t cols);
float square_sum_in_lanes(const float* x, std::size_t cols);
float deviation_sum_in_lanes(const float* x, float mean, std::size_t cols);  ///< of (x - mean)^2

/// Each operation rounded to binary64.
double double_sum_in_lanes(const float* x, std::size_t cols);
double double_square_sum_in_lanes(const float* x, std::size_t cols);
double double_deviation_sum_in_lanes(const float* x, double mean, std::size_t cols);

/// A Reduce that adds values or their squares, each rounded to the accumulator's format.
Reduction mean_of(Term term, Order order);

}  // namespace norma

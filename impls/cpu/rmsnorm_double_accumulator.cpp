// RMSNorm's statistic in binary64: exact squares, 8 accumulators, one rounding of r to fp32.
#include <algorithm>
#include <cmath>

#include "impls/cpu/rmsnorm.hpp"
#include "reference/formats/clones.hpp"

namespace norma {

namespace {

constexpr std::size_t kLanes = 8;

NORMA_CLONES double sum_of_squares(const float* x, std::size_t cols) {
  double lane[kLanes] = {};
  const auto square = [](float v) { return static_cast<double>(v) * static_cast<double>(v); };
  std::size_t i = 0;
  for (; i + kLanes <= cols; i += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) lane[l] += square(x[i + l]);
  for (std::size_t l = 0; i < cols; ++i, ++l) lane[l] += square(x[i]);
  double sum = lane[0];
  for (std::size_t l = 1; l < kLanes; ++l) sum += lane[l];
  return sum;
}

float reciprocal_root(const float* x, std::size_t cols, double eps) {
  const double mean_square = sum_of_squares(x, cols) / static_cast<double>(cols);
  return static_cast<float>(1.0 / std::sqrt(mean_square + eps));
}

Operand declare(Builder& b, Operand x, Operand eps) {
  const Operand mean_square = b.reduce("ms", kFp64, x,
                                       {.kind = ReduceKind::mean,
                                        .term = Term::square,
                                        .order = {.kind = OrderKind::lanes, .count = static_cast<int>(kLanes)},
                                        .contract = false,
                                        .term_format = {}});
  const Operand rms = b.sqrt("rms", kFp64, b.add("ms_eps", kFp64, mean_square, eps));
  return b.cast("r", kFp32, b.map("r_f64", Op::reciprocal, kFp64, {rms}));
}

// One rounding to fp32, and 2^-29 of a unit for each rounding in binary64: additions (in a lane, then across),
// division and eps under the root, then root and reciprocal.
double weight(FormatId, std::size_t cols) {
  const double in_lane = static_cast<double>((cols + kLanes - 1) / kLanes) - 1;
  const double across = static_cast<double>(std::min(cols, kLanes)) - 1;
  return 1 + 0x1p-29 * ((in_lane + across + 2) / 2 + 2);
}

}  // namespace

const RmsStatistic kRmsDoubleAccumulator{
    .name = "double_accumulator",
    .title = "RMSNorm, exact squares in 8 binary64 accumulators, r rounded once to fp32",
    .reciprocal_root = reciprocal_root,
    .declare = declare,
    .weight = weight,
    .accumulator = FormatId::fp64,
};

}  // namespace norma

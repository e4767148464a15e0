// RMSNorm's statistic in 16 fp32 lanes (one AVX-512 register, two of AVX2), added in order at the end.
#include <algorithm>
#include <cmath>

#include "impls/cpu/rmsnorm.hpp"
#include "reference/formats/clones.hpp"

namespace norma {

namespace {

constexpr std::size_t kLanes = 16;

NORMA_CLONES float sum_of_squares(const float* x, std::size_t cols) {
  float lane[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= cols; i += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) lane[l] += x[i + l] * x[i + l];
  for (std::size_t l = 0; i < cols; ++i, ++l) lane[l] += x[i] * x[i];
  float sum = lane[0];
  for (std::size_t l = 1; l < kLanes; ++l) sum += lane[l];  // an empty lane adds +0: no change
  return sum;
}

float reciprocal_root(const float* x, std::size_t cols, double eps) {
  const float mean_square = sum_of_squares(x, cols) / static_cast<float>(cols);
  return 1.0f / std::sqrt(mean_square + static_cast<float>(eps));
}

Operand declare(Builder& b, Operand x, Operand eps) {
  const Operand mean_square = b.reduce("ms", kFp32, x,
                                       {.kind = ReduceKind::mean,
                                        .term = Term::square,
                                        .order = {.kind = OrderKind::lanes, .count = static_cast<int>(kLanes)},
                                        .contract = false,
                                        .term_format = {}});
  const Operand sum = b.add("ms_eps", kFp32, mean_square, b.cast("eps_f32", kFp32, eps));
  return b.map("r", Op::reciprocal, kFp32, {b.sqrt("rms", kFp32, sum)});
}

// As in rmsnorm_sequential.cpp, but a term passes through the additions of its lane, ceil(cols / 16) - 1 at
// most, and then those of the 16 lane sums.
double weight(FormatId x, std::size_t cols) {
  const double square = 2 * format_of(x).precision <= format_of(FormatId::fp32).precision ? 0 : 1;
  const double in_lane = static_cast<double>((cols + kLanes - 1) / kLanes) - 1;
  const double across = static_cast<double>(std::min(cols, kLanes)) - 1;
  return (square + in_lane + across + 2) / 2 + 2;
}

}  // namespace

const RmsStatistic kRmsLanes{
    .name = "lanes",
    .title = "RMSNorm, 16 fp32 accumulators, added in order at the end",
    .reciprocal_root = reciprocal_root,
    .declare = declare,
    .weight = weight,
    .accumulator = FormatId::fp32,
};

}  // namespace norma

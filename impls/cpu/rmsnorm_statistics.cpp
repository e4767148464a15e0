// Statistics of RMSNorm: r = 1 / sqrt(mean(x^2) + eps).
#include <cmath>

#include "impls/cpu/lanes.hpp"
#include "impls/cpu/statistics.hpp"

namespace norma {

namespace {

RowStatistic in_fp32(float sum_of_squares, std::size_t cols, double eps) {
  const float mean_square = sum_of_squares / static_cast<float>(cols);
  return {.mean = 0, .variance = mean_square, .r = reciprocal_root(mean_square, eps)};
}

RowStatistic find_sequential(const float* x, std::size_t cols, double eps) {
  float sum = 0;
  for (std::size_t i = 0; i < cols; ++i) sum += x[i] * x[i];
  return in_fp32(sum, cols, eps);
}

RowStatistic find_in_lanes(const float* x, std::size_t cols, double eps) {
  return in_fp32(square_sum_in_lanes(x, cols), cols, eps);
}

DeclaredStatistic declare_in_fp32(Builder& b, Operand x, Operand eps, Order order) {
  const Operand mean_square = b.reduce("ms", kFp32, x, mean_of(Term::square, order));
  return {.mean = {}, .variance = mean_square, .r = declare_reciprocal_root(b, mean_square, eps)};
}

DeclaredStatistic declare_sequential(Builder& b, Operand x, Operand eps) {
  return declare_in_fp32(b, x, eps, {.kind = OrderKind::sequential});
}

DeclaredStatistic declare_in_lanes(Builder& b, Operand x, Operand eps) {
  return declare_in_fp32(b, x, eps, kInFloatLanes);
}

// r is rounded to fp32: it is not in_double.
RowStatistic find_in_double(const float* x, std::size_t cols, double eps) {
  const double mean_square = double_square_sum_in_lanes(x, cols) / static_cast<double>(cols);
  return {.mean = 0,
          .variance = mean_square,
          .r = static_cast<double>(static_cast<float>(1.0 / std::sqrt(mean_square + eps)))};
}

DeclaredStatistic declare_in_double(Builder& b, Operand x, Operand eps) {
  const Operand mean_square = b.reduce("ms", kFp64, x, mean_of(Term::square, kInDoubleLanes));
  const Operand rms = b.sqrt("rms", kFp64, b.add("ms_eps", kFp64, mean_square, eps));
  return {.mean = {}, .variance = mean_square, .r = b.cast("r", kFp32, b.map("r_f64", Op::reciprocal, kFp64, {rms}))};
}

}  // namespace

const Statistic kRmsSequential{.name = "sequential",
                               .title = "one fp32 accumulator from the first column to the last",
                               .centred = false,
                               .in_double = false,
                               .find = find_sequential,
                               .declare = declare_sequential};

const Statistic kRmsLanes{.name = "lanes",
                          .title = "16 fp32 accumulators, added in order at the end",
                          .centred = false,
                          .in_double = false,
                          .find = find_in_lanes,
                          .declare = declare_in_lanes};

const Statistic kRmsDoubleAccumulator{.name = "double_accumulator",
                                      .title = "exact squares in 8 binary64 accumulators, r rounded once to fp32",
                                      .centred = false,
                                      .in_double = false,
                                      .find = find_in_double,
                                      .declare = declare_in_double};

}  // namespace norma

// Statistics of the norms with a mean: three algebras in fp32, which differ in what a large mean costs them, and one in
// binary64.
#include <cmath>

#include "impls/cpu/lanes.hpp"
#include "impls/cpu/statistics.hpp"

namespace norma {

float reciprocal_root(float variance, double eps) { return 1.0f / std::sqrt(variance + static_cast<float>(eps)); }

Operand declare_reciprocal_root(Builder& b, Operand variance, Operand eps) {
  const Operand sum = b.add("var_eps", kFp32, variance, b.cast("eps_f32", kFp32, eps));
  return b.map("r", Op::reciprocal, kFp32, {b.sqrt("std", kFp32, sum)});
}

namespace {

RowStatistic statistic(float mean, float variance, double eps) {
  return {.mean = mean, .variance = variance, .r = reciprocal_root(variance, eps)};
}

// ---- the mean first, then the mean of (x - mean)^2 ----

RowStatistic find_two_pass(const float* x, std::size_t cols, double eps) {
  const float n = static_cast<float>(cols);
  const float mean = sum_in_lanes(x, cols) / n;
  return statistic(mean, deviation_sum_in_lanes(x, mean, cols) / n, eps);
}

DeclaredStatistic declare_two_pass(Builder& b, Operand x, Operand eps) {
  const Operand mean = b.reduce("mean", kFp32, x, mean_of(Term::value, kInFloatLanes));
  const Operand d = b.sub("d", kFp32, x, mean);
  const Operand var = b.reduce("var", kFp32, d, mean_of(Term::square, kInFloatLanes));
  return {.mean = mean, .variance = var, .r = declare_reciprocal_root(b, var, eps), .deviation = d};
}

// ---- both in one pass, updated by every value ----

RowStatistic find_welford(const float* x, std::size_t cols, double eps) {
  float mean = 0, m2 = 0;
  for (std::size_t i = 0; i < cols; ++i) {
    const float d = x[i] - mean;
    mean += d / static_cast<float>(i + 1);
    m2 += d * (x[i] - mean);
  }
  return statistic(mean, m2 / static_cast<float>(cols), eps);
}

DeclaredStatistic declare_welford(Builder& b, Operand x, Operand eps) {
  const Operand mean = b.moments("mean", "var", kFp32, x, {.kind = OrderKind::welford}, false);
  const Operand var{.node = mean.node, .port = 1};
  return {.mean = mean, .variance = var, .r = declare_reciprocal_root(b, var, eps)};
}

// ---- E[x^2] - mean^2 ----

// max as the program has it: a NaN stays.
RowStatistic find_one_pass(const float* x, std::size_t cols, double eps) {
  const float n = static_cast<float>(cols);
  const float mean = sum_in_lanes(x, cols) / n;
  const float difference = square_sum_in_lanes(x, cols) / n - mean * mean;
  return statistic(mean, difference < 0 ? 0 : difference, eps);
}

DeclaredStatistic declare_one_pass(Builder& b, Operand x, Operand eps) {
  const Operand mean = b.reduce("mean", kFp32, x, mean_of(Term::value, kInFloatLanes));
  const Operand mean_square = b.reduce("ms", kFp32, x, mean_of(Term::square, kInFloatLanes));
  const Operand difference = b.sub("ms_m2", kFp32, mean_square, b.map("m2", Op::square, kFp32, {mean}));
  const Operand var = b.map("var", Op::max, kFp32, {difference, b.constant("zero", 0)});
  return {.mean = mean, .variance = var, .r = declare_reciprocal_root(b, var, eps)};
}

// ---- two passes in binary64 ----

RowStatistic find_two_pass_double(const float* x, std::size_t cols, double eps) {
  const double n = static_cast<double>(cols);
  const double mean = double_sum_in_lanes(x, cols) / n;
  const double variance = double_deviation_sum_in_lanes(x, mean, cols) / n;
  return {.mean = mean, .variance = variance, .r = 1.0 / std::sqrt(variance + eps)};
}

DeclaredStatistic declare_two_pass_double(Builder& b, Operand x, Operand eps) {
  const Operand mean = b.reduce("mean", kFp64, x, mean_of(Term::value, kInDoubleLanes));
  const Operand d = b.sub("d", kFp64, x, mean);
  const Operand var = b.reduce("var", kFp64, d, mean_of(Term::square, kInDoubleLanes));
  const Operand root = b.sqrt("std", kFp64, b.add("var_eps", kFp64, var, eps));
  return {.mean = mean, .variance = var, .r = b.map("r", Op::reciprocal, kFp64, {root}), .deviation = d};
}

}  // namespace

const Statistic kTwoPass{.name = "two_pass",
                         .title = "the mean, then the mean of (x - mean)^2, each in 16 fp32 accumulators",
                         .centred = true,
                         .in_double = false,
                         .find = find_two_pass,
                         .declare = declare_two_pass};

const Statistic kWelford{.name = "welford",
                         .title = "Welford's update in fp32, first to last, with a true division",
                         .centred = true,
                         .in_double = false,
                         .find = find_welford,
                         .declare = declare_welford};

const Statistic kOnePass{.name = "one_pass",
                         .title = "E[x^2] - mean^2 in 16 fp32 accumulators each, never below 0",
                         .centred = true,
                         .in_double = false,
                         .find = find_one_pass,
                         .declare = declare_one_pass};

const Statistic kTwoPassDouble{.name = "two_pass_double",
                               .title = "two passes in 8 binary64 accumulators, (x - mean) r rounded once to fp32",
                               .centred = true,
                               .in_double = true,
                               .find = find_two_pass_double,
                               .declare = declare_two_pass_double};

}  // namespace norma

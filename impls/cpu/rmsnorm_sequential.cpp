// RMSNorm's statistic with one fp32 accumulator, first column to last.
#include <cmath>

#include "impls/cpu/rmsnorm.hpp"

namespace norma {

namespace {

float reciprocal_root(const float* x, std::size_t cols, double eps) {
  float sum = 0;
  for (std::size_t i = 0; i < cols; ++i) sum += x[i] * x[i];
  const float mean_square = sum / static_cast<float>(cols);
  return 1.0f / std::sqrt(mean_square + static_cast<float>(eps));
}

Operand declare(Builder& b, Operand x, Operand eps) {
  const Operand mean_square = b.reduce("ms", kFp32, x,
                                       {.kind = ReduceKind::mean,
                                        .term = Term::square,
                                        .order = {.kind = OrderKind::sequential},
                                        .contract = false,
                                        .term_format = {}});
  const Operand sum = b.add("ms_eps", kFp32, mean_square, b.cast("eps_f32", kFp32, eps));
  return b.map("r", Op::reciprocal, kFp32, {b.sqrt("rms", kFp32, sum)});
}

// A term passes through its square's rounding (exact for 16-bit and narrower x), at most cols - 1 additions
// (the first one, 0 + t, is exact), the division and the addition of eps, all under the root; then the root
// and the reciprocal. eps passes through its cast and the addition, which is never more.
double weight(FormatId x, std::size_t cols) {
  const double square = 2 * format_of(x).precision <= format_of(FormatId::fp32).precision ? 0 : 1;
  const double additions = static_cast<double>(cols) - 1;
  return (square + additions + 2) / 2 + 2;
}

}  // namespace

const RmsStatistic kRmsSequential{
    .name = "sequential",
    .title = "RMSNorm, one fp32 accumulator from the first column to the last",
    .reciprocal_root = reciprocal_root,
    .declare = declare,
    .weight = weight,
    .accumulator = FormatId::fp32,
};

}  // namespace norma

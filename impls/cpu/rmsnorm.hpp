// What the native RMSNorm kernels share: everything but the statistic of a row.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "impls/implementation.hpp"
#include "reference/program/builder.hpp"

namespace norma {

/// Where the result meets x's format T. The letters are those of the survey's tails.
enum class RmsTail {
  once,           ///< B: y = rT((x r) w)
  before_weight,  ///< A: y = rT(rT(x r) w)
};

/// One kernel: how it finds r = 1 / sqrt(mean(x^2) + eps) of a row, and what it promises of it.
struct RmsStatistic {
  std::string_view name;
  std::string_view title;
  /// r of one row in binary32. Thread-safe.
  float (*reciprocal_root)(const float* x, std::size_t cols, double eps);
  /// The same as steps of a program; `x` and `eps` are its operands.
  Operand (*declare)(Builder& program, Operand x, Operand eps);
  /// Relative error of r by the counting lemma, in units of 2^-24: the roundings that the sum passes through
  /// under the root count half. Nothing that underflows is counted here.
  double (*weight)(FormatId x, std::size_t cols);
  /// Formats of the sum and of eps: they bound what overflows, and what underflows.
  FormatId accumulator;
};

extern const RmsStatistic kRmsSequential;
extern const RmsStatistic kRmsLanes;
extern const RmsStatistic kRmsDoubleAccumulator;

/// An implementation of rmsnorm: x in any format up to fp32, no weight or one in fp32 or x's format, y in x's
/// format.
std::unique_ptr<Implementation> make_rmsnorm(const RmsStatistic& statistic, RmsTail tail);

}  // namespace norma

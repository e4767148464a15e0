// Statistics of a row: what the native kernels of every norm are told apart by.
#pragma once

#include <cstddef>
#include <string_view>

#include "reference/program/builder.hpp"

namespace norma {

/// Of one row: its centre, the biased variance (of a norm without a centre: the mean square), 1 / sqrt(variance + eps).
struct RowStatistic {
  double mean = 0, variance = 0, r = 1;  ///< mean and r are fp32 numbers but where Statistic::in_double
};

/// The same as values of a program.
struct DeclaredStatistic {
  Operand mean, variance, r;
  Operand deviation{};  ///< x - mean, where the statistic has it as a step
};

/// One way to find them.
struct Statistic {
  std::string_view name;
  std::string_view title;  ///< what follows the norm's name
  bool centred;            ///< has a mean: LayerNorm and its kin; else RMSNorm
  bool in_double;          ///< mean and r are binary64, and so is (x - mean) r until it is rounded to fp32
  /// Of the `cols` values of one row. Thread-safe.
  RowStatistic (*find)(const float* x, std::size_t cols, double eps);
  /// The same as steps of a program; `x` and `eps` are its operands.
  DeclaredStatistic (*declare)(Builder& program, Operand x, Operand eps);
};

/// 1 / sqrt(variance + eps), each operation rounded to fp32, eps too; and as steps var_eps, std, r.
float reciprocal_root(float variance, double eps);
Operand declare_reciprocal_root(Builder& program, Operand variance, Operand eps);

// RMSNorm
extern const Statistic kRmsSequential;
extern const Statistic kRmsLanes;
extern const Statistic kRmsDoubleAccumulator;

// mean and variance
extern const Statistic kTwoPass;
extern const Statistic kWelford;
extern const Statistic kOnePass;
extern const Statistic kTwoPassDouble;

}  // namespace norma

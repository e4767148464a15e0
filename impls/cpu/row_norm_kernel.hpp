// The native kernels of norms: a statistic of every row, and what is made of the row with it.
#pragma once

#include <memory>

#include "impls/cpu/statistics.hpp"
#include "impls/implementation.hpp"

namespace norma {

/// Where a kernel's rows are, and where their statistics come from.
enum class RowNormKind {
  rmsnorm,
  layernorm,
  groupnorm,
  groupnorm_channels_last,  ///< a group's values in the order of positions, as NHWC code adds them
  instancenorm,
  batchnorm_train,
  batchnorm_eval,  ///< running statistics: mean and 1 / sqrt(variance + eps) of them in fp32
};

/// What is made of a row, in fp32 but for T, x's format; m the mean (of RMSNorm: none), factors and terms that are not
/// given are left out.
enum class Tail {
  once,           ///< y = rT(((x - m) r) w + b)
  before_weight,  ///< y = rT(rT((x - m) r) w + b)
  alpha_beta,     ///< alpha = r w, beta = b - alpha m; y = rT(x alpha + beta)
};

/// `statistic` is null for batchnorm_eval.
std::unique_ptr<Implementation> make_row_norm(RowNormKind kind, const Statistic* statistic, Tail tail);

}  // namespace norma

// Running statistics as BatchNorm updates them: rational numbers.
#pragma once

#include <memory>

#include "reference/certified/rows/row_norm.hpp"
#include "reference/exact/enclosure.hpp"

namespace norma {

/// (1 - momentum) running[c] + momentum mean[c], for each group c of a problem of moments; [groups, 1].
std::unique_ptr<TruthSource> running_mean_truth(const RowNorm& norm, const Tensor& running, double momentum);
/// The same of the variance sum (x - mean)^2 / (n - 1).
std::unique_ptr<TruthSource> running_variance_truth(const RowNorm& norm, const Tensor& running, double momentum);

}  // namespace norma

// Running statistics as BatchNorm and InstanceNorm update them: rational numbers.
#pragma once

#include <memory>

#include "reference/certified/rows/row_norm.hpp"
#include "reference/exact/enclosure.hpp"

namespace norma {

/// (1 - momentum) running[c] + momentum mean[c], for each channel c of a problem of moments; [channels, 1]. Its groups
/// are the channels, or the channels of each sample: mean[c] is then the mean of the samples' means.
/// Domain: groups of two elements and more.
std::unique_ptr<TruthSource> running_mean_truth(const RowNorm& norm, const Tensor& running, double momentum);
/// The same of the variance sum (x - mean)^2 / (n - 1) of a group of n elements.
std::unique_ptr<TruthSource> running_variance_truth(const RowNorm& norm, const Tensor& running, double momentum);

}  // namespace norma

// Norms of [N, C, ...]: GroupNorm, InstanceNorm, BatchNorm, canonical.
//
// All of them are y = weight[c] (x - mean) / sqrt(var + eps) + bias[c] over the reals, c the channel; they differ in
// the elements that mean and var are taken over. Truths view y in memory order; the rows of that view are named below.
//
// Special: row_norm.hpp's rules: NaN or Inf among the elements of the statistics make them NaN; var = 0 with eps > 0
// gives
//          the bias; without eps it is 0/0, NaN. Running statistics act by IEEE rules.
#pragma once

#include "reference/norms/norm.hpp"

namespace norma {

/// Statistics over C / groups neighbouring channels of a sample and all their positions. Rows: sample, group.
///
/// Shapes:  x, y [N, C, ...]; weight, bias [C]. Domain: groups divides C; eps >= 0.
/// Source:  Wu & He, "Group Normalization", 2018; torch.nn.functional.group_norm.
extern const NormDef groupnorm;

/// Statistics over the positions of one channel of a sample, or running_mean and running_var (statistics=running).
/// Rows: sample, channel. With x's statistics and running ones at hand, these are outputs too, as batchnorm's, of the
/// means over the samples:
///
///   running_mean' = (1 - momentum) running_mean + momentum (mean over the samples of mean)
///   running_var'  = (1 - momentum) running_var + momentum (mean over the samples of sum (x - mean)^2 / (n - 1))
///
/// Shapes:  x, y [N, C, ...]; weight, bias, running_mean, running_var [C]. Domain: eps >= 0, 0 <= momentum <= 1, and
/// two
///          positions at least where the statistics are x's.
/// Source:  Ulyanov, Vedaldi, Lempitsky, "Instance Normalization", 2016; torch.nn.functional.instance_norm, which
/// updates
///          a copy of the running statistics for each sample and keeps their mean
///          (aten/src/ATen/native/Normalization.cpp:710-740, v2.6.0).
extern const NormDef instancenorm;

/// Statistics over one channel of all samples (statistics=batch), or running_mean and running_var (running). Rows:
/// sample, channel. With batch statistics and running ones at hand, these are outputs too:
///
///   running_mean' = (1 - momentum) running_mean + momentum mean
///   running_var'  = (1 - momentum) running_var + momentum sum (x - mean)^2 / (n - 1)          n elements
///
/// rational numbers, and compared as such; momentum is the binary64 number that the caller gives, 1 - momentum exact.
///
/// Shapes:  x, y [N, C, ...]; weight, bias, running_mean, running_var [C]. Domain: eps >= 0, 0 <= momentum <= 1, and
/// two
///          elements of a channel at least where the statistics are x's.
/// Source:  Ioffe & Szegedy, "Batch Normalization", 2015; torch.nn.functional.batch_norm.
extern const NormDef batchnorm;

}  // namespace norma

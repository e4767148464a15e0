// Global response normalization, canonical.
#pragma once

#include "reference/norms/norm.hpp"

namespace norma {

/// Every channel of a sample scaled by its length beside the mean length of the sample's channels.
///
///   g[n, c] = sqrt(sum over positions(x[n, p, c]^2))      r[n, c] = g[n, c] / (mean over c(g[n, c]) + eps)
///   y = weight (x r) + bias + x
///
/// Shapes:  x, y [N, positions..., C]; weight, bias [C].
/// Domain:  any formats; eps >= 0.
/// Special: a NaN makes its sample NaN; an Inf makes its channel NaN and r = 0 in the sample's others. A sample of
///          zeros without eps is NaN. A weight or bias that is not finite acts on its column by IEEE rules.
/// Exact:   y against m is a sum of square roots against a dyadic number. It is decided where equal lengths leave one
///          root or none, where all lengths are dyadic, and wherever 4096 bits tell; else undecided.
/// Source:  Woo et al., "ConvNeXt V2", 2023.
extern const NormDef grn;

}  // namespace norma

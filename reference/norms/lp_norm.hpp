// Lp normalization, canonical.
#pragma once

#include "reference/norms/norm.hpp"

namespace norma {

/// Every row divided by its p-norm.
///
///   y = x / max(||x||_p, eps)      p = 1: sum |x|     p = 2: sqrt(sum x^2)     p = inf: max |x|
///
/// Shapes:  x, y [..., D]; the last axis is normalized.
/// Domain:  any formats; eps >= 0.
/// Special: IEEE rules: a zero row without eps is NaN; an Inf makes finite elements signed zeros and is NaN itself.
/// Source:  torch.nn.functional.normalize; ONNX LpNormalization (p = 1 and 2, no eps).
extern const NormDef lp_norm;

}  // namespace norma

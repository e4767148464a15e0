// L2 normalization, canonical.
#pragma once

#include "reference/norms/norm.hpp"

namespace norma {

/// Every row divided by its length.
///
///   y = x / max(||x||, eps)          outside: x / (||x|| + eps)     sum: x / sqrt(||x||^2 + eps)     none: x / ||x||
///
/// Shapes:  x, y [..., D]; the last axis is normalized.
/// Domain:  any formats; eps >= 0.
/// Special: row_norm.hpp's rules for squares: a NaN makes its row NaN; an Inf makes finite elements signed zeros and is
/// NaN
///          itself; a zero row keeps its zeros, without eps it is NaN.
/// Source:  torch.nn.functional.normalize (p = 2); outside and sum as in the catalogue of upstream norms.
extern const NormDef l2norm;

}  // namespace norma

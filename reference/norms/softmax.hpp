// Softmax, canonical.
#pragma once

#include "reference/norms/norm.hpp"

namespace norma {

/// y_i = e^(x_i) / (e^(x_1) + ... + e^(x_n)) over the last axis.
///
/// Shapes:  x, y [..., D].
/// Domain:  any formats.
/// Special: -Inf gives 0; a row with a NaN or +Inf, or with nothing but -Inf, is NaN (certified/functions/softmax.hpp).
/// Source:  Bridle, "Probabilistic interpretation of feedforward classification network outputs", 1990.
extern const NormDef softmax;

}  // namespace norma

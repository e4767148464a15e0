// Activations, element by element, canonical.
#pragma once

#include "reference/norms/norm.hpp"

namespace norma {

/// y = x sigmoid(x) = x / (1 + e^-x)
///
/// Shapes:  x, y any.
/// Domain:  any formats.
/// Special: limits: +Inf for +Inf, -0 for -Inf (where x / (1 + e^-x) taken step by step is NaN); zeros keep their sign.
/// Source:  Elfwing, Uchibe, Doya, "Sigmoid-weighted linear units for neural network function approximation", 2017;
///          Ramachandran, Zoph, Le, "Searching for activation functions", 2017 (Swish).
/// Not `silu`, which is a Function (functions.hpp).
extern const NormDef silu_norm;

/// y = x Phi(x) = x (1 + erf(x / sqrt 2)) / 2, or with approximate=tanh
/// y = x (1 + tanh(sqrt(2 / pi) (x + c x^3))) / 2, where c is the binary64 number next to 0.044715 (functions.hpp)
///
/// Shapes, domain and special as for silu.
/// Source:  Hendrycks & Gimpel, "Gaussian error linear units", 2016: both forms.
extern const NormDef gelu_norm;

}  // namespace norma

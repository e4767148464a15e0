// Gated RMSNorm, canonical.
#pragma once

#include "reference/norms/norm.hpp"

namespace norma {

/// Root-mean-square normalization of every group of a row, with a gate before or behind it.
///
///   a = gate sigmoid(gate)  (activation=silu)  or  sigmoid(gate)  (activation=sigmoid)
///   y = weight h / sqrt(mean over the group(h^2) + eps),  h = x a       (gate_place=before)
///   y = weight x / sqrt(mean over the group(x^2) + eps) a               (gate_place=after)
///
/// Shapes:  x, gate [rows, cols]; weight [cols] (absent: 1). A row is `groups` groups of cols / groups columns.
/// Domain:  any formats; eps >= 0; groups divides cols.
/// Special: IEEE rules, step by step, with sigmoid(g) = 1 / (1 + e^-g) and silu(g) = g / (1 + e^-g): silu(-Inf) is NaN.
/// Exact:   e^-g is transcendental unless g = 0: a tie is decided only where every gate it depends on is 0.
/// Source:  Mamba2's gated norm (gate first; Dao & Gu, "Transformers are SSMs", 2024); Qwen3-Next's (norm first).
extern const NormDef rmsnorm_gated;

}  // namespace norma

// Rotary position embedding by tables, alone and behind the RMSNorm of queries and keys.
#pragma once

#include "reference/norms/norm.hpp"

namespace norma {

/// Of every row the first `rotary` columns (0: all), in pairs j, j' with tables c = cos and s = sin:
///
///   y_j = x_j c_j - x_j' s_j        y_j' = x_j' c_j' + x_j s_j'
///
/// The other columns are passed on. pairing=interleaved: columns 2k and 2k + 1 (RoFormer, GPT-J, FLUX);
/// half: k and k + rotary/2 (GPT-NeoX, LLaMA). Tables are numbers as given, not the cosines that they round.
///
/// Shapes:  x, y [..., D], as a row is one head of one token; cos, sin [..., rotary], or [..., rotary/2], then one value
///          for both columns of a pair. Their other axes broadcast to x's as arrays do: [tokens, 1, R] beside x [batch,
///          tokens, heads, D], [batch, 1, tokens, R] beside [batch, heads, tokens, D].
/// Domain:  rotary even, at most D.
/// Special: as IEEE arithmetic on the two products; a zero has the sign that it gives.
/// Source:  Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.
extern const NormDef rope;

/// The same of n = (weight_offset + weight) x / sqrt(mean(x^2) + eps), each row over all its columns.
///
/// Shapes:  weight [D]; the rest as above.
/// Domain:  eps >= 0, weight_offset finite.
/// Source:  Dehghani et al., "Scaling Vision Transformers to 22 Billion Parameters", 2023 (norms of queries and keys);
///          rotated as above (FLUX, Qwen-Image, Qwen3).
extern const NormDef rmsnorm_rope;

}  // namespace norma

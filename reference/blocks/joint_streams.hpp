// What blocks share whose image and text tokens attend to one another (Esser et al., arXiv:2403.03206), over the reals.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "reference/blocks/block.hpp"
#include "reference/blocks/formulas.hpp"

namespace norma::blocks {

/// Of a call whose tokens are [batch, tokens, width].
struct JointSizes {
  std::int64_t batch = 0, tokens = 0, width = 0, heads = 0, head = 0, mlp = 0;
  double eps = 0;
};
/// ProgramError for tokens of another shape, heads that do not divide the width, a head that has no pairs.
JointSizes joint_sizes(std::string_view block, const BlockCall& call);

/// With parameters NAME.weight and NAME.bias.
Value linear(GraphBuilder& g, const std::string& name, Value x, std::int64_t out);

/// Queries, keys and values of some tokens, [batch, tokens, heads, head].
struct Heads {
  Value q, k, v;
};
/// Linears PREFIXq, k, v; queries and keys then normalized, head by head.
Heads heads_of(GraphBuilder& g, const std::string& prefix, Value x, const JointSizes& sizes);

/// Columns 2k and 2k + 1 of a head are a point in the plane, turned by the angle whose cosine and sine the tables
/// [tokens, head / 2] have.
Value rotated(GraphBuilder& g, const std::string& name, Value x, Value cos, Value sin);

/// softmax(q k^T / sqrt(head)) v of all tokens, [batch, tokens, width]: values attention, attention.merged.
Value attended(GraphBuilder& g, const Heads& heads, const JointSizes& sizes);

/// A Linear of silu(vec) as `parts` values [batch, 1, width].
std::vector<Value> modulations(GraphBuilder& g, const std::string& name, Value activated, const JointSizes& sizes,
                               std::int64_t parts);

/// One kind of tokens on its way through a block of two streams.
struct TokenStream {
  std::string name;  ///< img or txt
  Value x;
  std::vector<Value> modulation;  ///< shift, scale, gate around the attention, and around the MLP
  Heads heads;
};
/// Up to its queries, keys and values.
TokenStream before_attention(GraphBuilder& g, const std::string& name, Value x, Value activated,
                             const JointSizes& sizes);
/// From its part of the attention on: NAME.out, which becomes an output.
Value after_attention(GraphBuilder& g, const TokenStream& stream, Value attended, const JointSizes& sizes);

}  // namespace norma::blocks

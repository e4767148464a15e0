// What transcriptions of FLUX's and Qwen-Image's blocks share: torch's eager operations on two streams of tokens.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "impls/cast_paths/block_steps.hpp"

namespace norma::blocks {

/// Where projects differ: the cast paths of the sites that are not torch's own.
struct JointCode {
  std::string_view path, block;
  bool eps_written = true;  ///< 1e-6 in the code itself
  std::string_view modulate, rmsnorm, rope, gated_residual;
  std::string_view last_image, last_text;  ///< gated residuals at the block's end
};

/// Writes the sites of one path; names and inputs are the block's.
class JointBuilder {
 public:
  /// ProgramError for tokens that are not [batch, tokens, width], heads that do not divide it, a number that is
  /// missing.
  JointBuilder(const BlockBinding& binding, const JointCode& code);

  PathBuilder p;
  const JointCode code;
  std::int64_t batch = 0, tokens = 0, width = 0, heads = 0, head = 0, mlp = 0;
  double eps = 0;

  /// A whole number that the block is called with.
  std::int64_t number(std::string_view name) const;
  /// cos, sin [rows, head / 2] in fp32.
  Value table(const std::string& name, std::int64_t rows);

  struct Heads {
    Value q, k, v;
  };
  struct Stream {
    std::string name;
    Value x;
    std::vector<Value> mod;
    Heads heads;
  };
  std::vector<Value> modulations(const std::string& name, Value activated, std::int64_t parts);
  Value modulated(const std::string& norm, const std::string& name, Value x, Value scale, Value shift);
  Heads heads_of(const std::string& prefix, Value x);
  Value rotated(const std::string& name, Value x, Value cos, Value sin);
  Value attended(const Heads& all);
  Value gated(std::string_view path, const std::string& name, Value x, Value gate, Value f);
  Stream before_attention(const std::string& name, Value x, Value activated);
  void after_attention(const Stream& stream, Value attended, std::string_view last);
};

}  // namespace norma::blocks

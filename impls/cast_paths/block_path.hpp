// The catalogue of blocks as real code computes them: graphs with every rounding in its place, cited.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "impls/cast_paths/cast_path.hpp"
#include "reference/program/graph.hpp"

namespace norma {

/// Sizes and attributes as the block's own call has them (reference/blocks/block.hpp), and T: the format of activations
/// and weights.
struct BlockBinding {
  Shape x;
  Attributes numbers;
  FormatId format = FormatId::bf16;
  std::string profile{};  ///< of the cast paths within; empty: each path's default
};

struct BlockPath {
  std::string_view name;
  std::string_view title;
  std::string_view block;  ///< dit_block, ...
  PathSource source;
  /// Its inputs have the block's names and shapes. Throws ProgramError, one sentence, for what the code does not take.
  Graph (*build)(const BlockBinding& binding);
};

std::span<const BlockPath* const> all_block_paths();
const BlockPath* find_block_path(std::string_view name);

}  // namespace norma

// The catalogue of blocks: functions over the reals of a network's tensors, straight from their papers and first code.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "reference/program/graph.hpp"

namespace norma {

/// A number that a block's tensors and formula depend on.
struct BlockAttribute {
  std::string_view name;
  std::string_view fallback;  ///< as a case line writes it
  std::string_view meaning;
};

/// What a block is asked for: x's shape and the attributes, every one of them.
struct BlockCall {
  Shape x;
  Attributes numbers;
};

struct BlockDef {
  std::string_view name;
  std::string_view title;
  std::string_view formula;
  std::string_view source;
  std::span<const BlockAttribute> attributes;
  /// Its tensors and sites, without a rounding. Throws ProgramError, one sentence, for sizes that do not fit together.
  Graph (*build)(const BlockCall& call);
  std::string_view input = "x";  ///< the one whose shape a call gives
  /// Outputs, and the inputs that they are in the next block.
  std::span<const std::pair<std::string_view, std::string_view>> streams{};
};

std::span<const BlockDef* const> all_blocks();
const BlockDef* find_block(std::string_view name);
std::vector<Stream> streams_of(const BlockDef& block);
/// Attributes that a call lacks, from the block's fallbacks. ProgramError naming one that the block does not have.
BlockCall with_defaults(const BlockDef& block, BlockCall call);
/// An attribute that is a whole number of at least 1; ProgramError naming it otherwise.
std::int64_t whole(const BlockCall& call, std::string_view name);

}  // namespace norma

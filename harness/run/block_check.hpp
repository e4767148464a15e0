// A check of a block: its outputs against the truth and the path's bits, and its sites one by one.
#pragma once

#include "harness/run/check.hpp"

namespace norma {

/// As check(), for a case whose norm is a block.
Record check_block(Session& session, const CheckJob& job);

/// The outputs that an implementation, or the emulated path, gives for a block's case.
Tensors block_made_by(Session& session, const Case& expanded, const std::string& impl);

/// Certified enclosures of the block's outputs.
struct BlockTruth {
  std::string output;
  Shape shape;
  std::unique_ptr<TruthSource> truth;
};
std::vector<BlockTruth> block_truths(const Case& expanded, const Tensors& tensors);

}  // namespace norma

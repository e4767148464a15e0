// The graphs that a block's case asks for: over the reals, and as a path computes them.
#pragma once

#include "harness/cases/case.hpp"
#include "impls/cast_paths/block_path.hpp"
#include "reference/blocks/block.hpp"

namespace norma {

/// The call that a block's case makes; every attribute is there once the case was expanded. Errors: CaseError.
BlockCall block_call(const Case& c);

/// How many blocks stand one after the other (key blocks).
int block_count(const Case& c);

/// One block of the case: as its path computes it, without a path over the reals. Errors: CaseError for sizes that do
/// not fit together.
Graph single_graph(const Case& c);

/// All of the case's blocks, over the reals and by this path. Errors: CaseError, for blocks=N also where a block hands
/// on nothing; ProgramError for what the path's code does not take.
Graph canonical_graph(const Case& c);
Graph path_graph(const Case& c, const BlockPath& path);

/// path_graph of the path that the case names, canonical_graph where it names none.
Graph declared_graph(const Case& c);

}  // namespace norma

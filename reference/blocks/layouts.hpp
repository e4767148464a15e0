// Weights of a block as published checkpoints name and join them.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "reference/program/graph.hpp"

namespace norma {

/// The layouts that a block has beside its own names (norma): diffusers, bfl.
std::vector<std::string_view> layouts_of(std::string_view block);

/// The block's weights under its own names, from a layout's tensors; those that it joins are cut apart along their
/// first axis. Of the tensors only those whose name begins with `prefix` ("transformer_blocks.0.") are looked at; the
/// block's inputs that are no weights are taken under their own names, where they are given. Errors: ProgramError
/// naming a layout that the block does not have, a tensor that is missing, left over or of another shape.
Tensors from_layout(const Graph& block, std::string_view layout, const Tensors& given, std::string_view prefix = "");

/// The same for `count` blocks, named as stacked() does. Their prefixes are found by themselves and stand in the order of
/// the last number in each. Errors: as before; ProgramError naming the prefixes where they are not as many.
Tensors stack_from_layout(const Graph& block, int count, std::string_view layout, const Tensors& given);

}  // namespace norma

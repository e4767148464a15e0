// The words of a block's case line, in the form that norms have them.
#pragma once

#include <string_view>

#include "reference/norms/norm.hpp"

namespace norma {

/// Choices of an attribute whose value is any text.
inline constexpr std::string_view kAnyText = "TEXT";

/// Name, title, source and attributes of a block as a NormDef whose functions are null; null: there is no such block. A
/// block's tensors are all made by one family or read from one file: input=file:PATH, its names those of `layout`.
const NormDef* find_block_words(std::string_view name);

}  // namespace norma

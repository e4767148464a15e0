// Patterns of names.
#pragma once

#include <string_view>

namespace norma {

/// True if `text` matches `pattern`, in which * is any run of characters and ? any one.
bool glob_matches(std::string_view pattern, std::string_view text);

}  // namespace norma

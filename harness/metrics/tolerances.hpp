// The tolerances that people really use, so that a report can say what each would have let through.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "reference/formats/format.hpp"

namespace norma {

/// |got - want| <= atol + rtol |want|.
struct Tolerance {
  std::string_view name;
  std::optional<FormatId> format;  ///< empty: used for every format
  double rtol;
  double atol;
  std::string_view source;
};

std::span<const Tolerance> all_tolerances();
/// Those that somebody would use for outputs of this format.
std::vector<Tolerance> tolerances_for(FormatId format);

}  // namespace norma

// What a terminal shows of a block's sites.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace norma {

/// Of a traced record: the sites that add most, of a stack how the error grew, and where NaN, Inf and clipped numbers
/// began. Empty for a record without a trace.
std::string render_trace(const nlohmann::json& record);

}  // namespace norma

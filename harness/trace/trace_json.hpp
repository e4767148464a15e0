// A trace as it stands in a record.
#pragma once

#include <nlohmann/json.hpp>

#include "harness/trace/trace.hpp"

namespace norma {

/// Sites in order, with their place among all by the error they add; figures to 6 digits.
nlohmann::ordered_json to_json(const BlockTrace& trace);

}  // namespace norma

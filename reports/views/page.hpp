// The page: one HTML file that opens offline and answers "how far is each normalization from the mathematics,
// and which of its roundings is to blame?"
#pragma once

#include <span>
#include <string>

#include <nlohmann/json.hpp>

namespace norma {

/// Lines of run.jsonl (context, records, audits) as one HTML page without any outside reference.
/// The same lines give the same bytes. A record whose output is missing (skip, crashed) has a row too.
/// Above 20,000 rows a passing row keeps its three worst elements, and the page says so.
std::string render_page(std::span<const nlohmann::json> lines);

}  // namespace norma

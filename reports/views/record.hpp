// Reading a record of run.jsonl: what every view needs and no view should spell twice.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace norma::views {

/// The definition printed with every table.
inline constexpr std::string_view kUlpDefinition =
    "|got − exact| / ulp_F(exact), exact never rounded first; 0.5 is the best a rounded output can do";

/// A number of run.jsonl, where NaN and the infinities are strings; nothing where there is none.
std::optional<double> number_of(const nlohmann::json& value);

/// record[path[0]][path[1]]..., or null where a part is missing.
const nlohmann::json& at(const nlohmann::json& value, std::initializer_list<std::string_view> path);
std::string text_of(const nlohmann::json& value, std::string_view key);

/// The verdict as a view shows it: a record that was measured and only lacked a criterion is "measured", which
/// alarms nobody, and not "skip".
std::string shown_verdict(const nlohmann::json& record);
/// The same beside one output's figures: an output of a passing record that no criterion is about is "measured".
std::string shown_verdict(const nlohmann::json& record, std::string_view output);

/// file:FOLDER/STEM.safetensors#TENSOR@sha256-HASH without what a table has no room for; any other name as it is.
struct RecordedName {
  std::string_view file, tensor;  ///< STEM and TENSOR; empty for any other name
};
RecordedName read_recorded_name(std::string_view name);

/// The words of a case line; joined with single spaces they are the line again.
std::vector<std::string_view> words_of(std::string_view line);

struct CaseWords {
  std::string_view norm, format, shape, input, seed;
};
CaseWords read_case(std::string_view line);

/// What stands before the first ':' of path:, file:, cmd: or plugin:, else the first word of the name (cpu, cuda).
std::string kind_of_impl(std::string_view impl);

}  // namespace norma::views

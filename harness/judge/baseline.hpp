// Committed figures that a run is gated against: one sorted line a case, so that it merges cleanly.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace norma {

/// A run, baseline or list of waivers that cannot be read; one sentence that names the file's line
/// or entry.
struct GateError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// What two records must share to be compared. `context`: the fields that the implementation's bits
/// depend on, as a compact JSON object with sorted keys; "{}" for bits that are the same
/// everywhere.
struct BaselineKey {
  std::string case_line, impl, context = "{}";
  friend auto operator<=>(const BaselineKey&, const BaselineKey&) = default;
};
BaselineKey key_of(const nlohmann::json& record);

/// Figures by "OUTPUT.MEASURE", 0 best for each; magnitudes of signed ones; infinite after an
/// unexpected NaN. Figures that a record does not have, or that are NaN, are left out.
using FlatMeasures = std::map<std::string, double, std::less<>>;
FlatMeasures flat_measures(const nlohmann::json& record);

using Baseline = std::map<BaselineKey, FlatMeasures>;
/// Parse and print are inverse. Lines are sorted by key; a key given twice is a GateError.
Baseline parse_baseline(std::string_view text);
std::string print_baseline(const Baseline& baseline);

/// What accepting a run would do to a baseline. Lines that the run does not have are dropped, but
/// for those made elsewhere: with a context that no record of the run has.
struct BaselineChange {
  Baseline after;
  std::vector<std::string> lines;    ///< "+ CASE IMPL", "- CASE IMPL", "~ CASE IMPL: y.max_ulp 0.5 -> 0.51", ...
  std::vector<std::string> refused;  ///< records that carry nothing to accept, with the reason
};
BaselineChange accept(const Baseline& before, std::span<const nlohmann::json> records);

/// Writes beside the file and renames: a reader sees the old or the new text. Errors: GateError.
void write_atomically(const std::string& path, std::string_view text);

}  // namespace norma

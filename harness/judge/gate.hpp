// A run against limits, a baseline and waivers: one status a case, nothing left out.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/cases/glob.hpp"
#include "harness/judge/baseline.hpp"
#include "harness/judge/criteria.hpp"

namespace norma {

/// A dated, reasoned exception. It covers a finding of a case and implementation that match, if the
/// measure is this one ("*": any) and its value is at most the limit (if there is one), until the
/// day named, inclusive. `measure` is a criterion's name, "scale.max_ulp" for outputs other than y,
/// or a status: crashed, vacuous, missing, verdict.
struct Waiver {
  std::string match, impl = "*", measure = "*";
  std::optional<double> limit;
  std::string reason, until;
};
/// Reads [{"match":…,"impl":…,"measure":…,"limit":…,"reason":…,"until":"YYYY-MM-DD"}, …]. Without
/// match, reason or until, with an unknown field or a malformed date: GateError.
std::vector<Waiver> parse_waivers(const nlohmann::json& json);

enum class GateStatus : std::uint8_t {
  crashed,  ///< the implementation crashed, hung or wrote nothing
  failed,   ///< the record's verdict is fail, or a limit does not hold
  vacuous,  ///< the check could not have failed
  worse,    ///< a figure is above the baseline's
  missing,  ///< in the baseline and not in the run
  waived,   ///< there are findings, and a waiver covers each
  added,    ///< "new": in the run and not in the baseline
  better,   ///< no figure is above the baseline's and one is below it
  skipped,  ///< not run, or nothing to hold it against
  ok,
};
std::string_view name_of(GateStatus status);

/// One thing that is wrong with a case.
struct Finding {
  std::string measure;  ///< "y.max_ulp", or a status word
  std::string text;     ///< "y.max_ulp is 0.76, baseline 0.51"
  double value = 0;
  std::string waived;  ///< the waiver's reason and day; empty: none covers it
};

struct GateCase {
  BaselineKey key;
  GateStatus status = GateStatus::ok;
  bool fails = false;  ///< makes the exit code 1 or 3
  std::vector<Finding> findings;
  std::vector<std::string> notes;  ///< what became better, is new, or why it was skipped
  std::string repro;
};

struct GateResult {
  std::vector<GateCase> cases;     ///< the run's in its order, then the missing ones
  std::vector<std::string> notes;  ///< expired and unused waivers, limits held against nothing
  int exit_code = 0;               ///< 0, 1 failed, 3 crashed
};

struct GateOptions {
  std::vector<Criterion> limits;
  const Baseline* baseline = nullptr;  ///< null: none
  std::vector<Waiver> waivers;
  std::string today;  ///< YYYY-MM-DD; the gate has no clock
};

/// Figures are compared exactly: they are integers of the grid, or functions of such.
///
/// Missing fails, but where the baseline's line depends on a context that no record of this run
/// has: those figures were made elsewhere and say nothing here. New does not fail; `accept` takes
/// it in. Errors: GateError for records without a case, two records of one key, a malformed day.
GateResult gate(std::span<const nlohmann::json> records, const GateOptions& options);

std::string junit_xml(const GateResult& result);
std::string markdown(const GateResult& result);
/// GitHub's workflow commands, one a line: ::error for what fails, ::warning for what is waived or
/// named.
std::string annotations(const GateResult& result);

}  // namespace norma

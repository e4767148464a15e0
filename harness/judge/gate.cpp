// Finds what is wrong with each case of a run, and what of it is waived.
#include "harness/judge/gate.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "harness/judge/sites.hpp"

namespace norma {

namespace {

using Json = nlohmann::json;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

void check_day(std::string_view day, std::string_view what) {
  bool good = day.size() == 10 && day[4] == '-' && day[7] == '-';
  for (const std::size_t i : {0U, 1U, 2U, 3U, 5U, 6U, 8U, 9U}) good = good && day[i] >= '0' && day[i] <= '9';
  if (good) {
    const int month = std::stoi(std::string(day.substr(5, 2))), date = std::stoi(std::string(day.substr(8, 2)));
    good = month >= 1 && month <= 12 && date >= 1 && date <= 31;
  }
  if (!good) throw GateError(fmt::format("{} '{}' is not a day; wanted: YYYY-MM-DD", what, day));
}

std::string text_field(const Json& entry, const char* field, const char* fallback, int number) {
  if (!entry.contains(field)) {
    if (fallback == nullptr) throw GateError(fmt::format("waiver {} has no '{}'", number, field));
    return fallback;
  }
  if (!entry.at(field).is_string() || entry.at(field).get<std::string>().empty()) {
    throw GateError(fmt::format("waiver {}: '{}' must be a word or sentence", number, field));
  }
  return entry.at(field).get<std::string>();
}

/// "max_ulp" in a waiver or limit means y's.
std::string full_name(std::string_view measure, std::string_view first_output) {
  return measure.find('.') == std::string_view::npos && find_measure(measure) != nullptr
             ? fmt::format("{}.{}", first_output, measure)
             : std::string(measure);
}

/// The output that a criterion without a prefix is about: y, a gradient's dx, or the only one there is.
std::string first_output(const Json& record) {
  if (!record.contains("outputs") || record.at("outputs").empty() || record.at("outputs").contains("y")) return "y";
  if (record.at("outputs").contains("dx")) return "dx";
  return record.at("outputs").begin().key();
}

std::string flat_name(const Criterion& criterion, const Json& record) {
  return fmt::format("{}.{}", criterion.output.empty() ? first_output(record) : criterion.output,
                     criterion.measure->name);
}

void add(GateCase& found, GateStatus status, Finding finding) {
  found.status = std::min(found.status, status);
  found.findings.push_back(std::move(finding));
}

double value_of(const FlatMeasures& flat, const std::string& name) {
  const auto at = flat.find(name);
  return at == flat.end() ? kNan : at->second;
}

std::string figure(double value) { return std::isnan(value) ? "not there" : fmt::format("{}", value); }

/// What the record itself says is wrong.
/// A limit on the sites of a block's trace.
void find_sites(GateCase& found, const Json& record, const Criterion& limit) {
  const SiteFinding sites = over_sites(record.value("trace", Json()), limit);
  if (sites.first.empty()) return;
  add(found, GateStatus::failed,
      {.measure = fmt::format("site.{}", limit.measure->name), .text = text_of(sites, limit), .value = sites.at_first, .waived = {}});
}

void find_verdict(GateCase& found, const Json& record, const FlatMeasures& flat) {
  const std::string verdict = record.value("verdict", "");
  const std::string reason = record.value("reason", "");
  if (verdict == "crashed") {
    add(found, GateStatus::crashed, {.measure = "crashed", .text = "crashed: " + reason, .value = kNan, .waived = {}});
  } else if (verdict == "vacuous") {
    add(found, GateStatus::vacuous, {.measure = "vacuous", .text = "vacuous: " + reason, .value = kNan, .waived = {}});
  } else if (verdict == "fail") {
    const std::size_t before = found.findings.size();
    for (const Json& criterion : record.value("criteria", Json::array())) {
      if (criterion.value("held", false)) continue;
      const std::string text = criterion.value("text", "");
      std::string name = "verdict";
      try {
        const Criterion parsed = parse_criterion(text);
        if (is_of_sites(parsed)) {
          find_sites(found, record, parsed);
          continue;
        }
        name = flat_name(parsed, record);
      } catch (const CriterionError&) {
        // Written by a norma that knows more measures: the finding stays under "verdict".
      }
      const double value = value_of(flat, name);
      add(found, GateStatus::failed,
          {.measure = name,
           .text = fmt::format("{} is {}, wanted {}", name, figure(value), text),
           .value = value,
           .waived = {}});
    }
    for (const auto& [name, value] : flat) {
      for (const std::string_view special : {".nan_unexpected", ".nan_missing", ".inf_unexpected", ".inf_missing"}) {
        if (name.ends_with(special) && value > 0) {
          add(found, GateStatus::failed,
              {.measure = name, .text = fmt::format("{} is {}", name, value), .value = value, .waived = {}});
        }
      }
    }
    if (found.findings.size() == before) {
      add(found, GateStatus::failed, {.measure = "verdict", .text = reason, .value = kNan, .waived = {}});
    }
  } else if (verdict == "skip") {
    found.notes.push_back("skip: " + reason);
    if (flat.empty()) found.status = std::min(found.status, GateStatus::skipped);
  } else if (verdict != "pass") {
    throw GateError(fmt::format("the record of {} has the unknown verdict '{}'; known: pass fail skip vacuous crashed",
                                found.key.case_line, verdict));
  }
}

void find_limits(GateCase& found, const Json& record, const FlatMeasures& flat, std::span<const Criterion> limits,
                 std::vector<bool>& used) {
  if (flat.empty()) return;
  for (std::size_t i = 0; i < limits.size(); ++i) {
    const Criterion& limit = limits[i];
    if (is_of_sites(limit)) {
      if (!record.contains("trace")) continue;
      used[i] = true;
      find_sites(found, record, limit);
      continue;
    }
    // A limit on an output that this case does not have is about other cases.
    if (!limit.output.empty() && !record.at("outputs").contains(limit.output)) continue;
    used[i] = true;
    const std::string name = flat_name(limit, record);
    const double value = value_of(flat, name);
    if (holds(limit, value)) continue;
    add(found, GateStatus::failed,
        {.measure = name,
         .text = fmt::format("{} is {}, limit {}", name, figure(value), limit.text),
         .value = value,
         .waived = {}});
  }
}

/// Counts that belong to the inputs and the truth: a change is told, but is neither better nor
/// worse.
bool has_direction(std::string_view name) { return !name.ends_with(".subnormal") && !name.ends_with(".overflow"); }

void find_changes(GateCase& found, const FlatMeasures& flat, const FlatMeasures& baseline) {
  std::size_t better = 0;
  for (const auto& [name, value] : flat) {
    const auto old = baseline.find(name);
    if (old == baseline.end()) {
      found.notes.push_back(fmt::format("{} is {}, not in the baseline", name, value));
    } else if (!has_direction(name)) {
      if (value != old->second) found.notes.push_back(fmt::format("{} is {}, baseline {}", name, value, old->second));
    } else if (!(value <= old->second)) {
      add(found, GateStatus::worse,
          {.measure = name,
           .text = fmt::format("{} is {}, baseline {}", name, value, old->second),
           .value = value,
           .waived = {}});
    } else if (value < old->second) {
      ++better;
      found.notes.push_back(fmt::format("{} is {}, baseline {}", name, value, old->second));
    }
  }
  for (const auto& [name, value] : baseline) {
    if (flat.contains(name)) continue;
    add(found, GateStatus::worse,
        {.measure = name,
         .text = fmt::format("{} is not there, baseline {}", name, value),
         .value = kNan,
         .waived = {}});
  }
  if (better > 0) found.status = std::min(found.status, GateStatus::better);
}

struct WaiverUse {
  const Waiver& waiver;
  bool expired = false;
  int covered = 0;  // findings, or would have been were it not expired
};

bool covers(const Waiver& waiver, const GateCase& found, const Finding& finding) {
  if (!glob_matches(waiver.match, found.key.case_line) || !glob_matches(waiver.impl, found.key.impl)) return false;
  if (waiver.measure != "*" && full_name(waiver.measure, "y") != finding.measure) return false;
  // A figure that is not there is above every limit.
  return !waiver.limit || finding.value <= *waiver.limit;
}

void waive(GateCase& found, std::vector<WaiverUse>& waivers) {
  for (Finding& finding : found.findings) {
    for (WaiverUse& use : waivers) {
      if (!covers(use.waiver, found, finding)) continue;
      ++use.covered;
      if (use.expired) {
        found.notes.push_back(
            fmt::format("the waiver for {} expired on {} ({})", finding.measure, use.waiver.until, use.waiver.reason));
      } else if (finding.waived.empty()) {
        finding.waived = fmt::format("until {}: {}", use.waiver.until, use.waiver.reason);
      }
    }
  }
  if (!found.findings.empty() && std::all_of(found.findings.begin(), found.findings.end(),
                                             [](const Finding& finding) { return !finding.waived.empty(); })) {
    found.status = GateStatus::waived;
  }
}

bool status_fails(GateStatus status) {
  switch (status) {
    case GateStatus::crashed:
    case GateStatus::failed:
    case GateStatus::vacuous:
    case GateStatus::worse:
    case GateStatus::missing: return true;
    case GateStatus::waived:
    case GateStatus::added:
    case GateStatus::better:
    case GateStatus::skipped:
    case GateStatus::ok: return false;
  }
  return true;
}

}  // namespace

std::string_view name_of(GateStatus status) {
  switch (status) {
    case GateStatus::crashed: return "crashed";
    case GateStatus::failed: return "failed";
    case GateStatus::vacuous: return "vacuous";
    case GateStatus::worse: return "worse";
    case GateStatus::missing: return "missing";
    case GateStatus::waived: return "waived";
    case GateStatus::added: return "new";
    case GateStatus::better: return "better";
    case GateStatus::skipped: return "skipped";
    case GateStatus::ok: return "ok";
  }
  return "";
}

std::vector<Waiver> parse_waivers(const Json& json) {
  if (!json.is_array()) throw GateError("waivers must be a list of objects");
  std::vector<Waiver> waivers;
  int number = 0;
  for (const Json& entry : json) {
    ++number;
    if (!entry.is_object()) throw GateError(fmt::format("waiver {} is not an object", number));
    for (const auto& [field, value] : entry.items()) {
      static const std::set<std::string> known = {"match", "impl", "measure", "limit", "reason", "until"};
      if (!known.contains(field)) {
        throw GateError(fmt::format(
            "waiver {} has the unknown field '{}'; known: match impl measure limit reason until", number, field));
      }
    }
    Waiver waiver{.match = text_field(entry, "match", nullptr, number),
                  .impl = text_field(entry, "impl", "*", number),
                  .measure = text_field(entry, "measure", "*", number),
                  .limit = std::nullopt,
                  .reason = text_field(entry, "reason", nullptr, number),
                  .until = text_field(entry, "until", nullptr, number)};
    if (entry.contains("limit") && !entry.at("limit").is_null()) {
      if (!entry.at("limit").is_number()) throw GateError(fmt::format("waiver {}: 'limit' must be a number", number));
      waiver.limit = entry.at("limit").get<double>();
    }
    check_day(waiver.until, fmt::format("waiver {}: until", number));
    waivers.push_back(std::move(waiver));
  }
  return waivers;
}

GateResult gate(std::span<const Json> records, const GateOptions& options) {
  check_day(options.today, "today");
  GateResult result;
  std::vector<WaiverUse> waivers;
  for (const Waiver& waiver : options.waivers) {
    waivers.push_back({.waiver = waiver, .expired = waiver.until < options.today});
  }
  std::vector<bool> used_limits(options.limits.size(), false);
  std::set<BaselineKey> seen;
  std::set<std::string> contexts = {"{}"};

  for (const Json& record : records) {
    if (record.value("kind", "record") != "record") continue;
    if (!record.contains("case") || !record.contains("impl")) {
      throw GateError("the run has a record without 'case' or 'impl'");
    }
    GateCase found{.key = key_of(record), .findings = {}, .notes = {}, .repro = record.value("repro", "")};
    if (!seen.insert(found.key).second) {
      throw GateError(fmt::format("the run has two records of '{}' with '{}'", found.key.case_line, found.key.impl));
    }
    contexts.insert(found.key.context);
    const FlatMeasures flat = flat_measures(record);
    find_verdict(found, record, flat);
    find_limits(found, record, flat, options.limits, used_limits);
    if (options.baseline != nullptr) {
      const auto line = options.baseline->find(found.key);
      if (line == options.baseline->end()) {
        if (!flat.empty()) {
          found.status = std::min(found.status, GateStatus::added);
          found.notes.push_back("not in the baseline");
        }
      } else if (!flat.empty()) {
        find_changes(found, flat, line->second);
      } else if (found.findings.empty()) {
        add(found, GateStatus::missing,
            {.measure = "missing", .text = "in the baseline, not measured in this run", .value = kNan, .waived = {}});
      }
    } else if (record.value("verdict", "") == "skip" && options.limits.empty()) {
      found.status = std::min(found.status, GateStatus::skipped);
    }
    waive(found, waivers);
    found.fails = status_fails(found.status);
    result.cases.push_back(std::move(found));
  }

  if (options.baseline != nullptr) {
    for (const auto& [key, measures] : *options.baseline) {
      if (seen.contains(key)) continue;
      GateCase found{.key = key, .findings = {}, .notes = {}, .repro = {}};
      if (contexts.contains(key.context)) {
        add(found, GateStatus::missing,
            {.measure = "missing", .text = "in the baseline, not in this run", .value = kNan, .waived = {}});
        waive(found, waivers);
        found.fails = status_fails(found.status);
      } else {
        found.status = GateStatus::missing;
        found.notes.push_back(fmt::format("made elsewhere: {}", key.context));
      }
      result.cases.push_back(std::move(found));
    }
  }

  for (const WaiverUse& use : waivers) {
    const std::string what =
        fmt::format("the waiver for '{}' [{}] {}", use.waiver.match, use.waiver.impl, use.waiver.measure);
    if (use.expired) {
      result.notes.push_back(fmt::format("{} expired on {}: {}", what, use.waiver.until, use.waiver.reason));
    } else if (use.covered == 0) {
      result.notes.push_back(fmt::format("{} covers nothing in this run: {}", what, use.waiver.reason));
    }
  }
  for (std::size_t i = 0; i < used_limits.size(); ++i) {
    if (used_limits[i]) continue;
    result.notes.push_back(fmt::format("the limit {} was held against nothing", options.limits[i].text));
    result.exit_code = 1;
  }
  if (result.cases.empty()) {
    result.notes.push_back("the run has no records");
    result.exit_code = 1;
  }
  for (const GateCase& found : result.cases) {
    if (!found.fails) continue;
    result.exit_code = std::max(result.exit_code, found.status == GateStatus::crashed ? 3 : 1);
  }
  return result;
}

}  // namespace norma

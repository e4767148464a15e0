// Reads, prints and changes baselines.
#include "harness/judge/baseline.hpp"

#include <fmt/core.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>

namespace norma {

namespace {

using Json = nlohmann::json;

double number_of(const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (value == "inf") return std::numeric_limits<double>::infinity();
  if (value == "-inf") return -std::numeric_limits<double>::infinity();
  return std::numeric_limits<double>::quiet_NaN();
}

Json json_of(double value) { return std::isinf(value) ? Json(value > 0 ? "inf" : "-inf") : Json(value); }

/// The member at a JSON pointer, or null.
const Json& at(const Json& json, const char* pointer) {
  static const Json null;
  const Json::json_pointer where(pointer);
  return json.contains(where) ? json.at(where) : null;
}

/// Where a record keeps what is gated; names as criteria have them.
struct FlatRow {
  const char* name;
  const char* pointer;
};
constexpr FlatRow kFlat[] = {
    {"max_ulp", "/ulp/max"},
    {"mean_ulp", "/ulp/mean_abs"},
    {"rms_ulp", "/ulp/rms"},
    {"bias_ulp", "/ulp/bias"},
    {"p50_ulp", "/ulp/quantiles/0.5"},
    {"p90_ulp", "/ulp/quantiles/0.9"},
    {"p99_ulp", "/ulp/quantiles/0.99"},
    {"p999_ulp", "/ulp/quantiles/0.999"},
    {"max_condition_ulp", "/condition_ulp/max"},
    {"mean_condition_ulp", "/condition_ulp/mean_abs"},
    {"relative_l2", "/relative_l2"},
    {"angle", "/angle"},
    {"nan_unexpected", "/counts/nan_unexpected"},
    {"nan_missing", "/counts/nan_missing"},
    {"inf_unexpected", "/counts/inf_unexpected"},
    {"inf_missing", "/counts/inf_missing"},
    {"underflow", "/counts/underflow"},
    {"subnormal", "/counts/subnormal"},
    {"overflow", "/counts/overflow"},
    {"undecided", "/counts/undecided"},
    {"beyond_scale", "/counts/beyond_scale"},
    {"definition_bias", "/split/definition/bias"},
    {"definition_max", "/split/definition/max"},
    {"definition_rms", "/split/definition/rms"},
    {"path_bias", "/split/path/bias"},
    {"path_max", "/split/path/max"},
    {"path_rms", "/split/path/rms"},
    {"implementation_bias", "/split/implementation/bias"},
    {"implementation_max", "/split/implementation/max"},
    {"implementation_rms", "/split/implementation/rms"},
};

std::string label(const BaselineKey& key) {
  return key.context == "{}" ? fmt::format("{} [{}]", key.case_line, key.impl)
                             : fmt::format("{} [{}] on {}", key.case_line, key.impl, key.context);
}

void compare_lines(BaselineChange& change, const BaselineKey& key, const FlatMeasures& before,
                   const FlatMeasures& after) {
  std::string differences;
  const auto say = [&](const std::string& text) { differences += (differences.empty() ? "" : ", ") + text; };
  for (const auto& [name, value] : after) {
    const auto old = before.find(name);
    if (old == before.end()) {
      say(fmt::format("{} (new) {}", name, value));
    } else if (old->second != value) {
      say(fmt::format("{} {} -> {}", name, old->second, value));
    }
  }
  for (const auto& [name, value] : before) {
    if (!after.contains(name)) say(fmt::format("{} {} -> (gone)", name, value));
  }
  if (!differences.empty()) change.lines.push_back(fmt::format("~ {}: {}", label(key), differences));
}

}  // namespace

BaselineKey key_of(const Json& record) {
  const Json context = record.value("depends_on", Json::object());
  return {.case_line = record.at("case").get<std::string>(),
          .impl = record.at("impl").get<std::string>(),
          .context = context.empty() ? "{}" : context.dump()};
}

FlatMeasures flat_measures(const Json& record) {
  FlatMeasures flat;
  const auto put = [&](const std::string& name, double value) {
    if (!std::isnan(value)) flat[name] = std::fabs(value);
  };
  if (!record.contains("outputs")) return flat;
  for (const auto& [output, measures] : record.at("outputs").items()) {
    for (const FlatRow& row : kFlat) put(fmt::format("{}.{}", output, row.name), number_of(at(measures, row.pointer)));
    const double compared = number_of(at(measures, "/counts/compared"));
    const double incorrect = compared - number_of(at(measures, "/rounding/correct"));
    const double unfaithful = compared - number_of(at(measures, "/rounding/faithful"));
    put(output + ".incorrect", incorrect);
    put(output + ".incorrect_share", incorrect / compared);
    put(output + ".unfaithful", unfaithful);
    put(output + ".unfaithful_share", unfaithful / compared);
    const double of = number_of(at(measures, "/conformance/of"));
    const double differing = of - number_of(at(measures, "/conformance/equal"));
    // A path: record leaves its conformance out: it is its own ideal.
    const bool own_ideal = measures.value("conformance", Json()).is_null() && !at(measures, "/split/path").is_null();
    if (own_ideal) put(output + ".differing", 0);
    put(output + ".differing", differing);
    put(output + ".differing_share", differing / of);
  }
  return flat;
}

Baseline parse_baseline(std::string_view text) {
  Baseline baseline;
  int line_number = 0;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
    ++line_number;
    if (line.empty()) continue;
    try {
      const Json json = Json::parse(line);
      const Json& key = json.at("key");
      BaselineKey parsed{.case_line = key.at("case").get<std::string>(),
                         .impl = key.at("impl").get<std::string>(),
                         .context = key.value("context", Json::object()).dump()};
      FlatMeasures measures;
      for (const auto& [name, value] : json.at("measures").items()) {
        const double figure = number_of(value);
        if (std::isnan(figure)) throw GateError(fmt::format("baseline line {}: {} is not a number", line_number, name));
        measures[name] = figure;
      }
      if (!baseline.emplace(std::move(parsed), std::move(measures)).second) {
        throw GateError(fmt::format("baseline line {} repeats the key of an earlier line: {}", line_number,
                                    key.at("case").get<std::string>()));
      }
    } catch (const Json::exception& error) {
      throw GateError(fmt::format("baseline line {} is not a baseline line: {}", line_number, error.what()));
    }
  }
  return baseline;
}

std::string print_baseline(const Baseline& baseline) {
  std::string text;
  for (const auto& [key, measures] : baseline) {
    // Assembled from sorted maps, so the same baseline has the same bytes.
    Json figures = Json::object();
    for (const auto& [name, value] : measures) figures[name] = json_of(value);
    const nlohmann::ordered_json line = {
        {"key", {{"case", key.case_line}, {"impl", key.impl}, {"context", nlohmann::ordered_json::parse(key.context)}}},
        {"measures", figures}};
    text += line.dump() + "\n";
  }
  return text;
}

BaselineChange accept(const Baseline& before, std::span<const Json> records) {
  BaselineChange change;
  Baseline run;
  std::set<std::string> contexts = {"{}"};
  for (const Json& record : records) {
    if (record.value("kind", "record") != "record") continue;
    const BaselineKey key = key_of(record);
    contexts.insert(key.context);
    const std::string verdict = record.value("verdict", "");
    FlatMeasures measures = flat_measures(record);
    if (verdict == "crashed" || verdict == "vacuous" || measures.empty()) {
      change.refused.push_back(
          fmt::format("{}: {}{}", label(key), verdict,
                      record.value("reason", "").empty() ? "" : ", " + record.value("reason", "")));
      continue;
    }
    if (!run.emplace(key, std::move(measures)).second) {
      throw GateError(fmt::format("the run has two records of {}", label(key)));
    }
  }
  for (const auto& [key, measures] : before) {
    const auto now = run.find(key);
    if (now != run.end()) {
      compare_lines(change, key, measures, now->second);
    } else if (contexts.contains(key.context)) {
      change.lines.push_back(fmt::format("- {}", label(key)));
    } else {
      change.after.emplace(key, measures);
    }
  }
  for (auto& [key, measures] : run) {
    if (!before.contains(key)) change.lines.push_back(fmt::format("+ {}", label(key)));
    change.after.insert_or_assign(key, measures);
  }
  return change;
}

void write_atomically(const std::string& path, std::string_view text) {
  const std::string beside = path + ".new";
  {
    std::ofstream file(beside, std::ios::binary | std::ios::trunc);
    file.write(text.data(), static_cast<std::streamsize>(text.size()));
    file.flush();
    if (!file) throw GateError(fmt::format("cannot write '{}'", beside));
  }
  std::error_code error;
  std::filesystem::rename(beside, path, error);
  if (error) throw GateError(fmt::format("cannot rename '{}' to '{}': {}", beside, path, error.message()));
}

}  // namespace norma

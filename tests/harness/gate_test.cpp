// Each status of the gate, from records made by hand.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "harness/judge/gate.hpp"

using namespace norma;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Json = nlohmann::json;

namespace {

Json record(const std::string& case_line, Json max_ulp, const std::string& verdict = "pass") {
  return {{"kind", "record"},
          {"case", case_line},
          {"impl", "native"},
          {"verdict", verdict},
          {"reason", verdict == "pass" ? "" : "because"},
          {"criteria", Json::array()},
          {"repro", "norma run " + case_line},
          {"outputs",
           {{"y",
             {{"counts", {{"compared", 10}, {"nan_unexpected", 0}, {"subnormal", 1}}},
              {"ulp", {{"max", max_ulp}, {"bias", -0.25}, {"quantiles", {{"0.99", 0.5}}}}},
              {"rounding", {{"correct", 8}, {"faithful", 10}}},
              {"conformance", {{"equal", 9}, {"of", 10}}}}}}}};
}

Json crashed(const std::string& case_line) {
  return {{"kind", "record"}, {"case", case_line}, {"impl", "native"}, {"verdict", "crashed"}, {"reason", "signal 11"}};
}

Baseline baseline_of(const std::vector<Json>& records) { return accept({}, records).after; }

GateResult gated(const std::vector<Json>& records, const Baseline* baseline = nullptr,
                 std::vector<std::string> limits = {}, const Json& waivers = Json::array()) {
  GateOptions options{.limits = {}, .baseline = baseline, .waivers = parse_waivers(waivers), .today = "2026-06-01"};
  for (const std::string& limit : limits) options.limits.push_back(parse_criterion(limit));
  return gate(records, options);
}

Json waiver(const std::string& until, Json more = Json::object()) {
  Json w = {{"match", "rmsnorm*"}, {"reason", "issue 7"}, {"until", until}};
  w.update(more);
  return Json::array({w});
}

}  // namespace

namespace {

Json site(const std::string& name, Json relative_l2, Json more = Json::object()) {
  Json s = {{"site", name}, {"leaving", {{"relative_l2", relative_l2}, {"rms_ulp", 1}, {"max_ulp", 2}}}};
  s.update(more);
  return s;
}

Json traced(std::vector<Json> sites) {
  Json r = record("dit_block a", 0.75);
  r["trace"] = {{"sites", std::move(sites)}};
  return r;
}

}  // namespace

TEST_CASE("a limit on sites is held by each, and the first beyond it is named") {
  const Json good = traced({site("norm1", 1e-3), site("mlp.fc1", 3e-3), site("y", 2e-3)});
  CHECK(gated({good}, nullptr, {"site.relative_l2<=3e-3"}).exit_code == 0);
  const GateResult beyond = gated({good}, nullptr, {"site.relative_l2<=1.5e-3"});
  CHECK(beyond.exit_code == 1);
  CHECK(beyond.cases[0].findings[0].measure == "site.relative_l2");
  CHECK_THAT(beyond.cases[0].findings[0].text, ContainsSubstring("0.003 at site mlp.fc1, the first beyond <=1.5e-3"));
  CHECK(gated({traced({site("norm1", 1e-3, {{"nan", 2}})})}, nullptr, {"site.relative_l2<=1"}).exit_code == 1);
  CHECK(gated({traced({site("norm1", nullptr, {{"open", 2}})})}, nullptr, {"site.relative_l2<=1"}).exit_code == 1);
  CHECK(gated({traced({site("norm1", "inf")})}, nullptr, {"site.relative_l2<=1"}).exit_code == 1);
  // A run of norms has no sites: the limit was held against nothing.
  const GateResult norm = gated({record("rmsnorm a", 0.5)}, nullptr, {"site.relative_l2<=1"});
  CHECK(norm.exit_code == 1);
  CHECK(norm.notes.size() == 1);
  CHECK_THROWS_MATCHES(gated({good}, nullptr, {"site.differing<=1"}), CriterionError,
                       MessageMatches(ContainsSubstring("sites have no differing; they have relative_l2 rms_ulp max_ulp")));
}

TEST_CASE("figures are flattened by output and measure, by magnitude") {
  const FlatMeasures flat = flat_measures(record("rmsnorm a", 0.75));
  CHECK(flat.at("y.max_ulp") == 0.75);
  CHECK(flat.at("y.bias_ulp") == 0.25);
  CHECK(flat.at("y.p99_ulp") == 0.5);
  CHECK(flat.at("y.incorrect") == 2);
  CHECK(flat.at("y.unfaithful") == 0);
  CHECK(flat.at("y.differing") == 1);
  CHECK(flat.at("y.differing_share") == 0.1);
  CHECK_FALSE(flat.contains("y.path_bias"));
  Json own = record("rmsnorm a", 0.75);
  own["outputs"]["y"]["conformance"] = nullptr;
  CHECK_FALSE(flat_measures(own).contains("y.differing"));
  own["outputs"]["y"]["split"] = {{"path", {{"bias", 0.5}}}};
  CHECK(flat_measures(own).at("y.differing") == 0);
  // Every flat name is one that criteria know.
  for (const auto& [name, value] : flat) CHECK(find_measure(name.substr(2)) != nullptr);
}

TEST_CASE("a baseline prints sorted, and parse and print are inverse") {
  Json elsewhere = record("rmsnorm a", "inf");
  elsewhere["depends_on"] = {{"gpu", "H200"}};
  const Baseline baseline = baseline_of({record("rmsnorm b", 0.5), record("rmsnorm a", 0.5), elsewhere});
  const std::string text = print_baseline(baseline);
  CHECK(parse_baseline(text) == baseline);
  CHECK(print_baseline(parse_baseline(text)) == text);
  CHECK_THAT(text, ContainsSubstring(R"({"key":{"case":"rmsnorm a","impl":"native","context":{}},"measures":{)"));
  CHECK_THAT(text, ContainsSubstring(R"("y.max_ulp":"inf")"));
  CHECK(text.find("rmsnorm a") < text.find("rmsnorm b"));
  CHECK_THROWS_MATCHES(parse_baseline(text + text), GateError, MessageMatches(ContainsSubstring("line 4 repeats")));
  CHECK_THROWS_MATCHES(parse_baseline("{}\n"), GateError, MessageMatches(ContainsSubstring("line 1 is not")));
}

TEST_CASE("equal figures are ok, higher ones worse, lower ones better, to the last bit") {
  const Baseline baseline = baseline_of({record("rmsnorm a", 0.5)});
  CHECK(gated({record("rmsnorm a", 0.5)}, &baseline).cases[0].status == GateStatus::ok);
  const GateResult worse = gated({record("rmsnorm a", 0.5000152587890625)}, &baseline);
  CHECK(worse.cases[0].status == GateStatus::worse);
  CHECK(worse.exit_code == 1);
  CHECK(worse.cases[0].findings[0].text == "y.max_ulp is 0.5000152587890625, baseline 0.5");
  const GateResult better = gated({record("rmsnorm a", 0.25)}, &baseline);
  CHECK(better.cases[0].status == GateStatus::better);
  CHECK(better.exit_code == 0);
  CHECK(gated({record("rmsnorm a", "inf")}, &baseline).cases[0].status == GateStatus::worse);
  // A figure that vanished is not a good one.
  CHECK(gated({record("rmsnorm a", "nan")}, &baseline).cases[0].status == GateStatus::worse);
  // The number of subnormal results belongs to the inputs.
  Json other = record("rmsnorm a", 0.5);
  other["outputs"]["y"]["counts"]["subnormal"] = 5;
  const GateResult told = gated({other}, &baseline);
  CHECK(told.cases[0].status == GateStatus::ok);
  CHECK(told.cases[0].notes.size() == 1);
}

TEST_CASE("what is only in the run is new, what is only in the baseline is missing") {
  const Baseline baseline = baseline_of({record("rmsnorm a", 0.5), record("rmsnorm b", 0.5)});
  const GateResult result = gated({record("rmsnorm b", 0.5), record("rmsnorm c", 0.5)}, &baseline);
  REQUIRE(result.cases.size() == 3);
  CHECK(result.cases[0].status == GateStatus::ok);
  CHECK(result.cases[1].status == GateStatus::added);
  CHECK_FALSE(result.cases[1].fails);
  CHECK(result.cases[2].status == GateStatus::missing);
  CHECK(result.cases[2].key.case_line == "rmsnorm a");
  CHECK(result.exit_code == 1);
}

TEST_CASE("figures of other hardware are missing, never worse, and do not fail") {
  Json here = record("rmsnorm a", 0.75), there = record("rmsnorm a", 0.5);
  here["depends_on"] = {{"gpu", "A100"}};
  there["depends_on"] = {{"gpu", "H200"}};
  const Baseline baseline = baseline_of({there});
  const GateResult result = gated({here}, &baseline);
  REQUIRE(result.cases.size() == 2);
  CHECK(result.cases[0].status == GateStatus::added);
  CHECK(result.cases[1].status == GateStatus::missing);
  CHECK_FALSE(result.cases[1].fails);
  CHECK(result.exit_code == 0);
  CHECK_THAT(markdown(result), ContainsSubstring("made elsewhere: {\"gpu\":\"H200\"}"));
  // On the same hardware a lost case fails.
  Json other = there;
  other["case"] = "rmsnorm b";
  CHECK(gated({other}, &baseline).exit_code == 1);
}

TEST_CASE("verdicts of the run reach the gate") {
  CHECK(gated({record("rmsnorm a", 1, "fail")}).cases[0].status == GateStatus::failed);
  CHECK(gated({record("rmsnorm a", 1, "vacuous")}).exit_code == 1);
  CHECK(gated({record("rmsnorm a", 1, "skip")}).cases[0].status == GateStatus::skipped);
  CHECK(gated({record("rmsnorm a", 1, "skip")}).exit_code == 0);
  const GateResult result = gated({crashed("rmsnorm a"), record("rmsnorm b", 1, "fail")});
  CHECK(result.cases[0].status == GateStatus::crashed);
  CHECK(result.exit_code == 3);
  CHECK_THROWS_MATCHES(gated({record("rmsnorm a", 1, "maybe")}), GateError,
                       MessageMatches(ContainsSubstring("unknown verdict 'maybe'")));
  CHECK_THROWS_AS(gated({record("rmsnorm a", 1), record("rmsnorm a", 1)}), GateError);
  CHECK(gated({}).exit_code == 1);
}

TEST_CASE("limits hold for every case, and one that nothing was held against is named") {
  CHECK(gated({record("rmsnorm a", 0.5)}, nullptr, {"max_ulp<=0.5"}).exit_code == 0);
  const GateResult failed = gated({record("rmsnorm a", 0.75)}, nullptr, {"max_ulp<=0.5"});
  CHECK(failed.cases[0].findings[0].text == "y.max_ulp is 0.75, limit max_ulp<=0.5");
  CHECK(failed.exit_code == 1);
  CHECK(gated({record("rmsnorm a", 0.75)}, nullptr, {"path_bias<=1"}).exit_code == 1);
  const GateResult nothing = gated({record("rmsnorm a", 0.75)}, nullptr, {"scale.max_ulp<=1"});
  CHECK(nothing.exit_code == 1);
  CHECK(nothing.notes == std::vector<std::string>{"the limit scale.max_ulp<=1 was held against nothing"});
}

TEST_CASE("a waiver covers what it names, up to its limit and its day") {
  const Baseline baseline = baseline_of({record("rmsnorm a", 0.5)});
  const std::vector<Json> run = {record("rmsnorm a", 0.75)};
  const auto status = [&](const Json& waivers) { return gated(run, &baseline, {}, waivers).cases[0].status; };
  CHECK(status(waiver("2026-06-01")) == GateStatus::waived);
  CHECK(status(waiver("2026-06-01", {{"measure", "max_ulp"}, {"limit", 0.75}})) == GateStatus::waived);
  CHECK(status(waiver("2026-06-01", {{"measure", "y.max_ulp"}})) == GateStatus::waived);
  CHECK(status(waiver("2026-06-01", {{"limit", 0.7}})) == GateStatus::worse);
  CHECK(status(waiver("2026-06-01", {{"measure", "mean_ulp"}})) == GateStatus::worse);
  CHECK(status(waiver("2026-06-01", {{"impl", "path:*"}})) == GateStatus::worse);
  CHECK(status(waiver("2026-06-01", {{"match", "layernorm*"}})) == GateStatus::worse);

  const GateResult expired = gated(run, &baseline, {}, waiver("2026-05-31"));
  CHECK(expired.cases[0].status == GateStatus::worse);
  CHECK(expired.exit_code == 1);
  CHECK_THAT(expired.notes[0], ContainsSubstring("expired on 2026-05-31: issue 7"));
  const GateResult waived = gated(run, &baseline, {}, waiver("2026-12-31"));
  CHECK(waived.exit_code == 0);
  CHECK_THAT(markdown(waived), ContainsSubstring("waived until 2026-12-31: issue 7"));
  const GateResult unused = gated({record("rmsnorm a", 0.5)}, &baseline, {}, waiver("2026-12-31"));
  CHECK_THAT(unused.notes[0], ContainsSubstring("covers nothing"));
  CHECK(gated({crashed("rmsnorm a")}, nullptr, {}, waiver("2026-12-31", {{"measure", "crashed"}})).exit_code == 0);
}

TEST_CASE("a waiver without reason or day, or with a word nobody knows, is refused") {
  const auto refused = [](const Json& waivers, const char* what) {
    CHECK_THROWS_MATCHES(parse_waivers(waivers), GateError, MessageMatches(ContainsSubstring(what)));
  };
  refused(Json::array({{{"match", "*"}, {"until", "2026-01-01"}}}), "waiver 1 has no 'reason'");
  refused(Json::array({{{"match", "*"}, {"reason", "r"}}}), "waiver 1 has no 'until'");
  refused(waiver("2026-13-01"), "'2026-13-01' is not a day");
  refused(waiver("soon"), "'soon' is not a day");
  refused(waiver("2026-01-01", {{"untill", "x"}}), "unknown field 'untill'; known: match impl");
  refused(waiver("2026-01-01", {{"limit", "1"}}), "'limit' must be a number");
  refused(Json::object(), "must be a list");
  CHECK_THROWS_AS(gate({}, {.limits = {}, .baseline = nullptr, .waivers = {}, .today = ""}), GateError);
}

TEST_CASE("accept shows each change and drops only what this run could have made") {
  Json elsewhere = record("rmsnorm gpu", 0.5);
  elsewhere["depends_on"] = {{"gpu", "H200"}};
  const Baseline before = baseline_of({record("rmsnorm a", 0.5), record("rmsnorm b", 0.5), elsewhere});
  const BaselineChange change =
      accept(before, std::vector<Json>{record("rmsnorm b", 0.75), record("rmsnorm c", 0.5), crashed("rmsnorm d")});
  CHECK(change.lines == std::vector<std::string>{"- rmsnorm a [native]", "~ rmsnorm b [native]: y.max_ulp 0.5 -> 0.75",
                                                 "+ rmsnorm c [native]"});
  CHECK(change.refused == std::vector<std::string>{"rmsnorm d [native]: crashed, signal 11"});
  CHECK(change.after.size() == 3);
  // The accepted baseline passes the run it came from.
  const GateResult result = gated({record("rmsnorm b", 0.75), record("rmsnorm c", 0.5)}, &change.after);
  CHECK(result.exit_code == 0);
}

TEST_CASE("a baseline is written whole or not at all") {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "norma_gate_test";
  std::filesystem::create_directories(folder);
  const std::string path = folder / "base.jsonl";
  write_atomically(path, "old\n");
  write_atomically(path, "new\n");
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  CHECK(text.str() == "new\n");
  CHECK_FALSE(std::filesystem::exists(path + ".new"));
  CHECK_THROWS_AS(write_atomically(folder / "absent" / "base.jsonl", "x"), GateError);
  std::filesystem::remove_all(folder);
}

TEST_CASE("the result is told as JUnit, Markdown and annotations, escaped") {
  const Baseline baseline = baseline_of({record("rmsnorm a", 0.5)});
  Json odd = record("rmsnorm <b>|c", 1, "fail");
  odd["reason"] = "50% & \"more\"";
  const GateResult result = gated({record("rmsnorm a", 0.5), odd, crashed("rmsnorm d")}, &baseline);
  const std::string xml = junit_xml(result);
  CHECK_THAT(xml, ContainsSubstring(R"(tests="3" failures="1" errors="1" skipped="0")"));
  CHECK_THAT(xml, ContainsSubstring(R"(name="rmsnorm &lt;b&gt;|c")"));
  CHECK_THAT(xml, ContainsSubstring("50% &amp; &quot;more&quot;"));
  const std::string table = markdown(result);
  CHECK_THAT(table, ContainsSubstring("## norma gate: failed"));
  CHECK_THAT(table, ContainsSubstring("3 cases: 1 crashed, 1 failed, 1 ok"));
  CHECK_THAT(table, ContainsSubstring("&lt;b>\\|c"));
  CHECK(table.find("| ok |") == std::string::npos);
  const std::string commands = annotations(result);
  CHECK_THAT(commands, ContainsSubstring("::error title=norma failed::"));
  CHECK_THAT(commands, ContainsSubstring("50%25 & "));
  CHECK_THAT(commands, ContainsSubstring("%0Anorma run rmsnorm"));
  CHECK_THAT(commands, ContainsSubstring("::error title=norma crashed::"));
}

TEST_CASE("a glob matches whole texts") {
  CHECK(glob_matches("*", ""));
  CHECK(glob_matches("rms*bf16*", "rmsnorm bf16 4x3072"));
  CHECK(glob_matches("*path=?", "rmsnorm path=a"));
  CHECK_FALSE(glob_matches("rms", "rmsnorm"));
  CHECK_FALSE(glob_matches("*b", "abc"));
  CHECK(glob_matches("a*b*c", "a-b-b-c"));
}

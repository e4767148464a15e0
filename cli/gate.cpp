// norma gate, norma accept: a run against limits, a baseline and waivers.
#include <fmt/core.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <unistd.h>

#include "cli/commands.hpp"
#include "harness/judge/gate.hpp"

namespace norma::cli {

namespace {

struct GateCall {
  std::string run, baseline, waivers, today, junit, markdown_file;
  std::vector<std::string> limits;
  bool annotate = false, json = false;
};

struct AcceptCall {
  std::string run, baseline;
  bool yes = false;
};

std::string read_text(const std::string& path, const char* what) {
  std::ifstream file(path);
  if (!file || std::filesystem::is_directory(path)) throw GateError(fmt::format("cannot read the {} '{}'", what, path));
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

Baseline read_baseline(const std::string& path) {
  const std::string text = read_text(path, "baseline");
  try {
    return parse_baseline(text);
  } catch (const GateError& e) {
    throw GateError(fmt::format("{}: {}", path, e.what()));
  }
}

/// The records of a whole run, or of one whole shard: a part that happens to pass says nothing of the rest.
std::vector<nlohmann::json> records_of(const std::string& path) {
  const auto lines = read_run(path);
  if (lines.empty()) throw RunError(fmt::format("the run file '{}' has no whole line", path));
  std::vector<nlohmann::json> records;
  for (const auto& line : lines)
    if (line.value("kind", "") == "record") records.emplace_back(line);
  const auto total = lines.front().value("total", std::int64_t{0});
  const std::string shard = lines.front().value(nlohmann::ordered_json::json_pointer("/volatile/shard"), std::string("1/1"));
  const std::int64_t count = std::max(1, std::atoi(shard.substr(shard.find('/') + 1).c_str()));
  const std::int64_t wanted = (total - std::min(total, std::int64_t{std::atoi(shard.c_str())} - 1) + count - 1) / count;
  if (std::ssize(records) < wanted)
    throw RunError(fmt::format("'{}' holds {} of {} records; finish it by norma run ... --resume", path, records.size(), wanted));
  return records;
}

/// The day is the caller's to say; only the command line, not the gate, has a clock.
std::string utc_today() {
  const auto day = std::chrono::floor<std::chrono::days>(std::chrono::system_clock::now());
  const std::chrono::year_month_day date(day);
  return fmt::format("{:04}-{:02}-{:02}", static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                     static_cast<unsigned>(date.day()));
}

int run_gate(const GateCall& call) {
  GateOptions options{.limits = criteria(call.limits), .baseline = nullptr, .waivers = {}, .today = call.today.empty() ? utc_today() : call.today};
  Baseline baseline;
  if (!call.baseline.empty()) {
    baseline = read_baseline(call.baseline);
    options.baseline = &baseline;
  }
  if (!call.waivers.empty()) {
    const auto json = nlohmann::json::parse(read_text(call.waivers, "file of waivers"), nullptr, false);
    if (json.is_discarded()) throw GateError(fmt::format("'{}' is not JSON; waivers are an array of objects", call.waivers));
    options.waivers = parse_waivers(json);
  }
  const std::vector<nlohmann::json> records = records_of(call.run);
  const GateResult result = gate(records, options);
  if (!call.junit.empty()) write_text(call.junit, junit_xml(result));
  if (!call.markdown_file.empty()) write_text(call.markdown_file, markdown(result));
  if (call.annotate) fmt::print("{}", annotations(result));
  std::map<GateStatus, std::size_t> counts;
  for (const GateCase& c : result.cases) ++counts[c.status];
  if (call.json) {
    nlohmann::ordered_json cases = nlohmann::ordered_json::array();
    for (const GateCase& c : result.cases) {
      nlohmann::ordered_json findings = nlohmann::ordered_json::array();
      for (const Finding& f : c.findings) findings.push_back({{"measure", f.measure}, {"text", f.text}, {"waived", f.waived}});
      cases.push_back({{"case", c.key.case_line}, {"impl", c.key.impl}, {"status", name_of(c.status)}, {"fails", c.fails},
                       {"findings", findings}, {"notes", c.notes}, {"repro", c.repro}});
    }
    fmt::print("{}\n", nlohmann::ordered_json{{"cases", cases}, {"notes", result.notes}, {"exit", result.exit_code}}.dump());
    return result.exit_code;
  }
  for (const GateCase& c : result.cases) {
    if (c.status == GateStatus::ok) continue;
    fmt::print("{:<8} {} {}\n", name_of(c.status), c.key.case_line, c.key.impl);
    for (const Finding& f : c.findings) fmt::print("           {}{}\n", f.text, f.waived.empty() ? "" : " (waived: " + f.waived + ")");
    for (const std::string& note : c.notes) fmt::print("           {}\n", note);
    if (c.fails && !c.repro.empty()) fmt::print("           {}\n", c.repro);
  }
  for (const std::string& note : result.notes) fmt::print("note: {}\n", note);
  std::string summary;
  for (const auto& [status, count] : counts) summary += fmt::format("{}{} {}", summary.empty() ? "" : ", ", count, name_of(status));
  fmt::print("gate: {} ({})\n", result.exit_code == 0 ? "pass" : "FAIL", summary.empty() ? "no case" : summary);
  return result.exit_code;
}

int run_accept(const AcceptCall& call) {
  Baseline before;
  if (std::filesystem::exists(call.baseline)) before = read_baseline(call.baseline);
  const BaselineChange change = accept(before, records_of(call.run));
  for (const std::string& line : change.lines) fmt::print("{}\n", line);
  for (const std::string& line : change.refused) fmt::print("not accepted: {}\n", line);
  if (change.lines.empty()) {
    fmt::print("{} changes nothing in {}\n", call.run, call.baseline);
    return 0;
  }
  if (!call.yes) {
    if (isatty(STDIN_FILENO) == 0) throw UsageError(fmt::format("nothing written; say --yes to write these {} changes to '{}'", change.lines.size(), call.baseline));
    fmt::print("write these {} changes to {}? [y/N] ", change.lines.size(), call.baseline);
    std::fflush(stdout);
    const int answer = std::getchar();
    if (answer != 'y' && answer != 'Y') {
      fmt::print("nothing written\n");
      return 1;
    }
  }
  write_text(call.baseline, print_baseline(change.after));
  fmt::print("{}: {} lines\n", call.baseline, change.after.size());
  return 0;
}

}  // namespace

void add_gate(CLI::App& app, Outcome& outcome) {
  auto call = std::make_shared<GateCall>();
  CLI::App* command = app.add_subcommand("gate", "hold a run against limits, a baseline and waivers");
  command->add_option("RUN", call->run, "run.jsonl")->required()->type_name("");
  command->add_option("--baseline", call->baseline, "committed figures that must not grow")->type_name("FILE");
  add_repeated(*command, "--limit", call->limits, "LIMIT", "criterion that every case must hold");
  command->add_option("--waivers", call->waivers, "JSON list of dated, reasoned exceptions")->type_name("FILE");
  command->add_option("--today", call->today, "YYYY-MM-DD, held against the waivers' last days (default: today, UTC)")->type_name("DATE");
  command->add_option("--junit", call->junit, "write JUnit XML")->type_name("FILE");
  command->add_option("--markdown", call->markdown_file, "write a Markdown table")->type_name("FILE");
  command->add_flag("--annotations", call->annotate, "print GitHub workflow commands");
  command->add_flag("--json", call->json, "print JSON");
  command->callback([call, &outcome] { outcome.exit_code = run_gate(*call); });
}

void add_accept(CLI::App& app, Outcome& outcome) {
  auto call = std::make_shared<AcceptCall>();
  CLI::App* command = app.add_subcommand("accept", "show what a run changes in a baseline, then write it");
  command->add_option("RUN", call->run, "run.jsonl")->required()->type_name("");
  command->add_option("--baseline", call->baseline, "baseline to write; made if it is not there")->required()->type_name("FILE");
  command->add_flag("--yes", call->yes, "write without asking");
  command->callback([call, &outcome] { outcome.exit_code = run_accept(*call); });
}

}  // namespace norma::cli

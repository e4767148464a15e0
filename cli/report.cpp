// norma report, norma merge: run files as a page, shards as one run.
#include <fmt/core.h>

#include "cli/commands.hpp"

namespace norma::cli {

namespace {

struct ReportCall {
  std::string run, html;
  bool json = false;
};

struct MergeCall {
  std::vector<std::string> runs;
  std::string out;
};

int run_report(const ReportCall& call) {
  const auto lines = read_run(call.run);
  if (!call.html.empty()) {
    write_page(call.html, lines);
    fmt::print("page: {}\n", call.html);
  }
  std::vector<nlohmann::ordered_json> records;
  for (const auto& line : lines)
    if (line.value("kind", "") == "record") records.push_back(line);
  if (call.json) fmt::print("{}\n", nlohmann::ordered_json(records).dump());
  else if (call.html.empty()) print_records(records, 0);
  return 0;
}

}  // namespace

void add_report(CLI::App& app, Outcome& outcome) {
  auto call = std::make_shared<ReportCall>();
  CLI::App* command = app.add_subcommand("report", "a run file as a table or a page");
  command->add_option("RUN", call->run, "run.jsonl")->required()->type_name("");
  command->add_option("--html", call->html, "write the page")->type_name("FILE");
  command->add_flag("--json", call->json, "print the records as a JSON array");
  command->callback([call, &outcome] { outcome.exit_code = run_report(*call); });
}

void add_merge(CLI::App& app, Outcome& outcome) {
  auto call = std::make_shared<MergeCall>();
  CLI::App* command = app.add_subcommand("merge", "shards of one run as one run file");
  command->add_option("RUNS", call->runs, "the shards' run files")->required()->type_name("");
  command->add_option("--out", call->out, "run.jsonl to write")->required()->type_name("FILE");
  command->callback([call, &outcome] {
    const auto lines = merge_runs(call->runs);
    write_lines(call->out, lines);
    fmt::print("{}: {} records\n", call->out, lines.size() - 1);
    outcome.exit_code = 0;
  });
}

}  // namespace norma::cli

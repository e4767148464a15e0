// norma audit: rank the cast paths on real tensors, with the floor and what to change.
#include <fmt/core.h>

#include <cmath>

#include "cli/commands.hpp"

namespace norma::cli {

namespace {

struct Options {
  std::string norm, paths = "*", path, out, html, truth;
  std::vector<std::string> in, map, set;
  bool json = false;
  int jobs = 0, top = 0;
};

std::string ulp_text(const nlohmann::ordered_json& value) {
  return value.is_number() ? fmt::format("{:.4f}", value.get<double>()) : value.get<std::string>();
}

/// A maximum is rounded up, as on the page, so that 0.5000 means at most that.
std::string max_text(const nlohmann::ordered_json& value) {
  return value.is_number() ? fmt::format("{:.4f}", std::ceil(value.get<double>() * 1e4) / 1e4) : value.get<std::string>();
}

void print_site(const nlohmann::ordered_json& line, int top) {
  fmt::print("\n{}\n  {:<46} {:<5} {:>9} {:>9} {:>9} {:>9}  {}\n", line["input"].get<std::string>(), "path", "out", "rms ulp",
             "max ulp", "floor", "correct", "gap");
  int shown = 0;
  for (const auto& row : line["ranking"]) {
    const bool declared = row["declared"].get<bool>();
    if (shown >= top && !declared) continue;
    ++shown;
    fmt::print("{} {:<46} {:<5} {:>9} {:>9} {:>9} {:>8.2f}%  {}{}\n", declared ? "*" : " ", row["path"].get<std::string>(),
               row["format"].get<std::string>(), ulp_text(row["rms_ulp"]), max_text(row["max_ulp"]), max_text(row["floor_ulp"]),
               100 * row["correct_share"].get<double>(), row["gap"].get<std::string>(),
               row["equal_share"].is_null() ? "" : fmt::format("  {:.4f} % of the recorded bits", 100 * row["equal_share"].get<double>()));
  }
  fmt::print("  {}\n", line["advice"].get<std::string>());
}

/// One line a site: the path in use, its floor, the best path of the same function and format, the recorded bits.
void print_overview(const std::vector<nlohmann::ordered_json>& lines) {
  const auto size = [](const nlohmann::ordered_json& row, const char* key) { return row[key].get<std::string>().size(); };
  std::size_t site = 4;
  std::size_t used = 11;
  for (const auto& line : lines) {
    site = std::max(site, size(line, "input"));
    for (const auto& row : line["ranking"])
      if (row["declared"].get<bool>()) used = std::max(used, size(row, "path"));
  }
  fmt::print("{:<{}}  {:<{}} {:>8} {:>8} {:>8}   {:<32} {:>8} {:>8}  {:>13}\n", "site", site, "path in use", used, "rms ulp", "max ulp",
             "floor", "best path here", "rms ulp", "max ulp", "recorded bits");
  for (const auto& line : lines) {
    const auto& ranking = line["ranking"];
    if (ranking.empty()) continue;
    const nlohmann::ordered_json* declared = nullptr;
    for (const auto& row : ranking)
      if (row["declared"].get<bool>()) declared = &row;
    const auto cell = [&](const char* key) { return declared == nullptr ? std::string("-") : (key == std::string_view("rms_ulp") ? ulp_text : max_text)((*declared)[key]); };
    const nlohmann::ordered_json* best = nullptr;
    for (const auto& row : ranking)
      if (row["path"] == line["best"]) best = &row;
    const auto best_cell = [&](const char* key) { return best == nullptr ? std::string("-") : (key == std::string_view("rms_ulp") ? ulp_text : max_text)((*best)[key]); };
    fmt::print("{:<{}}  {:<{}} {:>8} {:>8} {:>8}   {:<32} {:>8} {:>8}  {:>13}\n", line["input"].get<std::string>(), site,
               declared == nullptr ? "-" : (*declared)["path"].get<std::string>(), used, cell("rms_ulp"), cell("max_ulp"),
               cell("floor_ulp"), best == nullptr ? "-" : (*best)["path"].get<std::string>(), best_cell("rms_ulp"), best_cell("max_ulp"),
               declared == nullptr || (*declared)["equal_share"].is_null()
                   ? "-"
                   : fmt::format("{:.4f} %", 100 * (*declared)["equal_share"].get<double>()));
  }
  if (!lines.empty()) fmt::print("\n{}: {}\n", lines.front()["input"].get<std::string>(), lines.front()["advice"].get<std::string>());
}

int run_audit(const Options& options, const std::vector<std::string>& command_line) {
  Session session(truth_kind(options.truth));
  TensorOptions tensors{.norm = options.norm, .in = "", .path = options.path, .map = options.map, .set = options.set};
  std::vector<AuditSite> sites;
  for (const std::string& file : options.in) {
    auto more = sites_of(file, tensors.site_options());
    sites.insert(sites.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }
  const Audit audit = plan_audit(session, std::move(sites), options.paths);
  const int jobs = threads_or_all(options.jobs);
  RunOptions run{.jobs = jobs, .shard = {}, .out = options.out, .resume = false, .append = false, .command = command_line,
                 .stop = &interrupt_flag(), .progress = progress_line()};
  const RunResult result = run_checks(session, audit.jobs, run);
  std::vector<nlohmann::ordered_json> lines{result.context};
  lines.insert(lines.end(), result.records.begin(), result.records.end());
  std::vector<nlohmann::ordered_json> ranking;
  if (!result.interrupted) ranking = rank_paths(session, audit, result.records, jobs);
  lines.insert(lines.end(), ranking.begin(), ranking.end());
  if (!options.out.empty()) write_lines(options.out, lines);
  if (!options.html.empty()) write_page(options.html, lines);
  if (options.json) {
    for (const auto& line : ranking) fmt::print("{}\n", line.dump());
  } else {
    if (ranking.size() > 3 && options.top == 0) print_overview(ranking);
    else
      for (const auto& line : ranking) print_site(line, options.top == 0 ? 8 : options.top);
    std::int64_t equal = 0;
    std::int64_t of = 0;
    std::size_t recorded = 0;
    for (std::size_t j = 0; j < result.records.size(); ++j) {
      const char* first = result.records[j]["outputs"].contains("dx") ? "dx" : "y";
      if (audit.jobs[j].impl.starts_with("path:") || !result.records[j]["outputs"].contains(first)) continue;
      const auto& y = result.records[j]["outputs"][first];
      if (!y.contains("conformance") || y["conformance"].is_null()) continue;
      ++recorded;
      equal += y["conformance"]["equal"].get<std::int64_t>();
      of += y["conformance"]["of"].get<std::int64_t>();
    }
    fmt::print("\n{} sites, {} checks; ulp error: |got - exact| / ulp_F(exact), exact never rounded first\n", audit.sites.size(),
               result.records.size());
    if (recorded > 0)
      fmt::print("conformance of the {} recorded outputs with their declared paths: {} of {} elements equal in every bit\n",
                 recorded, equal, of);
    if (audit.not_applicable > 0)
      fmt::print("{} pairs of site and path left out: the code does not take such tensors\n", audit.not_applicable);
  }
  if (!options.html.empty()) fmt::print("page: {}\n", options.html);
  return result.exit_code;
}

}  // namespace

void add_audit(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("audit", "rank cast paths on these tensors: error, floor, and what to change");
  command->add_option("NORM", options->norm, "the norm the tensors belong to ('norma list norms')")->required()->type_name("");
  command->add_option("--in", options->in, "safetensors files with x, weight, ... or PREFIX.x, PREFIX.weight, ...")
      ->required()
      ->type_name("FILE");
  command->add_option("--paths", options->paths, "the catalogue's paths to rank (default: *)")->type_name("GLOB");
  command->add_option("--path", options->path, "the path in use, beside which the others are ranked (default: the file's own)")
      ->type_name("PATH");
  add_repeated(*command, "--map", options->map, "NAME=TENSOR", "the file's name of a tensor");
  add_repeated(*command, "--set", options->set, "NAME=VALUE", "an attribute of the norm (eps=1e-6), or profile=NAME");
  command->add_option("--top", options->top, "rows printed a site (default: 8, and for more than 3 sites one line each)")
      ->check(number_in(1, 1000))
      ->type_name("N");
  add_truth_option(*command, options->truth);
  add_jobs(*command, options->jobs);
  command->add_option("--out", options->out, "write the run.jsonl")->type_name("FILE");
  command->add_option("--html", options->html, "write the page")->type_name("FILE");
  command->add_flag("--json", options->json, "print the rankings as JSON lines");
  command->callback([options, &outcome] { outcome.exit_code = run_audit(*options, outcome.command_line); });
}

}  // namespace norma::cli

// norma check: one output that somebody's kernel wrote, judged.
#include <fmt/core.h>

#include "cli/commands.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/inputs/safetensors.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "harness/cases/block_graphs.hpp"
#include "reference/certified/blocks/real_graph.hpp"

namespace norma::cli {

namespace {

struct Options {
  TensorOptions tensors;
  std::string got, no_worse_than, append, html, truth;
  std::vector<std::string> limits;
  bool json = false;
  int jobs = 0;
};

std::string recorded_of(const Options& options, const AuditSite& site) {
  const std::string first(norm_of(site.value).outputs.front());
  if (options.got.empty()) {
    if (site.recorded.empty())
      throw UsageError(fmt::format("'{0}' has no tensor '{1}' beside {2}; name it by --map {1}=TENSOR or give --got FILE",
                                   options.tensors.in, first, site.label));
    return site.recorded;
  }
  const auto map = pairs(options.tensors.map, "--map");
  if (const auto y = map.find(first); y != map.end()) return "file:" + options.got + "#" + y->second;
  const SafetensorsFile file = open_safetensors(options.got);
  const std::string own = site.label + "." + first;
  return "file:" + options.got + "#" + (file.entries.contains(own) ? own : first);
}

CheckJob job_of(const Options& options, const AuditSite& site) {
  Case value = site.value;
  if (!site.declared.empty()) value.keys["path"] = site.declared;
  if (!site.profile.empty()) value.keys["profile"] = site.profile;
  CheckJob job{.value = expand_site(value, options.tensors.in),
               .impl = recorded_of(options, site),
               .limits = criteria(options.limits),
               .no_worse_than = options.no_worse_than};
  return job;
}

/// --path auto: the catalogue's paths by their share of equal bits.
int list_by_equal_bits(Session& session, const Options& options, const std::vector<AuditSite>& sites) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const AuditSite& site : sites) {
    AuditSite bare = site;
    bare.recorded.clear();
    const Audit audit = plan_audit(session, {bare}, "*");
    struct Row {
      std::string path;
      std::int64_t equal, of;
      Place first;
    };
    std::vector<Row> rows;
    for (const CheckJob& job : audit.jobs) {
      CheckJob against = job;
      against.impl = recorded_of(options, site);
      against.limits.clear();
      const Record record = check(session, against);
      if (record.outputs.empty() || !record.outputs.front().measures.conformance) continue;
      const Conformance& c = *record.outputs.front().measures.conformance;
      rows.push_back({record.path, c.equal, c.of, c.first_difference});
    }
    std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.equal * b.of > b.equal * a.of; });
    if (!options.json) fmt::print("{}\n  {:<48} {:>12} {:>9}  first difference\n", site.label, "path", "equal bits", "of");
    std::size_t shown = 0;
    for (const Row& row : rows) {
      all.push_back({{"input", site.label}, {"path", row.path}, {"equal", row.equal}, {"of", row.of}});
      if (!options.json && ++shown <= 12)
        fmt::print("  {:<48} {:>11.4f}% {:>9}  {}\n", row.path,
                   100.0 * static_cast<double>(row.equal) / static_cast<double>(row.of), row.of,
                   row.equal == row.of ? "none" : fmt::format("[{},{}]", row.first.row, row.first.col));
    }
    if (!options.json && rows.size() > shown) fmt::print("  {} more, with fewer equal bits\n", rows.size() - shown);
  }
  if (options.json) fmt::print("{}\n", all.dump());
  return 0;
}

/// The job of a block: its outputs stand in --got, or in the input file's place if --path alone is asked.
std::vector<CheckJob> block_jobs(Session& session, const Options& options) {
  const Case value = expand_defaults(block_case(options.tensors));
  if (options.got.empty())
    throw UsageError(fmt::format("check {} needs --got FILE, the safetensors file with the block's outputs", options.tensors.norm));
  // A check that was asked for must not end as a skip.
  if (const BlockPath* path = find_block_path(value.get("path")))
    check_inputs(path_graph(value, *path), session.inputs(value)->tensors, true);
  return {{.value = value, .impl = "file:" + options.got + "#y", .limits = criteria(options.limits)}};
}

int run_check(const Options& options, const std::vector<std::string>& command_line) {
  Session session(truth_kind(options.truth));
  SiteOptions site_options = options.tensors.site_options();
  const bool automatic = options.tensors.path == "auto";
  if (automatic) site_options.path.clear();
  const bool block = find_block(options.tensors.norm) != nullptr;
  const std::vector<AuditSite> sites = block ? std::vector<AuditSite>{} : sites_of(options.tensors.in, site_options);
  if (automatic) return list_by_equal_bits(session, options, sites);
  if (!options.no_worse_than.empty() && find_cast_path(options.no_worse_than) == nullptr)
    throw CaseError(fmt::format("--no-worse-than: unknown path '{}'; 'norma list paths' prints the known ones",
                                options.no_worse_than));
  std::vector<CheckJob> jobs = block ? block_jobs(session, options) : std::vector<CheckJob>{};
  for (const AuditSite& site : sites) {
    jobs.push_back(job_of(options, site));
    // A file that cannot be read, or a path whose code does not take these tensors, is refused before any work: a check
    // that was asked for must not end as a skip.
    const auto implementation = session.implementation(jobs.back().impl);
    const Case& value = jobs.back().value;
    contract_of(value, session.inputs(value)->tensors, implementation.get());
  }
  RunOptions run{.jobs = threads_or_all(options.jobs), .shard = {}, .out = options.append, .resume = false, .append = true,
                 .command = command_line, .stop = &interrupt_flag(), .progress = progress_line()};
  const RunResult result = run_checks(session, std::move(jobs), run);
  if (options.json) {
    if (result.records.size() == 1) fmt::print("{}\n", result.records.front().dump());
    else fmt::print("{}\n", nlohmann::ordered_json(result.records).dump());
  } else {
    print_records(result.records, 0);
  }
  if (!options.html.empty()) {
    std::vector<nlohmann::ordered_json> lines{result.context};
    lines.insert(lines.end(), result.records.begin(), result.records.end());
    write_page(options.html, lines);
    fmt::print(stderr, "page: {}\n", options.html);
  }
  return result.exit_code;
}

}  // namespace

void add_check(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "check", "judge an output that a kernel wrote: against the mathematics, and against a cast path's bits");
  options->tensors.add_to(*command);
  command->add_option("--got", options->got, "file with the output y (default: the input file)")->type_name("FILE");
  command->add_option("--path", options->tensors.path,
                      "cast path, FILE.path, or 'auto' to list paths by equal bits; without --limit the bits must be its")
      ->type_name("PATH");
  add_repeated(*command, "--limit", options->limits, "LIMIT", "criterion such as 'max_ulp<=1.5', of a block's sites 'site.relative_l2<=1e-3'; all must hold ('norma list metrics')");
  command->add_option("--no-worse-than", options->no_worse_than, "max and rms error at most this path's on these tensors")
      ->type_name("PATH");
  command->add_option("--append", options->append, "add the record to this run.jsonl")->type_name("FILE");
  command->add_option("--html", options->html, "write the page")->type_name("FILE");
  add_truth_option(*command, options->truth);
  add_jobs(*command, options->jobs);
  command->add_flag("--json", options->json, "print the record as JSON");
  command->callback([options, &outcome] { outcome.exit_code = run_check(*options, outcome.command_line); });
}

}  // namespace norma::cli

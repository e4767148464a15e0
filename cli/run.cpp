// norma run: cases, files of cases and suites, against implementations.
#include <fmt/core.h>

#include <charconv>
#include <set>

#include "cli/commands.hpp"
#include "harness/cases/files.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/judge/gate.hpp"
#include "harness/run/kept.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "reference/blocks/block.hpp"

namespace norma::cli {

namespace {

struct Options {
  std::vector<std::string> words, impls, limits;
  std::string out, append, html, outputs, shard, truth;
  bool resume = false, json = false;
  int jobs = 0;
  double timeout_s = 60;
};

Shard parse_shard(const std::string& text) {
  if (text.empty()) return {};
  Shard shard;
  const auto slash = text.find('/');
  const auto number = [&](std::string_view word, int& value) {
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    return error == std::errc() && end == word.data() + word.size() && value >= 1;
  };
  const bool good = slash != std::string::npos && number(std::string_view(text).substr(0, slash), shard.index) &&
                    number(std::string_view(text).substr(slash + 1), shard.count) && shard.index <= shard.count;
  if (!good) throw UsageError(fmt::format("--shard takes I/N with 1 <= I <= N, not '{}'", text));
  return shard;
}

/// The implementations that a word names: a glob over the built-in ones and path:NAME, or one given whole.
std::vector<std::string> impls_named(const std::string& word, const Case& c) {
  if (word.find_first_of("*?") == std::string::npos || word.starts_with("cmd:") || word.starts_with("file:")) return {word};
  std::vector<std::string> found;
  for (const Implementation* impl : builtin_implementations())
    if (glob_matches(word, impl->name()) && impl->accepts_norm(c.norm)) found.push_back(impl->name());
  for (const CastPath* path : all_cast_paths())
    if (path->norm == c.norm && glob_matches(word, "path:" + std::string(path->name)))
      found.push_back("path:" + std::string(path->name));
  if (found.empty()) throw UsageError(fmt::format("--impl '{}' matches no implementation of {}", word, c.norm));
  return found;
}

/// A path file that cannot be read for this case is refused before any work. CaseError.
void check_path_file(const Case& expanded) {
  if (!expanded.get("path").starts_with("file:")) return;
  Tensors tensors;  // their formats and shapes are all that a program is built from
  tensors["x"] = {.format = expanded.format, .shape = *expanded.shape, .bytes = {}};
  for (const auto& [key, value] : expanded.keys)
    if (key.ends_with(".format")) tensors[key.substr(0, key.size() - 7)] = {.format = *find_format(value), .shape = {}, .bytes = {}};
  contract_of(expanded, tensors, nullptr);
}

std::vector<CheckJob> jobs_of(Session& session, const Options& options) {
  std::vector<CheckJob> jobs;
  std::set<std::pair<std::string, std::string>> seen;  // a case named twice, or by two globs, is one record
  for (const LocatedCase& located : gather_cases(options.words)) {
    const auto refuse = [&](const std::string& why) {
      return CaseError(located.origin.empty() ? why : located.origin + ": " + why);
    };
    std::vector<std::string> impls = options.impls;
    const std::string path(located.value.get("path"));
    if (impls.empty()) {
      if (path.empty())
        throw refuse(fmt::format("'{}' names no path, and there is no --impl; say path=NAME or --impl IMPL",
                                 print_case(located.value)));
      impls.push_back("path:" + path);
    }
    for (const std::string& word : impls)
      for (const std::string& impl : impls_named(word, located.value)) {
        Case value = located.value;
        // An emulated path without a contract is held to itself.
        if (impl.starts_with("path:") && path.empty()) value.keys["path"] = impl.substr(5);
        if (!impl.starts_with("file:") || find_block(value.norm) == nullptr) session.implementation(impl);
        try {
          const Case expanded = expand_defaults(value);
          check_path_file(expanded);
          if (!seen.emplace(print_case(expanded), impl).second) continue;
          jobs.push_back({.value = expanded, .impl = impl, .limits = criteria(options.limits)});
        } catch (const CaseError& e) {
          throw refuse(e.what());
        }
      }
  }
  return jobs;
}

int run_cases(const Options& options, const std::vector<std::string>& command_line) {
  if (!options.append.empty() && (!options.out.empty() || options.resume || !options.shard.empty()))
    throw UsageError("--append adds a whole run to a file; leave out --out, --resume and --shard");
  if (options.resume && options.out.empty()) throw UsageError("--resume needs --out, the file to go on with");
  Session session(truth_kind(options.truth), options.timeout_s);
  std::vector<CheckJob> jobs = jobs_of(session, options);
  const std::vector<CheckJob> all = options.outputs.empty() ? std::vector<CheckJob>{} : jobs;
  if (!options.outputs.empty() && (options.resume || !options.shard.empty()))
    throw UsageError("--outputs keeps what one whole run returned; leave out --resume and --shard");
  RunOptions run{.jobs = threads_or_all(options.jobs), .shard = parse_shard(options.shard), 
                 .out = options.append.empty() ? options.out : options.append, .resume = options.resume,
                 .append = !options.append.empty(), .command = command_line, .stop = &interrupt_flag(),
                 .progress = progress_line()};
  const RunResult result = run_checks(session, std::move(jobs), run);
  if (!options.outputs.empty()) write_kept(options.outputs, keep_outputs(session, all, result.records));
  std::vector<nlohmann::ordered_json> lines{result.context};
  lines.insert(lines.end(), result.records.begin(), result.records.end());
  if (!options.html.empty()) write_page(options.html, lines);
  if (options.json) {
    for (const auto& line : lines) fmt::print("{}\n", line.dump());
  } else {
    print_records(result.records, 60);
    if (result.interrupted) fmt::print(stderr, "interrupted; what was finished is {}\n", options.out.empty() ? "above" : "in " + options.out);
  }
  if (!options.html.empty()) fmt::print(stderr, "page: {}\n", options.html);
  return result.exit_code;
}

}  // namespace

void add_run(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("run", "run cases: 'rmsnorm bf16 4x3072 path=bfl.flux.rmsnorm', FILE.cases, @SUITE");
  command->add_option("CASE", options->words, "case words, FILE.cases or @SUITE; {a,b} and 1..8 expand")->required()->type_name("");
  add_repeated(*command, "--impl", options->impls, "IMPL", "NAME, a glob, path:NAME, file:OUT.safetensors#y or cmd:\"COMMAND\" (default: the case's path, emulated)");
  add_repeated(*command, "--limit", options->limits, "LIMIT", "criterion such as 'max_ulp<=1.5', of a block's sites 'site.relative_l2<=1e-3'; all must hold");
  add_jobs(*command, options->jobs);
  command->add_option("--timeout", options->timeout_s, "seconds that a cmd: implementation has for one answer (default: 60)")
      ->check(number_in(0.001, 1e6))
      ->type_name("S");
  add_truth_option(*command, options->truth);
  command->add_option("--shard", options->shard, "only every N-th case, from the I-th")->type_name("I/N");
  command->add_option("--out", options->out, "write the run.jsonl")->type_name("FILE");
  command->add_option("--append", options->append, "add the records to this run.jsonl")->type_name("FILE");
  command->add_option("--outputs", options->outputs, "keep the outputs' bits, for norma rejudge")->type_name("FILE");
  command->add_flag("--resume", options->resume, "go on with --out where it was cut off");
  command->add_option("--html", options->html, "write the page")->type_name("FILE");
  command->add_flag("--json", options->json, "print the run as JSON lines: the context, then the records");
  command->callback([options, &outcome] { outcome.exit_code = run_cases(*options, outcome.command_line); });
}

}  // namespace norma::cli

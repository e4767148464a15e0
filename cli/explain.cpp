// norma explain: one element, step by step.
#include <fmt/core.h>

#include <charconv>

#include "cli/commands.hpp"
#include "harness/audit/explain.hpp"
#include "harness/cases/files.hpp"
#include "harness/inputs/inputs.hpp"
#include "reference/blocks/block.hpp"
#include "reference/norms/norm.hpp"

namespace norma::cli {

namespace {

struct Options {
  std::vector<std::string> words;
  std::string in, impl, path, at, truth;
  std::vector<std::string> map, set;
  bool json = false;
};

/// "ROW,COL" or a flat index; rows and columns are those of the norm.
Place parse_place(const std::string& text, const TruthSource& truth) {
  std::int64_t numbers[2] = {0, 0};
  std::size_t count = 0;
  const char* at = text.data();
  const char* end = text.data() + text.size();
  while (count < 2) {
    const auto [next, error] = std::from_chars(at, end, numbers[count]);
    if (error != std::errc() || numbers[count] < 0) break;
    ++count;
    at = next;
    if (count == 2 || at == end || *at != ',' || at + 1 == end) break;
    ++at;
  }
  Place place;
  if (count == 1) place = {numbers[0] / truth.cols(), numbers[0] % truth.cols()};
  if (count == 2) place = {numbers[0], numbers[1]};
  if (at != end || count == 0 || place.row >= truth.rows() || place.col >= truth.cols())
    throw UsageError(fmt::format("--at takes ROW,COL or an index inside {}x{}, not '{}'", truth.rows(), truth.cols(), text));
  return place;
}

int explain_element(const Options& options) {
  Session session(truth_kind(options.truth));
  std::string impl = options.impl;
  Case value;
  if (!options.in.empty()) {
    if (options.words.size() != 1 || find_norm(options.words.front()) == nullptr)
      throw UsageError("with --in, explain takes the norm's name: norma explain rmsnorm --in FILE --impl path:NAME");
    TensorOptions tensors{.norm = options.words.front(), .in = options.in, .path = options.path, .map = options.map, .set = options.set};
    const std::vector<AuditSite> sites = sites_of(options.in, tensors.site_options());
    if (sites.size() != 1)
      throw UsageError(fmt::format("'{}' has {} sites; choose one by --map x=TENSOR --map weight=TENSOR", options.in, sites.size()));
    value = sites.front().value;
    if (!sites.front().declared.empty()) value.keys["path"] = sites.front().declared;
    if (!sites.front().profile.empty()) value.keys["profile"] = sites.front().profile;
    if (impl.empty()) impl = sites.front().recorded;
  } else {
    const auto cases = gather_cases(options.words);
    if (cases.size() != 1) throw UsageError(fmt::format("explain takes one case, these words make {}", cases.size()));
    value = cases.front().value;
  }
  if (find_block(value.norm) != nullptr)
    throw UsageError(fmt::format("explain takes a norm, and {} is a block; norma run tells what each of its sites adds", value.norm));
  if (impl.empty() && !value.get("path").empty()) impl = "path:" + std::string(value.get("path"));
  if (impl.empty()) throw UsageError("explain needs --impl IMPL, or a case with path=NAME");
  if (impl.starts_with("path:") && value.get("path").empty()) value.keys["path"] = impl.substr(5);
  const CheckJob job{.value = options.in.empty() ? expand_defaults(value) : expand_site(value, options.in), .impl = impl};
  const auto inputs = session.inputs(job.value);
  const auto implementation = session.implementation(impl);
  const auto contract = contract_of(job.value, inputs->tensors, implementation.get());
  if (!contract) throw UsageError(fmt::format("{} declares no cast path; name one by path=NAME", impl));
  const Record record = check(session, job);
  if (record.outputs.empty()) throw UsageError(record.verdict.reason);
  const std::string& output = record.outputs.front().name;
  const Measures& y = record.outputs.front().measures;
  if (y.worst.empty() && options.at.empty()) throw UsageError("no element of the output could be scored; say which by --at");
  const Place place = options.at.empty() ? y.worst.front().at : parse_place(options.at, *session.truth(job.value, output));
  const Explanation e = explain(session, job.value, *contract, output, place.row, place.col);
  double implementation_ulp = 0;
  for (const WorstElement& w : y.worst)
    if (w.at == place && w.implementation) implementation_ulp = *w.implementation;
  if (options.json) {
    nlohmann::ordered_json steps = nlohmann::ordered_json::array();
    for (const ExplainStep& s : e.steps)
      steps.push_back({{"name", s.name}, {"step", s.text}, {"exact", s.exact}, {"rounded", s.rounded}, {"rounds", s.rounds}, {"share_ulp", s.share_ulp}});
    fmt::print("{}\n", nlohmann::ordered_json{{"case", print_case(job.value)}, {"impl", impl}, {"at", {place.row, place.col}},
                                              {"truth", e.truth}, {"ideal", e.ideal}, {"definition_ulp", e.definition_ulp},
                                              {"path_ulp", e.path_ulp}, {"steps", steps}}.dump());
    return 0;
  }
  fmt::print("{}\n{} at [{},{}]{}\n\n", print_case(job.value), impl, place.row, place.col,
             options.at.empty() ? ", the worst element" : "");
  fmt::print("  {:>9}  {:<40} {:<34} {}\n", "share ulp", "step", "rounded", "exact if nothing before had rounded");
  for (const ExplainStep& s : e.steps)
    fmt::print("  {:>9}  {:<40} {:<34} {}\n", s.rounds ? fmt::format("{:+.4f}", s.share_ulp) : "exact",
               s.name + " = " + s.text, s.rounded, s.exact);
  fmt::print("\n  definition {:+.4f}  path {:+.4f}  implementation {:+.4f}  ulp of {}\n", e.definition_ulp, e.path_ulp,
             implementation_ulp, name_of(y.format));
  fmt::print("  truth  {}\n  ideal  {}\n", e.truth, e.ideal);
  fmt::print("  A share is how far the output moves when this step's exact value gives way to its rounded one; shares add up to the path error.\n");
  return 0;
}

}  // namespace

void add_explain(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("explain", "one element, step by step: exact, rounded, and each rounding's share of the error");
  command->add_option("CASE", options->words, "case words, or the norm's name with --in")->required()->type_name("");
  command->add_option("--in", options->in, "safetensors file with the tensors")->type_name("FILE");
  add_repeated(*command, "--map", options->map, "NAME=TENSOR", "the file's name of a tensor");
  add_repeated(*command, "--set", options->set, "NAME=VALUE", "an attribute of the norm");
  command->add_option("--path", options->path, "cast path to explain by")->type_name("PATH");
  command->add_option("--impl", options->impl, "implementation (default: the case's path, or the recorded y)")->type_name("IMPL");
  command->add_option("--at", options->at, "ROW,COL or flat index (default: the worst element)")->type_name("INDEX");
  add_truth_option(*command, options->truth);
  command->add_flag("--json", options->json, "print JSON");
  command->callback([options, &outcome] { outcome.exit_code = explain_element(*options); });
}

}  // namespace norma::cli

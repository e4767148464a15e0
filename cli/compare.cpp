// norma compare: two implementations of the same call, against each other and against the truth.
#include <fmt/core.h>

#include "cli/commands.hpp"
#include "harness/audit/compare.hpp"
#include "harness/cases/files.hpp"
#include "harness/inputs/inputs.hpp"

namespace norma::cli {

namespace {

struct Options {
  std::string a, b, in, truth;
  std::vector<std::string> words, map, set;
  bool json = false;
};

using Json = nlohmann::ordered_json;

double percent(std::int64_t part, std::int64_t of) {
  return of == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(of);
}

void print_row(const char* label, const std::string& impl, const Measures& m) {
  fmt::print("  {}  {:<44} {:<8} {:>9.4f} {:>9.4f} {:>+9.4f} {:>9.2f} % {:>12.4e}\n", label, impl, name_of(m.format),
             m.ulp.rms, m.ulp.max, m.ulp.bias, percent(m.ulp.correct, m.counts.compared), m.ulp.relative_l2);
}

void print_compared(const Options& options, const std::string& title, const std::vector<ComparedOutput>& outputs) {
  for (const ComparedOutput& o : outputs) {
    const Distance& d = o.distance;
    fmt::print("{}{}\n", title, o.output == "y" ? "" : ", " + o.output);
    fmt::print("     {:<44} {:<8} {:>9} {:>9} {:>9} {:>11} {:>12}\n", "", "format", "rms ulp", "max ulp", "bias ulp",
               "correct", "relative L2");
    print_row("A", options.a, o.a);
    print_row("B", options.b, o.b);
    fmt::print("  {} of {} elements have the same value", d.equal_values, d.elements);
    if (d.max_at.row < 0) {
      fmt::print("\n\n");
      continue;
    }
    fmt::print("; A is nearer to the exact value in {}, B in {}, neither in {}{}\n", d.nearer_a, d.nearer_b, d.as_near,
               d.undecided == 0 ? "" : fmt::format(", {} not decided", d.undecided));
    fmt::print(
        "  |A - B| / |exact| {:.4e} (2-norms); furthest apart by {:.4g} ulp of {} at [{},{}]: A {:.9g}, B {:.9g}, "
        "exact {:.9g}\n\n",
        d.relative_l2, d.max_ulp, name_of(d.unit), d.max_at.row, d.max_at.col, d.a_there, d.b_there, d.truth_there);
  }
}

Json json_of(const Options& options, const std::string& label, const std::vector<ComparedOutput>& outputs) {
  Json line = {{"case", label}, {"a", options.a}, {"b", options.b}, {"outputs", Json::object()}};
  for (const ComparedOutput& o : outputs) {
    const Distance& d = o.distance;
    Json between = {{"elements", d.elements},
                    {"compared", d.compared},
                    {"equal_values", d.equal_values},
                    {"nearer_a", d.nearer_a},
                    {"nearer_b", d.nearer_b},
                    {"as_near", d.as_near},
                    {"undecided", d.undecided},
                    {"relative_l2", json_number(d.relative_l2)},
                    {"max_ulp", json_number(d.max_ulp)},
                    {"ulp_of", name_of(d.unit)}};
    if (d.max_at.row >= 0) between["max_at"] = {d.max_at.row, d.max_at.col};
    line["outputs"][o.output] = {{"a", to_json(o.a)}, {"b", to_json(o.b)}, {"between", std::move(between)}};
  }
  return line;
}

/// A case that names no path has the inputs that the first path of the two takes.
Case with_inputs_of(const Options& options, Case value) {
  for (const std::string& impl : {options.a, options.b})
    if (impl.starts_with("path:") && value.get("path").empty()) value.keys["path"] = path_word(impl.substr(5));
  return value;
}

/// The cases to compare on: the sites of --in, or what the words say.
std::vector<Case> cases_of(const Options& options) {
  std::vector<Case> cases;
  if (options.in.empty()) {
    for (const auto& located : gather_cases(options.words)) cases.push_back(expand_defaults(with_inputs_of(options, located.value)));
    return cases;
  }
  if (options.words.size() != 1)
    throw UsageError("with --in, compare takes the norm's name: norma compare path:A path:B rmsnorm --in FILE");
  const TensorOptions tensors{
      .norm = options.words.front(), .in = options.in, .path = "", .map = options.map, .set = options.set};
  for (const AuditSite& site : sites_of(options.in, tensors.site_options())) {
    Case value = site.value;
    if (!site.profile.empty()) value.keys["profile"] = site.profile;
    cases.push_back(expand_site(value, options.in));
  }
  return cases;
}

int compare_cases(const Options& options) {
  Session session(truth_kind(options.truth));
  session.implementation(options.a);
  session.implementation(options.b);
  Json all = Json::array();
  for (const Case& value : cases_of(options)) {
    const auto outputs =
        compare_outputs(session, value, made_by(session, value, options.a), made_by(session, value, options.b));
    const std::string title = print_case(value);
    if (options.json)
      all.push_back(json_of(options, title, outputs));
    else
      print_compared(options, title, outputs);
  }
  if (options.json) fmt::print("{}\n", all.size() == 1 ? all.front().dump() : all.dump());
  return 0;
}

}  // namespace

void add_compare(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "compare", "two implementations or cast paths, against each other and against the mathematics");
  command->add_option("A", options->a, "IMPL: NAME, path:NAME, file:FILE#TENSOR, cmd:\"COMMAND\"")
      ->required()
      ->type_name("");
  command->add_option("B", options->b, "the other one")->required()->type_name("");
  command->add_option("CASE", options->words, "case words, or the norm's name with --in")->required()->type_name("");
  command->add_option("--in", options->in, "safetensors file with the tensors")->type_name("FILE");
  add_repeated(*command, "--map", options->map, "NAME=TENSOR", "the file's name of a tensor");
  add_repeated(*command, "--set", options->set, "NAME=VALUE", "an attribute of the norm");
  add_truth_option(*command, options->truth);
  command->add_flag("--json", options->json, "print JSON");
  command->callback([options, &outcome] { outcome.exit_code = compare_cases(*options); });
}

}  // namespace norma::cli

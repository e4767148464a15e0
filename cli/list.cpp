// norma list: the catalogues.
#include <fmt/core.h>

#include "cli/commands.hpp"
#include "harness/cases/files.hpp"
#include "harness/inputs/families.hpp"
#include "harness/judge/criteria.hpp"
#include "impls/cast_paths/cast_path.hpp"

namespace norma::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string what, show, format;
  bool json = false;
};

std::vector<std::string> words(std::string_view list) {
  std::vector<std::string> result;
  while (!list.empty()) {
    const auto comma = list.find(',');
    result.emplace_back(list.substr(0, comma));
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
    while (list.starts_with(' ')) list.remove_prefix(1);
  }
  return result;
}

/// The path's program for tensors of one format, the optional weight present: what path=file: reads.
std::optional<Program> sample_program(const CastPath& path, FormatId format) {
  Binding binding;
  binding.x = format;
  binding.cols = 3072;
  const bool quantized = path.norm == "rmsnorm";  // elsewhere scale is a vector beside x
  for (const std::string& name : words(path.required))
    binding.formats[name] = name == "scale" && quantized ? FormatId::fp32 : format;
  for (const std::string& name : words(path.optional))
    if (name == "weight") binding.formats[name] = format;
  binding.attributes["eps"] = 1e-6;
  try {
    return build_path(path, binding);
  } catch (const ProgramError&) {
    return std::nullopt;
  }
}

std::optional<std::pair<FormatId, Program>> sample(const CastPath& path, const std::string& wanted) {
  std::vector<FormatId> formats{FormatId::bf16, FormatId::fp16, FormatId::fp32, FormatId::fp64};
  if (!wanted.empty()) {
    const auto id = find_format(wanted);
    if (!id) throw UsageError(fmt::format("--format: unknown format '{}'", wanted));
    formats = {*id};
  }
  for (const FormatId format : formats)
    if (auto program = sample_program(path, format)) return std::pair(format, *std::move(program));
  return std::nullopt;
}

Json paths_json() {
  Json rows = Json::array();
  for (const CastPath* p : all_cast_paths()) {
    Json formats = Json::array();
    for (const Format& f : all_formats())
      if (sample_program(*p, f.id)) formats.push_back(f.name);
    Json gaps = Json::array();
    for (const auto& gap : p->gaps) gaps.push_back(gap);
    Json profiles = Json::array();
    for (const auto& profile : p->profiles) profiles.push_back(profile);
    Json attributes = Json::object();
    for (const CaseDefault& own : p->norm_attributes) attributes[std::string(own.key)] = own.value;
    const auto program = sample(*p, "");
    rows.push_back({{"name", p->name}, {"title", p->title}, {"norm", p->norm},
                    {"source", {{"project", p->source.project}, {"file", p->source.file}, {"commit", p->source.commit}, {"evidence", p->source.evidence}}},
                    {"eps", {{"default", p->eps_default}, {"place", p->eps_place}, {"class", p->eps_class}}},
                    {"root", p->root}, {"tail", p->tail}, {"residual", p->residual},
                    {"required", words(p->required)}, {"optional", words(p->optional)},
                    {"attributes", attributes}, {"gaps", gaps}, {"profiles", profiles}, {"formats", formats},
                    {"program", program ? print_program(program->second) : ""}});
  }
  return rows;
}

Json catalogue(const std::string& what) {
  Json rows = Json::array();
  if (what == "formats") {
    for (const Format& f : all_formats())
      rows.push_back({{"name", f.name}, {"title", f.title}, {"bits", f.code_bits}, {"precision", f.precision}, {"emin", f.emin}, {"emax", f.emax},
                      {"max", max_finite(f.id)}, {"min_normal", min_normal(f.id)}, {"min_subnormal", min_subnormal(f.id)}, {"safetensors", f.safetensors}});
  } else if (what == "norms") {
    for (const NormDef* n : all_norms()) {
      Json inputs = Json::array();
      for (const NormInput& i : n->inputs) inputs.push_back({{"name", i.name}, {"axes", i.axes}, {"required", i.required}, {"meaning", i.meaning}});
      Json attributes = Json::array();
      for (const NormAttribute& a : n->attributes) attributes.push_back({{"name", a.name}, {"default", a.fallback}, {"choices", a.choices}, {"meaning", a.meaning}});
      rows.push_back({{"name", n->name}, {"title", n->title}, {"formula", n->formula}, {"source", n->source}, {"inputs", inputs}, {"attributes", attributes}});
    }
  } else if (what == "paths") {
    rows = paths_json();
  } else if (what == "profiles") {
    for (const Profile& p : all_profiles()) rows.push_back({{"name", p.name}, {"title", p.title}, {"order", text_of(p.sum)}});
  } else if (what == "orders") {
    for (const OrderRow& o : all_orders()) rows.push_back({{"name", o.name}, {"title", o.meaning}, {"parameter", o.count}});
  } else if (what == "ops") {
    for (const OpRow& o : all_ops()) rows.push_back({{"name", o.name}, {"title", o.meaning}, {"operands", o.arity}, {"onnx", o.onnx}});
  } else if (what == "impls") {
    for (const Implementation* i : builtin_implementations()) rows.push_back({{"name", i->name()}, {"title", i->title()}});
    rows.push_back({{"name", "path:NAME"}, {"title", "a cast path, emulated bit for bit"}});
    rows.push_back({{"name", "file:OUT.safetensors#y"}, {"title", "an output made elsewhere"}});
    rows.push_back({{"name", "cmd:\"COMMAND\""}, {"title", "any program that answers JSON lines"}});
  } else if (what == "inputs") {
    for (const InputFamily& f : all_families())
      rows.push_back({{"name", versioned_name(f)}, {"title", f.title}, {"finds", f.finds}, {"precondition", f.precondition}});
  } else if (what == "metrics") {
    for (const MeasureRow& m : all_measures()) rows.push_back({{"name", m.name}, {"title", m.meaning}, {"unit", m.unit}});
  } else if (what == "views") {
    rows.push_back({{"name", "page"}, {"title", "one HTML file: rankings, records, error distribution, split, worst elements"}});
    rows.push_back({{"name", "terminal"}, {"title", "a table of records and failure texts"}});
  } else if (what == "suites") {
    for (const Suite& s : all_suites()) rows.push_back({{"name", s.name}, {"title", title_of(s)}});
  } else if (what != "blocks") {
    throw UsageError(fmt::format("unknown catalogue '{}'; known: formats norms blocks paths profiles orders ops impls inputs metrics views suites", what));
  }
  return rows;
}

int show(const Options& options) {
  if (options.what == "paths") {
    const CastPath* path = find_cast_path(options.show);
    if (path == nullptr) throw UsageError(fmt::format("unknown path '{}'; 'norma list paths' prints the known ones", options.show));
    const auto program = sample(*path, options.format);
    if (!program) throw UsageError(fmt::format("the code of '{}' does not take x in {}", options.show, options.format.empty() ? "any format alone" : options.format));
    fmt::print("# {}: {}\n# {} {} @{} ({})\n# as built for x in {}; read it with path=file:NAME.path\n{}", path->name, path->title, path->source.project,
               path->source.file, path->source.commit.empty() ? "unrecorded commit" : path->source.commit, path->source.evidence,
               name_of(program->first), print_program(program->second));
    return 0;
  }
  if (options.what == "suites") {
    const Suite* suite = find_suite(options.show);
    if (suite == nullptr) throw UsageError(fmt::format("unknown suite '{}'", options.show));
    fmt::print("{}", suite->text);
    return 0;
  }
  for (const Json& row : catalogue(options.what))
    if (row["name"] == options.show) {
      fmt::print("{}\n", row.dump(2));
      return 0;
    }
  throw UsageError(fmt::format("'{}' is not in the catalogue of {}", options.show, options.what));
}

int list(const Options& options) {
  if (!options.show.empty()) return show(options);
  const Json rows = catalogue(options.what);
  if (options.json) {
    fmt::print("{}\n", rows.dump(1));
    return 0;
  }
  std::size_t width = 4;
  for (const Json& row : rows) width = std::max(width, row["name"].get<std::string>().size());
  for (const Json& row : rows) fmt::print("{:<{}}  {}\n", row["name"].get<std::string>(), width, row["title"].get<std::string>());
  if (rows.empty()) fmt::print("this norma has no {}\n", options.what);
  return 0;
}

}  // namespace

void add_list(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("list", "the catalogues: formats norms blocks paths profiles orders ops impls inputs metrics views suites");
  command->add_option("WHAT", options->what, "which catalogue")->required()->type_name("");
  command->add_option("--show", options->show, "one entry whole; a path as the text that path=file: reads")->type_name("NAME");
  command->add_option("--format", options->format, "with paths --show: x's format")->type_name("FORMAT");
  command->add_flag("--json", options->json, "print a JSON array");
  command->callback([options, &outcome] { outcome.exit_code = list(*options); });
}

}  // namespace norma::cli

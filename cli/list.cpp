// norma list: the catalogues.
#include <fmt/core.h>

#include <algorithm>

#include "cli/commands.hpp"
#include "harness/cases/block_words.hpp"
#include "harness/cases/files.hpp"
#include "harness/inputs/families.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/judge/criteria.hpp"
#include "harness/run/context.hpp"
#include "impls/cast_paths/block_path.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "reference/blocks/block.hpp"

namespace norma::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string what, show, format, norm;
  bool json = false;
};

constexpr std::string_view kHostExecutor = "cuda_host.";

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

/// What a path's code may be bound to, x being of one format: as the first of these that it takes.
enum class Wide { none, modulation, parameters, tables };  // what is fp32 whatever x is
struct Sample {
  Wide wide;
  bool bias;  // beside an optional weight
  std::int64_t cols;
};
constexpr Sample kSamples[] = {{Wide::none, false, 3072},       {Wide::none, true, 3072},
                               {Wide::modulation, false, 3072}, {Wide::modulation, true, 3072},
                               {Wide::parameters, true, 3072},  {Wide::tables, false, 3072},  {Wide::none, false, 768},
                               {Wide::none, true, 768}};

bool is_wide(const CastPath& path, const std::string& input, Wide wide) {
  if (path.norm == "rmsnorm") return input == "scale";  // of a quantized output
  const bool modulation = input == "scale" || input == "shift" || input == "gate";
  const bool table = input == "cos" || input == "sin";
  const bool parameter = input == "weight" || input == "bias" || input.ends_with("_table");
  return (wide == Wide::tables && table) || (wide == Wide::modulation && modulation) || (wide == Wide::parameters && parameter);
}

/// The path's program for tensors of one format, the optional weight present: what path=file: reads.
std::optional<Program> sample_program(const CastPath& path, FormatId format) {
  for (const Sample& sample : kSamples) {
    Binding binding;
    binding.x = format;
    binding.cols = sample.cols;
    for (const std::string& name : words(path.required))
      binding.formats[name] = is_wide(path, name, sample.wide) ? FormatId::fp32 : format;
    for (const std::string& name : words(path.optional))
      if (name == "weight" || (name == "bias" && sample.bias))
        binding.formats[name] = is_wide(path, name, sample.wide) ? FormatId::fp32 : format;
    binding.attributes["eps"] = 1e-6;
    try {
      return build_path(path, binding);
    } catch (const ProgramError&) {
      continue;
    }
  }
  return std::nullopt;
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

Json paths_json(const std::string& norm) {
  Json rows = Json::array();
  for (const CastPath* p : all_cast_paths()) {
    if (!norm.empty() && p->norm != norm) continue;
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

/// What a kernel declares of itself on a small call that it takes: the norm, the orders of its sums, whether it claims an
/// error. Nothing where it declares no program of its own.
Json declared_by(Session& session, Implementation& kernel) {
  for (const NormDef* norm : all_norms()) {
    if (!kernel.accepts_norm(norm->name)) continue;
    for (const char* rest : {"bf16 2x64", "bf16 2x64 weight_offset=1", "bf16 2x4x16", "bf16 2x4x16 groups=2", "bf16 2x4x16 statistics=running"})
      try {
        const Case sample = expand_defaults(read_cases(fmt::format("{} {}", norm->name, rest), "sample").front().value);
        const auto inputs = session.inputs(sample);
        CaseAttributes attributes = attributes_of(sample);
        const ImplCall call{.norm = sample.norm, .inputs = &inputs->tensors, .numbers = std::move(attributes.numbers),
                            .words = std::move(attributes.words), .path = "", .profile = ""};
        const auto program = kernel.declared_program(call);
        if (!program) return Json::object();
        Json orders = Json::array();
        for (const Program* stage : stages_of(*program))
          for (const Node& node : stage->nodes)
            if (const std::string order = text_of(node.reduction.order);
                node.kind == NodeKind::reduce && std::ranges::find(orders, Json(order)) == orders.end())
              orders.push_back(order);
        const bool claims = kernel.declares(call).claim_ulp.has_value();
        return {{"norm", norm->name}, {"sample", print_case(sample)}, {"order", orders},
                {"claim", claims ? "max_ulp, proved from its program for each call" : "none"}};
      } catch (const std::runtime_error&) {
        continue;  // not what this kernel takes
      }
  }
  return Json::object();
}

Json blocks_json() {
  Json rows = Json::array();
  for (const BlockDef* block : all_blocks()) {
    Json attributes = Json::array(), words = Json::array(), paths = Json::array(), streams = Json::object();
    for (const BlockAttribute& a : block->attributes)
      attributes.push_back({{"name", a.name}, {"default", a.fallback}, {"meaning", a.meaning}});
    for (const NormAttribute& a : find_block_words(block->name)->attributes)
      if (!a.choices.empty())
        words.push_back({{"name", a.name}, {"default", a.fallback}, {"choices", a.choices}, {"meaning", a.meaning}});
    for (const auto& [output, input] : block->streams) streams[std::string(output)] = input;
    for (const BlockPath* p : all_block_paths())
      if (p->block == block->name)
        paths.push_back({{"name", p->name}, {"title", p->title},
                         {"source", {{"project", p->source.project}, {"file", p->source.file}, {"commit", p->source.commit}, {"evidence", p->source.evidence}}}});
    rows.push_back({{"name", block->name}, {"title", block->title}, {"formula", block->formula}, {"source", block->source},
                    {"input", block->input}, {"attributes", attributes}, {"words", words}, {"streams", streams}, {"paths", paths}});
  }
  return rows;
}

Json catalogue(const std::string& what, const std::string& norm) {
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
    rows = paths_json(norm);
  } else if (what == "profiles") {
    for (const Profile& p : all_profiles()) rows.push_back({{"name", p.name}, {"title", p.title}, {"order", text_of(p.sum)}});
  } else if (what == "orders") {
    for (const OrderRow& o : all_orders()) rows.push_back({{"name", o.name}, {"title", o.meaning}, {"parameter", o.count}});
  } else if (what == "ops") {
    for (const OpRow& o : all_ops()) rows.push_back({{"name", o.name}, {"title", o.meaning}, {"operands", o.arity}, {"onnx", o.onnx}});
  } else if (what == "impls") {
    Session session;
    for (Implementation* i : builtin_implementations())
      if ((norm.empty() || i->accepts_norm(norm)) && !i->name().starts_with(kHostExecutor)) {
        rows.push_back({{"name", i->name()}, {"title", i->title()}});
        rows.back().update(declared_by(session, *i));
      }
    rows.push_back({{"name", std::string(kHostExecutor) + "KERNEL"},
                    {"title", "the source of cuda.KERNEL, run on the CPU by the host executor"}});
    rows.push_back({{"name", "path:NAME"}, {"title", "a cast path, emulated bit for bit"}});
    rows.push_back({{"name", "file:OUT.safetensors#y"}, {"title", "an output made elsewhere"}});
    rows.push_back({{"name", "cmd:\"COMMAND\""}, {"title", "any program that answers JSON lines"}});
  } else if (what == "devices") {
    rows.push_back({{"name", "host"}, {"title", "the host executor: CUDA kernels' source on the CPU"}});
    Json gpu = {{"name", "gpu"}};
    const Json facts = gpu_facts();
    gpu["title"] = facts.contains("problem") ? facts["problem"].get<std::string>()
                                             : fmt::format("{}, compute capability {}", facts.value("device", ""), facts.value("capability", ""));
    gpu.update(facts);
    rows.push_back(std::move(gpu));
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
  } else if (what == "blocks") {
    rows = blocks_json();
  } else {
    throw UsageError(fmt::format("unknown catalogue '{}'; known: formats norms blocks paths profiles orders ops impls devices inputs metrics views suites", what));
  }
  return rows;
}

int show(const Options& options) {
  if (options.what == "paths") {
    const CastPath* path = find_cast_path(options.show);
    if (path == nullptr) throw UsageError(fmt::format("unknown path '{}'; 'norma list paths' prints the known ones", options.show));
    const auto program = sample(*path, options.format);
    if (!program) throw UsageError(fmt::format("the code of '{}' does not take x in {}", options.show, options.format.empty() ? "any format alone" : options.format));
    FormatId format = program->first;
    for (const Program* stage : stages_of(program->second))
      if (const auto weight = stage->find_value("weight"))
        format = stage->nodes[static_cast<std::size_t>(weight->node)].rounding.format->id;
    fmt::print("# {}: {}\n# {} {} @{} ({})\n# as built for x in {}{}; read it with path=file:NAME.path\n{}", path->name, path->title, path->source.project,
               path->source.file, path->source.commit.empty() ? "unrecorded commit" : path->source.commit, path->source.evidence,
               name_of(program->first), format == program->first ? "" : fmt::format(", weight in {}", name_of(format)), print_program(program->second));
    return 0;
  }
  if (options.what == "suites") {
    const Suite* suite = find_suite(options.show);
    if (suite == nullptr) throw UsageError(fmt::format("unknown suite '{}'", options.show));
    fmt::print("{}", suite->text);
    return 0;
  }
  for (const Json& row : catalogue(options.what, options.norm))
    if (row["name"] == options.show) {
      fmt::print("{}\n", row.dump(2));
      return 0;
    }
  throw UsageError(fmt::format("'{}' is not in the catalogue of {}", options.show, options.what));
}

int list(const Options& options) {
  const bool of_norms = options.what == "paths" || options.what == "impls";
  if (!options.norm.empty() && (!of_norms || find_norm(options.norm) == nullptr))
    throw UsageError(!of_norms ? fmt::format("--norm goes with paths and impls, not with {}", options.what)
                                             : fmt::format("--norm: unknown norm '{}'; 'norma list norms' prints the known ones", options.norm));
  if (!options.show.empty()) return show(options);
  const Json rows = catalogue(options.what, options.norm);
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
  CLI::App* command = app.add_subcommand("list", "the catalogues: formats norms blocks paths profiles orders ops impls devices inputs metrics views suites");
  command->add_option("WHAT", options->what, "which catalogue")->required()->type_name("");
  command->add_option("--show", options->show, "one entry whole; a path as the text that path=file: reads")->type_name("NAME");
  command->add_option("--norm", options->norm, "with paths and impls: only those of this norm")->type_name("NORM");
  command->add_option("--format", options->format, "with paths --show: x's format")->type_name("FORMAT");
  command->add_flag("--json", options->json, "print a JSON array");
  command->callback([options, &outcome] { outcome.exit_code = list(*options); });
}

}  // namespace norma::cli

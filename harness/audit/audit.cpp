// Which cast path costs what, and what to change.
#include "harness/audit/audit.hpp"

#include <fmt/core.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <tuple>

#include "harness/audit/explain.hpp"
#include "harness/cases/number.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/inputs/safetensors.hpp"
#include "harness/judge/gate.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"

namespace norma {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kFileKeys[] = {"norm", "path", "profile", "provenance", "text", "format"};

std::string file_value(const std::string& file, const std::string& tensor) { return "file:" + file + "#" + tensor; }

/// A stage with everything done exactly but the roundings that its formats make unavoidable, after the `earlier` ones.
Program floor_stage(const Program& program, std::vector<Program> earlier) {
  Program floor{.norm = program.norm,
                .nodes = {},
                .outputs = program.outputs,
                .view = program.view,
                .stages = std::move(earlier)};
  std::vector<int> place(program.nodes.size());
  std::vector<bool> is_output(program.nodes.size(), false);
  for (const ProgramOutput& output : program.outputs)
    if (!output.passed) is_output[static_cast<std::size_t>(output.value.node)] = true;
  for (std::size_t i = 0; i < program.nodes.size(); ++i) {
    Node node = program.nodes[i];
    for (Operand& o : node.operands) o.node = place[static_cast<std::size_t>(o.node)];
    if (const auto from = source_of(floor, floor.stages.size(), node.names[0]); from && node.kind == NodeKind::input) {
      const Program& stage = floor.stages[*from];
      node.rounding = stage.nodes[static_cast<std::size_t>(stage.find_output(node.names[0])->value.node)].rounding;
    }
    const bool step = node.kind == NodeKind::map || node.kind == NodeKind::reduce;
    const bool wide = step && !is_output[i] && node.rounding.format && contains(node.rounding.format->id, FormatId::fp32);
    node.rounding.within_ulp = 0;
    if (node.kind == NodeKind::reduce && node.reduction.kind != ReduceKind::moments) {
      node.reduction.order = Order{.kind = OrderKind::exact};
      node.reduction.contract = false;
      if (wide) node.reduction.term_format = FormatRef{FormatId::fp64};
    }
    if (wide) node.rounding.format = FormatRef{FormatId::fp64};
    if (wide && node.kind == NodeKind::map && node.op == Op::rsqrt) {
      Node root = node;
      root.op = Op::sqrt;
      root.names = {node.names[0] + ".root"};
      floor.nodes.push_back(std::move(root));
      node.op = Op::reciprocal;
      node.operands = {{static_cast<int>(floor.nodes.size()) - 1, 0}};
    }
    place[i] = static_cast<int>(floor.nodes.size());
    floor.nodes.push_back(std::move(node));
  }
  for (ProgramOutput& output : floor.outputs) output.value.node = place[static_cast<std::size_t>(output.value.node)];
  return floor;
}

Program floor_program(const Program& program) {
  std::vector<Program> earlier;
  for (const Program& stage : program.stages) earlier.push_back(floor_stage(stage, earlier));
  for (Program& stage : earlier) stage.stages.clear();
  return floor_stage(program, std::move(earlier));
}

/// y of a record, dx of a gradient's, or null.
const Json* measures_of(const Json& record) {
  if (!record.contains("outputs")) return nullptr;
  const Json& outputs = record["outputs"];
  if (outputs.contains("dequantized")) return &outputs["dequantized"];
  for (const char* first : {"y", "dx"})
    if (outputs.contains(first)) return &outputs[first];
  return nullptr;
}

double number(const Json& value) {
  if (value.is_number()) return value.get<double>();
  return value == "inf" ? HUGE_VAL : std::nan("");
}

std::string source_text(const PathSource& source) {
  const std::string text = fmt::format("{} {}", source.project, source.file);
  return source.commit.empty() ? text : fmt::format("{} @{}", text, source.commit);
}

std::string joined(std::span<const std::string_view> words) {
  std::string text;
  for (const auto& word : words) text.append(text.empty() ? "" : ", ").append(word);
  return text;
}

struct Ranked {
  const CastPath* path;
  const Json* measures;
  double max_ulp, rms_ulp, floor_ulp;
  std::string format;
};

/// The path's meaning is the site's norm: no definition gap, and no other attribute of the norm.
bool computes(const Ranked& r, const AuditSite& site) {
  return r.path->gaps.empty() && std::all_of(r.path->norm_attributes.begin(), r.path->norm_attributes.end(),
                                             [&](const CaseDefault& own) { return same_value(site.value.get(own.key), own.value); });
}

/// What a tail letter of the survey (§f) means to somebody who changes code.
std::string tail_text(std::string_view tail) {
  if (tail.starts_with('A')) return "cast the normalized row, then multiply by the weight";
  if (tail.starts_with('B')) return "multiply by the weight in fp32, then cast once";
  if (tail.starts_with('C')) return "multiply by 1 + weight in fp32, then cast once";
  if (tail.starts_with('D')) return "form 1 + weight in its own format, after the cast";
  if (tail.starts_with('E')) return "keep the output in fp32";
  if (tail.starts_with('F')) return "do every operation in the input's format";
  if (tail.starts_with('G')) return "multiply by the weight before the root";
  if (tail.starts_with('H')) return "fold the weight into the root, then cast once";
  if (tail.starts_with('I')) return "divide by the norm, then scale";
  if (tail.starts_with('K')) return "round every operation of the modulation";
  if (tail.starts_with('L')) return "modulate in fp32, then cast once";
  return "cast once";
}

/// The path to change to: of those that compute the norm in this format with an rms error within 1 % of the best,
/// the one most like the path in use (same project, root, eps); so that a tie does not send anybody elsewhere.
const Ranked* best_of(const std::vector<Ranked>& ranking, const AuditSite& site, const std::string& format) {
  const CastPath* used = find_cast_path(site.declared);
  const Ranked* best = nullptr;
  int best_likeness = -1;
  double least = 0;
  for (const Ranked& r : ranking) {
    if (!computes(r, site) || r.format != format || !std::isfinite(r.max_ulp)) continue;
    if (r.path->source.evidence == "inferred") continue;  // nobody should change to what nobody read
    if (best == nullptr) least = r.rms_ulp;
    if (r.rms_ulp > 1.01 * least) continue;
    const auto project = [](const CastPath* p) { return p->name.substr(0, p->name.find('.')); };
    int likeness = 0;
    if (used != nullptr)
      likeness += (project(r.path) == project(used) ? 4 : 0) + (r.path->root == used->root ? 2 : 0) +
                  (r.path->eps_class == used->eps_class ? 1 : 0);
    if (likeness > best_likeness) {
      best = &r;
      best_likeness = likeness;
    }
  }
  return best;
}

/// One sentence on what to change: where the declared path loses, and which path of the same output format and
/// the same function loses less.
std::string advice_for(Session& session, const AuditSite& site, const std::vector<Ranked>& ranking) {
  const auto declared = std::find_if(ranking.begin(), ranking.end(),
                                     [&](const Ranked& r) { return r.path->name == site.declared; });
  if (declared == ranking.end()) {
    const Ranked* best = best_of(ranking, site, std::string(name_of(site.value.format)));
    if (best == nullptr) return "No path of the catalogue computes this norm on these tensors.";
    return fmt::format("Of the paths that compute this norm, {} errs least here: at most {:.3f} ulp of {}.", best->path->name,
                       best->max_ulp, best->format);
  }
  const Ranked* best = best_of(ranking, site, declared->format);
  Case with_path = site.value;
  with_path.keys["path"] = site.declared;
  if (!site.profile.empty()) with_path.keys["profile"] = site.profile;
  with_path = expand_defaults(with_path);
  const auto inputs = session.inputs(with_path);
  const auto contract = contract_of(with_path, inputs->tensors, nullptr);
  const std::string first(norm_of(with_path).outputs.front());
  const std::int64_t rows = session.truth(with_path, first)->rows();
  const std::vector<double> budget = step_budget(session, with_path, *contract, first, {0, rows / 2});
  double sum = 0;
  std::size_t costliest = 0;
  for (std::size_t i = 0; i < budget.size(); ++i) {
    sum += budget[i];
    if (budget[i] > budget[costliest]) costliest = i;
  }
  const Program* stage = stage_of(contract->program, first);
  const std::string step =
      stage == nullptr || budget.empty() ? ""
                                         : fmt::format("{} = {}", stage->nodes[costliest].names[0],
                                     print_step(*stage, static_cast<int>(costliest)));
  std::string text = fmt::format("{} errs by at most {:.3f} ulp of {} (floor of its casts {:.3f})", site.declared,
                                 declared->max_ulp, declared->format, declared->floor_ulp);
  if (sum > 0) text += fmt::format("; {:.0f} % of its squared error is the step '{}'", 100 * budget[costliest] / sum, step);
  if (best == nullptr || best->path == declared->path || !(best->rms_ulp < declared->rms_ulp))
    return text + "; no path of the catalogue with this output format does better here.";
  return text + fmt::format("; change to {}, which errs by at most {:.3f}: {}.", best->path->name, best->max_ulp, tail_text(best->path->tail));
}

}  // namespace

std::vector<AuditSite> sites_of(const std::string& file, const SiteOptions& options) {
  const SafetensorsFile opened = open_safetensors(file);
  const NormDef* norm = find_norm(options.norm);
  if (norm == nullptr)
    throw CaseError(fmt::format("unknown norm '{}'; known: {}", options.norm,
                                known_words(all_norms(), [](const NormDef* n) { return n->name; })));
  for (const auto& [name, tensor] : options.map) {
    const bool known = name == norm->outputs.front() || std::any_of(norm->inputs.begin(), norm->inputs.end(),
                                                  [&](const NormInput& i) { return i.name == name; });
    if (!known)
      throw CaseError(fmt::format("--map {}={}: {} has no tensor '{}'; known: {}, {}", name, tensor, norm->name, name,
                                  known_words(norm->inputs, [](const NormInput& i) { return i.name; }),
                                  norm->outputs.front()));
    if (!opened.entries.contains(tensor))
      throw CaseError(fmt::format("--map {}={}: '{}' has no tensor '{}'; it has: {}", name, tensor, file, tensor,
                                  known_words(opened.entries, [](const auto& e) { return e.first; })));
  }
  std::vector<std::string> prefixes;
  if (options.map.contains("x")) prefixes.push_back("");
  else
    for (const auto& [name, entry] : opened.entries)
      if (name == "x") prefixes.push_back("");
      else if (name.ends_with(".x")) prefixes.push_back(name.substr(0, name.size() - 1));
  if (prefixes.empty())
    throw CaseError(fmt::format("'{}' has no tensor 'x' and none whose name ends in '.x'; name it by --map x=TENSOR; it has: {}",
                                file, known_words(opened.entries, [](const auto& e) { return e.first; })));
  const auto tensor_named = [&](const std::string& prefix, const std::string& name) -> std::string {
    if (const auto mapped = options.map.find(name); mapped != options.map.end()) return mapped->second;
    return opened.entries.contains(prefix + name) ? prefix + name : "";
  };
  std::vector<AuditSite> sites;
  for (const std::string& prefix : prefixes) {
    AuditSite site;
    site.label = prefix.empty() ? std::filesystem::path(file).filename().string() : prefix.substr(0, prefix.size() - 1);
    site.value.norm = options.norm;
    for (const NormInput& input : norm->inputs) {
      const std::string tensor = tensor_named(prefix, std::string(input.name));
      if (tensor.empty()) continue;
      const Tensor read = read_tensor(opened, tensor);
      if (input.name == "x") site.value.format = read.format;
      const std::string key = input.name == "x" ? "input" : std::string(input.name) + ".input";
      site.value.keys[key] = file_value(file, tensor);
      if (input.name != "x") site.value.keys[std::string(input.name) + ".format"] = std::string(name_of(read.format));
    }
    for (const NormAttribute& attribute : norm->attributes)
      if (const auto value = opened.metadata.find(attribute.name); value != opened.metadata.end())
        site.value.keys[std::string(attribute.name)] = value->second;
    for (const auto& [key, value] : options.set) {
      const bool known = std::ranges::any_of(norm->attributes, [&](const NormAttribute& a) { return a.name == key; });
      if (!known)
        throw CaseError(fmt::format("--set {}={}: {} has no attribute '{}'; known: {}, profile", key, value, norm->name, key,
                                    known_words(norm->attributes, [](const NormAttribute& a) { return a.name; })));
      site.value.keys[key] = value;
    }
    const auto meta = [&](const char* key) {
      const auto found = opened.metadata.find(key);
      return found == opened.metadata.end() ? std::string() : found->second;
    };
    site.declared = options.path.empty() ? meta("path") : options.path;
    site.profile = !options.profile.empty() ? options.profile : options.path.empty() ? meta("profile") : "";
    if (const std::string y = tensor_named(prefix, std::string(norm->outputs.front())); !y.empty()) site.recorded = file_value(file, y);
    // Through the text form, so that an unknown key or a malformed value is refused in the same words everywhere.
    Case asked = site.value;
    if (!options.path.empty()) asked.keys["path"] = options.path;
    if (!options.profile.empty()) asked.keys["profile"] = options.profile;
    parse_case(print_case(asked));
    site.value = parse_case(print_case(site.value));
    sites.push_back(std::move(site));
  }
  return sites;
}

Case expand_site(const Case& value, const std::string& file) {
  Case expanded = expand_defaults(value);
  for (const auto& [key, input] : expanded.keys)
    if (key.ends_with(".input") && !input.starts_with("file:")) {
      const std::string tensor = key.substr(0, key.find('.'));
      const std::string_view path = expanded.get("path");
      // Without a path a norm that scales may shift instead.
      const bool either = path.empty() && tensor == "scale" && std::ranges::find(norm_of(expanded).inputs, "shift", &NormInput::name) !=
                                                                   norm_of(expanded).inputs.end();
      throw CaseError(fmt::format("{} needs the tensor '{}'{}, and '{}' has none beside x; name it by --map {}=TENSOR",
                                  path.empty() ? expanded.norm : fmt::format("path {}", path), tensor,
                                  either ? " or 'shift'" : "", file, tensor));
    }
  return expanded;
}

Audit plan_audit(Session& session, std::vector<AuditSite> sites, const std::string& paths_glob) {
  Audit audit;
  audit.sites = std::move(sites);
  std::size_t matching = 0;
  for (const CastPath* path : all_cast_paths()) matching += glob_matches(paths_glob, path->name) ? 1 : 0;
  if (matching == 0)
    throw CaseError(fmt::format("no path matches '{}'; 'norma list paths' prints the known ones", paths_glob));
  for (std::size_t s = 0; s < audit.sites.size(); ++s) {
    const AuditSite& site = audit.sites[s];
    expand_defaults(site.value);  // tensors that do not fit each other are refused, not left out under every path
    const auto add = [&](Case value, const std::string& impl) {
      audit.jobs.push_back({.value = std::move(value), .impl = impl});
      audit.site_of.push_back(s);
    };
    if (!site.recorded.empty()) {
      Case value = site.value;
      if (!site.declared.empty()) value.keys["path"] = site.declared;
      if (!site.profile.empty()) value.keys["profile"] = site.profile;
      add(expand_site(value, site.label), site.recorded);
    }
    for (const CastPath* path : all_cast_paths()) {
      if (path->norm != site.value.norm || !glob_matches(paths_glob, path->name)) continue;
      Case value = site.value;
      value.keys["path"] = std::string(path->name);
      if (path->name == site.declared && !site.profile.empty()) value.keys["profile"] = site.profile;
      try {
        const Case expanded = expand_site(value, site.label);
        contract_of(expanded, session.inputs(expanded)->tensors, nullptr);
        add(expanded, "path:" + std::string(path->name));
      } catch (const ProgramError&) {
        ++audit.not_applicable;
      } catch (const CaseError&) {
        ++audit.not_applicable;
      }
    }
  }
  return audit;
}

std::vector<Json> rank_paths(Session& session, const Audit& audit, const std::vector<Json>& records, int jobs) {
  std::vector<Json> lines(audit.sites.size());
  const auto rank_site = [&](std::size_t s) {
    const AuditSite& site = audit.sites[s];
    std::vector<Ranked> ranking;
    std::map<std::string, double> floors;  // by the floor's program and the norm it is held to
    const Json* conformance = nullptr;
    for (std::size_t j = 0; j < audit.jobs.size() && j < records.size(); ++j) {
      if (audit.site_of[j] != s) continue;
      const CheckJob& job = audit.jobs[j];
      const Json* measures = measures_of(records[j]);
      if (measures == nullptr) continue;
      if (!job.impl.starts_with("path:")) {
        if (measures->contains("conformance")) conformance = &(*measures)["conformance"];
        continue;
      }
      const auto inputs = session.inputs(job.value);
      const auto contract = contract_of(job.value, inputs->tensors, nullptr);
      const CaseAttributes attributes = attributes_of(job.value);
      const Program program = floor_program(contract->program);
      std::string key = print_program(program);
      for (const auto& [name, value] : attributes.numbers) key += fmt::format(" {}={:a}", name, value);
      for (const auto& [name, value] : attributes.words) key += fmt::format(" {}={}", name, value);
      if (!floors.contains(key)) {
        const Tensors best = emulate(program, inputs->tensors, attributes.numbers);
        const auto measured = measure_outputs(session, job.value, std::nullopt, {}, best, false);
        const bool quantized = measured.size() > 1 && measured[1].name == "dequantized";
        floors[key] = measured[quantized ? 1 : 0].measures.ulp.max;
      }
      ranking.push_back({.path = find_cast_path(job.impl.substr(5)),
                         .measures = measures,
                         .max_ulp = number((*measures)["ulp"]["max"]),
                         .rms_ulp = number((*measures)["ulp"]["rms"]),
                         .floor_ulp = floors[key],
                         .format = (*measures)["format"].get<std::string>()});
    }
    // First the paths that compute this site's norm in the format in use; then by rms error. NaN (nothing scored)
    // and infinite maxima last.
    const auto declared = std::find_if(ranking.begin(), ranking.end(),
                                       [&](const Ranked& r) { return r.path->name == site.declared; });
    const std::string format = declared != ranking.end() ? declared->format : std::string(name_of(site.value.format));
    std::stable_sort(ranking.begin(), ranking.end(), [&](const Ranked& a, const Ranked& b) {
      const auto place = [&](const Ranked& r) {
        return std::tuple(computes(r, site) && r.format == format ? 0 : 1, std::isfinite(r.max_ulp) ? 0 : 1,
                          r.rms_ulp != r.rms_ulp ? HUGE_VAL : r.rms_ulp, r.path->source.evidence == "inferred" ? 1 : 0);
      };
      return place(a) < place(b);
    });
    const Ranked* best = best_of(ranking, site, format);
    Json rows = Json::array();
    for (const Ranked& r : ranking) {
      const Json& m = *r.measures;
      const double compared = m["counts"]["compared"].get<double>();
      std::string note = joined(r.path->gaps);
      for (const CaseDefault& own : r.path->norm_attributes)
        if (!same_value(site.value.get(own.key), own.value))
          note += fmt::format("{}another norm: {}={}", note.empty() ? "" : ", ", own.key, own.value);
      rows.push_back({{"path", r.path->name},
                      {"title", r.path->title},
                      {"source", source_text(r.path->source)},
                      {"format", r.format},
                      {"max_ulp", m["ulp"]["max"]},
                      {"rms_ulp", m["ulp"]["rms"]},
                      {"mean_abs_ulp", m["ulp"]["mean_abs"]},
                      {"bias_ulp", m["ulp"]["bias"]},
                      {"correct_share", compared > 0 ? m["rounding"]["correct"].get<double>() / compared : 0.0},
                      {"floor_ulp", json_number(r.floor_ulp)},
                      {"gap", note},
                      {"declared", r.path->name == site.declared},
                      {"equal_share", r.path->name == site.declared && conformance != nullptr && (*conformance)["of"].get<double>() > 0
                                          ? Json((*conformance)["equal"].get<double>() / (*conformance)["of"].get<double>())
                                          : Json(nullptr)}});
    }
    lines[s] = {{"kind", "audit"},
                {"input", fmt::format("{} {}", name_of(site.value.format), site.label)},
                {"ranking", std::move(rows)},
                {"best", best == nullptr ? Json(nullptr) : Json(best->path->name)},
                {"advice", advice_for(session, site, ranking)}};
  };
  oneapi::tbb::task_arena arena(std::max(1, jobs));
  arena.execute([&] { oneapi::tbb::parallel_for(std::size_t{0}, audit.sites.size(), rank_site); });
  return lines;
}

}  // namespace norma

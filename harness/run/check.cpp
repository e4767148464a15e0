// Case -> inputs -> truth, ideal, output -> measures -> verdict.
#include "harness/run/check.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "harness/cases/number.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/run/block_check.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"
#include "impls/launch_log.hpp"
#include "reference/blocks/block.hpp"

namespace norma {

namespace {

Contract contract_from(const std::string& path, const Binding& binding) {
  if (!path.starts_with("file:")) return contract_from_catalogue(path, binding);
  const std::string file = parse_file_input(path, "path").path;
  try {
    return {.program = parse_program(read_path_file(path), binding), .path = path, .profile = "", .canonical = false,
            .named = true};
  } catch (const ProgramError& e) {
    throw CaseError(fmt::format("{}: {}", file, e.what()));  // "line 5: ..."
  }
}

/// A path emulated for a case whose contract may be another path: under the case's profile if it has that one, and
/// only if it computes the case's norm. ProgramError otherwise.
Contract emulated_path(const std::string& name, const Case& expanded, const Tensors& tensors) {
  Binding binding = binding_of(expanded, tensors);
  if (const CastPath* path = find_cast_path(name); path != nullptr) {
    if (path->norm != expanded.norm)
      throw ProgramError(fmt::format("{} is a path of {}, not of {}", name, path->norm, expanded.norm));
    if (std::find(path->profiles.begin(), path->profiles.end(), binding.profile) == path->profiles.end())
      binding.profile.clear();
    for (const CaseDefault& own : path->norm_attributes)
      if (!same_value(expanded.get(own.key), own.value))
        throw ProgramError(fmt::format("{} computes another norm than the case: its {} is {}", name, own.key, own.value));
  }
  return contract_from(name, binding);
}

/// The first output whose format is not the contract's, as a sentence; empty: none.
std::string format_difference(const Tensors& got, const std::vector<Tensors>& ideals, const std::string& path) {
  if (ideals.empty()) return {};
  for (const auto& [name, tensor] : got) {
    const auto ideal = ideals.front().find(name);
    if (ideal != ideals.front().end() && ideal->second.format != tensor.format)
      return fmt::format("{} is {}, but {} gives {} here", name, name_of(tensor.format), path, name_of(ideal->second.format));
  }
  return {};
}

/// The limits, the bits of a contract asked for by name, and the implementation's own claim.
std::vector<Criterion> criteria_of(const CheckJob& job, const std::optional<Contract>& contract,
                                   const std::optional<double>& claim_ulp, bool got_is_ideal) {
  std::vector<Criterion> criteria = job.limits;
  if (criteria.empty() && contract && contract->named && !got_is_ideal && job.no_worse_than.empty())
    criteria.push_back(parse_criterion("differing<=0"));
  if (claim_ulp) criteria.push_back(parse_criterion("max_ulp<=" + print_number(*claim_ulp)));
  return criteria;
}

/// The first output under its norm's name for it, which an implementation that knows no norms calls y; of a file, only
/// what the norm has.
Tensors named_by(const NormDef& norm, std::string_view impl, Tensors got) {
  const std::string first(norm.outputs.front());
  if (auto node = first == "y" ? Tensors::node_type() : got.extract("y")) {
    node.key() = first;
    got.insert(std::move(node));
  }
  if (impl.starts_with("file:"))
    std::erase_if(got, [&](const auto& output) {
      return std::ranges::find(norm.outputs, output.first) == norm.outputs.end();
    });
  return got;
}

}  // namespace

Binding binding_of(const Case& expanded, const Tensors& tensors) {
  Binding binding;
  const Tensor& x = tensors.at("x");
  binding.x = x.format;
  binding.cols = x.cols();
  binding.shape = x.shape;
  for (const auto& [name, tensor] : tensors)
    if (name != "x") binding.formats[name] = tensor.format;
  for (const auto& [name, value] : attributes_of(expanded).numbers) binding.attributes[name] = value;
  binding.profile = std::string(expanded.get("profile"));
  return binding;
}

std::optional<Contract> contract_of(const Case& expanded, const Tensors& tensors, Implementation* implementation) {
  const Binding binding = binding_of(expanded, tensors);
  if (const auto path = expanded.get("path"); !path.empty()) return contract_from(std::string(path), binding);
  if (implementation == nullptr) return std::nullopt;
  CaseAttributes attributes = attributes_of(expanded);
  const ImplCall call{.norm = expanded.norm, .inputs = &tensors, .numbers = std::move(attributes.numbers),
                      .words = std::move(attributes.words), .path = "", .profile = binding.profile};
  if (auto program = implementation->declared_program(call))
    return Contract{.program = *std::move(program), .path = implementation->name(), .profile = "", .canonical = true,
                    .named = true};
  const Declaration declared = implementation->declares(call);
  if (declared.path.empty()) return std::nullopt;
  Binding declared_binding = binding;
  if (declared_binding.profile.empty()) declared_binding.profile = declared.profile;
  return contract_from(declared.path, declared_binding);
}

Tensors made_by(Session& session, const Case& expanded, const std::string& impl) {
  const auto inputs = session.inputs(expanded);
  CaseAttributes attributes = attributes_of(expanded);
  const auto implementation = session.implementation(impl);
  if (implementation == nullptr)
    return emulate(emulated_path(impl.substr(5), expanded, inputs->tensors).program, inputs->tensors, attributes.numbers);
  if (!implementation->accepts_norm(expanded.norm))
    throw ImplSkipped(fmt::format("{} does not compute {}", impl, expanded.norm));
  return named_by(norm_of(expanded), impl,
                  implementation->run({.norm = expanded.norm,
                                       .inputs = &inputs->tensors,
                                       .numbers = std::move(attributes.numbers),
                                       .words = std::move(attributes.words),
                                       .path = std::string(expanded.get("path")),
                                       .profile = std::string(expanded.get("profile"))}));
}

std::vector<NamedMeasures> measure_outputs(Session& session, const Case& expanded, const std::optional<Contract>& contract,
                                           const std::vector<Tensors>& ideals, const Tensors& got, bool got_is_ideal) {
  const Truths truths{
      .canonical = [&](const std::string& output) { return session.truth(expanded, output); },
      .erasure = [&](const std::string& output) { return session.erasure(expanded, contract->program, output); }};
  return measure_outputs(truths, norm_call(expanded, session.inputs(expanded)->tensors), contract, ideals, got,
                         {.overflow = Overflow::ieee, .got_is_ideal = got_is_ideal, .threads = 1});
}

std::string repro_line(const CheckJob& job) {
  if (!job.repro.empty()) return job.repro;
  const bool quote = job.impl.find_first_of(" '\"") != std::string::npos;
  std::string line = "norma run " + print_case(job.value) + " --impl " + (quote ? "'" + job.impl + "'" : job.impl);
  for (const Criterion& limit : job.limits) line += " --limit '" + limit.text + "'";
  return line;
}

Record check(Session& session, const CheckJob& job) {
  if (find_block(job.value.norm) != nullptr) return check_block(session, job);
  Record record;
  record.ordinal = job.ordinal;
  record.case_line = print_case(job.value);
  record.impl = job.impl;
  record.path = std::string(job.value.get("path"));
  record.repro = repro_line(job);
  const auto end = [&](VerdictKind kind, const std::string& reason) {
    record.verdict = {.kind = kind, .reason = reason, .criteria = {}};
    return record;
  };
  const auto inputs = session.inputs(job.value);
  record.inputs_hash = inputs->hash;
  const auto implementation = job.instead ? job.instead : session.implementation(job.impl);
  const CaseAttributes attributes = attributes_of(job.value);
  const ImplCall call{.norm = job.value.norm, .inputs = &inputs->tensors, .numbers = attributes.numbers,
                      .words = attributes.words, .path = record.path, .profile = std::string(job.value.get("profile"))};
  if (implementation && !implementation->accepts_norm(job.value.norm))
    return end(VerdictKind::skip, fmt::format("{} does not compute {}", job.impl, job.value.norm));
  std::optional<Contract> contract;
  std::vector<Tensors> ideals;
  try {
    contract = contract_of(job.value, inputs->tensors, implementation.get());
    if (contract) {
      record.path = contract->path;
      record.profile = contract->profile;
      ideals = ideals_of(*contract, inputs->tensors, attributes.numbers);
    }
  } catch (const ProgramError& e) {
    return end(VerdictKind::skip, e.what());
  } catch (const ImplSkipped& e) {
    return end(VerdictKind::skip, e.what());
  }
  Tensors got;
  std::optional<double> claim;
  if (implementation == nullptr) {
    // path:NAME emulates NAME; the case may hold it to another path.
    const std::string name = job.impl.substr(5);
    try {
      if (name == record.path) got = ideals.front();
      else got = emulate(emulated_path(name, job.value, inputs->tensors).program, inputs->tensors, attributes.numbers);
    } catch (const ProgramError& e) {
      return end(VerdictKind::skip, e.what());
    }
  } else {
    try {
      claim = implementation->declares(call).claim_ulp;
      const LaunchLog log;
      got = named_by(norm_of(job.value), job.impl, implementation->run(call));
      for (const StartedKernel& k : log.started())
        record.ran.push_back({{"kernel", k.kernel}, {"grid", k.grid}, {"block", k.block}, {"shared_bytes", k.shared_bytes}});
    } catch (const ImplSkipped& e) {
      return end(VerdictKind::skip, e.what());
    } catch (const ImplCrashed& e) {
      return end(VerdictKind::crashed, e.what());
    }
  }
  record.outputs_hash = hash_of(got);
  const bool got_is_ideal = implementation == nullptr && job.impl.substr(5) == record.path;
  try {
    if (const std::string difference = format_difference(got, ideals, record.path); !difference.empty()) {
      // Codes of another format have another scale; anything else can still be measured against the norm.
      const auto quant = attributes.words.find("quant");
      if (quant == attributes.words.end() || quant->second == "none")
        record.outputs = measure_outputs(session, job.value, std::nullopt, {}, got, false);
      return end(VerdictKind::fail, difference);
    }
    record.outputs = measure_outputs(session, job.value, contract, ideals, got, got_is_ideal);
    std::vector<Criterion> criteria = criteria_of(job, contract, claim, got_is_ideal);
    if (!job.no_worse_than.empty()) {
      const Contract other = emulated_path(job.no_worse_than, job.value, inputs->tensors);
      const Tensors best = emulate(other.program, inputs->tensors, attributes.numbers);
      const auto reference = measure_outputs(session, job.value, other, {}, best, true);
      for (const char* name : {"max_ulp", "rms_ulp"}) {
        const MeasureRow* row = find_measure(name);
        const double bound = row->value(reference.front().measures, false);
        criteria.push_back({.output = "", .measure = row, .relation = Relation::less_equal, .bound = bound,
                            .text = fmt::format("{}<={} ({})", name, print_number(bound), job.no_worse_than)});
      }
    }
    record.verdict = judge(record.outputs, criteria);
  } catch (const CriterionError&) {
    throw;
  } catch (const NormError& e) {
    return end(VerdictKind::crashed, fmt::format("wrote an output that does not fit: {}", e.what()));
  } catch (const std::invalid_argument& e) {
    return end(VerdictKind::crashed, fmt::format("wrote an output that does not fit: {}", e.what()));
  }
  return record;
}

}  // namespace norma

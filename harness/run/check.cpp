// Case -> inputs -> truth, ideal, output -> measures -> verdict.
#include "harness/run/check.hpp"

#include <fmt/core.h>

#include "harness/cases/number.hpp"
#include "harness/inputs/inputs.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/emulate.hpp"

namespace norma {

namespace {

Contract contract_from_catalog(const std::string& name, const Binding& binding) {
  const CastPath* path = find_cast_path(name);
  if (path == nullptr) throw CaseError(fmt::format("unknown path '{}'; 'norma list paths' prints the known ones", name));
  return {.program = build_path(*path, binding),
          .path = name,
          .profile = std::string(profile_of(*path, binding).name),
          .canonical = path->gaps.empty(),
          .named = true};
}

Contract contract_from(const std::string& path, const Binding& binding) {
  if (!path.starts_with("file:")) return contract_from_catalog(path, binding);
  const std::string file = parse_file_input(path, "path").path;
  try {
    return {.program = parse_program(read_path_file(path), binding), .path = path, .profile = "", .canonical = false,
            .named = true};
  } catch (const ProgramError& e) {
    throw CaseError(fmt::format("{}: {}", file, e.what()));  // "line 5: ..."
  }
}

Overflow overflow_of(const std::optional<Contract>& contract, const std::string& output) {
  if (!contract) return Overflow::ieee;
  const ProgramOutput* found = contract->program.find_output(output);
  return found == nullptr ? Overflow::ieee
                          : contract->program.nodes[static_cast<std::size_t>(found->value.node)].rounding.overflow;
}

std::vector<Tensor> ideals_named(const std::vector<Tensors>& ideals, const std::string& output) {
  std::vector<Tensor> named;
  for (const Tensors& ideal : ideals)
    if (const auto found = ideal.find(output); found != ideal.end()) named.push_back(found->second);
  return named;
}

std::vector<double> scales_of(const Tensors& got, const Tensors& inputs) {
  auto found = got.find("scale");
  if (found == got.end()) {
    found = inputs.find("scale");
    if (found == inputs.end()) return {};
  }
  std::vector<double> scales;
  for (std::int64_t i = 0; i < found->second.size(); ++i) scales.push_back(found->second.value(i));
  return scales;
}

/// The limits, the bits of a contract asked for by name, and the implementation's own claim.
std::vector<Criterion> criteria_of(const CheckJob& job, const std::optional<Contract>& contract,
                                   const std::optional<double>& claim_ulp) {
  std::vector<Criterion> criteria = job.limits;
  const bool is_path = job.impl.starts_with("path:");
  if (criteria.empty() && contract && contract->named && !is_path && job.no_worse_than.empty())
    criteria.push_back(parse_criterion("differing<=0"));
  if (claim_ulp) criteria.push_back(parse_criterion("max_ulp<=" + print_number(*claim_ulp)));
  return criteria;
}

}  // namespace

Binding binding_of(const Case& expanded, const Tensors& tensors) {
  Binding binding;
  const Tensor& x = tensors.at("x");
  binding.x = x.format;
  binding.cols = x.cols();
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

std::vector<Tensors> ideals_of(const Contract& contract, const Tensors& tensors, const Attributes& attributes) {
  std::vector<Tensors> ideals{emulate(contract.program, tensors, attributes)};
  const int choice = choice_ulp(contract.program);
  for (int k = 1; k <= choice; ++k)
    for (const int nudge : {k, -k}) ideals.push_back(emulate(contract.program, tensors, attributes, {.nudge_ulp = nudge}));
  return ideals;
}

std::vector<NamedMeasures> measure_outputs(Session& session, const Case& expanded, const std::optional<Contract>& contract,
                                           const std::vector<Tensors>& ideals, const Tensors& got, bool got_is_ideal) {
  const auto inputs = session.inputs(expanded);
  const MeasureOptions options{.threads = 1, .choice_ulp = contract ? choice_ulp(contract->program) : 0,
                               .got_is_ideal = got_is_ideal};
  const std::string quant(attributes_of(expanded).words.contains("quant") ? attributes_of(expanded).words.at("quant") : "none");
  // An erasure that is not canonical is measured beside the truth; a quantized output is scaled, so its erasure is
  // held against the same scale rule.
  const auto erasure_of = [&](const std::string& output) -> std::shared_ptr<const TruthSource> {
    if (!contract || contract->canonical || contract->program.find_output(output) == nullptr) return nullptr;
    return session.erasure(expanded, contract->program, output);
  };
  std::vector<NamedMeasures> outputs;
  std::vector<std::string> order;
  for (const auto& [name, tensor] : got)
    if (name == "y") order.insert(order.begin(), name);
    else order.push_back(name);
  for (const std::string& name : order) {
    const auto truth = session.truth(expanded, name);
    const auto erasure = erasure_of(name);
    const std::vector<Tensor> ideal = ideals_named(ideals, name);
    outputs.push_back({name, measure(*truth, erasure.get(), ideal, got.at(name), overflow_of(contract, name), options)});
    if (name == "y" && quant != "none") {
      const auto norm = session.truth(expanded, "dequantized");
      outputs.push_back({"dequantized", measure_dequantized(*norm, nullptr, ideal, got.at(name),
                                                            scales_of(got, inputs->tensors), overflow_of(contract, name), options)});
    }
  }
  return outputs;
}

std::string repro_line(const CheckJob& job) {
  if (!job.repro.empty()) return job.repro;
  const bool quote = job.impl.find_first_of(" '\"") != std::string::npos;
  std::string line = "norma run " + print_case(job.value) + " --impl " + (quote ? "'" + job.impl + "'" : job.impl);
  for (const Criterion& limit : job.limits) line += " --limit '" + limit.text + "'";
  return line;
}

Record check(Session& session, const CheckJob& job) {
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
  const auto implementation = session.implementation(job.impl);
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
      else got = emulate(contract_from(name, binding_of(job.value, inputs->tensors)).program, inputs->tensors, attributes.numbers);
    } catch (const ProgramError& e) {
      return end(VerdictKind::skip, e.what());
    }
  } else {
    try {
      claim = implementation->declares(call).claim_ulp;
      got = implementation->run(call);
    } catch (const ImplSkipped& e) {
      return end(VerdictKind::skip, e.what());
    } catch (const ImplCrashed& e) {
      return end(VerdictKind::crashed, e.what());
    }
  }
  record.outputs_hash = hash_of(got);
  const bool got_is_ideal = implementation == nullptr && job.impl.substr(5) == record.path;
  try {
    record.outputs = measure_outputs(session, job.value, contract, ideals, got, got_is_ideal);
    std::vector<Criterion> criteria = criteria_of(job, contract, claim);
    if (!job.no_worse_than.empty()) {
      const Contract other = contract_from(job.no_worse_than, binding_of(job.value, inputs->tensors));
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

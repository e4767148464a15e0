// Outputs kept, and judged again.
#include "harness/run/kept.hpp"

#include <fmt/core.h>

#include <map>
#include <span>

#include "harness/cases/files.hpp"
#include "harness/inputs/content_hash.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/inputs/safetensors.hpp"
#include "impls/recorded/replayed.hpp"

namespace norma {

namespace {

constexpr const char* kFields[] = {"case", "impl", "verdict", "inputs", "program"};
std::string& field_of(KeptOutput& kept, std::string_view field) {
  if (field == "case") return kept.case_line;
  if (field == "impl") return kept.impl;
  if (field == "verdict") return kept.verdict;
  return field == "inputs" ? kept.inputs : kept.program;
}

/// Of the contract that the implementation declares for a case.
std::string program_hash(const Case& expanded, const Tensors& tensors, Implementation* implementation) {
  const auto contract = contract_of(expanded, tensors, implementation);
  if (!contract) return "";
  const std::string text = print_program(contract->program);
  return sha256_hex(std::as_bytes(std::span(text)));
}

Case case_from(const std::string& line) {
  const auto cases = read_cases(line, "a kept output");
  if (cases.size() != 1) throw CaseError(fmt::format("'{}' is not one case", line));
  return expand_defaults(cases.front().value);
}

}  // namespace

std::vector<KeptOutput> keep_outputs(Session& session, const std::vector<CheckJob>& jobs,
                                     const std::vector<nlohmann::ordered_json>& records) {
  std::vector<KeptOutput> all;
  for (std::size_t i = 0; i < jobs.size() && i < records.size(); ++i) {
    if (records[i]["outputs"].empty()) continue;
    const CheckJob& job = jobs[i];
    const auto inputs = session.inputs(job.value);
    Tensors outputs = made_by(session, job.value, job.impl);
    if (hash_of(outputs) != records[i]["hashes"]["outputs"].get<std::string>())
      throw ImplCrashed(
          fmt::format("{} gave other bits when it was called again for '{}'", job.impl, print_case(job.value)));
    all.push_back({.case_line = print_case(job.value),
                   .impl = job.impl,
                   .verdict = records[i]["verdict"].get<std::string>(),
                   .inputs = inputs->hash,
                   .program = program_hash(job.value, inputs->tensors, session.implementation(job.impl).get()),
                   .outputs = std::move(outputs)});
  }
  return all;
}

void write_kept(const std::string& path, const std::vector<KeptOutput>& kept) {
  Tensors tensors;
  Metadata metadata;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    const std::string number = fmt::format("{:05}", i);
    KeptOutput one = kept[i];
    for (const char* field : kFields) metadata[number + "." + field] = field_of(one, field);
    for (auto& [name, tensor] : one.outputs) tensors.emplace(number + "." + name, std::move(tensor));
  }
  write_safetensors(path, tensors, metadata);
}

std::vector<KeptOutput> read_kept(const std::string& path) {
  TensorFile file = read_safetensors(path);
  std::map<std::string, KeptOutput> by_number;
  for (auto& [name, tensor] : file.tensors) {
    const auto dot = name.find('.');
    if (dot == std::string::npos)
      throw SafetensorsError(
          fmt::format("'{}': tensor '{}' is not NUMBER.OUTPUT; is it a file of norma run --outputs?", path, name));
    by_number[name.substr(0, dot)].outputs.emplace(name.substr(dot + 1), std::move(tensor));
  }
  std::vector<KeptOutput> all;
  for (auto& [number, kept] : by_number) {
    for (const char* field : kFields) {
      const auto found = file.metadata.find(number + "." + field);
      if (found == file.metadata.end())
        throw SafetensorsError(fmt::format("'{}': metadata '{}.{}' is missing; is it a file of norma run --outputs?",
                                           path, number, field));
      field_of(kept, field) = found->second;
    }
    all.push_back(std::move(kept));
  }
  return all;
}

Rejudged judge_again(Session& session, const KeptOutput& kept) {
  CheckJob job{.value = case_from(kept.case_line), .impl = kept.impl};
  std::shared_ptr<Implementation> kernel;
  try {
    kernel = session.implementation(kept.impl);
  } catch (const CaseError&) {
    return {Again::stale, fmt::format("this norma has no {} any more", kept.impl), {}};
  }
  const auto inputs = session.inputs(job.value);
  if (inputs->hash != kept.inputs)
    return {Again::differs, fmt::format("the inputs of '{}' are not those that {} had", kept.case_line, kept.impl), {}};
  if (program_hash(job.value, inputs->tensors, kernel.get()) != kept.program)
    return {
        Again::stale, fmt::format("{} declares another program now than when it ran; record it anew", kept.impl), {}};
  job.instead = std::make_shared<ReplayedOutput>(*kernel, kept.outputs);
  Rejudged result{Again::agrees, {}, check(session, job)};
  const std::string now(name_of(result.record.verdict.kind));
  if (now != kept.verdict) {
    result.kind = Again::differs;
    result.reason =
        fmt::format("was {} where it was made and is {} here: {} with '{}'{}", kept.verdict, now, kept.impl,
                    kept.case_line, result.record.verdict.reason.empty() ? "" : "; " + result.record.verdict.reason);
  }
  return result;
}

}  // namespace norma

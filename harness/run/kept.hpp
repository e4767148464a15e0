// Outputs that are kept where they were made (on a GPU) and judged again from their bits anywhere: truth, ideal and
// inputs are made anew from the case, only the outputs travel.
#pragma once

#include <string>
#include <vector>

#include "harness/judge/record.hpp"
#include "harness/run/check.hpp"

namespace norma {

/// One call's outputs, with what was said of them where they were made.
struct KeptOutput {
  std::string case_line, impl;
  std::string verdict;  ///< "pass"
  std::string inputs;   ///< hash of the inputs
  std::string program;  ///< SHA-256 of the text of the program that the kernel declared then
  Tensors outputs;
};

/// Calls the implementations of those checks that had a result once more and keeps what they return. ImplCrashed if an
/// output is not the one that was judged: the kernel does not always give the same bits.
std::vector<KeptOutput> keep_outputs(Session& session, const std::vector<CheckJob>& jobs,
                                     const std::vector<nlohmann::ordered_json>& records);

/// As a safetensors file: tensors N.NAME, metadata N.case, N.impl, N.verdict, N.inputs, N.program. SafetensorsError.
void write_kept(const std::string& path, const std::vector<KeptOutput>& kept);
std::vector<KeptOutput> read_kept(const std::string& path);

enum class Again : std::uint8_t { agrees, differs, stale };
struct Rejudged {
  Again kind = Again::agrees;
  std::string reason;  ///< one sentence, unless it agrees
  Record record;
};
/// Judges one output anew. It agrees if the verdict is the stated one; it is stale where the kernel is gone or declares
/// another program now, which says nothing of the bits.
Rejudged judge_again(Session& session, const KeptOutput& kept);

}  // namespace norma

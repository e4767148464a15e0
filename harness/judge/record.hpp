// One line of run.jsonl: the result of one case and implementation.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "harness/judge/criteria.hpp"

namespace norma {

struct Record {
  std::int64_t ordinal = 0;
  std::string case_line, impl, path, profile;
  Verdict verdict;
  std::vector<NamedMeasures> outputs;
  std::string inputs_hash, outputs_hash;
  std::string repro;
  /// The context fields that the implementation's bits depend on (GPU, library version), with their
  /// values; empty: its bits are the same everywhere. Part of the baseline's key; written only if
  /// not empty.
  nlohmann::ordered_json depends_on{};
  /// The kernels that were started for the outputs, in order: kernel, grid, block, shared_bytes. Written only if not empty.
  nlohmann::ordered_json ran{};
  /// Of a block, its sites (harness/trace/trace_json.hpp). Written only if not empty.
  nlohmann::ordered_json trace{};
};

nlohmann::ordered_json to_json(const Record& record);

}  // namespace norma

// A run: many checks in parallel, their records in case order, one line each, a prefix of the whole at any moment.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "harness/run/check.hpp"

namespace norma {

/// A run file that cannot be read, written, resumed or merged; one sentence.
struct RunError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline constexpr int kSchemaVersion = 1;

/// Part `index` of `count`: the jobs whose ordinal is index - 1 modulo count.
struct Shard {
  int index = 1;
  int count = 1;
};

struct RunOptions {
  int jobs = 1;
  Shard shard;
  std::string out;       ///< run.jsonl; empty: records are only returned
  bool resume = false;   ///< go on after the last whole line of `out`
  bool append = false;   ///< add to `out` if it is there, with ordinals after its last
  std::vector<std::string> command;
  const std::atomic<bool>* stop = nullptr;  ///< set by Ctrl-C: nothing new is started
  /// Called in order, one thread at a time, with the record and how many are done of how many.
  std::function<void(const nlohmann::ordered_json&, std::size_t, std::size_t)> progress;
};

struct RunResult {
  nlohmann::ordered_json context;
  std::vector<nlohmann::ordered_json> records;  ///< in ordinal order; those finished
  bool interrupted = false;
  int exit_code = 0;  ///< 0, 1 failed or vacuous, 3 crashed, 130 interrupted
};

/// The first line of a run: what its figures mean and, under "volatile", where and how they were made.
nlohmann::ordered_json run_context(std::size_t total, TruthKind truth, const RunOptions& options);

/// Runs the jobs (ordinals 0, 1, ... are given here). Errors of single checks are records; RunError: the file.
RunResult run_checks(Session& session, std::vector<CheckJob> jobs, const RunOptions& options);

/// All lines of a run file. A torn last line is dropped; anything else malformed, or a newer schema, is a RunError
/// that names the line.
std::vector<nlohmann::ordered_json> read_run(const std::string& path);

/// Shards of one run as one: contexts agree, every ordinal is there once.
std::vector<nlohmann::ordered_json> merge_runs(const std::vector<std::string>& paths);

/// Text to a file, whole or not at all; to a device or pipe as it is. Folders are made. RunError: not writable, disk full.
void write_text(const std::string& path, std::string_view text);
/// Lines of JSON, as write_text writes.
void write_lines(const std::string& path, const std::vector<nlohmann::ordered_json>& lines);

/// The most severe of the records' verdicts as an exit code.
int exit_code_of(const std::vector<nlohmann::ordered_json>& records);

}  // namespace norma

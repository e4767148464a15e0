// What the commands share: exit codes, refusals, terminals, options that several of them take.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "harness/audit/audit.hpp"
#include "harness/run/runner.hpp"

namespace norma::cli {

/// What the program ends with.
struct Outcome {
  int exit_code = 0;
  std::vector<std::string> command_line;
};

/// Bad usage: one clear sentence, exit 2.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// "k=v" words as a map. UsageError for one without '=' or a key given twice.
std::map<std::string, std::string> pairs(const std::vector<std::string>& words, const std::string& option);
std::vector<Criterion> criteria(const std::vector<std::string>& words);

/// The options that name tensors in a file and what they are taken for.
struct TensorOptions {
  std::string norm, in, path, layout{};
  std::vector<std::string> map, set;
  void add_to(CLI::App& command);
  SiteOptions site_options() const;
};

/// The case of a block whose tensors stand in --in: FORMAT is that of its input, attributes are --set's.
Case block_case(const TensorOptions& tensors);

/// Colour is wanted: a terminal, and NO_COLOR is not set.
bool colour_on(int descriptor);
std::size_t terminal_width();

/// Set by the first Ctrl-C; the second one ends the program.
std::atomic<bool>& interrupt_flag();
void catch_interrupts();

/// One line that is rewritten on a terminal's standard error; nothing elsewhere.
std::function<void(const nlohmann::ordered_json&, std::size_t, std::size_t)> progress_line();

/// The page of these lines. RunError if it cannot be written.
void write_page(const std::string& path, const std::vector<nlohmann::ordered_json>& lines);

/// Prints the table of records, and in full those that failed (three at most).
void print_records(const std::vector<nlohmann::ordered_json>& records, std::size_t limit);

/// --jobs: at least 1; left out: all cores.
void add_jobs(CLI::App& command, int& jobs);
/// --truth: which truth errors are measured against.
void add_truth_option(CLI::App& command, std::string& word);
/// UsageError for an unknown word.
TruthKind truth_kind(const std::string& word);
/// Threads to use: the option, or all cores.
int threads_or_all(int jobs);
/// A finite number in a range; the help stays without it.
CLI::Validator number_in(double low, double high);
/// An option that may be given again and again, one word each time, so that it never swallows a positional word.
CLI::Option* add_repeated(CLI::App& command, const std::string& name, std::vector<std::string>& words, const std::string& word,
                          const std::string& help);

/// A path as --path and case keys take it: the catalogue's name, or file:NAME for a file.
std::string path_word(const std::string& word);

}  // namespace norma::cli

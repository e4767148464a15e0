// What the commands share.
#include "cli/support.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/ioctl.h>
#include <thread>
#include <unistd.h>

#include "harness/cases/block_words.hpp"
#include "harness/inputs/safetensors.hpp"
#include "reference/blocks/block.hpp"
#include "reports/views/page.hpp"
#include "reports/views/terminal.hpp"
#include "reports/views/trace_text.hpp"

namespace norma::cli {

namespace {

extern "C" void on_interrupt(int) {
  interrupt_flag() = true;
  std::signal(SIGINT, SIG_DFL);
}

}  // namespace

std::map<std::string, std::string> pairs(const std::vector<std::string>& words, const std::string& option) {
  std::map<std::string, std::string> result;
  for (const std::string& word : words) {
    const auto equals = word.find('=');
    if (equals == 0 || equals == std::string::npos)
      throw UsageError(fmt::format("{} takes NAME=VALUE, not '{}'", option, word));
    if (!result.emplace(word.substr(0, equals), word.substr(equals + 1)).second)
      throw UsageError(fmt::format("{} {} is given twice", option, word.substr(0, equals)));
  }
  return result;
}

std::vector<Criterion> criteria(const std::vector<std::string>& words) {
  std::vector<Criterion> result;
  for (const std::string& word : words) result.push_back(parse_criterion(word));
  return result;
}

void TensorOptions::add_to(CLI::App& command) {
  command.add_option("NORM", norm, "the norm, or block, the tensors belong to ('norma list norms', 'norma list blocks')")->required()->type_name("");
  command.add_option("--in", in, "safetensors file with x, weight, ...; or PREFIX.x, PREFIX.weight, ... for many sites")
      ->required()
      ->type_name("FILE");
  add_repeated(command, "--map", map, "NAME=TENSOR", "the file's name of a tensor, e.g. x=hidden_states");
  add_repeated(command, "--set", set, "NAME=VALUE", "an attribute of the norm (eps=1e-6), or profile=NAME");
  command.add_option("--layout", layout, "of a block: whose names the file's weights have, norma, diffusers or bfl")->type_name("NAME");
}

SiteOptions TensorOptions::site_options() const {
  if (!layout.empty() && find_block(norm) == nullptr)
    throw UsageError(fmt::format("--layout is for blocks, and {} is a norm; --map names its tensors", norm));
  SiteOptions options{.norm = norm, .map = pairs(map, "--map"), .set = pairs(set, "--set"), .path = path_word(path), .profile = ""};
  if (const auto profile = options.set.find("profile"); profile != options.set.end()) {
    options.profile = profile->second;
    options.set.erase(profile);
  }
  return options;
}

Case block_case(const TensorOptions& tensors) {
  const BlockDef& block = *find_block(tensors.norm);
  const SafetensorsFile file = open_safetensors(tensors.in);
  const SiteOptions options = tensors.site_options();
  if (!options.map.empty()) throw UsageError("--map is for norms: a block's file has the block's names, or those of --layout");
  std::map<std::string, std::string> set;
  for (const auto& [key, value] : file.metadata)
    if (find_block_words(block.name) != nullptr &&
        std::ranges::find(find_block_words(block.name)->attributes, key, &NormAttribute::name) != find_block_words(block.name)->attributes.end())
      set[key] = value;
  for (const auto& [key, value] : options.set) set[key] = value;
  if (!tensors.layout.empty()) set["layout"] = tensors.layout;
  const std::string main(block.input);
  const auto entry = file.entries.find(main);
  if (entry == file.entries.end())
    throw UsageError(fmt::format("'{}' has no tensor '{}', which {} begins with", tensors.in, main, block.name));
  std::string line = fmt::format("{} {} - input=file:{}", block.name, name_of(read_tensor(file, main).format), tensors.in);
  if (!options.path.empty()) line += " path=" + options.path;
  if (!options.profile.empty()) line += " profile=" + options.profile;
  for (const auto& [key, value] : set) line += fmt::format(" {}={}", key, value);
  return parse_case(line);
}

bool colour_on(int descriptor) {
  const char* no_colour = std::getenv("NO_COLOR");
  return isatty(descriptor) != 0 && (no_colour == nullptr || *no_colour == '\0');
}

std::size_t terminal_width() {
  winsize size{};
  if (isatty(STDOUT_FILENO) != 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 160;
}

std::atomic<bool>& interrupt_flag() {
  static std::atomic<bool> flag{false};
  return flag;
}

void catch_interrupts() {
  interrupt_flag();
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
}

std::function<void(const nlohmann::ordered_json&, std::size_t, std::size_t)> progress_line() {
  if (isatty(STDERR_FILENO) == 0) return {};
  return [](const nlohmann::ordered_json& record, std::size_t done, std::size_t of) {
    std::string text = fmt::format("[{}/{}] {} {}", done, of, record.value("verdict", ""), record.value("impl", ""));
    if (const std::size_t width = terminal_width() - 1; text.size() > width) text.resize(width);
    fmt::print(stderr, "\r\033[K{}", text);
    if (done == of) fmt::print(stderr, "\r\033[K");
    std::fflush(stderr);
  };
}

void write_page(const std::string& path, const std::vector<nlohmann::ordered_json>& lines) {
  const std::vector<nlohmann::json> plain(lines.begin(), lines.end());
  write_text(path, render_page(plain));
}

void print_records(const std::vector<nlohmann::ordered_json>& records, std::size_t limit) {
  const std::vector<nlohmann::json> plain(records.begin(), records.end());
  const TerminalOptions options{.colour = colour_on(STDOUT_FILENO), .width = terminal_width(), .limit = limit};
  fmt::print("{}", render_table(plain, options));
  // What was not checked is said aloud, with its reason.
  std::map<std::string, std::size_t> skipped;
  for (const auto& record : plain)
    if (record.value("verdict", "") == "skip" && record.value("reason", "") != "no criterion") ++skipped[record.value("reason", "")];
  for (const auto& [reason, count] : skipped) fmt::print("skipped {}: {}\n", count, reason);
  // One block is shown site by site; of many the page shows each.
  if (plain.size() == 1) {
    if (const std::string trace = render_trace(plain.front()); !trace.empty()) fmt::print("\n{}", trace);
  }
  std::size_t shown = 0;
  std::size_t failures = 0;
  for (const auto& record : plain) {
    const std::string verdict = record.value("verdict", "");
    if (verdict != "fail" && verdict != "crashed" && verdict != "vacuous") continue;
    if (++failures > 3) continue;
    fmt::print("\n{}", render_failure(record, options));
    ++shown;
  }
  if (failures > shown) fmt::print("\n{} more not shown; --json or --html has them all\n", failures - shown);
}

CLI::Validator number_in(double low, double high) {
  const auto check = [low, high](const std::string& text) {
    double value = 0;
    // As a negation, so that NaN is refused too.
    const bool good = CLI::detail::lexical_cast(text, value) && value >= low && value <= high;
    return good ? std::string() : fmt::format("takes a number from {} to {}, not '{}'", low, high, text);
  };
  return CLI::Validator(check, "");
}

void add_jobs(CLI::App& command, int& jobs) {
  command.add_option("--jobs", jobs, "threads (default: all cores)")->check(number_in(1, 4096))->type_name("N");
}

void add_truth_option(CLI::App& command, std::string& word) {
  command.add_option("--truth", word, "fast (binary64 and double-double with proved bounds, MPFR where they do not tell; default), or mpfr alone: same figures")
      ->type_name("KIND");
}

TruthKind truth_kind(const std::string& word) {
  if (word.empty()) return TruthKind::fast;
  const auto found = std::find(kTruthKinds.begin(), kTruthKinds.end(), word);
  if (found == kTruthKinds.end())
    throw UsageError(fmt::format("--truth: unknown kind '{}'; known: {}", word, fmt::join(kTruthKinds, ", ")));
  return static_cast<TruthKind>(found - kTruthKinds.begin());
}

CLI::Option* add_repeated(CLI::App& command, const std::string& name, std::vector<std::string>& words, const std::string& word,
                          const std::string& help) {
  return command.add_option(name, words, help)->allow_extra_args(false)->type_name(word);
}

int threads_or_all(int jobs) {
  return jobs > 0 ? jobs : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

std::string path_word(const std::string& word) {
  const bool is_file = word.ends_with(".path") && !word.starts_with("file:");
  return is_file ? "file:" + word : word;
}

}  // namespace norma::cli

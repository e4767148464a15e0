// A run: many checks, one file.
#include "harness/run/runner.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>

#include "harness/run/context.hpp"

namespace norma {

namespace {

using Json = nlohmann::ordered_json;

/// One line. File names need not be UTF-8, and JSON must: what is not is replaced.
std::string text_of(const Json& line) { return line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

std::string text_of(const std::vector<Json>& lines) {
  std::string text;
  for (const Json& line : lines) text += text_of(line);
  return text;
}

void make_folder_of(const std::string& path) {
  const auto folder = std::filesystem::path(path).parent_path();
  std::error_code error;  // opening the file says what is wrong
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
}

bool is_file(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

/// A file that is appended to line by line; what a line holds is on its way to disk before the next begins.
class LineFile {
 public:
  /// `shown`: the name that errors give, where it is another.
  LineFile(const std::string& path, bool keep, const std::string& shown = "") : path_(shown.empty() ? path : shown) {
    make_folder_of(path);
    descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | (keep ? O_APPEND : O_TRUNC), 0644);
    if (descriptor_ < 0) throw RunError(fmt::format("cannot write '{}': {}", path_, std::strerror(errno)));
  }
  ~LineFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  LineFile(const LineFile&) = delete;
  LineFile& operator=(const LineFile&) = delete;

  void write(const Json& line) { write_bytes(text_of(line)); }
  void write_bytes(std::string_view text) {
    std::size_t done = 0;
    while (done < text.size()) {
      const ssize_t n = ::write(descriptor_, text.data() + done, text.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) throw RunError(fmt::format("cannot write '{}': {}", path_, std::strerror(errno)));
      done += static_cast<std::size_t>(n);
    }
  }

 private:
  std::string path_;
  int descriptor_ = -1;
};

Json without_volatile(Json context) {
  context.erase("volatile");
  return context;
}

std::string truth_of_run(const Json& context) { return context.value("truth", "mpfr"); }  // older runs do not say

/// A run's counts of tiers are those of one kind of truth.
void refuse_other_truth(const std::string& path, const Json& begun, const Json& context, std::string_view verb) {
  const std::string before = truth_of_run(begun), now = truth_of_run(context);
  if (before != now)
    throw RunError(fmt::format("cannot {} '{}': it was begun with --truth {}, this run has --truth {}", verb, path, before, now));
}

/// Two records of one case and implementation are one key, which no gate takes.
void refuse_repeated(const std::string& path, const std::vector<Json>& kept, const std::vector<CheckJob>& jobs) {
  std::map<std::pair<std::string, std::string>, std::size_t> lines;
  for (std::size_t i = 0; i < kept.size(); ++i)
    lines.emplace(std::pair(kept[i].value("case", ""), kept[i].value("impl", "")), i + 1);
  for (const CheckJob& job : jobs) {
    const std::string line = print_case(job.value);
    if (const auto found = lines.find({line, job.impl}); found != lines.end())
      throw RunError(fmt::format("cannot append to '{}': its line {} is the record of '{}' with '{}' already; "
                                 "remove that line or append to another file",
                                 path, found->second, line, job.impl));
  }
}

/// The records of an interrupted run that the new one begins with.
std::vector<Json> resumable(const RunOptions& options, const Json& context, const std::vector<CheckJob>& jobs) {
  if (!options.resume || !is_file(options.out)) return {};
  std::vector<Json> lines = read_run(options.out);
  if (lines.empty()) return {};
  refuse_other_truth(options.out, lines.front(), context, "resume");
  if (without_volatile(lines.front()) != without_volatile(context))
    throw RunError(fmt::format("cannot resume '{}': it was begun with another norma or other cases; "
                               "move it away or leave out --resume", options.out));
  lines.erase(lines.begin());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const bool same = i < jobs.size() && lines[i].value("case", "") == print_case(jobs[i].value) &&
                      lines[i].value("impl", "") == jobs[i].impl && lines[i].value("ordinal", -1) == jobs[i].ordinal;
    if (!same)
      throw RunError(fmt::format("cannot resume '{}': its line {} is of another case than this run's", options.out, i + 2));
  }
  return lines;
}

}  // namespace

int exit_code_of(const std::vector<Json>& records) {
  int code = 0;
  for (const Json& record : records) {
    const std::string verdict = record.value("verdict", "");
    if (verdict == "crashed") code = std::max(code, 3);
    if (verdict == "fail" || verdict == "vacuous") code = std::max(code, 1);
  }
  return code;
}

RunResult run_checks(Session& session, std::vector<CheckJob> jobs, const RunOptions& options) {
  RunResult result;
  std::vector<Json> kept;
  std::int64_t first = 0;
  if (options.append && is_file(options.out)) {
    kept = read_run(options.out);
    for (const Json& line : kept) first = std::max(first, line.value("ordinal", std::int64_t{-1}) + 1);
    refuse_repeated(options.out, kept, jobs);
  }
  for (std::size_t i = 0; i < jobs.size(); ++i) jobs[i].ordinal = first + static_cast<std::int64_t>(i);
  const std::size_t total = static_cast<std::size_t>(first) + jobs.size();
  std::erase_if(jobs, [&](const CheckJob& job) {
    return job.ordinal % options.shard.count != options.shard.index - 1;
  });
  result.context = run_context(total, session.truth_kind(), options);
  if (std::ranges::any_of(jobs, [](const CheckJob& job) { return job.impl.starts_with("cuda."); }))
    result.context["volatile"]["gpu"] = gpu_facts();
  if (!kept.empty()) refuse_other_truth(options.out, kept.front(), result.context, "append to");
  result.records = resumable(options, result.context, jobs);
  std::optional<LineFile> file;
  if (!options.out.empty()) {
    // What is there already is replaced in one step, so that a full disk loses none of it.
    if (!kept.empty()) kept.front()["total"] = total;
    if (!result.records.empty()) {
      kept.push_back(result.context);
      kept.insert(kept.end(), result.records.begin(), result.records.end());
    }
    if (!kept.empty()) write_text(options.out, text_of(kept));
    file.emplace(options.out, !kept.empty());
    if (kept.empty()) file->write(result.context);
  }
  const std::size_t done_before = result.records.size();

  // Records leave in case order: a finished one waits until all before it have left.
  std::mutex mutex;
  std::map<std::size_t, Json> waiting;
  std::size_t next = done_before;
  std::string write_error;
  std::atomic<bool> failed{false};
  const auto stopped = [&] { return failed || (options.stop != nullptr && *options.stop); };
  const auto finish = [&](std::size_t index, Json record) {
    const std::lock_guard lock(mutex);
    waiting.emplace(index, std::move(record));
    while (!waiting.empty() && waiting.begin()->first == next && !failed) {
      Json line = std::move(waiting.begin()->second);
      waiting.erase(waiting.begin());
      try {
        if (file) file->write(line);
      } catch (const RunError& e) {
        write_error = e.what();
        failed = true;
        return;
      }
      ++next;
      if (options.progress) options.progress(line, next, jobs.size());
      result.records.push_back(std::move(line));
    }
  };
  std::atomic<std::size_t> cursor{done_before};
  std::mutex error_mutex;
  std::exception_ptr error;
  oneapi::tbb::task_arena arena(std::max(1, options.jobs));
  arena.execute([&] {
    oneapi::tbb::parallel_for(0, std::max(1, options.jobs), [&](int) {
      while (!stopped()) {
        const std::size_t i = cursor++;
        if (i >= jobs.size()) return;
        try {
          finish(i, to_json(check(session, jobs[i])));
        } catch (...) {
          const std::lock_guard lock(error_mutex);
          if (!error) error = std::current_exception();
          failed = true;
        }
      }
    });
  });
  if (!write_error.empty()) throw RunError(write_error);
  if (error) std::rethrow_exception(error);
  result.interrupted = result.records.size() < jobs.size();
  result.exit_code = result.interrupted ? 130 : exit_code_of(result.records);
  return result;
}

std::vector<Json> read_run(const std::string& path) {
  std::error_code ignored;
  const auto kind = std::filesystem::status(path, ignored).type();
  using enum std::filesystem::file_type;
  if (kind == directory) throw RunError(fmt::format("'{}' is a folder, not a run file", path));
  if (kind == character || kind == block) throw RunError(fmt::format("'{}' is a device, not a run file", path));
  std::ifstream file(path);
  if (!file) throw RunError(fmt::format("cannot read the run file '{}'", path));
  std::vector<Json> lines;
  std::string text;
  std::size_t number = 0;
  while (std::getline(file, text)) {
    ++number;
    const bool torn = file.eof();  // no newline: the writer was cut off in this line
    Json line = Json::parse(text, nullptr, false);
    if (line.is_discarded() || !line.is_object()) {
      if (torn) break;
      throw RunError(fmt::format("'{}' line {} is not a JSON object; a run file has one a line", path, number));
    }
    if (torn) break;
    if (number == 1) {
      if (line.value("kind", "") != "context" || !line.contains("schema") || !line["schema"].is_number_integer())
        throw RunError(fmt::format("'{}' does not begin with a context line; is it a run.jsonl?", path));
      if (line["schema"] > kSchemaVersion)
        throw RunError(fmt::format("'{}' has schema {}, newer than this norma's {}; read it with the norma that wrote it or a later one",
                                   path, line["schema"].get<int>(), kSchemaVersion));
    }
    lines.push_back(std::move(line));
  }
  if (number == 0) throw RunError(fmt::format("the run file '{}' is empty", path));
  return lines;
}

std::vector<Json> merge_runs(const std::vector<std::string>& paths) {
  Json context;
  std::map<std::int64_t, Json> records;
  for (const std::string& path : paths) {
    std::vector<Json> lines = read_run(path);
    if (lines.empty()) throw RunError(fmt::format("the run file '{}' has no whole line", path));
    if (context.is_null()) context = lines.front();
    if (truth_of_run(context) != truth_of_run(lines.front()))
      throw RunError(fmt::format("'{}' was made with --truth {} and '{}' with --truth {}; merge runs of one kind", paths.front(),
                                 truth_of_run(context), path, truth_of_run(lines.front())));
    if (without_volatile(context) != without_volatile(lines.front()))
      throw RunError(fmt::format("'{}' and '{}' are not parts of one run: their contexts differ", paths.front(), path));
    for (std::size_t i = 1; i < lines.size(); ++i) {
      if (lines[i].value("kind", "") != "record") continue;
      const auto ordinal = lines[i].value("ordinal", std::int64_t{-1});
      if (!records.emplace(ordinal, std::move(lines[i])).second)
        throw RunError(fmt::format("case {} stands in two of the files; the second is '{}'", ordinal, path));
    }
  }
  const auto total = context.value("total", std::int64_t{0});
  for (std::int64_t i = 0; i < total; ++i)
    if (!records.contains(i))
      throw RunError(fmt::format("case {} of {} is missing from the files to merge", i, total));
  std::vector<Json> lines{context};
  for (auto& [ordinal, record] : records) lines.push_back(std::move(record));
  return lines;
}

void write_text(const std::string& path, std::string_view text) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (std::filesystem::is_directory(status)) throw RunError(fmt::format("cannot write '{}': it is a folder", path));
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    LineFile(path, true).write_bytes(text);
    return;
  }
  // A link keeps pointing where it points: the file behind it is replaced.
  const std::string target = std::filesystem::exists(status) ? std::filesystem::canonical(path).string() : path;
  const std::string beside = fmt::format("{}.tmp-{}", target, ::getpid());
  try {
    LineFile(beside, false, path).write_bytes(text);
  } catch (const RunError&) {
    std::filesystem::remove(beside, error);
    throw;
  }
  std::filesystem::rename(beside, target, error);
  if (error) throw RunError(fmt::format("cannot write '{}': {}", path, error.message()));
}

void write_lines(const std::string& path, const std::vector<Json>& lines) { write_text(path, text_of(lines)); }

}  // namespace norma

// norma_bench: ratios of running times against peers in the same run.
#include <fmt/core.h>
#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>
#include <vector>

#include "bench/bench.hpp"
#include "reference/formats/environment.hpp"

namespace {

/// A folder of our own that goes with everything in it.
struct Folder {
  std::string path;
  Folder() {
    path = (std::filesystem::temp_directory_path() / "norma-bench-XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) throw std::runtime_error("no folder for the peer's files at " + path);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
};

void say(const std::string& sentence) { fmt::print(stderr, "norma_bench: {}\n", sentence); }

struct Part {
  std::string name;
  bool (*measure)(const norma::bench::Bench&);
};
const std::vector<Part> kParts{{"emulate", norma::bench::bench_emulate},
                               {"truth", norma::bench::bench_truth},
                               {"conversion", norma::bench::bench_conversion},
                               {"kernels", norma::bench::bench_kernels},
                               {"reference", norma::bench::bench_reference},
                               {"blocks", norma::bench::bench_blocks}};

/// Null, with a sentence, where the Python package is missing.
std::unique_ptr<norma::bench::Peer> find_peer(const std::string& module) {
  try {
    return std::make_unique<norma::bench::Peer>(module);
  } catch (const norma::bench::PeerError& e) {
    say(fmt::format("left out what is measured against {}: {}", module, e.what()));
    return nullptr;
  }
}

struct Options {
  std::string out = "out/bench.jsonl", only, match;
  bool quick = false;
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
};

bool run(const Options& options) {
  using namespace norma::bench;
  std::ofstream lines(options.out);
  if (!lines) throw std::runtime_error("cannot write " + options.out);
  const Folder folder;
  const auto torch = find_peer("torch");
  const bool reference = options.only.empty() || options.only == "reference";
  const auto numpy = reference ? find_peer("numpy") : nullptr;
  const auto mpmath = reference ? find_peer("mpmath") : nullptr;
  const auto report = [&](const nlohmann::ordered_json& line) {
    lines << line.dump() << '\n' << std::flush;
    const std::string goal = line["goal"].is_null() ? "" : fmt::format(", goal {}", line["goal"].get<double>());
    fmt::print("{:32} {:8.3f}  [{:.3f}, {:.3f}]{}  {}: {}\n", line["name"].get<std::string>(),
               line["ratio"].get<double>(), line["low"].get<double>(), line["high"].get<double>(), goal,
               line["peer"].get<std::string>(), line["work"].get<std::string>());
    std::fflush(stdout);
  };
  const Bench bench{.threads = options.threads,
                    .quick = options.quick,
                    .folder = folder.path,
                    .match = options.match,
                    .torch = torch.get(),
                    .numpy = numpy.get(),
                    .mpmath = mpmath.get(),
                    .report = report,
                    .say = say};
  bool right = true;
  for (const Part& part : kParts)
    if (options.only.empty() || options.only == part.name) right = part.measure(bench) && right;
  return right;
}

}  // namespace

int main(int argc, char** argv) {
  if (const std::string fault = norma::floating_point_fault(); !fault.empty()) {
    say(fault);
    return 2;
  }
  CLI::App app(
      "Ratios of running times against peers in the same run: median, least and greatest of the pairs.\n"
      "NORMA_BENCH_PYTHON names the Python whose torch is the peer. Exit code 1: a peer's bits differ.",
      "norma_bench");
  Options options;
  std::vector<std::string> parts;
  for (const Part& part : kParts) parts.push_back(part.name);
  app.add_option("--out", options.out, "file to write, one line a ratio")->capture_default_str();
  app.add_flag("--quick", options.quick, "a subset in fewer pairs: under a minute");
  app.add_option("--threads", options.threads,
                 "threads of both sides where they use more than one (default: all cores)")
      ->check(CLI::PositiveNumber);
  app.add_option("--only", options.only, "one part")->check(CLI::IsMember(parts));
  app.add_option("--match", options.match, "of the part reference only lines whose name holds this");
  CLI11_PARSE(app, argc, argv);
  try {
    return run(options) ? 0 : 1;
  } catch (const std::exception& e) {
    say(e.what());
    return 2;
  }
}

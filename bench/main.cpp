// norma_bench: ratios of running times against peers in the same run.
#include <fmt/core.h>
#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

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

bool run(const std::string& out, bool quick, int threads, const std::string& only) {
  using namespace norma::bench;
  std::ofstream lines(out);
  if (!lines) throw std::runtime_error("cannot write " + out);
  const Folder folder;
  std::optional<Peer> torch;
  try {
    torch.emplace();
  } catch (const PeerError& e) {
    say(fmt::format("left out what is measured against torch: {}", e.what()));
  }
  const auto report = [&](const nlohmann::ordered_json& line) {
    lines << line.dump() << '\n' << std::flush;
    const std::string goal = line["goal"].is_null() ? "" : fmt::format(", goal {}", line["goal"].get<double>());
    fmt::print("{:32} {:8.3f}  [{:.3f}, {:.3f}]{}  {}: {}\n", line["name"].get<std::string>(),
               line["ratio"].get<double>(), line["low"].get<double>(), line["high"].get<double>(), goal,
               line["peer"].get<std::string>(), line["work"].get<std::string>());
    std::fflush(stdout);
  };
  const Bench bench{.threads = threads,
                    .quick = quick,
                    .folder = folder.path,
                    .torch = torch ? &*torch : nullptr,
                    .report = report,
                    .say = say};
  bool right = true;
  if (only.empty() || only == "emulate") right = bench_emulate(bench) && right;
  if (only.empty() || only == "truth") right = bench_truth(bench) && right;
  if (only.empty() || only == "conversion") right = bench_conversion(bench) && right;
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
  std::string out = "out/bench.jsonl", only;
  bool quick = false;
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  app.add_option("--out", out, "file to write, one line a ratio")->capture_default_str();
  app.add_flag("--quick", quick, "fewer pairs: under a minute");
  app.add_option("--threads", threads, "threads of both sides (default: all cores)")->check(CLI::PositiveNumber);
  app.add_option("--only", only, "one part: emulate, truth, conversion")
      ->check(CLI::IsMember({"emulate", "truth", "conversion"}));
  CLI11_PARSE(app, argc, argv);
  try {
    return run(out, quick, threads, only) ? 0 : 1;
  } catch (const std::exception& e) {
    say(e.what());
    return 2;
  }
}

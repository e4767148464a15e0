// Outputs that are kept and judged again: the mechanism, with outputs of the host executor; and the records of GPUs
// that are committed.
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <span>

#include "harness/cases/files.hpp"
#include "harness/inputs/content_hash.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/run/kept.hpp"
#include "harness/run/runner.hpp"

using namespace norma;
namespace fs = std::filesystem;

namespace {

struct Made {
  std::vector<CheckJob> jobs;
  RunResult run;
};
Made run_on_host(Session& session, const std::vector<std::string>& impls) {
  Made made;
  for (const LocatedCase& c : read_cases("rmsnorm {bf16,e4m3fn} 2x321 weight.input=weight_normal seed=1", "here"))
    for (const std::string& impl : impls) made.jobs.push_back({.value = expand_defaults(c.value), .impl = impl});
  made.run = run_checks(session, made.jobs, {});
  return made;
}

std::string text_of_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A folder of its own that goes when the test does.
struct Folder {
  fs::path path = fs::temp_directory_path() / ("norma_kept_" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

constexpr const char* kKernels[] = {"cuda_host.rmsnorm.warp_per_row", "cuda_host.rmsnorm.block_per_row.rsqrtf"};

}  // namespace

TEST_CASE("a record tells which kernels ran, and in which shape", "[kept]") {
  Session session;
  const Made made = run_on_host(session, {kKernels[0], kKernels[1], "cpu.rmsnorm.lanes"});
  REQUIRE(made.run.records.size() == 6);
  CHECK(made.run.records[0]["ran"].dump() ==
        R"([{"kernel":"rmsnorm_warp_per_row","grid":1,"block":128,"shared_bytes":0}])");
  CHECK(made.run.records[1]["ran"].dump() ==
        R"([{"kernel":"rmsnorm_block_per_row","grid":2,"block":128,"shared_bytes":128}])");
  CHECK_FALSE(made.run.records[2].contains("ran"));
}

TEST_CASE("kept outputs agree when they are judged again, and a flipped bit does not", "[kept]") {
  const Folder folder;
  const std::string path = (folder.path / "outputs.safetensors").string();
  {
    Session session;
    const Made made = run_on_host(session, {kKernels[0], kKernels[1]});
    CHECK(made.run.exit_code == 0);
    write_kept(path, keep_outputs(session, made.jobs, made.run.records));
  }
  Session session;  // of another machine
  const std::vector<KeptOutput> all = read_kept(path);
  REQUIRE(all.size() == 4);
  for (const KeptOutput& kept : all) {
    CHECK(kept.verdict == "pass");
    const Rejudged again = judge_again(session, kept);
    CHECK(again.kind == Again::agrees);
    CHECK(again.reason.empty());
  }
  // A bit of any output, of which ideal and truth both know.
  for (const KeptOutput& kept : all)
    for (const std::size_t byte : {std::size_t{0}, std::size_t{200}, std::size_t{641}}) {
      KeptOutput other = kept;
      other.outputs.at("y").bytes[byte] ^= std::byte{1};
      const Rejudged again = judge_again(session, other);
      CHECK(again.kind == Again::differs);
      CHECK(again.reason.find("was pass where it was made and is fail here: " + kept.impl) == 0);
      CHECK(again.record.verdict.kind == VerdictKind::fail);
    }
}

TEST_CASE("a kept output of other inputs, verdict or program is told apart", "[kept]") {
  Session session;
  const Made made = run_on_host(session, {kKernels[0]});
  const KeptOutput kept = keep_outputs(session, made.jobs, made.run.records).front();
  KeptOutput other = kept;
  other.verdict = "fail";
  CHECK(judge_again(session, other).kind == Again::differs);
  other = kept;
  other.inputs[0] = other.inputs[0] == '0' ? '1' : '0';
  CHECK(judge_again(session, other).reason.find("the inputs of") == 0);
  other = kept;
  other.program = std::string(64, '0');
  CHECK(judge_again(session, other).kind == Again::stale);
  other = kept;
  other.impl = "cuda_host.rmsnorm.gone";
  CHECK(judge_again(session, other).reason == "this norma has no cuda_host.rmsnorm.gone any more");
}

TEST_CASE("the records of GPUs agree with what they say of themselves", "[records]") {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(fs::path(NORMA_SOURCE_DIR) / "impls/recorded"))
    if (entry.is_directory()) folders.push_back(entry.path());
  if (folders.empty()) SKIP("no GPU record is committed");
  Session session;
  for (const fs::path& folder : folders) {
    CAPTURE(folder.string());
    const auto said = nlohmann::json::parse(text_of_file(folder / "provenance.json"));
    for (const char* fact :
         {"norma", "binary_sha256", "device", "capability", "driver", "runtime", "compiler", "flags"})
      CHECK_FALSE(said.value(fact, "").empty());
    const std::string bytes = text_of_file(folder / "outputs.safetensors");
    CHECK(sha256_hex(std::as_bytes(std::span(bytes))) == said.value("outputs_sha256", ""));
    std::map<std::string, int> verdicts;
    for (const KeptOutput& kept : read_kept((folder / "outputs.safetensors").string())) {
      CHECK(kept.impl.starts_with("cuda."));
      ++verdicts[kept.verdict];
      const Rejudged again = judge_again(session, kept);
      if (again.kind == Again::stale) WARN(again.reason);
      CAPTURE(again.reason);
      CHECK(again.kind != Again::differs);
    }
    for (const auto& [verdict, count] : verdicts) CHECK(said["verdicts"].value(verdict, 0) == count);
  }
}

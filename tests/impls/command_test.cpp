// External commands: they answer, crash, hang and talk nonsense, and the run goes on. Recorded outputs too.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "impls/library/command.hpp"
#include "impls/recorded/recorded.hpp"

using namespace norma;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::Equals;

namespace {

/// A file of fp32 values and nothing else stands for safetensors: the protocol is what is tested here.
CommandFiles raw_files() {
  return {
      .write =
          [](const std::string& path, const Tensors& tensors) {
            const auto& bytes = tensors.at("x").bytes;
            std::ofstream(path, std::ios::binary)
                .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
          },
      .read =
          [](const std::string& path) {
            std::ifstream file(path, std::ios::binary);
            if (!file) throw std::runtime_error("no file " + path);
            const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
            if (bytes.empty() || bytes.size() % 4 != 0) throw std::runtime_error(path + " is cut off");
            Tensor y = Tensor::zeros(FormatId::fp32, {static_cast<std::int64_t>(bytes.size() / 4)});
            std::memcpy(y.bytes.data(), bytes.data(), bytes.size());
            return Tensors{{"y", y}};
          },
  };
}

/// A kernel in sh: reads lines, sets $in and $out, does `body` for each. `before` runs once.
std::string kernel(const std::string& body, const std::string& before = ":") {
  return before +
         "; while read -r line; do "
         "in=$(printf %s \"$line\" | sed 's/.*\"in\":\"\\([^\"]*\\)\".*/\\1/'); "
         "out=$(printf %s \"$line\" | sed 's/.*\"out\":\"\\([^\"]*\\)\".*/\\1/'); " +
         body + "; done";
}
const std::string kCopy = "cp \"$in\" \"$out\"; echo ok";

struct Call {
  Tensors inputs{{"x", Tensor::zeros(FormatId::fp32, {4})}};
  ImplCall call;
  Call() {
    for (std::int64_t i = 0; i < 4; ++i) inputs.at("x").set_code(i, 0x3f80'0000u + static_cast<std::uint64_t>(i));
    call.norm = "rmsnorm";
    call.inputs = &inputs;
    call.numbers["eps"] = 1e-6;
    call.words["eps_place"] = "inside";
  }
};

std::string crash_of(CommandImplementation& command) {
  const Call c;
  try {
    command.run(c.call);
  } catch (const ImplCrashed& e) {
    return e.what();
  }
  return "(it did not crash)";
}

/// A path in a folder of this test's own.
struct Scratch {
  std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("norma-command-test-" + std::to_string(::getpid()));
  Scratch() { std::filesystem::create_directories(folder); }
  ~Scratch() { std::filesystem::remove_all(folder); }
  std::string file(const std::string& name) const { return (folder / name).string(); }
  static std::string text(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
};

bool gone_within_2s(const std::string& pid_file) {
  const auto pid = static_cast<pid_t>(std::stol(Scratch::text(pid_file)));
  for (int i = 0; i < 200; ++i) {
    if (::kill(pid, 0) != 0) return true;
    // Orphans of a killed group are reaped by init; until then they are zombies, which are gone enough.
    std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
    const std::string text{std::istreambuf_iterator<char>(stat), {}};
    if (text.find(") Z") != std::string::npos) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

}  // namespace

TEST_CASE("a command is started once and answers every call", "[command]") {
  const Scratch scratch;
  CommandImplementation command(kernel(kCopy, "echo started >> " + scratch.file("log")), raw_files());
  CHECK(command.name().starts_with("cmd:echo started"));
  const Call c;
  for (int i = 0; i < 3; ++i) {
    const Tensors outputs = command.run(c.call);
    REQUIRE(outputs.at("y").bytes == c.inputs.at("x").bytes);
  }
  CHECK(Scratch::text(scratch.file("log")) == "started\n");
}

TEST_CASE("a command is told the norm, the files and every attribute in one line of JSON", "[command]") {
  const Scratch scratch;
  CommandImplementation command(kernel("printf '%s\\n' \"$line\" > " + scratch.file("line") + "; " + kCopy), raw_files());
  Call c;
  c.call.path = "bfl.flux.rmsnorm";
  c.call.words["note"] = "a \"quoted\"\nword";
  command.run(c.call);
  const std::string line = Scratch::text(scratch.file("line"));
  CHECK_THAT(line, ContainsSubstring(R"({"norm":"rmsnorm","in":"/)"));
  CHECK_THAT(line, ContainsSubstring(R"(in.safetensors","out":"/)"));
  CHECK_THAT(line, ContainsSubstring(R"("eps":1e-06,"eps_place":"inside","note":"a \"quoted\"\nword","path":"bfl.flux.rmsnorm"})"));
  CHECK(std::count(line.begin(), line.end(), '\n') == 1);
}

TEST_CASE("a command that crashes is started afresh at the next call", "[command]") {
  const Scratch scratch;
  const std::string mark = scratch.file("mark");
  CommandImplementation command(
      kernel("if [ -e " + mark + " ]; then " + kCopy + "; else touch " + mark + "; echo first >&2; echo 'bad pointer' >&2; kill -SEGV $$; fi"),
      raw_files());
  CHECK_THAT(crash_of(command), Equals("the command was killed by signal 11 (Segmentation fault) before it answered; "
                                       "its last words: bad pointer"));
  const Call c;
  CHECK(command.run(c.call).contains("y"));
}

TEST_CASE("a command that exits or cannot be started says so", "[command]") {
  CommandImplementation exits("read -r line; echo 'no such norm' >&2; exit 3", raw_files());
  CHECK_THAT(crash_of(exits), Equals("the command exited with status 3 before it answered; its last words: no such norm"));
  CHECK_THAT(crash_of(exits), ContainsSubstring("status 3"));
  CommandImplementation missing("/no/such/kernel", raw_files());
  CHECK_THAT(crash_of(missing), ContainsSubstring("could not be started") && ContainsSubstring("not found"));
}

TEST_CASE("a command that hangs is killed with everything it started", "[command]") {
  const Scratch scratch;
  CommandImplementation command(kernel("sleep 300 & echo $! > " + scratch.file("pid") + "; wait"), raw_files(), 0.5);
  const auto begin = std::chrono::steady_clock::now();
  CHECK_THAT(crash_of(command), ContainsSubstring("gave no answer within 0.5 s"));
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
  CHECK(gone_within_2s(scratch.file("pid")));
}

TEST_CASE("a command that answers nonsense is quoted", "[command]") {
  CommandImplementation garbage(kernel("echo 'loading model'"), raw_files());
  CHECK_THAT(crash_of(garbage), ContainsSubstring("answered 'loading model' instead of 'ok' or 'error TEXT'"));
  CommandImplementation silent(kernel("echo ok"), raw_files());
  CHECK_THAT(crash_of(silent), ContainsSubstring("answered ok, but wrote nothing to /"));
  CommandImplementation torn(kernel("printf abc > \"$out\"; echo ok"), raw_files());
  CHECK_THAT(crash_of(torn), ContainsSubstring("answered ok, but its outputs cannot be read") && ContainsSubstring("is cut off"));
  CommandImplementation flood("read -r line; exec head -c 200000 /dev/zero", raw_files());
  CHECK_THAT(crash_of(flood), ContainsSubstring("without an end of line"));
  CommandImplementation eager(kernel("cp \"$in\" \"$out\"; printf 'ok\\nmore\\n'"), raw_files());
  const Call c;
  CHECK(eager.run(c.call).contains("y"));
  CHECK_THAT(crash_of(eager), ContainsSubstring("without being asked"));
}

TEST_CASE("outputs of an earlier call do not pass for those of this one", "[command]") {
  const Scratch scratch;
  const std::string mark = scratch.file("mark");
  CommandImplementation command(
      kernel("if [ -e " + mark + " ]; then echo ok; else touch " + mark + "; " + kCopy + "; fi"), raw_files());
  const Call c;
  CHECK(command.run(c.call).contains("y"));
  CHECK_THAT(crash_of(command), ContainsSubstring("wrote nothing"));
}

TEST_CASE("an error answer is a skip if it says unsupported, else a crash; the process lives on", "[command]") {
  const Scratch scratch;
  CommandImplementation command(
      kernel("echo x >> " + scratch.file("calls") + "; n=$(wc -l < " + scratch.file("calls") +
                 "); case $n in 1) echo 'error unsupported format tf32';; 2) echo 'error out of memory';; *) " + kCopy + ";; esac",
             "echo started >> " + scratch.file("log")),
      raw_files());
  const Call c;
  CHECK_THROWS_AS(command.run(c.call), ImplSkipped);
  CHECK_THAT(crash_of(command), Equals("the command answered an error: out of memory"));
  CHECK(command.run(c.call).contains("y"));
  CHECK(Scratch::text(scratch.file("log")) == "started\n");
}

TEST_CASE("a command may say as much as it likes on standard error", "[command]") {
  CommandImplementation command(kernel("head -c 1000000 /dev/zero | tr '\\0' x >&2; " + kCopy), raw_files());
  const Call c;
  CHECK(command.run(c.call).contains("y"));
  CHECK(command.run(c.call).contains("y"));
}

TEST_CASE("calls from many threads wait for one another", "[command]") {
  CommandImplementation command(kernel(kCopy), raw_files());
  std::vector<int> good(8, 0);
  {
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < good.size(); ++t)
      threads.emplace_back([&, t] {
        Call c;
        c.inputs.at("x").set_code(0, t);
        for (int i = 0; i < 5; ++i) good[t] += command.run(c.call).at("y").code(0) == t ? 1 : 0;
      });
  }
  CHECK(good == std::vector<int>(8, 5));
}

TEST_CASE("a command ends when its implementation does", "[command]") {
  const Scratch scratch;
  {
    CommandImplementation command(kernel(kCopy, "trap '' HUP TERM; echo $$ > " + scratch.file("pid")) + "; sleep 300", raw_files());
    const Call c;
    command.run(c.call);
  }
  CHECK(gone_within_2s(scratch.file("pid")));
}

TEST_CASE("a recorded output is given back if it fits", "[recorded]") {
  const Call c;
  RecordedOutput recorded("file:a.safetensors#y", "rmsnorm", {{"y", c.inputs.at("x")}});
  CHECK(recorded.accepts_norm("rmsnorm"));
  CHECK_FALSE(recorded.accepts_norm("layernorm"));
  CHECK(recorded.run(c.call).at("y").bytes == c.inputs.at("x").bytes);
  RecordedOutput other("file:b.safetensors#y", "", {{"y", Tensor::zeros(FormatId::fp32, {5})}});
  CHECK(other.accepts_norm("layernorm"));
  CHECK_THROWS_WITH(other.run(c.call), "file:b.safetensors#y holds y of shape 5, but x is 4");
  RecordedOutput empty("file:c.safetensors", "", {{"out", Tensor::zeros(FormatId::fp32, {4})}});
  CHECK_THROWS_WITH(empty.run(c.call), "file:c.safetensors holds no output y; it holds: out");
}

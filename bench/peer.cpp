// A Python package in a process of its own.
#include "bench/peer.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <vector>

extern char** environ;

namespace norma::bench {

Peer::Peer(const std::string& module) {
  // The peer at its best: large pages for large tensors, as the emulator asks for. Without, most of torch's time is
  // page faults on its intermediates.
  ::setenv("THP_MEM_ALLOC_ENABLE", "1", 0);
  ::signal(SIGPIPE, SIG_IGN);  // a peer that died is an error of write, not the end of the measurement
  const char* chosen = std::getenv("NORMA_BENCH_PYTHON");
  const std::vector<std::string> pythons =
      chosen != nullptr ? std::vector<std::string>{chosen} : std::vector<std::string>{"python3", "/usr/bin/python3"};
  std::string reasons;
  for (const std::string& python : pythons) {
    if (start(python, module)) return;
    reasons += (reasons.empty() ? "" : "; ") + python + ": " + (name_.starts_with("none ") ? name_.substr(5) : name_);
  }
  throw PeerError("there is no " + module + " to compare with (" + reasons +
                  "); NORMA_BENCH_PYTHON names a Python that has it");
}

Peer::~Peer() { stop(); }

bool Peer::start(const std::string& python, const std::string& module) {
  int in[2], out[2];
  if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0) throw PeerError("no pipe to the peer");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  std::string words[] = {python, NORMA_BENCH_PEER, module};
  char* argv[] = {words[0].data(), words[1].data(), words[2].data(), nullptr};
  const int failed = ::posix_spawnp(&child_, argv[0], &actions, nullptr, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(in[0]);
  ::close(out[1]);
  to_ = ::fdopen(in[1], "w");
  from_ = ::fdopen(out[0], "r");
  if (failed != 0) child_ = -1;
  name_ = failed != 0 ? "cannot be started" : answer();
  if (name_.starts_with(module + " ")) return true;
  stop();
  if (name_.empty()) name_ = "ended without a word";
  return false;
}

void Peer::stop() {
  if (to_ != nullptr) std::fclose(to_);  // the end of its input ends it
  if (from_ != nullptr) std::fclose(from_);
  to_ = from_ = nullptr;
  if (child_ > 0) ::waitpid(child_, nullptr, 0);
  child_ = -1;
}

std::string Peer::answer() {
  std::string line;
  for (int c = std::fgetc(from_); c != EOF && c != '\n'; c = std::fgetc(from_)) line.push_back(static_cast<char>(c));
  return line;
}

std::string Peer::ask(const std::string& line) {
  std::fputs((line + "\n").c_str(), to_);
  std::fflush(to_);
  return answer();
}

void Peer::prepare(const std::string& job) {
  const std::string said = ask("job " + job);
  if (said.starts_with("error ")) throw PeerError(said.substr(6));
  if (said != "ready") throw PeerError(name_ + " failed at '" + job + "'");
}

double Peer::run() {
  const std::string said = ask("go");
  const double seconds = std::strtod(said.c_str(), nullptr);
  if (!(seconds > 0)) throw PeerError(name_ + " ended in the middle of a measurement");
  return seconds;
}

}  // namespace norma::bench

// A Python package in a process of its own (peer.py): asked by lines, timed by its own clock.
#pragma once

#include <sys/types.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>

namespace norma::bench {

/// The peer cannot do this job; the message is one sentence.
struct PeerError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Peer {
 public:
  /// `module`: torch, numpy or mpmath. Starts $NORMA_BENCH_PYTHON, else the first of python3 and /usr/bin/python3 that
  /// has it. PeerError if none has.
  explicit Peer(const std::string& module);
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  const std::string& name() const { return name_; }  ///< "torch 2.6.0"
  /// Makes the next runs run `job` (peer.py names its jobs and keys), after one run to warm it up.
  void prepare(const std::string& job);
  /// Seconds of one run.
  double run();

 private:
  bool start(const std::string& python, const std::string& module);  ///< false, with the reason in name_
  void stop();
  std::string ask(const std::string& line);
  std::string answer();

  std::string name_;
  pid_t child_ = -1;
  std::FILE* to_ = nullptr;
  std::FILE* from_ = nullptr;
};

}  // namespace norma::bench

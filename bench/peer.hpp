// torch in a process of its own (torch_eager.py): asked by lines, timed by its own clock.
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
  /// Starts $NORMA_BENCH_PYTHON, else the first of python3 and /usr/bin/python3 that has torch. PeerError if none
  /// has.
  Peer();
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  const std::string& name() const { return name_; }  ///< "torch 2.6.0"
  /// Makes the next runs run `job` (torch_eager.py names its jobs and keys), after one run to warm it up.
  void prepare(const std::string& job);
  /// Seconds of one run.
  double run();

 private:
  bool start(const std::string& python);  ///< false, with the reason in name_
  void stop();
  std::string ask(const std::string& line);
  std::string answer();

  std::string name_;
  pid_t child_ = -1;
  std::FILE* to_ = nullptr;
  std::FILE* from_ = nullptr;
};

}  // namespace norma::bench

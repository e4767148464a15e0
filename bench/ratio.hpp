// One measured ratio: this program's time over a peer's, in pairs that follow each other at once.
//
// Not Google Benchmark: it times one side after the other, in one process, and the peers here are partly another
// process. On shared cores the load changes between the two blocks and the quotient of two averages is noise; the
// quotient of each pair is not, and their spread is shown.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace norma::bench {

struct Ratio {
  std::string name;
  std::string peer;
  std::string work;              ///< what both did; the two median times are added to it
  std::optional<double> goal{};  ///< the most that the ratio should be; none: for information
  /// Given: what one run of either side did, and times and ratio are those of one element.
  double our_elements = 0, peer_elements = 0;
  bool alone = false;  ///< one thread in all: both sides by timed_alone, one after the other without a pause
};

/// Seconds of one run.
using Timed = std::function<double()>;

double seconds_now();
/// What this process has spent on all of its threads: on shared cores the time that others took is not in it.
double cpu_seconds_now();

/// `body` by a clock of this process; what it returns is destroyed after the clock was read.
template <class Body>
Timed timed_by(double (*clock)(), Body body) {
  return [clock, body] {
    const double start = clock();
    const auto result = body();
    asm volatile("" : : "g"(&result) : "memory");  // the compiler must believe that it is used
    return clock() - start;
  };
}
/// By the wall: for work on several threads, and against another process.
template <class Body>
Timed timed(Body body) {
  return timed_by(seconds_now, body);
}
/// By the processor: for work on one thread.
template <class Body>
Timed timed_alone(Body body) {
  return timed_by(cpu_seconds_now, body);
}

/// Runs both in turn, `pairs` times after one round to warm up; every other pair begins with the peer. The line of
/// bench.jsonl: the median of the pairs' ratios, their least (low) and greatest (high).
nlohmann::ordered_json measure_ratio(const Ratio& ratio, const Timed& ours, const Timed& peer, int pairs);

/// A line for what was not timed in pairs: `values` are ratios already.
nlohmann::ordered_json ratio_line(const Ratio& ratio, std::vector<double> values);

}  // namespace norma::bench

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

namespace norma::bench {

struct Ratio {
  std::string name;
  std::string peer;
  std::string work;              ///< what both did; the two median times are added to it
  std::optional<double> goal{};  ///< none: for information
};

/// Seconds of one run.
using Timed = std::function<double()>;

double seconds_now();

/// `body` by this process's clock; what it returns is destroyed after the clock was read.
template <class Body>
Timed timed(Body body) {
  return [body] {
    const double start = seconds_now();
    const auto result = body();
    asm volatile("" : : "g"(&result) : "memory");  // the compiler must believe that it is used
    return seconds_now() - start;
  };
}

/// Runs both in turn, `pairs` times after one round to warm up. The line of bench.jsonl: the median of the pairs'
/// ratios, their least (low) and greatest (high).
nlohmann::ordered_json measure_ratio(const Ratio& ratio, const Timed& ours, const Timed& peer, int pairs);

}  // namespace norma::bench

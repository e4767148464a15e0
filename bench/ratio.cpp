// One measured ratio.
#include "bench/ratio.hpp"

#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

namespace norma::bench {

namespace {

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Worker threads of either side spin for some milliseconds after their last task; the other one's clock must not
/// see that.
void settle() { std::this_thread::sleep_for(std::chrono::milliseconds(10)); }

std::string time_text(double seconds) {
  if (seconds < 1e-6) return fmt::format("{:.3f} ns", seconds * 1e9);
  return seconds < 1e-3 ? fmt::format("{:.1f} us", seconds * 1e6) : fmt::format("{:.2f} ms", seconds * 1e3);
}

}  // namespace

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double cpu_seconds_now() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

nlohmann::ordered_json ratio_line(const Ratio& ratio, std::vector<double> values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  nlohmann::ordered_json line;
  line["name"] = ratio.name;
  line["ratio"] = median(values);
  line["low"] = *low;
  line["high"] = *high;
  line["goal"] = ratio.goal ? nlohmann::ordered_json(*ratio.goal) : nlohmann::ordered_json(nullptr);
  line["peer"] = ratio.peer;
  line["work"] = ratio.work;
  return line;
}

nlohmann::ordered_json measure_ratio(const Ratio& ratio, const Timed& ours, const Timed& peer, int pairs) {
  const bool per_element = ratio.our_elements > 0 && ratio.peer_elements > 0;
  const double our_share = per_element ? ratio.our_elements : 1, peer_share = per_element ? ratio.peer_elements : 1;
  std::vector<double> our_seconds, peer_seconds, ratios;
  const auto run = [&](const Timed& side, double share) {
    if (!ratio.alone) settle();
    return side() / share;
  };
  for (int i = -1; i < pairs; ++i) {
    double a, b;
    if (i % 2 == 0) {
      a = run(ours, our_share);
      b = run(peer, peer_share);
    } else {
      b = run(peer, peer_share);
      a = run(ours, our_share);
    }
    if (i < 0) continue;
    our_seconds.push_back(a);
    peer_seconds.push_back(b);
    ratios.push_back(a / b);
  }
  nlohmann::ordered_json line = ratio_line(ratio, ratios);
  line["work"] = fmt::format("{}; medians {} against {}{} in {} pairs", ratio.work, time_text(median(our_seconds)),
                             time_text(median(peer_seconds)), per_element ? " an element" : "", pairs);
  return line;
}

}  // namespace norma::bench

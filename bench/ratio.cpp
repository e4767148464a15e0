// One measured ratio.
#include "bench/ratio.hpp"

#include <fmt/core.h>

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
  return seconds < 1e-3 ? fmt::format("{:.1f} us", seconds * 1e6) : fmt::format("{:.2f} ms", seconds * 1e3);
}

}  // namespace

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

nlohmann::ordered_json measure_ratio(const Ratio& ratio, const Timed& ours, const Timed& peer, int pairs) {
  std::vector<double> our_seconds, peer_seconds, ratios;
  for (int i = -1; i < pairs; ++i) {
    settle();
    const double a = ours();
    settle();
    const double b = peer();
    if (i < 0) continue;
    our_seconds.push_back(a);
    peer_seconds.push_back(b);
    ratios.push_back(a / b);
  }
  const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
  nlohmann::ordered_json line;
  line["name"] = ratio.name;
  line["ratio"] = median(ratios);
  line["low"] = *low;
  line["high"] = *high;
  line["goal"] = ratio.goal ? nlohmann::ordered_json(*ratio.goal) : nlohmann::ordered_json(nullptr);
  line["peer"] = ratio.peer;
  line["work"] = fmt::format("{}; medians {} against {} in {} pairs", ratio.work, time_text(median(our_seconds)),
                             time_text(median(peer_seconds)), pairs);
  return line;
}

}  // namespace norma::bench

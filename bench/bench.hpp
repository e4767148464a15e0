// What the measurements share.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "bench/peer.hpp"

namespace norma::bench {

struct Bench {
  int threads = 1;
  bool quick = false;
  std::string folder;     ///< for the files that tensors travel in
  Peer* torch = nullptr;  ///< null: no torch here
  std::function<void(const nlohmann::ordered_json& line)> report;
  std::function<void(const std::string& sentence)> say;

  int pairs(int full) const { return quick ? (full + 3) / 4 : full; }
};

/// Each false if a sanity figure is wrong, with the sentence said.
bool bench_emulate(const Bench& bench);
bool bench_truth(const Bench& bench);
bool bench_conversion(const Bench& bench);

}  // namespace norma::bench

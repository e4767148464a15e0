// What the measurements share.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "bench/peer.hpp"

namespace norma::bench {

struct Bench {
  int threads = 1;
  bool quick = false;
  std::string folder;     ///< for the files that tensors travel in
  std::string match;      ///< measure only lines of the reference whose name holds this
  Peer* torch = nullptr;  ///< null: not here
  Peer* numpy = nullptr;
  Peer* mpmath = nullptr;
  std::function<void(const nlohmann::ordered_json& line)> report;
  std::function<void(const std::string& sentence)> say;

  int pairs(int full) const { return quick ? (full + 3) / 4 : full; }
  bool wants(std::string_view name) const { return name.find(match) != std::string_view::npos; }
};

/// Each false if a sanity figure is wrong, with the sentence said.
bool bench_emulate(const Bench& bench);
bool bench_truth(const Bench& bench);
bool bench_conversion(const Bench& bench);
bool bench_kernels(const Bench& bench);
bool bench_reference(const Bench& bench);
bool bench_blocks(const Bench& bench);

}  // namespace norma::bench

// The parts of the reference's measurement. Each false if both sides did not do the same work, with the sentence said.
#pragma once

#include "bench/bench.hpp"
#include "bench/reference/buffers.hpp"

namespace norma::bench {

/// What all parts share: inputs larger than the caches, one a format, and an output as large, made when first asked
/// for.
class Shared {
 public:
  explicit Shared(int threads) : threads_(threads) {}
  const Tensor& stream(FormatId format);  ///< kStream elements of N(0, 1), bf16 or fp32
  std::byte* output();                    ///< 4 bytes for each

 private:
  int threads_;
  std::optional<Tensor> bf16_, fp32_;
  std::optional<Pages> output_;
};

bool bench_norms(const Bench& bench, Shared& shared);    ///< against plain binary64
bool bench_scores(const Bench& bench, Shared& shared);   ///< fused scoring against plain binary64
bool bench_peers(const Bench& bench, Shared& shared);    ///< against wider arithmetics, torch, numpy, mpmath
bool bench_cliffs(const Bench& bench);                   ///< special rows against ordinary ones
bool bench_threads(const Bench& bench, Shared& shared);  ///< two threads against one
bool bench_functions(const Bench& bench);
bool bench_matmul(const Bench& bench);
bool bench_programs(const Bench& bench);
bool bench_memory(const Bench& bench);

}  // namespace norma::bench

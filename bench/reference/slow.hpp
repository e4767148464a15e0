// The peers that a user would write for accuracy: the formula, element by element, in a wider arithmetic.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace norma::bench {

/// RMSNorm without bias, LayerNorm with it; decoded x [rows, cols]. What comes out is rounded once, to binary32.
struct SlowNorm {
  std::size_t rows = 0, cols = 0;
  const double* x = nullptr;
  const double* weight = nullptr;
  const double* bias = nullptr;  ///< null: RMSNorm
  double eps = 0;
  float* y = nullptr;
};

struct SlowPeer {
  std::string key;   ///< "mpfr113"
  std::string name;  ///< "naive MPFR, 113 bits"
  std::function<void(const SlowNorm&)> run;
  double rate = 0;  ///< elements a second, to the order of magnitude: how much of the work it gets
};

/// All that this build has; Arb only where it was found (bench/CMakeLists.txt).
std::vector<SlowPeer> slow_peers();

/// Dot products of rows of a [m, k] and b [n, k] in 113-bit MPFR, the first `count` of a b^T; rounded once.
void mpfr_dots(const double* a, const double* b, std::size_t n, std::size_t k, std::size_t count, float* c);

/// f(x) in 113-bit MPFR. "silu", "gelu", "gelu_tanh"; softmax over rows of `cols`.
void mpfr_function(const std::string& f, const float* x, float* y, std::size_t count);
void mpfr_softmax(const float* x, float* y, std::size_t rows, std::size_t cols);

#ifdef NORMA_BENCH_ARB
/// Balls of 113 bits; what comes out is the midpoint.
void arb_norm(const SlowNorm& norm);
#endif

}  // namespace norma::bench

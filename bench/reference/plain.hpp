// The peer that a user would write for speed: binary64 loops, vectorized, uncertified; bits in, bits out.
//
// One source, compiled for several vector widths; the widest that the CPU has runs. Unlike the reference, these loops
// may be contracted and their sums reordered. Narrow results go through binary32, as torch's .to() does: rounded twice.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace norma::bench {

enum class PlainFormat { fp32, bf16, e4m3fn };

/// rms, layer:  a row is a norm; weight and bias have cols values
/// strict_*:    the same with every sum in order, as -O3 leaves a loop: not vectorized
/// group:       a row is a group; its channels of `span` elements are (row % period) * (cols / span) ...
/// batch:       a row is channel row % period of one sample; statistics over a channel's rows
/// affine:      the same with given mean and variance
enum class PlainKind { rms, layer, group, batch, affine, strict_rms, strict_layer };

/// Parameters are decoded once, outside the clock.
struct PlainNorm {
  PlainKind kind = PlainKind::rms;
  PlainFormat in = PlainFormat::bf16;  ///< bf16 or fp32
  PlainFormat out = PlainFormat::fp32;
  size_t rows = 0, cols = 0;
  const void* x = nullptr;
  const float* weight = nullptr;
  const float* bias = nullptr;  ///< all but rms
  size_t span = 0, period = 1;
  double eps = 0;
  const float* mean = nullptr;
  const float* variance = nullptr;
  void* y = nullptr;
};

/// Errors of an RMSNorm's fp32 output in units of the last place of its binary64 value.
struct PlainScore {
  double max = 0, mean_abs = 0;
};

enum class PlainFunction { exp, silu, gelu, gelu_tanh };

struct PlainLoops {
  const char* level;    ///< "AVX-512", "AVX2", "baseline"
  bool vector_library;  ///< exp, erf and tanh are the C library's vector functions
  void (*norm)(const PlainNorm& norm);
  PlainScore (*score_rms)(const PlainNorm& norm);  ///< norm.y is what is scored, fp32; nothing is written
  void (*function)(PlainFunction f, const float* x, float* y, size_t count);
  /// `row` has room for one row.
  void (*softmax)(const float* x, float* y, size_t rows, size_t cols, double* row);
  /// Memory: words of `from` plus one to `to`; the sum of words.
  void (*copy)(const uint64_t* from, uint64_t* to, size_t words);
  uint64_t (*read)(const uint64_t* from, size_t words);
};

/// Those of the widest level that this CPU runs.
const PlainLoops& plain_loops();

}  // namespace norma::bench

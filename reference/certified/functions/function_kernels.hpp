// The vector loops of the functions, softmax and RoPE, compiled for each vector level with identical results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "reference/formats/tensor.hpp"

namespace norma {

inline constexpr std::size_t kFunctions = 7;

/// The largest and the least score, -Inf and NaN left out, and how many are not -Inf.
struct ScoreRange {
  double most, least;
  std::size_t finite;
  bool nan;
};

/// first = a cos - b sin, second = a sin + b cos; the sizes are the sums of the terms' magnitudes.
struct Rotation {
  const double *a, *b, *cosine, *sine;
  double *first, *second, *first_size, *second_size;
};

struct FunctionKernels {
  /// mid[i] = f(x[i]) for Function f; mid may be x.
  void (*rows[kFunctions])(const double* x, double* mid, std::size_t count);
  ScoreRange (*range_of)(const double* x, std::size_t count);
  /// e^(x[i] - most) for x[i] <= most, the difference taken exactly.
  void (*exp_differences)(const double* x, double most, double* e, std::size_t count);
  /// Each term passes at most (count + 31) / 32 + 5 additions.
  double (*sum)(const double* x, std::size_t count);
  void (*multiply)(double factor, double* x, std::size_t count);
  void (*rotate)(const Rotation& r, std::size_t count);
};

/// Those of vector_level().
const FunctionKernels& function_kernels();

/// out.size() values of x from element `first` on; exact.
void decode_values(const Tensor& x, std::int64_t first, std::span<double> out);

}  // namespace norma

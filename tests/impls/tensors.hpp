// Tensors that kernels are tested with, and where two differ.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <utility>

#include "reference/formats/convert.hpp"
#include "reference/formats/tensor.hpp"

namespace norma {

/// mt19937_64's sequence is fixed by the standard; the distributions of <random> are not, so bits are used.
inline Tensor any_bits(FormatId format, Shape shape, std::uint64_t seed) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  std::mt19937_64 bits(seed);
  const std::uint64_t mask = (std::uint64_t{2} << (format_of(format).code_bits - 1)) - 1;
  for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, bits() & mask);
  return t;
}

/// `offset` plus finite values of both signs, magnitudes log-uniform in [2^low, 2^high), in T.
inline Tensor ordinary(FormatId format, Shape shape, double low, double high, std::uint64_t seed, double offset = 0) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  std::mt19937_64 bits(seed);
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const double u = std::ldexp(static_cast<double>(bits() >> 11), -53);
    const double sign = (bits() & 1) != 0 ? -1 : 1;
    t.set_code(i, encode(format, offset + sign * std::exp2(low + (high - low) * u), Overflow::saturate));
  }
  return t;
}

inline Tensor constant(FormatId format, Shape shape, double value) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, encode(format, value, Overflow::saturate));
  return t;
}

/// Elements of one row that differ, all NaN being alike.
inline std::int64_t differing(const Tensor& a, const Tensor& b, std::int64_t row) {
  std::int64_t count = 0;
  for (std::int64_t i = row * a.cols(); i < (row + 1) * a.cols(); ++i)
    if (a.code(i) != b.code(i) && !(is_nan_code(a.format, a.code(i)) && is_nan_code(b.format, b.code(i)))) ++count;
  return count;
}
inline std::int64_t differing(const Tensor& a, const Tensor& b) {
  std::int64_t count = 0;
  for (std::int64_t row = 0; row < a.rows(); ++row) count += differing(a, b, row);
  return count;
}

}  // namespace norma

// Matrix products in a declared order, bit for bit.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "reference/program/graph.hpp"

namespace norma {

/// Factors as binary32: a [rows, depth], b [cols, depth], row-major. `start`: what the accumulators of a column begin
/// with, one a column; none: 0.
struct ProductCall {
  std::int64_t rows = 0, cols = 0, depth = 0;
  const float* a = nullptr;
  const float* b = nullptr;
  std::span<const float> start{};
  int threads = 1;
};

/// The accumulators [rows, cols] at the end. Errors: ProgramError for an accumulator that is not fp32, or a count below 1
/// where the order has one.
std::vector<float> ordered_product(const ProductSum& sum, const ProductCall& call);

}  // namespace norma

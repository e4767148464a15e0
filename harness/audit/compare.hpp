// Two implementations of one call: how far they lie apart, and which lies nearer to the truth.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/run/check.hpp"

namespace norma {

/// Over the elements in which both outputs are finite and the truth is a real number, unless said otherwise.
struct Distance {
  std::int64_t elements = 0;      ///< of the output, all of them
  std::int64_t compared = 0;      ///< those above
  std::int64_t equal_values = 0;  ///< all elements: the same number (zeros of either sign), or both NaN
  std::int64_t nearer_a = 0;      ///< |a - y| < |b - y|, decided for the real y
  std::int64_t nearer_b = 0;
  std::int64_t as_near = 0;  ///< equal values, or y half-way between them
  std::int64_t undecided = 0;
  double relative_l2 = 0;          ///< |a - b| / |y|, 2-norms
  double max_ulp = 0;              ///< largest |a - b| in ulp_F(y) of the coarser format
  FormatId unit = FormatId::fp32;  ///< F
  Place max_at{};                  ///< the first as large; -1, -1: they agree everywhere
  double a_there = 0, b_there = 0, truth_there = 0;
};

/// One output of both.
struct ComparedOutput {
  std::string output;
  Measures a, b;
  Distance distance;
};

/// Which of two finite numbers lies nearer to y: less: a, greater: b, equal: neither.
Comparison nearer(const Element& y, double a, double b);

/// Of outputs of one shape, of whatever formats.
Distance distance(const TruthSource& truth, const Tensor& a, const Tensor& b);

/// Every output that both have, y first. CaseError, one sentence, where they have none in common or where its shapes
/// differ.
std::vector<ComparedOutput> compare_outputs(Session& session, const Case& expanded, const Tensors& a, const Tensors& b);

}  // namespace norma

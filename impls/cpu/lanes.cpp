// Sums in lanes.
#include "impls/cpu/lanes.hpp"

#include "reference/formats/clones.hpp"

namespace norma {

namespace {

/// Inlined into each clone. An empty lane adds +0 at the end: no change, since no lane holds -0.
template <std::size_t lanes, class Value, class Term>
__attribute__((always_inline)) inline Value add_in_lanes(std::size_t cols, const Term& term) {
  Value lane[lanes] = {};
  std::size_t i = 0;
  for (; i + lanes <= cols; i += lanes)
    for (std::size_t l = 0; l < lanes; ++l) lane[l] += term(i + l);
  for (std::size_t l = 0; i < cols; ++i, ++l) lane[l] += term(i);
  Value sum = lane[0];
  for (std::size_t l = 1; l < lanes; ++l) sum += lane[l];
  return sum;
}

}  // namespace

NORMA_CLONES float sum_in_lanes(const float* x, std::size_t cols) {
  return add_in_lanes<kFloatLanes, float>(cols, [x](std::size_t i) { return x[i]; });
}
NORMA_CLONES float square_sum_in_lanes(const float* x, std::size_t cols) {
  return add_in_lanes<kFloatLanes, float>(cols, [x](std::size_t i) { return x[i] * x[i]; });
}
NORMA_CLONES float deviation_sum_in_lanes(const float* x, float mean, std::size_t cols) {
  return add_in_lanes<kFloatLanes, float>(cols, [x, mean](std::size_t i) { return (x[i] - mean) * (x[i] - mean); });
}

NORMA_CLONES double double_sum_in_lanes(const float* x, std::size_t cols) {
  return add_in_lanes<kDoubleLanes, double>(cols, [x](std::size_t i) { return static_cast<double>(x[i]); });
}
NORMA_CLONES double double_square_sum_in_lanes(const float* x, std::size_t cols) {
  return add_in_lanes<kDoubleLanes, double>(
      cols, [x](std::size_t i) { return static_cast<double>(x[i]) * static_cast<double>(x[i]); });
}
NORMA_CLONES double double_deviation_sum_in_lanes(const float* x, double mean, std::size_t cols) {
  return add_in_lanes<kDoubleLanes, double>(cols, [x, mean](std::size_t i) {
    return (static_cast<double>(x[i]) - mean) * (static_cast<double>(x[i]) - mean);
  });
}

Reduction mean_of(Term term, Order order) {
  return {.kind = ReduceKind::mean, .term = term, .order = order, .contract = false, .term_format = {}};
}

}  // namespace norma

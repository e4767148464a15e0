// A truth made by hand: every element a sum of two binary64 numbers, known exactly.
#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "reference/exact/enclosure.hpp"
#include "reference/exact/real.hpp"
#include "reference/formats/tensor.hpp"

namespace norma {

struct HandMade {
  double hi = 0;
  double lo = 0;
  double magnitude = -1;  ///< -1: |y|
};

/// Exact, or with every radius widened so that the answers must come from `compare`.
class HandMadeTruth final : public TruthSource {
 public:
  HandMadeTruth(std::int64_t rows, std::int64_t cols, std::vector<HandMade> values, double relative_radius = 0)
      : rows_(rows), cols_(cols), values_(std::move(values)), relative_radius_(relative_radius) {}

  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::int64_t col = 0; col < cols_; ++col) {
      const HandMade& y = values_[static_cast<std::size_t>(row * cols_ + col)];
      out[static_cast<std::size_t>(col)] = {.hi = y.hi,
                                            .lo = y.lo,
                                            .radius = relative_radius_ * std::fabs(y.hi),
                                            .magnitude = y.magnitude < 0 ? std::fabs(y.hi) : y.magnitude};
    }
  }
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    const HandMade& y = values_[static_cast<std::size_t>(row * cols_ + col)];
    const Dyadic difference = (Dyadic(y.hi) + Dyadic(y.lo)) - (Dyadic(m_hi) + Dyadic(m_lo));
    return static_cast<Comparison>(difference.sign());
  }

 private:
  std::int64_t rows_, cols_;
  std::vector<HandMade> values_;
  double relative_radius_;
};

inline Tensor tensor_of(FormatId format, Shape shape, const std::vector<double>& values) {
  Tensor tensor = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    tensor.set_code(i, encode(format, values[static_cast<std::size_t>(i)], Overflow::ieee));
  }
  return tensor;
}

}  // namespace norma

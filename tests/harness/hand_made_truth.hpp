// A truth made by hand: every element a sum of two binary64 numbers, known exactly.
#pragma once

#include <cmath>
#include <limits>
#include <optional>
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

/// Quick enclosures that a truth made by hand hands out as binary64's: a radius relative to the magnitude, and how much of
/// it the midpoints are off, from -1 to 1.
struct HandMadeQuick {
  double radius = 0;
  double off = 0;
};

/// Exact, or with every radius widened so that the answers must come from `compare`.
class HandMadeTruth final : public TruthSource {
 public:
  HandMadeTruth(std::int64_t rows, std::int64_t cols, std::vector<HandMade> values, double relative_radius = 0,
                std::optional<HandMadeQuick> quick = std::nullopt)
      : rows_(rows), cols_(cols), values_(std::move(values)), relative_radius_(relative_radius), quick_(quick) {}

  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::int64_t col = 0; col < cols_; ++col) {
      const HandMade& y = values_[static_cast<std::size_t>(row * cols_ + col)];
      out[static_cast<std::size_t>(col)] = {.hi = y.hi,
                                            .lo = y.lo,
                                            .radius = relative_radius_ * std::fabs(y.hi),
                                            .magnitude = y.magnitude < 0 ? std::fabs(y.hi) : y.magnitude,
                                            .tier = quick_ ? Tier::double_double : Tier::exact};
    }
  }
  Tier enclose_quick(std::int64_t row, const QuickRow& out) const override {
    const Tier tier = TruthSource::enclose_quick(row, out);
    if (!quick_) return tier;
    for (std::size_t col = 0; col < out.mid.size(); ++col) {
      if (!std::isfinite(out.mid[col])) continue;
      const double wider = quick_->radius * out.magnitude[col], mid = out.mid[col] + 0.99 * wider * quick_->off;
      if (!std::isfinite(mid) || !std::isfinite(wider)) {
        out.radius[col] = std::numeric_limits<double>::infinity();
        continue;
      }
      out.mid[col] = mid;
      out.magnitude[col] = std::fabs(out.magnitude[col] + 0.99 * wider * quick_->off);
      out.radius[col] += wider + 0x1p-52 * wider + 0x1p-53 * std::fabs(out.mid[col]) * (wider > 0 ? 2 : 0);
    }
    return Tier::binary64;
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
  std::optional<HandMadeQuick> quick_;
};

inline Tensor tensor_of(FormatId format, Shape shape, const std::vector<double>& values) {
  Tensor tensor = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    tensor.set_code(i, encode(format, values[static_cast<std::size_t>(i)], Overflow::ieee));
  }
  return tensor;
}

}  // namespace norma

// A truth that remembers whether it was asked to compare.
#pragma once

#include <algorithm>

#include "reference/exact/enclosure.hpp"

namespace norma {

/// One element's: not for several threads.
class WatchedTruth final : public TruthSource {
 public:
  explicit WatchedTruth(const TruthSource& truth) : truth_(truth) {}
  std::int64_t rows() const override { return truth_.rows(); }
  std::int64_t cols() const override { return truth_.cols(); }
  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override { truth_.enclose_row(row, out); }
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    asked_ = true;
    return truth_.compare(row, col, m_hi, m_lo);
  }
  Tier compare_tier() const override { return truth_.compare_tier(); }
  /// The slowest tier that was asked, beginning with the enclosure's.
  Tier settled(Tier enclosure) const { return asked_ ? std::max(enclosure, compare_tier()) : enclosure; }

 private:
  const TruthSource& truth_;
  mutable bool asked_ = false;
};

}  // namespace norma

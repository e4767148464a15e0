// A truth that remembers whether it was asked to compare.
#pragma once

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
  bool asked() const { return asked_; }

 private:
  const TruthSource& truth_;
  mutable bool asked_ = false;
};

}  // namespace norma

// Codes times scale against the norm: the truth divided by each row's or block's scale, then measured like
// any output.
#include <fmt/core.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "harness/metrics/measures.hpp"

namespace norma {

namespace {

/// y / scale, row by row or block by block: (g s - y) / (ulp_F(y/s) s) = (g - y/s) / ulp_F(y/s).
class Divided final : public TruthSource {
 public:
  Divided(const TruthSource& truth, std::span<const double> scales) : truth_(truth), scales_(scales) {}

  std::int64_t rows() const override { return truth_.rows(); }
  std::int64_t cols() const override { return truth_.cols(); }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    truth_.enclose_row(row, out);
    for (std::size_t j = 0; j < out.size(); ++j) {
      const double s = scale(row, static_cast<std::int64_t>(j));
      out[j] = usable(s) ? divide(out[j], s) : Enclosure{.hi = std::numeric_limits<double>::quiet_NaN()};
    }
  }

  // y/s against m is y against m s. The product of two binary64 numbers is a sum of two; when that
  // of both halves of m is not again a sum of two, the answer is left open.
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    const double s = scale(row, col);
    if (!usable(s)) return Comparison::undecided;
    const double high = m_hi * s;
    const double high_rest = std::fma(m_hi, s, -high);
    const double low = m_lo * s;
    const double low_rest = std::fma(m_lo, s, -low);
    const double rest = high_rest + low;
    // Exact if one is zero: nearly always m is short, as a midpoint of a narrow format is.
    const bool exact = (high_rest == 0 || low == 0) && low_rest == 0 && std::isfinite(high) &&
                       (high == 0 || std::fabs(high) > 0x1p-900);
    if (!exact) return Comparison::undecided;
    const double sum = high + rest;
    const double sum_rest = rest - (sum - high);  // |rest| <= |high|
    const Comparison answer = truth_.compare(row, col, sum, sum_rest);
    if (s > 0 || answer == Comparison::undecided || answer == Comparison::equal) return answer;
    return answer == Comparison::less ? Comparison::greater : Comparison::less;
  }

 private:
  static bool usable(double s) { return std::isfinite(s) && s != 0; }
  double scale(std::int64_t row, std::int64_t col) const {
    if (scales_.size() == 1) return scales_[0];
    const std::int64_t blocks = static_cast<std::int64_t>(scales_.size()) / rows();
    return scales_[static_cast<std::size_t>(row * blocks + col / (cols() / blocks))];
  }

  // q1 = RN(hi/s), q2 = RN((hi - q1 s + lo) / s): the remainder hi - q1 s is exact, its sum with lo
  // and the quotient are rounded once each, both below 2^-105 |q1|. Then q1 + q2 is made a
  // double-double exactly.
  static Enclosure divide(const Enclosure& y, double s) {
    const double q1 = y.hi / s;
    const double infinity = std::numeric_limits<double>::infinity();
    if (!std::isfinite(y.hi) || y.hi == 0) return {.hi = q1, .radius = y.radius / std::fabs(s)};
    if (!std::isfinite(q1) || std::fabs(q1) < 0x1p-1000) {  // leaves binary64: nothing is told but the place
      return {.hi = std::copysign(std::isfinite(q1) ? 0x1p-1000 : std::numeric_limits<double>::max(), q1),
              .radius = infinity};
    }
    const double q2 = (std::fma(-q1, s, y.hi) + y.lo) / s;
    const double hi = q1 + q2;
    const double lo = q2 - (hi - q1);
    const double radius = (y.radius / std::fabs(s) + 0x1p-103 * std::fabs(q1)) * (1 + 0x1p-40) + 0x1p-1000;
    return {.hi = hi, .lo = lo, .radius = radius, .magnitude = y.magnitude / std::fabs(s)};
  }

  const TruthSource& truth_;
  std::span<const double> scales_;
};

}  // namespace

Measures measure_dequantized(const TruthSource& truth, const TruthSource* erasure, std::span<const Tensor> ideals,
                             const Tensor& codes, std::span<const double> scales, Overflow policy,
                             const MeasureOptions& options) {
  const auto count = static_cast<std::int64_t>(scales.size());
  const bool blocks = count > 0 && count % truth.rows() == 0 && truth.cols() % (count / truth.rows()) == 0;
  if (count != 1 && !blocks) {
    throw std::invalid_argument(
        fmt::format("measure_dequantized: {} scales for {} rows of {} columns; one, or one for each row or for each "
                    "block of its columns, is wanted",
                    count, truth.rows(), truth.cols()));
  }
  const Divided divided(truth, scales);
  if (erasure == nullptr) return measure(divided, nullptr, ideals, codes, policy, options);
  const Divided divided_erasure(*erasure, scales);
  return measure(divided, &divided_erasure, ideals, codes, policy, options);
}

}  // namespace norma

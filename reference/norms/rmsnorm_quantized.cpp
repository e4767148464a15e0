// Quantized rows of n = A r + b. Everything comes down to "is A r greater than c?", for dyadic A and c:
//
//   n / scale > m       A                             c = m scale - bias
//   |n_j| > |n_k|       s_j A_j - s_k A_k             c = s_k bias_k - s_j bias_j      (s: the signs of n)
//   n_i Q / |n_k| > m   A_i Q - m s_k A_k             c = m s_k bias_k - bias_i Q
#include "reference/norms/rmsnorm_quantized.hpp"

#include <array>
#include <cmath>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "reference/norms/affine.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Only a scale that is the largest of n = q + bias can cancel; it is then evaluated again with more bits.
constexpr mpfr_prec_t kRowBits = 128;
constexpr mpfr_prec_t kMostRowBits = 8192;

enum class ScaleKind { fixed, largest, cap, floor, infinite, nan };

struct Row {
  AffineFactor factor;
  ScaleKind kind = ScaleKind::fixed;
  std::int64_t largest = 0;  ///< column of the largest |n|
  int largest_sign = 1;
  Interval scale;
  Row(AffineFactor f, mpfr_prec_t bits) : factor(std::move(f)), scale(bits) {}
};

/// Certainly |a| < |b|. Each sum is rounded twice.
bool is_smaller(const Enclosure& a, const Enclosure& b) {
  return (std::fabs(a.hi) + std::fabs(a.lo) + a.radius) * (1 + 0x1p-50) <
         (std::fabs(b.hi) - std::fabs(b.lo) - b.radius) * (1 - 0x1p-50);
}

class QuantizedRows {
 public:
  QuantizedRows(const RowNorm& norm, const Quantization& quantization) : rows_(norm), quant_(quantization) {}

  const AffineRows& rows() const { return rows_; }

  // Rows come in runs of comparisons, from several threads at once.
  std::shared_ptr<const Row> at(std::int64_t r) const {
    Slot& slot = slots_[static_cast<std::size_t>(r) % slots_.size()];
    {
      const std::lock_guard lock(mutex_);
      if (slot.row == r) return slot.value;
    }
    auto value = std::make_shared<const Row>(read(r, kRowBits));
    const std::lock_guard lock(mutex_);
    slot = {r, value};
    return value;
  }

  /// |n| of the row's largest as A r + b.
  std::pair<Dyadic, Dyadic> largest(const Row& row, std::int64_t r) const {
    const AffineElement e = rows_.element(row.factor, r, row.largest);
    if (row.largest_sign < 0) return {-rows_.slope(row.factor, e), -AffineRows::shift(e)};
    return {rows_.slope(row.factor, e), AffineRows::shift(e)};
  }

 private:
  Row read(std::int64_t r, mpfr_prec_t bits) const {
    Row row(rows_.read_factor(r, bits), bits);
    if (quant_.per_token)
      find_scale(r, bits, row);
    else
      row.scale = Interval(quant_.scale, bits);
    if (row.kind == ScaleKind::largest && bits < kMostRowBits && !is_tight(row.scale, row.scale))
      return read(r, 2 * bits);
    return row;
  }

  // Finds the column of the largest |n| and which of the three rules sets the scale; all exactly.
  void find_scale(std::int64_t r, mpfr_prec_t bits, Row& row) const {
    row.kind = ScaleKind::nan;
    bool infinite = false;
    std::int64_t largest = -1;
    Enclosure best;
    Dyadic a_best, b_best;  // of |n|
    for (std::int64_t j = 0; j < rows_.norm().cols; ++j) {
      const AffineElement e = rows_.element(row.factor, r, j);
      if (e.kind == AffineElement::Kind::nan) return;
      infinite = infinite || e.kind == AffineElement::Kind::infinite;
      if (infinite) continue;
      const Enclosure n = rows_.enclose(row.factor, e);
      if (largest >= 0 && is_smaller(n, best)) continue;
      const int sign = rows_.compare_value(row.factor, e, Dyadic()) < 0 ? -1 : 1;
      const Dyadic slope = rows_.slope(row.factor, e), shift = AffineRows::shift(e);
      const Dyadic a = sign < 0 ? -slope : slope, b = sign < 0 ? -shift : shift;
      const bool clear = largest < 0 || is_smaller(best, n);
      if (!clear && AffineRows::compare(row.factor, a - a_best, b_best - b) <= 0) continue;
      largest = j;
      row.largest_sign = sign;
      a_best = a;
      b_best = b;
      best = n;
    }
    const Interval q(quant_.max, bits);
    const Dyadic least = Dyadic(quant_.floor) * Dyadic(quant_.max);
    const bool capped = std::isfinite(quant_.cap);
    if (infinite && !capped)
      row.kind = ScaleKind::infinite;
    else if (infinite || (capped && AffineRows::compare(row.factor, a_best, Dyadic(quant_.cap) - b_best) > 0))
      row.kind = order(Dyadic(quant_.cap), least) >= 0 ? ScaleKind::cap : ScaleKind::floor;
    else
      row.kind = AffineRows::compare(row.factor, a_best, least - b_best) >= 0 ? ScaleKind::largest : ScaleKind::floor;
    row.largest = largest;
    switch (row.kind) {
      case ScaleKind::largest:
        row.scale = div(abs(rows_.value(row.factor, rows_.element(row.factor, r, largest)).y), q);
        break;
      case ScaleKind::cap: row.scale = div(Interval(quant_.cap, bits), q); break;
      case ScaleKind::floor: row.scale = Interval(quant_.floor, bits); break;
      case ScaleKind::infinite: row.scale = Interval(kInfinity, bits); break;
      case ScaleKind::fixed:
      case ScaleKind::nan: break;
    }
  }

  struct Slot {
    std::int64_t row = -1;
    std::shared_ptr<const Row> value;
  };
  AffineRows rows_;
  Quantization quant_;
  mutable std::mutex mutex_;
  mutable std::array<Slot, 16> slots_;
};

Comparison comparison(int sign) { return static_cast<Comparison>((sign > 0) - (sign < 0)); }

bool is_positive(const Interval& value) { return value.is_real() && mpfr_sgn(value.lo.get()) > 0; }

class QuantizedTruth final : public TruthSource {
 public:
  QuantizedTruth(const RowNorm& norm, const Quantization& quantization)
      : rows_(norm, quantization), quant_(quantization) {}

  std::int64_t rows() const override { return rows_.rows().norm().rows; }
  std::int64_t cols() const override { return rows_.rows().norm().cols; }

  void enclose_row(std::int64_t r, std::span<Enclosure> out) const override {
    const auto row = rows_.at(r);
    for (std::int64_t j = 0; j < cols(); ++j) out[static_cast<std::size_t>(j)] = enclose_one(*row, r, j);
  }

  Enclosure enclose(std::int64_t r, std::int64_t j) const override { return enclose_one(*rows_.at(r), r, j); }

  Comparison compare(std::int64_t r, std::int64_t j, double m_hi, double m_lo) const override {
    return compare_one(*rows_.at(r), r, j, Dyadic(m_hi) + Dyadic(m_lo));
  }

 private:
  Enclosure enclose_one(const Row& row, std::int64_t r, std::int64_t j) const {
    const AffineElement k = rows_.rows().element(row.factor, r, j);
    auto [n, terms] = rows_.rows().value(row.factor, k);
    if (k.kind != AffineElement::Kind::real) return enclosure_of(div(n, row.scale));
    const bool straddles = mpfr_sgn(n.lo.get()) <= 0 && mpfr_sgn(n.hi.get()) >= 0 && !n.is_point();
    if (straddles && rows_.rows().compare_value(row.factor, k, Dyadic()) == 0) n = Interval(0.0, n.bits());
    // The largest is n / (|n| / Q), exactly +-Q.
    const bool is_largest = row.kind == ScaleKind::largest && j == row.largest && is_positive(row.scale);
    n = is_largest ? Interval(row.largest_sign * quant_.max, n.bits()) : div(n, row.scale);
    Enclosure e = enclosure_of(n);
    if (k.bias) e.magnitude = magnitude_of(div(terms, row.scale));
    // |lo| <= radius: y may be the binary64 number hi; if it is, it is handed out exactly.
    if (e.radius > 0 && std::fabs(e.lo) <= e.radius && compare_one(row, r, j, Dyadic(e.hi)) == Comparison::equal)
      e.lo = e.radius = 0;
    return e;
  }

  Comparison compare_one(const Row& row, std::int64_t r, std::int64_t j, const Dyadic& m) const {
    const AffineElement k = rows_.rows().element(row.factor, r, j);
    if (k.kind != AffineElement::Kind::real) return Comparison::undecided;
    const Dyadic a = rows_.rows().slope(row.factor, k), b = AffineRows::shift(k);
    const auto compare = [&](const Dyadic& slope, const Dyadic& c) {
      return comparison(AffineRows::compare(row.factor, slope, c));
    };
    const Dyadic q(quant_.max);
    switch (row.kind) {
      case ScaleKind::fixed: return compare(a, m * Dyadic(quant_.scale) - b);
      case ScaleKind::floor:
        if (quant_.floor == 0) return Comparison::undecided;  // 0/0
        return compare(a, m * Dyadic(quant_.floor) - b);
      case ScaleKind::cap: return compare(a * q, m * Dyadic(quant_.cap) - b * q);
      case ScaleKind::largest: {
        const auto [a_top, b_top] = rows_.largest(row, r);
        if (compare(a_top, -b_top) == Comparison::equal) return Comparison::undecided;  // 0/0
        return compare(a * q - m * a_top, m * b_top - b * q);
      }
      case ScaleKind::infinite: return comparison(-m.sign());
      case ScaleKind::nan: return Comparison::undecided;
    }
    std::abort();
  }

  QuantizedRows rows_;
  Quantization quant_;
};

class ScaleTruth final : public TruthSource {
 public:
  ScaleTruth(const RowNorm& norm, const Quantization& quantization) : rows_(norm, quantization), quant_(quantization) {}

  std::int64_t rows() const override { return rows_.rows().norm().rows; }
  std::int64_t cols() const override { return 1; }

  void enclose_row(std::int64_t r, std::span<Enclosure> out) const override {
    out[0] = enclosure_of(rows_.at(r)->scale);
  }

  Comparison compare(std::int64_t r, std::int64_t, double m_hi, double m_lo) const override {
    const auto row = rows_.at(r);
    const Dyadic m = Dyadic(m_hi) + Dyadic(m_lo), q(quant_.max);
    switch (row->kind) {
      case ScaleKind::fixed: return comparison(order(Dyadic(quant_.scale), m));
      case ScaleKind::floor: return comparison(order(Dyadic(quant_.floor), m));
      case ScaleKind::cap: return comparison(order(Dyadic(quant_.cap), m * q));
      case ScaleKind::largest: {
        const auto [a_top, b_top] = rows_.largest(*row, r);
        return comparison(AffineRows::compare(row->factor, a_top, m * q - b_top));
      }
      case ScaleKind::infinite:
      case ScaleKind::nan: return Comparison::undecided;
    }
    std::abort();
  }

 private:
  QuantizedRows rows_;
  Quantization quant_;
};

}  // namespace

std::unique_ptr<TruthSource> quantized_truth(const RowNorm& norm, const Quantization& quantization) {
  return std::make_unique<QuantizedTruth>(norm, quantization);
}

std::unique_ptr<TruthSource> scale_truth(const RowNorm& norm, const Quantization& quantization) {
  return std::make_unique<ScaleTruth>(norm, quantization);
}

}  // namespace norma

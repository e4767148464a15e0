// Block scales. Everything comes down to "is A r greater than c?", for dyadic A and c, which always ends:
//
//   |n_j| > |n_k|            s_j A_j - s_k A_k     c = s_k b_k - s_j b_j        (s: the signs of n = A r + b)
//   amax global > m q        s A global            c = m q - s b global
//   n global / scale > m     A global              c = m scale - b global
#include "reference/norms/rmsnorm_blocks.hpp"

#include <array>
#include <cmath>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "reference/formats/format.hpp"
#include "reference/norms/affine.hpp"

namespace norma {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int kLeastExponent = -127, kMostExponent = 127;  // E8M0

/// The largest |n| of a block as A r + b, and about what it is.
struct Largest {
  Dyadic a, b;
  double about = -1;
};

class BlockRows {
 public:
  BlockRows(const RowNorm& norm, const BlockScales& scales) : rows_(norm), scales_(scales) {}

  const AffineRows& rows() const { return rows_; }
  std::int64_t blocks() const { return rows_.norm().cols / scales_.block; }

  struct Row {
    std::shared_ptr<const AffineFactor> factor;
    std::vector<double> scales;
  };

  // Rows come in runs of comparisons, from several threads at once.
  std::shared_ptr<const Row> at(std::int64_t r) const {
    Slot& slot = slots_[static_cast<std::size_t>(r) % slots_.size()];
    {
      const std::lock_guard lock(mutex_);
      if (slot.row == r) return slot.value;
    }
    auto row = std::make_shared<Row>();
    row->factor = rows_.factor(r);
    for (std::int64_t k = 0; k < blocks(); ++k) row->scales.push_back(scale_of(*row->factor, r, k));
    const std::lock_guard lock(mutex_);
    slot = {r, row};
    return row;
  }

 private:
  double scale_of(const AffineFactor& f, std::int64_t row, std::int64_t block) const {
    Largest top;
    bool infinite = false;
    for (std::int64_t j = block * scales_.block; j < (block + 1) * scales_.block; ++j) {
      const AffineElement e = rows_.element(f, row, j);
      if (e.kind == AffineElement::Kind::nan) return kNaN;
      infinite = infinite || e.kind == AffineElement::Kind::infinite;
      if (infinite) continue;
      const Dyadic slope = rows_.slope(f, e), shift = AffineRows::shift(e);
      const bool negative = AffineRows::compare(f, slope, -shift) < 0;
      const Dyadic a = negative ? -slope : slope, b = negative ? -shift : shift;
      if (top.about >= 0 && AffineRows::compare(f, a - top.a, top.b - b) <= 0) continue;
      top = {a, b, std::fabs(rows_.enclose(f, e).hi)};
    }
    if (scales_.rule == BlockScales::Rule::e4m3) return infinite ? max_finite(FormatId::e4m3fn) : to_e4m3(f, top);
    return std::ldexp(1, infinite ? kMostExponent : exponent_of(f, top));
  }

  // The sign of amax global - m.
  int compare_largest(const AffineFactor& f, const Largest& top, const Dyadic& m) const {
    const Dyadic global(scales_.global);
    return AffineRows::compare(f, top.a * global, m - top.b * global);
  }

  // `about` is off by less than a factor of 2, unless it is near binary64's limits: the loops end wherever they begin.
  int exponent_of(const AffineFactor& f, const Largest& top) const {
    const bool up = scales_.rule == BlockScales::Rule::ceil;
    const double unit = up ? scales_.code_max : std::ldexp(1, scales_.code_exponent);
    const auto exceeds = [&](int e) {  // ceil: 2^e is too small; floor: 2^(e+1) is not too large
      const int sign = compare_largest(f, top, Dyadic(unit) * Dyadic(std::ldexp(1, up ? e : e + 1)));
      return up ? sign > 0 : sign >= 0;
    };
    const double ratio = top.about / unit;
    int e = ratio > 0 && std::isfinite(ratio) ? std::ilogb(ratio) : kLeastExponent;
    e = std::min(std::max(e, kLeastExponent), kMostExponent);
    while (e < kMostExponent && exceeds(e)) ++e;
    while (e > kLeastExponent && !exceeds(e - 1)) --e;
    return e;
  }

  // The last k whose midpoint with k - 1 lies below amax global / code_max, or on it where k is even.
  double to_e4m3(const AffineFactor& f, const Largest& top) const {
    const auto value = [](std::uint64_t k) { return decode(FormatId::e4m3fn, k); };
    std::uint64_t low = 0, high = format_of(FormatId::e4m3fn).max_finite_code();
    while (low < high) {
      const std::uint64_t k = (low + high + 1) / 2;
      const double midpoint = (value(k - 1) + value(k)) / 2;
      const int sign = compare_largest(f, top, Dyadic(midpoint) * Dyadic(scales_.code_max));
      if (sign > 0 || (sign == 0 && k % 2 == 0))
        low = k;
      else
        high = k - 1;
    }
    return value(low);
  }

  struct Slot {
    std::int64_t row = -1;
    std::shared_ptr<const Row> value;
  };
  AffineRows rows_;
  BlockScales scales_;
  mutable std::mutex mutex_;
  mutable std::array<Slot, 16> slots_;
};

Comparison comparison(int sign) { return static_cast<Comparison>((sign > 0) - (sign < 0)); }

enum class What { codes, dequantized };

class BlockTruth final : public TruthSource {
 public:
  BlockTruth(const RowNorm& norm, const BlockScales& scales, What what)
      : rows_(norm, scales), scales_(scales), what_(what) {}

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
  double divisor(const BlockRows::Row& row, std::int64_t j) const {
    return what_ == What::codes ? row.scales[static_cast<std::size_t>(j / scales_.block)] : 1;
  }

  Enclosure enclose_one(const BlockRows::Row& row, std::int64_t r, std::int64_t j) const {
    const AffineElement k = rows_.rows().element(*row.factor, r, j);
    const double s = divisor(row, j);
    if (std::isnan(s)) return {.hi = kNaN};
    if (s == 0) return {.hi = 0.0};
    auto [n, terms] = rows_.rows().value(*row.factor, k);
    const Interval global(scales_.global, n.bits()), scale(s, n.bits());
    if (k.kind != AffineElement::Kind::real) return enclosure_of(div(n, scale));
    const bool straddles = mpfr_sgn(n.lo.get()) <= 0 && mpfr_sgn(n.hi.get()) >= 0 && !n.is_point();
    if (straddles && rows_.rows().compare_value(*row.factor, k, Dyadic()) == 0) n = Interval(0.0, n.bits());
    Enclosure e = enclosure_of(div(mul(n, global), scale));
    if (k.bias) e.magnitude = magnitude_of(div(mul(terms, global), scale));
    // |lo| <= radius: y may be the binary64 number hi; if it is, it is handed out exactly.
    if (e.radius > 0 && std::fabs(e.lo) <= e.radius && compare_one(row, r, j, Dyadic(e.hi)) == Comparison::equal)
      e.lo = e.radius = 0;
    return e;
  }

  Comparison compare_one(const BlockRows::Row& row, std::int64_t r, std::int64_t j, const Dyadic& m) const {
    const AffineElement k = rows_.rows().element(*row.factor, r, j);
    const double s = divisor(row, j);
    if (k.kind != AffineElement::Kind::real || std::isnan(s)) return Comparison::undecided;
    if (s == 0) return comparison(-m.sign());
    const Dyadic a = rows_.rows().slope(*row.factor, k), b = AffineRows::shift(k), global(scales_.global);
    return comparison(AffineRows::compare(*row.factor, a * global, m * Dyadic(s) - b * global));
  }

  BlockRows rows_;
  BlockScales scales_;
  What what_;
};

class BlockScaleTruth final : public TruthSource {
 public:
  BlockScaleTruth(const RowNorm& norm, const BlockScales& scales) : rows_(norm, scales) {}

  std::int64_t rows() const override { return rows_.rows().norm().rows; }
  std::int64_t cols() const override { return rows_.blocks(); }

  void enclose_row(std::int64_t r, std::span<Enclosure> out) const override {
    const auto row = rows_.at(r);
    for (std::size_t k = 0; k < row->scales.size(); ++k)
      out[k] = {.hi = row->scales[k], .lo = 0, .radius = 0, .magnitude = row->scales[k]};
  }

  Comparison compare(std::int64_t r, std::int64_t k, double m_hi, double m_lo) const override {
    const double s = rows_.at(r)->scales[static_cast<std::size_t>(k)];
    if (std::isnan(s)) return Comparison::undecided;
    return comparison(order(Dyadic(s), Dyadic(m_hi) + Dyadic(m_lo)));
  }

 private:
  BlockRows rows_;
};

}  // namespace

std::unique_ptr<TruthSource> block_codes_truth(const RowNorm& norm, const BlockScales& scales) {
  return std::make_unique<BlockTruth>(norm, scales, What::codes);
}

std::unique_ptr<TruthSource> block_dequantized_truth(const RowNorm& norm, const BlockScales& scales) {
  return std::make_unique<BlockTruth>(norm, scales, What::dequantized);
}

std::unique_ptr<TruthSource> block_scales_truth(const RowNorm& norm, const BlockScales& scales) {
  return std::make_unique<BlockScaleTruth>(norm, scales);
}

}  // namespace norma

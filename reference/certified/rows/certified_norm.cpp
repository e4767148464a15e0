// All tiers of a row norm as one truth.
#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "reference/certified/rows/close_norm.hpp"
#include "reference/certified/rows/quick_norm.hpp"
#include "reference/certified/rows/row_norm.hpp"

namespace norma {

namespace {

// What TruthSource::enclose_row promises, and where double-double stops.
bool is_tight(double radius, double magnitude) { return radius <= 0x1p-80 * magnitude + 0x1p-1074; }

class CertifiedNorm final : public TruthSource {
 public:
  CertifiedNorm(const RowNorm& norm, std::unique_ptr<TruthSource> exact)
      : norm_(norm), quick_(norm), close_(norm), exact_(std::move(exact)) {}

  std::int64_t rows() const override { return norm_.rows; }
  std::int64_t cols() const override { return norm_.cols; }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    std::vector<std::size_t> open;
    const std::shared_ptr<const CloseRow> close = close_.row_at(row);
    for (std::size_t first = 0; first < out.size(); first += kCloseBlock)
      enclose_block(*close, row, static_cast<std::int64_t>(first),
                    out.subspan(first, std::min(kCloseBlock, out.size() - first)), open);
    if (open.empty()) return;
    if (open.size() == 1) {
      out[open[0]] = exact_->enclose(row, static_cast<std::int64_t>(open[0]));
      return;
    }
    std::vector<Enclosure> slow(out.size());
    exact_->enclose_row(row, slow);
    for (std::size_t j : open) out[j] = slow[j];
  }

  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    Enclosure e;
    std::vector<std::size_t> open;
    enclose_block(*close_.row_at(row), row, col, {&e, 1}, open);
    return open.empty() ? e : exact_->enclose(row, col);
  }

  Tier enclose_quick(std::int64_t row, const QuickRow& out) const override {
    quick_.enclose(row, out);
    return Tier::binary64;
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    double value = 0, side = 0;
    if (m_lo == 0 && close_.bracket(*close_.row_at(row), row, {col, 1}, {&value, 1}, {&side, 1}) && !std::isnan(side))
      return value != m_hi ? (value < m_hi ? Comparison::less : Comparison::greater)
                           : static_cast<Comparison>(static_cast<int>(side));
    return exact_->compare(row, col, m_hi, m_lo);
  }

 private:
  // Columns first, first + 1, ...; those that double-double does not settle are appended to `open`.
  void enclose_block(const CloseRow& close_row, std::int64_t row, std::int64_t first, std::span<Enclosure> out,
                     std::vector<std::size_t>& open) const {
    const std::size_t count = out.size();
    thread_local std::vector<double> memory(6 * kCloseBlock);
    const auto array = [&](std::size_t k) { return std::span(memory).subspan(k * kCloseBlock, count); };
    const CloseArrays close{array(0), array(1), array(2), array(3)};
    close_.enclose(close_row, row, {first, count}, close);
    bool bracketed = false, looked = false;
    for (std::size_t i = 0; i < count; ++i) {
      Enclosure& e = out[i];
      e = {.hi = close.hi[i],
           .lo = close.lo[i],
           .radius = close.radius[i],
           .magnitude = close.magnitude[i],
           .tier = Tier::double_double};
      if (e.radius == 0 || std::fabs(e.lo) > e.radius) {
        if (!is_tight(e.radius, e.magnitude)) open.push_back(static_cast<std::size_t>(first) + i);
        continue;
      }
      // y may be a binary64 number: hi, or another one where its terms cancel. It is handed out exactly then.
      if (!looked) bracketed = close_.bracket(close_row, row, {first, count}, array(4), array(5));
      looked = true;
      const double value = array(4)[i], side = array(5)[i];
      if (bracketed && side == 0)
        e = {.hi = value, .lo = 0, .radius = 0, .magnitude = e.magnitude, .tier = Tier::exact};
      else if (!bracketed || std::isnan(side) || !is_tight(e.radius, e.magnitude))
        open.push_back(static_cast<std::size_t>(first) + i);
    }
  }

  RowNorm norm_;
  QuickNorm quick_;
  CloseNorm close_;
  std::unique_ptr<TruthSource> exact_;
};

}  // namespace

// Up to 24 bits: products of two such numbers are exact in binary64. eps and the offsets keep all products of
// double-double arithmetic within its range; a bias of two terms would be three with q; the number of elements is
// exact, and so is its square to a pair.
bool has_fast_tiers(const RowNorm& norm) {
  const auto fits = [](const Tensor* t) { return t == nullptr || contains(FormatId::fp32, t->format); };
  const auto offset_fits = [](double v) { return v == 0 || (std::fabs(v) >= 0x1p-150 && std::fabs(v) <= 0x1p130); };
  if (norm.x == nullptr || norm.rows <= 0 || norm.cols <= 0 || norm.groups <= 0) return false;
  if (!fits(norm.x) || !fits(norm.residual) || !fits(norm.mean) || !fits(norm.variance) || !fits(norm.weight.tensor) ||
      !fits(norm.scale.tensor) || !fits(norm.bias.tensor))
    return false;
  if (norm.statistics == Statistics::given && (norm.variance == nullptr || norm.count != 1)) return false;
  if (norm.statistics == Statistics::moments && norm.eps_place == EpsPlace::l2max) return false;
  if (!(norm.eps == 0 || (norm.eps >= 0x1p-300 && norm.eps <= 0x1p300))) return false;
  if (!(norm.count >= 1 && norm.count <= 0x1p40)) return false;
  const double elements = static_cast<double>((norm.rows + norm.groups - 1) / norm.groups * norm.cols);
  if (!(elements <= 0x1p40)) return false;
  return offset_fits(norm.weight.offset) && offset_fits(norm.scale.offset) && norm.bias.offset == 0;
}

std::unique_ptr<TruthSource> certified_truth(const RowNorm& norm, std::unique_ptr<TruthSource> exact) {
  if (!has_fast_tiers(norm)) return exact;
  return std::make_unique<CertifiedNorm>(norm, std::move(exact));
}

}  // namespace norma

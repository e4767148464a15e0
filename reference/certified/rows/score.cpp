// A whole output scored in one pass: binary64 first, what it leaves by closer enclosures.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include "reference/certified/double_double.hpp"
#include "reference/certified/element.hpp"
#include "reference/certified/rows/close_norm.hpp"
#include "reference/certified/rows/quick_norm.hpp"
#include "reference/certified/rows/row_norm.hpp"
#include "reference/certified/share_out.hpp"
#include "reference/exact/decide.hpp"

namespace norma {

namespace {

/// Rows of about this many elements are summed up together, whatever the threads.
constexpr std::int64_t kPart = 65536;

struct Part {
  RowScoreSums sums;
  TierCounts tiers;
  double open_max = 0;  ///< of those that binary64 left
  std::int64_t open_max_at = -1;
};

class Scorer {
 public:
  Scorer(const RowNorm& norm, const TruthSource& exact, const Tensor& got)
      : norm_(norm), exact_(exact), got_(got), threshold_(overflow_threshold(got.format)), rule_(ulp_rule(got.format)) {
    if (!has_fast_tiers(norm)) return;
    quick_ = std::make_unique<const QuickNorm>(norm);
    close_ = std::make_unique<const CloseNorm>(norm);
  }

  void score(std::int64_t row, Part& part) const {
    thread_local std::vector<std::uint32_t> open;
    open.clear();
    if (quick_ != nullptr) {
      const auto bytes = static_cast<std::int64_t>(format_of(got_.format).storage_bytes());
      quick_->score_row(row, got_.format, got_.bytes.data() + row * norm_.cols * bytes, part.sums, open);
    } else {
      for (std::int64_t j = 0; j < norm_.cols; ++j) open.push_back(static_cast<std::uint32_t>(j));
    }
    part.tiers.binary64 += norm_.cols - static_cast<std::int64_t>(open.size());
    if (open.empty()) return;
    if (close_ != nullptr) score_closely(row, open, part);
    if (open.size() == 1) {
      add(exact_.enclose(row, open[0]), row, open[0], part, true);
    } else if (!open.empty()) {
      std::vector<Enclosure> whole(static_cast<std::size_t>(norm_.cols));
      exact_.enclose_row(row, whole);
      for (const std::uint32_t col : open) add(whole[col], row, col, part, true);
    }
  }

  /// The place of the first error of that size that binary64 scored in the row.
  std::int64_t find(std::int64_t row, double size) const {
    const auto bytes = static_cast<std::int64_t>(format_of(got_.format).storage_bytes());
    const std::byte* got = got_.bytes.data() + row * norm_.cols * bytes;
    return row * norm_.cols + quick_->find_error(row, got_.format, got, size);
  }

 private:
  struct Memory {
    std::array<double, kCloseBlock> hi, lo, radius, magnitude;
  };

  /// Scores what double-double settles; what it does not stays in `open`.
  void score_closely(std::int64_t row, std::vector<std::uint32_t>& open, Part& part) const {
    thread_local const std::unique_ptr<Memory> memory = std::make_unique<Memory>();
    Memory& m = *memory;
    const std::shared_ptr<const CloseRow> close = close_->row_at(row);
    const ColumnList all{.count = open.size(), .list = open.data()};
    std::size_t left = 0;
    for (std::size_t done = 0; done < open.size(); done += kCloseBlock) {
      const ColumnList columns = all.part(done, kCloseBlock);
      close_->enclose(*close, row, columns, {m.hi, m.lo, m.radius, m.magnitude});
      for (std::size_t i = 0; i < columns.count; ++i) {
        const Enclosure e{.hi = m.hi[i],
                          .lo = m.lo[i],
                          .radius = m.radius[i],
                          .magnitude = m.magnitude[i],
                          .tier = Tier::double_double};
        const std::uint32_t col = columns.list[i];
        if (!add(e, row, col, part, false)) open[left++] = col;  // before the columns still to be read
      }
    }
    open.resize(left);
  }

  /// 1 / ulp of a y that is clear of powers of two and of the overflow threshold; 0 if it is not.
  double plain_inverse(const Enclosure& e) const {
    const double size = std::fabs(e.hi), around = 2 * (e.radius + std::fabs(e.lo));
    const auto binade = [&](double v) {
      return std::bit_cast<std::uint64_t>(std::max(v, rule_.least)) & kExponentBits;
    };
    const std::uint64_t low = binade(size - around);
    if (!(size + around < rule_.limit) || low != binade(size + around)) return 0;
    return std::bit_cast<double>(rule_.to_inverse - low);
  }

  /// Scores one element by its enclosure. False, and nothing is added, if that is too wide and `last` is not set.
  bool add(const Enclosure& e, std::int64_t row, std::int64_t col, Part& part, bool last) const {
    if (!last && !std::isfinite(e.radius)) return false;
    const std::int64_t at = row * norm_.cols + col;
    const double got = got_.value(at);
    if (!std::isfinite(got) || !std::isfinite(e.hi)) return skip(part, e.tier);
    double scale = plain_inverse(e);
    if (scale == 0) {
      const Element y{exact_, row, col, e};
      const Comparison above = compare(y, threshold_), below = compare(y, -threshold_);
      const std::optional<int> exponent = binade(y, got_.format);
      if (above == Comparison::undecided || below == Comparison::undecided || !exponent) {
        if (last) {
          ++part.sums.not_scored;
          ++part.tiers.undecided;
        }
        return last;
      }
      if (above != Comparison::less || below != Comparison::greater) return skip(part, e.tier);
      scale = 1 / ulp_of(got_.format, *exponent);
    }
    // got - hi = d.h + d.l exactly; d.l - lo rounds by 2^-105 |y|, below 2^-80 ulp, the sum by 2^-53 |error|.
    const DoubleDouble d = two_sum(got, -e.hi);
    const double error = std::clamp((d.h + (d.l - e.lo)) * scale, -kScoreLimit, kScoreLimit);
    const double size = std::fabs(error), bar = e.radius * scale * (1 + 0x1p-50) + size * 0x1p-52 + 0x1p-70;
    if (!(bar <= kScoreBar)) {
      if (last) {
        ++part.sums.not_scored;
        ++part.tiers.undecided;
      }
      return last;
    }
    RowScoreSums& s = part.sums;
    ++s.scored;
    s.sum += error;
    s.sum_abs += size;
    s.sum_squares += error * error;
    s.bar = std::max(s.bar, bar);
    s.incorrect += size - 0.5 > bar ? 1 : 0;
    s.near_half += std::fabs(size - 0.5) <= bar ? 1 : 0;
    if (part.open_max_at < 0 || size > part.open_max) {
      part.open_max = size;
      part.open_max_at = at;
    }
    part.tiers.settle(e.tier);
    return true;
  }

  static bool skip(Part& part, Tier tier) {
    ++part.sums.not_scored;
    part.tiers.settle(tier);
    return true;
  }

  const RowNorm& norm_;
  const TruthSource& exact_;
  const Tensor& got_;
  double threshold_;
  UlpRule rule_;
  std::unique_ptr<const QuickNorm> quick_;
  std::unique_ptr<const CloseNorm> close_;
};

/// Sums of many parts without further loss (TwoSum).
class Total {
 public:
  void add(double v) {
    const DoubleDouble s = two_sum(high_, v);
    high_ = s.h;
    low_ += s.l;
  }
  double value() const { return high_ + low_; }

 private:
  double high_ = 0, low_ = 0;
};

}  // namespace

RowScore score_rows(const RowNorm& norm, const TruthSource& exact, const Tensor& got, int threads) {
  const Scorer scorer(norm, exact, got);
  const std::int64_t rows_each = std::max<std::int64_t>(1, kPart / norm.cols);
  const std::int64_t count = (norm.rows + rows_each - 1) / rows_each;
  std::vector<Part> parts(static_cast<std::size_t>(count));
  share_out(count, 1, threads, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t k = first; k < last; ++k)
      for (std::int64_t row = k * rows_each; row < std::min(norm.rows, (k + 1) * rows_each); ++row)
        scorer.score(row, parts[static_cast<std::size_t>(k)]);
  });
  RowScore result;  // max and max_at: at first of what binary64 left
  double max = 0;
  std::int64_t max_row = -1;
  Total sum, sum_abs, sum_squares;
  for (const Part& part : parts) {
    const RowScoreSums& s = part.sums;
    result.scored += s.scored;
    result.not_scored += s.not_scored;
    result.incorrect += s.incorrect;
    result.near_half += s.near_half;
    result.bar = std::max(result.bar, s.bar);
    if (s.max_row >= 0 && (max_row < 0 || s.max > max)) {
      max = s.max;
      max_row = s.max_row;
    }
    if (part.open_max_at >= 0 && (result.max_at < 0 || part.open_max > result.max)) {
      result.max = part.open_max;
      result.max_at = part.open_max_at;
    }
    sum.add(s.sum);
    sum_abs.add(s.sum_abs);
    sum_squares.add(s.sum_squares);
    result.tiers += part.tiers;
  }
  if (max_row >= 0 && (result.max_at < 0 || max >= result.max)) {
    const std::int64_t at = scorer.find(max_row, max);
    if (result.max_at < 0 || max > result.max || at < result.max_at) result.max_at = at;
    result.max = max;
  }
  if (result.scored > 0) {
    const auto n = static_cast<double>(result.scored);
    result.mean_abs = sum_abs.value() / n;
    result.bias = sum.value() / n;
    result.rms = std::sqrt(sum_squares.value() / n);
  }
  return result;
}

}  // namespace norma

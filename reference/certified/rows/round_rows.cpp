// Whole tensors correctly rounded: each element by the first tier that settles it.
#include <oneapi/tbb/combinable.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "reference/certified/rows/close_norm.hpp"
#include "reference/certified/rows/quick_norm.hpp"
#include "reference/certified/rows/row_norm.hpp"
#include "reference/certified/share_out.hpp"
#include "reference/exact/decide.hpp"

namespace norma {

namespace {

// Elements that a thread takes at a time: some 5 us.
constexpr std::int64_t kGrain = 16384;

class Rounder {
 public:
  Rounder(const RowNorm& norm, const TruthSource& exact, FormatId format, Overflow overflow)
      : norm_(norm),
        exact_(exact),
        format_(format),
        overflow_(overflow),
        quick_(norm),
        close_(norm),
        bytes_(static_cast<std::size_t>(format_of(format).storage_bytes())) {}

  /// Rows [first, last), `stored` being the first one's.
  void round(std::int64_t first, std::int64_t last, std::byte* stored, TierCounts& tiers) const {
    const std::size_t row_bytes = static_cast<std::size_t>(norm_.cols) * bytes_;
    for (std::int64_t row = first; row < last; row += QuickNorm::kAhead) {
      const std::int64_t count = std::min(QuickNorm::kAhead, last - row);
      std::byte* const out = stored + static_cast<std::size_t>(row - first) * row_bytes;
      const std::uint32_t done = quick_.round_ahead(row, count, format_, overflow_, out);
      tiers.binary64 += std::popcount(done) * norm_.cols;
      for (std::int64_t k = 0; k < count; ++k)
        if ((done >> k & 1) == 0) round_row(row + k, out + static_cast<std::size_t>(k) * row_bytes, tiers);
    }
  }

 private:
  void round_row(std::int64_t row, std::byte* stored, TierCounts& tiers) const {
    thread_local std::vector<std::uint32_t> open;
    open.clear();
    quick_.round_row(row, format_, overflow_, stored, open);
    tiers.binary64 += norm_.cols - static_cast<std::int64_t>(open.size());
    if (open.empty()) return;
    const std::shared_ptr<const CloseRow> close = close_.row_at(row);
    const bool run = open.back() - open.front() + 1 == open.size();
    const ColumnList all = run ? ColumnList{open.front(), open.size()} : ColumnList{0, open.size(), open.data()};
    for (std::size_t i = 0; i < open.size(); i += kCloseBlock)
      settle(*close, row, all.part(i, kCloseBlock), stored, tiers);
  }

  struct Memory {
    std::array<double, kCloseBlock> odd, side;
    std::array<std::byte, kCloseBlock * 4> codes;
  };

  void settle(const CloseRow& close, std::int64_t row, const ColumnList& columns, std::byte* stored,
              TierCounts& tiers) const {
    thread_local const std::unique_ptr<Memory> memory = std::make_unique<Memory>();
    Memory& m = *memory;
    const std::size_t count = columns.count;
    const Tier tier = close_.odd(close, row, columns, m.odd, m.side);
    // Side by side where they lie so, else to their places one by one; what is not known is decided after that.
    const bool run = columns.list == nullptr;
    std::byte* const codes = run ? stored + static_cast<std::size_t>(columns.first) * bytes_ : m.codes.data();
    store_odd(format_, overflow_, m.odd.data(), codes, count);
    if (run && all_known(m.side.data(), count)) {
      tiers.settle(tier, static_cast<std::int64_t>(count));
      return;
    }
    for (std::size_t i = 0; i < count; ++i) {
      const std::int64_t col = columns.at(i);
      std::byte* const out = stored + static_cast<std::size_t>(col) * bytes_;
      if (std::isnan(m.side[i])) {
        decide(row, col, out, tiers);
      } else {
        if (!run) std::memcpy(out, codes + i * bytes_, bytes_);
        tiers.settle(tier);
      }
    }
  }

  // By the element's own enclosure, then exact comparisons.
  void decide(std::int64_t row, std::int64_t col, std::byte* out, TierCounts& tiers) const {
    Enclosure e = close_.enclose(row, col);
    if (e.radius == 0 || std::fabs(e.lo) > e.radius) {
      double odd = 0;
      round_to_odd(&e.hi, &e.lo, &odd, 1);
      ++tiers.double_double;
      store_odd(format_, overflow_, &odd, out, 1);
      return;
    }
    if (!std::isfinite(e.radius)) e = exact_.enclose(row, col);
    const Element y{.truth = exact_, .row = row, .col = col, .enclosure = e};
    if (const std::optional<std::uint64_t> code = round_to(y, format_, overflow_)) {
      ++tiers.exact;
      store(out, *code);
    } else {
      ++tiers.undecided;
      store_odd(format_, overflow_, &e.hi, out, 1);
    }
  }

  void store(std::byte* out, std::uint64_t code) const {
    const std::uint64_t stored = code << format_of(format_).storage_shift();
    std::memcpy(out, &stored, bytes_);
  }

  const RowNorm& norm_;
  const TruthSource& exact_;
  FormatId format_;
  Overflow overflow_;
  QuickNorm quick_;
  CloseNorm close_;
  std::size_t bytes_;
};

// Without fast tiers: every element from the slow truth.
void round_slowly(const RowNorm& norm, const TruthSource& exact, FormatId format, Overflow overflow, std::int64_t row,
                  std::byte* stored, TierCounts& tiers) {
  const Format& f = format_of(format);
  const auto bytes = static_cast<std::size_t>(f.storage_bytes());
  std::vector<Enclosure> all(static_cast<std::size_t>(norm.cols));
  exact.enclose_row(row, all);
  for (std::int64_t j = 0; j < norm.cols; ++j) {
    const Enclosure& e = all[static_cast<std::size_t>(j)];
    const std::optional<std::uint64_t> code =
        round_to({.truth = exact, .row = row, .col = j, .enclosure = e}, format, overflow);
    ++(code ? tiers.exact : tiers.undecided);
    const std::uint64_t out = (code ? *code : encode(format, e.hi, overflow)) << f.storage_shift();
    std::memcpy(stored + static_cast<std::size_t>(j) * bytes, &out, bytes);
  }
}

}  // namespace

TierCounts round_rows(const RowNorm& norm, const TruthSource& exact, FormatId format, Overflow overflow,
                      std::byte* stored, int threads) {
  // Rounding to odd leaves 51 bits for the format.
  const bool fast = has_fast_tiers(norm) && format != FormatId::fp64;
  std::optional<Rounder> rounder;
  if (fast) rounder.emplace(norm, exact, format, overflow);
  tbb::combinable<TierCounts> counts;
  const std::int64_t row_bytes = norm.cols * format_of(format).storage_bytes();
  const std::int64_t grain = fast ? std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, norm.cols)) : 1;
  share_out(norm.rows, grain, threads, [&](std::int64_t first, std::int64_t last) {
    TierCounts& tiers = counts.local();
    if (fast) return rounder->round(first, last, stored + first * row_bytes, tiers);
    for (std::int64_t row = first; row < last; ++row)
      round_slowly(norm, exact, format, overflow, row, stored + row * row_bytes, tiers);
  });
  TierCounts tiers;
  counts.combine_each([&](const TierCounts& part) { tiers += part; });
  return tiers;
}

RoundedRows round_rows(const RowNorm& norm, const TruthSource& exact, FormatId format, Overflow overflow, int threads) {
  RoundedRows result{.y = Tensor::zeros(format, {norm.rows, norm.cols}), .tiers = {}};
  result.tiers = round_rows(norm, exact, format, overflow, result.y.bytes.data(), threads);
  return result;
}

}  // namespace norma

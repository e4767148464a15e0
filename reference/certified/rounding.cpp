// Rounding tests over arrays: the vector loops first, then each element of a block they left.
#include "reference/certified/rounding.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "reference/certified/rows/kernels.hpp"
#include "reference/certified/settle.hpp"

namespace norma {

namespace {

void store_code(const Format& f, std::byte* stored, std::size_t i, std::uint64_t code) {
  const std::uint64_t word = code << f.storage_shift();
  const auto bytes = static_cast<std::size_t>(f.storage_bytes());
  for (std::size_t b = 0; b < bytes; ++b) stored[i * bytes + b] = static_cast<std::byte>(word >> (8 * b));
}

void round_run(FormatId format, Overflow overflow, const EnclosedRun& run, std::size_t first, std::byte* stored,
               std::vector<std::uint32_t>& open) {
  const std::uint64_t blocks = kernels().round[static_cast<std::size_t>(format)](run, stored);
  settle_blocks(format, overflow, run, blocks, first, stored, open);
}

/// A truth that remembers whether the enclosure did not suffice.
class Asked final : public TruthSource {
 public:
  explicit Asked(const TruthSource& truth) : truth_(truth) {}
  bool was() const { return was_; }
  std::int64_t rows() const override { return truth_.rows(); }
  std::int64_t cols() const override { return truth_.cols(); }
  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override { truth_.enclose_row(row, out); }
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    was_ = true;
    return truth_.compare(row, col, m_hi, m_lo);
  }

 private:
  const TruthSource& truth_;
  mutable bool was_ = false;
};

}  // namespace

SettledCode settle(FormatId format, Overflow overflow, double mid, double bound) {
  const Format& f = format_of(format);
  if (std::isnan(mid)) return {f.nan_code(), true};
  const std::uint64_t sign = std::signbit(mid) ? f.sign_code() : 0;
  if (std::isinf(mid)) return {beyond_code(f, overflow, sign, true), true};
  if (std::fabs(mid) - bound > overflow_threshold(format)) return {beyond_code(f, overflow, sign, false), true};
  const auto r = scalar::grid_code(grid_of<double>(format), mid, bound);
  if (r.code > f.max_finite_code()) return {beyond_code(f, overflow, sign, false), r.settled != 0};
  if (r.code == 0 && !f.has_negative_zero()) return {0, r.settled != 0};
  return {sign | r.code, r.settled != 0};
}

void settle_blocks(FormatId format, Overflow overflow, const EnclosedRun& run, std::uint64_t blocks, std::size_t first,
                   std::byte* stored, std::vector<std::uint32_t>& open) {
  const scalar::Linear pads = scalar::pad(run.relative, run.absolute);
  for (std::size_t b = 0; b < kRun / kBlock; ++b) {
    if ((blocks >> b & 1) == 0) continue;
    const std::size_t end = std::min(run.count, (b + 1) * kBlock);
    for (std::size_t i = b * kBlock; i < end; ++i) {
      const double size = std::fabs(run.value[i]);
      const double bound =
          run.radius == nullptr ? size * pads.relative + pads.absolute : scalar::padded(run.radius[i], size);
      const SettledCode s = settle(format, overflow, run.value[i], bound);
      store_code(format_of(format), stored, i, s.code);
      if (!s.settled) open.push_back(static_cast<std::uint32_t>(first + i));
    }
  }
}

void round_enclosed(FormatId format, Overflow overflow, std::span<const double> mid, std::span<const double> radius,
                    std::byte* stored, std::vector<std::uint32_t>& open) {
  const auto bytes = static_cast<std::size_t>(format_of(format).storage_bytes());
  for (std::size_t i = 0; i < mid.size(); i += kRun) {
    const std::size_t count = std::min(kRun, mid.size() - i);
    round_run(format, overflow, {mid.data() + i, radius.data() + i, 0, 0, count}, i, stored + i * bytes, open);
  }
}

void round_enclosed(FormatId format, Overflow overflow, std::span<const double> mid, double relative, std::byte* stored,
                    std::vector<std::uint32_t>& open) {
  const auto bytes = static_cast<std::size_t>(format_of(format).storage_bytes());
  for (std::size_t i = 0; i < mid.size(); i += kRun) {
    const std::size_t count = std::min(kRun, mid.size() - i);
    round_run(format, overflow, {mid.data() + i, nullptr, relative, 0, count}, i, stored + i * bytes, open);
  }
}

std::uint64_t round_open(const TruthSource& truth, std::int64_t row, std::int64_t col, FormatId format,
                         Overflow overflow, TierCounts& tiers) {
  const Enclosure enclosure = truth.enclose(row, col);
  const Asked asked(truth);
  const std::optional<std::uint64_t> code = round_to({asked, row, col, enclosure}, format, overflow);
  if (!code) {
    ++tiers.undecided;
    return settle(format, overflow, enclosure.hi, 0).code;
  }
  tiers.settle(asked.was() ? Tier::exact : enclosure.tier);
  return *code;
}

}  // namespace norma

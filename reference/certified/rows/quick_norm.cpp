// Rows enclosed and rounded in binary64 (bounds: quick_state.cpp).
#include <bit>
#include <cmath>
#include <numeric>

#include "reference/certified/rounding.hpp"
#include "reference/certified/rows/quick_state.hpp"
#include "reference/certified/settle.hpp"

namespace norma {

namespace {

/// A run with this many blocks that need a second look is left to the next tier, whose loops take whole rows: looking
/// at one element costs three times as much as that (measured).
constexpr int kManyBlocks = 4;

/// So is a run that begins with as many: rows of ties.
constexpr std::size_t kTrial = kManyBlocks * kBlock;

void open_all(std::size_t first, std::size_t count, std::vector<std::uint32_t>& open) {
  const std::size_t held = open.size();
  open.resize(held + count);
  std::iota(open.begin() + static_cast<std::ptrdiff_t>(held), open.end(), static_cast<std::uint32_t>(first));
}

}  // namespace

QuickNorm::QuickNorm(const RowNorm& norm) : state_(std::make_unique<const State>(norm)) {}
QuickNorm::QuickNorm(QuickNorm&&) noexcept = default;
QuickNorm& QuickNorm::operator=(QuickNorm&&) noexcept = default;
QuickNorm::~QuickNorm() = default;

void QuickNorm::enclose(std::int64_t row, const QuickRow& out) const {
  const State& state = *state_;
  State::Scratch& s = state.scratch();
  const State::Row r = state.prepare(row, s);
  const auto cols = static_cast<std::size_t>(state.norm.cols);
  if (r.factor.kind == RowFactor::Kind::unknown || r.factor.kind == RowFactor::Kind::nan) {
    const bool nan = r.factor.kind == RowFactor::Kind::nan;
    for (std::size_t j = 0; j < cols; ++j) {
      out.mid[j] = nan ? kNaN : 0;
      out.radius[j] = nan ? 0 : kInfinity;
      out.magnitude[j] = nan ? kNaN : 0;
    }
    return;
  }
  state.each_run(r, s, [&](std::size_t first, const ElementRun& run) {
    double* magnitude = out.magnitude.data() + first;
    static_cast<void>(state.enclosed(run, s, magnitude));
    for (std::size_t i = 0; i < run.count; ++i) {
      const double y = s.value[i];
      const double e = state.biased() ? s.radius[i] : std::fabs(y) * run.of_product + run.absolute;
      out.mid[first + i] = y;
      out.radius[first + i] = std::isfinite(y) ? e : 0;
      if (!state.biased()) magnitude[i] = std::fabs(y);
    }
  });
  for (const std::uint32_t j : r.columns->strange) {
    out.mid[j] = 0;
    out.radius[j] = kInfinity;
    out.magnitude[j] = 0;
  }
}

void QuickNorm::round_row(std::int64_t row, FormatId format, Overflow overflow, std::byte* stored,
                          std::vector<std::uint32_t>& open) const {
  const State& state = *state_;
  State::Scratch& s = state.scratch();
  const State::Row r = state.prepare(row, s);
  const auto cols = static_cast<std::size_t>(state.norm.cols);
  const auto bytes = static_cast<std::size_t>(format_of(format).storage_bytes());
  if (r.factor.kind == RowFactor::Kind::unknown) {
    for (std::size_t j = 0; j < cols; ++j) open.push_back(static_cast<std::uint32_t>(j));
    return;
  }
  if (r.factor.kind == RowFactor::Kind::nan) {
    std::fill(s.value.begin(), s.value.end(), kNaN);
    for (std::size_t i = 0; i < cols; i += kRun)
      round_enclosed(format, overflow, std::span(s.value).first(std::min(kRun, cols - i)), 0, stored + i * bytes, open);
    return;
  }
  const std::size_t before = open.size();
  const bool finite =
      r.factor.kind == RowFactor::Kind::bounded || (r.factor.kind == RowFactor::Kind::exact && r.factor.factor != 0);
  // Loops for fp32 and bf16 let overflow become Inf.
  const bool plain = overflow == Overflow::ieee || (format != FormatId::fp32 && format != FormatId::bf16);
  const auto fused = kernels().round_elements[static_cast<std::size_t>(state.reader.layout())][state.centred() ? 1 : 0]
                                             [state.biased() ? 1 : 0][static_cast<std::size_t>(format)];
  state.each_run(r, s, [&](std::size_t first, const ElementRun& run) {
    std::byte* to = stored + first * bytes;
    std::uint64_t blocks = 0;
    if (finite && plain && fused != nullptr) {
      const std::size_t trial = run.count >= 2 * kTrial ? kTrial : 0;
      if (trial != 0) blocks = fused(part_of(run, state.reader.layout(), 0, trial), to);
      if (std::popcount(blocks) == kManyBlocks) return open_all(first, run.count, open);
      blocks |= fused(part_of(run, state.reader.layout(), trial, run.count - trial), to + trial * bytes)
                << (trial / kBlock);
      if (blocks == 0) return;
    }
    const bool has_codes = finite && plain && fused != nullptr;
    if (!has_codes) {
      const EnclosedRun values = state.enclosed(run, s);
      blocks = finite ? kernels().round[static_cast<std::size_t>(format)](values, to) : ~std::uint64_t{0};
      if (!finite || std::popcount(blocks) < kManyBlocks)
        return settle_blocks(format, overflow, values, blocks, first, to, open);
    }
    const bool many = std::popcount(blocks) >= kManyBlocks;
    for (std::size_t begin = 0; begin < run.count; begin += kBlock) {
      if ((blocks >> (begin / kBlock) & 1) == 0) continue;
      const std::size_t width = std::min(kBlock, run.count - begin);
      if (many) {
        open_all(first + begin, width, open);
        continue;
      }
      const EnclosedRun values = state.enclosed(part_of(run, state.reader.layout(), begin, width), s);
      settle_blocks(format, overflow, values, 1, first + begin, to + begin * bytes, open);
    }
  });
  if (!r.columns->strange.empty()) {
    open.insert(open.end(), r.columns->strange.begin(), r.columns->strange.end());
    const auto begin = open.begin() + static_cast<std::ptrdiff_t>(before);
    std::sort(begin, open.end());
    open.erase(std::unique(begin, open.end()), open.end());
  }
}

}  // namespace norma

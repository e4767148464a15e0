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
constexpr std::size_t kManyBlocks = 4;

/// So is a run that begins with as many: rows of ties.
constexpr std::size_t kTrial = kManyBlocks * kBlock;

/// Rows of at most this many values are rounded ahead: kAhead of them stay in the first cache.
constexpr std::size_t kShort = 1024;
static_assert(kShort <= kRun);  // one run

/// Centres beyond this many deviations stay: products with h would be too large for the difference.
constexpr double kMostFolded = 16;

/// With factor and bias constant: y = RN(q1 + b1), q1 = RN(h factor), b1 = RN(b - RN(hi factor)). Beside the errors of
/// factor and hi, of_product |q| + absolute, and of y, what rounds is u |q1| + u |b1| + u |hi factor|; |q1| <= |y| (1 +
/// u) + |b1|, and |b| of the loop's bound on |q| is at most |b1| + |hi factor|.
bool fold_centre(ElementRun& run, double r) {
  constexpr double kInflate = 1 + 0x1p-20, kU = 0x1p-53;
  if (!(std::fabs(run.centre_hi) * r <= kMostFolded) || run.factor == 0 || run.of_product == 0) return false;
  const double shift = run.centre_hi * run.factor, b = run.constant_bias - shift;
  run.constant_bias = b;
  run.of_value += kU * kInflate;
  run.absolute += (2 * kU * std::fabs(b) + (kU + run.of_product) * std::fabs(shift)) * kInflate;
  return true;
}

void open_blocks(const ElementRun& run, std::uint64_t blocks, std::size_t first, std::vector<std::uint32_t>& open) {
  for (std::size_t begin = 0; begin < run.count; begin += kBlock) {
    if ((blocks >> (begin / kBlock) & 1) == 0) continue;
    const std::size_t end = std::min(run.count, begin + kBlock), held = open.size();
    open.resize(held + (end - begin));
    std::iota(open.begin() + static_cast<std::ptrdiff_t>(held), open.end(), static_cast<std::uint32_t>(first + begin));
  }
}

}  // namespace

QuickNorm::QuickNorm(const RowNorm& norm) : state_(std::make_unique<const State>(norm)) {}
QuickNorm::QuickNorm(QuickNorm&&) noexcept = default;
QuickNorm& QuickNorm::operator=(QuickNorm&&) noexcept = default;
QuickNorm::~QuickNorm() = default;

void QuickNorm::enclose(std::int64_t row, const QuickRow& out) const {
  const State& state = *state_;
  State::Scratch& s = state.scratch();
  const State::Row r = state.prepare(row, s, true);
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

/// False if stop_at_many and a run has many open blocks, or has no others.
bool QuickNorm::State::round_runs(const Row& r, Scratch& s, FormatId format, Overflow overflow, bool stop_at_many,
                                  std::byte* stored, std::vector<std::uint32_t>& open) const {
  const auto f = static_cast<std::size_t>(format);
  const auto bytes = static_cast<std::size_t>(format_of(format).storage_bytes());
  const bool finite = r.factor.kind != RowFactor::Kind::exact || r.factor.factor != 0;
  // Loops for fp32 and bf16 let overflow become Inf.
  const bool plain = overflow == Overflow::ieee || (format != FormatId::fp32 && format != FormatId::bf16);
  const auto& loops = kernels().round_elements[static_cast<std::size_t>(reader.layout())];
  const bool fused = finite && plain && r.factor.lo == 0 && loops[0][static_cast<std::size_t>(affine())][f] != nullptr;
  bool few = true;
  each_rounded_run(r, [&](std::size_t first, const ElementRun& run) {
    if (!few) return;
    std::byte* to = stored + first * bytes;
    std::uint64_t blocks = ~std::uint64_t{0};
    if (fused) {
      ElementRun folded = run;
      const bool shifts = centred() && !(affine() == Affine::constant_biased && fold_centre(folded, r.factor.factor));
      const auto round = loops[shifts ? 1 : 0][static_cast<std::size_t>(affine())][f];
      const std::size_t trial = r.factor.kind == RowFactor::Kind::bounded && run.count >= 2 * kTrial ? kTrial : 0;
      blocks = trial == 0 ? 0 : round(part_of(folded, reader.layout(), 0, trial), to);
      if (static_cast<std::size_t>(std::popcount(blocks)) == kManyBlocks) {
        few = !stop_at_many;
        if (few) open_blocks(run, ~std::uint64_t{0}, first, open);
        return;
      }
      blocks |= round(part_of(folded, reader.layout(), trial, run.count - trial), to + trial * bytes)
                << (trial / kBlock);
      if (blocks == 0) return;
    }
    ElementRun whole = run;
    if (by_segments) {  // the weight is in the factor
      std::fill_n(s.weight.begin(), run.count, 1.0);
      std::fill_n(s.bias.begin(), run.count, run.constant_bias);
      whole.weight = s.weight.data();
      whole.bias = biased() ? s.bias.data() : nullptr;
    }
    EnclosedRun values{};
    if (!fused) {
      values = enclosed(whole, s);
      if (finite) blocks = kernels().round[f](values, to);
    }
    const bool bounded = r.factor.kind == RowFactor::Kind::bounded;
    const auto opened = static_cast<std::size_t>(std::popcount(blocks));
    if (stop_at_many && bounded && opened >= std::min(kManyBlocks, (run.count + kBlock - 1) / kBlock)) {
      few = false;
    } else if (bounded && opened >= kManyBlocks) {
      open_blocks(run, blocks, first, open);
    } else if (!fused) {
      settle_blocks(format, overflow, values, blocks, first, to, open);
    } else {
      for (std::size_t begin = 0; begin < run.count; begin += kBlock) {
        if ((blocks >> (begin / kBlock) & 1) == 0) continue;
        const ElementRun part = part_of(whole, reader.layout(), begin, std::min(kBlock, run.count - begin));
        settle_blocks(format, overflow, enclosed(part, s), 1, first + begin, to + begin * bytes, open);
      }
    }
  });
  return few;
}

std::uint32_t QuickNorm::round_ahead(std::int64_t first, std::int64_t count, FormatId format, Overflow overflow,
                                     std::byte* stored) const {
  const State& state = *state_;
  const auto f = static_cast<std::size_t>(format);
  const auto cols = static_cast<std::size_t>(state.norm.cols);
  const auto affine = static_cast<std::size_t>(state.affine());
  const auto round =
      kernels().round_elements[static_cast<std::size_t>(state.reader.layout())][state.centred() ? 1 : 0][affine][f];
  const bool plain = overflow == Overflow::ieee || (format != FormatId::fp32 && format != FormatId::bf16);
  if (cols > kShort || state.by_segments || !state.is_shared || !state.shared.strange.empty() ||
      state.groups != nullptr || state.norm.statistics == Statistics::given || state.reader.unpacks() || !plain ||
      round == nullptr)
    return 0;
  State::Scratch& s = state.scratch();
  RowValues values[kAhead];
  RowFactor factors[kAhead];
  for (std::int64_t k = 0; k < count; ++k)
    factors[k] = row_factor(state.norm, state.reader, first + k, s.reader, values[k]);
  const std::size_t row_bytes = cols * static_cast<std::size_t>(format_of(format).storage_bytes());
  std::uint32_t done = 0;
  State::Row r{};
  r.columns = &state.shared;
  for (std::int64_t k = 0; k < count; ++k) {
    if (factors[k].kind != RowFactor::Kind::bounded || factors[k].lo != 0) continue;
    r.values = values[k];
    state.take(factors[k], r);
    state.each_rounded_run(r, [&](std::size_t, const ElementRun& run) {
      if (round(run, stored + static_cast<std::size_t>(k) * row_bytes) == 0) done |= std::uint32_t{1} << k;
    });
  }
  return done;
}

void QuickNorm::round_row(std::int64_t row, FormatId format, Overflow overflow, std::byte* stored,
                          std::vector<std::uint32_t>& open) const {
  const State& state = *state_;
  State::Scratch& s = state.scratch();
  State::Row r = state.prepare(row, s, false);
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
  if (!state.round_runs(r, s, format, overflow, true, stored, open)) {
    open.resize(before);
    static_cast<void>(state.improve(row, s, r));
    static_cast<void>(state.round_runs(r, s, format, overflow, false, stored, open));
  }
  if (!r.columns->strange.empty()) {
    open.insert(open.end(), r.columns->strange.begin(), r.columns->strange.end());
    const auto begin = open.begin() + static_cast<std::ptrdiff_t>(before);
    std::sort(begin, open.end());
    open.erase(std::unique(begin, open.end()), open.end());
  }
}

}  // namespace norma

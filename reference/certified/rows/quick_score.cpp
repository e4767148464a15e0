// Rows of an output scored in binary64 (bounds: quick_state.cpp).
#include <cmath>
#include <cstring>
#include <optional>

#include "reference/certified/rows/quick_state.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

std::uint64_t code_at(const Format& f, const std::byte* stored, std::size_t i) {
  std::uint64_t word = 0;
  const auto bytes = static_cast<std::size_t>(f.storage_bytes());
  std::memcpy(&word, stored + i * bytes, bytes);
  return word >> f.storage_shift();
}

/// What the loops do for an error that is good (scores.inc).
void add_score(double error, double bar, ScoreSums& sums) {
  const double size = std::fabs(error), above = size - 0.5;
  sums.max = std::max(sums.max, size);
  sums.bar = std::max(sums.bar, bar);
  sums.sum += error;
  sums.sum_abs += size;
  sums.sum_squares += error * error;
  sums.incorrect += above > bar ? 1 : 0;
  sums.near_half += std::fabs(above) <= bar ? 1 : 0;
}

/// Elements of a run that cost as much as one enclosed alone (measured).
constexpr std::size_t kAlone = 32;

/// The layout in which a loop reads `got`, if there is one.
std::optional<Layout> loop_layout(FormatId format) {
  switch (format) {
    case FormatId::bf16: return Layout::bf16;
    case FormatId::fp16: return Layout::fp16;
    case FormatId::fp32:
    case FormatId::tf32: return Layout::fp32;
    default: return std::nullopt;
  }
}

/// How an output is scored, and one element of it as scalar code sees it.
struct Scoring {
  FormatId format;
  const std::byte* got;
  UlpRule rule, unlimited;
  double threshold;

  Scoring(FormatId id, const std::byte* stored)
      : format(id), got(stored), rule(ulp_rule(id)), unlimited(rule), threshold(overflow_threshold(id)) {
    unlimited.limit = kInfinity;
  }

  enum class Place { scored, not_scored, open };
  struct Seen {
    Place place;
    double error = 0, bar = 0;
  };
  // What the loops score is scored here, with the same error.
  Seen see(const EnclosedRun& y, std::size_t i, std::size_t column, bool strange) const {
    const scalar::Linear pads = scalar::pad(y.relative, y.absolute);
    const double h = y.value[i], size = std::fabs(h);
    const double e = y.radius == nullptr ? size * pads.relative + pads.absolute : scalar::padded(y.radius[i], size);
    const double g = decode(format, code_at(format_of(format), got, column));
    const auto score = [&](const UlpRule& rules) {
      return y.radius == nullptr && y.absolute == 0
                 ? scalar::score_of(rules, scalar::relative_bar(rules, pads.relative), h, g)
                 : scalar::score_of(rules, h, e, g);
    };
    if (const auto s = score(rule); s.good != 0) return {Place::scored, s.error, s.bar};
    if (strange) return {Place::open};
    if (!std::isfinite(g) || !std::isfinite(h) || size - e >= threshold) return {Place::not_scored};
    if (const auto s = score(unlimited); s.good != 0 && size + e < threshold) return {Place::scored, s.error, s.bar};
    return {Place::open};
  }
};

}  // namespace

void QuickNorm::score_row(std::int64_t row, FormatId format, const std::byte* got, RowScoreSums& sums,
                          std::vector<std::uint32_t>& open) const {
  const State& state = *state_;
  State::Scratch& s = state.scratch();
  const State::Row r = state.prepare(row, s);
  const auto cols = static_cast<std::size_t>(state.norm.cols);
  // A format without NaN has a finite code for every y, however far off: beyond what scores are good for.
  if (r.factor.kind == RowFactor::Kind::unknown || !format_of(format).has_nan()) {
    for (std::size_t j = 0; j < cols; ++j) open.push_back(static_cast<std::uint32_t>(j));
    return;
  }
  if (r.factor.kind == RowFactor::Kind::nan) {
    sums.not_scored += state.norm.cols;
    return;
  }
  const std::optional<Layout> direct = loop_layout(format);
  const void* values = got;
  auto bytes = static_cast<std::size_t>(format_of(format).storage_bytes());
  if (!direct) {
    s.got.resize(cols);
    decode_row(format, got, s.got.data(), cols);
    values = s.got.data();
    bytes = sizeof(float);
  }
  const auto loop = kernels().score[static_cast<std::size_t>(state.reader.layout())][state.centred() ? 1 : 0]
                                   [state.biased() ? 1 : 0][static_cast<std::size_t>(direct.value_or(Layout::fp32))];
  s.groups.resize(kRun + 1);
  const Scoring scoring(format, got);
  ScoreSums found{};
  const std::size_t before = open.size();
  std::int64_t not_scored = 0;
  state.each_run(r, s, [&](std::size_t first, const ElementRun& run) {
    const std::size_t left =
        loop(run, scoring.rule, static_cast<const std::byte*>(values) + first * bytes, found, s.groups.data());
    // Enclosed once more: one by one where they are few.
    EnclosedRun y{};
    if (left * kAlone > run.count) y = state.enclosed(run, s);
    for (std::size_t k = 0; k < left; ++k) {
      const std::size_t i = s.groups[k];
      std::size_t at = i;
      if (y.value == nullptr) {
        at = 0;
        y = state.enclosed(part_of(run, state.reader.layout(), i, 1), s);
      }
      const Scoring::Seen seen = scoring.see(y, at, first + i, r.is_strange(first + i));
      switch (seen.place) {
        case Scoring::Place::scored: add_score(seen.error, seen.bar, found); break;
        case Scoring::Place::not_scored: ++not_scored; break;
        case Scoring::Place::open: open.push_back(static_cast<std::uint32_t>(first + i)); break;
      }
      if (left * kAlone <= run.count) y.value = nullptr;
    }
  });
  const std::int64_t scored = state.norm.cols - not_scored - static_cast<std::int64_t>(open.size() - before);
  if (scored > 0 && (sums.max_row < 0 || found.max > sums.max)) {
    sums.max = found.max;
    sums.max_row = row;
  }
  sums.scored += scored;
  sums.not_scored += not_scored;
  sums.incorrect += found.incorrect;
  sums.near_half += found.near_half;
  sums.sum += found.sum;
  sums.sum_abs += found.sum_abs;
  sums.sum_squares += found.sum_squares;
  sums.bar = std::max(sums.bar, found.bar);
}

std::int64_t QuickNorm::find_error(std::int64_t row, FormatId format, const std::byte* got, double size) const {
  const State& state = *state_;
  State::Scratch& s = state.scratch();
  const State::Row r = state.prepare(row, s);
  if (r.factor.kind == RowFactor::Kind::unknown || r.factor.kind == RowFactor::Kind::nan) return -1;
  const Scoring scoring(format, got);
  std::int64_t at = -1;
  state.each_run(r, s, [&](std::size_t first, const ElementRun& run) {
    if (at >= 0) return;
    const EnclosedRun y = state.enclosed(run, s);
    for (std::size_t i = 0; i < run.count && at < 0; ++i) {
      const Scoring::Seen seen = scoring.see(y, i, first + i, r.is_strange(first + i));
      if (seen.place == Scoring::Place::scored && std::fabs(seen.error) == size)
        at = static_cast<std::int64_t>(first + i);
    }
  });
  return at;
}

}  // namespace norma

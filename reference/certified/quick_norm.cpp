// Rows in binary64 with a bound: what is computed, what it may be wrong by.
//
//   q' = RN(RN(d' w') factor)   y' = RN(q' + b')   |q' - q| <= (relative + k u) |q'| + eta |w|   |y' - y| <= that + u
//   |y'|
//
// with relative and eta of the row's factor (quick_factor.cpp) and k roundings of first order: the last product, d' w'
// unless it is exact (h and w together have at most 53 bits), each sum offset + t and the product weight scale unless
// exact. A bias with an offset rounds too: u |b'| <= u (|y'| + |q'|) (1 + 2u). Bounds are taken 1 + 2^-20 larger
// (kInflate).
//
// Least work, one row of D elements, 512-bit vectors, bf16 -> fp32: the sum reads 2 D bytes (widen, shift, convert,
// FMA: 4 operations a vector of 8); the elements read 2 D again from cache, write 4 D: widen, shift, convert, two
// products, two roundings of the ends, compare: 10 operations and a store. A plain float64 loop needs 4 and 7: at most
// 14/11 = 1.27 of it where nothing waits for memory, 1 where everything does. bf16 -> bf16 rounds by integers, 14
// operations of 15.
#include "reference/certified/quick_norm.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <mutex>
#include <numeric>
#include <optional>

#include "reference/certified/kernels.hpp"
#include "reference/certified/quick_factor.hpp"
#include "reference/certified/rounding.hpp"
#include "reference/certified/settle.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

constexpr double kU = kUnitRoundoff;
constexpr double kInflate = 1 + 0x1p-20;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
/// Factors and terms beyond these are left to wider arithmetic (see kLeastScale).
constexpr double kLeastWeight = 0x1p-300, kMostWeight = 0x1p300;

/// A run with this many blocks that need a second look is left to the next tier, whose loops take whole rows: looking
/// at one element costs three times as much as that (measured).
constexpr int kManyBlocks = 4;

/// A segment's parameters are written out for this many columns at a time.
constexpr std::size_t kConstant = 512;

/// Columns with the same parameters.
struct Segment {
  std::size_t first, count;
  double weight, bias;
};

/// Parameters of a row: w = weight scale and b as binary64 numbers, of each column or of segments.
struct Columns {
  std::vector<double> weight, bias;
  std::vector<Segment> segments;
  /// Columns whose parameters are not finite or too large or small; their w is NaN here.
  std::vector<std::uint32_t> strange;
  double most_weight = 0;  ///< largest |w| of the others
  std::int64_t key[3] = {-1, -1, -1};
};

bool is_strange(double w, double b) {
  const double size = std::fabs(w), term = std::fabs(b);
  return !((size == 0 || (size >= kLeastWeight && size <= kMostWeight)) &&
           (term == 0 || (term >= kLeastWeight && term <= kMostWeight)));
}

std::uint64_t code_at(const Format& f, const std::byte* stored, std::size_t i) {
  std::uint64_t word = 0;
  const auto bytes = static_cast<std::size_t>(f.storage_bytes());
  std::memcpy(&word, stored + i * bytes, bytes);
  return word >> f.storage_shift();
}

/// What the loops do for an error that is good (kernels.inc).
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

}  // namespace

struct QuickNorm::State {
  explicit State(const RowNorm& n);

  RowNorm norm;
  RowReader reader;
  double product_roundings = 0;  ///< k above
  bool by_segments = false;      ///< every parameter is the same over spans of columns
  Columns shared;                ///< where the parameters are the same for all rows
  bool is_shared = false;
  std::uint64_t id = 0;  ///< tells threads whose memory they hold

  // Statistics of several rows, made when first asked for.
  struct GroupFactor {
    std::once_flag once;
    RowFactor factor;
  };
  std::unique_ptr<GroupFactor[]> groups;

  struct Scratch;
  Scratch& scratch() const;
  void fill(std::int64_t row, Columns& out) const;
  void fill_segments(std::int64_t row, Columns& out) const;
  RowFactor factor(std::int64_t row, Scratch& s, RowValues& values) const;

  /// A row with all that its elements need.
  struct Row {
    RowFactor factor;
    RowValues values;
    const Columns* columns;
    double of_product, of_value, absolute;
    bool is_strange(std::size_t column) const {
      return std::binary_search(columns->strange.begin(), columns->strange.end(), column);
    }
  };
  Row prepare(std::int64_t row, Scratch& s) const;
  /// Calls visit(first column, run) for each run of the row.
  template <class Visit>
  void each_run(const Row& r, Scratch& s, Visit visit) const;
  /// The run's values, and radii if there is a bias, in the thread's memory.
  EnclosedRun enclosed(const ElementRun& run, Scratch& s, double* magnitude = nullptr) const;
  bool biased() const { return norm.bias.tensor != nullptr; }
  bool centred() const { return norm.statistics != Statistics::squares; }
};

struct QuickNorm::State::Scratch {
  std::uint64_t owner = 0;
  RowReader::Scratch reader;
  Columns columns;
  std::vector<double> value, radius, weight, bias;
  std::vector<float> got;
  std::vector<std::uint32_t> groups;
};

QuickNorm::State::State(const RowNorm& n) : norm(n), reader(norm) {
  static std::atomic<std::uint64_t> count{0};
  id = ++count;
  const Parameter* const parameters[] = {&norm.weight, &norm.scale, &norm.bias};
  int bits = norm.residual != nullptr || centred() ? 54 : reader.precision();
  is_shared = true;
  bool spans = true, any = false;
  for (const Parameter* p : parameters) {
    if (p->tensor == nullptr) continue;
    any = true;
    spans = spans && p->index.span > 1;
    is_shared = is_shared && p->index.period == 1;
  }
  by_segments = spans && any;
  double k = 1;
  for (const Parameter* p : {&norm.weight, &norm.scale}) {
    if (p->tensor == nullptr) continue;
    bits += p->offset == 0 ? format_of(p->tensor->format).precision : 54;
    k += p->offset == 0 ? 0 : 1;
  }
  if (norm.weight.tensor != nullptr && norm.scale.tensor != nullptr)
    k += norm.weight.offset == 0 && norm.scale.offset == 0 ? 0 : 1;  // two factors of at most 24 bits are exact
  const bool weightless = norm.weight.tensor == nullptr && norm.scale.tensor == nullptr;
  k += bits <= 53 || weightless ? 0 : 1;
  product_roundings = k;
  if (is_shared) fill(0, shared);
  if (norm.statistics != Statistics::given && norm.groups < norm.rows)
    groups = std::make_unique<GroupFactor[]>(static_cast<std::size_t>(norm.groups));
}

QuickNorm::State::Scratch& QuickNorm::State::scratch() const {
  static thread_local Scratch s;
  if (s.owner != id) {
    s.columns = {};
    s.owner = id;
    s.value.resize(kRun);
    s.radius.resize(kRun);
    s.weight.resize(kConstant);
    s.bias.resize(kConstant);
    s.groups.resize(kRun / 8 + 1);
  }
  return s;
}

namespace {

/// No offset leaves the sign of a zero alone.
double offset_of(const Parameter& p) { return p.offset == 0 ? -0.0 : p.offset; }

/// apply(i, value) for the parameter's values of a row.
template <class Apply>
void each_value(const Parameter& p, std::int64_t row, std::size_t count, std::vector<float>& buffer, Apply apply) {
  if (p.index.span == 1) {
    const auto at = static_cast<std::size_t>(p.index.at(row, 0));
    const auto bytes = static_cast<std::size_t>(format_of(p.tensor->format).storage_bytes());
    buffer.resize(count);
    decode_row(p.tensor->format, p.tensor->bytes.data() + at * bytes, buffer.data(), count);
    for (std::size_t i = 0; i < count; ++i) apply(i, offset_of(p) + static_cast<double>(buffer[i]));
    return;
  }
  const auto span = static_cast<std::size_t>(p.index.span);
  for (std::size_t i = 0; i < count;) {
    const double value = offset_of(p) + p.tensor->value(p.index.at(row, static_cast<std::int64_t>(i)));
    for (const std::size_t end = std::min(count, (i / span + 1) * span); i < end; ++i) apply(i, value);
  }
}

}  // namespace

void QuickNorm::State::fill_segments(std::int64_t row, Columns& out) const {
  out.segments.clear();
  for (std::int64_t first = 0; first < norm.cols;) {
    std::int64_t count = norm.cols - first;
    double w = 1, b = 0;
    for (const Parameter* p : {&norm.weight, &norm.scale, &norm.bias}) {
      if (p->tensor == nullptr) continue;
      count = std::min(count, p->index.span - first % p->index.span);
      const double v = offset_of(*p) + p->tensor->value(p->index.at(row, first));
      if (p == &norm.bias)
        b = v;
      else
        w *= v;
    }
    if (is_strange(w, b)) {
      for (std::int64_t j = first; j < first + count; ++j) out.strange.push_back(static_cast<std::uint32_t>(j));
      w = kNaN;
    } else {
      out.most_weight = std::max(out.most_weight, std::fabs(w));
    }
    out.segments.push_back({static_cast<std::size_t>(first), static_cast<std::size_t>(count), w, b});
    first += count;
  }
}

void QuickNorm::State::fill(std::int64_t row, Columns& out) const {
  out.strange.clear();
  out.most_weight = 0;
  if (by_segments) return fill_segments(row, out);
  static thread_local std::vector<float> buffer;
  const auto count = static_cast<std::size_t>(norm.cols);
  out.weight.assign(count, 1.0);
  // One after the other: a product of two factors rounds once (`product_roundings`).
  for (const Parameter* p : {&norm.weight, &norm.scale})
    if (p->tensor != nullptr) each_value(*p, row, count, buffer, [&](std::size_t i, double v) { out.weight[i] *= v; });
  if (biased()) {
    out.bias.resize(count);
    each_value(norm.bias, row, count, buffer, [&](std::size_t i, double v) { out.bias[i] = v; });
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (is_strange(out.weight[i], biased() ? out.bias[i] : 0)) {
      out.strange.push_back(static_cast<std::uint32_t>(i));
      out.weight[i] = kNaN;
    } else {
      out.most_weight = std::max(out.most_weight, std::fabs(out.weight[i]));
    }
  }
}

RowFactor QuickNorm::State::factor(std::int64_t row, Scratch& s, RowValues& values) const {
  if (groups == nullptr) return row_factor(norm, reader, row, s.reader, values);
  GroupFactor& group = groups[static_cast<std::size_t>(row % norm.groups)];
  std::call_once(group.once, [&] { group.factor = row_factor(norm, reader, row, s.reader, values); });
  values = reader.read(row, s.reader);
  return group.factor;
}

QuickNorm::State::Row QuickNorm::State::prepare(std::int64_t row, Scratch& s) const {
  Row r{};
  r.factor = factor(row, s, r.values);
  r.columns = &shared;
  if (!is_shared) {
    // The whole row's parameters, kept while the next row has the same.
    std::int64_t key[3] = {0, 0, 0};
    const Parameter* const parameters[] = {&norm.weight, &norm.scale, &norm.bias};
    for (std::size_t i = 0; i < 3; ++i)
      if (parameters[i]->tensor != nullptr)
        key[i] = (row / parameters[i]->index.rows_each) % parameters[i]->index.period;
    if (!std::equal(key, key + 3, s.columns.key)) {
      fill(row, s.columns);
      std::copy(key, key + 3, s.columns.key);
    }
    r.columns = &s.columns;
  }
  const RowFactor& f = r.factor;
  if (f.kind == RowFactor::Kind::bounded || f.kind == RowFactor::Kind::ieee) {
    const bool offset = biased() && norm.bias.offset != 0;
    r.of_product = (f.relative + product_roundings * kU + (offset ? kU : 0)) * kInflate;
    r.of_value = (offset ? 2 * kU : kU) * kInflate;
    // Weights of zero too: the sign of (h - mean) 0 is not known then.
    r.absolute = f.eta == 0 ? 0 : f.eta * r.columns->most_weight * kInflate + 0x1p-1000;
  }
  return r;
}

template <class Visit>
void QuickNorm::State::each_run(const Row& r, Scratch& s, Visit visit) const {
  const std::size_t bytes = r.values.layout == Layout::fp64 ? 8 : r.values.layout == Layout::fp32 ? 4 : 2;
  const auto run = [&](std::size_t first, std::size_t count, const double* weight, const double* bias) {
    visit(first, ElementRun{.x = static_cast<const std::byte*>(r.values.data) + first * bytes,
                            .weight = weight,
                            .bias = bias,
                            .count = count,
                            .centre_hi = r.factor.hi,
                            .centre_lo = r.factor.lo,
                            .factor = r.factor.factor,
                            .of_product = r.of_product,
                            .of_value = r.of_value,
                            .absolute = r.absolute});
  };
  if (!by_segments) {
    const auto cols = static_cast<std::size_t>(norm.cols);
    for (std::size_t i = 0; i < cols; i += kRun)
      run(i, std::min(kRun, cols - i), r.columns->weight.data() + i, biased() ? r.columns->bias.data() + i : nullptr);
    return;
  }
  for (const Segment& segment : r.columns->segments) {
    const std::size_t width = std::min(kConstant, segment.count);
    std::fill_n(s.weight.begin(), width, segment.weight);
    std::fill_n(s.bias.begin(), width, segment.bias);
    for (std::size_t i = 0; i < segment.count; i += width)
      run(segment.first + i, std::min(width, segment.count - i), s.weight.data(), biased() ? s.bias.data() : nullptr);
  }
}

EnclosedRun QuickNorm::State::enclosed(const ElementRun& run, Scratch& s, double* magnitude) const {
  kernels().elements[static_cast<std::size_t>(reader.layout())][centred() ? 1 : 0][biased() ? 1 : 0](
      run, s.value.data(), s.radius.data(), magnitude);
  return {s.value.data(), biased() ? s.radius.data() : nullptr, run.of_product, run.absolute, run.count};
}

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
      blocks = fused(run, to);
      if (blocks == 0) return;
    }
    const EnclosedRun values = state.enclosed(run, s);
    if (!finite)
      blocks = ~std::uint64_t{0};
    else if (!plain || fused == nullptr)
      blocks = kernels().round[static_cast<std::size_t>(format)](values, to);
    const std::size_t count = (run.count + kBlock - 1) / kBlock;
    if (finite && std::popcount(blocks) >= kManyBlocks) {
      for (std::size_t b = 0; b < count; ++b) {
        if ((blocks >> b & 1) == 0) continue;
        const std::size_t begin = b * kBlock, end = std::min(run.count, begin + kBlock), held = open.size();
        open.resize(held + (end - begin));
        std::iota(open.begin() + static_cast<std::ptrdiff_t>(held), open.end(),
                  static_cast<std::uint32_t>(first + begin));
      }
      return;
    }
    settle_blocks(format, overflow, values, blocks, first, to, open);
  });
  if (!r.columns->strange.empty()) {
    open.insert(open.end(), r.columns->strange.begin(), r.columns->strange.end());
    const auto begin = open.begin() + static_cast<std::ptrdiff_t>(before);
    std::sort(begin, open.end());
    open.erase(std::unique(begin, open.end()), open.end());
  }
}

namespace {

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

  enum class Place { loop, here, not_scored, open };
  struct Seen {
    Place place;
    double error = 0, bar = 0;
  };
  // As the loop sees it, so that an element is scored once.
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
    if (const auto s = score(rule); s.good != 0) return {Place::loop, s.error, s.bar};
    if (strange) return {Place::open};
    if (!std::isfinite(g) || !std::isfinite(h) || size - e >= threshold) return {Place::not_scored};
    if (const auto s = score(unlimited); s.good != 0 && size + e < threshold) return {Place::here, s.error, s.bar};
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
  if (r.factor.kind == RowFactor::Kind::unknown) {
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
  const auto loop = kernels().score[static_cast<std::size_t>(direct.value_or(Layout::fp32))];
  const Scoring scoring(format, got);
  ScoreSums found{};
  const std::size_t before = open.size();
  std::int64_t not_scored = 0;
  state.each_run(r, s, [&](std::size_t first, const ElementRun& run) {
    const EnclosedRun y = state.enclosed(run, s);
    const std::size_t groups =
        loop(y, scoring.rule, static_cast<const std::byte*>(values) + first * bytes, found, s.groups.data());
    for (std::size_t k = 0; k < groups * 8; ++k) {
      const std::size_t i = s.groups[k / 8] + k % 8;
      if (i >= run.count) break;
      const Scoring::Seen seen = scoring.see(y, i, first + i, r.is_strange(first + i));
      switch (seen.place) {
        case Scoring::Place::loop: break;
        case Scoring::Place::here: add_score(seen.error, seen.bar, found); break;
        case Scoring::Place::not_scored: ++not_scored; break;
        case Scoring::Place::open: open.push_back(static_cast<std::uint32_t>(first + i)); break;
      }
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
      const bool counts = seen.place == Scoring::Place::loop || seen.place == Scoring::Place::here;
      if (counts && std::fabs(seen.error) == size) at = static_cast<std::int64_t>(first + i);
    }
  });
  return at;
}

}  // namespace norma

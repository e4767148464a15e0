// Rows in binary64 with a bound: what is computed, what it may be wrong by.
//
//   q' = RN(RN(d' w') factor)   y' = RN(q' + b')   |q' - q| <= (relative + k u) |q'| + eta |w|   |y' - y| <= that + u
//   |y'|
//
// with relative and eta of the row's factor (quick_factor.cpp) and k roundings of first order: the last product unless
// the factor is a power of two, d' w' unless it is exact (both together have at most 53 bits), each sum offset + t and
// the product weight scale unless exact. Parameters that are constant over spans of columns: q' = RN(d' RN(w' factor)),
// the inner product exact if the factor is a power of two, the outer if d' w' is, too. y' = q' where all b are 0. A
// bias with an offset rounds too: u |b'| <= u (|y'| + |q'|) (1 + 2u). Bounds are taken 1 + 2^-20 larger (kInflate).
//
// Least work, rows of D elements, 512-bit vectors, bf16 -> fp32, operations for 8 values. RMSNorm: the sum widens,
// shifts, converts and adds a square: 4; the elements widen, shift, convert, multiply three times, round both ends,
// compare two ways: 10 and a store. A plain float64 loop has 4 and 7: 14/11 = 1.27 of it where nothing waits for
// memory, 1 where everything does. LayerNorm: sum and squares in one pass, 5; elements 3, centre, two products, bias,
// rounding, two looks of 3: 14; plain: 4, 5 and 8: 19/17 = 1.1. Constant parameters: one product less, plain 5 of 8:
// 18/14 = 1.3.
#include "reference/certified/rows/quick_state.hpp"

#include <atomic>
#include <cmath>

#include "reference/certified/double_double.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

constexpr double kU = kUnitRoundoff;
constexpr double kInflate = 1 + 0x1p-20;
/// Shorter spans of constant parameters are written out: each is a call of a loop.
constexpr std::int64_t kLeastSpan = 64;
/// Factors and terms beyond these are left to wider arithmetic (see kLeastScale).
constexpr double kLeastWeight = 0x1p-300, kMostWeight = 0x1p300;

bool is_strange(double w, double b) {
  const double size = std::fabs(w), term = std::fabs(b);
  return !((size == 0 || (size >= kLeastWeight && size <= kMostWeight)) &&
           (term == 0 || (term >= kLeastWeight && term <= kMostWeight)));
}

}  // namespace

QuickNorm::State::State(const RowNorm& n) : norm(n), reader(norm) {
  static std::atomic<std::uint64_t> count{0};
  id = ++count;
  is_shared = true;
  by_segments = true;
  for (const Parameter* p : {&norm.weight, &norm.scale, &norm.bias}) {
    if (p->tensor == nullptr) continue;
    by_segments = by_segments && p->index.span >= kLeastSpan;
    is_shared = is_shared && p->index.period == 1;
  }
  for (const Parameter* p : {&norm.weight, &norm.scale}) {
    if (p->tensor == nullptr) continue;
    weight_bits += p->offset == 0 ? format_of(p->tensor->format).precision : 54;
    weight_roundings += p->offset == 0 ? 0 : 1;
  }
  if (norm.weight.tensor != nullptr && norm.scale.tensor != nullptr)
    weight_roundings += norm.weight.offset == 0 && norm.scale.offset == 0 ? 0 : 1;  // two of at most 24 bits are exact
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
    s.weight.resize(kRun);
    s.bias.resize(kRun);
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
      out.most_bias = std::max(out.most_bias, std::fabs(b));
    }
    out.segments.push_back({static_cast<std::size_t>(first), static_cast<std::size_t>(count), w, b});
    first += count;
  }
}

void QuickNorm::State::fill(std::int64_t row, Columns& out) const {
  out.strange.clear();
  out.most_weight = 0;
  out.most_bias = 0;
  if (by_segments) return fill_segments(row, out);
  static thread_local std::vector<float> buffer;
  const auto count = static_cast<std::size_t>(norm.cols);
  out.weight.assign(count, 1.0);
  // One after the other: a product of two factors rounds once (`product_roundings`).
  for (const Parameter* p : {&norm.weight, &norm.scale})
    if (p->tensor != nullptr) each_value(*p, row, count, buffer, [&](std::size_t i, double v) { out.weight[i] *= v; });
  if (biased()) {
    out.bias.resize(count);
    out.bias_size.assign((count + kBlock - 1) / kBlock, 0.0);
    each_value(norm.bias, row, count, buffer, [&](std::size_t i, double v) { out.bias[i] = v; });
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (is_strange(out.weight[i], biased() ? out.bias[i] : 0)) {
      out.strange.push_back(static_cast<std::uint32_t>(i));
      out.weight[i] = kNaN;
      continue;
    }
    out.most_weight = std::max(out.most_weight, std::fabs(out.weight[i]));
    if (biased()) {
      double& size = out.bias_size[i / kBlock];
      size = std::max(size, std::fabs(out.bias[i]));
      out.most_bias = std::max(out.most_bias, size);
    }
  }
}

RowFactor QuickNorm::State::factor(std::int64_t row, Scratch& s, RowValues& values, bool careful) const {
  if (groups == nullptr) return row_factor(norm, reader, row, s.reader, values, careful);
  GroupFactor& group = groups[static_cast<std::size_t>(row % norm.groups)];
  RowFactor& factor = careful ? group.careful : group.factor;
  std::call_once(careful ? group.once_careful : group.once,
                 [&] { factor = row_factor(norm, reader, row, s.reader, values, careful); });
  values = reader.read(row, s.reader);
  return factor;
}

QuickNorm::State::Row QuickNorm::State::prepare(std::int64_t row, Scratch& s, bool narrow) const {
  Row r{};
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
  RowFactor f;
  if (narrow && norm.statistics == Statistics::moments) f = factor(row, s, r.values, true);
  if (f.kind == RowFactor::Kind::unknown) f = factor(row, s, r.values, false);
  take(f, r);
  return r;
}

void QuickNorm::State::take(const RowFactor& f, Row& r) const {
  r.factor = f;
  if (f.kind != RowFactor::Kind::bounded && f.kind != RowFactor::Kind::ieee) return;
  const bool power = f.relative == 0, exact_product = f.bits + weight_bits <= 53;
  const bool weightless = weight_bits == 0;
  double roundings = (weightless || exact_product ? 0 : 1) + (power ? 0 : 1);
  if (by_segments)
    roundings = std::max<double>(roundings, (weightless || power ? 0 : 1) + (exact_product && power ? 0 : 1));
  roundings += weight_roundings;
  const bool offset = biased() && norm.bias.offset != 0;
  r.of_product = (f.relative + roundings * kU + (offset ? kU : 0)) * kInflate;
  // Weights of zero too: the sign of (h - mean) 0 is not known then.
  r.absolute = f.eta == 0 ? 0 : f.eta * r.columns->most_weight * kInflate + 0x1p-1000;
  r.of_value = r.columns->most_bias == 0 ? 0 : (offset ? 2 * kU : kU) * kInflate;
}

bool QuickNorm::State::improve(std::int64_t row, Scratch& s, Row& r) const {
  if (r.factor.kind != RowFactor::Kind::bounded || norm.statistics == Statistics::given) return false;
  RowValues values;
  const RowFactor f = factor(row, s, values, true);
  if (f.kind != RowFactor::Kind::bounded || !(f.relative == 0 || f.eta < r.factor.eta)) return false;
  take(f, r);
  return true;
}

EnclosedRun QuickNorm::State::enclosed(const ElementRun& run, Scratch& s, double* magnitude) const {
  kernels().elements[static_cast<std::size_t>(reader.layout())][centred() ? 1 : 0][biased() ? 1 : 0](
      run, s.value.data(), s.radius.data(), magnitude);
  return {s.value.data(), biased() ? s.radius.data() : nullptr, run.of_product, run.absolute, run.count};
}

}  // namespace norma

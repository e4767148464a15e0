// Statistics of a row in binary64 with a-priori bounds. u = 2^-53.
//
// Counting lemma: a computed positive number that is the exact one times a product of (1 + d_k)^(+-w_k), |d_k| <= u,
// with N = sum of w_k, errs by at most N u / (1 - N u) of either. Bounds here are sums of first order, taken 1 + 2^-20
// larger (kInflate): they are below 2^-30, so that all products of two of them are below 2^-29 of the sum, and the few
// binary64 operations that evaluate them are far below the rest. An underflow of these bounds is impossible
// (kLeastScale).
#include "reference/certified/rows/quick_factor.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "reference/certified/double_double.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

constexpr double kU = kUnitRoundoff;
constexpr double kInflate = 1 + 0x1p-20;
constexpr double kMostRelative = 0x1p-30;
/// Factors beyond these bounds are left to wider arithmetic, so that no product underflows or overflows: |h| lies in
/// [2^-149, 2^129], |h - mean| above 2^-149 u / 2^40, |w| in [2^-300, 2^300] (quick_norm.cpp): |q| stays in [2^-850,
/// 2^770].
constexpr double kLeastScale = 0x1p-340, kMostScale = 0x1p340;
/// A mean's second word is taken for an error where it is at most this of the deviations.
constexpr double kMostLow = 0x1p-44;
/// The mean is as good as it gets after two; equal values are found by the second or third.
constexpr int kMostPasses = 4;
/// An exact mean may have this many bits below its row's last place.
constexpr int kFiner = 8;

// ---- sums of many blocks ----

std::size_t index(Layout layout) { return static_cast<std::size_t>(layout); }
std::size_t bytes_of(Layout layout) { return layout == Layout::fp64 ? 8 : layout == Layout::fp32 ? 4 : 2; }

std::uint64_t infinity_code(Layout layout) {
  switch (layout) {
    case Layout::bf16: return 0x7f80;
    case Layout::fp16: return 0x7c00;
    case Layout::fp32: return 0x7f80'0000;
    case Layout::fp64: break;
  }
  return 0x7ff0'0000'0000'0000;
}

double value_of(Layout layout, std::uint64_t code) {
  switch (layout) {
    case Layout::bf16: return decode(FormatId::bf16, code);
    case Layout::fp16: return decode(FormatId::fp16, code);
    case Layout::fp32: return decode(FormatId::fp32, code);
    case Layout::fp64: break;
  }
  return std::bit_cast<double>(code);
}

/// Adds pairwise in a fixed order: a term passes at most ceil(log2 n) additions.
class Pairwise {
 public:
  void push(double term) {
    std::uint64_t n = count_++;
    std::size_t level = 0;
    for (; (n & 1) != 0; n >>= 1, ++level) term = partial_[level] + term;
    partial_[level] = term;
  }
  double total() const {
    double sum = 0;
    bool first = true;
    for (std::size_t level = 0; count_ >> level != 0; ++level) {
      if ((count_ >> level & 1) == 0) continue;
      sum = first ? partial_[level] : partial_[level] + sum;
      first = false;
    }
    return sum;
  }

 private:
  double partial_[64] = {};
  std::uint64_t count_ = 0;
};

/// Sums of d = RN(h - c) and of d^2 for some c.
struct Moments {
  double sum, squares;
};

/// The values that one statistic runs over: the rows with the same row % groups, in blocks.
class Group {
 public:
  Group(const RowNorm& norm, const RowReader& reader, std::int64_t row, RowReader::Scratch& scratch)
      : norm_(norm), reader_(reader), scratch_(scratch), first_(row) {
    if (norm.statistics != Statistics::given && norm.groups < norm.rows) {
      first_ = row % norm.groups;
      rows_ = (norm.rows - first_ + norm.groups - 1) / norm.groups;
    }
    if (rows_ == 1) only_ = reader.read(first_, scratch);
  }
  double count() const { return static_cast<double>(rows_) * static_cast<double>(norm_.cols); }
  std::int64_t blocks() const { return rows_ * ((norm_.cols - 1) / static_cast<std::int64_t>(kSumBlock) + 1); }
  /// Additions that a term passes.
  double depth() const {
    const auto block = static_cast<std::size_t>(std::min<std::int64_t>(norm_.cols, kSumBlock));
    return sum_depth(block) + static_cast<double>(std::bit_width(static_cast<std::uint64_t>(blocks() - 1)));
  }
  bool exact() const { return exact_; }
  double first() {
    const RowValues values = rows_ == 1 ? only_ : reader_.read(first_, scratch_);
    std::uint64_t code = 0;
    std::memcpy(&code, values.data, bytes_of(values.layout));
    return value_of(values.layout, code);
  }
  const RowValues& only() const { return only_; }

  template <class Visit>
  void each_block(Visit visit) {
    for (std::int64_t k = 0; k < rows_; ++k) {
      const RowValues values = rows_ == 1 ? only_ : reader_.read(first_ + k * norm_.groups, scratch_);
      exact_ = exact_ && values.exact;
      const std::size_t bytes = bytes_of(values.layout);
      const auto cols = static_cast<std::size_t>(norm_.cols);
      for (std::size_t i = 0; i < cols; i += kSumBlock)
        visit(static_cast<const std::byte*>(values.data) + i * bytes, std::min(kSumBlock, cols - i));
    }
  }
  double squares() {
    const auto block = kernels().sum_squares[index(reader_.layout())];
    if (blocks() == 1) return exact_ = only_.exact, block(only_.data, static_cast<std::size_t>(norm_.cols));
    Pairwise pairs;
    each_block([&](const std::byte* x, std::size_t n) { pairs.push(block(x, n)); });
    return pairs.total();
  }
  Moments moments(double centre) {
    const auto block = kernels().moments[index(reader_.layout())];
    double sums[2];
    if (blocks() == 1) {
      exact_ = only_.exact;
      block(only_.data, static_cast<std::size_t>(norm_.cols), centre, sums);
      return {sums[0], sums[1]};
    }
    Pairwise sum, squares;
    each_block([&](const std::byte* x, std::size_t n) {
      block(x, n, centre, sums);
      sum.push(sums[0]);
      squares.push(sums[1]);
    });
    return {sum.total(), squares.total()};
  }

 private:
  const RowNorm& norm_;
  const RowReader& reader_;
  RowReader::Scratch& scratch_;
  std::int64_t first_, rows_ = 1;
  RowValues only_;
  bool exact_ = true;
};

// ---- the factor ----

/// r by root.hpp for a computed S'. What S is wrong by, relative to S, or to S and the eps added to it (eps_beside), is
/// `of_s`; relative: |r' - r| <= relative |r'|, infinite where not told. An operation adds its rounding, a root halves
/// what went into it; maxima are monotone and need no decision.
struct Factor {
  double r = 0, relative = kInfinity;
};
/// True if nothing in 1 / sqrt(s / n + eps) rounds: then it is a power of two.
bool is_exact(EpsPlace place, double eps, double n, double s, double r) {
  if (place != EpsPlace::inside && place != EpsPlace::sum && place != EpsPlace::none) return false;
  const double q = place == EpsPlace::sum ? s : s / n;
  const DoubleDouble a = two_sum(q, place == EpsPlace::none ? 0 : eps);
  const double root = std::sqrt(a.h);
  return (place == EpsPlace::sum || std::fma(q, n, -s) == 0) && a.l == 0 && std::fma(root, root, -a.h) == 0 &&
         std::fma(root, r, -1) == 0;
}
Factor factor_of(EpsPlace place, double eps, double n, double s, double of_s) {
  if (!(s >= 0)) return {};
  Factor f;
  switch (place) {
    case EpsPlace::inside:
      f.r = 1 / std::sqrt(s / n + eps);
      f.relative = (of_s + 2 * kU) / 2 + 2 * kU;
      break;
    case EpsPlace::sum:
      f.r = 1 / std::sqrt(s + eps);
      f.relative = (of_s + kU) / 2 + 2 * kU;
      break;
    case EpsPlace::none:
      f.r = 1 / std::sqrt(s / n);
      f.relative = (of_s + kU) / 2 + 2 * kU;
      break;
    case EpsPlace::outside:
      f.r = 1 / (std::sqrt(s / n) + eps);
      f.relative = (of_s + kU) / 2 + 3 * kU;
      break;
    case EpsPlace::max:
      f.r = 1 / std::max(std::sqrt(s / n), eps);
      f.relative = (of_s + kU) / 2 + 2 * kU;
      break;
    case EpsPlace::l2max:
      f.r = std::sqrt(n) / std::max(std::sqrt(s), eps);
      f.relative = of_s / 2 + 3 * kU;
      break;
  }
  f.relative = of_s == 0 && is_exact(place, eps, n, s, f.r) ? 0 : f.relative * kInflate;
  if (!(f.relative < kMostRelative) || !(f.r >= kLeastScale && f.r <= kMostScale)) f.relative = kInfinity;
  return f;
}

/// What is added to S under the root.
double eps_beside(const RowNorm& norm) {
  switch (norm.eps_place) {
    case EpsPlace::inside: return norm.count * norm.eps;
    case EpsPlace::sum: return norm.eps;
    default: return 0;
  }
}

bool without_eps(const RowNorm& norm) { return norm.eps == 0 || norm.eps_place == EpsPlace::none; }

/// Largest magnitude, and a power of two that every h is a multiple of: of the last place of the least nonzero h, and
/// of as many bits more as no h has.
struct Range {
  double most = 0;
  int last = 0;
  bool nan = false, infinite = false;
};
Range range_of(Group& group, const RowReader& reader) {
  const Layout layout = reader.layout();
  Magnitudes all;
  group.each_block([&](const std::byte* x, std::size_t n) { kernels().magnitudes[index(layout)](x, n, all); });
  const std::uint64_t infinity = infinity_code(layout);
  Range range{
      .most = value_of(layout, all.largest), .nan = all.largest > infinity, .infinite = all.largest == infinity};
  if (all.least == ~std::uint64_t{0}) return range;
  const double least = value_of(layout, all.least + 1);
  const int fraction = std::countr_zero(infinity);
  const int emin = layout == Layout::fp64 ? -1022 : layout == Layout::fp16 ? -14 : -126;
  range.last = std::max(std::ilogb(least), emin) - fraction + std::min(fraction, std::countr_zero(all.bits));
  return range;
}

// ---- the three statistics ----

RowFactor nothing_told(Group& group, const RowReader& reader, bool squares) {
  const Range range = range_of(group, reader);  // squares of binary32 numbers do not overflow
  RowFactor row;
  row.kind = range.nan || !squares ? RowFactor::Kind::nan : RowFactor::Kind::exact;  // Inf: r = 0
  return row;
}

/// S = sum h^2. A square is exact (two times at most 24 bits), or rounds once where h has 53 bits and is itself
/// rounded: (1 + d)^2 more. Then every term passes depth() additions.
RowFactor of_squares(const RowNorm& norm, const RowReader& reader, Group& group) {
  const bool unpacked = reader.layout() == Layout::fp64;
  const double s = group.squares();
  if (!std::isfinite(s)) return nothing_told(group, reader, true);
  RowFactor row;
  if (s == 0 && without_eps(norm)) {
    row.kind = RowFactor::Kind::nan;  // 0/0
    return row;
  }
  const double weights = group.depth() + (unpacked ? 3 : 0);
  const Factor f = factor_of(norm.eps_place, norm.eps, norm.count, s, weights * kU);
  if (f.relative == kInfinity) return row;
  row.kind = RowFactor::Kind::bounded;
  row.factor = f.r;
  row.relative = f.relative + (unpacked ? kU : 0);
  if (!unpacked) row.bits = reader.precision();
  return row;
}

/// Mean and V = sum (h - mean)^2 of n values from one pass about a centre c, d = RN(h - c), S' and Q' the computed sums
/// of d and d^2, S and Q those of h - c over the reals. d rounds unless c = 0, d^2 unless it is exact, and each term
/// passes `depth` additions:
///   |S' - S| <= (depth + 1) u sum |h - c| <= (depth + 1) u sqrt(n Q)   (Cauchy-Schwarz)      |Q' - Q| <= (depth + 3) u
///   Q
/// M = RN(S'/n): mean = c + M, off by u |M| + (depth + 1) u sqrt(Q/n). V = Q - S^2/n, t = S' M:
///   |V' - V| <= (depth + 3) u Q + 2 (depth + 1) u sqrt(Q t) + 2u t + u V',   sqrt(Q t) <= Q/8 + 2t,
/// what is of second order being far below 2^-20 of it (kInflate). Where t > V' the centre is too far off: most of that
/// sum cancels.
struct Spread {
  double centre = 0, shift = 0;  ///< c and M
  double v = 0, error = 0;
  double eta = 0;  ///< |mean - c - M| <= eta
  bool close = false;
};
Spread spread_of(const Moments& m, double centre, double n, double depth) {
  Spread s{.centre = centre, .shift = m.sum / n};
  const double t = m.sum * s.shift, q = m.squares;
  s.v = std::max(q - t, 0.0);
  s.error = ((depth + 3) * q + 2 * (depth + 1) * (q / 8 + 2 * t) + 2 * t + s.v) * (kU * kInflate);
  s.eta = q == 0 ? 0 : (std::fabs(s.shift) + (depth + 1) * std::sqrt(q / n)) * (kU * kInflate) + 0x1p-700;
  s.close = t <= s.v;
  return s;
}

/// Rows whose values are rounded sums h' of x + residual: |h' - h| <= u max|h| =: g each. Mean and h are off by g:
/// eta; the root of V by sqrt(n) g, as all h' - h together are in norm.
void widen(Spread& s, double n, double most) {
  const double g = kU * most * kInflate;
  s.eta += 2 * g;
  s.error += (2 * std::sqrt(n * s.v) * g + n * g * g) * kInflate;
}

RowFactor factor_of_spread(const RowNorm& norm, const Spread& s) {
  RowFactor row;
  if (s.v == 0 && s.error == 0) {  // every d is zero, and RN(h - c) is zero for h = c alone
    row.kind = without_eps(norm) ? RowFactor::Kind::nan : RowFactor::Kind::exact;
    row.factor = 1;
    row.hi = s.centre;
    return row;
  }
  const Factor f = factor_of(norm.eps_place, norm.eps, norm.count, s.v, s.error / (s.v + eps_beside(norm)));
  if (f.relative == kInfinity) return row;
  row.kind = RowFactor::Kind::bounded;
  row.factor = f.r;
  const DoubleDouble mean = two_sum(s.centre, s.shift);
  row.hi = mean.h;
  row.lo = mean.l;
  double eta = s.eta;
  if (eta != 0 && std::fabs(row.lo) * f.r <= kMostLow) {
    eta += std::fabs(row.lo);
    row.lo = 0;
  }
  // RN(h - hi), or RN(RN(h - hi) - lo): the first difference is exact if h lies in [hi/2, 2 hi] (Sterbenz), else |h -
  // hi| >= |hi|/2, far above |lo| <= u |hi|: 2u (1 + 5u).
  row.relative = f.relative + (row.lo == 0 ? 1 : 2.01) * kU;
  row.eta = f.r * eta * kInflate;
  return row;
}

/// A pass about 0 tells most rows. Others, whose mean is beyond their deviations, take another about their mean, or
/// about one of their values where nothing but noise is left: all may be equal.
RowFactor of_moments(const RowNorm& norm, const RowReader& reader, Group& group) {
  const double n = group.count();
  double centre = 0;
  Spread s;
  for (int pass = 0; pass < kMostPasses; ++pass) {
    const Moments m = group.moments(centre);
    if (!std::isfinite(m.squares)) return nothing_told(group, reader, false);
    s = spread_of(m, centre, n, group.depth());
    if (s.close) break;
    centre = pass == 0 && s.v <= s.error ? group.first() : centre + s.shift;
  }
  if (!s.close) return {};
  if (!group.exact()) widen(s, n, range_of(group, reader).most);
  return factor_of_spread(norm, s);
}

/// More than one plain pass tells. Sums are exact where every h is a multiple of g = 2^last below 2^bits g: partial
/// sums of h are binary64 numbers if n 2^bits <= 2^53, those of h^2 if n 2^(2 bits) <= 2^53, in every order.
///
/// Mean of other values: TwoSum in lanes, n + 34 blocks additions, each with an error of at most u M, M = n max|h|,
/// known exactly; these errors are added up in binary64, passing at most 546 + 2 blocks additions: |T - sum| <= (546 +
/// 2 blocks) u (n + 34 blocks) u M. T is then made a double-double, |Tl| <= u |Th|. hi = RN(Th / n); the remainder Th -
/// hi n is exact by FMA; (remainder + Tl) / n rounds twice: 2u |lo| (1 + u).
///
/// If the mean is hi, a multiple of 2^-kFiner g, then h - hi has bits + 1 + kFiner bits, and V = Q - S hi is exact if
/// its two operations are.
class CarefulFactor {
 public:
  CarefulFactor(const RowNorm& norm, const RowReader& reader, Group& group)
      : norm_(norm), group_(group), layout_(reader.layout()), range_(range_of(group, reader)), n_(group.count()) {
    if (layout_ == Layout::fp64 || range_.most == 0) return;
    bits_ = std::ilogb(range_.most) + 1 - range_.last;
    exact_sum_ = std::ldexp(n_, bits_) <= 0x1p53;
    exact_squares_ = std::ldexp(n_, 2 * bits_) <= 0x1p53;
  }

  RowFactor of_squares() const {
    RowFactor row;
    if (range_.nan || range_.infinite || !exact_squares_) return row;
    const Factor f = factor_of(norm_.eps_place, norm_.eps, norm_.count, group_.squares(), 0);
    return bounded(f, f.relative, bits_);
  }

  RowFactor of_moments() const {
    if (range_.nan || range_.infinite || range_.most == 0) return {};
    double squares = 0;
    const DoubleDouble sum = total(squares);
    const double hi = sum.h / n_, remainder = std::fma(-hi, n_, sum.h);
    const double lo = remainder == 0 && sum.l == 0 ? 0 : (remainder + sum.l) / n_;
    double eta = sum_error() == 0 && lo == 0 ? 0 : (sum_error() / n_ + 2 * kU * std::fabs(lo)) * kInflate + 0x1p-700;
    const double scaled = std::ldexp(hi, kFiner - range_.last);
    const bool same_grid = exact_sum_ && remainder == 0 && scaled == std::rint(scaled) && bits_ + kFiner < 52;
    Spread s;
    const double t = sum.h * hi;
    const DoubleDouble v = two_sum(squares, -t);
    if (same_grid && exact_squares_ && std::fma(sum.h, hi, -t) == 0 && v.l == 0) {
      s.v = v.h;
    } else {
      s = spread_of(group_.moments(hi), hi, n_, group_.depth());
      if (!s.close) return {};
      if (!group_.exact()) {
        widen(s, n_, range_.most);
        eta += 2 * kU * range_.most * kInflate;
      }
    }
    if (s.v == 0 && s.error == 0) return {};
    const Factor f = factor_of(norm_.eps_place, norm_.eps, norm_.count, s.v, s.error / (s.v + eps_beside(norm_)));
    RowFactor row = bounded(f,
                            f.relative + (same_grid ? 0
                                          : lo == 0 ? 1
                                                    : 2.01) *
                                             kU,
                            same_grid ? bits_ + 1 + kFiner : RowFactor().bits);
    row.hi = hi;
    row.lo = lo;
    row.eta = f.r * eta * kInflate;
    return row;
  }

 private:
  static RowFactor bounded(const Factor& f, double relative, int bits) {
    RowFactor row;
    if (f.relative == kInfinity) return row;
    row.kind = RowFactor::Kind::bounded;
    row.factor = f.r;
    row.relative = relative;
    row.bits = bits;
    return row;
  }
  DoubleDouble total(double& squares) const {
    if (exact_sum_) {
      const Moments m = group_.moments(0);
      squares = m.squares;
      return {m.sum, 0};
    }
    DoubleDouble all;
    group_.each_block([&](const std::byte* x, std::size_t n) {
      const DoubleDouble block = kernels().sum_two[index(layout_)](x, n);
      const DoubleDouble s = two_sum(all.h, block.h);
      all = {s.h, all.l + (s.l + block.l)};
    });
    return two_sum(all.h, all.l);
  }
  double sum_error() const {
    const auto blocks = static_cast<double>(group_.blocks());
    return exact_sum_ ? 0 : (546 + 2 * blocks) * kU * (n_ + 34 * blocks) * kU * (n_ * range_.most);
  }

  const RowNorm& norm_;
  Group& group_;
  Layout layout_;
  Range range_;
  double n_;
  int bits_ = 0;
  bool exact_sum_ = false, exact_squares_ = false;
};

/// h - m rounds once. h that is a rounded sum is off by u max|h|.
RowFactor of_given(const RowNorm& norm, const RowReader& reader, std::int64_t row_index, Group& group) {
  const std::int64_t g = row_index % norm.groups;
  const double m = norm.mean == nullptr ? 0 : norm.mean->value(g);
  const double v = norm.variance == nullptr ? 0 : norm.variance->value(g);
  RowFactor row;
  if (std::isnan(m) || std::isnan(v)) {
    row.kind = RowFactor::Kind::nan;
    return row;
  }
  if (std::isinf(m) || std::isinf(v)) return row;
  const Factor f = factor_of(norm.eps_place, norm.eps, norm.count, v, 0);
  if (f.relative == kInfinity) return row;
  if (!group.only().exact) {
    const Range range = range_of(group, reader);
    if (range.nan || range.infinite) return row;
    row.eta = f.r * kU * range.most * kInflate;
  }
  row.kind = RowFactor::Kind::ieee;
  row.hi = m;
  row.factor = f.r;
  row.relative = f.relative + kU;
  return row;
}

}  // namespace

RowReader::RowReader(const RowNorm& norm) : norm_(norm) {
  const Format& f = format_of(norm.x->format);
  precision_ = f.precision;
  unpacks_ = true;
  layout_ = Layout::fp32;
  switch (norm.x->format) {
    case FormatId::bf16: layout_ = Layout::bf16; break;
    case FormatId::fp16: layout_ = Layout::fp16; break;
    default: break;
  }
  if (layout_ != Layout::fp32 || f.storage_bits == 32) unpacks_ = false;
  if (norm.residual != nullptr) {
    layout_ = Layout::fp64;
    precision_ = 53;
    unpacks_ = true;
  }
}

RowValues RowReader::read(std::int64_t row, Scratch& scratch) const {
  const auto cols = static_cast<std::size_t>(norm_.cols);
  const auto stored = [&](const Tensor& t) {
    return t.bytes.data() +
           static_cast<std::size_t>(row) * cols * static_cast<std::size_t>(format_of(t.format).storage_bytes());
  };
  if (!unpacks_) return {stored(*norm_.x), layout_, true};
  scratch.x.resize(cols);
  decode_row(norm_.x->format, stored(*norm_.x), scratch.x.data(), cols);
  if (norm_.residual == nullptr) return {scratch.x.data(), layout_, true};
  scratch.residual.resize(cols);
  scratch.h.resize(cols);
  decode_row(norm_.residual->format, stored(*norm_.residual), scratch.residual.data(), cols);
  const bool exact = kernels().add_rows(scratch.x.data(), scratch.residual.data(), cols, scratch.h.data());
  return {scratch.h.data(), layout_, exact};
}

RowFactor row_factor(const RowNorm& norm, const RowReader& reader, std::int64_t row, RowReader::Scratch& scratch,
                     RowValues& values, bool careful) {
  Group group(norm, reader, row, scratch);
  values = group.only();
  switch (norm.statistics) {
    case Statistics::squares:
      return careful ? CarefulFactor(norm, reader, group).of_squares() : of_squares(norm, reader, group);
    case Statistics::moments:
      return careful ? CarefulFactor(norm, reader, group).of_moments() : of_moments(norm, reader, group);
    case Statistics::given: break;
  }
  return of_given(norm, reader, row, group);
}

}  // namespace norma

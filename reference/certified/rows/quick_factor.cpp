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

// ---- sums of many blocks ----

std::size_t index(Layout layout) { return static_cast<std::size_t>(layout); }
std::size_t bytes_of(Layout layout) { return layout == Layout::fp64 ? 8 : layout == Layout::fp32 ? 4 : 2; }

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
  template <class Sum>
  double sum(Sum sum_block) {
    if (blocks() == 1) {
      exact_ = only_.exact;
      return sum_block(static_cast<const std::byte*>(only_.data), static_cast<std::size_t>(norm_.cols));
    }
    Pairwise pairs;
    each_block([&](const std::byte* x, std::size_t n) { pairs.push(sum_block(x, n)); });
    return pairs.total();
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
  f.relative *= kInflate;
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

/// Largest and least nonzero magnitude; the latter infinite if all are zero.
struct Range {
  double most, least;
  bool nan, infinite;
};
Range range_of(Group& group, Layout layout) {
  std::uint64_t most = 0, least = ~std::uint64_t{0};
  group.each_block([&](const std::byte* x, std::size_t n) {
    std::uint64_t top = 0, bottom = 0;
    kernels().magnitudes[index(layout)](x, n, top, bottom);
    most = std::max(most, top);
    least = std::min(least, bottom);
  });
  const std::uint64_t infinity = infinity_code(layout);
  return {value_of(layout, most), least == ~std::uint64_t{0} ? kInfinity : value_of(layout, least + 1), most > infinity,
          most == infinity};
}

// ---- the three statistics ----

/// S = sum h^2. A square is exact (two times at most 24 bits), or rounds once where h has 53 bits and is itself
/// rounded: (1 + d)^2 more. Then every term passes depth() additions.
RowFactor of_squares(const RowNorm& norm, const RowReader& reader, Group& group) {
  const Layout layout = reader.layout();
  const bool unpacked = layout == Layout::fp64;
  const double s =
      group.sum([&](const std::byte* x, std::size_t n) { return kernels().sum_squares[index(layout)](x, n); });
  RowFactor row;
  if (!std::isfinite(s)) {  // squares of binary32 numbers do not overflow
    const Range range = range_of(group, layout);
    row.kind = range.nan ? RowFactor::Kind::nan : RowFactor::Kind::exact;  // Inf: r = 0
    return row;
  }
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
  return row;
}

/// The mean of D values as hi + lo, |mean - hi - lo| <= eta.
///
/// Sum: if D max|h| <= 2^53 lsb, lsb the last place of the least nonzero |h|, every partial sum in every order is a
/// binary64 number and the plain sum is exact. Else TwoSum in lanes: n + 34 blocks additions, each with an error of at
/// most u M, M = D max|h|, known exactly; these errors are added up in binary64, passing at most 546 + 2 blocks
/// additions: |T - sum| <= (546 + 2 blocks) u (n + 34 blocks) u M. T is then made a double-double, |Tl| <= u |Th|.
/// Mean: hi = RN(Th / D); the remainder Th - hi D is exact by FMA; (remainder + Tl) / D rounds twice: 2u |lo| (1 + u).
/// Values that are rounded sums x + residual: their mean and they themselves are off by u max|h| each.
struct Mean {
  double hi = 0, lo = 0, eta = 0;
};
Mean mean_of(Group& group, const RowReader& reader, const Range& range) {
  const double d = group.count();
  const Layout layout = reader.layout();
  double high = 0, low = 0, error = 0;
  const bool fits = [&] {
    if (layout == Layout::fp64 || range.least == kInfinity) return range.least == kInfinity;
    const int last = std::max(std::ilogb(range.least), reader.emin()) - reader.precision() + 1;
    return std::ldexp(d, std::ilogb(range.most) + 1 - last) <= 0x1p53;
  }();
  if (fits) {
    high = group.sum([&](const std::byte* x, std::size_t n) { return kernels().sum[index(layout)](x, n); });
  } else {
    group.each_block([&](const std::byte* x, std::size_t n) {
      const DoubleDouble block = kernels().sum_two[index(layout)](x, n);
      const DoubleDouble s = two_sum(high, block.h);
      high = s.h;
      low += s.l + block.l;
    });
    const double blocks = static_cast<double>(group.blocks());
    error = (546 + 2 * blocks) * kU * (d + 34 * blocks) * kU * (d * range.most);
    const DoubleDouble s = two_sum(high, low);
    high = s.h;
    low = s.l;
  }
  Mean mean;
  mean.hi = high / d;
  const double remainder = std::fma(-mean.hi, d, high);
  if (remainder != 0 || low != 0) mean.lo = (remainder + low) / d;
  if (error != 0 || mean.lo != 0) mean.eta = (error / d + 2 * kU * std::fabs(mean.lo)) * kInflate + 0x1p-700;
  if (!group.exact()) mean.eta += 2 * kU * range.most * kInflate;
  return mean;
}

/// True if every h is the same binary64 number, +0 and -0 told apart.
bool all_equal(Group& group, Layout layout, std::uint64_t& code) {
  const std::size_t bytes = bytes_of(layout);
  std::vector<std::byte> first;
  bool equal = group.exact();
  group.each_block([&](const std::byte* x, std::size_t n) {
    if (first.empty()) first.assign(x, x + bytes);
    for (std::size_t i = 0; equal && i < n; ++i) equal = std::memcmp(first.data(), x + i * bytes, bytes) == 0;
  });
  code = 0;
  std::memcpy(&code, first.data(), bytes);
  return equal;
}

/// d' = RN(RN(h - hi) - lo). If h lies in [hi/2, 2 hi] the first difference is exact (Sterbenz); else |h - hi| >=
/// |hi|/2, far above |lo| <= 3u |hi|. So |d' - (h - hi - lo)| <= 2u (1 + 5u) |d'| and |d' - d| <= 2.01u |d'| + eta. V'
/// = sum d'^2, a product and depth() additions each rounding, against V = sum d^2:
///   |V' - V| <= (depth + 1 + 4.1) u V' + 2.01 eta sqrt(D V') + 1.01 D eta^2     (Cauchy-Schwarz on sum |d'|).
RowFactor of_moments(const RowNorm& norm, const RowReader& reader, Group& group) {
  const Layout layout = reader.layout();
  RowFactor row;
  const Range range = range_of(group, layout);
  if (range.nan || range.infinite) {
    row.kind = RowFactor::Kind::nan;
    return row;
  }
  const Mean mean = mean_of(group, reader, range);
  const double v = group.sum([&](const std::byte* x, std::size_t n) {
    return kernels().sum_deviations[index(layout)](x, n, mean.hi, mean.lo);
  });
  row.hi = mean.hi;
  row.lo = mean.lo;
  const double d = group.count();
  const double error =
      mean.eta == 0 && v == 0
          ? 0
          : ((group.depth() + 6) * kU * v + 2.01 * mean.eta * std::sqrt(d * v) + 1.01 * d * mean.eta * mean.eta) *
                kInflate;
  std::uint64_t code = 0;
  const bool constant = error == 0 ? v == 0 : error >= v * kMostRelative && all_equal(group, layout, code);
  if (constant) {  // V = 0
    row.kind = without_eps(norm) ? RowFactor::Kind::nan : RowFactor::Kind::exact;
    row.factor = 1;
    if (error != 0) {
      row.hi = value_of(layout, code);
      row.lo = 0;
    }
    return row;
  }
  const Factor f = factor_of(norm.eps_place, norm.eps, norm.count, v, error / (v + eps_beside(norm)));
  if (f.relative == kInfinity) return row;
  row.kind = RowFactor::Kind::bounded;
  row.factor = f.r;
  row.relative = f.relative + 2.01 * kU;
  row.eta = f.r * mean.eta * kInflate;
  return row;
}

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
  const Range range = range_of(group, reader.layout());
  row.kind = range.nan || range.infinite ? RowFactor::Kind::ieee : RowFactor::Kind::bounded;
  if (!group.exact()) {
    if (row.kind == RowFactor::Kind::ieee) return {};
    row.eta = f.r * kU * range.most * kInflate;
  }
  row.hi = m;
  row.factor = f.r;
  row.relative = f.relative + kU;
  return row;
}

}  // namespace

RowReader::RowReader(const RowNorm& norm) : norm_(norm) {
  const Format& f = format_of(norm.x->format);
  precision_ = f.precision;
  emin_ = f.emin;
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
                     RowValues& values) {
  Group group(norm, reader, row, scratch);
  values = group.only();
  switch (norm.statistics) {
    case Statistics::squares: return of_squares(norm, reader, group);
    case Statistics::moments: return of_moments(norm, reader, group);
    case Statistics::given: break;
  }
  return of_given(norm, reader, row, group);
}

}  // namespace norma

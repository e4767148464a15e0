// Softmax in three tiers. u = 2^-53.
#include "reference/certified/functions/softmax.hpp"

#include <oneapi/tbb/combinable.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <vector>

#include "reference/certified/functions/function_kernels.hpp"
#include "reference/certified/functions/functions.hpp"
#include "reference/certified/rounding.hpp"
#include "reference/certified/share_out.hpp"
#include "reference/exact/real.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::size_t bytes_of(FormatId format) { return static_cast<std::size_t>(format_of(format).storage_bytes()); }

void decode(const Tensor& x, std::int64_t row, std::span<double> out) { decode_values(x, row * x.cols(), out); }

// ---- sums by halves ----

constexpr std::size_t kBlock = 4096;  // binary64: 128 additions in a lane, 5 of the lanes
constexpr std::size_t kPairBlock = 64;

// Additions that a term passes, for blocks of `block` terms with `inner` additions each.
int depth_of(std::size_t count, std::size_t block, int inner) {
  return inner + static_cast<int>(std::bit_width((count + block - 1) / block));
}
int binary64_depth(std::size_t count) {
  return depth_of(count, kBlock, static_cast<int>((std::min(count, kBlock) + 31) / 32) + 5);
}
int pair_depth(std::size_t count) { return depth_of(count, kPairBlock, static_cast<int>(std::min(count, kPairBlock))); }

// The first half has a power of two of blocks.
std::size_t split(std::size_t count, std::size_t block) { return block * std::bit_floor((count - 1) / block); }

double sum(std::span<const double> e) {
  if (e.size() <= kBlock) return function_kernels().sum(e.data(), e.size());
  const std::size_t half = split(e.size(), kBlock);
  return sum(e.first(half)) + sum(e.subspan(half));
}

// ---- binary64 ----

enum class RowKind { distinct, equal, nan };

struct QuickSoftmaxRow {
  RowKind kind = RowKind::nan;
  double most = 0;
  std::size_t finite = 0;  ///< how many scores are not -Inf
};

QuickSoftmaxRow classify(std::span<const double> x) {
  const ScoreRange r = function_kernels().range_of(x.data(), x.size());
  const bool nan = r.nan || !std::isfinite(r.most);
  return {nan ? RowKind::nan : r.least < r.most ? RowKind::distinct : RowKind::equal, r.most, r.finite};
}

// y in place of x. Each e^(x - most) has 2u (function_kernels: the difference is an exact pair); the sum has 2u and its
// depth h; the reciprocal and the product u each: (h + 6)u and second order. Terms cut off at e^-708 miss less than
// 2^-1021, the sum is at least 1: kFunctionFloor covers them. Returns the relative bound.
double evaluate_row(std::span<double> x, double most) {
  const FunctionKernels& kernels = function_kernels();
  kernels.exp_differences(x.data(), most, x.data(), x.size());
  kernels.multiply(1 / sum(x), x.data(), x.size());
  return (binary64_depth(x.size()) + 6.001) * kUnitRoundoff;
}

// ---- double-double ----

// e^(x - most), 0 for what is below 2^-1000.
DoubleDouble exp_difference(double x, double most) {
  const DoubleDouble d = two_sum(x, -most);
  return d.h < -690 || x == -kInfinity ? DoubleDouble{} : evaluate(Function::exp, d);
}

DoubleDouble sum_of_powers(std::span<const double> x, double most) {
  if (x.size() > kPairBlock) {
    const std::size_t half = split(x.size(), kPairBlock);
    return add(sum_of_powers(x.first(half), most), sum_of_powers(x.subspan(half), most));
  }
  DoubleDouble s{};
  for (const double v : x) s = add(s, exp_difference(v, most));
  return s;
}

// ---- the truth ----

struct SoftmaxRow {
  RowKind kind = RowKind::nan;
  double most = 0;
  std::size_t finite = 0;
  std::vector<double> x;
  DoubleDouble total;
  double relative = 0;  ///< of y in double-double
  // The sum at the highest precision asked for so far.
  std::mutex mutex;
  Interval sum{53};
};

Interval exp_difference(double x, double most, mpfr_prec_t bits) {
  // Outward-rounded, the difference is known to 2^-(bits + 64) of itself.
  return evaluate(Function::exp, sub(Interval(x, bits + 64), Interval(most, bits + 64)));
}

class SoftmaxTruth final : public TruthSource {
 public:
  explicit SoftmaxTruth(const Tensor& x) : x_(x) {}
  std::int64_t rows() const override { return x_.rows(); }
  std::int64_t cols() const override { return x_.cols(); }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    const auto r = row_at(row);
    for (std::size_t j = 0; j < r->x.size(); ++j) out[j] = enclose(*r, r->x[j]);
  }
  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    const auto r = row_at(row);
    return enclose(*r, r->x[static_cast<std::size_t>(col)]);
  }

  Tier enclose_quick(std::int64_t row, const QuickRow& out) const override {
    const auto count = static_cast<std::size_t>(cols());
    const std::span<double> mid = out.mid.first(count);
    decode(x_, row, mid);
    const QuickSoftmaxRow r = classify(mid);
    std::fill_n(out.radius.begin(), count, 0.0);
    if (r.kind == RowKind::nan) {
      std::fill(mid.begin(), mid.end(), kNaN);
    } else if (r.kind == RowKind::equal) {
      const double share = 1 / static_cast<double>(r.finite);
      const double radius = std::has_single_bit(r.finite) ? 0 : share * kUnitRoundoff;
      for (std::size_t j = 0; j < count; ++j) {
        const bool none = mid[j] == -kInfinity;
        mid[j] = none ? 0 : share;
        out.radius[j] = none ? 0 : radius;
      }
    } else {
      const double relative = evaluate_row(mid, r.most) * (1 + 0x1p-50);
      for (std::size_t j = 0; j < count; ++j) out.radius[j] = mid[j] == 0 ? 0 : relative * mid[j] + kFunctionFloor;
    }
    std::copy(mid.begin(), mid.end(), out.magnitude.begin());
    return Tier::binary64;
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    const auto r = row_at(row);
    const double x = r->x[static_cast<std::size_t>(col)];
    const Dyadic m = Dyadic(m_hi) + Dyadic(m_lo);
    if (r->kind == RowKind::nan) return Comparison::undecided;
    if (x == -kInfinity) return static_cast<Comparison>(-m.sign());
    if (r->kind == RowKind::equal)
      return static_cast<Comparison>(order(Dyadic(1.0), m * Dyadic(static_cast<double>(r->finite))));
    if (m.sign() <= 0) return Comparison::greater;
    if (order(m, Dyadic(1.0)) >= 0) return Comparison::less;
    for (const mpfr_prec_t bits : {192, 384, 768, 1536, 4096}) {
      const Interval y = div(exp_difference(x, r->most, bits), sum(*r, bits));
      const Comparison answer = norma::compare(y, m_hi, m_lo);
      if (answer != Comparison::undecided) return answer;
    }
    return Comparison::undecided;
  }

 private:
  static Enclosure enclose(SoftmaxRow& row, double x) {
    if (row.kind == RowKind::nan) return {.hi = kNaN, .lo = 0, .radius = 0, .magnitude = kNaN};
    if (x == -kInfinity) return {.hi = 0, .lo = 0, .radius = 0, .magnitude = 0, .tier = Tier::binary64};
    if (row.kind == RowKind::equal) {
      const auto n = static_cast<double>(row.finite);
      const DoubleDouble y = div(DoubleDouble{1, 0}, n);
      const double radius = std::has_single_bit(row.finite) ? 0 : 0x1p-104 * y.h;  // 3u^2
      return {.hi = y.h, .lo = y.l, .radius = radius, .magnitude = y.h, .tier = Tier::double_double};
    }
    const double d = x - row.most;
    if (d > -600) {
      const DoubleDouble y = div(exp_difference(x, row.most), row.total);
      return {.hi = y.h, .lo = y.l, .radius = row.relative * y.h, .magnitude = y.h, .tier = Tier::double_double};
    }
    if (d < -800) return {.hi = 0, .lo = 0, .radius = 0x1p-1074, .magnitude = 0, .tier = Tier::double_double};
    return enclosure_of(div(exp_difference(x, row.most, 192), sum(row, 192)));
  }

  static Interval sum(SoftmaxRow& row, mpfr_prec_t bits) {
    const std::lock_guard lock(row.mutex);
    if (row.sum.bits() < bits) {
      std::vector<Interval> terms;
      terms.reserve(row.x.size());
      for (const double v : row.x)
        if (v != -kInfinity) terms.push_back(exp_difference(v, row.most, bits));
      row.sum = norma::sum(terms, bits);
    }
    return row.sum;
  }

  std::shared_ptr<SoftmaxRow> make_row(std::int64_t row) const {
    auto r = std::make_shared<SoftmaxRow>();
    r->x.resize(static_cast<std::size_t>(cols()));
    decode(x_, row, r->x);
    const QuickSoftmaxRow quick = classify(r->x);
    r->kind = quick.kind;
    r->most = quick.most;
    r->finite = quick.finite;
    if (r->kind == RowKind::distinct) {
      // A power's bound for the numerator and for the sum, 3u^2 a level, 9.8u^2 of the quotient; what is cut off in the
      // sum is below 2^-990.
      r->total = sum_of_powers(r->x, r->most);
      const double levels = pair_depth(r->x.size());
      r->relative = (2 * function_bound_dd(Function::exp) + (3 * levels + 10) * 0x1p-106) * (1 + 0x1p-20);
    }
    return r;
  }

  std::shared_ptr<SoftmaxRow> row_at(std::int64_t row) const {
    Slot& slot = slots_[static_cast<std::size_t>(row) % slots_.size()];
    {
      const std::lock_guard lock(mutex_);
      if (slot.row == row) return slot.value;
    }
    auto value = make_row(row);
    const std::lock_guard lock(mutex_);
    slot = {row, value};
    return value;
  }

  struct Slot {
    std::int64_t row = -1;
    std::shared_ptr<SoftmaxRow> value;
  };
  const Tensor& x_;
  mutable std::mutex mutex_;
  mutable std::array<Slot, 16> slots_;
};

void round_row(const Tensor& x, const TruthSource& truth, std::int64_t row, FormatId format, Overflow overflow,
               std::byte* stored, TierCounts& tiers) {
  thread_local std::vector<double> values;
  thread_local std::vector<std::uint32_t> open;
  values.resize(static_cast<std::size_t>(x.cols()));
  open.clear();
  decode(x, row, values);
  const QuickSoftmaxRow r = classify(values);
  double relative = kUnitRoundoff;
  if (r.kind == RowKind::nan) {
    std::fill(values.begin(), values.end(), kNaN);
  } else if (r.kind == RowKind::equal) {
    for (double& v : values) v = v == -kInfinity ? 0 : 1 / static_cast<double>(r.finite);
    if (std::has_single_bit(r.finite)) relative = 0;
  } else {
    relative = evaluate_row(values, r.most);
  }
  if (format == FormatId::fp64) {
    for (std::size_t j = 0; j < values.size(); ++j) open.push_back(static_cast<std::uint32_t>(j));
  } else {
    // A y below kFunctionFloor rounds to 0 in every format that is left.
    round_enclosed(format, overflow, values, relative, stored, open);
  }
  tiers.binary64 += static_cast<std::int64_t>(values.size() - open.size());
  const std::size_t bytes = bytes_of(format);
  for (const std::uint32_t j : open) {
    const std::uint64_t code = round_open(truth, row, j, format, overflow, tiers);
    const std::uint64_t word = code << format_of(format).storage_shift();
    std::memcpy(stored + j * bytes, &word, bytes);
  }
}

}  // namespace

std::unique_ptr<TruthSource> softmax_truth(const Tensor& x) { return std::make_unique<SoftmaxTruth>(x); }

RoundedRows round_softmax(const Tensor& x, FormatId format, Overflow overflow, int threads) {
  RoundedRows result{.y = Tensor::zeros(format, x.shape), .tiers = {}};
  const SoftmaxTruth truth(x);
  tbb::combinable<TierCounts> counts;
  const std::size_t row_bytes = static_cast<std::size_t>(x.cols()) * bytes_of(format);
  const auto one = [&](std::int64_t row) {
    round_row(x, truth, row, format, overflow, result.y.bytes.data() + static_cast<std::size_t>(row) * row_bytes,
              counts.local());
  };
  share_out(x.rows(), 1, threads, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) one(row);
  });
  counts.combine_each([&](const TierCounts& tiers) { result.tiers += tiers; });
  return result;
}

}  // namespace norma

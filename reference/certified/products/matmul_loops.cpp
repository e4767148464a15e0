// The loops over rows. Each lane is by itself and sums have 16 lanes at every vector width, so that the bits are the
// same; a product of two values of at most 24 bits is exact in binary64, fused or not.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "reference/certified/products/matmul_parts.hpp"
#include "reference/formats/clones.hpp"

namespace norma::matmul {

namespace {

constexpr std::size_t kLanes = 16;

/// The lowest set bit of a binary32 number's significand, as bits of that power of two; ~0 for 0. With m the
/// magnitude's bits, m & (m - 1) clears it, and the difference is exact. Where the fraction is 0 the number itself is
/// the answer.
inline std::uint32_t lowest_bit(std::uint32_t m) {
  const float whole = std::bit_cast<float>(m), cleared = std::bit_cast<float>(m & (m - 1));
  const std::uint32_t of_fraction = std::bit_cast<std::uint32_t>(whole - cleared);
  const std::uint32_t low = (m & 0x007f'ffff) == 0 ? m : of_fraction;
  return low - 1;  // 0 becomes the largest; the caller adds 1 again
}

NORMA_CLONES void row_bits(const float* x, std::size_t count, std::uint32_t* largest, std::uint32_t* smallest) {
  std::uint32_t top = 0, low = ~std::uint32_t{0};
  for (std::size_t k = 0; k < count; ++k) {
    const std::uint32_t m = std::bit_cast<std::uint32_t>(x[k]) & 0x7fff'ffff;
    const std::uint32_t bit = lowest_bit(m);
    top = top > m ? top : m;
    low = low < bit ? low : bit;
  }
  *largest = top;
  *smallest = low;
}

NORMA_CLONES void row_squares(const float* x, std::size_t count, double* __restrict values,
                              double* __restrict squares) {
  double sum[kLanes] = {};
  const std::size_t whole = count / kLanes * kLanes;
  for (std::size_t k = 0; k < whole; k += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double v = static_cast<double>(x[k + l]);
      values[k + l] = v;
      sum[l] += v * v;
    }
  }
  for (std::size_t k = whole; k < count; ++k) {
    const double v = static_cast<double>(x[k]);
    values[k] = v;
    sum[k - whole] += v * v;
  }
  for (std::size_t l = 0; l < kLanes; ++l) squares[l] = sum[l];
}

/// Lanes of sum a b and of sum |a b|, each in two words: TwoSum, the errors summed apart.
NORMA_CLONES void dot_lanes(const double* __restrict a, const double* __restrict b, std::size_t count,
                            double* __restrict sum, double* __restrict sum_low, double* __restrict magnitude,
                            double* __restrict magnitude_low) {
  double s[kLanes] = {}, e[kLanes] = {}, m[kLanes] = {}, f[kLanes] = {};
  const std::size_t whole = count / kLanes * kLanes;
  for (std::size_t k = 0; k < whole; k += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double p = a[k + l] * b[k + l], q = std::fabs(p);
      const double n = s[l] + p, t = n - s[l];
      e[l] += (s[l] - (n - t)) + (p - t);
      s[l] = n;
      const double o = m[l] + q, v = o - m[l];
      f[l] += (m[l] - (o - v)) + (q - v);
      m[l] = o;
    }
  }
  for (std::size_t k = whole; k < count; ++k) {
    const std::size_t l = k - whole;
    const double p = a[k] * b[k];
    const DoubleDouble n = two_sum(s[l], p), o = two_sum(m[l], std::fabs(p));
    e[l] += n.l;
    s[l] = n.h;
    f[l] += o.l;
    m[l] = o.h;
  }
  for (std::size_t l = 0; l < kLanes; ++l) {
    sum[l] = s[l], sum_low[l] = e[l];
    magnitude[l] = m[l], magnitude_low[l] = f[l];
  }
}

/// The lanes' pairs added in a tree.
DoubleDouble add_lanes(const double* high, const double* low) {
  DoubleDouble sums[kLanes];
  for (std::size_t l = 0; l < kLanes; ++l) sums[l] = two_sum(high[l], low[l]);
  for (std::size_t width = kLanes / 2; width > 0; width /= 2)
    for (std::size_t l = 0; l < width; ++l) sums[l] = add(sums[l], sums[l + width]);
  return sums[0];
}

/// Sums below this many units of their grid are exact (matmul_block.cpp); the margin covers what the comparison's own
/// products round.
constexpr double kExact = 0x1p53 * (1 - 0x1p-40);
/// What rounding a few nonnegative terms may take away.
constexpr double kUp = 1 + 0x1p-50;

NORMA_CLONES void bound_loop(double span, double factor, const double* __restrict spans, const double* __restrict norms,
                             const double* __restrict bias, std::size_t count, double* __restrict mid,
                             double* __restrict radius) {
  for (std::size_t j = 0; j < count; ++j) {
    const double c = mid[j] + 0.0, b = bias[j];  // + 0.0: -0 becomes 0
    const double s = c + b, t = s - c;
    const double error = std::fabs((c - (s - t)) + (b - t));
    const double inexact = factor * norms[j];
    const double of_product = span * spans[j] <= kExact ? 0.0 : inexact;
    mid[j] = s;
    radius[j] = (of_product + error) * kUp;
  }
}

NORMA_CLONES void bound_split_loop(const BoundSplitRow& row, const double* __restrict norms,
                                   const double* __restrict low_norms, const double* __restrict grids,
                                   const double* __restrict rest, const double* __restrict bias, std::size_t count,
                                   double* __restrict mid, double* __restrict radius) {
  const double high = row.high_norm, low = row.low_norm, grid = row.grid, factor = row.factor;
  for (std::size_t j = 0; j < count; ++j) {
    // c + bias + rest: three TwoSums; what the second and third leave is dropped.
    const double c = mid[j] + 0.0, b = bias[j], r = rest[j];
    const double s = c + b, s1 = s - c;
    const double e = (c - (s - s1)) + (b - s1);
    const double t = e + r, t1 = t - e;
    const double dropped_t = std::fabs((e - (t - t1)) + (r - t1));
    const double y = s + t, y1 = y - s;
    const double dropped_y = std::fabs((s - (y - y1)) + (t - y1));
    const double terms = high * low_norms[j] + low * norms[j];
    const double inexact = factor * terms;
    const double of_rest = terms <= kExact * (grid * grids[j]) ? 0.0 : inexact;
    mid[j] = y + 0.0;
    radius[j] = (of_rest + (dropped_t + dropped_y)) * kUp;
  }
}

NORMA_CLONES void split_loop(const double* __restrict x, std::size_t count, double big, double* __restrict high,
                             double* __restrict low) {
  for (std::size_t k = 0; k < count; ++k) {
    const double h = (x[k] + big) - big;
    high[k] = h;
    low[k] = x[k] - h;
  }
}

NORMA_CLONES void absolute_loop(const double* __restrict x, std::size_t count, double* __restrict magnitude) {
  for (std::size_t k = 0; k < count; ++k) magnitude[k] = std::fabs(x[k]);
}

}  // namespace

RowFacts take_row(const float* x, std::size_t count, double* values) {
  RowFacts facts{};
  row_bits(x, count, &facts.largest, &facts.smallest_bit);
  ++facts.smallest_bit;  // 0 for a row of zeros
  double squares[kLanes];
  row_squares(x, count, values, squares);
  for (const double lane : squares) facts.squares += lane;
  return facts;
}

/// With n terms in 16 lanes a lane has L = ceil(n / 16). TwoSum is exact, so a lane's s plus its errors e_i is its sum;
/// |e_i| <= u |s_i|, their own summation rounds L - 1 times: off by at most (L - 1) u sum |e_i| <= L^2 u^2 S, S = sum
/// |a b| (Ogita, Rump, Oishi 2005, Sum2, the second word kept). Four levels of double-word additions, each within
/// 3u^2 + 13u^3 of its result, add 13 u^2 S; runs of 2^16 terms are added up the same way, 3.1u^2 S each.
Dot dot(std::span<const double> a, std::span<const double> b) {
  constexpr std::size_t kRun = 1 << 16;
  Dot total{};
  double runs = 0;
  for (std::size_t k = 0; k < a.size(); k += kRun) {
    double s[kLanes], e[kLanes], m[kLanes], f[kLanes];
    dot_lanes(a.data() + k, b.data() + k, std::min(kRun, a.size() - k), s, e, m, f);
    total.value = add(total.value, add_lanes(s, e));
    total.magnitude = add(total.magnitude, add_lanes(m, f));
    ++runs;
  }
  const double lanes = std::ceil(static_cast<double>(std::min(a.size(), kRun)) / static_cast<double>(kLanes));
  total.error = (lanes * lanes + 16 + 4 * runs) * 0x1p-106 * (1 + 0x1p-19) * total.magnitude.h;
  return total;
}

void bound_row(const BoundRow& row, double* mid, double* radius) {
  bound_loop(row.span, row.factor, row.spans, row.norms, row.bias, row.count, mid, radius);
}

void bound_split_row(const BoundSplitRow& row, double* mid, double* radius) {
  bound_split_loop(row, row.norms, row.low_norms, row.grids, row.rest, row.bias, row.count, mid, radius);
}

void split_row(const double* x, std::size_t count, double grid, double* high, double* low) {
  split_loop(x, count, 0x1.8p52 * grid, high, low);
}

void absolute_row(const double* x, std::size_t count, double* magnitude) { absolute_loop(x, count, magnitude); }

}  // namespace norma::matmul

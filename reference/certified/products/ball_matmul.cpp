// Products of balls by slices, of three or more; quick_ball_matmul.cpp has two. u = 2^-53, g(n) = n u / (1 - n u).
//
// A row's midpoints are cut into slices x = x1 + x2 + ... + xR: x1 the multiple of 2^-s t nearest to x, t a power of
// two not below any |x|; x2 the multiple of 2^-2s t nearest to what is left, ...; xR all that is left, in binary64, off
// by at most u |xR|. So a factor is
//
//   x = x1 + ... + xR + e,   |e| <= r + u |xR|
//
// Exact: x_i . y_j for i + j <= L (L slices). Entries are at most 2^s + 1 units of their grids, and K terms of
// (2^s + 1)(2^s' + 1) stay below 2^53 by the choice of s and s'. Where all of b stands on one grid that leaves a 12
// bits or more, b is its own first slice.
//
// Rest: sum over i < L of x_i . (y's rest after L - i slices), and (x's rest after L - 1 slices) . y, added up by the
// BLAS in any order, at most n = L (K + 1) roundings an addend: |error| <= g(n) sum ||x_i|| ||rest||. A rest as one
// number is off by u of itself: one more u a factor.
//
// Balls: |(x + e)(y + f) - x y| summed over k is at most ||e|| ||y|| + ||x|| ||f|| + ||e|| ||f|| (Cauchy, Schwarz).
#include "reference/certified/products/ball_matmul.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <vector>

#include "reference/certified/products/ball_matmul_parts.hpp"
#include "reference/certified/products/blas.hpp"
#include "reference/certified/products/numbers.hpp"
#include "reference/certified/share_out.hpp"
#include "reference/formats/convert.hpp"

namespace norma {

namespace {

using namespace ball_products;

constexpr std::int64_t kSlab = 128;  // rows of b at a time: blocks do not depend on threads
constexpr int kMostSlices = 4;
constexpr int kLeastBits = 12;  // of a's first slice where b is exact

struct Row {
  std::vector<double> h, l, r;
};

void load(const BallMatrix& m, std::int64_t row, Row& to) {
  const auto depth = static_cast<std::size_t>(m.depth);
  const std::size_t first = static_cast<std::size_t>(m.first + row * m.depth);
  to.h.resize(depth), to.l.assign(depth, 0), to.r.assign(depth, 0);
  if (m.exact != nullptr) {
    const auto width = static_cast<std::size_t>(format_of(m.exact->format).storage_bytes());
    decode_row(m.exact->format, m.exact->bytes.data() + first * width, to.h.data(), depth);
    return;
  }
  std::copy_n(m.balls->h.data() + first, depth, to.h.begin());
  std::copy_n(m.balls->l.data() + first, depth, to.l.begin());
  std::copy_n(m.balls->r.data() + first, depth, to.r.begin());
}

double largest_of(const Row& row) {
  double largest = 0;
  bool finite = true;
  for (std::size_t k = 0; k < row.h.size(); ++k) {
    const double a = std::fabs(row.h[k]);
    finite = finite & (a <= kLargest) & (row.r[k] <= kLargest);
    largest = a > largest ? a : largest;
  }
  return finite ? largest : kInfinity;
}

/// Bits below `top` that hold every entry exactly; more than 53 if they need more.
int bits_of(const Row& row, double top) {
  if (top == 0 || !(top < kInfinity)) return 0;
  for (int bits : {8, 12, 16, 20, 24, 28, 29}) {
    const double grid = std::ldexp(top, -bits), c = 0x1.8p52 * grid;
    bool fits = true;
    for (std::size_t k = 0; k < row.h.size(); ++k)
      fits = ball::both(fits, ball::both((row.h[k] + c) - c == row.h[k], row.l[k] == 0));
    if (fits) return bits;
  }
  return 64;
}

double norm_of(const double* x, std::size_t count) {
  double sum[8] = {};
  std::size_t k = 0;
  for (; k + 8 <= count; k += 8)
    for (std::size_t lane = 0; lane < 8; ++lane) sum[lane] += x[k + lane] * x[k + lane];
  for (; k < count; ++k) sum[0] += x[k] * x[k];
  const double total = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
  return norm_from(total, total == 0 && std::all_of(x, x + count, [](double v) { return v == 0; }));
}

/// Rows in slices. slice[i] and rest[i]: the slice i + 1 of the text above, and what is left after i + 1 slices.
struct Sliced {
  std::int64_t rows = 0, depth = 0;
  std::vector<Numbers> slice, rest;
  std::vector<std::vector<double>> slice_norm, rest_norm;
  std::vector<double> norm, error;  ///< ||x||, ||e||; error infinite: nothing is known of the row

  Sliced(std::int64_t rows_, std::int64_t depth_, int slices)
      : rows(rows_),
        depth(depth_),
        slice(static_cast<std::size_t>(slices - 1)),
        rest(static_cast<std::size_t>(slices)),
        slice_norm(slice.size(), std::vector<double>(static_cast<std::size_t>(rows_))),
        rest_norm(rest.size(), std::vector<double>(static_cast<std::size_t>(rows_))),
        norm(static_cast<std::size_t>(rows_)),
        error(static_cast<std::size_t>(rows_)) {
    const auto size = static_cast<std::size_t>(rows_ * depth_);
    for (Numbers& n : slice) n.reserve(size);
    for (Numbers& n : rest) n.reserve(size);
  }
};

bool all_zero(const std::vector<double>& norms) {
  return std::ranges::all_of(norms, [](double norm) { return norm == 0; });
}

/// rest[0] is the row itself, rest[i] what i slices leave. `bits`: of each slice.
void cut(Row& row, std::int64_t at, int bits, Sliced& to) {
  const std::size_t depth = row.h.size(), index = static_cast<std::size_t>(at);
  const double largest = largest_of(row), top = ceiling(largest);
  const bool known = top < kInfinity;
  if (!known) std::ranges::fill(row.h, 0.0), std::ranges::fill(row.l, 0.0), std::ranges::fill(row.r, 0.0);
  const auto out = [&](Numbers& numbers) { return numbers.data() + at * to.depth; };
  const auto store_rest = [&](std::size_t level) {
    double* rest = out(to.rest[level]);
    for (std::size_t k = 0; k < depth; ++k) rest[k] = row.h[k];
    to.rest_norm[level][index] = norm_of(rest, depth);
  };
  store_rest(0);
  to.norm[index] = up(to.rest_norm[0][index]);
  double grid = known ? top : 0;
  for (std::size_t level = 0; level < to.slice.size(); ++level) {
    grid = std::ldexp(grid, -bits);
    const double c = 0x1.8p52 * grid;
    double* slice = out(to.slice[level]);
    for (std::size_t k = 0; k < depth; ++k) {
      slice[k] = (row.h[k] + c) - c;
      const DoubleDouble left = two_sum(row.h[k] - slice[k], row.l[k]);  // the difference is exact
      row.h[k] = left.h, row.l[k] = left.l;
    }
    to.slice_norm[level][index] = norm_of(slice, depth);
    store_rest(level + 1);
  }
  to.error[index] = known ? up(norm_of(row.r.data(), depth) + 0x1p-53 * to.rest_norm.back()[index]) : kInfinity;
}

void dgemm_of(const Sliced& a, const Numbers& x, const Sliced& b, const Numbers& y, double* c, bool accumulate) {
  dgemm({.m = a.rows,
         .n = b.rows,
         .k = a.depth,
         .a = x.data(),
         .lda = a.depth,
         .b = y.data(),
         .ldb = b.depth,
         .c = c,
         .ldc = b.rows,
         .accumulate = accumulate});
}

/// One slab of b, columns [j0, j0 + b.rows) of c.
void multiply(const Sliced& a, const Sliced& b, const BallTensor* bias, std::int64_t j0, std::int64_t columns,
              BallTensor& c) {
  const auto width = static_cast<std::size_t>(b.rows), size = static_cast<std::size_t>(a.rows) * width;
  const std::size_t levels = a.slice.size();  // L - 1
  const double n = static_cast<double>(levels + 1) * (static_cast<double>(a.depth) + 1), u = 0x1p-53;
  const double factor = up(n * u / (1 - n * u) + 4 * u);
  Numbers rest(size), exact(size);
  bool has_rest = false;
  struct Pair {
    const std::vector<double>*x, *y;
  };
  std::vector<Pair> rests;
  const auto add_rest = [&](const Numbers& x, const std::vector<double>& x_norm, const Numbers& y,
                            const std::vector<double>& y_norm) {
    if (all_zero(x_norm) || all_zero(y_norm)) return;
    dgemm_of(a, x, b, y, rest.data(), has_rest);
    has_rest = true;
    rests.push_back({&x_norm, &y_norm});
  };
  for (std::size_t i = 0; i < levels; ++i) {
    const std::size_t after = levels - i;  // slices of b taken: L - (i + 1)
    add_rest(a.slice[i], a.slice_norm[i], b.rest[after], b.rest_norm[after]);
  }
  add_rest(a.rest[levels], a.rest_norm[levels], b.rest[0], b.rest_norm[0]);

  // The rest first: it is small, and what is added to it later is exact.
  for (std::size_t i = 0; i < static_cast<std::size_t>(a.rows); ++i) {
    double* h = c.h.data() + static_cast<std::int64_t>(i) * columns + j0;
    double* l = c.l.data() + static_cast<std::int64_t>(i) * columns + j0;
    double* r = c.r.data() + static_cast<std::int64_t>(i) * columns + j0;
    for (std::size_t j = 0; j < width; ++j) {
      double radius = a.error[i] * b.norm[j] + a.norm[i] * b.error[j] + a.error[i] * b.error[j];
      double inexact = 0;
      for (const Pair& pair : rests) inexact += (*pair.x)[i] * (*pair.y)[j];
      radius = up(radius + factor * inexact);
      const bool is_exact = radius == 0 && inexact == 0;
      h[j] = has_rest ? rest[i * width + j] : 0.0;
      l[j] = 0;
      const bool known = a.error[i] < kInfinity && b.error[j] < kInfinity;
      r[j] = known ? (is_exact ? 0 : ball::padded(radius) + 0x1p-900) : kInfinity;
    }
  }
  const auto add_exact = [&](const Numbers& values) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(a.rows); ++i) {
      double* h = c.h.data() + static_cast<std::int64_t>(i) * columns + j0;
      double* l = c.l.data() + static_cast<std::int64_t>(i) * columns + j0;
      double* r = c.r.data() + static_cast<std::int64_t>(i) * columns + j0;
      for (std::size_t j = 0; j < width; ++j) {
        const Ball sum = ball::add({h[j], l[j], r[j]}, {values[i * width + j], 0, 0});
        h[j] = sum.h, l[j] = sum.l, r[j] = sum.r;
      }
    }
  };
  for (std::size_t i = 0; i < levels; ++i)
    for (std::size_t j = 0; i + j + 2 <= levels + 1; ++j) {
      if (all_zero(a.slice_norm[i]) || all_zero(b.slice_norm[j])) continue;
      dgemm_of(a, a.slice[i], b, b.slice[j], exact.data(), false);
      add_exact(exact);
    }
  if (bias == nullptr) return;
  for (std::size_t i = 0; i < static_cast<std::size_t>(a.rows); ++i) {
    const std::size_t at = i * static_cast<std::size_t>(columns) + static_cast<std::size_t>(j0);
    for (std::size_t j = 0; j < width; ++j) {
      const std::size_t of_bias = static_cast<std::size_t>(j0) + j;
      const Ball sum =
          ball::add({c.h[at + j], c.l[at + j], c.r[at + j]}, {bias->h[of_bias], bias->l[of_bias], bias->r[of_bias]});
      c.h[at + j] = sum.h, c.l[at + j] = sum.l, c.r[at + j] = sum.r;
    }
  }
}

}  // namespace

namespace ball_products {

double ceiling(double largest) {
  if (!(largest <= kLargest)) return kInfinity;
  if (largest == 0) return 0;
  if (largest < kSmallest) return kInfinity;
  int exponent = 0;
  const double m = std::frexp(largest, &exponent);
  return std::ldexp(1.0, m == 0.5 ? exponent - 1 : exponent);
}

int bits_beside(int other, std::int64_t depth) {
  int bits = 26;
  while (bits > 1 && static_cast<double>(depth) * (std::ldexp(1.0, bits) + 1) * (std::ldexp(1.0, other) + 1) > 0x1p53)
    --bits;
  return bits;
}

int bits_of_both(std::int64_t depth) {
  int bits = 26;
  while (static_cast<double>(depth) * (std::ldexp(1.0, bits) + 1) * (std::ldexp(1.0, bits) + 1) > 0x1p53) --bits;
  return bits;
}

double norm_from(double total, bool zero) {
  if (total >= 0x1p-900) return up(std::sqrt(total));
  return zero ? 0 : 0x1p-440;
}

}  // namespace ball_products

BallTensor ball_matmul(const BallMatrix& a, const BallMatrix& b, const BallTensor* bias, int slices, int threads) {
  if (slices <= kQuickSlices) return quick_matmul(a, b, bias, threads);
  slices = std::min(slices, kMostSlices);
  BallTensor c;
  const auto size = static_cast<std::size_t>(a.rows * b.rows);
  c.h.resize(size), c.l.resize(size), c.r.resize(size);

  // Does b stand on one grid below its rows' largest entries, and a on what that leaves it?
  std::atomic<int> needed{0};
  share_out(b.rows, 16, threads, [&](std::int64_t first, std::int64_t last) {
    Row row;
    int most = 0;
    for (std::int64_t j = first; j < last && most <= 29; ++j) {
      load(b, j, row);
      most = std::max(most, bits_of(row, ceiling(largest_of(row))));
    }
    int seen = needed.load();
    while (seen < most && !needed.compare_exchange_weak(seen, most)) {
    }
  });
  int bits_b = bits_of_both(a.depth), bits_a = bits_b;
  if (const int whole = needed.load(); whole <= 29 && bits_beside(whole, a.depth) >= kLeastBits)
    bits_b = whole, bits_a = bits_beside(whole, a.depth);

  Sliced left(a.rows, a.depth, slices);
  share_out(a.rows, 4, threads, [&](std::int64_t first, std::int64_t last) {
    Row row;
    for (std::int64_t i = first; i < last; ++i) {
      load(a, i, row);
      cut(row, i, bits_a, left);
    }
  });
  const std::int64_t slabs = (b.rows + kSlab - 1) / kSlab;
  share_out(slabs, 1, threads, [&](std::int64_t first, std::int64_t last) {
    Row row;
    for (std::int64_t slab = first; slab < last; ++slab) {
      const std::int64_t j0 = slab * kSlab, rows = std::min(kSlab, b.rows - j0);
      Sliced right(rows, b.depth, slices);
      for (std::int64_t j = 0; j < rows; ++j) {
        load(b, j0 + j, row);
        cut(row, j, bits_b, right);
      }
      multiply(left, right, bias, j0, b.rows, c);
    }
  });
  return c;
}

}  // namespace norma

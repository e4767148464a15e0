// Products of balls in two slices. u = 2^-53, g(n) = n u / (1 - n u).
//
// A row's midpoints are x1 + x2 + e: x1 the multiple of 2^-s t nearest to x, t a power of two not below any |x|; x2
// what is left, rounded; |e| <= r + u |x2|. So for y, on 2^-s' t'. Then
//
//   x . y = x1 . y1 + (x2 . y1 + x . y2)      where most of y2 is 0: 16-bit values on a grid of 17 bits or more
//   x . y = x1 . y1 + (x2 . y + x1 . y2)      elsewhere
//
// x1 . y1 is exact in any order: K (2^s + 1)(2^s' + 1) <= 2^53. Of the rest each addend passes at most n = 2 (K + 1)
// roundings, in any order, and x or y as one number is off by u of itself: |error| <= (g(n) + 2u)(|x2| |y| + |x| |y2|)
// in Euclidean norms, |x| taken as |x1| + |x2|. h + l = x1 . y1 + rest is TwoSum, without an error.
//
// In the first way only products by x2 . y1 cost a second DGEMM: x1 and x2 stand one below the other, so that the
// library packs y1 once; x . y2 goes column by column of x, for some y2 in a thousand.
//
// Balls: |(x + e)(y + f) - x y| summed over k is at most |e| |y| + |x| |f| + |e| |f| (Cauchy, Schwarz).
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <utility>
#include <vector>

#include "reference/certified/products/ball_matmul_parts.hpp"
#include "reference/certified/products/blas.hpp"
#include "reference/certified/products/numbers.hpp"
#include "reference/certified/share_out.hpp"
#include "reference/formats/clones.hpp"
#include "reference/formats/convert.hpp"

namespace norma::ball_products {

namespace {

constexpr std::size_t kLanes = 16;
constexpr std::int64_t kChunk = 1536;      // of the depth, at a time: with kSlab rows 3 MiB
constexpr std::int64_t kSlab = 256;        // rows of b at a time, of a large b; blocks do not depend on threads
constexpr std::int64_t kLargeSide = 3072;  // from here on b is large
constexpr std::int64_t kFewRows = 3;       // of a: dot products, for which y1 never leaves the first cache
constexpr std::size_t kBlock = 64;         // columns in which a y2 that is not 0 is looked for
constexpr std::int64_t kSparse = 16;       // one y2 in so many that is not 0 at most, else the second way

// ---- loops: lanes by themselves, so the same bits at every vector width ----

/// The largest |x|, and how many are beyond 2^400 or NaN.
NORMA_CLONES void extent_of(const double* x, std::size_t count, double* largest, double* beyond) {
  double top[kLanes] = {}, out[kLanes] = {};
  const std::size_t whole = count / kLanes * kLanes;
  for (std::size_t k = 0; k < whole; k += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double a = std::fabs(x[k + l]);
      top[l] = a > top[l] ? a : top[l];
      out[l] += a <= kLargest ? 0.0 : 1.0;
    }
  for (std::size_t k = whole; k < count; ++k) {
    const double a = std::fabs(x[k]);
    top[0] = a > top[0] ? a : top[0];
    out[0] += a <= kLargest ? 0.0 : 1.0;
  }
  *largest = 0, *beyond = 0;
  for (std::size_t l = 0; l < kLanes; ++l) {
    *largest = std::max(*largest, top[l]);
    *beyond += out[l];
  }
}

/// Of the two slices sums of squares, and how many are not 0.
struct SliceFacts {
  double squares1 = 0, squares2 = 0, count1 = 0, count2 = 0;
};

/// h + l as x1 + x2; c = 1.5 2^52 grids. Either of l, x1 and x2 may be null: 0, not stored.
template <bool kLow, bool kStore>
NORMA_INLINE void cut_loop(const double* h, const double* low, std::size_t count, double c, double* x1, double* x2,
                           SliceFacts* facts) {
  double s1[kLanes] = {}, s2[kLanes] = {}, n1[kLanes] = {}, n2[kLanes] = {};
  const std::size_t whole = count / kLanes * kLanes;
  for (std::size_t k = 0; k < whole; k += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double first = (h[k + l] + c) - c, rest = (h[k + l] - first) + (kLow ? low[k + l] : 0.0);
      if (kStore) x1[k + l] = first, x2[k + l] = rest;
      s1[l] += first * first, s2[l] += rest * rest;
      n1[l] += first != 0 ? 1.0 : 0.0, n2[l] += rest != 0 ? 1.0 : 0.0;
    }
  for (std::size_t k = whole; k < count; ++k) {
    const double first = (h[k] + c) - c, rest = (h[k] - first) + (kLow ? low[k] : 0.0);
    if (kStore) x1[k] = first, x2[k] = rest;
    s1[0] += first * first, s2[0] += rest * rest;
    n1[0] += first != 0 ? 1.0 : 0.0, n2[0] += rest != 0 ? 1.0 : 0.0;
  }
  *facts = {};
  for (std::size_t l = 0; l < kLanes; ++l)
    facts->squares1 += s1[l], facts->squares2 += s2[l], facts->count1 += n1[l], facts->count2 += n2[l];
}
NORMA_CLONES void cut_exact(const double* h, std::size_t count, double c, SliceFacts* facts) {
  cut_loop<false, false>(h, nullptr, count, c, nullptr, nullptr, facts);
}
NORMA_CLONES void cut_balls(const double* h, const double* l, std::size_t count, double c, double* __restrict x1,
                            double* __restrict x2, SliceFacts* facts) {
  cut_loop<true, true>(h, l, count, c, x1, x2, facts);
}

NORMA_CLONES double squares_of(const double* x, std::size_t count) {
  double sum[kLanes] = {};
  const std::size_t whole = count / kLanes * kLanes;
  for (std::size_t k = 0; k < whole; k += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) sum[l] += x[k + l] * x[k + l];
  for (std::size_t k = whole; k < count; ++k) sum[0] += x[k] * x[k];
  double total = 0;
  for (const double s : sum) total += s;
  return total;
}

/// y1 of exact numbers; left[i]: the largest |y2| of block i.
NORMA_CLONES void first_slice(const double* y, std::size_t count, double c, double* __restrict y1,
                              double* __restrict left) {
  const std::size_t blocks = count / kBlock;
  for (std::size_t i = 0; i < blocks; ++i) {
    double most[kLanes] = {};
    for (std::size_t k = i * kBlock; k < (i + 1) * kBlock; k += kLanes)
      for (std::size_t l = 0; l < kLanes; ++l) {
        const double first = (y[k + l] + c) - c, rest = std::fabs(y[k + l] - first);
        y1[k + l] = first;
        most[l] = rest > most[l] ? rest : most[l];
      }
    left[i] = 0;
    for (const double m : most) left[i] = m > left[i] ? m : left[i];
  }
  for (std::size_t k = blocks * kBlock; k < count; ++k) y1[k] = (y[k] + c) - c;
}

NORMA_CLONES double dot(const double* x, const double* y, std::size_t count) {
  double sum[kLanes] = {};
  const std::size_t whole = count / kLanes * kLanes;
  for (std::size_t k = 0; k < whole; k += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) sum[l] += x[k + l] * y[k + l];
  for (std::size_t k = whole; k < count; ++k) sum[0] += x[k] * y[k];
  double total = 0;
  for (const double s : sum) total += s;
  return total;
}

NORMA_CLONES void add_multiple(const double* x, double factor, double* __restrict to, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) to[i] += x[i] * factor;
}

/// Of one row of a and columns of b; all but `rest` by column.
struct Bounds {
  double norm, rest, error, factor;
  const double *norms, *rests, *errors;
};
NORMA_CLONES void combine(const double* __restrict exact, const double* __restrict rest, const Bounds& of,
                          double* __restrict h, double* __restrict l, double* __restrict r, std::size_t count) {
  const double *norms = of.norms, *rests = of.rests, *errors = of.errors;
  const bool known = of.error < kInfinity;
  for (std::size_t j = 0; j < count; ++j) {
    const DoubleDouble sum = two_sum(exact[j], rest[j]);
    const double inexact = of.rest * norms[j] + of.norm * rests[j];
    const double spread = of.error * norms[j] + of.norm * errors[j] + of.error * errors[j];
    const double radius = (spread + of.factor * inexact) * (1 + 0x1p-30);
    const double wide = ball::padded(radius) + 0x1p-900;
    const bool nothing = ball::both(spread == 0, inexact == 0);
    h[j] = sum.h;
    l[j] = sum.l;
    r[j] = ball::both(known, errors[j] < kInfinity) ? (nothing ? 0.0 : wide) : kInfinity;
  }
}

NORMA_CLONES void add_bias(const double* __restrict bh, const double* __restrict bl, const double* __restrict br,
                           double* __restrict h, double* __restrict l, double* __restrict r, std::size_t count) {
  for (std::size_t j = 0; j < count; ++j) {
    const Ball sum = ball::add({h[j], l[j], r[j]}, {bh[j], bl[j], br[j]});
    h[j] = sum.h, l[j] = sum.l, r[j] = sum.r;
  }
}

// ---- rows ----

/// What is known of a row: 1.5 2^52 grids of x1, and bounds of norms. error infinite: nothing, and its slices are 0.
struct RowFacts {
  double c = 0, norm = 0, rest = 0, error = 0;
};

void read(const BallMatrix& m, std::int64_t row, std::int64_t from, std::size_t count, double* values) {
  const std::size_t first = static_cast<std::size_t>(m.first + row * m.depth + from);
  const auto width = static_cast<std::size_t>(format_of(m.exact->format).storage_bytes());
  decode_row(m.exact->format, m.exact->bytes.data() + first * width, values, count);
}

double offset_of(double largest, double beyond, int bits) {
  const double top = beyond == 0 ? ceiling(largest) : kInfinity;
  return top < kInfinity ? 0x1.8p52 * std::ldexp(top, -bits) : kInfinity;
}

RowFacts facts_of(const SliceFacts& s, double c, double radii) {
  const double norm1 = norm_from(s.squares1, s.count1 == 0), norm2 = norm_from(s.squares2, s.count2 == 0);
  return {.c = c, .norm = up(norm1 + norm2), .rest = norm2, .error = up(radii + 0x1p-53 * norm2)};
}

/// Cuts one row of balls; x1 and x2 are 0 where nothing is known.
RowFacts cut_row(const double* h, const double* l, const double* r, std::size_t count, int bits, double* x1,
                 double* x2) {
  double largest = 0, beyond = 0, widest = 0, radii_beyond = 0;
  extent_of(h, count, &largest, &beyond);
  extent_of(r, count, &widest, &radii_beyond);
  const double c = offset_of(largest, beyond + radii_beyond, bits);
  if (!(c < kInfinity)) {
    std::fill_n(x1, count, 0.0), std::fill_n(x2, count, 0.0);
    return {.c = 0, .norm = 0, .rest = 0, .error = kInfinity};
  }
  SliceFacts s;
  cut_balls(h, l, count, c, x1, x2, &s);
  return facts_of(s, c, norm_from(squares_of(r, count), widest == 0));
}

/// Rows of exact numbers without their slices.
RowFacts facts_of_row(const double* y, std::size_t count, int bits, std::int64_t& left) {
  double largest = 0, beyond = 0;
  extent_of(y, count, &largest, &beyond);
  const double c = offset_of(largest, beyond, bits);
  if (!(c < kInfinity)) return {.c = 0, .norm = 0, .rest = 0, .error = kInfinity};
  SliceFacts s;
  cut_exact(y, count, c, &s);
  left += static_cast<std::int64_t>(s.count2);
  RowFacts facts = facts_of(s, c, 0);
  facts.error = 0;  // y - y1 is exact
  return facts;
}

/// All of a: x1, below it x2, row-major; x = x1 + x2, columns one after the other.
struct Left {
  std::int64_t rows, depth;
  Numbers slices, columns;
  std::vector<RowFacts> facts;
  bool has_rest = false;  ///< a row has an x2 that is not 0

  const double* first(std::int64_t i) const { return slices.data() + i * depth; }
  const double* rest(std::int64_t i) const { return slices.data() + (rows + i) * depth; }
};

Left cut_left(const BallMatrix& a, int bits, bool with_columns, int threads) {
  Left left{.rows = a.rows,
            .depth = a.depth,
            .slices = Numbers(static_cast<std::size_t>(2 * a.rows * a.depth)),
            .columns = {},
            .facts = std::vector<RowFacts>(static_cast<std::size_t>(a.rows))};
  const auto depth = static_cast<std::size_t>(a.depth);
  share_out(a.rows, 4, threads, [&](std::int64_t from, std::int64_t to) {
    const std::vector<double> zeros(a.exact != nullptr ? depth : 0);
    std::vector<double> values(zeros.size());
    for (std::int64_t i = from; i < to; ++i) {
      double *x1 = left.slices.data() + i * a.depth, *x2 = left.slices.data() + (a.rows + i) * a.depth;
      RowFacts& facts = left.facts[static_cast<std::size_t>(i)];
      if (a.exact != nullptr) {
        read(a, i, 0, depth, values.data());
        facts = cut_row(values.data(), zeros.data(), zeros.data(), depth, bits, x1, x2);
        if (facts.error < kInfinity) facts.error = 0;  // x - x1 is exact
      } else {
        const std::size_t at = static_cast<std::size_t>(a.first + i * a.depth);
        facts = cut_row(a.balls->h.data() + at, a.balls->l.data() + at, a.balls->r.data() + at, depth, bits, x1, x2);
      }
    }
  });
  left.has_rest = std::ranges::any_of(left.facts, [](const RowFacts& facts) { return facts.rest != 0; });
  if (!with_columns) return left;
  left.columns.reserve(static_cast<std::size_t>(a.rows * a.depth));
  share_out(a.depth, 64, threads, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t i = 0; i < a.rows; ++i)
      for (std::int64_t k = from; k < to; ++k) left.columns.data()[k * a.rows + i] = left.first(i)[k] + left.rest(i)[k];
  });
  return left;
}

/// A y2 that is not 0.
struct Entry {
  std::int64_t row, at;
  double value;
};

/// A thread's own.
struct Scratch {
  Numbers y1, y2, y, products;
  std::vector<double> row, left, column;
  std::vector<RowFacts> facts;
  std::vector<double> norms, rests, errors;
  std::vector<Entry> entries;
};

/// Rows [j0, j0 + count) of b: columns of c.
class Slab {
 public:
  Slab(const Left& a, const BallMatrix& b, int bits, std::int64_t j0, std::int64_t count, Scratch& scratch)
      : a_(a), b_(b), bits_(bits), j0_(j0), count_(count), s_(scratch) {}

  void multiply(const BallTensor* bias, BallTensor& c) {
    const auto size = static_cast<std::size_t>(a_.rows * count_);
    s_.products.reserve(2 * size);
    std::fill_n(s_.products.data(), 2 * size, 0.0);
    s_.facts.assign(static_cast<std::size_t>(count_), {});
    s_.entries.clear();
    if (b_.exact != nullptr)
      multiply_exact();
    else
      multiply_balls();
    for (const RowFacts& f : s_.facts)
      s_.norms.push_back(f.norm), s_.rests.push_back(f.rest), s_.errors.push_back(f.error);
    store(bias, c);
    s_.norms.clear(), s_.rests.clear(), s_.errors.clear();
  }

 private:
  double* exact() { return s_.products.data(); }
  double* rest() { return s_.products.data() + a_.rows * count_; }

  /// to += x . y, rows of x in a row's slices, rows of y `stride` apart.
  void add(std::int64_t rows, const double* x, const double* y, std::int64_t stride, std::int64_t depth, double* to) {
    dgemm({.m = rows,
           .n = count_,
           .k = depth,
           .a = x,
           .lda = a_.depth,
           .b = y,
           .ldb = stride,
           .c = to,
           .ldc = count_,
           .accumulate = true});
  }
  void add_first(const double* y1, std::int64_t stride, std::int64_t from, std::int64_t depth, bool dense) {
    add(a_.has_rest && !dense ? 2 * a_.rows : a_.rows, a_.first(0) + from, y1, stride, depth, exact());
  }

  void multiply_exact() {
    const auto depth = static_cast<std::size_t>(b_.depth);
    s_.row.resize(depth);
    std::int64_t left = 0;
    for (std::int64_t j = 0; j < count_; ++j) {
      read(b_, j0_ + j, 0, depth, s_.row.data());
      s_.facts[static_cast<std::size_t>(j)] = facts_of_row(s_.row.data(), depth, bits_, left);
    }
    const bool dense = a_.columns.data() == nullptr || left > count_ * b_.depth / kSparse;
    const bool few = a_.rows <= kFewRows && !dense;
    const std::int64_t chunk = std::min(kChunk, b_.depth);
    const auto numbers = static_cast<std::size_t>((few ? 1 : count_) * chunk);
    s_.y1.reserve(numbers);
    if (dense) s_.y2.reserve(numbers), s_.y.reserve(numbers);
    s_.left.resize(static_cast<std::size_t>(chunk) / kBlock);
    for (std::int64_t from = 0; from < b_.depth; from += chunk) {
      const std::int64_t width = std::min(chunk, b_.depth - from);
      for (std::int64_t j = 0; j < count_; ++j) {
        double* y1 = s_.y1.data() + (few ? 0 : j * chunk);
        cut_piece(j, from, static_cast<std::size_t>(width), dense, y1, dense ? j * chunk : 0);
        if (few) add_dots(j, from, static_cast<std::size_t>(width), y1);
      }
      if (!few) add_first(s_.y1.data(), chunk, from, width, dense);
      if (!dense) continue;
      add(a_.rows, a_.rest(0) + from, s_.y.data(), chunk, width, rest());
      add(a_.rows, a_.first(0) + from, s_.y2.data(), chunk, width, rest());
    }
    add_entries();
  }

  /// y1 of a piece of a row; what is left as entries, or `dense` as numbers beside y.
  void cut_piece(std::int64_t j, std::int64_t from, std::size_t width, bool dense, double* y1, std::int64_t at) {
    const RowFacts& facts = s_.facts[static_cast<std::size_t>(j)];
    if (!(facts.error < kInfinity)) {
      std::fill_n(y1, width, 0.0);
      if (dense) std::fill_n(s_.y2.data() + at, width, 0.0), std::fill_n(s_.y.data() + at, width, 0.0);
      return;
    }
    double* y = dense ? s_.y.data() + at : s_.row.data();
    read(b_, j0_ + j, from, width, y);
    first_slice(y, width, facts.c, y1, s_.left.data());
    if (dense) {
      for (std::size_t k = 0; k < width; ++k) s_.y2.data()[at + static_cast<std::int64_t>(k)] = y[k] - y1[k];
      return;
    }
    const std::size_t blocks = width / kBlock;
    for (std::size_t i = 0; i <= blocks; ++i) {
      if (i < blocks && s_.left[i] == 0) continue;
      for (std::size_t k = i * kBlock; k < std::min(width, (i + 1) * kBlock); ++k)
        if (y[k] != y1[k]) s_.entries.push_back({j, from + static_cast<std::int64_t>(k), y[k] - y1[k]});
    }
  }

  void add_dots(std::int64_t j, std::int64_t from, std::size_t width, const double* y1) {
    for (std::int64_t i = 0; i < a_.rows; ++i) {
      exact()[i * count_ + j] += dot(a_.first(i) + from, y1, width);
      if (a_.has_rest) rest()[i * count_ + j] += dot(a_.rest(i) + from, y1, width);
    }
  }

  /// x . y2, entries of one column of c after the other.
  void add_entries() {
    std::ranges::sort(s_.entries, {}, [](const Entry& e) { return std::pair(e.row, e.at); });
    const auto rows = static_cast<std::size_t>(a_.rows);
    for (std::size_t e = 0; e < s_.entries.size();) {
      const std::int64_t j = s_.entries[e].row;
      s_.column.assign(rows, 0.0);
      for (; e < s_.entries.size() && s_.entries[e].row == j; ++e)
        add_multiple(a_.columns.data() + s_.entries[e].at * a_.rows, s_.entries[e].value, s_.column.data(), rows);
      for (std::size_t i = 0; i < rows; ++i) rest()[static_cast<std::int64_t>(i) * count_ + j] += s_.column[i];
    }
  }

  void multiply_balls() {
    const auto depth = static_cast<std::size_t>(b_.depth), size = static_cast<std::size_t>(count_) * depth;
    s_.y1.reserve(size), s_.y2.reserve(size), s_.y.reserve(size);
    for (std::int64_t j = 0; j < count_; ++j) {
      const std::size_t at = static_cast<std::size_t>(b_.first + (j0_ + j) * b_.depth);
      double *y1 = s_.y1.data() + j * b_.depth, *y2 = s_.y2.data() + j * b_.depth, *y = s_.y.data() + j * b_.depth;
      s_.facts[static_cast<std::size_t>(j)] =
          cut_row(b_.balls->h.data() + at, b_.balls->l.data() + at, b_.balls->r.data() + at, depth, bits_, y1, y2);
      for (std::size_t k = 0; k < depth; ++k) y[k] = y1[k] + y2[k];
    }
    add_first(s_.y1.data(), b_.depth, 0, b_.depth, true);
    if (a_.has_rest) add(a_.rows, a_.rest(0), s_.y.data(), b_.depth, b_.depth, rest());
    add(a_.rows, a_.first(0), s_.y2.data(), b_.depth, b_.depth, rest());
  }

  void store(const BallTensor* bias, BallTensor& c) {
    const double n = 2 * (static_cast<double>(a_.depth) + 1), u = 0x1p-53;
    const double factor = up(n * u / (1 - n * u) + 2 * u);
    const auto columns = static_cast<std::int64_t>(c.h.size()) / a_.rows;
    const auto width = static_cast<std::size_t>(count_), first = static_cast<std::size_t>(j0_);
    for (std::int64_t i = 0; i < a_.rows; ++i) {
      const RowFacts& f = a_.facts[static_cast<std::size_t>(i)];
      const Bounds bounds{.norm = f.norm,
                          .rest = f.rest,
                          .error = f.error,
                          .factor = factor,
                          .norms = s_.norms.data(),
                          .rests = s_.rests.data(),
                          .errors = s_.errors.data()};
      const std::int64_t at = i * columns + j0_;
      double *h = c.h.data() + at, *l = c.l.data() + at, *r = c.r.data() + at;
      combine(exact() + i * count_, rest() + i * count_, bounds, h, l, r, width);
      if (bias != nullptr)
        add_bias(bias->h.data() + first, bias->l.data() + first, bias->r.data() + first, h, l, r, width);
    }
  }

  const Left& a_;
  const BallMatrix& b_;
  int bits_;
  std::int64_t j0_, count_;
  Scratch& s_;
};

}  // namespace

BallTensor quick_matmul(const BallMatrix& a, const BallMatrix& b, const BallTensor* bias, int threads) {
  BallTensor c;
  const auto size = static_cast<std::size_t>(a.rows * b.rows);
  c.h.resize(size), c.l.resize(size), c.r.resize(size);
  // Of weights of 16 bits one bit less leaves few a y2, and a's rest is smaller by the bit that it gains.
  const bool narrow = b.exact != nullptr && format_of(b.exact->format).precision <= 11;
  const int bits_b = std::max(1, bits_of_both(a.depth) - (narrow ? 1 : 0)), bits_a = bits_beside(bits_b, a.depth);
  const Left left = cut_left(a, bits_a, narrow, threads);
  const std::int64_t slab = b.rows >= kLargeSide ? kSlab : kSlab / 2, slabs = (b.rows + slab - 1) / slab;
  share_out(slabs, 1, threads, [&](std::int64_t first, std::int64_t last) {
    Scratch scratch;
    for (std::int64_t k = first; k < last; ++k)
      Slab(left, b, bits_b, k * slab, std::min(slab, b.rows - k * slab), scratch).multiply(bias, c);
  });
  return c;
}

}  // namespace norma::ball_products

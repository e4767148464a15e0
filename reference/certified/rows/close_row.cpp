// Row statistics in double-double. u = 2^-53; errors are relative unless said otherwise.
//
// Moments. T = sum h and n = D h - T (D elements), so that h - mean = n / D, V = sum n^2 / D^2, and 1/D goes to the
// factor of the row. If every h is a multiple of 2^g and 64 D max|h| <= 2^(g + 105), all numbers that occur in T and in
// D h are multiples of 2^g below 2^53 of them beside the leading part: T is exact, D h is, and n errs by 3 u^2 of n
// itself, however close h is to the mean. Rows of wider spread have an absolute error of n besides,
//
//   E = (sum_error + 3) u^2 D max|h|      (T; the product D h by a pair: 2 u^2)
//
// which enters sum n^2 by 2 E sqrt(D sum n^2) + D E^2 (Cauchy-Schwarz).
//
// In one pass, where T is exact: sum n^2 = D W with W = D Q - T^2, Q = sum h^2 (error rho_Q = sum_error u^2; h^2 of 24
// bits is a number). By T^2 <= D Q the errors of D Q (2u^2), T^2 (5u^2) and the difference (3u^2 W) are below
// (rho_Q + 7u^2) D Q + 3u^2 W, the last product 2u^2: (sum_error + 12) u^2 D Q / W in all. Taken where D Q <= 256 W, a
// mean of at most 16 standard deviations. Exact where all is a multiple of 4^g, 256 D^2 Q <= 2^(2g + 105) and T is one
// number: T^2 is a pair then.
//
// The factor, from S = sum n^2 (error rho):  S/D/D 6u^2;  with eps inside: + count eps 3u^2, / count 3u^2, rsqrt half
// of that and 13u^2: rho/2 + 19u^2. Outside: sqrt(S/count) (rho + 9u^2)/2 + 25/8 u^2, + eps 2u^2, 1/x 9.8u^2: rho/2 +
// 19.5u^2. L2 with max: (rho + 6u^2)/2 + 2 x 25/8 u^2 + 9.8u^2: rho/2 + 19.1u^2; max is 1-Lipschitz and monotone and
// costs nothing. Then / D: 3u^2. All below rho/2 + 24u^2. The element adds 20u^2 (close_norm.cpp).
//
// No underflow: parameters and h are 0 or in [2^-202, 2^131], n below 2^171, r within [2^-360, 2^360]; every product
// stays within [2^-900, 2^900] (has_fast_tiers keeps eps within [2^-300, 2^300]).
#include "reference/certified/rows/close_row.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>

#include "reference/certified/rows/close_columns.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kU2 = 0x1p-106;

struct Scratch {
  CloseBlock a;
  alignas(64) std::array<double, kCloseBlock> spare;
  alignas(64) std::array<float, kCloseBlock> floats;
};
Scratch& scratch() {
  thread_local const std::unique_ptr<Scratch> memory = std::make_unique<Scratch>();
  return *memory;
}

// The elements that a group's statistics run over, block after block.
class GroupReader {
 public:
  GroupReader(const RowNorm& norm, std::int64_t group) : norm_(norm), row_(group) {}

  // Fills as many as there are, at most kCloseBlock, and zeros behind them to a multiple of 32.
  std::size_t next(CloseBlock& block, double* spare) {
    std::size_t count = 0;
    while (count < kCloseBlock && row_ < norm_.rows) {
      const std::size_t some = std::min(kCloseBlock - count, static_cast<std::size_t>(norm_.cols - col_));
      load_elements(norm_, row_, {col_, some}, {block.h.data() + count, block.l.data() + count}, spare);
      count += some;
      col_ += static_cast<std::int64_t>(some);
      if (col_ == norm_.cols) {
        col_ = 0;
        row_ += norm_.groups;
      }
    }
    const std::size_t padded = (count + 31) / 32 * 32;
    std::fill(block.h.begin() + static_cast<std::ptrdiff_t>(count),
              block.h.begin() + static_cast<std::ptrdiff_t>(padded), 0.0);
    std::fill(block.l.begin() + static_cast<std::ptrdiff_t>(count),
              block.l.begin() + static_cast<std::ptrdiff_t>(padded), 0.0);
    return count;
  }

 private:
  const RowNorm& norm_;
  std::int64_t row_, col_ = 0;
};

// S = sum n^2 with its error, and what n is.
struct Spread {
  double factor = 1;  ///< D, or 1: V = S / factor^2
  DoubleDouble centre;
  double centre_error = 0;
  DoubleDouble total;
  double error = 0;
  bool known = true;
  double bit = kInfinity;  ///< every h, and so every n, is a multiple of it
  bool exact = false;      ///< total is
  bool narrow = false;     ///< n is a number
};

double elements_of(const RowNorm& norm, std::int64_t group) {
  return static_cast<double>((norm.rows - group + norm.groups - 1) / norm.groups * norm.cols);
}

// S in one pass over numbers of at most 24 bits. False: the longer way has to be taken.
bool find_at_once(const RowNorm& norm, std::int64_t group, Spread& spread) {
  if (norm.residual != nullptr) return false;
  Scratch& memory = scratch();
  RowSums all{};
  all.least = kInfinity;
  double blocks = 0;
  for (std::int64_t row = group; row < norm.rows; row += norm.groups)
    for (std::int64_t col = 0; col < norm.cols; col += static_cast<std::int64_t>(kCloseBlock)) {
      const std::size_t count = std::min(kCloseBlock, static_cast<std::size_t>(norm.cols - col));
      float* const spare = memory.floats.data();
      const float* h = spare;
      if (count % 32 == 0) {
        h = floats_at(*norm.x, row * norm.cols, {col, count}, spare);
      } else {
        load_values(*norm.x, row * norm.cols, {col, count}, spare);
        std::fill(spare + count, spare + (count + 31) / 32 * 32, 0.0F);
      }
      const RowSums part = row_sums(h, count);
      all.sum = add(all.sum, part.sum);
      all.squares = add(all.squares, part.squares);
      all.largest = std::max(all.largest, part.largest);
      all.least = std::min(all.least, part.least);
      ++blocks;
    }
  const double d = elements_of(norm, group), q = all.squares.h;
  if (!(q > 0 && q < kInfinity)) return false;  // NaN and Inf too
  // A number of p bits is a multiple of 2^(1-p) of its power of two.
  spread.bit = std::ldexp(1.0, std::ilogb(all.least) + 1 - format_of(norm.x->format).precision);
  const double longest = spread.bit * spread.bit * 0x1p105;
  const auto most = std::min(kCloseBlock, static_cast<std::size_t>(d));
  const double sums = sum_error(most, blocks);
  if (norm.statistics == Statistics::squares) {
    spread.total = all.squares;
    spread.error = (sums + 7) * kU2;
    spread.exact = 256 * q <= longest;
    spread.narrow = true;
    return true;
  }
  const double total = d * all.largest;
  if (!(64 * total <= spread.bit * 0x1p105)) return false;
  const DoubleDouble dq = mul(all.squares, d), w = sub(dq, mul(all.sum, all.sum));
  if (!(dq.h <= 256 * w.h)) return false;
  spread.factor = d;
  spread.centre = {all.sum.h + 0.0, all.sum.l};  // a mean of zero is +0
  spread.total = mul(w, d);
  spread.error = (sums + 12) * kU2 * (dq.h / w.h) * (1 + 0x1p-20);
  spread.exact = all.sum.l == 0 && 256 * (d * dq.h) <= longest;
  spread.narrow = all.sum.l == 0 && 4 * total <= spread.bit * 0x1p53;
  return true;
}

// T, whether it is exact, and what its error does to n. False: the row has a NaN or an Inf.
bool find_centre(const RowNorm& norm, std::int64_t group, double elements, Spread& spread) {
  GroupReader reader(norm, group);
  Scratch& memory = scratch();
  double largest = 0, blocks = 0;
  while (const std::size_t count = reader.next(memory.a, memory.spare.data())) {
    const Extent e = extent(memory.a.values(), count);
    if (!(e.largest < kInfinity)) return false;
    largest = std::max(largest, e.largest);
    spread.bit = std::min(spread.bit, e.last_bit);
    spread.centre = add(spread.centre, sum_pairs(memory.a.values(), count));
    ++blocks;
  }
  spread.centre.h += 0.0;  // a mean of zero is +0
  spread.factor = elements;
  const double total = elements * largest;
  const bool exact = 64 * total <= spread.bit * 0x1p105;
  const auto most = std::min(kCloseBlock, static_cast<std::size_t>(elements));
  spread.centre_error = exact ? 0 : (sum_error(most, blocks) + 3) * kU2 * total * (1 + 0x1p-20);
  return true;
}

// False: the row has a NaN or an Inf, `special` says what r is then.
bool find_spread(const RowNorm& norm, std::int64_t group, Spread& spread, double& special) {
  if (find_at_once(norm, group, spread)) return true;
  spread = {};
  const double elements = elements_of(norm, group);
  special = kNaN;
  const bool moments = norm.statistics == Statistics::moments;
  if (moments && !find_centre(norm, group, elements, spread)) return false;
  GroupReader reader(norm, group);
  Scratch& memory = scratch();
  double blocks = 0;
  bool infinite = false;
  while (const std::size_t count = reader.next(memory.a, memory.spare.data())) {
    if (moments) {
      subtract_centre(memory.a.pairs(), count, spread.factor, spread.centre);
    } else {
      const Extent e = extent(memory.a.values(), count);
      if (std::isnan(e.largest)) return false;
      infinite = infinite || std::isinf(e.largest);
      spread.bit = std::min(spread.bit, e.last_bit);
    }
    const DoubleDouble part = sum_squares(memory.a.values(), count);
    spread.total = add(spread.total, part);
    ++blocks;
  }
  if (infinite) {
    special = 0;
    return false;
  }
  const auto most = std::min(kCloseBlock, static_cast<std::size_t>(elements));
  const double s = spread.total.h, e = spread.centre_error;
  spread.error = (sum_error(most, blocks) + 7) * kU2;
  if (e != 0) {
    spread.error += (2.01 * e * std::sqrt(elements * s) + 1.01 * elements * e * e) / s;
    spread.known = spread.error < 0x1p-30;  // false if s = 0, too
  }
  // All parts are multiples of bit^2 that 105 bits hold, as for T above.
  spread.exact = 256 * s <= spread.bit * spread.bit * 0x1p105;
  return true;
}

// r of root.hpp for S = total / factor^2, by IEEE's rules where it is not a positive number. Error: see above.
DoubleDouble factor_of(const RowNorm& norm, const Spread& spread) {
  const DoubleDouble s = div(div(spread.total, spread.factor), spread.factor);
  const double eps = norm.eps, count = norm.count;
  const DoubleDouble one{1, 0}, least{eps, 0};
  const auto larger = [](DoubleDouble a, DoubleDouble b) { return a.h > b.h || (a.h == b.h && a.l >= b.l) ? a : b; };
  switch (norm.eps_place) {
    case EpsPlace::inside: return rsqrt(div(add(s, two_prod(count, eps)), count));
    case EpsPlace::sum: return rsqrt(add(s, eps));
    case EpsPlace::none: return rsqrt(div(s, count));
    case EpsPlace::outside: return div(one, add(sqrt(div(s, count)), eps));
    case EpsPlace::max: return div(one, larger(sqrt(div(s, count)), least));
    case EpsPlace::l2max: return div(sqrt(DoubleDouble{count, 0}), larger(sqrt(s), least));
  }
  return {kNaN, 0};
}

// ---- rational roots ----

// A sum of binary64 numbers, exactly: parts that do not overlap, the largest last (Shewchuk, 1997, Grow-Expansion).
class ExactSum {
 public:
  void add(double value) {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < size_; ++i) {
      const DoubleDouble t = two_sum(value, parts_[i]);
      value = t.h;
      if (t.l != 0) parts_[kept++] = t.l;
    }
    if (value != 0) parts_[kept++] = value;
    size_ = kept;
  }
  void add(DoubleDouble pair) {
    add(pair.l);
    add(pair.h);
  }
  // Its sign is the sum's, its value to a few u.
  double value() const {
    double total = 0;
    for (std::size_t i = 0; i < size_; ++i) total += parts_[i];
    return total;
  }

 private:
  std::array<double, 16> parts_{};
  std::size_t size_ = 0;
};

// y - bias = w s n c / T as T^2 = a + b: then T is sqrt(a + b) + plus; all but the root exact. T = 0: no such form.
//
//   inside   c = count   T^2 = count S + (factor count)^2 eps        S here is sum n^2
//   sum      c = 1       T^2 = S + factor^2 eps
//   none     c = count   T^2 = count S
//   outside  c = count   T^2 = count S, plus factor count eps
//   max      none, or where eps is the larger: c = 1, T = factor eps
//   l2max    none, or where eps is the larger: c = count, T = sqrt(count) factor eps
struct RootForm {
  double numerator = 1;
  double total_factor = 0;  ///< a = total_factor S
  double eps_factor = 0;    ///< b = eps_factor^2 eps
  double plus = 0;          ///< factor of eps
  double root = 0;          ///< T, if it is known without a root
};

std::optional<RootForm> root_form(const RowNorm& norm, const Spread& spread) {
  const double k = spread.factor, count = norm.count, eps = norm.eps;
  const double kc = k * count;
  if (std::fma(k, count, -kc) != 0) return std::nullopt;
  const RootForm none{.numerator = count, .total_factor = count};
  // The larger of two whose squares are a and b; unknown where they are close.
  const auto larger = [](DoubleDouble a, DoubleDouble b) {
    return std::fabs(a.h - b.h) <= 0x1p-40 * a.h ? 0 : a.h > b.h ? 1 : -1;
  };
  const DoubleDouble ke = two_prod(k, eps);
  switch (norm.eps_place) {
    case EpsPlace::inside: return RootForm{.numerator = count, .total_factor = count, .eps_factor = kc};
    case EpsPlace::sum: return RootForm{.numerator = 1, .total_factor = 1, .eps_factor = k};
    case EpsPlace::none: return none;
    case EpsPlace::outside: return RootForm{.numerator = count, .total_factor = count, .plus = kc};
    case EpsPlace::max: {
      const int order = larger(spread.total, mul(mul(ke, ke), count));
      if (order > 0) return none;
      if (order == 0 || ke.l != 0) return std::nullopt;
      return RootForm{.numerator = 1, .root = ke.h};
    }
    case EpsPlace::l2max: {
      const int order = larger(spread.total, mul(ke, ke));
      if (order > 0) return none;
      const double root = std::sqrt(count);
      const DoubleDouble t = two_prod(root, ke.h);
      if (order == 0 || ke.l != 0 || root * root != count || std::fma(root, root, -count) != 0 || t.l != 0)
        return std::nullopt;
      return RootForm{.numerator = count, .root = t.h};
    }
  }
  return std::nullopt;
}

// T where sqrt(T^2) is a number of 53 bits or as good as one: its error is then known by sign and size. T^2 differs
// from a square by less than 2^-75 of it in few rows only.
std::optional<RationalRoot> rational_root(const RowNorm& norm, const Spread& spread) {
  if (!spread.known || spread.centre_error != 0) return std::nullopt;
  // h - mean of a pair h may round.
  if (norm.statistics == Statistics::given && norm.residual != nullptr) return std::nullopt;
  const std::optional<RootForm> form = root_form(norm, spread);
  if (!form) return std::nullopt;
  RationalRoot t{.root = form->root, .numerator = form->numerator};
  if (t.root == 0) {
    const DoubleDouble e2 = two_prod(form->eps_factor, form->eps_factor);
    const DoubleDouble square = add(mul(spread.total, form->total_factor), mul(e2, norm.eps));
    const DoubleDouble root = sqrt(square);
    if (!(root.h > 0) || !(std::fabs(root.l) <= 0x1p-75 * root.h)) return std::nullopt;
    t.root = root.h;
    if (norm.statistics != Statistics::given && !spread.exact) return std::nullopt;
    ExactSum rest;
    rest.add(two_prod(spread.total.h, form->total_factor));
    rest.add(two_prod(spread.total.l, form->total_factor));
    rest.add(two_prod(e2.h, norm.eps));
    rest.add(two_prod(e2.l, norm.eps));
    rest.add(neg(two_prod(t.root, t.root)));
    const double excess = rest.value();  // T^2 less the square of the 53-bit number
    t.side = excess > 0 ? 1.0 : excess < 0 ? -1.0 : 0.0;
    t.deviation = std::fabs(excess) / (t.root * t.root) * 0.51;
    const DoubleDouble plus = two_prod(form->plus, norm.eps), sum = two_sum(t.root, plus.h);
    if (plus.l != 0 || sum.l != 0) return std::nullopt;
    t.root = sum.h;
  }
  const double reduced = t.root / t.numerator;
  if (std::fma(reduced, t.numerator, -t.root) == 0) {
    t.root = reduced;
    t.numerator = 1;
  }
  return t;
}

// ---- rows ----

// IEEE's rules for a root of 0, of a negative number, of NaN and of Inf; none of them: empty.
std::optional<double> special_factor(const RowNorm& norm, double s) {
  const bool adds = norm.eps_place == EpsPlace::inside || norm.eps_place == EpsPlace::sum;
  if (std::isnan(s)) return kNaN;
  if (adds ? s + norm.eps < 0 : s < 0) return kNaN;
  if (std::isinf(s)) return 0.0;
  const bool no_eps = norm.eps == 0 || norm.eps_place == EpsPlace::none;
  if (adds ? s + norm.eps == 0 : s == 0 && no_eps) return norm.statistics == Statistics::given ? kInfinity : kNaN;
  return std::nullopt;
}

}  // namespace

CloseRow read_close_row(const RowNorm& norm, std::int64_t group) {
  CloseRow row;
  Spread spread;
  if (norm.statistics == Statistics::given) {
    const double mean = norm.mean == nullptr ? 0.0 : norm.mean->value(group);
    const double variance = norm.variance->value(group);
    spread.centre = {mean, 0};
    row.centre = spread.centre;
    if (const std::optional<double> special = special_factor(norm, variance)) {
      row.r = {*special, 0};
      return row;
    }
    spread.total = {variance, 0};
  } else {
    double special = kNaN;
    if (!find_spread(norm, group, spread, special)) {
      row.r = {special, 0};
      return row;
    }
    row.factor = spread.factor;
    row.centre = spread.centre;
    row.centre_error = spread.centre_error;
    row.known = spread.known;
    row.narrow = spread.narrow;
    if (!row.known) return row;
    if (const std::optional<double> r = special_factor(norm, spread.total.h)) {
      row.r = {*r, 0};
      return row;
    }
  }
  // V + eps as an exact pair, for a negative V too.
  if (norm.statistics == Statistics::given && norm.count == 1 &&
      (norm.eps_place == EpsPlace::inside || norm.eps_place == EpsPlace::sum))
    row.r = rsqrt(two_sum(spread.total.h, norm.eps));
  else
    row.r = factor_of(norm, spread);
  row.r = div(row.r, spread.factor);
  row.relative = (spread.error / 2 + 44 * kU2) * (1 + 0x1p-20);
  row.rational = rational_root(norm, spread);
  return row;
}

}  // namespace norma

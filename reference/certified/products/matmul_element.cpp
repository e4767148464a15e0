// One element of a product: in double-double with the grid argument, else an exact sum.
//
// Grid argument: with every a a multiple of g_a and every b of g_b, c is a multiple of g = g_a g_b. If the
// double-double value is off by less than g / 2, the multiple nearest to it is c. So ties and cancellations need no big
// integers.
#include <bit>
#include <cmath>
#include <limits>

#include "reference/certified/products/exact_sum.hpp"
#include "reference/certified/products/matmul_parts.hpp"

namespace norma::matmul {

namespace {

/// Products that are not finite, one by one, by IEEE rules; 0 if all are finite.
double special_dot(std::span<const double> a, const std::vector<Special>& of_a, std::span<const double> b,
                   const std::vector<Special>& of_b) {
  double sum = 0;
  auto x = of_a.begin();
  auto y = of_b.begin();
  while (x != of_a.end() || y != of_b.end()) {
    const std::int64_t at_x = x == of_a.end() ? std::numeric_limits<std::int64_t>::max() : x->at;
    const std::int64_t at_y = y == of_b.end() ? std::numeric_limits<std::int64_t>::max() : y->at;
    const auto at = static_cast<std::size_t>(std::min(at_x, at_y));
    sum += (at_x <= at_y ? (x++)->value : a[at]) * (at_y <= at_x ? (y++)->value : b[at]);
  }
  return sum;
}

/// The multiple of `grid` nearest to h + l, in two words, where `error` is below a quarter of the grid.
DoubleDouble nearest_multiple(DoubleDouble x, double grid) {
  // In units of the grid: the integer nearest to the first word, and what is left of both. |l| / grid < 2^53, because
  // the error is at least u^2 |x|.
  const double high = x.h / grid;
  const double whole = std::nearbyint(high);
  const double part = std::nearbyint((high - whole) + x.l / grid);
  return two_sum(whole * grid, part * grid);
}

struct ThreeWords {
  double hi, lo, rest;
};

/// h + l + b = hi + lo + rest, exactly; |lo| <= ulp(hi) / 2, and rest is below an ulp of what was added.
ThreeWords add_three(double h, double l, double b) {
  const DoubleDouble s = two_sum(h, b);
  const DoubleDouble t = two_sum(s.l, l);
  const DoubleDouble v = two_sum(s.h, t.h);
  const DoubleDouble w = two_sum(v.l, t.l);
  const DoubleDouble y = two_sum(v.h, w.h);
  return {y.h, y.l, w.l};
}

ExactSum exact_element(const Product& product, std::int64_t i, std::int64_t j, Terms terms) {
  const std::span<const double> a = product.a->row(i), b = product.b->row(j);
  const auto term = [terms](double x) { return terms == Terms::magnitudes ? std::fabs(x) : x; };
  ExactSum sum;
  for (std::size_t k = 0; k < a.size(); ++k) sum.add(term(a[k] * b[k]));
  sum.add(term(product.bias(i, j)));
  return sum;
}

/// Nearest binary64 number. What is below the leading 106 bits is told by an odd last bit of the second word.
double nearest(ExactSum sum) {
  const double first = sum.take(), second = sum.take(), third = sum.take();
  const DoubleDouble rest = two_sum(second, third);
  const bool odd = (std::bit_cast<std::uint64_t>(rest.h) & 1) != 0;
  if (rest.l == 0 || odd) return first + rest.h;
  return first + std::nextafter(rest.h, rest.l > 0 ? HUGE_VAL : -HUGE_VAL);
}

/// Nearest binary64 number to sum |a b| + |bias|, of which d holds the first.
double magnitude_of(const Product& product, std::int64_t i, std::int64_t j, const Dot& d) {
  const ThreeWords sum = add_three(d.magnitude.h, d.magnitude.l, std::fabs(product.bias(i, j)));
  const double away = d.error + std::fabs(sum.rest);
  if (away == 0) return sum.hi;
  // A margin beyond what the sums below round: lo at half an ulp and a rest far below its last bit are no tie.
  const double reach = away + 0x1p-50 * std::fabs(sum.lo);
  if (sum.hi + (sum.lo + reach) == sum.hi && sum.hi + (sum.lo - reach) == sum.hi) return sum.hi;
  return nearest(exact_element(product, i, j, Terms::magnitudes));
}

double grid_of(const Product& product, std::int64_t i, std::int64_t j) {
  return product.a->grid[static_cast<std::size_t>(i)] * product.b->grid[static_cast<std::size_t>(j)];
}

}  // namespace

double special_value(const Product& product, std::int64_t i, std::int64_t j) {
  const double bias = product.bias(i, j);
  const auto& of_a = product.a->specials[static_cast<std::size_t>(i)];
  const auto& of_b = product.b->specials[static_cast<std::size_t>(j)];
  const double sum = special_dot(product.a->row(i), of_a, product.b->row(j), of_b) + bias;
  return std::isfinite(sum) ? 0.0 : sum;
}

Enclosure enclose(const Product& product, std::int64_t i, std::int64_t j, Effort effort) {
  if (const double special = special_value(product, i, j); special != 0)
    return {.hi = special, .magnitude = std::fabs(special), .tier = Tier::binary64};
  const double bias = product.bias(i, j), grid = grid_of(product, i, j);
  Dot d = dot(product.a->row(i), product.b->row(j));
  const bool exact = 4 * d.error < grid;
  if (exact) {
    d.value = nearest_multiple(d.value, grid);
    d.magnitude = nearest_multiple(d.magnitude, grid);
    d.error = 0;
  }
  const ThreeWords sum = add_three(d.value.h, d.value.l, bias);
  Enclosure y{.hi = sum.hi + 0.0,  // c = 0 is +0
              .lo = sum.lo,
              .radius = (d.error + std::fabs(sum.rest)) * (1 + 0x1p-50),
              .magnitude = effort == Effort::quick ? d.magnitude.h : magnitude_of(product, i, j, d),
              .tier = Tier::double_double};
  // Exact; or no binary64 number is within the enclosure, as the neighbours of hi are at least 2 |lo| away.
  if (exact || effort == Effort::quick || std::fabs(y.lo) > y.radius) return y;
  ExactSum total = exact_element(product, i, j, Terms::signed_terms);
  const double first = total.take(), second = total.take(), third = total.take();
  const DoubleDouble mid = two_sum(first, second);
  y.hi = mid.h;
  y.lo = mid.l;
  y.radius = std::fabs(third) * (1 + 0x1p-50);  // cut off at 53 bits
  y.tier = Tier::exact;
  return y;
}

Comparison compare(const Product& product, std::int64_t i, std::int64_t j, double m_hi, double m_lo) {
  if (special_value(product, i, j) != 0) return Comparison::undecided;
  const Dot d = dot(product.a->row(i), product.b->row(j));
  const double grid = grid_of(product, i, j);
  ExactSum sum;
  if (4 * d.error < grid) {
    const DoubleDouble c = nearest_multiple(d.value, grid);
    sum.add(c.h);
    sum.add(c.l);
    sum.add(product.bias(i, j));
  } else {
    sum = exact_element(product, i, j, Terms::signed_terms);
  }
  sum.add(-m_hi);
  sum.add(-m_lo);
  return static_cast<Comparison>(sum.sign());
}

}  // namespace norma::matmul

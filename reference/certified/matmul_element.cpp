// One element of a product: in double-double with the grid argument, else an exact sum.
//
// Grid argument: with every a a multiple of g_a and every b of g_b, c is a multiple of g = g_a g_b. If the
// double-double value is off by less than g / 2, the multiple nearest to it is c. So ties and cancellations need no big
// integers.
#include <cmath>
#include <limits>

#include "reference/certified/exact_sum.hpp"
#include "reference/certified/matmul_parts.hpp"

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

/// h + l is c without bias, exactly; or empty (h NaN) where the error reaches a quarter of the grid.
bool snap_to_grid(const Dot& d, double grid, DoubleDouble& c) {
  if (!(4 * d.error < grid)) return false;
  // In units of g: the integer nearest to the first word, and what is left of both; |l| / g < 2^53, as error >= u^2
  // |c|.
  const double high = d.value.h / grid;
  const double whole = std::nearbyint(high);
  const double part = std::nearbyint((high - whole) + d.value.l / grid);
  c = two_sum(whole * grid, part * grid);
  return true;
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

ExactSum exact_element(const Product& product, std::int64_t i, std::int64_t j) {
  const std::span<const double> a = product.a->row(i), b = product.b->row(j);
  ExactSum sum;
  for (std::size_t k = 0; k < a.size(); ++k) sum.add(a[k] * b[k]);
  sum.add(product.bias(i, j));
  return sum;
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

Enclosure enclose(const Product& product, std::int64_t i, std::int64_t j) {
  if (const double special = special_value(product, i, j); special != 0)
    return {.hi = special, .magnitude = std::fabs(special), .tier = Tier::binary64};
  const double bias = product.bias(i, j);
  const Dot d = dot(product.a->row(i), product.b->row(j));
  Enclosure y{.magnitude = d.magnitude + std::fabs(bias), .tier = Tier::double_double};
  DoubleDouble c{};
  if (snap_to_grid(d, grid_of(product, i, j), c)) {
    const ThreeWords sum = add_three(c.h, c.l, bias);
    y.hi = sum.hi + 0.0;  // c = 0 is +0
    y.lo = sum.lo;
    y.radius = std::fabs(sum.rest);
    return y;
  }
  const ThreeWords sum = add_three(d.value.h, d.value.l, bias);
  y.hi = sum.hi;
  y.lo = sum.lo;
  y.radius = (d.error + std::fabs(sum.rest)) * (1 + 0x1p-50);
  // Then no binary64 number is within the enclosure: the neighbours of hi are at least 2 |lo| away.
  if (std::fabs(y.lo) > y.radius) return y;
  ExactSum exact = exact_element(product, i, j);
  const double first = exact.take(), second = exact.take(), third = exact.take();
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
  DoubleDouble c{};
  ExactSum sum;
  if (snap_to_grid(d, grid_of(product, i, j), c)) {
    sum.add(c.h);
    sum.add(c.l);
    sum.add(product.bias(i, j));
  } else {
    sum = exact_element(product, i, j);
  }
  sum.add(-m_hi);
  sum.add(-m_lo);
  return static_cast<Comparison>(sum.sign());
}

}  // namespace norma::matmul

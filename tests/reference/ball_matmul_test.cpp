// Products of balls against sums of 80 digits: every way through two slices, and where each begins and ends.
#include "reference/certified/products/ball_matmul.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <boost/multiprecision/mpfr.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "reference/certified/products/blas.hpp"
#include "reference/formats/convert.hpp"

using namespace norma;
using Digits = boost::multiprecision::number<boost::multiprecision::mpfr_float_backend<80>>;

namespace {

using Draw = std::function<double(std::mt19937_64&)>;

double normal(std::mt19937_64& bits) { return std::normal_distribution<double>()(bits); }
/// One in forty a thousand times larger: it sets the grid, and half of the others have bits below it.
double heavy(std::mt19937_64& bits) { return normal(bits) * (bits() % 40 == 0 ? 1024 : 1); }

Tensor tensor(FormatId format, std::int64_t rows, std::int64_t depth, std::uint64_t seed, const Draw& draw = normal) {
  Tensor t = Tensor::zeros(format, {rows, depth});
  std::mt19937_64 bits(seed);
  for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, encode(format, draw(bits), Overflow::saturate));
  return t;
}

BallTensor balls(std::int64_t size, std::uint64_t seed, double radius) {
  BallTensor b;
  std::mt19937_64 bits(seed);
  std::uniform_real_distribution<double> part(-0.5, 0.5);
  for (std::int64_t i = 0; i < size; ++i) {
    b.h.push_back(normal(bits));
    b.l.push_back(0x1p-53 * b.h.back() * part(bits));
    b.r.push_back(radius * (0.5 + std::fabs(part(bits))));
  }
  return b;
}

/// The midpoints' products and their sum of squares' norms.
struct Expected {
  Digits value = 0;
  double norms = 0;  ///< ||x|| ||y||
};
Digits midpoint(const BallMatrix& m, std::int64_t row, std::int64_t k) {
  const std::int64_t at = m.first + row * m.depth + k;
  if (m.exact != nullptr) return Digits(m.exact->value(at));
  return Digits(m.balls->h[static_cast<std::size_t>(at)]) + Digits(m.balls->l[static_cast<std::size_t>(at)]);
}
Expected expected(const BallMatrix& a, const BallMatrix& b, std::int64_t i, std::int64_t j) {
  Expected e;
  double x = 0, y = 0;
  for (std::int64_t k = 0; k < a.depth; ++k) {
    const Digits u = midpoint(a, i, k), v = midpoint(b, j, k);
    e.value += u * v;
    x += std::pow(u.convert_to<double>(), 2), y += std::pow(v.convert_to<double>(), 2);
  }
  e.norms = std::sqrt(x * y);
  return e;
}

/// Some elements, the corners and the ends of slabs among them; `width`: the most that a radius may be of ||x|| ||y||.
void check(const BallMatrix& a, const BallMatrix& b, double width, std::uint64_t seed) {
  const BallTensor c = ball_matmul(a, b, nullptr, kQuickSlices), other = ball_matmul(a, b, nullptr, kQuickSlices, 2);
  CHECK(c.h == other.h);
  CHECK(c.l == other.l);
  CHECK(c.r == other.r);
  std::mt19937_64 bits(seed);
  double largest_share = 0;
  for (int n = 0; n < 24; ++n) {
    const std::int64_t i =
        n % 4 == 0 ? a.rows - 1 : static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(a.rows));
    const std::int64_t j = n == 1   ? 0
                           : n == 2 ? b.rows - 1
                           : n == 3 ? std::min<std::int64_t>(b.rows - 1, 128)
                                    : static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(b.rows));
    const auto at = static_cast<std::size_t>(i * b.rows + j);
    const Expected e = expected(a, b, i, j);
    const Digits error = abs(e.value - Digits(c.h[at]) - Digits(c.l[at]));
    CAPTURE(i, j, error.convert_to<double>() / e.norms, c.r[at] / e.norms);
    CHECK(error <= Digits(c.r[at]));
    CHECK(c.r[at] <= width * e.norms);
    largest_share = std::max(largest_share, error.convert_to<double>() / c.r[at]);
  }
  // Independent roundings of sums that cancel are about K^-1.5 of their bound: a far looser one, or none at all, would
  // show. What 24 bits leave beside 8 is summed without an error.
  if (a.balls != nullptr) CHECK(largest_share > 0.01 * std::pow(static_cast<double>(a.depth), -1.5));
}

}  // namespace

// K 2^-52 times what the first slices leave: of 22 and 19 bits at K = 3072, of 20 and 20.
TEST_CASE("products in two slices hold sums of 80 digits, sparse and dense", "[blocks]") {
  for (const Blas blas : {Blas::own, Blas::automatic}) {
    choose_blas(blas);
    for (const std::int64_t depth : {65, 1536, 1600, 3100}) {
      const double width = static_cast<double>(depth) * 0x1p-52 * 0x1p-17;
      const BallTensor a = balls(9 * depth, 3, 0);
      const BallMatrix left{.rows = 9, .depth = depth, .balls = &a};
      const auto against = [&](const Tensor& b, double wider = 1) {
        CAPTURE(depth, name_of(b.format));
        const BallMatrix right{.rows = b.shape[0], .depth = depth, .exact = &b};
        check(left, right, wider * width, 5);
        check({.rows = 2, .depth = depth, .balls = &a, .first = depth}, right, wider * width, 6);
      };
      against(tensor(FormatId::bf16, 131, depth, 11));
      against(tensor(FormatId::fp16, 7, depth, 12));
      against(tensor(FormatId::bf16, 20, depth, 13, heavy), 8);
      against(tensor(FormatId::fp32, 20, depth, 14));
      const BallTensor b = balls(20 * depth, 15, 0);
      check(left, {.rows = 20, .depth = depth, .balls = &b}, width, 7);
      const Tensor exact = tensor(FormatId::fp32, 9, depth, 16), weights = tensor(FormatId::bf16, 20, depth, 17);
      check({.rows = 9, .depth = depth, .exact = &exact}, {.rows = 20, .depth = depth, .exact = &weights}, width, 8);
    }
  }
  choose_blas(Blas::automatic);
}

// All entries just below the power of two that sets the grids: sums of first slices come as near to 2^53 units as they
// may.
TEST_CASE("first slices have exact products where all have one sign", "[blocks]") {
  const auto below_one = [](std::mt19937_64& bits) { return std::uniform_real_distribution<double>(0.9, 1)(bits); };
  for (const std::int64_t depth : {127, 2047, 4095}) {
    BallTensor a = balls(2 * depth, 1, 0);
    std::mt19937_64 bits(2);
    for (double& h : a.h) h = below_one(bits);
    const Tensor b = tensor(FormatId::fp32, 5, depth, 3, below_one);
    check({.rows = 2, .depth = depth, .balls = &a}, {.rows = 5, .depth = depth, .exact = &b},
          static_cast<double>(depth) * 0x1p-52 * 0x1p-17, 4);
  }
}

TEST_CASE("a matrix of many rows is cut into slabs that fit together", "[blocks]") {
  const BallTensor a = balls(5 * 16, 3, 0);
  const Tensor b = tensor(FormatId::bf16, 3073, 16, 4);
  check({.rows = 5, .depth = 16, .balls = &a}, {.rows = 3073, .depth = 16, .exact = &b}, 1e-17, 5);
}

TEST_CASE("16-bit factors on one grid have exact products", "[blocks]") {
  const auto whole = [](std::mt19937_64& bits) { return static_cast<double>(bits() % 255) - 127; };
  const Tensor a = tensor(FormatId::bf16, 6, 700, 1, whole), b = tensor(FormatId::bf16, 9, 700, 2, whole);
  const BallMatrix left{.rows = 6, .depth = 700, .exact = &a}, right{.rows = 9, .depth = 700, .exact = &b};
  const BallTensor c = ball_matmul(left, right, nullptr, kQuickSlices);
  for (std::size_t at = 0; at < c.h.size(); ++at) {
    const Expected e = expected(left, right, static_cast<std::int64_t>(at) / 9, static_cast<std::int64_t>(at) % 9);
    CHECK(c.h[at] == e.value.convert_to<double>());
    CHECK(c.r[at] == 0);
  }
}

TEST_CASE("radii of factors pass into products, by either side", "[blocks]") {
  const std::int64_t depth = 200;
  const BallTensor wide = balls(4 * depth, 1, 1e-6), narrow = balls(3 * depth, 2, 0);
  const Tensor weights = tensor(FormatId::bf16, 3, depth, 3);
  const BallMatrix a{.rows = 4, .depth = depth, .balls = &wide};
  const auto of = [&](const BallMatrix& x, const BallMatrix& y, bool first_is_wide) {
    const BallTensor c = ball_matmul(x, y, nullptr, kQuickSlices);
    for (std::int64_t i = 0; i < x.rows; ++i)
      for (std::int64_t j = 0; j < y.rows; ++j) {
        double spread = 0, radii = 0, norm = 0;
        for (std::int64_t k = 0; k < depth; ++k) {
          const double r = wide.r[static_cast<std::size_t>((first_is_wide ? i : j) * depth + k)];
          const double v = (first_is_wide ? midpoint(y, j, k) : midpoint(x, i, k)).convert_to<double>();
          spread += r * std::fabs(v), radii += r * r, norm += v * v;  // spread: the signs that do the most harm
        }
        const double got = c.r[static_cast<std::size_t>(i * y.rows + j)];
        CHECK(got >= spread);
        CHECK(got <= std::sqrt(radii * norm) * (1 + 1e-6));
      }
  };
  of(a, {.rows = 3, .depth = depth, .exact = &weights}, true);
  of(a, {.rows = 3, .depth = depth, .balls = &narrow}, true);
  of({.rows = 3, .depth = depth, .balls = &narrow}, a, false);
}

TEST_CASE("a row that is not finite spoils its own products only", "[blocks]") {
  const std::int64_t depth = 1600;
  const std::int64_t rows = GENERATE(2, 6);
  for (const double bad : {std::numeric_limits<double>::infinity(), std::nan(""), 0x1p401}) {
    BallTensor a = balls(rows * depth, 1, 0);
    Tensor b = tensor(FormatId::bf16, 5, depth, 2);
    a.h[static_cast<std::size_t>(depth + 3)] = bad;
    if (!std::isfinite(bad)) b.set_code(2 * depth + 1590, encode(FormatId::bf16, bad, Overflow::ieee));
    const BallTensor c = ball_matmul({.rows = rows, .depth = depth, .balls = &a},
                                     {.rows = 5, .depth = depth, .exact = &b}, nullptr, kQuickSlices);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < 5; ++j) {
        const double r = c.r[static_cast<std::size_t>(i * 5 + j)];
        CHECK(std::isinf(r) == (i == 1 || (j == 2 && !std::isfinite(bad))));
      }
  }
}

TEST_CASE("a bias is added with its ball, rows of zeros give it back", "[blocks]") {
  const std::int64_t depth = 70;
  const Tensor a = Tensor::zeros(FormatId::bf16, {3, depth}), b = tensor(FormatId::bf16, 4, depth, 2);
  const BallTensor bias{.h = {1, -2, 0.5, 0}, .l = {0x1p-60, 0, 0, 0}, .r = {0, 0.125, 0, 0}};
  const BallTensor c = ball_matmul({.rows = 3, .depth = depth, .exact = &a}, {.rows = 4, .depth = depth, .exact = &b},
                                   &bias, kQuickSlices);
  for (std::size_t at = 0; at < 12; ++at) {
    CHECK(c.h[at] == bias.h[at % 4]);
    CHECK(c.l[at] == bias.l[at % 4]);
    CHECK(c.r[at] >= bias.r[at % 4]);
    CHECK(c.r[at] <= 1.001 * bias.r[at % 4]);
  }
}

// The certified matrix product against exact integers: GMP, and a rounding of its own.
#include "reference/certified/products/matmul.hpp"

#include <gmp.h>
#include <tbb/global_control.h>

#include <algorithm>
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "reference/certified/products/blas.hpp"
#include "reference/certified/products/exact_sum.hpp"
#include "reference/certified/products/matmul_parts.hpp"
#include "tests/reference/exact_integer.hpp"
#include "tests/reference/matmul_plain_loops.hpp"
#include "tests/reference/rational.hpp"

using namespace norma;
using norma::test::Integer;
using norma::test::Random;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// ---- inputs ----

double gaussian(Random& random) {  // twelve uniform numbers: near enough
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += static_cast<double>(random.next() >> 11) * 0x1p-53;
  return sum;
}

/// The format's value nearest to x, for filling only.
double nearest(FormatId format, double x) { return decode(format, encode(format, x, Overflow::saturate)); }

double any_finite(FormatId format, Random& random) {
  while (true) {
    const double v = decode(format, random.next() & (2 * format_of(format).sign_code() - 1));
    if (std::isfinite(v)) return v;
  }
}

using Fill = std::function<double(FormatId, Random&, std::int64_t row, std::int64_t k, std::int64_t depth)>;

/// One family of inputs: entry k of row `row` of a and of b.
struct Family {
  std::string name;
  Fill a, b;
};

Fill same(double (*entry)(FormatId, Random&)) {
  return [entry](FormatId f, Random& r, std::int64_t, std::int64_t, std::int64_t) { return entry(f, r); };
}

double small_integer(Random& random) { return random.between(-2, 2); }

std::vector<Family> families() {
  const Fill normal = same([](FormatId f, Random& r) { return nearest(f, gaussian(r)); });
  const Fill wild = same([](FormatId f, Random& r) { return any_finite(f, r); });
  const Fill tiny = same([](FormatId f, Random& r) { return r.between(-9, 9) * min_subnormal(f); });
  const Fill huge = same([](FormatId f, Random& r) { return r.between(0, 1) == 0 ? -max_finite(f) : max_finite(f); });
  const Fill outliers =
      same([](FormatId f, Random& r) { return nearest(f, gaussian(r) * (r.below(50) == 0 ? 3000.0 : 1.0)); });
  // Products over some hundred bits: what the grid argument just reaches, and what it does not.
  const Fill spread = same([](FormatId f, Random& r) {
    return nearest(f, std::ldexp(gaussian(r), r.between(0, std::min(40, format_of(f).emax - 4))));
  });
  // 2^2s plus small integers: half of the sums are odd, midpoints of fp32 (s = 12), of bf16 (4), of e4m3 (2).
  const auto ties = [](int s) -> Fill {
    return [s](FormatId f, Random& r, std::int64_t, std::int64_t k, std::int64_t) {
      return k == 0 ? std::min(std::ldexp(1.0, s), max_finite(f)) : small_integer(r);
    };
  };
  // The same, and a last product that is tiny: near ties on both sides.
  const auto near_ties = [ties](int s) -> Fill {
    return [s, ties](FormatId f, Random& r, std::int64_t row, std::int64_t k, std::int64_t depth) {
      if (k + 1 < depth || depth == 1) return ties(s)(f, r, row, k, depth);
      return r.between(-1, 1) * min_normal(f) * 4;
    };
  };
  // Pairs of equal a against opposite b, so that all cancels but what a last column leaves of it.
  const Fill paired = [](FormatId f, Random& r, std::int64_t row, std::int64_t k, std::int64_t) {
    Random own{static_cast<std::uint64_t>(row * 1'000'003 + k / 2)};
    return r.below(1000) == 0 ? nearest(f, gaussian(r)) : nearest(f, gaussian(own) * 40);
  };
  const Fill opposite = [](FormatId f, Random&, std::int64_t row, std::int64_t k, std::int64_t) {
    Random own{static_cast<std::uint64_t>(row * 1'000'033 + k / 2 + 77)};
    const double v = nearest(f, gaussian(own) * 40);
    return k % 2 == 0 ? v : -v;
  };
  // The largest odd significand everywhere: Cauchy and Schwarz hold with equality, sums at the edge of exactness.
  const Fill odd = [](FormatId f, Random&, std::int64_t row, std::int64_t, std::int64_t) {
    const int p = format_of(f).precision;
    return std::ldexp(std::ldexp(1.0, p) - 1 - 2 * static_cast<double>(row % 2), -p);
  };
  const Fill constant = [](FormatId f, Random&, std::int64_t row, std::int64_t, std::int64_t) {
    return nearest(f, 0.3 + static_cast<double>(row));
  };
  const Fill some_rows = [normal](FormatId f, Random& r, std::int64_t row, std::int64_t k, std::int64_t depth) {
    return row % 3 == 0 ? 0.0 : normal(f, r, row, k, depth);
  };
  return {{"gaussian", normal, normal},
          {"any finite", wild, wild},
          {"any finite against gaussian", wild, normal},
          {"subnormal", tiny, tiny},
          {"subnormal against huge", tiny, huge},
          {"huge", huge, huge},
          {"outliers", outliers, outliers},
          {"exponents over 2^40", spread, spread},
          {"ties of fp32", ties(12), ties(12)},
          {"ties of bf16", ties(4), ties(4)},
          {"ties of e4m3", ties(2), ties(2)},
          {"near ties of fp32", near_ties(12), near_ties(12)},
          {"near ties of bf16", near_ties(4), near_ties(4)},
          {"cancelling", paired, opposite},
          {"edge of exactness", odd, odd},
          {"constant", constant, constant},
          {"rows of zeros", some_rows, some_rows}};
}

Tensor fill(FormatId format, std::int64_t rows, std::int64_t depth, const Fill& entry, Random& random) {
  Tensor t = Tensor::zeros(format, {rows, depth});
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t k = 0; k < depth; ++k)
      t.set_code(i * depth + k, test::code_of(format, entry(format, random, i, k, depth)));
  return t;
}

// ---- the exact product ----

/// Rows of integers in units of 2^-149, which every format up to fp32 has as values.
std::vector<Integer> integers(const Tensor& t) {
  std::vector<Integer> values;
  for (std::int64_t i = 0; i < t.size(); ++i) values.push_back(test::scaled_integer(t.value(i), 149));
  return values;
}

struct Tally {
  std::int64_t elements = 0, roundings = 0;
  std::int64_t wrong = 0, outside = 0, misjudged = 0, undecided = 0, inexact_mask = 0, wide = 0;
  TierCounts tiers;
};

/// Everything the product promises about one problem. Integers are in units of 2^-298.
void check(const Matmul& problem, QuickProduct quick, std::span<const FormatId> formats, Tally& tally) {
  const auto truth = matmul_truth(problem, quick);
  const std::int64_t m = truth->rows(), n = truth->cols(), depth = problem.a->cols();
  const std::vector<Integer> a = integers(*problem.a), b = integers(*problem.b);
  std::vector<RoundedRows> rounded;
  for (const FormatId f : formats) {
    rounded.push_back(round_matmul(problem, f, Overflow::ieee));
    tally.tiers += rounded.back().tiers;
  }
  std::vector<double> mid(static_cast<std::size_t>(n)), radius(mid), magnitude(mid);
  for (std::int64_t i = 0; i < m; ++i) {
    truth->enclose_quick(i, {mid, radius, magnitude});
    for (std::int64_t j = 0; j < n; ++j) {
      Integer y, terms, product;
      for (std::int64_t k = 0; k < depth; ++k) {
        mpz_mul(
            product.get(), a[static_cast<std::size_t>(i * depth + k)].get(),
            b[static_cast<std::size_t>(problem.weights == Matmul::Weights::rows ? j * depth + k : k * n + j)].get());
        mpz_add(y.get(), y.get(), product.get());
        mpz_abs(product.get(), product.get());
        mpz_add(terms.get(), terms.get(), product.get());
      }
      if (problem.bias != nullptr) {
        Integer bias = test::scaled_integer(problem.bias->value(j), 298);
        mpz_add(y.get(), y.get(), bias.get());
        mpz_abs(bias.get(), bias.get());
        mpz_add(terms.get(), terms.get(), bias.get());
      }
      ++tally.elements;
      const auto at = static_cast<std::size_t>(j);
      // Radii may be any binary64 number: compared in units of 2^-1074.
      if (test::distance_exceeds(y, 298, {mid[at]}, radius[at]))
        ++(radius[at] == 0 ? tally.inexact_mask : tally.outside);
      // A quick magnitude need not be as good as the element's own radius, but it tells the binade, or the radius is
      // wide enough to show that it does not.
      const double nearest_terms = test::nearest_binary64(terms, 298);
      if (std::ilogb(nearest_terms) != std::ilogb(magnitude[at]) &&
          std::ilogb(magnitude[at] - radius[at]) == std::ilogb(magnitude[at] + radius[at]))
        ++tally.outside;
      if (test::distance_exceeds(terms, 298, {magnitude[at]}, 2 * radius[at] + 0x1p-40 * magnitude[at]))
        ++tally.outside;
      const Enclosure e = truth->enclose(i, j);
      if (test::distance_exceeds(y, 298, {e.hi, e.lo}, e.radius)) ++tally.outside;
      if (e.magnitude != nearest_terms) ++tally.outside;
      if (!(e.radius <= 0x1p-80 * e.magnitude) || std::fabs(e.lo) > 0x1p-53 * std::fabs(e.hi)) ++tally.wide;
      if (test::is_binary64(y, 298) && e.radius != 0) ++tally.wide;
      for (const auto& [hi, lo] : {std::pair(e.hi, e.lo), {e.hi, std::nextafter(e.lo, kInfinity)}, {mid[at], 0.0}}) {
        const Comparison c = truth->compare(i, j, hi, lo);
        if (static_cast<int>(c) != test::sign_of_difference(y, 298, {hi, lo})) ++tally.misjudged;
      }
      for (std::size_t f = 0; f < formats.size(); ++f) {
        ++tally.roundings;
        if (rounded[f].y.code(i * n + j) != test::rounded_code(y, 298, formats[f], Overflow::ieee)) ++tally.wrong;
      }
    }
  }
  tally.undecided += tally.tiers.undecided;
}

void require_clean(const Tally& tally) {
  CHECK(tally.wrong == 0);
  CHECK(tally.outside == 0);
  CHECK(tally.misjudged == 0);
  CHECK(tally.undecided == 0);
  CHECK(tally.inexact_mask == 0);
  CHECK(tally.wide == 0);
  CHECK(tally.roundings == tally.tiers.binary64 + tally.tiers.double_double + tally.tiers.exact);
}

struct Size {
  std::int64_t m, n, depth;
};

constexpr FormatId kEvery[] = {FormatId::fp32,   FormatId::tf32, FormatId::bf16,     FormatId::fp16,
                               FormatId::e4m3fn, FormatId::e5m2, FormatId::e4m3fnuz, FormatId::e5m2fnuz};

/// Every family in formats that change from problem to problem, with and without bias, both layouts of b.
void sweep(std::span<const Size> sizes, std::uint64_t seed, Tally& tally) {
  Random random{seed};
  std::size_t turn = 0;
  for (const Family& family : families())
    for (const Size& size : sizes) {
      const FormatId of_a = turn % 3 == 0 ? FormatId::fp32 : turn % 3 == 1 ? FormatId::bf16 : kEvery[random.below(8)];
      const FormatId of_b = turn % 3 == 2 ? kEvery[random.below(8)] : of_a;
      const FormatId of_bias = kEvery[random.below(8)];
      const std::array out{FormatId::fp32, FormatId::bf16, kEvery[random.below(8)]};
      const Tensor a = fill(of_a, size.m, size.depth, family.a, random);
      Tensor b = fill(of_b, size.n, size.depth, family.b, random);
      const Tensor bias = fill(
          of_bias, 1, size.n,
          random.below(2) == 0 ? Fill([](FormatId f, Random& r, auto, auto, auto) { return nearest(f, gaussian(r)); })
                               : Fill([](FormatId f, Random& r, auto, auto, auto) { return any_finite(f, r); }),
          random);
      Matmul problem{.a = &a, .b = &b};
      if (random.below(2) == 0) problem.bias = &bias;
      if (random.below(4) == 0) {
        Tensor columns = Tensor::zeros(of_b, {size.depth, size.n});
        for (std::int64_t j = 0; j < size.n; ++j)
          for (std::int64_t k = 0; k < size.depth; ++k) columns.set_code(k * size.n + j, b.code(j * size.depth + k));
        b = columns;
        problem.weights = Matmul::Weights::columns;
      }
      INFO(family.name << " " << name_of(of_a) << " x " << name_of(of_b) << ", K = " << size.depth);
      const Tally before = tally;
      check(problem, turn % 2 == 0 ? QuickProduct::product : QuickProduct::split, out, tally);
      CHECK(tally.wrong == before.wrong);
      CHECK(tally.outside == before.outside);
      CHECK(tally.inexact_mask == before.inexact_mask);
      CHECK(tally.misjudged == before.misjudged);
      CHECK(tally.wide == before.wide);
      ++turn;
    }
}

}  // namespace

TEST_CASE("every element of a product is rounded correctly and enclosed") {
  Tally tally;
  const Size sizes[] = {{70, 150, 1},   {130, 90, 7},  {90, 111, 7},   {120, 97, 64},
                        {151, 120, 64}, {40, 50, 512}, {30, 31, 1024}, {9, 12, 4096}};
  for (std::uint64_t seed = 1; tally.elements < 1'000'000; ++seed) sweep(sizes, seed, tally);
  require_clean(tally);
  CHECK(tally.tiers.double_double > 1000);
  CHECK(tally.tiers.exact > 1000);
  UNSCOPED_INFO("elements " << tally.elements);
  CHECK(tally.elements >= 1'000'000);
}

TEST_CASE("ten million elements of products", "[nightly]") {
  Tally tally;
  const Size sizes[] = {{200, 250, 1},  {230, 190, 7},  {220, 197, 64}, {80, 90, 512},
                        {60, 61, 1024}, {29, 22, 4096}, {20, 31, 5000}};
  for (std::uint64_t seed = 1000; tally.elements < 10'000'000; ++seed) sweep(sizes, seed, tally);
  require_clean(tally);
}

TEST_CASE("a product at the edge of exactness is called exact only where it is") {
  // K products of (2^24 - 1)^2: their sum is below 2^53 up to K = 32, and odd multiples of 1 above it are lost.
  for (std::int64_t depth = 28; depth <= 70; ++depth) {
    Tensor a = Tensor::zeros(FormatId::fp32, {1, depth});
    for (std::int64_t k = 0; k < depth; ++k) a.set_code(k, test::code_of(FormatId::fp32, 0x1p24 - 1));
    const Matmul problem{.a = &a, .b = &a};
    double mid = 0, radius = 0, magnitude = 0;
    matmul_truth(problem)->enclose_quick(0, {{&mid, 1}, {&radius, 1}, {&magnitude, 1}});
    CHECK((radius == 0) == (depth <= 32));
    Tally tally;
    const FormatId out[] = {FormatId::fp32};
    for (const QuickProduct quick : {QuickProduct::product, QuickProduct::split}) check(problem, quick, out, tally);
    require_clean(tally);
  }
}

TEST_CASE("a magnitude just beyond a midpoint is rounded up") {
  const Tensor a = test::tensor(FormatId::fp32, {1, 2}, {1, 0x1p-60}), b = test::tensor(FormatId::fp32, {1, 2}, {1, 1});
  const Tensor bias = test::tensor(FormatId::fp32, {1}, {-0x1p53});
  CHECK(matmul_truth({.a = &a, .b = &b, .bias = &bias})->enclose(0, 0).magnitude == 0x1p53 + 2);
}

TEST_CASE("split products are tight") {
  Random random{5};
  const Fill normal = [](FormatId f, Random& r, auto, auto, auto) { return nearest(f, gaussian(r)); };
  const Tensor a = fill(FormatId::fp32, 64, 1024, normal, random), b = fill(FormatId::fp32, 64, 1024, normal, random);
  const auto truth = matmul_truth({.a = &a, .b = &b}, QuickProduct::split);
  std::vector<double> mid(64), radius(64), magnitude(64);
  std::int64_t wide = 0;
  for (std::int64_t i = 0; i < 64; ++i) {
    truth->enclose_quick(i, {mid, radius, magnitude});
    for (std::size_t j = 0; j < 64; ++j)
      if (!(radius[j] <= 0x1p-20 * std::ldexp(1.0, std::ilogb(mid[j]) - 23))) ++wide;
  }
  CHECK(wide <= 4);  // where c nearly cancels
}

TEST_CASE("what is not finite follows IEEE and stays in its row or column") {
  Random random{9};
  constexpr std::int64_t m = 40, n = 30, depth = 24;
  const Fill normal = [](FormatId f, Random& r, auto, auto, auto) { return nearest(f, gaussian(r)); };
  Tensor a = fill(FormatId::fp32, m, depth, normal, random), b = fill(FormatId::bf16, n, depth, normal, random);
  Tensor bias = fill(FormatId::fp32, 1, n, normal, random);
  const double values[] = {kNaN, kInfinity, -kInfinity, 0.0, -0.0};
  const auto put = [&](Tensor& t, std::int64_t at, double v) {
    const Format& f = format_of(t.format);
    t.set_code(at, std::isnan(v)   ? f.nan_code()
                   : std::isinf(v) ? f.infinity_code() | (v < 0 ? f.sign_code() : 0)
                                   : (std::signbit(v) ? f.sign_code() : 0));
  };
  for (std::int64_t i = 0; i < m; i += 3)
    for (int c = 0; c < 3; ++c) put(a, i * depth + random.between(0, depth - 1), values[random.below(5)]);
  for (std::int64_t j = 0; j < n; j += 4)
    for (int c = 0; c < 3; ++c) put(b, j * depth + random.between(0, depth - 1), values[random.below(5)]);
  for (std::int64_t j = 0; j < n; j += 7) put(bias, j, values[random.below(3)]);
  const Matmul problem{.a = &a, .b = &b, .bias = &bias};
  const auto truth = matmul_truth(problem);
  const RoundedRows rounded = round_matmul(problem, FormatId::fp32, Overflow::ieee);
  std::vector<double> mid(n), radius(n), magnitude(n);
  std::int64_t specials = 0;
  for (std::int64_t i = 0; i < m; ++i) {
    truth->enclose_quick(i, {mid, radius, magnitude});
    for (std::int64_t j = 0; j < n; ++j) {
      double expected = bias.value(j);
      for (std::int64_t k = 0; k < depth; ++k) expected += a.value(i * depth + k) * b.value(j * depth + k);
      const Enclosure e = truth->enclose(i, j);
      const double code = rounded.y.value(i * n + j), quick = mid[static_cast<std::size_t>(j)];
      for (const double got : {e.hi, code, quick}) {
        if (std::isnan(expected)) {
          CHECK(std::isnan(got));
        } else if (std::isinf(expected)) {
          CHECK(got == expected);
        } else {
          CHECK(std::fabs(got - expected) <= 1e-6 * (1 + magnitude[static_cast<std::size_t>(j)]));
        }
      }
      if (std::isfinite(expected)) continue;
      ++specials;
      CHECK(e.radius == 0);
      CHECK(radius[static_cast<std::size_t>(j)] == 0);
    }
  }
  CHECK(specials > 100);
  CHECK(specials < m * n / 2 + 300);
}

TEST_CASE("a product of no terms is the bias; a sum that vanishes is +0") {
  const Tensor a = Tensor::zeros(FormatId::fp32, {2, 0}), b = Tensor::zeros(FormatId::fp32, {3, 0});
  const Tensor bias = test::tensor(FormatId::fp32, {3}, {1.5, -0.0, -2});
  const RoundedRows y = round_matmul({.a = &a, .b = &b, .bias = &bias}, FormatId::bf16, Overflow::ieee);
  REQUIRE(y.y.shape == Shape{2, 3});
  CHECK(y.y.value(0) == 1.5);
  CHECK(y.y.code(1) == 0);
  CHECK(y.y.value(5) == -2);
  const Tensor minus = test::tensor(FormatId::bf16, {1, 2}, {-0.0, -0.0}),
               one = test::tensor(FormatId::bf16, {1, 2}, {1, 1});
  CHECK(round_matmul({.a = &minus, .b = &one}, FormatId::fp32, Overflow::ieee).y.code(0) == 0);
}

TEST_CASE("neither threads nor the BLAS change a code") {
  Random random{11};
  const Fill normal = [](FormatId f, Random& r, auto, auto, auto) { return nearest(f, gaussian(r)); };
  const Tensor a = fill(FormatId::fp32, 1100, 70, normal, random), b = fill(FormatId::fp32, 1300, 70, normal, random);
  const Matmul problem{.a = &a, .b = &b};
  const tbb::global_control workers(tbb::global_control::max_allowed_parallelism, 4);
  const RoundedRows one = round_matmul(problem, FormatId::fp32, Overflow::ieee, 1);
  for (const int threads : {2, 3, 4}) {
    const RoundedRows more = round_matmul(problem, FormatId::fp32, Overflow::ieee, threads);
    CHECK(more.y.bytes == one.y.bytes);
    CHECK(more.tiers == one.tiers);
  }
  choose_blas(Blas::own);
  const RoundedRows own = round_matmul(problem, FormatId::fp32, Overflow::ieee, 2);
  CHECK(blas_description() == "own loop");
  choose_blas(Blas::automatic);
  CHECK(own.y.bytes == one.y.bytes);
}

TEST_CASE("the loops give the same bits at every vector width") {
  Random random{31};
  for (const std::size_t count : {0, 1, 15, 16, 17, 100, 1024, 70'000}) {
    std::vector<float> x(count), y(count);
    for (float& v : x) v = static_cast<float>(any_finite(FormatId::fp32, random));
    for (float& v : y) v = static_cast<float>(gaussian(random));
    std::vector<double> a(count), b(count), c(count);
    double facts[3];
    const matmul::RowFacts f = matmul::take_row(x.data(), count, a.data());
    test::plain_take_row(x.data(), count, c.data(), facts);
    CHECK(a == c);
    CHECK(f.largest == facts[0]);
    CHECK(f.smallest_bit == facts[1]);
    CHECK(f.squares == facts[2]);
    matmul::take_row(y.data(), count, b.data());
    const matmul::Dot d = matmul::dot(a, b);
    double words[5];
    test::plain_dot(a, b, words);
    CHECK(std::array{d.value.h, d.value.l, d.magnitude.h, d.magnitude.l, d.error} == std::to_array(words));
  }
}

TEST_CASE("our own loop multiplies integers exactly, as the library does") {
  Random random{3};
  for (const auto& [m, n, k] : {std::array{1, 1, 1}, {5, 17, 300}, {64, 64, 64}, {33, 100, 513}, {3, 2, 0}}) {
    std::vector<double> a(static_cast<std::size_t>(m * k)), b(static_cast<std::size_t>(n * k));
    for (double& v : a) v = random.between(-1000, 1000);
    for (double& v : b) v = random.between(-1000, 1000);
    std::vector<double> c(static_cast<std::size_t>(m * n), 7), d(c);
    for (const bool accumulate : {false, true}) {
      const Gemm gemm{.m = m,
                      .n = n,
                      .k = k,
                      .a = a.data(),
                      .lda = k,
                      .b = b.data(),
                      .ldb = k,
                      .c = c.data(),
                      .ldc = n,
                      .accumulate = accumulate};
      Gemm other = gemm;
      other.c = d.data();
      dgemm(gemm);
      plain_dgemm(other);
      CHECK(c == d);
      for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) {
          double sum = 0;
          for (int q = 0; q < k; ++q)
            sum += a[static_cast<std::size_t>(i * k + q)] * b[static_cast<std::size_t>(j * k + q)];
          CHECK(d[static_cast<std::size_t>(i * n + j)] == (accumulate ? 2 : 1) * sum);
        }
    }
  }
}

TEST_CASE("the BLAS says what it is and leaves the environment alone") {
  const char* before = std::getenv("OPENBLAS_CORETYPE");
  const std::string core = before == nullptr ? "" : before;
  const std::string description = blas_description();
  CHECK((description.starts_with("OpenBLAS ") || description.starts_with("own loop (")));
  const char* after = std::getenv("OPENBLAS_CORETYPE");
  CHECK(core == (after == nullptr ? "" : after));
}

TEST_CASE("an exact sum holds what binary64 cannot") {
  Random random{21};
  for (int round = 0; round < 2000; ++round) {
    ExactSum sum;
    Integer exact;
    const auto terms = random.between(0, 40);
    for (int t = 0; t < terms; ++t) {
      double v = any_finite(FormatId::fp64, random);
      v = std::ldexp(v, random.below(4) == 0 ? -900 : -8);
      sum.add(v);
      const Integer i = test::scaled_integer(v, 1074);
      mpz_add(exact.get(), exact.get(), i.get());
    }
    CHECK(sum.sign() == mpz_sgn(exact.get()));
    // What is taken away, again and again, is what there was.
    for (double taken = sum.take(); taken != 0; taken = sum.take()) {
      const Integer i = test::scaled_integer(taken, 1074);
      CHECK(std::isfinite(taken));
      mpz_sub(exact.get(), exact.get(), i.get());
    }
    CHECK(mpz_sgn(exact.get()) == 0);
  }
}

TEST_CASE("a product that does not fit is refused with its shapes") {
  const Tensor a = Tensor::zeros(FormatId::bf16, {4, 6}), b = Tensor::zeros(FormatId::bf16, {5, 7});
  const Tensor wide = Tensor::zeros(FormatId::fp64, {4, 6}), bias = Tensor::zeros(FormatId::bf16, {4});
  CHECK(matmul_fault({.a = &a, .b = &b}) == "matmul: a is 4x6, so b needs a last axis of 6, but it is 5x7.");
  CHECK(matmul_fault({.a = &wide, .b = &a}) == "matmul takes formats up to fp32, but a is fp64.");
  const Tensor fits = Tensor::zeros(FormatId::bf16, {5, 6});
  CHECK(matmul_fault({.a = &a, .b = &fits, .bias = &bias}) ==
        "matmul: b is 5x6, so bias needs 5 elements, but it is 4.");
  CHECK(matmul_fault({.a = &a, .b = &fits}).empty());
  CHECK_THROWS_AS(matmul_truth({.a = &a, .b = &b}), std::invalid_argument);
}

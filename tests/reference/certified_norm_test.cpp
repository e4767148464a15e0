// The row norms' tiers as one truth: special values, long rows, all rows of four e4m3fn values, threads and vectors.
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "reference/certified/rows/row_norm.hpp"
#include "reference/certified/vector_level.hpp"
#include "reference/norms/affine.hpp"
#include "tests/reference/integer_oracle.hpp"
#include "tests/reference/rational.hpp"

using namespace norma;
using namespace norma::test;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

RowNorm rows_of(const Tensor& x, Statistics statistics, double eps) {
  RowNorm n;
  n.x = &x;
  n.rows = x.rows();
  n.cols = x.cols();
  n.groups = n.rows;
  n.count = static_cast<double>(n.cols);
  n.statistics = statistics;
  n.eps = eps;
  return n;
}

Tensor random_tensor(FormatId format, Shape shape, double scale, Random& random) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i) {
    double sum = -6;
    for (int k = 0; k < 12; ++k) sum += static_cast<double>(random.next() >> 11) * 0x1p-53;
    t.set_code(i, encode(format, scale * sum, Overflow::ieee));
  }
  return t;
}

bool same_number(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

// y of a row of special values, exactly: through round_rows to fp32, the enclosures, and what MPFR's truth says.
void check_values(const RowNorm& n, std::initializer_list<double> expected) {
  REQUIRE(has_fast_tiers(n));
  const std::unique_ptr<TruthSource> exact = affine_truth(n), truth = certified_truth(n, affine_truth(n));
  const RoundedRows rounded = round_rows(n, *exact, FormatId::fp32, Overflow::ieee);
  CHECK(rounded.tiers.undecided == 0);
  std::vector<Enclosure> close(static_cast<std::size_t>(n.cols)), slow(close);
  std::vector<double> mid(close.size()), radius(mid), magnitude(mid);
  std::int64_t i = 0;
  for (const double y : expected) {
    const std::int64_t row = i / n.cols;
    const auto col = static_cast<std::size_t>(i % n.cols);
    if (col == 0) {
      truth->enclose_row(row, close);
      exact->enclose_row(row, slow);
      truth->enclose_quick(row, {mid, radius, magnitude});
    }
    INFO("element " << i << ": expected " << y << ", rounded " << rounded.y.value(i) << ", enclosed " << close[col].hi
                    << ", by MPFR " << slow[col].hi << ", in binary64 " << mid[col] << " +- " << radius[col]);
    CHECK(same_number(rounded.y.value(i), y));
    CHECK(same_number(close[col].hi, y));
    CHECK(close[col].radius == 0);
    CHECK(same_number(slow[col].hi, y));
    CHECK((std::isinf(radius[col]) || same_number(mid[col], y)));
    ++i;
  }
  CHECK(i == n.rows * n.cols);
}

}  // namespace

TEST_CASE("NaN, Inf and zeros of a row of squares follow the stated rules") {
  const Tensor x = tensor(FormatId::fp32, {6, 4}, {0.0,   -0.0,  0.0,  -0.0,   // eps alone under the root
                                                   kNone, 1.0,   -0.0, 2.0,    // NaN anywhere: all NaN
                                                   kInf,  1.0,   -2.0, -0.0,   // r = 0
                                                   -kInf, kNone, 1.0,  0.0,    //
                                                   1.0,   -1.0,  1.0,  -1.0,   // r = 1 / sqrt(1 + 3)
                                                   3.0,   3.0,   -3.0, 0.0});  // r = 1 / sqrt(27/4 + 3) is irrational
  const Tensor w = tensor(FormatId::bf16, {4}, {1.0, -2.0, -0.5, 4.0});
  RowNorm n = rows_of(x, Statistics::squares, 3);
  n.weight.tensor = &w;
  n.rows = n.groups = 5;
  check_values(n, {0.0, 0.0,  -0.0,  -0.0,  kNone, kNone, kNone, kNone, kNone, -0.0,
                   0.0, -0.0, kNone, kNone, kNone, kNone, 0.5,   1.0,   -0.25, -2.0});
  // A bias of zero decides the sign of a zero as IEEE addition does; another one is y.
  const Tensor b = tensor(FormatId::fp16, {4}, {-0.0, 0.0, -0.0, 1.5});
  n.bias.tensor = &b;
  n.rows = n.groups = 1;
  check_values(n, {0.0, 0.0, -0.0, 1.5});
  n.bias.tensor = nullptr;
  n.eps = 0;  // 0/0
  check_values(n, {kNone, kNone, kNone, kNone});
  n.eps = 3;
  n.eps_place = EpsPlace::none;
  check_values(n, {kNone, kNone, kNone, kNone});
}

TEST_CASE("NaN and Inf parameters act on their elements alone") {
  const Tensor x = tensor(FormatId::bf16, {1, 8}, {1.0, 1.0, -1.0, 0.0, 1.0, 1.0, -1.0, 1.0});
  const Tensor w = tensor(FormatId::fp32, {8}, {kNone, kInf, kInf, kInf, 0.0, 1.0, kInf, 1.0});
  const Tensor b = tensor(FormatId::fp32, {8}, {0.0, 1.0, 1.0, 1.0, kInf, kNone, kInf, -kInf});
  RowNorm n = rows_of(x, Statistics::squares, 1);
  n.weight.tensor = &w;
  n.bias.tensor = &b;
  check_values(n, {kNone, kInf, -kInf, kNone, kInf, kNone, kNone, -kInf});
}

TEST_CASE("a constant row less its mean is zero: y is the bias, exactly") {
  const Tensor x = tensor(FormatId::fp32, {3, 3},
                          {0x1.fffffep127, 0x1.fffffep127, 0x1.fffffep127,  //
                           -0x1p-149, -0x1p-149, -0x1p-149,                 //
                           0.1F, 0.1F, 0.1F});
  const Tensor b = tensor(FormatId::fp32, {3}, {0x1.234568p-10, -0x1.8p100, 0.0});
  const Tensor w = tensor(FormatId::fp32, {3}, {1.0, 0x1p100, -1.0});
  RowNorm n = rows_of(x, Statistics::moments, 1e-5);
  n.weight.tensor = &w;
  n.bias.tensor = &b;
  check_values(n, {0x1.234568p-10, -0x1.8p100, 0.0, 0x1.234568p-10, -0x1.8p100, 0.0, 0x1.234568p-10, -0x1.8p100, 0.0});
  n.bias.tensor = nullptr;
  check_values(n, {0.0, 0.0, -0.0, 0.0, 0.0, -0.0, 0.0, 0.0, -0.0});
  n.eps = 0;
  check_values(n, {kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone});
  const Tensor one = tensor(FormatId::e4m3fn, {2, 1}, {448.0, -0.0});
  check_values(rows_of(one, Statistics::moments, 1e-5), {0.0, -0.0});
}

TEST_CASE("an Inf among moments makes its group NaN, and no other one") {
  const Tensor x = tensor(FormatId::fp16, {4, 2}, {1.0, kInf, 1.0, 3.0, 1.0, 1.0, 5.0, 7.0});
  RowNorm n = rows_of(x, Statistics::moments, 11);
  n.groups = 2;  // rows 0 and 2, rows 1 and 3: mean 4, variance 5, sqrt(5 + 11) = 4
  n.count = 4;
  check_values(n, {kNone, kNone, -0.75, -0.25, kNone, kNone, 0.25, 0.75});
}

TEST_CASE("given statistics divide by IEEE's rules") {
  const Tensor x =
      tensor(FormatId::fp32, {6, 3},
             {1.0, 3.0, -1.0, 1.0, 2.0, kNone, 1.0, 3.0, -1.0, kInf, 1.0, -kInf, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0});
  const Tensor mean = tensor(FormatId::fp32, {6}, {1.0, 1.0, 1.0, 1.0, kNone, kInf});
  const Tensor variance = tensor(FormatId::fp32, {6}, {4.0, 0.0, kInf, 4.0, 1.0, 4.0});
  RowNorm n = rows_of(x, Statistics::given, 0);
  n.count = 1;
  n.mean = &mean;
  n.variance = &variance;
  check_values(n, {0.0, 1.0, -1.0, kNone, kInf, kNone, 0.0, 0.0, -0.0, kInf, 0.0, -kInf, kNone, kNone, kNone, -kInf,
                   -kInf, -kInf});
}

TEST_CASE("a sum of squares that no pair holds is not taken for a square") {
  // S = 4 (1 + 2^-50)^2 and, in the second row, (2^-149)^2 more; w = 1 + 2^-50, so that y = 2 x or as good as that:
  // 2.75 lies between 2.5 and the even 3.
  const Tensor x = tensor(
      FormatId::fp32, {2, 16},
      {1.375, 1.375, 0.375, 0.25, 0.125, 0x1p-24, 0x1p-24, 0x1p-49, 0.0,      0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
       1.375, 1.375, 0.375, 0.25, 0.125, 0x1p-24, 0x1p-24, 0x1p-49, 0x1p-149, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0});
  Tensor w = Tensor::zeros(FormatId::fp32, {16});
  for (std::int64_t j = 0; j < 16; ++j) w.set_code(j, encode(FormatId::fp32, 1, Overflow::ieee));
  RowNorm n = rows_of(x, Statistics::squares, 0);
  n.weight = {.tensor = &w, .offset = 0x1p-50, .index = {}};
  const auto exact = affine_truth(n), truth = certified_truth(n, affine_truth(n));
  CHECK(truth->compare(0, 0, 2.75, 0) == Comparison::equal);
  CHECK(truth->compare(1, 0, 2.75, 0) == Comparison::less);
  CHECK(truth->enclose(0, 0).radius == 0);
  CHECK(truth->enclose(1, 0).radius > 0);
  const RoundedRows y = round_rows(n, *exact, FormatId::e5m2, Overflow::ieee);
  CHECK(y.y.value(0) == 3);
  CHECK(y.y.value(16) == 2.5);
}

TEST_CASE("a spread that no pair holds is not taken for a square") {
  // S = 8 (1 + 2^-27)^2, or that and 2 tiny^2; w = 1 + 2^-27: y = 2 x again, or less. One pass
  // takes the first row, two the second; sums of the third need more than a pair.
  for (const auto& [tiny, residual] :
       {std::pair(0x1p-69, false), std::pair(0x1p-69, true), std::pair(0x1p-149, false)}) {
    Tensor x = Tensor::zeros(FormatId::fp32, {2, 32});
    const Tensor zeros = x;
    const double head[] = {1.375, 1.375, 0.375, 0.25, 0.125, 0x1p-12, 0x1p-26, tiny};
    for (std::int64_t row = 0; row < 2; ++row)
      for (std::int64_t j = 0; j < 7 + row; ++j)
        for (const int sign : {1, -1})
          x.set_code(row * 32 + 2 * j + (sign < 0 ? 1 : 0), encode(FormatId::fp32, sign * head[j], Overflow::ieee));
    const Tensor w = tensor(FormatId::fp32, {1}, {1.0});
    RowNorm n = rows_of(x, Statistics::moments, 0);
    n.weight = {.tensor = &w, .offset = 0x1p-27, .index = {.span = 32}};
    if (residual) n.residual = &zeros;
    const auto exact = affine_truth(n), truth = certified_truth(n, affine_truth(n));
    CHECK(truth->compare(0, 0, 2.75, 0) == Comparison::equal);
    CHECK(truth->compare(1, 0, 2.75, 0) == Comparison::less);
    const RoundedRows y = round_rows(n, *exact, FormatId::e5m2, Overflow::ieee);
    CHECK(y.y.value(0) == 3);
    CHECK(y.y.value(1) == -3);
    CHECK(y.y.value(32) == 2.5);
    CHECK(y.y.value(33) == -2.5);
  }
}

TEST_CASE("a tie that a mean moves by less than a place is none") {
  // max(deviation, 16) = 16: y = (h - mean) / 16, with h a midpoint of bf16 and the mean far below its last place.
  for (const double far : {0x1p-70, -0x1p-70, 0x1p-40, -0x1p-40, 0x1p-130, -0x1p-130})
    for (const bool biased : {false, true}) {
      const Tensor x = tensor(FormatId::fp32, {1, 4}, {1 + 0x1p-8, -1 - 0x1p-8, far, 0.0});
      const Tensor b = tensor(FormatId::bf16, {1}, {0x1p-5});
      RowNorm n = rows_of(x, Statistics::moments, 16);
      n.eps_place = EpsPlace::max;
      if (biased) n.bias = {.tensor = &b, .offset = 0, .index = {.span = 4}};
      const auto exact = affine_truth(n);
      const RoundedRows y = round_rows(n, *exact, FormatId::bf16, Overflow::ieee);
      const double up = biased ? 0x1.82p-4 : 0x1.02p-4, down = biased ? 0x1.8p-4 : 0x1p-4;
      INFO("mean " << far / 4 << ", biased " << biased);
      CHECK(y.y.value(0) == (far < 0 ? up : down));
    }
}

TEST_CASE("what the fast tiers do not take goes to the slow truth whole") {
  Tensor x = Tensor::zeros(FormatId::fp64, {1, 3});
  for (std::int64_t i = 0; i < 3; ++i) x.set_code(i, std::bit_cast<std::uint64_t>(0.1 * static_cast<double>(i + 1)));
  RowNorm n = rows_of(x, Statistics::squares, 1e-6);
  CHECK_FALSE(has_fast_tiers(n));
  const auto exact = affine_truth(n);
  const RoundedRows r = round_rows(n, *exact, FormatId::bf16, Overflow::ieee);
  CHECK(r.tiers == TierCounts{.binary64 = 0, .double_double = 0, .exact = 3, .undecided = 0});
  const Tensor single = tensor(FormatId::fp32, {1, 2}, {1.0, 2.0});
  n = rows_of(single, Statistics::squares, 1e-6);
  CHECK(has_fast_tiers(n));
  n.eps = 1e-200;
  CHECK_FALSE(has_fast_tiers(n));
  // fp64 results of narrow inputs: the slow truth rounds them.
  n.eps = 0;
  const auto narrow = affine_truth(n);
  CHECK(round_rows(n, *narrow, FormatId::fp64, Overflow::ieee).tiers.exact == 2);
}

TEST_CASE("threads and vector widths change nothing") {
  Random random{7};
  const Tensor x = random_tensor(FormatId::bf16, {37, 777}, 1, random),
               w = random_tensor(FormatId::bf16, {777}, 1, random), b = random_tensor(FormatId::fp32, {777}, 1, random),
               h = random_tensor(FormatId::fp32, {37, 777}, 1, random);
  for (const Statistics statistics : {Statistics::squares, Statistics::moments})
    for (const FormatId format : {FormatId::fp32, FormatId::bf16, FormatId::e4m3fn}) {
      RowNorm n = rows_of(x, statistics, 1e-6);
      n.weight = {.tensor = &w, .offset = 1, .index = {}};
      n.bias.tensor = &b;
      n.residual = format == FormatId::bf16 ? &h : nullptr;
      const auto exact = affine_truth(n), truth = certified_truth(n, affine_truth(n));
      const VectorLevel usual = vector_level();
      const RoundedRows one = round_rows(n, *exact, format, Overflow::ieee, 1);
      std::vector<Enclosure> row(777);
      truth->enclose_row(5, row);
      for (const VectorLevel level : vector_levels()) {
        set_vector_level(level);
        const auto again = certified_truth(n, affine_truth(n));
        std::vector<Enclosure> other(777);
        again->enclose_row(5, other);
        int differences = 0;
        for (std::size_t j = 0; j < row.size(); ++j)
          differences += row[j].hi != other[j].hi || row[j].lo != other[j].lo || row[j].radius != other[j].radius ||
                         row[j].magnitude != other[j].magnitude || row[j].tier != other[j].tier;
        CHECK(differences == 0);
        for (const int threads : {1, 2}) {
          const RoundedRows r = round_rows(n, *exact, format, Overflow::ieee, threads);
          INFO(name_of(level) << ", " << threads << " threads");
          CHECK(r.y.bytes == one.y.bytes);
          CHECK(r.tiers == one.tiers);
        }
      }
      set_vector_level(usual);
    }
}

namespace {

// One row, every element checked by integers, the enclosures of `stride`-th ones too.
void check_long_row(FormatId input, FormatId output, Statistics statistics, std::int64_t cols, std::int64_t stride) {
  Random random{static_cast<std::uint64_t>(cols)};
  const Tensor x = random_tensor(input, {1, cols}, 3, random);
  RowNorm n = rows_of(x, statistics, 1e-5);
  const auto exact = affine_truth(n), truth = certified_truth(n, affine_truth(n));
  const RoundedRows rounded = round_rows(n, *exact, output, Overflow::ieee);
  IntegerRow y(n, 0);
  int faults = 0;
  double widest = 0;
  for (std::int64_t j = 0; j < cols; j += 1 + (j % 2) * (stride / 64)) {
    y.at(j);
    faults += rounding_fault(y, output, Overflow::ieee, rounded.y.code(j)) != nullptr;
    if (j % stride != 0) continue;
    const Enclosure e = truth->enclose(0, j);
    faults += enclosure_fault(y, e.hi, e.lo, e.radius) != nullptr;
    if (e.magnitude > 0) widest = std::max(widest, e.radius / e.magnitude);
  }
  INFO(cols << " columns: binary64 " << rounded.tiers.binary64 << ", double-double " << rounded.tiers.double_double
            << ", exact " << rounded.tiers.exact << ", widest 2^" << std::log2(widest));
  CHECK(faults == 0);
  CHECK(rounded.tiers.undecided == 0);
  CHECK(widest <= 0x1p-80);
  CHECK(rounded.tiers.binary64 > cols / 10 * 9);
}

}  // namespace

TEST_CASE("rows of 2^20 values") {
  check_long_row(FormatId::fp32, FormatId::fp32, Statistics::squares, std::int64_t{1} << 20, 4096);
  check_long_row(FormatId::bf16, FormatId::bf16, Statistics::moments, std::int64_t{1} << 20, 4096);
}

TEST_CASE("rows of 2^24 values", "[nightly]") {
  for (const Statistics statistics : {Statistics::squares, Statistics::moments}) {
    check_long_row(FormatId::fp32, FormatId::fp32, statistics, std::int64_t{1} << 24, 4096);
    check_long_row(FormatId::bf16, FormatId::bf16, statistics, std::int64_t{1} << 24, 4096);
  }
}

namespace {

__extension__ typedef unsigned __int128 Wide128;

// y = 2 k / sqrt(Q) against (m 2^e), y > 0: 4 k^2 against m^2 Q 2^2e. Here 4 k^2 < 2^38, m < 2^25, Q < 2^38, -45 < e <
// 0.
int compare_square(std::uint64_t k, std::uint64_t q, std::uint64_t m, int e) {
  const Wide128 left = Wide128{4 * k} * k << (-2 * e), right = Wide128{m} * m * q;
  return left < right ? -1 : left > right ? 1 : 0;
}

// True if `code`, finite and positive, is y rounded: its midpoints lie on the right sides, ties at even codes.
bool is_rounded(std::uint64_t k, std::uint64_t q, FormatId format, std::uint64_t code) {
  const Format& f = format_of(format);
  if (k == 0 || code > f.max_finite_code()) return k == code;
  const auto field = static_cast<int>(code >> f.mantissa_bits());
  const std::uint64_t hidden = std::uint64_t{1} << f.mantissa_bits();
  const std::uint64_t m = (code & (hidden - 1)) | (field == 0 ? 0 : hidden);
  const int e = (field == 0 ? 1 : field) - 1 + f.emin - f.mantissa_bits();
  const bool even = (code & 1) == 0;
  const int up = compare_square(k, q, 2 * m + 1, e - 1);
  if (m == 0) return up <= 0;
  const bool binade = m == hidden && field > 1;  // below it the numbers are twice as close
  const int down = binade ? compare_square(k, q, 4 * m - 1, e - 2) : compare_square(k, q, 2 * m - 1, e - 1);
  return (up < 0 || (up == 0 && even)) && (down > 0 || (down == 0 && even));
}

// Rows of four e4m3fn values, signs aside, from `first` in steps: to e4m3fn and fp32, eps = 2^-20.
void check_four(std::int64_t first, std::int64_t step) {
  constexpr std::int64_t kValues = 127, kAll = kValues * kValues * kValues * kValues, kBatch = 1 << 16;
  std::array<std::uint64_t, kValues> units{};  // of 2^-9
  for (std::size_t c = 0; c < units.size(); ++c)
    units[c] = static_cast<std::uint64_t>(decode(FormatId::e4m3fn, c) * 512);
  Tensor x = Tensor::zeros(FormatId::e4m3fn, {kBatch, 4});
  TierCounts tiers;
  std::int64_t faults = 0, elements = 0;
  for (std::int64_t row = first; row < kAll;) {
    std::int64_t rows = 0;
    for (; rows < kBatch && row < kAll; ++rows, row += step) {
      std::int64_t rest = row;
      for (std::int64_t j = 0; j < 4; ++j, rest /= kValues)
        x.bytes[static_cast<std::size_t>(4 * rows + j)] = static_cast<std::byte>(rest % kValues);
    }
    RowNorm n = rows_of(x, Statistics::squares, 0x1p-20);
    n.rows = n.groups = rows;
    const auto exact = affine_truth(n);
    for (const FormatId format : {FormatId::e4m3fn, FormatId::fp32}) {
      const RoundedRows y = round_rows(n, *exact, format, Overflow::ieee);
      tiers += y.tiers;
      for (std::int64_t r = 0; r < rows; ++r) {
        std::array<std::uint64_t, 4> k{};
        std::uint64_t q = 1;  // 2^18 (S + 4 eps)
        for (std::size_t j = 0; j < 4; ++j) {
          k[j] = units[static_cast<std::size_t>(x.bytes[static_cast<std::size_t>(4 * r) + j])];
          q += k[j] * k[j];
        }
        for (std::size_t j = 0; j < 4; ++j, ++elements)
          faults += !is_rounded(k[j], q, format, y.y.code(4 * r + static_cast<std::int64_t>(j)));
      }
    }
  }
  INFO(elements << " elements: binary64 " << tiers.binary64 << ", double-double " << tiers.double_double << ", exact "
                << tiers.exact);
  CHECK(faults == 0);
  CHECK(tiers.undecided == 0);
  CHECK(tiers.binary64 + tiers.double_double + tiers.exact == elements);
}

}  // namespace

TEST_CASE("one in 127 rows of four e4m3fn values") { check_four(5, 127); }

TEST_CASE("all rows of four e4m3fn values", "[nightly]") { check_four(0, 1); }

// The canonical RMSNorm against exact rationals: enclosures contain it, comparisons and roundings are right.
#include "reference/norms/rmsnorm.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "reference/exact/decide.hpp"
#include "tests/reference/element_check.hpp"

namespace norma::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Setup {
  Tensors inputs;
  Attributes numbers;
  std::map<std::string, std::string, std::less<>> words;

  NormCall call() const { return {.inputs = &inputs, .numbers = numbers, .words = words}; }
  std::string place() const { return words.contains("eps_place") ? words.at("eps_place") : "inside"; }
  double number(const char* name, double fallback) const {
    return numbers.contains(name) ? numbers.at(name) : fallback;
  }
};

// ---- the norm once more, in rationals ----

// One finite row: the columns' factors of r, and what r is.
struct RationalRow {
  std::vector<Rational> a, b;
  RationalRoot root;
};

RationalRow rational_row(const Setup& s, std::int64_t row) {
  const Tensor& x = s.inputs.at("x");
  RationalRow r;
  r.root = {.total = 0, .count = x.cols(), .eps = rational(s.number("eps", 1e-6)), .place = s.place()};
  const Rational offset = rational(s.number("weight_offset", 0));
  for (std::int64_t j = 0; j < x.cols(); ++j) {
    Rational h = rational(x.value(row * x.cols() + j));
    if (s.inputs.contains("residual")) h += rational(s.inputs.at("residual").value(row * x.cols() + j));
    const Rational w = s.inputs.contains("weight") ? offset + rational(s.inputs.at("weight").value(j)) : Rational(1);
    r.a.push_back(w * h);
    r.b.push_back(s.inputs.contains("bias") ? rational(s.inputs.at("bias").value(j)) : Rational(0));
    r.root.total += h * h;
  }
  return r;
}

// The sign of y_j - m.
int sign_of_difference(const RationalRow& r, std::size_t j, const Rational& m) { return linear(r.root, r.a[j], m - r.b[j]); }

void check_element(const RationalRow& r, const TruthSource& truth, std::int64_t row, std::size_t j, const Enclosure& e,
                   std::span<const FormatId> formats, Counts& counts) {
  check_element([&](const Rational& m) { return sign_of_difference(r, j, m); }, truth, row, static_cast<std::int64_t>(j), e,
                formats, counts);
}

constexpr FormatId kFormatsTested[] = {FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::fp32};
const std::string kPlaces[] = {"inside", "sum", "outside", "max", "l2max", "none"};

// All columns of short rows, some of long ones.
Counts check_rows(const Setup& setup, std::span<const FormatId> formats, std::string_view output = "y") {
  Counts counts;
  const NormCall call = setup.call();
  const auto truth = rmsnorm.truth(call, output);
  std::vector<Enclosure> out(static_cast<std::size_t>(truth->cols()));
  for (std::int64_t row = 0; row < truth->rows(); ++row) {
    CAPTURE(row);
    const RationalRow r = rational_row(setup, row);
    truth->enclose_row(row, out);
    const std::size_t step = out.size() <= 8 ? 1 : out.size() / 3;
    for (std::size_t j = 0; j < out.size(); j += step) {
      CAPTURE(j);
      if (r.root.undefined())
        REQUIRE(std::isnan(out[j].hi));
      else
        check_element(r, *truth, row, j, out[j], formats, counts);
    }
  }
  return counts;
}

TEST_CASE("rmsnorm agrees with exact rationals for every place of eps, on random rows of every magnitude") {
  const std::string place = GENERATE(from_range(std::begin(kPlaces), std::end(kPlaces)));
  CAPTURE(place);
  Random random{1};
  int elements = 0;
  const std::pair<int, int> exponents[] = {{-2, 2}, {-12, 3}, {-200, -120}, {-200, 200}, {120, 200}};
  const double all_eps[] = {1e-6, 0.0, 0x1p-20, 1.0, 1e-30, 448.0};
  for (FormatId format : kFormatsTested)
    for (const auto& [least, most] : exponents)
      for (const std::int64_t cols : {1, 2, 3, 4, 5, 6, 7, 8, 64, 129}) {
        CAPTURE(name_of(format), least, most, cols);
        Setup s;
        s.words["eps_place"] = place;
        s.numbers["eps"] = all_eps[random.below(6)];
        s.inputs["x"] = random_tensor(format, {1, cols}, random, least, most);
        if (random.below(4) != 0) s.inputs["weight"] = random_tensor(format, {cols}, random, -3, 3);
        if (random.below(2) == 0) s.numbers["weight_offset"] = 1;
        if (random.below(3) == 0) s.inputs["bias"] = random_tensor(FormatId::fp32, {cols}, random, -6, 2);
        if (random.below(3) == 0) s.inputs["residual"] = random_tensor(FormatId::fp32, {1, cols}, random, least, most);
        const FormatId formats[] = {kFormatsTested[random.below(4)]};
        elements += check_rows(s, formats).elements;
      }
  REQUIRE(elements > 100);
}

TEST_CASE("rmsnorm decides exact ties and near ties") {
  // 3^2 * 3 + 1 + 2^2 = 32 = 8 * 4: r = 1/2 exactly, and 3 w / 2 for odd w has one bit more than w.
  const std::string place = GENERATE("inside", "none", "max", "outside", "sum", "l2max");
  const double eps = GENERATE(0.0, 0x1p-40, 0x1p-239, 0x1p-700);
  CAPTURE(place, eps);
  Random random{2};
  int ties = 0;
  for (FormatId format : {FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::fp32}) {
    Setup s;
    s.words["eps_place"] = place;
    s.numbers["eps"] = eps;
    const double k = random.below(2) == 0 ? 1.0 : 0.25;
    s.inputs["x"] = tensor(format, {1, 8}, {3 * k, -3 * k, k, 0.0, 2 * k, 3 * k, -0.0, 0.0});
    Tensor w = random_tensor(format, {8}, random, 0, 1);
    for (std::int64_t j = 0; j < 8; ++j) w.set_code(j, w.code(j) | 1);
    s.inputs["weight"] = w;
    const FormatId formats[] = {format};
    ties += check_rows(s, formats).ties;
  }
  // Without eps r is 1/2 (or, where r has sum instead of mean, irrational).
  if (eps == 0 && place != "sum") REQUIRE(ties >= 4);
  if (eps > 0 && (place == "inside" || place == "outside")) REQUIRE(ties == 0);
}

TEST_CASE("rmsnorm decides ties of values that are no dyadic numbers' products") {
  // mean = 9, r = 1/3: x r is an integer over 3.
  Setup s;
  s.numbers["eps"] = 0;
  s.inputs["x"] = tensor(FormatId::fp32, {1, 2}, {3.0, 3.0});
  s.inputs["weight"] = tensor(FormatId::fp32, {2}, {0x1.01p0, 0x1.03p0});
  const FormatId formats[] = {FormatId::bf16};
  REQUIRE(check_rows(s, formats).ties >= 2);
}

TEST_CASE("rmsnorm hands out exactly what is a binary64 number, although its root is not") {
  Setup s;
  s.numbers["eps"] = 0;
  s.inputs["x"] = tensor(FormatId::fp32, {1, 3}, {3.0, -3.0, 3.0});
  s.inputs["weight"] = tensor(FormatId::fp32, {3}, {1.0, 0x1.01p0, 7.0});
  Enclosure out[3];
  rmsnorm.truth(s.call(), "y")->enclose_row(0, out);
  const double right[] = {1.0, -0x1.01p0, 7.0};
  for (int j = 0; j < 3; ++j) REQUIRE((out[j].hi == right[j] && out[j].lo == 0 && out[j].radius == 0));
}

TEST_CASE("rows may be enclosed and compared from several threads at once") {
  Random random{5};
  Setup s;
  s.inputs["x"] = random_tensor(FormatId::bf16, {40, 16}, random, -3, 3);
  s.inputs["bias"] = random_tensor(FormatId::bf16, {16}, random, -3, 3);
  const auto truth = rmsnorm.truth(s.call(), "y");
  const auto digest = [&] {
    double total = 0;
    std::vector<Enclosure> out(16);
    for (std::int64_t row = 0; row < 40; ++row) {
      truth->enclose_row(row, out);
      for (std::int64_t j = 0; j < 16; ++j) {
        const Enclosure& e = out[static_cast<std::size_t>(j)];
        total += e.hi + static_cast<double>(static_cast<int>(truth->compare(row, j, e.hi, 0)));
      }
    }
    return total;
  };
  const double right = digest();
  std::vector<double> got(4);
  std::vector<std::thread> threads;
  for (double& g : got) threads.emplace_back([&] { g = digest(); });
  for (std::thread& t : threads) t.join();
  for (double g : got) REQUIRE(g == right);
}

TEST_CASE("rmsnorm finds an exact zero of weight h r + bias") {
  Setup s;
  s.numbers["eps"] = 0;
  s.inputs["x"] = tensor(FormatId::fp32, {1, 2}, {3.0, -3.0});
  s.inputs["bias"] = tensor(FormatId::fp32, {2}, {-1.0, 1.0});
  const auto truth = rmsnorm.truth(s.call(), "y");
  Enclosure out[2];
  truth->enclose_row(0, out);
  for (const Enclosure& e : out) {
    REQUIRE(e.hi == 0);
    REQUIRE(e.radius == 0);
    REQUIRE(e.magnitude == 2);
  }
  REQUIRE(truth->compare(0, 0, 0, 0) == Comparison::equal);
}

TEST_CASE("rmsnorm of the largest and least fp32 numbers neither overflows nor underflows") {
  const std::string place = GENERATE(from_range(std::begin(kPlaces), std::end(kPlaces)));
  Setup s;
  s.words["eps_place"] = place;
  s.numbers["eps"] = GENERATE(0.0, 1e308, 0x1p-1074);
  s.inputs["x"] =
      tensor(FormatId::fp32, {3, 2}, {0x1.fffffep127, -0x1.fffffep127, 0x1p-149, -0x1p-149, 0x1.fffffep127, 0x1p-149});
  s.inputs["weight"] = tensor(FormatId::fp32, {2}, {0x1.fffffep127, 0x1p-149});
  const FormatId formats[] = {FormatId::fp32};
  REQUIRE(check_rows(s, formats).elements == 6);
}

TEST_CASE("rmsnorm takes fp64 tensors, whose squares leave binary64's range") {
  Setup s;
  s.numbers["eps"] = 1e-12;
  s.inputs["x"] = tensor(FormatId::fp64, {2, 3}, {0x1.8p900, -0x1.1p850, 0x1p-1000, 0x1.123456789p-600, 0.1, 3.0});
  s.inputs["weight"] = tensor(FormatId::fp64, {3}, {0.1, 0.2, 0.3});
  const FormatId formats[] = {FormatId::fp32, FormatId::fp16};
  Counts counts;
  const auto truth = rmsnorm.truth(s.call(), "y");
  std::vector<Enclosure> out(3);
  for (std::int64_t row = 0; row < 2; ++row) {
    truth->enclose_row(row, out);
    for (std::size_t j = 0; j < 3; ++j) {
      if (row == 0 && j == 2) {  // about 2^-1902: below binary64
        REQUIRE(out[j].hi == 0);
        REQUIRE(truth->compare(row, 2, 0, 0) == Comparison::greater);
        REQUIRE(truth->compare(row, 2, 0x1p-1074, 0) == Comparison::less);
      } else {
        check_element(rational_row(s, row), *truth, row, j, out[j], formats, counts);
      }
    }
  }
}

// ---- special values ----

struct Special {
  std::string name;
  std::vector<double> x, w, b, y;
};

TEST_CASE("rmsnorm of rows that are not finite follows the stated rules") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Special cases[] = {
      {"a NaN makes its row NaN", {1, nan}, {1, 1}, {}, {nan, nan}},
      {"an Inf makes finite values signed zeros", {kInfinity, -3}, {1, 2}, {}, {nan, -0.0}},
      {"the zero's sign is the weight's times the value's", {-kInfinity, -3}, {1, -2}, {}, {nan, 0.0}},
      {"and the bias remains", {kInfinity, 3}, {1, 1}, {7, 5}, {nan, 5}},
      {"a zero row keeps signs", {0.0, -0.0}, {-2, 1}, {}, {-0.0, -0.0}},
      {"a zero row with a zero bias", {-0.0, -0.0}, {1, 1}, {0.0, -0.0}, {0.0, -0.0}},
      {"a NaN weight spoils its column", {2, 2}, {nan, 1}, {}, {nan, 1}},
      {"an infinite weight", {-2, 0}, {kInfinity, kInfinity}, {}, {-kInfinity, nan}},
      {"an infinite bias", {-2, 2}, {1, 1}, {kInfinity, -kInfinity}, {kInfinity, -kInfinity}},
      {"an infinite weight against an infinite bias", {-2, 2}, {kInfinity, 1}, {kInfinity, 0}, {nan, 1}},
  };
  for (const Special& c : cases) {
    CAPTURE(c.name);
    Setup s;
    s.numbers["eps"] = c.x[0] == 0 ? 1e-6 : 0.0;
    s.inputs["x"] = tensor(FormatId::fp32, {1, 2}, {c.x[0], c.x[1]});
    s.inputs["weight"] = tensor(FormatId::bf16, {2}, {c.w[0], c.w[1]});
    if (!c.b.empty()) s.inputs["bias"] = tensor(FormatId::fp16, {2}, {c.b[0], c.b[1]});
    const auto truth = rmsnorm.truth(s.call(), "y");
    Enclosure out[2];
    truth->enclose_row(0, out);
    for (std::size_t j = 0; j < 2; ++j) {
      CAPTURE(j, out[j].hi);
      if (std::isnan(c.y[j])) {
        REQUIRE(std::isnan(out[j].hi));
      } else if (c.y[j] == 1) {
        REQUIRE((c.name.front() == 'a' && out[j].hi > 0 && out[j].hi <= 1.5));
      } else {
        REQUIRE(out[j].hi == c.y[j]);
        REQUIRE(std::signbit(out[j].hi) == std::signbit(c.y[j]));
      }
    }
  }
}

TEST_CASE("rmsnorm of a zero row without eps is undefined, for every place of eps") {
  const std::string place = GENERATE(from_range(std::begin(kPlaces), std::end(kPlaces)));
  Setup s;
  s.words["eps_place"] = place;
  s.numbers["eps"] = 0;
  s.inputs["x"] = tensor(FormatId::bf16, {1, 2}, {0.0, -0.0});
  Enclosure out[2];
  rmsnorm.truth(s.call(), "y")->enclose_row(0, out);
  REQUIRE(std::isnan(out[0].hi));
  REQUIRE(std::isnan(out[1].hi));
}

// ---- residual and quantization ----

TEST_CASE("the residual output is the exact sum, and decides its own roundings") {
  Setup s;
  s.inputs["x"] = tensor(FormatId::fp32, {1, 3}, {1.0, 0x1p127, 0.0});
  s.inputs["residual"] = tensor(FormatId::fp32, {1, 3}, {0x1p-149, -0x1p127, -0.0});
  const auto truth = rmsnorm.truth(s.call(), "residual");
  Enclosure out[3];
  truth->enclose_row(0, out);
  REQUIRE(out[0].hi == 1);
  REQUIRE(out[0].lo == 0x1p-149);
  REQUIRE(out[0].radius == 0);
  REQUIRE(out[1].hi == 0);
  REQUIRE(out[1].magnitude == 0x1p128);
  REQUIRE(truth->compare(0, 0, 1.0, 0) == Comparison::greater);
  REQUIRE(truth->compare(0, 0, 1.0, 0x1p-149) == Comparison::equal);
  REQUIRE(truth->compare(0, 2, 0, 0) == Comparison::equal);
}

TEST_CASE("rmsnorm squares the exact sum of x and residual, however many bits it has") {
  for (const double residual : {0x1p-40, 0x1p-54, 0x1p-56, 0x1p-60, 0x1p-140}) {
    Setup s;
    s.inputs["x"] = tensor(FormatId::fp32, {1, 2}, {1.0, 0x1p-20});
    s.inputs["residual"] = tensor(FormatId::fp32, {1, 2}, {residual, 0.0});
    const FormatId formats[] = {FormatId::fp32};
    REQUIRE(check_rows(s, formats).elements == 2);
  }
}

TEST_CASE("a static scale divides the norm, and the dequantized output is the norm") {
  Random random{3};
  for (int repeat = 0; repeat < 10; ++repeat) {
    Setup s;
    s.words["quant"] = "static";
    s.inputs["x"] = random_tensor(FormatId::bf16, {1, 5}, random, -2, 4);
    s.inputs["weight"] = random_tensor(FormatId::bf16, {5}, random, -2, 2);
    s.inputs["bias"] = random_tensor(FormatId::bf16, {5}, random, -2, 2);
    s.inputs["scale"] = random_tensor(FormatId::fp32, {}, random, -8, 2);
    s.inputs["scale"].set_code(0, code_of(FormatId::fp32, std::fabs(s.inputs["scale"].value(0)) + 0x1p-4));
    const FormatId formats[] = {FormatId::e4m3fn};
    check_rows(s, formats, "dequantized");

    RationalRow r = rational_row(s, 0);
    const Rational scale = rational(s.inputs["scale"].value(0));
    for (std::size_t j = 0; j < r.a.size(); ++j) {
      r.a[j] /= scale;
      r.b[j] /= scale;
    }
    const auto truth = rmsnorm.truth(s.call(), "y");
    std::vector<Enclosure> out(5);
    truth->enclose_row(0, out);
    Counts counts;
    for (std::size_t j = 0; j < 5; ++j) check_element(r, *truth, 0, j, out[j], formats, counts);
  }
}

// Rows of n = a r + b divided by the largest |n|: a quotient of two numbers of one quadratic field. With q and
// the largest's a', b' >= 0 (signs taken in): y > m iff (a Q - m a') r > m b' - b Q.
int sign_of_quotient(const RationalRow& r, std::size_t j, std::size_t top, const Rational& quant_max,
                     const Rational& m) {
  const int s = sign_of_difference(r, top, 0);
  return linear(r.root, r.a[j] * quant_max - m * s * r.a[top], m * s * r.b[top] - r.b[j] * quant_max);
}

TEST_CASE("a per-token scale is set by the row's largest value, and codes are decided exactly") {
  Random random{4};
  for (int repeat = 0; repeat < 60; ++repeat) {
    CAPTURE(repeat);
    const bool with_bias = repeat % 2 == 1;
    Setup s;
    s.words["quant"] = "per_token";
    s.words["eps_place"] = kPlaces[random.below(5)];
    s.inputs["x"] = random_tensor(FormatId::bf16, {1, 6}, random, -2, 4);
    s.inputs["x"].set_code(0, code_of(FormatId::bf16, 1.0));
    s.inputs["weight"] = random_tensor(FormatId::bf16, {6}, random, -2, 2);
    s.inputs["weight"].set_code(0, code_of(FormatId::bf16, 1.0));
    if (with_bias) s.inputs["bias"] = random_tensor(FormatId::bf16, {6}, random, -2, 2);
    const RationalRow r = rational_row(s, 0);
    // The largest |n|, by pairs: |n_j| > |n_top| iff (n_j - n_top)(n_j + n_top) > 0.
    std::size_t top = 0;
    for (std::size_t j = 1; j < 6; ++j) {
      const int sj = sign_of_difference(r, j, 0) < 0 ? -1 : 1, st = sign_of_difference(r, top, 0) < 0 ? -1 : 1;
      if (linear(r.root, sj * r.a[j] - st * r.a[top], st * r.b[top] - sj * r.b[j]) > 0) top = j;
    }
    const auto scale = rmsnorm.truth(s.call(), "scale");
    const auto truth = rmsnorm.truth(s.call(), "y");
    REQUIRE(scale->cols() == 1);
    Enclosure e;
    scale->enclose_row(0, std::span(&e, 1));
    const int top_sign = sign_of_difference(r, top, 0);
    for (double m : {e.hi, e.hi * 1.5, e.hi * 0.5, e.hi + e.lo}) {
      const int right = linear(r.root, top_sign * r.a[top], rational(m) * 448 - top_sign * r.b[top]);
      REQUIRE(static_cast<int>(scale->compare(0, 0, m, 0)) == right);
    }
    std::vector<Enclosure> out(6);
    truth->enclose_row(0, out);
    for (std::size_t j = 0; j < 6; ++j) {
      CAPTURE(j, top);
      const Element y{*truth, 0, static_cast<std::int64_t>(j), out[j]};
      const Rational middle = rational(out[j].hi) + rational(out[j].lo);
      REQUIRE(sign_of_quotient(r, j, top, 448, middle - rational(out[j].radius)) >= 0);
      REQUIRE(sign_of_quotient(r, j, top, 448, middle + rational(out[j].radius)) <= 0);
      REQUIRE(out[j].radius <= 0x1p-100 * out[j].magnitude);
      if (j == top) REQUIRE(std::fabs(out[j].hi) == 448);
      const auto code = round_to(y, FormatId::e4m3fn, Overflow::saturate);
      REQUIRE(code.has_value());
      const double got = decode(FormatId::e4m3fn, *code);
      for (std::uint64_t c = 0; c < 0x7e; ++c) {
        const double low = decode(FormatId::e4m3fn, c), high = decode(FormatId::e4m3fn, c + 1);
        const int at = sign_of_quotient(r, j, top, 448, rational((low + high) / 2));
        REQUIRE(static_cast<int>(truth->compare(0, y.col, (low + high) / 2, 0)) == at);
        if (at > 0) REQUIRE(got >= high);
        if (at < 0) REQUIRE(got <= low);
        if (at == 0) REQUIRE(got == ((c & 1) == 0 ? low : high));
      }
    }
  }
}

TEST_CASE("a per-token scale is bounded by its floor and its cap") {
  Setup s;
  s.words["quant"] = "per_token";
  s.numbers["eps"] = 0;
  s.inputs["x"] = tensor(FormatId::bf16, {1, 2}, {3.0, -3.0});  // norm: 1, -1
  const auto scale_of = [&] {
    Enclosure e;
    rmsnorm.truth(s.call(), "scale")->enclose_row(0, std::span(&e, 1));
    return e.hi;
  };
  REQUIRE(scale_of() == 1.0 / 448);
  s.numbers["scale_floor"] = 0.125;
  REQUIRE(scale_of() == 0.125);
  const auto y = rmsnorm.truth(s.call(), "y");
  REQUIRE(y->compare(0, 1, -8.0, 0) == Comparison::equal);
  s.numbers["scale_floor"] = 0;
  s.numbers["scale_cap"] = 0.875;
  REQUIRE(scale_of() == 0.875 / 448);
  REQUIRE(rmsnorm.truth(s.call(), "y")->compare(0, 0, 512.0, 0) == Comparison::equal);
  s.numbers["scale_cap"] = 1;  // the cap is attained: either rule gives the same
  REQUIRE(rmsnorm.truth(s.call(), "y")->compare(0, 0, 448.0, 0) == Comparison::equal);
  s.inputs["x"] = tensor(FormatId::bf16, {1, 2}, {3.0, std::numeric_limits<double>::quiet_NaN()});
  REQUIRE(std::isnan(scale_of()));
}

TEST_CASE("a per-token scale of a sum that nearly cancels is still enclosed to 2^-100") {
  // n = 1 + b with b next to -1: what is left of the row's largest value is 2^-24.
  Setup s;
  s.words["quant"] = "per_token";
  s.numbers["eps"] = 0x1p-60;
  s.numbers["scale_floor"] = 0;
  s.inputs["x"] = tensor(FormatId::fp64, {1, 1}, {1.0});
  s.inputs["bias"] = tensor(FormatId::fp64, {1}, {-1 + 0x1p-53});
  Enclosure e;
  rmsnorm.truth(s.call(), "scale")->enclose_row(0, std::span(&e, 1));
  REQUIRE(e.hi > 0);
  REQUIRE(e.radius <= 0x1p-100 * e.hi);
}

// ---- errors ----

std::string message_of(const Setup& s, std::string_view output = "y") {
  try {
    const auto truth = rmsnorm.truth(s.call(), output);
  } catch (const NormError& e) {
    return e.what();
  }
  return "";
}

TEST_CASE("rmsnorm names what does not fit") {
  Setup s;
  REQUIRE(message_of(s) == "rmsnorm: there is no tensor x; it is what is normalized.");
  s.inputs["x"] = Tensor::zeros(FormatId::bf16, {0, 4});
  REQUIRE(message_of(s) == "rmsnorm: x has shape 0x4 but must have at least one row and column.");
  s.inputs["x"] = Tensor::zeros(FormatId::bf16, {2, 4});
  REQUIRE(message_of(s).empty());
  s.inputs["weight"] = Tensor::zeros(FormatId::bf16, {3});
  REQUIRE(message_of(s) == "rmsnorm: weight has shape 3 but must have 4 to fit x.");
  s.inputs["weight"] = Tensor::zeros(FormatId::bf16, {4});
  s.numbers["eps"] = -1;
  REQUIRE(message_of(s) == "rmsnorm: eps is -1 but must be finite and not negative.");
  s.numbers["eps"] = std::numeric_limits<double>::quiet_NaN();
  REQUIRE(message_of(s) == "rmsnorm: eps is nan but must be finite and not negative.");
  s.numbers["eps"] = 0;
  s.words["eps_place"] = "nowhere";
  REQUIRE(message_of(s) == "rmsnorm: eps_place=nowhere is not one of inside, sum, outside, max, l2max, none.");
  s.words["eps_place"] = "max";
  s.words["quant"] = "static";
  REQUIRE(message_of(s) == "rmsnorm: quant=static needs a tensor scale of one value.");
  s.words.erase("quant");
  REQUIRE(message_of(s, "scale") == "rmsnorm: the output scale needs quant=static, per_token, mxfp8, mxfp4 or nvfp4.");
  REQUIRE(message_of(s, "residual") == "rmsnorm: the output residual needs the input residual.");
  REQUIRE(message_of(s, "z") == "rmsnorm: there is no output z; known: y, dequantized, residual, scale.");
}

TEST_CASE("the catalogue finds rmsnorm by name") {
  REQUIRE(find_norm("rmsnorm") == &rmsnorm);
  REQUIRE(find_norm("nonorm") == nullptr);
}

TEST_CASE("rmsnorm without attributes is rmsnorm with the fallbacks that its rows state") {
  for (const std::string quant : {"none", "per_token"}) {
    Setup bare, stated;
    bare.words["quant"] = quant;
    bare.inputs["x"] = tensor(FormatId::bf16, {3, 2}, {3.0, 1.0, 0.0, 0x1p-20, 0x1p-9, 0x1p-10});
    stated = bare;
    for (const NormAttribute& a : rmsnorm.attributes) {
      if (a.name == "quant") continue;
      if (a.choices.empty())
        stated.numbers[std::string(a.name)] = std::strtod(std::string(a.fallback).c_str(), nullptr);
      else
        stated.words[std::string(a.name)] = a.fallback;
    }
    const auto left = rmsnorm.truth(bare.call(), "y"), right = rmsnorm.truth(stated.call(), "y");
    for (std::int64_t row = 0; row < 3; ++row) {
      Enclosure a[2], b[2];
      left->enclose_row(row, a);
      right->enclose_row(row, b);
      for (int j = 0; j < 2; ++j) REQUIRE((a[j].hi == b[j].hi && a[j].lo == b[j].lo && a[j].radius == b[j].radius));
    }
  }
}

}  // namespace
}  // namespace norma::test

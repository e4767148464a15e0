// RMSNorm with a scale for every block: against 400-bit arithmetic, and where a scale is decided by a tie.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "reference/exact/real.hpp"
#include "reference/norms/norm.hpp"
#include "tests/reference/rational.hpp"

namespace norma::test {
namespace {

using Catch::Matchers::ContainsSubstring;

constexpr mpfr_prec_t kBits = 400;

struct Setting {
  Tensors tensors;
  Attributes numbers;
  std::map<std::string, std::string, std::less<>> words;
  NormCall call() const { return {.inputs = &tensors, .numbers = numbers, .words = words}; }
};

const NormDef& rms() { return *find_norm("rmsnorm"); }

Tensor filled(FormatId format, Shape shape, const std::vector<double>& values) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i)
    t.set_code(i, encode(format, values[static_cast<std::size_t>(i) % values.size()], Overflow::ieee));
  return t;
}

std::vector<double> random_values(Random& random, int count, int low, int high) {
  std::vector<double> values;
  for (int i = 0; i < count; ++i) {
    const double mantissa = 1 + static_cast<double>(random.below(1 << 20)) * 0x1p-20;
    values.push_back((random.below(2) == 0 ? 1 : -1) * std::ldexp(mantissa, random.between(low, high)));
  }
  return values;
}

Interval real(double v) { return Interval(v, kBits); }
bool below(const Interval& a, double b) { return mpfr_cmp_d(a.hi.get(), b) < 0; }

// A scale by search through all there are; a tie (never met by random rows) fails.
double expected_scale(const Interval& amax, const std::string& quant, const std::string& rule, double global) {
  if (quant == "nvfp4") {
    const Interval v = div(mul(amax, real(global)), real(6));
    double best = 0;
    for (std::uint64_t k = 1; k <= 126; ++k) {
      const double here = decode(FormatId::e4m3fn, k), before = decode(FormatId::e4m3fn, k - 1);
      const double midpoint = (here + before) / 2;
      REQUIRE((mpfr_cmp_d(v.lo.get(), midpoint) > 0 || mpfr_cmp_d(v.hi.get(), midpoint) < 0));
      if (mpfr_cmp_d(v.lo.get(), midpoint) > 0) best = here;
    }
    return best;
  }
  const double largest = quant == "mxfp8" ? 448 : 6;
  const int exponent = quant == "mxfp8" ? 8 : 2;
  for (int e = -127;; ++e) {
    if (rule == "ceil" && below(amax, largest * std::ldexp(1, e))) return std::ldexp(1, e);
    if (rule == "floor" && below(amax, std::ldexp(1, e + exponent + 1))) return std::ldexp(1, e);
  }
}

std::vector<Interval> normed(const Setting& s, std::int64_t row) {
  const Tensor& x = s.tensors.at("x");
  std::vector<Interval> squares, n;
  for (std::int64_t j = 0; j < x.cols(); ++j) squares.push_back(square(real(x.value(row * x.cols() + j))));
  const Interval ms = div(sum(squares, kBits), real(static_cast<double>(x.cols())));
  const Interval root = sqrt(add(ms, real(s.numbers.at("eps"))));
  for (std::int64_t j = 0; j < x.cols(); ++j) {
    const Interval h = div(real(x.value(row * x.cols() + j)), root);
    n.push_back(add(mul(h, real(s.tensors.at("weight").value(j))), real(s.tensors.at("bias").value(j))));
  }
  return n;
}

// One row, x = 3 everywhere, no eps: n is the weight, exactly, and every scale is decided by exact comparison.
Setting exact_row(const std::string& quant, const std::vector<double>& weights) {
  const auto cols = static_cast<std::int64_t>(weights.size());
  Setting s;
  s.tensors["x"] = filled(FormatId::fp32, {1, cols}, {3});
  s.tensors["weight"] = filled(FormatId::fp32, {cols}, weights);
  s.words = {{"quant", quant}, {"eps_place", "none"}};
  return s;
}

double scale_of_first(const Setting& s) {
  rms().check(s.call());
  const Enclosure e = rms().truth(s.call(), "scale")->enclose(0, 0);
  CHECK((std::isnan(e.hi) || e.radius == 0));
  return e.hi;
}

std::vector<double> block_of(int size, double first) {
  std::vector<double> weights(static_cast<std::size_t>(size), 0x1p-4);
  weights[1] = first;
  return weights;
}

}  // namespace

TEST_CASE("block scales and codes are the rule's, on random rows") {
  Random random{20260101};
  for (const std::string quant : {"mxfp8", "mxfp4", "nvfp4"})
    for (const std::string rule : {"ceil", "floor"})
      for (const double global : {1.0, 37.5}) {
        Setting s;
        const std::int64_t cols = 96;
        s.tensors["x"] = filled(FormatId::bf16, {4, cols}, random_values(random, 4 * cols, -6, 4));
        s.tensors["weight"] = filled(FormatId::fp32, {cols}, random_values(random, cols, -3, 3));
        s.tensors["bias"] = filled(FormatId::fp32, {cols}, random_values(random, cols, -6, -2));
        s.numbers = {{"eps", 1e-3}, {"global_scale", global}};
        s.words = {{"quant", quant}, {"scale_rule", rule}};
        CAPTURE(quant, rule, global);
        rms().check(s.call());
        const double factor = quant == "nvfp4" ? global : 1;
        const std::int64_t block = quant == "nvfp4" ? 16 : 32;
        const auto codes = rms().truth(s.call(), "y"), scales = rms().truth(s.call(), "scale");
        const auto whole = truth_of(rms(), s.call(), "dequantized", TruthKind::fast);
        REQUIRE(scales->cols() == cols / block);
        REQUIRE(rms().outputs_of(s.call())[1].shape == Shape{4, cols / block});
        for (std::int64_t row = 0; row < 4; ++row) {
          const std::vector<Interval> n = normed(s, row);
          for (std::int64_t k = 0; k < cols / block; ++k) {
            Interval amax = real(0);
            for (std::int64_t j = k * block; j < (k + 1) * block; ++j)
              amax = max(amax, abs(n[static_cast<std::size_t>(j)]));
            const double want = expected_scale(amax, quant, rule, factor);
            CHECK(scales->enclose(row, k).hi == want);
            CHECK(scales->compare(row, k, want, 0) == Comparison::equal);
            for (std::int64_t j = k * block; j < (k + 1) * block; ++j) {
              const Interval times = mul(n[static_cast<std::size_t>(j)], real(factor));
              const Enclosure y = enclosure_of(div(times, real(want))), d = enclosure_of(times);
              const Enclosure got = codes->enclose(row, j), all = whole->enclose(row, j);
              CHECK(std::fabs((got.hi - y.hi) + (got.lo - y.lo)) <= got.radius + y.radius + 0x1p-104 * std::fabs(y.hi));
              CHECK(std::fabs((all.hi - d.hi) + (all.lo - d.lo)) <= all.radius + d.radius + 0x1p-104 * std::fabs(d.hi));
              CHECK(codes->compare(row, j, y.hi + std::fabs(y.hi), 0) == Comparison::less);
            }
          }
        }
      }
}

TEST_CASE("a scale that a tie decides") {
  const double next = std::nextafter(448.0F, 1000.0F);
  CHECK(scale_of_first(exact_row("mxfp8", block_of(32, 448))) == 1);
  CHECK(scale_of_first(exact_row("mxfp8", block_of(32, -448))) == 1);
  CHECK(scale_of_first(exact_row("mxfp8", block_of(32, next))) == 2);
  CHECK(scale_of_first(exact_row("mxfp4", block_of(32, 6))) == 1);
  Setting floor = exact_row("mxfp8", block_of(32, 256));
  floor.words["scale_rule"] = "floor";
  CHECK(scale_of_first(floor) == 1);
  floor.tensors["weight"] = filled(FormatId::fp32, {32}, block_of(32, std::nextafter(256.0F, 0.0F)));
  CHECK(scale_of_first(floor) == 0.5);
  // 17 lies between 16 (even) and 18; 19 between 18 and 20 (even).
  CHECK(scale_of_first(exact_row("nvfp4", block_of(16, 6 * 17))) == 16);
  CHECK(scale_of_first(exact_row("nvfp4", block_of(16, std::nextafter(6.0F * 17, 1000.0F)))) == 18);
  CHECK(scale_of_first(exact_row("nvfp4", block_of(16, 6 * 19))) == 20);
  CHECK(scale_of_first(exact_row("nvfp4", block_of(16, std::nextafter(6.0F * 19, 0.0F)))) == 18);
  CHECK(scale_of_first(exact_row("nvfp4", block_of(16, 1e6))) == 448);
  // The codes of such a row are exact.
  const Setting s = exact_row("mxfp8", block_of(32, next));
  const Enclosure y = rms().truth(s.call(), "y")->enclose(0, 1);
  CHECK(y.hi == next / 2);
  CHECK(y.radius == 0);
  CHECK(rms().truth(s.call(), "y")->compare(0, 1, next / 2, 0) == Comparison::equal);
}

TEST_CASE("blocks of zeros, NaN and Inf") {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  Setting zeros = exact_row("mxfp8", std::vector<double>(32, 0.0));
  CHECK(scale_of_first(zeros) == 0x1p-127);
  CHECK(rms().truth(zeros.call(), "y")->enclose(0, 3).hi == 0);
  Setting none = exact_row("nvfp4", std::vector<double>(16, 0.0));
  CHECK(scale_of_first(none) == 0);
  CHECK(rms().truth(none.call(), "y")->enclose(0, 3).hi == 0);
  CHECK(rms().truth(none.call(), "y")->enclose(0, 3).radius == 0);
  CHECK(scale_of_first(exact_row("mxfp8", block_of(32, infinity))) == 0x1p127);
  CHECK(scale_of_first(exact_row("nvfp4", block_of(16, infinity))) == 448);
  CHECK(std::isnan(scale_of_first(exact_row("mxfp8", block_of(32, nan)))));
  // A NaN weight is one block's.
  std::vector<double> two = block_of(64, 7.0);
  two[40] = nan;
  const Setting s = exact_row("mxfp8", two);
  CHECK(scale_of_first(s) == 0x1p-6);
  CHECK(std::isnan(rms().truth(s.call(), "scale")->enclose(0, 1).hi));
  CHECK(std::isnan(rms().truth(s.call(), "y")->enclose(0, 33).hi));
}

TEST_CASE("columns that blocks do not fit are refused in one sentence") {
  const auto refusal = [](const Setting& s) {
    try {
      rms().check(s.call());
    } catch (const NormError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK_THAT(refusal(exact_row("mxfp8", block_of(40, 1))), ContainsSubstring("quant=mxfp8") &&
                                                               ContainsSubstring("every 32 columns") &&
                                                               ContainsSubstring("the 40 of x"));
  CHECK_THAT(refusal(exact_row("nvfp4", block_of(24, 1))), ContainsSubstring("every 16 columns"));
  CHECK(refusal(exact_row("nvfp4", block_of(48, 1))).empty());
  Setting s = exact_row("nvfp4", block_of(16, 1));
  s.numbers["global_scale"] = 0;
  CHECK_THAT(refusal(s), ContainsSubstring("global_scale"));
  s = exact_row("mxfp8", block_of(32, 1));
  s.words["scale_rule"] = "even";
  CHECK_THAT(refusal(s), ContainsSubstring("even") && ContainsSubstring("floor"));
}

}  // namespace norma::test

// The functions, every tier, against MPFR.
#include <catch2/catch_test_macros.hpp>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "reference/certified/functions/functions.hpp"
#include "reference/certified/vector_level.hpp"
#include "tests/reference/mpfr_functions.hpp"

namespace norma {
namespace {

using testing::function_by_mpfr;
using testing::Number;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::vector<Function> all_functions() {
  std::vector<Function> all;
  for (std::size_t i = 0; i < function_names().size(); ++i) all.push_back(static_cast<Function>(i));
  return all;
}

std::string name_of(Function f) { return std::string(function_names()[static_cast<std::size_t>(f)]); }

// Arguments by kind: every range where a function does something of its own, binary32 and binary64 numbers.
class Arguments {
 public:
  explicit Arguments(std::uint64_t seed) : bits_(seed) {}
  double next() {
    const double u = 2 * std::ldexp(static_cast<double>(bits_() >> 11), -53) - 1;
    switch (count_++ % 12) {
      case 0: return 700 * u;
      case 1: return 100 * u;
      case 2: return 40 * u;
      case 3: return static_cast<double>(static_cast<float>(15 * u));
      case 4: return 6 * u;
      case 5: return u;
      case 6: return 0.36 * u;
      case 7: return static_cast<double>(static_cast<float>(u));
      case 8: return std::copysign(std::ldexp(1 + std::fabs(u), -static_cast<int>(bits_() % 160)), u);
      case 9: return 0.5 + 0x1p-30 * u;  // where erf changes its form
      case 10: {                         // around the half-way points of the reduction by ln 2
        const double k = static_cast<double>(static_cast<int>(bits_() % 200) - 100) + 0.5;
        return k * 0.6931471805599453 * (1 + 0x1p-40 * u);
      }
      default: {  // any binary32 number
        const float v = std::bit_cast<float>(static_cast<std::uint32_t>(bits_() >> 32));
        return std::isfinite(v) ? static_cast<double>(v) : u;
      }
    }
  }
  std::uint64_t bits() { return bits_(); }

 private:
  std::mt19937_64 bits_;
  int count_ = 0;
};

double relative_error(mpfr_srcptr exact, DoubleDouble y) {
  Number d(mpfr_get_prec(exact));
  mpfr_sub_d(d, exact, y.h, MPFR_RNDN);
  mpfr_sub_d(d, d, y.l, MPFR_RNDN);
  mpfr_div(d, d, exact, MPFR_RNDN);
  return std::fabs(mpfr_get_d(d, MPFR_RNDN));
}

TEST_CASE("double-double functions stay within their bounds") {
  for (const Function f : all_functions()) {
    Arguments arguments(7);
    double worst = 0, at = 0;
    Number x(400), y(400);
    for (int i = 0; i < 6000; ++i) {
      const double h = arguments.next();
      if (std::fabs(h) > 700) continue;
      const double l =
          i % 3 == 0 ? 0 : std::ldexp(h, -53) * std::ldexp(static_cast<double>(arguments.bits() >> 11), -53);
      const DoubleDouble argument = two_sum(h, l);
      mpfr_set_d(x, argument.h, MPFR_RNDN);
      mpfr_add_d(x, x, argument.l, MPFR_RNDN);
      function_by_mpfr(y, f, x, 400);
      if (mpfr_zero_p(y) != 0 || mpfr_get_exp(static_cast<mpfr_ptr>(y)) <= -900) continue;
      const double error = relative_error(y, evaluate(f, argument));
      if (!(error <= worst)) {
        worst = error;
        at = h;
      }
    }
    INFO(name_of(f) << ": 2^" << std::log2(worst) << " at " << at);
    CHECK(worst <= function_bound_dd(f));
    CHECK(worst > 0);
  }
}

// |f(x) - mid| <= bound against the double-double value, whose own error is allowed for. Returns the worst in bounds.
double worst_of_row(Function f, const std::vector<double>& x, double& at) {
  std::vector<double> mid(x.size());
  evaluate(f, x, mid);
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!(std::fabs(x[i]) <= 700)) continue;
    const DoubleDouble y = evaluate(f, DoubleDouble{x[i], 0});
    const double size = std::fabs(y.h);
    if (!(size > 0x1p-899)) continue;
    const double error = std::fabs((y.h - mid[i]) + y.l) + size * 0x1p-90;
    const double share = error / (function_bound(f) * std::fabs(mid[i]));
    if (!(share <= worst)) {
      worst = share;
      at = x[i];
    }
  }
  return worst;
}

TEST_CASE("binary64 rows stay within their bounds: 10 million elements") {
  for (const Function f : all_functions()) {
    Arguments arguments(11);
    std::vector<double> x(1 << 14);
    double worst = 0, at = 0;
    for (int round = 0; round < 92; ++round) {
      for (double& v : x) v = arguments.next();
      double where = 0;
      const double w = worst_of_row(f, x, where);
      if (!(w <= worst)) {
        worst = w;
        at = where;
      }
    }
    INFO(name_of(f) << ": " << worst << " of the bound at " << at);
    CHECK(worst <= 1);
    CHECK(worst > 0.1);  // the bound is not idle
  }
}

TEST_CASE("binary64 rows against the double-double tier for all binary32 inputs", "[nightly]") {
  constexpr std::uint64_t kAll = std::uint64_t{1} << 32;
  for (const Function f : all_functions()) {
    std::vector<double> x(1 << 16);
    double worst = 0, at = 0;
    for (std::uint64_t first = 0; first < kAll; first += x.size()) {
      for (std::size_t i = 0; i < x.size(); ++i)
        x[i] = static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(first + i)));
      double where = 0;
      const double w = worst_of_row(f, x, where);
      if (!(w <= worst)) {
        worst = w;
        at = where;
      }
    }
    WARN(name_of(f) << ": " << worst * function_bound(f) * 0x1p53 << " u at " << at);
    CHECK(worst <= 1);
  }
}

TEST_CASE("intervals hold the function's values") {
  std::mt19937_64 bits(5);
  const auto uniform = [&] { return std::ldexp(static_cast<double>(bits() >> 11), -53); };
  int violations = 0;
  for (int i = 0; i < 5600; ++i) {
    const auto f = static_cast<Function>(i % 7);
    double low = 10 * uniform() - 5;
    if (i % 3 == 0) low = 48 * uniform() - 24;
    if (i % 3 == 1) low = uniform() - 1.5;  // where silu and the gelus turn
    const double width = std::ldexp(uniform(), -static_cast<int>(bits() % 60));
    Interval x(200);
    mpfr_set_d(x.lo.get(), low, MPFR_RNDN);
    mpfr_set_d(x.hi.get(), low + width, MPFR_RNDN);
    const Interval y = evaluate(f, x);
    for (int k = 0; k < 3; ++k) {
      const double at = k == 2 ? low + width : low + width * k / 2;
      Number point(at, 300), value(300);
      function_by_mpfr(value, f, point, 300);
      if (mpfr_cmp(value, y.lo.get()) < 0 || mpfr_cmp(value, y.hi.get()) > 0) ++violations;
    }
    // A point's interval is as narrow as its precision.
    const Interval point = evaluate(f, Interval(low, 200));
    if (!is_tight(point, point)) ++violations;
  }
  CHECK(violations == 0);
}

TEST_CASE("an interval over a minimum is no wider than the values in it") {
  for (const Function f : {Function::silu, Function::gelu, Function::gelu_tanh}) {
    Interval x(200);
    mpfr_set_d(x.lo.get(), -1.375, MPFR_RNDN);
    mpfr_set_d(x.hi.get(), -0.625, MPFR_RNDN);
    const Interval y = evaluate(f, x);
    double least = 0;
    for (double v = -1.375; v < -0.625; v += 0x1p-14) least = std::min(least, evaluate(f, DoubleDouble{v, 0}).h);
    CHECK(mpfr_cmp_d(y.lo.get(), least) <= 0);
    CHECK(mpfr_cmp_d(y.lo.get(), least - 0x1p-26) > 0);
    const double ends = std::max(evaluate(f, DoubleDouble{-1.375, 0}).h, evaluate(f, DoubleDouble{-0.625, 0}).h);
    CHECK(mpfr_cmp_d(y.hi.get(), ends + 0x1p-50) < 0);
  }
}

TEST_CASE("special values have their limits") {
  const std::vector<double> x{kNaN, kInfinity, -kInfinity, 0.0, -0.0};
  std::vector<double> y(x.size());
  const auto is = [](double a, double b) {
    return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
  };
  const auto expect = [&](Function f, std::vector<double> want) {
    evaluate(f, x, y);
    for (std::size_t i = 0; i < x.size(); ++i) {
      INFO(name_of(f) << " of " << x[i] << " is " << y[i]);
      CHECK(is(y[i], want[i]));
    }
  };
  expect(Function::exp, {kNaN, kInfinity, 0.0, 1, 1});
  expect(Function::tanh, {kNaN, 1, -1, 0.0, -0.0});
  expect(Function::erf, {kNaN, 1, -1, 0.0, -0.0});
  expect(Function::sigmoid, {kNaN, 1, 0.0, 0.5, 0.5});
  for (const Function f : {Function::silu, Function::gelu, Function::gelu_tanh})
    expect(f, {kNaN, kInfinity, -0.0, 0.0, -0.0});
}

Tensor fp64_tensor(const std::vector<double>& values) {
  Tensor t = Tensor::zeros(FormatId::fp64, {static_cast<std::int64_t>(values.size())});
  for (std::size_t i = 0; i < values.size(); ++i)
    t.set_code(static_cast<std::int64_t>(i), std::bit_cast<std::uint64_t>(values[i]));
  return t;
}

TEST_CASE("the truth's tiers enclose extreme values and compare with their neighbours") {
  std::vector<double> values;
  for (const double v : {0x1p-1074, 0x1p-1022, 0x1p-149, 0x1p-60, 1e-9,  0.3,   1.0,   5.5,   9.3, 20.0, 37.5,
                         60.0,      103.9,     200.0,    699.0,   705.0, 709.7, 745.0, 800.0, 1e4, 1e10, 1e300})
    for (const double sign : {1.0, -1.0}) values.push_back(sign * v);
  const Tensor x = fp64_tensor(values);
  const std::size_t count = values.size();
  for (const Function f : all_functions()) {
    const auto truth = function_truth(f, x);
    std::vector<double> mid(count), radius(count), magnitude(count);
    truth->enclose_quick(0, {mid, radius, magnitude});
    for (std::size_t i = 0; i < count; ++i) {
      const double v = values[i];
      if (f == Function::gelu_tanh && std::fabs(v) > 25) continue;  // beyond the reference's reach
      INFO(name_of(f) << " of " << v);
      Number argument(v, 53), y(5000);
      function_by_mpfr(y, f, argument, 5000);
      const Enclosure e = truth->enclose(0, static_cast<std::int64_t>(i));
      const auto distance = [&](double h, double l) {
        Number d(6000);
        mpfr_sub_d(d, y, h, MPFR_RNDN);
        mpfr_sub_d(d, d, l, MPFR_RNDN);
        return std::fabs(mpfr_get_d(d, MPFR_RNDA));
      };
      CHECK(std::signbit(e.hi) == (mpfr_signbit(static_cast<mpfr_ptr>(y)) != 0));
      CHECK(std::signbit(mid[i]) == std::signbit(e.hi));
      const bool representable =
          mpfr_inf_p(y) == 0 && (mpfr_zero_p(y) != 0 || mpfr_get_exp(static_cast<mpfr_ptr>(y)) <= 1024);
      if (!representable) {
        CHECK(std::isinf(e.radius));
        CHECK(std::isinf(radius[i]));
      } else {
        CHECK(distance(e.hi, e.lo) <= e.radius);
        CHECK(distance(mid[i], 0) <= radius[i]);
        CHECK(e.radius <= 0x1p-80 * std::fabs(e.hi) + 0x1p-1074);
      }
      for (const double m :
           {e.hi, std::nextafter(e.hi, kInfinity), std::nextafter(e.hi, -kInfinity), 0.0, 1.0, v, v / 2}) {
        if (!std::isfinite(m)) continue;
        INFO("against " << m);
        const int order = mpfr_cmp_d(y, m);
        // Where 5000 bits round to the limit itself, the function is on its inner side.
        const int expected =
            order != 0 ? order : (m == 0 ? (e.hi < 0 || std::signbit(e.hi) ? -1 : 1) : (m > 0 ? -1 : 1));
        const Comparison answer = truth->compare(0, static_cast<std::int64_t>(i), m, 0);
        CHECK(static_cast<int>(answer) == (expected > 0) - (expected < 0));
      }
    }
  }
}

Tensor all_codes(FormatId format) {
  const std::int64_t count = std::int64_t{1} << format_of(format).code_bits;
  Tensor t = Tensor::zeros(format, {count});
  for (std::int64_t i = 0; i < count; ++i) t.set_code(i, static_cast<std::uint64_t>(i));
  return t;
}

TEST_CASE("every bf16 and fp16 input, correctly rounded to five formats") {
  constexpr FormatId kOut[] = {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2};
  for (const FormatId from : {FormatId::bf16, FormatId::fp16}) {
    const Tensor x = all_codes(from);
    for (const Function f : all_functions()) {
      std::vector<Tensor> results;
      std::int64_t undecided = 0;
      for (const FormatId to : kOut) {
        RoundedFunction r = round_function(f, x, to, Overflow::ieee);
        undecided += r.tiers.undecided;
        CHECK(r.tiers.binary64 + r.tiers.double_double + r.tiers.exact == x.size());
        results.push_back(std::move(r.y));
      }
      CHECK(undecided == 0);
      std::int64_t wrong = 0, first = -1;
      Number y(128);
      for (std::int64_t i = 0; i < x.size(); ++i) {
        const double v = x.value(i);
        Number argument(v, 53);
        if (v == -kInfinity && f >= Function::silu)
          mpfr_set_d(y, -0.0, MPFR_RNDN);
        else
          function_by_mpfr(y, f, argument, 128);
        for (std::size_t k = 0; k < std::size(kOut); ++k) {
          const auto known = testing::round_known(kOut[k], y, 112);
          const std::uint64_t right = known ? *known : testing::round_function_by_mpfr(f, v, kOut[k]);
          if (results[k].code(i) != right) {
            ++wrong;
            if (first < 0) first = i;
          }
        }
      }
      INFO(name_of(f) << " of " << norma::name_of(from) << ", first wrong at code " << first);
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("binary32 inputs next to half-way points, correctly rounded") {
  // x whose half or whole is half-way between two numbers of the narrow formats: silu and the gelus lie next to x/2,
  // tanh next to x, exp next to 1; x^2 decides.
  std::vector<float> values;
  std::mt19937_64 bits(3);
  for (int i = 0; i < 400; ++i) {
    const auto odd = static_cast<float>(2 * (128 + static_cast<int>(bits() % 128)) + 1);
    const int exponent = -static_cast<int>(bits() % 120);
    values.push_back(std::ldexp(bits() % 2 == 0 ? odd : -odd, exponent - 8));
  }
  for (int i = 0; i < 200; ++i)
    values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits() % 0x7f80'0000)));
  Tensor x = Tensor::zeros(FormatId::fp32, {static_cast<std::int64_t>(values.size())});
  for (std::size_t i = 0; i < values.size(); ++i)
    x.set_code(static_cast<std::int64_t>(i), std::bit_cast<std::uint32_t>(values[i]));
  for (const Function f : all_functions()) {
    for (const FormatId to : {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn}) {
      const RoundedFunction one = round_function(f, x, to, Overflow::ieee, 1);
      const RoundedFunction two = round_function(f, x, to, Overflow::ieee, 2);
      CHECK(one.y.bytes == two.y.bytes);
      CHECK(one.tiers == two.tiers);
      CHECK(one.tiers.undecided == 0);
      int wrong = 0;
      for (std::int64_t i = 0; i < x.size(); ++i)
        wrong += one.y.code(i) != testing::round_function_by_mpfr(f, x.value(i), to) ? 1 : 0;
      INFO(name_of(f) << " to " << norma::name_of(to));
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("every vector level gives the same bits") {
  const VectorLevel before = vector_level();
  Arguments arguments(17);
  std::vector<double> x(4096 + 5);
  for (double& v : x) v = arguments.next();
  x[3] = kNaN;
  x[4] = kInfinity;
  x[5] = -kInfinity;
  x[6] = -0.0;
  x[7] = -1e300;
  x[8] = 0x1p-1070;
  for (const Function f : all_functions()) {
    std::vector<double> first(x.size()), other(x.size());
    set_vector_level(vector_levels().front());
    evaluate(f, x, first);
    for (const VectorLevel level : vector_levels()) {
      set_vector_level(level);
      evaluate(f, x, other);
      INFO(name_of(f) << " at " << norma::name_of(level));
      bool same = true;
      for (std::size_t i = 0; i < x.size(); ++i)
        same = same && (std::isnan(first[i])
                            ? std::isnan(other[i])
                            : std::bit_cast<std::uint64_t>(first[i]) == std::bit_cast<std::uint64_t>(other[i]));
      CHECK(same);
    }
  }
  set_vector_level(before);
}

}  // namespace
}  // namespace norma

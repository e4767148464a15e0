// Decisions against exact rationals, for numbers that are given exactly, by wide enclosures, or not at all.
#include "reference/exact/decide.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/reference/rational.hpp"

namespace norma::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// A truth that is one known rational, and counts how often it is asked.
class Known final : public TruthSource {
 public:
  explicit Known(Rational value) : value_(std::move(value)) {}
  std::int64_t rows() const override { return 1; }
  std::int64_t cols() const override { return 1; }
  void enclose_row(std::int64_t, std::span<Enclosure>) const override {}
  Comparison compare(std::int64_t, std::int64_t, double m_hi, double m_lo) const override {
    ++asked;
    const Rational m = rational(m_hi) + rational(m_lo);
    return value_ < m ? Comparison::less : value_ > m ? Comparison::greater : Comparison::equal;
  }
  mutable int asked = 0;

 private:
  Rational value_;
};

class Undecided final : public TruthSource {
 public:
  std::int64_t rows() const override { return 1; }
  std::int64_t cols() const override { return 1; }
  void enclose_row(std::int64_t, std::span<Enclosure>) const override {}
  Comparison compare(std::int64_t, std::int64_t, double, double) const override { return Comparison::undecided; }
};

// An enclosure of y with a radius about 2^-width |y|, not centred on it.
Enclosure around(const Rational& y, int width, Random& random) {
  double hi = static_cast<double>(y);
  const Rational rest = y - rational(hi);
  Enclosure e{.hi = hi, .lo = static_cast<double>(rest), .radius = 0, .magnitude = std::fabs(hi)};
  if (!(hi + e.lo == hi)) e.lo = 0;
  const double extra = std::ldexp(std::fabs(hi), -width);
  const double shift = extra * (static_cast<double>(random.below(5)) - 2) / 4;
  if (hi + (e.lo + shift) == hi) e.lo += shift;
  e.radius = static_cast<double>(abs(y - rational(e.hi) - rational(e.lo))) * (1 + 0x1p-40) + extra + 0x1p-1074;
  return e;
}

Rational random_value(Random& random, FormatId format) {
  const Format& f = format_of(format);
  const std::uint64_t code = random.below(f.max_finite_code());
  const Rational low = rational(decode(format, code)), high = rational(decode(format, code + 1));
  Rational y = low;
  switch (random.below(6)) {
    case 0: break;                                           // a value
    case 1: y = (low + high) / 2; break;                     // a midpoint
    case 2: y = low + (high - low) * Rational(1, 3); break;  // no dyadic number
    case 3: y = (low + high) / 2 + (high - low) * power_of_two(-random.between(30, 200)); break;
    case 4: y = low - (high - low) * power_of_two(-random.between(30, 200)); break;
    case 5: y = low + (high - low) * Rational(static_cast<int>(random.below(1 << 20)), 1 << 20); break;
  }
  if (random.below(20) == 0) y = power_of_two(random.between(f.emin - f.precision - 2, f.emax + 3));
  return random.below(2) == 0 ? y : -y;
}

// Rounds to nearest, ties to even; in units of one, exactly.
cpp_int nearest(const Rational& v) {
  const Rational half = v + Rational(1, 2);
  cpp_int n = numerator(half) / denominator(half);
  if (half < 0 && n * denominator(half) != numerator(half)) --n;  // floor
  if (Rational(n) == half && n % 2 != 0) --n;
  return n;
}

Rational ulp(const Rational& y, FormatId format) {
  const Format& f = format_of(format);
  const int e = y == 0 ? f.emin : std::max(floor_log2(y), f.emin);
  return power_of_two(e - f.precision + 1);
}

TEST_CASE("scaled_error is the exact error in 2^-16 ulp, rounded once, whatever the enclosure's width") {
  const FormatId format = GENERATE(FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2,
                                   FormatId::e4m3fnuz, FormatId::tf32);
  const int width = GENERATE(100, 60, 30, 3);
  CAPTURE(name_of(format), width);
  Random random{20};
  int asked = 0;
  for (int repeat = 0; repeat < 1500; ++repeat) {
    const Rational y = random_value(random, format);
    const Known truth(y);
    const Enclosure e = around(y, width, random);
    const Element element{truth, 0, 0, e};
    double got = static_cast<double>(y);
    const std::uint64_t code = code_of(format, std::fabs(got));
    const std::uint64_t near = std::min(code + random.below(3), format_of(format).max_finite_code());
    if (random.below(8) != 0) got = std::copysign(decode(format, near), got);  // else binary64's own nearest
    if (random.below(16) == 0) got = -got;
    if (random.below(16) == 0) got = 0;
    const ScaledError error = scaled_error(element, got, format);
    const cpp_int limit = cpp_int(1) << 48;
    cpp_int right = nearest((rational(got) - y) / ulp(y, format) * 65536);
    right = std::max(cpp_int(-limit), std::min(limit, right));
    CAPTURE(repeat, got, e.hi, e.lo, e.radius, right.str());
    REQUIRE(error.decided);
    REQUIRE(cpp_int(error.value) == right);
    REQUIRE(std::ldexp(ulp_of(format, *binade(element, format)), 0) == static_cast<double>(ulp(y, format)));
    asked += truth.asked;
  }
  // The enclosure decides alone but for half-way points and powers of two.
  if (width == 100) REQUIRE(asked < 2200);
}

TEST_CASE("half-way points of the scaled error go to even, on both sides") {
  // y = 1 + (2k+1)/2 units below got
  const double unit = 0x1p-23 * 0x1p-16;
  for (int k = -5; k <= 5; ++k)
    for (int nudge = -1; nudge <= 1; ++nudge) {
      const Rational y = rational(1.5) - rational(unit) * (2 * k + 1) / 2 - nudge * power_of_two(-300);
      const Known truth(y);
      Random random{21};
      const Enclosure e = around(y, 100, random);
      const ScaledError error = scaled_error({truth, 0, 0, e}, 1.5, FormatId::fp32);
      const int right = nudge < 0 ? k : nudge > 0 ? k + 1 : (k % 2 == 0 ? k : k + 1);
      REQUIRE(error.decided);
      REQUIRE(error.value == right);
    }
}

TEST_CASE("an error beyond 2^32 ulp is cut off there") {
  const Known truth(Rational(1));
  const Enclosure e{.hi = 1};
  REQUIRE(scaled_error({truth, 0, 0, e}, 0x1p120, FormatId::fp32).value == kScaledErrorLimit);
  REQUIRE(scaled_error({truth, 0, 0, e}, -1e308, FormatId::fp32).value == -kScaledErrorLimit);
  REQUIRE(scaled_error({truth, 0, 0, e}, 513, FormatId::fp32).value == std::int64_t{512} << 39);
  REQUIRE(scaled_error({truth, 0, 0, e}, 514, FormatId::fp32).value == kScaledErrorLimit);
}

TEST_CASE("an ulp above the format's range goes on growing") {
  const Known truth(power_of_two(200));
  const Enclosure e{.hi = 0x1p200};
  REQUIRE(binade({truth, 0, 0, e}, FormatId::fp32) == 200);
  REQUIRE(ulp_of(FormatId::fp32, 200) == 0x1p177);
  REQUIRE(ulp_of(FormatId::fp32, -500) == 0x1p-149);
  const Known beyond(power_of_two(1030));
  const Enclosure wide{.hi = std::numeric_limits<double>::max(), .lo = 0, .radius = kInfinity};
  REQUIRE(binade({beyond, 0, 0, wide}, FormatId::fp64) == 1024);
  REQUIRE(round_to({beyond, 0, 0, wide}, FormatId::fp64, Overflow::ieee) == 0x7ff0'0000'0000'0000);
}

TEST_CASE("a truth that cannot decide is reported, never guessed") {
  const Undecided truth;
  const Enclosure at_power{.hi = 1, .lo = 0, .radius = 0x1p-110};
  const Element y{truth, 0, 0, at_power};
  REQUIRE_FALSE(binade(y, FormatId::fp32).has_value());
  REQUIRE_FALSE(scaled_error(y, 1.0, FormatId::fp32).decided);
  REQUIRE(round_to(y, FormatId::fp32, Overflow::ieee) == std::nullopt);
  const Enclosure at_half{.hi = 1 + 0x1p-24 + 0x1p-23, .lo = 0, .radius = 0x1p-110};
  REQUIRE(round_to({truth, 0, 0, at_half}, FormatId::fp32, Overflow::ieee) == std::nullopt);
  REQUIRE(round_to({truth, 0, 0, at_half}, FormatId::bf16, Overflow::ieee) == 0x3f80);
  REQUIRE_FALSE(scaled_error({truth, 0, 0, at_half}, 1 + 0x1p-24 + 0x1p-23 + 0x1p-40, FormatId::fp32).decided);
  REQUIRE(scaled_error({truth, 0, 0, at_half}, 1 + 0x1p-23, FormatId::fp32).decided);
  const Enclosure nothing{.hi = 0, .lo = 0, .radius = kInfinity};
  REQUIRE_FALSE(scaled_error({truth, 0, 0, nothing}, 1.0, FormatId::fp32).decided);
  REQUIRE_FALSE(is_faithful({truth, 0, 0, nothing}, FormatId::bf16, Overflow::ieee, 0).has_value());
}

TEST_CASE("scaled_difference subtracts midpoints exactly and rounds once") {
  Random random{22};
  for (int repeat = 0; repeat < 5000; ++repeat) {
    const Rational a = random_value(random, FormatId::fp32);
    const Rational b = random.below(2) == 0 ? a * (1 + power_of_two(-random.between(20, 110))) : -a / 3;
    Enclosure ea = around(a, 100, random), eb = around(b, 100, random);
    const double u = std::ldexp(1.0, random.between(-149, 20));
    const Rational exact =
        (rational(ea.hi) + rational(ea.lo) - rational(eb.hi) - rational(eb.lo)) / rational(u) * 65536;
    cpp_int right = nearest(exact);
    const cpp_int limit = cpp_int(1) << 48;
    right = std::max(cpp_int(-limit), std::min(limit, right));
    REQUIRE(cpp_int(scaled_difference(ea, eb, u)) == right);
  }
  REQUIRE(scaled_difference(1 + 0x1p-17, Enclosure{.hi = 1}, 1.0) == 0);  // half: to even
  REQUIRE(scaled_difference(1 + 0x3p-17, Enclosure{.hi = 1}, 1.0) == 2);
}

// What a small format can give, in order: finite magnitudes by code, then the one that stands for overflow.
std::vector<Rational> magnitudes(FormatId format) {
  const Format& f = format_of(format);
  std::vector<Rational> values;
  for (std::uint64_t c = 0; c <= f.max_finite_code(); ++c) values.push_back(rational(decode(format, c)));
  values.push_back(values.back() + power_of_two(f.emax - f.precision + 1));
  return values;
}

std::uint64_t overflow_code(const Format& f, Overflow overflow, std::uint64_t sign) {
  switch (overflow) {
    case Overflow::ieee: return f.has_infinity() ? sign | f.infinity_code() : f.nan_code();
    case Overflow::saturate_finite:
    case Overflow::saturate: return sign | f.max_finite_code();
    case Overflow::nan: return f.nan_code();
  }
  return 0;
}

// The nearest of all magnitudes, the even one of two.
std::uint64_t code_by_search(const Rational& y, const std::vector<Rational>& values, const Format& f,
                             Overflow overflow) {
  const Rational twice = 2 * abs(y);
  std::uint64_t best = 0;
  for (std::uint64_t c = 1; c < values.size(); ++c) {
    const Rational sum = values[c - 1] + values[c];
    if (twice > sum || (twice == sum && c % 2 == 0)) best = c;
  }
  const std::uint64_t sign = y < 0 ? f.sign_code() : 0;
  if (best > f.max_finite_code()) return overflow_code(f, overflow, sign);
  return best == 0 && !f.has_negative_zero() ? 0 : sign | best;
}

TEST_CASE("every code of the 8-bit formats, its midpoints and their neighbourhood round as a search says") {
  const FormatId format = GENERATE(FormatId::e4m3fn, FormatId::e5m2, FormatId::e4m3fnuz, FormatId::e5m2fnuz);
  CAPTURE(name_of(format));
  const Format& f = format_of(format);
  const std::vector<Rational> values = magnitudes(format);
  const Rational& largest = values[f.max_finite_code()];
  const Rational tiny = power_of_two(-200);
  const Rational places[] = {0, Rational(1, 3), Rational(1, 2), Rational(1, 2) + tiny, Rational(1, 2) - tiny, 2};
  constexpr Overflow kPolicies[] = {Overflow::ieee, Overflow::saturate_finite, Overflow::saturate, Overflow::nan};
  Random random{23};
  for (std::uint64_t c = 0; c <= f.max_finite_code(); ++c)
    for (const Rational& t : places) {
      const Rational y = (values[c] + (values[c + 1] - values[c]) * t) * (random.below(2) == 0 ? 1 : -1);
      if (y == 0) continue;
      const Overflow overflow = kPolicies[c + 3 >= f.max_finite_code() ? random.below(4) : c % 4];
      const Known truth(y);
      const Enclosure e = around(y, random.below(2) == 0 ? 100 : 2, random);
      const Element element{truth, 0, 0, e};
      CAPTURE(c, name_of(overflow), e.hi, e.lo, e.radius);
      for (const Overflow policy : kPolicies)
        if (policy == overflow || abs(y) > largest)
          REQUIRE(round_to(element, format, policy) == code_by_search(y, values, f, policy));

      // Of all codes one is correctly rounded, and y's neighbours are faithful.
      const std::uint64_t right = code_by_search(y, values, f, overflow);
      const std::uint64_t sign = y < 0 ? f.sign_code() : 0;
      const bool nan = is_nan_code(format, right);
      if (c % 4 != 1 && abs(y) <= largest) continue;
      std::uint64_t below = 0;
      while (below < f.max_finite_code() && values[below + 1] <= abs(y)) ++below;
      for (std::uint64_t got = 0; got < 256; ++got) {
        CAPTURE(got);
        const bool same_nan = nan && is_nan_code(format, got);
        REQUIRE(is_correctly_rounded(element, format, overflow, got) == (got == right || same_nan));
        const bool zero = decode(format, got) == 0;
        bool faithful = got == (sign | below) || (zero && below == 0);
        if (values[below] != abs(y)) {
          const std::uint64_t above =
              below == f.max_finite_code() ? overflow_code(f, overflow, sign) : sign | (below + 1);
          faithful = faithful || got == above || (is_nan_code(format, above) && is_nan_code(format, got));
        }
        REQUIRE(is_faithful(element, format, overflow, got) == faithful);
      }
    }
}

TEST_CASE("wider formats round as their decoded midpoints say, from enclosures of any width") {
  const FormatId format = GENERATE(FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::tf32, FormatId::fp64);
  Random random{24};
  const Format& f = format_of(format);
  for (int repeat = 0; repeat < 1500; ++repeat) {
    const Rational y = random_value(random, format);
    if (format == FormatId::fp64 && abs(y) < power_of_two(-1000)) continue;
    if (abs(y) > rational(max_finite(format))) continue;
    const Known truth(y);
    const Enclosure e = around(y, random.below(2) == 0 ? 100 : 10, random);
    const Element element{truth, 0, 0, e};
    const auto code = round_to(element, format, Overflow::ieee);
    REQUIRE(code.has_value());
    const std::uint64_t c = *code & f.magnitude_mask();
    const Rational value = c > f.max_finite_code() ? power_of_two(f.emax + 1) : rational(decode(format, c));
    if (y != 0) REQUIRE(((*code & f.sign_code()) != 0) == (y < 0));
    const Rational distance = abs(value - abs(y));
    for (std::uint64_t other : {c - 1, c + 1}) {
      if (c == 0 && other != 1) continue;
      const Rational o = other > f.max_finite_code() ? power_of_two(f.emax + 1) : rational(decode(format, other));
      const Rational d = abs(o - abs(y));
      REQUIRE((distance < d || (distance == d && c % 2 == 0)));
    }
    REQUIRE(is_faithful(element, format, Overflow::ieee, *code) == true);
  }
}

TEST_CASE("NaN, infinities and zeros are rounded by the policy, and zeros of exact zero may have either sign") {
  const Undecided truth;
  const auto code = [&](double hi, FormatId format, Overflow overflow) {
    const Enclosure e{.hi = hi};
    return round_to({truth, 0, 0, e}, format, overflow);
  };
  REQUIRE(code(kNaN, FormatId::bf16, Overflow::ieee) == 0x7fc0);
  REQUIRE(code(kInfinity, FormatId::bf16, Overflow::ieee) == 0x7f80);
  REQUIRE(code(-kInfinity, FormatId::e4m3fn, Overflow::ieee) == 0x7f);
  REQUIRE(code(-kInfinity, FormatId::e4m3fn, Overflow::saturate) == 0xfe);
  REQUIRE(code(-kInfinity, FormatId::e4m3fn, Overflow::saturate_finite) == 0x7f);
  REQUIRE(code(kInfinity, FormatId::e5m2, Overflow::nan) == format_of(FormatId::e5m2).nan_code());

  const Known zero(Rational(0));
  const Enclosure negative_zero{.hi = -0.0};
  const Element y{zero, 0, 0, negative_zero};
  REQUIRE(round_to(y, FormatId::bf16, Overflow::ieee) == 0x8000);
  REQUIRE(round_to(y, FormatId::e4m3fnuz, Overflow::ieee) == 0);
  REQUIRE(is_correctly_rounded(y, FormatId::bf16, Overflow::ieee, 0x0000) == true);
  REQUIRE(is_correctly_rounded(y, FormatId::bf16, Overflow::ieee, 0x0001) == false);
  REQUIRE(is_faithful(y, FormatId::bf16, Overflow::ieee, 0x0001) == false);

  const Known tiny(-power_of_two(-200));
  const Enclosure e{.hi = -0x1p-200};
  const Element t{tiny, 0, 0, e};
  REQUIRE(round_to(t, FormatId::bf16, Overflow::ieee) == 0x8000);
  REQUIRE(is_correctly_rounded(t, FormatId::bf16, Overflow::ieee, 0x0000) == false);
  REQUIRE(is_faithful(t, FormatId::bf16, Overflow::ieee, 0x8001) == true);
  REQUIRE(is_faithful(t, FormatId::bf16, Overflow::ieee, 0x0001) == false);

  const Enclosure undefined{.hi = kNaN};
  REQUIRE(is_correctly_rounded({truth, 0, 0, undefined}, FormatId::bf16, Overflow::ieee, 0x7fc1) == true);
  REQUIRE(is_correctly_rounded({truth, 0, 0, undefined}, FormatId::bf16, Overflow::ieee, 0x7f80) == false);
  REQUIRE(is_faithful({truth, 0, 0, undefined}, FormatId::bf16, Overflow::ieee, 0xffff) == true);
}

}  // namespace
}  // namespace norma::test

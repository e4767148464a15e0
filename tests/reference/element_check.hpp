// What every element of an algebraic norm's truth must satisfy, asked with exact rationals.
#pragma once

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <functional>
#include <span>
#include <string>

#include "reference/exact/decide.hpp"
#include "tests/reference/rational.hpp"

namespace norma::test {

// ---- y = a r + b, once more, in rationals ----

/// r = 1 / d: d = sqrt(S/n + eps), or as `place` says.
struct RationalRoot {
  Rational total, count, eps;
  std::string place;
  bool undefined() const { return total == 0 && (eps == 0 || place == "none"); }
};

inline int sign_of(const Rational& v) { return (v > 0) - (v < 0); }

/// Is t > d, equal, less, where t >= 0?
inline int against_denominator(const RationalRoot& r, const Rational& t) {
  const Rational mean = r.total / r.count;
  if (r.place == "inside") return sign_of(t * t - (mean + r.eps));
  if (r.place == "sum") return sign_of(t * t - (r.total + r.eps));
  if (r.place == "none") return sign_of(t * t - mean);
  if (r.place == "outside") return t < r.eps ? -1 : sign_of((t - r.eps) * (t - r.eps) - mean);
  // A maximum is exceeded if both are; it is the smaller of the two answers.
  if (r.place == "max") return std::min(sign_of(t * t - mean), sign_of(t - r.eps));
  REQUIRE(r.place == "l2max");
  return std::min(sign_of(t * t * r.count - r.total), sign_of(t * t * r.count - r.eps * r.eps));
}

/// The sign of a r - c.
inline int linear(const RationalRoot& r, const Rational& a, const Rational& c) {
  if (c == 0) return sign_of(a);
  if (a == 0) return c > 0 ? -1 : 1;
  if ((a > 0) != (c > 0)) return a > 0 ? 1 : -1;
  return (a > 0 ? 1 : -1) * against_denominator(r, a / c);
}

// ---- what is asked of every element ----

/// The sign of y - m.
using SignOfDifference = std::function<int(const Rational& m)>;

/// The code of y, by bisection over all values and their midpoints.
inline std::uint64_t rounded(const SignOfDifference& sign_of_y, FormatId format, Overflow overflow,
                             bool zero_is_negative) {
  const Format& f = format_of(format);
  const int sign = sign_of_y(0);
  const bool negative = sign < 0 || (sign == 0 && zero_is_negative);
  const auto magnitude_against = [&](const Rational& m) { return negative ? -sign_of_y(-m) : sign_of_y(m); };
  const auto value = [&](std::uint64_t code) {
    if (code <= f.max_finite_code()) return rational(decode(format, code));
    return rational(max_finite(format)) + power_of_two(f.emax - f.precision + 1);
  };
  std::uint64_t low = 0, high = f.max_finite_code() + 1;  // at the end: y in low's upper or high's lower half
  while (high - low > 1) {
    const std::uint64_t middle = low + (high - low) / 2;
    if (magnitude_against(value(middle)) >= 0)
      low = middle;
    else
      high = middle;
  }
  const int half = magnitude_against((value(low) + value(high)) / 2);
  const std::uint64_t code = half > 0 || (half == 0 && (low & 1) != 0) ? high : low;
  const std::uint64_t sign_code = negative ? f.sign_code() : 0;
  if (code > f.max_finite_code()) {
    if (overflow == Overflow::saturate || overflow == Overflow::saturate_finite) return sign_code | f.max_finite_code();
    return overflow == Overflow::ieee && f.has_infinity() ? sign_code | f.infinity_code() : f.nan_code();
  }
  if (code == 0 && !f.has_negative_zero()) return 0;
  return sign_code | code;
}

struct Counts {
  int elements = 0, ties = 0;
};

/// `narrow`: the radius that MPFR's enclosures have; else the one that enclosure.hpp asks for.
inline void check_element(const SignOfDifference& sign_of_y, const TruthSource& truth, std::int64_t row,
                          std::int64_t col, const Enclosure& e, std::span<const FormatId> formats, Counts& counts,
                          bool narrow = true) {
  const Element y{truth, row, col, e};
  ++counts.elements;

  // It contains y and is narrow.
  const Rational middle = rational(e.hi) + rational(e.lo);
  REQUIRE(sign_of_y(middle - rational(e.radius)) >= 0);
  REQUIRE(sign_of_y(middle + rational(e.radius)) <= 0);
  REQUIRE(e.radius <= (narrow ? 0x1p-100 : 0x1p-80) * e.magnitude + 0x1p-1074);
  REQUIRE(is_double_double(e.hi, e.lo));

  for (FormatId format : formats) {
    CAPTURE(name_of(format));
    const Format& f = format_of(format);
    const std::uint64_t right = rounded(sign_of_y, format, Overflow::ieee, std::signbit(e.hi));
    REQUIRE(round_to(y, format, Overflow::ieee) == right);
    REQUIRE(is_correctly_rounded(y, format, Overflow::ieee, right) == true);
    REQUIRE(is_faithful(y, format, Overflow::ieee, right) == true);

    // Comparisons at y's neighbourhood: the codes around it and the midpoints between them, all exact.
    const std::uint64_t magnitude = right & f.magnitude_mask();
    if (magnitude > f.max_finite_code()) continue;
    const std::uint64_t first = magnitude < 2 ? 0 : magnitude - 2;
    for (std::uint64_t c = first; c <= std::min(magnitude + 1, f.max_finite_code() - 1); ++c) {
      const double low = decode(format, (right & f.sign_code()) | c),
                   high = decode(format, (right & f.sign_code()) | (c + 1));
      const double half = (high - low) / 2;
      const int at_value = sign_of_y(rational(low));
      const int at_middle = sign_of_y(rational(low) + rational(half));
      REQUIRE(static_cast<int>(truth.compare(row, y.col, low, 0)) == at_value);
      REQUIRE(static_cast<int>(truth.compare(row, y.col, low, half)) == at_middle);
      REQUIRE(static_cast<int>(compare(y, low, half)) == at_middle);
      counts.ties += at_middle == 0;

      // The error of that neighbour, in units of 2^-16 ulp: y lies within half a unit of got - k units.
      const ScaledError error = scaled_error(y, low, format);
      REQUIRE(error.decided);
      int exponent = f.emin;
      for (int s : {-1, 1})
        if (s * sign_of_y(0) > 0)
          while (s * sign_of_y(s * power_of_two(exponent + 1)) >= 0) ++exponent;
      REQUIRE(binade(y, format) == exponent);
      const Rational unit = power_of_two(exponent - f.precision + 1 - 16);
      const int upper = sign_of_y(rational(low) - (Rational(error.value) - Rational(1, 2)) * unit);
      const int lower = sign_of_y(rational(low) - (Rational(error.value) + Rational(1, 2)) * unit);
      REQUIRE(upper <= 0);
      REQUIRE(lower >= 0);
      if (upper == 0 || lower == 0) REQUIRE(error.value % 2 == 0);
    }
    if (magnitude > 0) REQUIRE(is_correctly_rounded(y, format, Overflow::ieee, right - 1) == false);
  }
}

/// Numbers with exponents from `least` to `most`, one in eight a zero.
inline Tensor random_tensor(FormatId format, Shape shape, Random& random, int least, int most) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  const Format& f = format_of(format);
  const std::uint64_t hidden = std::uint64_t{1} << f.mantissa_bits();
  for (std::int64_t i = 0; i < t.size(); ++i) {
    // Fields of the exponent: 0 is subnormal.
    const int field = std::clamp(random.between(least, most) - f.emin + 1, 0, f.emax - f.emin + 1);
    std::uint64_t code = (static_cast<std::uint64_t>(field) * hidden) | random.below(hidden);
    code = std::min(code, f.max_finite_code());
    if (random.below(8) == 0) code = 0;
    t.set_code(i, code | (random.below(2) == 0 ? 0 : f.sign_code()));
  }
  return t;
}

}  // namespace norma::test

// A second, independent evaluation for the tests of the reference: exact rationals, no MPFR.
#pragma once

#include <boost/multiprecision/cpp_int.hpp>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>

#include "reference/formats/format.hpp"
#include "reference/formats/tensor.hpp"

namespace norma::test {

using boost::multiprecision::cpp_int;
using Rational = boost::multiprecision::cpp_rational;

inline Rational power_of_two(int exponent) {
  const cpp_int p = cpp_int(1) << static_cast<unsigned>(std::abs(exponent));
  return exponent < 0 ? Rational(cpp_int(1), p) : Rational(p);
}

inline Rational rational(double value) {
  int exponent = 0;
  const double fraction = std::frexp(value, &exponent);
  return Rational(cpp_int(static_cast<std::int64_t>(std::ldexp(fraction, 53)))) * power_of_two(exponent - 53);
}

/// Our own numbers, the same everywhere (splitmix64, Steele et al. 2014).
struct Random {
  std::uint64_t state;
  std::uint64_t next() {
    std::uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t n) { return next() % n; }
  int between(int a, int b) { return a + static_cast<int>(below(static_cast<std::uint64_t>(b - a + 1))); }
};

/// A tensor of the given values; each must be one of the format's (searched over its codes, not encoded).
inline std::uint64_t code_of(FormatId format, double value) {
  const Format& f = format_of(format);
  std::uint64_t low = 0, high = f.max_finite_code();
  const double magnitude = std::fabs(value);
  while (low < high) {
    const std::uint64_t middle = low + (high - low + 1) / 2;
    if (decode(format, middle) <= magnitude)
      low = middle;
    else
      high = middle - 1;
  }
  const std::uint64_t code = std::isnan(value) ? f.nan_code() : std::isinf(value) ? f.infinity_code() : low;
  return std::signbit(value) && !std::isnan(value) ? code | f.sign_code() : code;
}

inline Tensor tensor(FormatId format, Shape shape, std::initializer_list<double> values) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  std::int64_t i = 0;
  for (double v : values) t.set_code(i++, code_of(format, v));
  return t;
}

/// floor(log2 |v|) of a nonzero rational.
inline int floor_log2(const Rational& v) {
  const cpp_int n = abs(numerator(v)), d = denominator(v);
  int e = static_cast<int>(msb(n)) - static_cast<int>(msb(d));
  if (abs(v) < power_of_two(e)) --e;
  return e;
}

/// |lo| <= ulp(hi) / 2
inline bool is_double_double(double hi, double lo) {
  return 2 * std::fabs(lo) <= std::nextafter(std::fabs(hi), std::numeric_limits<double>::infinity()) - std::fabs(hi);
}

}  // namespace norma::test

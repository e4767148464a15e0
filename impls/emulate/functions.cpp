// Elementary functions rounded once: Ziv's strategy over binary64, then Boost.Multiprecision.
#include "impls/emulate/functions.hpp"

#include <bit>
#include <boost/math/constants/constants.hpp>
#include <boost/multiprecision/cpp_bin_float.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>
#include <vector>

namespace norma {

namespace {

namespace mp = boost::multiprecision;
template <unsigned kBits>
using Big = mp::number<mp::cpp_bin_float<kBits, mp::digit_base_2>, mp::et_off>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// The round-to-odd neighbour (53 bits) of a number next to `near` on the side of `rest`: rounding it once to fewer
/// than 52 bits is rounding the number itself (Boldo, Melquiond 2008).
double to_odd(double near, int rest) {
  if (rest == 0 || (std::bit_cast<std::uint64_t>(near) & 1) != 0) return near;
  return std::nextafter(near, rest > 0 ? kInfinity : -kInfinity);
}

double round_odd(double odd, FormatId target, Overflow overflow) {
  return decode(target, encode(target, odd, overflow));
}

// ---- the functions at many bits ----

/// e^x - 1 for 0 < x < 1: x + x^2/2! + ...
template <class T>
T expm1_series(const T& x) {
  T sum = x, term = x;
  for (int n = 2; term > sum * std::numeric_limits<T>::epsilon(); ++n) {
    term *= x / n;
    sum += term;
  }
  return sum;
}

/// (e^2x - 1) / (e^2x + 1) for x > 0, with e^2x - 1 from its own series where a difference would cancel.
template <class T>
T tanh_of(const T& x) {
  const T e = 2 * x < 1 ? expm1_series(T(2 * x)) : T(exp(T(2 * x)) - 1);
  return e / (e + 2);
}

/// 2/sqrt(pi) e^(-x^2) (x + 2x^3/3 + 4x^5/(3 5) + ...) for 0 < x < 8 (Abramowitz, Stegun 7.1.6).
template <class T>
T erf_of(const T& x) {
  T sum = x, term = x;
  const T factor = 2 * x * x;
  for (int n = 3; term > sum * std::numeric_limits<T>::epsilon() || factor > n; n += 2) {
    term *= factor / n;
    sum += term;
  }
  return boost::math::constants::two_div_root_pi<T>() * exp(T(-x * x)) * sum;
}

/// first - first r^2/((n+1)(n+2)) + ...: r - r^3/3! + ... from r and 1, 1 - r^2/2! + ... from 1 and 0. |r| < 0.8.
template <class T>
T alternating_series(const T& first, const T& r, int n) {
  T sum = first, term = first;
  const T square = r * r;
  for (; abs(term) > abs(sum) * std::numeric_limits<T>::epsilon(); n += 2) {
    term *= -square / ((n + 1) * (n + 2));
    sum += term;
  }
  return sum;
}

/// sin or cos of a - k pi/2 by quarters of a turn, k the nearest whole number.
template <class Wide>
Wide turned(Op op, double a) {
  const Wide x(a), quarter = boost::math::constants::pi<Wide>() / 2;
  const Wide k = floor(Wide(x / quarter + Wide(0.5)));
  const Wide r = x - k * quarter;
  const Wide fours = k - 4 * floor(Wide(k / 4));
  const int turns = (fours.template convert_to<int>() + (op == Op::cos ? 1 : 0)) % 4;
  const Wide y = turns % 2 == 0 ? alternating_series(r, r, 1) : alternating_series(Wide(1), r, 0);
  return turns < 2 ? y : Wide(-y);
}

template <class T>
T turn_of(Op op, const T& x) {
  constexpr auto kBits = static_cast<unsigned>(std::numeric_limits<T>::digits);
  const auto a = x.template convert_to<double>();
  return std::fabs(a) < 0x1p40 ? T(turned<Big<kBits + 160>>(op, a)) : T(turned<Big<kBits + 1200>>(op, a));
}

template <class T>
T function_of(Op op, const T& x) {
  switch (op) {
    case Op::exp: return exp(x);
    case Op::sin:
    case Op::cos: return turn_of(op, x);
    case Op::tanh: return x < 0 ? T(-tanh_of(T(-x))) : tanh_of(x);
    default: return x < 0 ? T(-erf_of(T(-x))) : erf_of(x);
  }
}

// ---- rounding ----

/// Rounded once to the target; y is neither zero nor beyond binary64's range by much.
template <class T>
double round_big(const T& y, FormatId target, Overflow overflow) {
  double near = y.template convert_to<double>();
  if (std::isinf(near)) {
    if (target == FormatId::fp64) return near;
    return round_odd(std::copysign(std::numeric_limits<double>::max(), near), target, overflow);
  }
  // The conversion may have rounded twice below 2^-1022: the nearest of it and its neighbours, then.
  T rest = y - near;
  const double beside = std::nextafter(near, rest > 0 ? kInfinity : -kInfinity);
  if (std::isfinite(beside) && abs(T(y - beside)) < abs(rest)) {
    near = beside;
    rest = y - near;
  }
  if (target == FormatId::fp64) return near;
  return round_odd(to_odd(near, rest.sign()), target, overflow);
}

bool same_value(double a, double b) { return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b); }

/// y is known but for 2^log_error of itself.
template <class T>
std::optional<double> settle(const T& y, int log_error, FormatId target, Overflow overflow) {
  const T error = ldexp(T(abs(y)), log_error);
  const double low = round_big(T(y - error), target, overflow);
  const double high = round_big(T(y + error), target, overflow);
  if (!same_value(low, high)) return std::nullopt;
  return low;
}

double library_function(Op op, double a) {
  switch (op) {
    case Op::exp: return std::exp(a);
    case Op::sin: return std::sin(a);
    case Op::cos: return std::cos(a);
    case Op::tanh: return std::tanh(a);
    default: return std::erf(a);
  }
}

std::optional<double> settle_binary64(double y, FormatId target, Overflow overflow) {
  if (!(std::fabs(y) > 0x1p-1000 && std::fabs(y) < 0x1p1000)) return std::nullopt;
  const double error = y * 0x1p-40;  // beside which the rounding of the two ends is nothing
  const double low = round_odd(y - error, target, overflow);
  const double high = round_odd(y + error, target, overflow);
  if (!same_value(low, high)) return std::nullopt;
  return low;
}

/// What needs no computing: special values, limits, arguments whose result lies next to a known number.
std::optional<double> known(Op op, double a, FormatId target, Overflow overflow) {
  const double magnitude = std::fabs(a);
  const auto beside = [&](double value, int rest) {  // strictly between value and its neighbour
    return target == FormatId::fp64 ? value : round_odd(to_odd(value, rest), target, overflow);
  };
  if (a != a) return round_odd(a, target, overflow);
  if (op == Op::exp) {
    if (a == kInfinity) return round_odd(a, target, overflow);
    if (a == -kInfinity) return 0.0;
    if (a == 0) return round_odd(1, target, overflow);
    if (magnitude < 0x1p-60) return beside(1, a > 0 ? 1 : -1);  // within 2^-59 of 1
    if (a > 710) {                                              // e^710 > 2^1024
      if (target == FormatId::fp64) return kInfinity;
      return round_odd(std::numeric_limits<double>::max(), target, overflow);
    }
    if (a < -746) return 0.0;  // below 2^-1075, half of the least number of any format
    return std::nullopt;
  }
  if (op == Op::sin || op == Op::cos) {
    if (magnitude == kInfinity) return round_odd(std::numeric_limits<double>::quiet_NaN(), target, overflow);
    if (op == Op::cos) {
      if (a == 0) return round_odd(1, target, overflow);
      return magnitude < 0x1p-30 ? std::optional(beside(1, -1)) : std::nullopt;  // 1 - cos x <= x^2/2
    }
    if (a == 0) return round_odd(a, target, overflow);
    return magnitude < 0x1p-30 ? std::optional(beside(a, a > 0 ? -1 : 1)) : std::nullopt;  // x - sin x < x^3/6
  }
  const double sign = std::copysign(1.0, a);
  if (a == 0) return round_odd(a, target, overflow);
  if (magnitude == kInfinity) return round_odd(sign, target, overflow);
  // 1 - tanh(x) < 2 e^-2x < 2^-56 for x > 20; erfc(6) < 2^-55.
  if (magnitude > (op == Op::tanh ? 20 : 6)) return beside(sign, a > 0 ? -1 : 1);
  // x - tanh(x) < x^3/3, below a quarter of an ulp.
  if (op == Op::tanh && magnitude < 0x1p-30) return beside(a, a > 0 ? -1 : 1);
  return std::nullopt;
}

template <unsigned kBits>
std::vector<double> terms_of(Op op, double a) {
  Big<kBits> rest = function_of(op, Big<kBits>(a));
  std::vector<double> terms;
  for (unsigned k = 0; k < kBits; k += 50) {
    terms.push_back(rest.template convert_to<double>());
    rest -= terms.back();
  }
  return terms;
}

/// Where it is a dyadic number of at most 400 bits, x^y. With y = m 2^-j, m odd or j = 0, that needs x to be a square j
/// times over, and for m < 0 a power of two.
std::optional<Big<400>> exact_power(double x, double y) {
  while (y != std::floor(y)) {
    const double root = std::sqrt(x);
    if (root * root != x || std::fma(root, root, -x) != 0) return std::nullopt;
    x = root, y *= 2;
  }
  int exponent = 0;
  double digits = std::frexp(x, &exponent);  // x = digits 2^exponent with an odd digits, next
  while (digits != std::floor(digits)) digits *= 2, --exponent;
  if (digits == 1) {
    const double power = y * exponent;
    if (!(std::fabs(power) < 4096)) return std::nullopt;  // beyond every format
    return ldexp(Big<400>(1), static_cast<int>(power));
  }
  if (y < 0 || y * std::log2(digits) > 390 || y * std::fabs(exponent) > 4096) return std::nullopt;
  Big<400> power = 1;
  for (int k = 0; k < y; ++k) power *= digits;
  return ldexp(power, static_cast<int>(y) * exponent);
}

template <class T>
T power_of(double x, double y) {
  return exp(T(T(y) * log(T(x))));
}

}  // namespace

std::vector<double> unrounded_function(Op op, double a, int bits) {
  return bits == 53 ? std::vector{library_function(op, a)} : bits == 113 ? terms_of<113>(op, a) : terms_of<400>(op, a);
}

double rounded_function(Op op, double a, FormatId target, Overflow overflow) {
  if (const auto y = known(op, a, target, overflow)) return *y;
  if (target != FormatId::fp64) {
    if (const auto y = settle_binary64(library_function(op, a), target, overflow)) return *y;
  }
  if (const auto y = settle(function_of(op, Big<113>(a)), -100, target, overflow)) return *y;
  if (const auto y = settle(function_of(op, Big<400>(a)), -380, target, overflow)) return *y;
  throw std::logic_error("400 bits do not settle the rounding of an elementary function");
}

double rounded_power(double x, double y, FormatId target, Overflow overflow) {
  if (!(x > 0 && x < kInfinity && std::fabs(y) < kInfinity))
    return round_odd(std::numeric_limits<double>::quiet_NaN(), target, overflow);
  if (target != FormatId::fp64) {
    if (const auto z = settle_binary64(std::pow(x, y), target, overflow)) return *z;
  }
  const double log = y * std::log2(x);  // next to the end of its range, Ziv's steps decide
  if (log > 1025)
    return target == FormatId::fp64 ? kInfinity : round_odd(std::numeric_limits<double>::max(), target, overflow);
  if (log < -1080) return 0;
  if (x == 1 || y == 0) return round_odd(1, target, overflow);
  if (const auto z = exact_power(x, y)) return round_big(*z, target, overflow);
  if (const auto z = settle(power_of<Big<113>>(x, y), -97, target, overflow)) return *z;
  if (const auto z = settle(power_of<Big<400>>(x, y), -377, target, overflow)) return *z;
  throw std::logic_error("400 bits do not settle the rounding of a power");
}

}  // namespace norma

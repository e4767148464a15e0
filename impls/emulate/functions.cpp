// exp, tanh and erf rounded once: Ziv's strategy over binary64, then Boost.Multiprecision.
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

template <class T>
T function_of(Op op, const T& x) {
  switch (op) {
    case Op::exp: return exp(x);
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

template <unsigned kBits>
std::optional<double> settle(Op op, double a, int log_error, FormatId target, Overflow overflow) {
  using T = Big<kBits>;
  const T y = function_of(op, T(a));
  const T error = ldexp(T(abs(y)), log_error);
  const double low = round_big(T(y - error), target, overflow);
  const double high = round_big(T(y + error), target, overflow);
  if (!same_value(low, high)) return std::nullopt;
  return low;
}

double library_function(Op op, double a) {
  return op == Op::exp ? std::exp(a) : op == Op::tanh ? std::tanh(a) : std::erf(a);
}

std::optional<double> settle_binary64(Op op, double a, FormatId target, Overflow overflow) {
  const double y = library_function(op, a);
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

}  // namespace

std::vector<double> unrounded_function(Op op, double a, int bits) {
  return bits == 53 ? std::vector{library_function(op, a)} : bits == 113 ? terms_of<113>(op, a) : terms_of<400>(op, a);
}

double rounded_function(Op op, double a, FormatId target, Overflow overflow) {
  if (const auto y = known(op, a, target, overflow)) return *y;
  if (target != FormatId::fp64) {
    if (const auto y = settle_binary64(op, a, target, overflow)) return *y;
  }
  if (const auto y = settle<113>(op, a, -100, target, overflow)) return *y;
  if (const auto y = settle<400>(op, a, -380, target, overflow)) return *y;
  throw std::logic_error("400 bits do not settle the rounding of an elementary function");
}

}  // namespace norma

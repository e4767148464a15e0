// One rounded operation at a time.
#include "impls/emulate/arithmetic.hpp"

#include <bit>
#include <cmath>
#include <cstdlib>

#include "impls/emulate/functions.hpp"
#include "reference/formats/clones.hpp"

namespace norma {

namespace {

/// The round-to-odd neighbour of an exact value whose binary64 rounding is `nearest` and whose distance from
/// it has the sign of `rest`.
double to_odd(double nearest, double rest) {
  if (rest == 0 || !std::isfinite(nearest) || rest != rest) return nearest;
  if ((std::bit_cast<std::uint64_t>(nearest) & 1) != 0) return nearest;
  return std::nextafter(nearest, rest > 0 ? HUGE_VAL : -HUGE_VAL);
}

double add_odd(double a, double b) {
  const double s = a + b;
  const double bb = s - a;  // Knuth's TwoSum: the rest is exact where nothing overflows
  return to_odd(s, (a - (s - bb)) + (b - bb));
}

double mul_odd(double a, double b) {
  const double p = a * b;
  // The rest underflows only where the product is below 2^-900, far under half the least fp32 subnormal:
  // its rounding to a target is 0 or decided by the product alone.
  return to_odd(p, std::fma(a, b, -p));
}

double div_odd(double a, double b) {
  const double q = a / b;
  if (!std::isfinite(q) || !std::isfinite(b) || q == 0) return q;
  const double rest = std::fma(-q, b, a);  // exact: a - q b, of the sign of (a/b - q) b
  return to_odd(q, b > 0 ? rest : -rest);
}

double sqrt_odd(double a) {
  const double s = std::sqrt(a);
  if (!(a > 0) || !std::isfinite(a)) return s;
  return to_odd(s, std::fma(-s, s, a));
}

/// 1/sqrt(a). y is within 1 ulp of the exact value, so a target's midpoint can only be missed if y is that
/// midpoint itself (25 bits at most); then y^2 is exact, a y^2 = q + e is exact, and so is the sign of 1 - a y^2.
double rsqrt_odd(double a) {
  const double y = 1.0 / std::sqrt(a);
  if (!(a > 0) || !std::isfinite(a)) return y;
  const double p = y * y;
  const double q = a * p;
  const double e = std::fma(a, p, -q);
  const double pe = std::fma(y, y, -p);
  return to_odd(y, ((1.0 - q) - e) - a * pe);
}

double fma_odd(double a, double b, double c) {
  const double s = std::fma(a, b, c);
  if (!std::isfinite(s)) return s;
  // a b = p + e exactly; s is the rounding of p + e + c. Their difference from s, summed so that its sign is
  // right: TwoSum(p, c) = (t, u), then (t - s) + (u + e), each difference small and of few bits.
  const double p = a * b;
  const double e = std::fma(a, b, -p);
  const double t = p + c;
  const double tb = t - p;
  const double u = (p - (t - tb)) + (c - tb);
  const double ue = u + e;
  const double ub = ue - u;
  const double w = (u - (ue - ub)) + (e - ub);
  const double rest = (t - s) + ue;
  return to_odd(s, rest != 0 ? rest : w);
}

double e8m0_up(double a) {
  if (std::isnan(a)) return a;
  const double size = std::fabs(a);
  if (size <= 0x1p-127) return 0x1p-127;
  if (size > 0x1p126) return 0x1p127;
  const int e = std::ilogb(size);
  return std::ldexp(1.0, std::ldexp(1.0, e) == size ? e : e + 1);
}

double nearest_e4m3(double a) {
  return decode(FormatId::e4m3fn, encode(FormatId::e4m3fn, a, Overflow::saturate));
}

double native_fp64(Op op, double a, double b, double c) {
  switch (op) {
    case Op::cast:
    case Op::rotate:
    case Op::join: return a;  // the caller takes the value from its place
    case Op::add: return a + b;
    case Op::sub: return a - b;
    case Op::mul: return a * b;
    case Op::div: return a / b;
    case Op::neg: return -a;
    case Op::abs: return std::fabs(a);
    case Op::square: return a * a;
    case Op::sqrt: return std::sqrt(a);
    case Op::rsqrt:
      throw ProgramError("rsqrt rounded to fp64 has no correctly rounded emulation here; write sqrt, then reciprocal");
    case Op::reciprocal: return 1.0 / a;
    case Op::max: return a != a || b != b ? a + b : (a < b ? b : a);
    case Op::min: return a != a || b != b ? a + b : (b < a ? b : a);
    case Op::fmax: return a != a ? b : b != b ? a : (a < b ? b : a);
    case Op::fmin: return a != a ? b : b != b ? a : (b < a ? b : a);
    case Op::fma: return std::fma(a, b, c);
    case Op::exp:
    case Op::tanh:
    case Op::erf:
    case Op::sin:
    case Op::cos: return rounded_function(op, a, FormatId::fp64, Overflow::ieee);
    case Op::pow: return rounded_power(a, b, FormatId::fp64, Overflow::ieee);
    case Op::e8m0_up: return e8m0_up(a);
    case Op::nearest_e4m3: return nearest_e4m3(a);
    case Op::unless_zero: return a == 0 ? 0 : b;
  }
  std::abort();
}

double odd_op(Op op, double a, double b, double c) {
  switch (op) {
    case Op::add: return add_odd(a, b);
    case Op::sub: return add_odd(a, -b);
    case Op::mul: return mul_odd(a, b);
    case Op::square: return mul_odd(a, a);
    case Op::div: return div_odd(a, b);
    case Op::reciprocal: return div_odd(1.0, a);
    case Op::sqrt: return sqrt_odd(a);
    case Op::rsqrt: return rsqrt_odd(a);
    case Op::fma: return fma_odd(a, b, c);
    case Op::cast:
    case Op::neg:
    case Op::abs:
    case Op::max:
    case Op::min:
    case Op::fmax:
    case Op::fmin:
    case Op::exp:
    case Op::tanh:
    case Op::erf:
    case Op::sin:
    case Op::cos:
    case Op::pow:
    case Op::rotate:
    case Op::join:
    case Op::e8m0_up:
    case Op::nearest_e4m3:
    case Op::unless_zero: return native_fp64(op, a, b, c);
  }
  std::abort();
}

float fp32_function(Op op, float a) {
  return static_cast<float>(rounded_function(op, static_cast<double>(a), FormatId::fp32, Overflow::ieee));
}

float fp32_power(float a, float b) {
  return static_cast<float>(
      rounded_power(static_cast<double>(a), static_cast<double>(b), FormatId::fp32, Overflow::ieee));
}

// One loop an operation; all but those of functions and scales vectorize at the widths of NORMA_CLONES.
#define NORMA_LOOP(name, expression)                                                                       \
  NORMA_CLONES void loop_##name([[maybe_unused]] const float* a, [[maybe_unused]] const float* b,          \
                                [[maybe_unused]] const float* c, float* __restrict out, std::size_t count) { \
    for (std::size_t i = 0; i < count; ++i) out[i] = expression;                                           \
  }
NORMA_LOOP(cast, a[i])
NORMA_LOOP(add, a[i] + b[i])
NORMA_LOOP(sub, a[i] - b[i])
NORMA_LOOP(mul, a[i] * b[i])
NORMA_LOOP(div, a[i] / b[i])
NORMA_LOOP(neg, -a[i])
NORMA_LOOP(abs, std::fabs(a[i]))
NORMA_LOOP(square, a[i] * a[i])
NORMA_LOOP(sqrt, std::sqrt(a[i]))
// RN32(1/sqrt in binary64) is the correctly rounded rsqrt for all 2^31 positive binary32 inputs (exhaustive
// sweep, numerics note §6; repeated in the nightly tests).
NORMA_LOOP(rsqrt, static_cast<float>(1.0 / std::sqrt(static_cast<double>(a[i]))))
NORMA_LOOP(reciprocal, 1.0f / a[i])
NORMA_LOOP(max, (a[i] != a[i] || b[i] != b[i]) ? a[i] + b[i] : (a[i] < b[i] ? b[i] : a[i]))
NORMA_LOOP(min, (a[i] != a[i] || b[i] != b[i]) ? a[i] + b[i] : (b[i] < a[i] ? b[i] : a[i]))
NORMA_LOOP(fmax, a[i] != a[i] ? b[i] : (b[i] != b[i] ? a[i] : (a[i] < b[i] ? b[i] : a[i])))
NORMA_LOOP(fmin, a[i] != a[i] ? b[i] : (b[i] != b[i] ? a[i] : (b[i] < a[i] ? b[i] : a[i])))
NORMA_LOOP(fma, std::fma(a[i], b[i], c[i]))
NORMA_LOOP(exp, fp32_function(Op::exp, a[i]))
NORMA_LOOP(tanh, fp32_function(Op::tanh, a[i]))
NORMA_LOOP(erf, fp32_function(Op::erf, a[i]))
NORMA_LOOP(sin, fp32_function(Op::sin, a[i]))
NORMA_LOOP(cos, fp32_function(Op::cos, a[i]))
NORMA_LOOP(pow, fp32_power(a[i], b[i]))
NORMA_LOOP(rotate, a[i])
NORMA_LOOP(join, a[i])
NORMA_LOOP(e8m0_up, static_cast<float>(e8m0_up(static_cast<double>(a[i]))))
NORMA_LOOP(nearest_e4m3, static_cast<float>(nearest_e4m3(static_cast<double>(a[i]))))
NORMA_LOOP(unless_zero, a[i] == 0 ? 0 : b[i])
#undef NORMA_LOOP

}  // namespace

double rounded_op(Op op, double a, double b, double c, FormatId target, Overflow overflow) {
  if (target == FormatId::fp64) return native_fp64(op, a, b, c);
  if (is_transcendental(op)) return rounded_function(op, a, target, overflow);
  if (op == Op::pow) return rounded_power(a, b, target, overflow);
  return decode(target, encode(target, odd_op(op, a, b, c), overflow));
}

void fp32_op(Op op, const float* a, const float* b, const float* c, float* out, std::size_t count) {
  switch (op) {
#define NORMA_OP(name, ...) \
  case Op::name: loop_##name(a, b, c, out, count); return;
#include "reference/program/ops.def"
#undef NORMA_OP
  }
}

bool exact_in_fp32(Op op) {
  switch (op) {
    case Op::cast:
    case Op::neg:
    case Op::abs:
    case Op::max:
    case Op::min:
    case Op::fmax:
    case Op::fmin:
    case Op::rotate:
    case Op::join:
    case Op::e8m0_up:
    case Op::nearest_e4m3:
    case Op::unless_zero: return true;
    case Op::add:
    case Op::sub:
    case Op::mul:
    case Op::div:
    case Op::square:
    case Op::sqrt:
    case Op::rsqrt:
    case Op::reciprocal:
    case Op::fma:
    case Op::exp:
    case Op::tanh:
    case Op::erf:
    case Op::sin:
    case Op::cos:
    case Op::pow: return false;
  }
  std::abort();
}

double nudge(FormatId format, double value, int ulps) {
  if (!std::isfinite(value) || ulps == 0) return value;
  const Format& f = format_of(format);
  const std::uint64_t code = encode(format, value, Overflow::ieee);
  const auto magnitude = static_cast<std::int64_t>(code & f.magnitude_mask());
  const bool negative = (code & f.sign_code()) != 0;
  const std::int64_t moved = magnitude + (negative ? -ulps : ulps);
  if (moved < 0 || moved > static_cast<std::int64_t>(f.max_finite_code())) return value;
  return decode(format, (negative ? f.sign_code() : 0) | static_cast<std::uint64_t>(moved));
}

}  // namespace norma

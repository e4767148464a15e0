// Decisions about a real number: binary64 arithmetic with a bound first, exact comparisons where it is not enough.
#include "reference/exact/decide.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <utility>

#include "reference/exact/real.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// a + b = sum + error exactly, barring overflow (Knuth's TwoSum).
struct TwoSum {
  double sum, error;
};
TwoSum two_sum(double a, double b) {
  const double s = a + b;
  const double t = s - a;
  return {s, (a - (s - t)) + (b - t)};
}

bool is_real(const Element& y) { return std::isfinite(y.enclosure.hi); }

// |y| against m > 0, y's sign being known.
Comparison compare_magnitude(const Element& y, bool negative, double m_hi, double m_lo = 0) {
  if (!negative) return compare(y, m_hi, m_lo);
  switch (compare(y, -m_hi, -m_lo)) {
    case Comparison::less: return Comparison::greater;
    case Comparison::equal: return Comparison::equal;
    case Comparison::greater: return Comparison::less;
    case Comparison::undecided: return Comparison::undecided;
  }
  std::abort();
}

double power_of_two(int exponent) { return std::ldexp(1.0, exponent); }

}  // namespace

Comparison compare(const Element& y, double m_hi, double m_lo) {
  const Enclosure& e = y.enclosure;
  if (e.radius == 0 && e.lo == 0 && std::isfinite(e.hi) && std::isfinite(m_hi)) {
    // y is hi: y - m_hi is exact, and if it is one number it is compared with m_lo.
    const TwoSum d = two_sum(e.hi, -m_hi);
    if (d.error == 0 && std::isfinite(d.sum))
      return d.sum < m_lo ? Comparison::less : d.sum > m_lo ? Comparison::greater : Comparison::equal;
  }
  if (e.radius < kInfinity) {
    // y - m = (hi - m_hi) + (lo - m_lo) +- radius, the first difference exact. Three additions round, each by at
    // most 2^-53 of its result.
    const TwoSum d = two_sum(e.hi, -m_hi);
    const double rest = (e.lo - m_lo) + d.error;
    const double estimate = d.sum + rest;
    const double bound =
        e.radius + 0x1p-51 * (std::fabs(e.lo) + std::fabs(m_lo) + std::fabs(d.error)) + 0x1p-52 * std::fabs(estimate);
    // An overflow above makes the estimate infinite or NaN.
    if (std::isfinite(estimate) && std::fabs(estimate) > bound * (1 + 0x1p-50) + 0x1p-1070)
      return estimate > 0 ? Comparison::greater : Comparison::less;
  }
  return y.truth.compare(y.row, y.col, m_hi, m_lo);
}

std::optional<int> binade(const Element& y, FormatId format) {
  const int emin = format_of(format).emin;
  if (!is_real(y)) return std::nullopt;
  const Enclosure& e = y.enclosure;
  const double smallest = power_of_two(emin);
  const double magnitude = std::fabs(e.hi);
  // |y| lies within 3/4 ulp of hi: no power of two comes between unless hi is one.
  if (magnitude >= smallest && std::isnormal(e.hi)) {
    int exponent = std::ilogb(magnitude);
    const double ulp = power_of_two(std::max(exponent - 52, -1074));
    if (e.radius < ulp / 4) {
      if (magnitude != power_of_two(exponent)) return exponent;
      const double beyond = e.hi > 0 ? e.lo : -e.lo;
      if (beyond > e.radius || (beyond == 0 && e.radius == 0)) return exponent;
      if (beyond < -e.radius) return std::max(exponent - 1, emin);
      switch (compare_magnitude(y, e.hi < 0, magnitude)) {
        case Comparison::less: return std::max(exponent - 1, emin);
        case Comparison::equal:
        case Comparison::greater: return exponent;
        case Comparison::undecided: return std::nullopt;
      }
    }
  } else if (magnitude + std::fabs(e.lo) + e.radius < smallest * (1 - 0x1p-50)) {
    return emin;
  }
  // A wide enclosure: y's sign first, then the powers of two by bisection.
  const Comparison sign = compare(y, 0);
  if (sign == Comparison::undecided) return std::nullopt;
  if (sign == Comparison::equal) return emin;
  const bool negative = sign == Comparison::less;
  int below = emin, above = 1024;  // |y| < 2^above, or beyond binary64: then 1024 is enough of a binade
  if (above > 1023) {
    const Comparison top = compare_magnitude(y, negative, std::numeric_limits<double>::max(), power_of_two(970));
    if (top == Comparison::undecided) return std::nullopt;
    if (top != Comparison::less) return 1024;
  }
  while (above - below > 1) {
    const int middle = below + (above - below) / 2;
    switch (compare_magnitude(y, negative, power_of_two(middle))) {
      case Comparison::less: above = middle; break;
      case Comparison::equal:
      case Comparison::greater: below = middle; break;
      case Comparison::undecided: return std::nullopt;
    }
  }
  return below;
}

double ulp_of(FormatId format, int binade) {
  const Format& f = format_of(format);
  return power_of_two(std::max(std::max(binade, f.emin) - f.precision + 1, -1074));
}

namespace {

constexpr double kLimit = static_cast<double>(kScaledErrorLimit);

// round(terms[0] + terms[1] + ...) * 2^16 / ulp by MPFR, once, ties to even, saturated; exact.
std::int64_t round_exactly(std::initializer_list<double> terms, double ulp) {
  Dyadic total(0.0);
  for (double t : terms) total = total + Dyadic(t);
  const Real& value = total.real();
  Real scaled(value.bits());
  mpfr_mul_2si(scaled.get(), value.get(), 16 - std::ilogb(ulp), MPFR_RNDN);
  if (mpfr_cmp_d(scaled.get(), kLimit) >= 0) return kScaledErrorLimit;
  if (mpfr_cmp_d(scaled.get(), -kLimit) <= 0) return -kScaledErrorLimit;
  return mpfr_get_si(scaled.get(), MPFR_RNDN);
}

// (a - b.hi - b.lo) * 2^16 / ulp = whole + part, |error of part| <= bound; empty where binary64 cannot hold it.
struct Scaled {
  double whole, part, bound;
};
std::optional<Scaled> scale_exactly(double a, double b_hi, double b_lo, double radius, double ulp) {
  const TwoSum d = two_sum(a, -b_hi);
  const int up = 16 - std::ilogb(ulp);
  const double high = std::ldexp(d.sum, up);  // exact, or below 2^-1022: far less than the margin below
  if (!(std::fabs(high) < 0x1p51) || !(ulp > 0x1p-900)) return std::nullopt;
  const double whole = std::nearbyint(high);
  const double error = std::ldexp(d.error, up), low = std::ldexp(b_lo, up);
  if (!(std::fabs(low) < 0x1p51)) return std::nullopt;
  const double part = (high - whole) + (error - low);
  // Two roundings, each at most 2^-53 of what it adds.
  const double bound = std::ldexp(radius, up) + 0x1p-51 * (std::fabs(high - whole) + std::fabs(error) + std::fabs(low));
  return Scaled{whole, part, bound * (1 + 0x1p-50)};
}

// The integer nearest to whole + part if no half-way point lies within the bound and a margin.
std::optional<std::int64_t> round_clearly(const Scaled& s) {
  const double rounded = std::nearbyint(s.part);
  if (!(std::fabs(s.part - rounded) + s.bound < 0.5 - 0x1p-40)) return std::nullopt;
  const double sum = s.whole + rounded;
  return static_cast<std::int64_t>(std::clamp(sum, -kLimit, kLimit));
}

}  // namespace

std::int64_t scaled_difference(const Enclosure& a, const Enclosure& b, double ulp, double offset) {
  return round_exactly({a.hi, a.lo, -b.hi, -b.lo, offset}, ulp);
}

ScaledError scaled_error(const Element& y, double got, FormatId format) {
  const Enclosure& e = y.enclosure;
  const std::optional<int> exponent = binade(y, format);
  const double ulp = ulp_of(format, exponent.value_or(std::ilogb(std::max(std::fabs(e.hi), 0x1p-1022))));
  ScaledError result;
  if (const auto scaled = scale_exactly(got, e.hi, e.lo, e.radius, ulp)) {
    if (const auto clear = round_clearly(*scaled)) return {*clear, exponent.has_value()};
  }
  result.value = round_exactly({got, -e.hi, -e.lo}, ulp);
  result.decided = exponent.has_value();
  if (!result.decided) return result;
  // Half-way points k + 1/2 in units of ulp 2^-16 lie at y = got - (2k + 1) half. Below 2^-1074 they have no
  // binary64 form: then the enclosure alone decides, if it can.
  const double half = std::ldexp(ulp, -17);
  if (half < 0x1p-1070) {
    result.decided = e.radius == 0;
    return result;
  }
  // error > (2k + 1)/2 iff y < got - (2k + 1) half
  const auto against_half = [&](std::int64_t k) { return compare(y, got, -(static_cast<double>(2 * k + 1) * half)); };
  // Bisects to the k with k - 1/2 <= error <= k + 1/2, starting at the midpoint's.
  std::int64_t low = -kScaledErrorLimit, high = kScaledErrorLimit, step = 1;
  std::int64_t k = result.value;
  bool low_known = false, high_known = false;
  while (true) {
    if (k < kScaledErrorLimit && !(high_known && high <= k)) {
      const Comparison above = against_half(k);  // y < point: error above k + 1/2
      if (above == Comparison::undecided) return {result.value, false};
      if (above == Comparison::equal) return {(k & 1) == 0 ? k : k + 1, true};
      if (above == Comparison::less) {
        low = k + 1;
        low_known = true;
        k = high_known ? low + (high - low) / 2 : std::min(kScaledErrorLimit, k + step);
        step *= 2;
        continue;
      }
      high = k;
      high_known = true;
    }
    if (k > -kScaledErrorLimit && !(low_known && low >= k)) {
      const Comparison below = against_half(k - 1);
      if (below == Comparison::undecided) return {result.value, false};
      if (below == Comparison::equal) return {(k & 1) == 0 ? k : k - 1, true};
      if (below == Comparison::greater) {  // error below k - 1/2
        high = k - 1;
        high_known = true;
        k = low_known ? low + (high - low) / 2 : std::max(-kScaledErrorLimit, k - step);
        step *= 2;
        continue;
      }
      low = k;
      low_known = true;
    }
    return {k, true};
  }
}

namespace {

// The largest code of a magnitude whose value is at most |y|. The enclosure's midpoint gives a first guess, which
// comparisons confirm or correct. Empty: undecided.
std::optional<std::uint64_t> code_below(const Element& y, FormatId format, bool negative) {
  const Format& f = format_of(format);
  const double magnitude = std::fabs(y.enclosure.hi);
  // Magnitudes by code are the multiples of a binade's ulp, one binade after the other.
  const int exponent = std::max(magnitude > 0 ? std::ilogb(magnitude) : f.emin, f.emin);
  const auto multiple = static_cast<std::uint64_t>(std::ldexp(magnitude, f.mantissa_bits() - exponent));
  const std::uint64_t low = exponent > f.emax
                                ? f.max_finite_code()
                                : (static_cast<std::uint64_t>(exponent - f.emin) << f.mantissa_bits()) + multiple;
  // The midpoint's place is y's or next to it, unless the enclosure is wide: gallop from there, then bisect.
  std::uint64_t good = 0, bad = f.max_finite_code() + 1;  // value(good) <= |y|; |y| < value(bad) or no such value
  bool good_seen = false, bad_seen = false;
  std::uint64_t probe = low, step = 1;
  while (bad - good > 1) {
    probe = std::clamp(probe, good + 1, bad - 1);
    switch (compare_magnitude(y, negative, decode(format, probe))) {
      case Comparison::undecided: return std::nullopt;
      case Comparison::less:
        bad = probe;
        bad_seen = true;
        probe = bad - std::min(step, bad);
        break;
      case Comparison::equal:
      case Comparison::greater:
        good = probe;
        good_seen = true;
        probe = good + step;
        break;
    }
    step = std::min(step * 2, f.max_finite_code());
    if (good_seen && bad_seen) probe = good + (bad - good) / 2;
  }
  return good;
}

// y's sign: true negative. Zero takes the enclosure's sign bit.
struct Sign {
  bool negative, zero;
};
std::optional<Sign> sign_of(const Element& y) {
  switch (compare(y, 0)) {
    case Comparison::less: return Sign{true, false};
    case Comparison::equal: return Sign{std::signbit(y.enclosure.hi), true};
    case Comparison::greater: return Sign{false, false};
    case Comparison::undecided: return std::nullopt;
  }
  std::abort();
}

std::uint64_t code_of_zero(const Format& f, bool negative) {
  return negative && f.has_negative_zero() ? f.sign_code() : 0;
}

}  // namespace

std::optional<std::uint64_t> round_to(const Element& y, FormatId format, Overflow overflow) {
  const Format& f = format_of(format);
  if (std::isnan(y.enclosure.hi)) return f.nan_code();
  if (std::isinf(y.enclosure.hi)) return beyond_code(f, overflow, y.enclosure.hi < 0 ? f.sign_code() : 0, true);
  const std::optional<Sign> sign = sign_of(y);
  if (!sign) return std::nullopt;
  if (sign->zero) return code_of_zero(f, sign->negative);
  const std::uint64_t sign_code = sign->negative ? f.sign_code() : 0;
  const std::optional<std::uint64_t> below = code_below(y, format, sign->negative);
  if (!below) return std::nullopt;
  const double value = decode(format, *below);
  // Half of the gap above; above the largest number it is as wide as below it.
  const double next = *below == f.max_finite_code() ? value + ulp_of(format, f.emax) : decode(format, *below + 1);
  const double half = std::isinf(next) ? power_of_two(970) : (next - value) / 2;
  if (half == 0) return std::nullopt;  // fp64 subnormals: the midpoint has no binary64 form
  std::uint64_t code = *below;
  switch (compare_magnitude(y, sign->negative, value, half)) {
    case Comparison::less: break;
    case Comparison::equal: code += code & 1; break;
    case Comparison::greater: ++code; break;
    case Comparison::undecided: return std::nullopt;
  }
  if (code > f.max_finite_code()) return beyond_code(f, overflow, sign_code, false);
  if (code == 0) return code_of_zero(f, sign->negative);
  return sign_code | code;
}

std::optional<bool> is_correctly_rounded(const Element& y, FormatId format, Overflow overflow, std::uint64_t code) {
  const std::optional<std::uint64_t> right = round_to(y, format, overflow);
  if (!right) return std::nullopt;
  if (*right == code) return true;
  if (is_nan_code(format, *right)) return is_nan_code(format, code);
  const bool zeros = decode(format, *right) == 0 && decode(format, code) == 0;
  return zeros && compare(y, 0) == Comparison::equal;
}

std::optional<bool> is_faithful(const Element& y, FormatId format, Overflow overflow, std::uint64_t code) {
  const Format& f = format_of(format);
  const double got = decode(format, code);
  if (std::isnan(y.enclosure.hi)) return std::isnan(got);
  if (std::isinf(y.enclosure.hi)) {
    const std::uint64_t right = beyond_code(f, overflow, y.enclosure.hi < 0 ? f.sign_code() : 0, true);
    return code == right || (std::isnan(got) && is_nan_code(format, right));
  }
  const std::optional<Sign> sign = sign_of(y);
  if (!sign) return std::nullopt;
  if (sign->zero) return got == 0;
  const std::optional<std::uint64_t> below = code_below(y, format, sign->negative);
  if (!below) return std::nullopt;
  const std::uint64_t sign_code = sign->negative ? f.sign_code() : 0;
  const double lower = *below == 0 ? 0 : decode(format, sign_code | *below);  // not every format has -0
  if (got == lower) return true;
  if (compare(y, lower) == Comparison::equal) return false;
  if (*below < f.max_finite_code()) return got == decode(format, sign_code | (*below + 1));
  const std::uint64_t right = beyond_code(f, overflow, sign_code, false);
  return code == right || (std::isnan(got) && is_nan_code(format, right));
}

}  // namespace norma

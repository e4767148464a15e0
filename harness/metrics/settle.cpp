// The first pass: plain loops that vectorize. Each lane is independent and nothing is contracted, so every vector width
// settles the same elements.
//
// Given |y - m| <= R. u = 2^-53, RN is rounding to nearest.
//
// Binade. RN is monotone and keeps powers of two P: RN(|m| - R) > P implies |m| - R > P, and RN(|m| + R) < 2P implies
//   |m| + R < 2P. So these comparisons of rounded numbers decide that |y| lies in [P, 2P); R = 0 does for the lower
//   end, and below 2^emin no lower end is asked for. Likewise RN(|m| + R) < largest: y does not overflow.
// Error. With k = 2^16 / ulp(y), a power of two, t = RN(g - m) k differs from (g - y) k by at most
//   (R + u |g - m|) k, and `bound` = RN(RN(R + 4u |RN(g - m)|) k) is at least that but for a factor 1 - 2u. n, the
//   integer nearest to t, is nearest to (g - y) k if |t - n| + bound < 1/2; t - n is exact, and 2^-40 of margin covers
//   the roundings (each below 2^-53) and that factor (below 2^-53 as bound < 1/2).
// Correct. g in the format and |y| < largest: |g - y| < ulp/2 makes g the correctly rounded result, > ulp/2 excludes
// it;
//   so |t| away from 2^15 by more than the bound decides.
// Faithful. |g - y| > ulp excludes it. |g - y| < ulp: neighbours in y's binade are an ulp apart, so g is one if |g| >=
// P.
//   A |g| < P is none for P > 2^emin (P lies between); at the bottom the spacing goes on below P, and g is one. An
//   opposite sign is |g - y| >= P > ulp away, as the precision is at least 2.
// Condition. The binade of RN(|q| + |b|), the magnitude that a closer enclosure holds: by monotonicity it is Q's if
//   RN(magnitude - R) >= Q and RN(magnitude + R) < 2Q.
// Definition. As the error, with t = RN(e - m) k and radius R + Re; a margin of kHalfwayMargin is left to the closer
//   enclosures, which round to even what is that near to a half-way point (see split_definition).
#include "harness/metrics/settle.hpp"

#include <bit>
#include <cmath>
#include <limits>

#include "harness/metrics/element.hpp"
#include "harness/metrics/grid.hpp"
#include "reference/formats/clones.hpp"

namespace norma {

namespace {

constexpr double kGrid = static_cast<double>(kGridUlp);
constexpr double kMargin = 0.5 - 0x1p-40;
constexpr std::uint64_t kExponentBits = 0x7ff0'0000'0000'0000;
// Beyond it the exponent of an inverse would leave binary64.
constexpr double kSmallestUnit = 0x1p-900, kLargestPower = 0x1p1000;
// Far below saturation of the grid.
constexpr double kLargestError = 0x1p47;

double power_below(double magnitude) {
  return std::bit_cast<double>(std::bit_cast<std::uint64_t>(magnitude) & kExponentBits);
}

/// 1 / p for a power of two in [2^-1022, 2^1022].
double inverse(double power) {
  return std::bit_cast<double>((std::uint64_t{2046} << 52) - std::bit_cast<std::uint64_t>(power));
}

/// Nearest integer, ties to even, for magnitudes below 2^51: adding 1.5 2^52 leaves no fraction.
double nearest(double x) { return (x + 0x1.8p52) - 0x1.8p52; }

double larger(double a, double b) { return a > b ? a : b; }
std::uint64_t when(bool condition, StateField field) { return condition ? state_bit(field) : 0; }

NORMA_CLONES std::uint64_t settle_run(const SettleFormat& f, const double* __restrict mid,
                                      const double* __restrict radius, const double* __restrict magnitude,
                                      const double* __restrict got, std::size_t count, Decided& __restrict d) {
  const double least_normal = f.least_normal, ulp_of_one = f.ulp_of_one, largest = f.largest;
  std::uint64_t settled = 0;
  for (std::size_t j = 0; j < count; ++j) {
    const double m = mid[j], r = radius[j], g = got[j];
    const double size = std::fabs(m), above = size + r, below = size - r;
    const double power = larger(power_below(size), least_normal);
    const double unit = power * ulp_of_one, per_unit = inverse(unit);
    const bool bottom = power == least_normal;
    const bool in_binade = (above < 2 * power) & (bottom | (below > power) | (r == 0));

    const double k = per_unit * kGrid;
    const double away = g - m, t = away * k, error = nearest(t);
    const double bound = (r + std::fabs(away) * 0x1p-51) * k;
    const double far = std::fabs(t);
    const bool error_known = (std::fabs(t - error) + bound < kMargin) & (far < kLargestError);
    const bool sides_known = (std::fabs(far - 0.5 * kGrid) > bound) & (std::fabs(far - kGrid) > bound);
    const bool zero_known = (g != 0) | (below > 0) | (r == 0);

    const double terms = magnitude[j];
    const double terms_power = larger(power_below(terms), power);
    const bool terms_known = (terms + r < 2 * terms_power) & ((terms_power == power) | (terms - r >= terms_power)) &
                             (terms >= 0) & (terms_power < kLargestPower);

    const bool known = in_binade & error_known & sides_known & zero_known & terms_known & (above < largest) &
                       (std::fabs(g) <= largest) & (unit > kSmallestUnit);
    const bool correct = far < 0.5 * kGrid;
    const bool faithful = correct | ((far < kGrid) & (bottom | (std::fabs(g) >= power)));
    const std::uint64_t state = when(true, settled_field) | when(correct, correct_field) |
                                when(faithful, faithful_field) | when((g == 0) & (below > 0), underflow_field) |
                                when((g != 0) & (std::fabs(g) < least_normal), subnormal_field);
    const double difference = error * (unit * (1 / kGrid));
    d.error[j] = error;
    d.unit[j] = unit;
    d.per_unit[j] = per_unit;
    d.shrink[j] = power * inverse(terms_power);
    d.difference[j] = difference;
    d.value[j] = g - difference;
    d.state[j] = known ? state : 0;
    settled += known ? 1 : 0;
  }
  return settled;
}

NORMA_CLONES std::uint64_t settle_definition_run(const double* __restrict mid, const double* __restrict radius,
                                                 const double* __restrict erased_mid,
                                                 const double* __restrict erased_radius, std::size_t count,
                                                 Decided& __restrict d) {
  std::uint64_t settled = 0;
  for (std::size_t j = 0; j < count; ++j) {
    const double k = d.per_unit[j] * kGrid;
    const double away = erased_mid[j] - mid[j], t = away * k, definition = nearest(t);
    const double bound = ((radius[j] + erased_radius[j]) + std::fabs(away) * 0x1p-51) * k;
    const bool known = (std::fabs(t - definition) + bound < 0.5 - 2 * kHalfwayMargin) & (std::fabs(t) < kLargestError) &
                       (d.state[j] != 0);
    d.definition[j] = definition;
    d.state[j] = known ? d.state[j] : 0;
    settled += known ? 1 : 0;
  }
  return settled;
}

// got - ideal is exact if TwoSum's error is zero.
NORMA_CLONES std::uint64_t split_implementation_run(const double* __restrict got, const double* __restrict ideal,
                                                    std::size_t count, Decided& __restrict d) {
  std::uint64_t open = 0;
  for (std::size_t j = 0; j < count; ++j) {
    const double g = got[j], i = ideal[j];
    const double away = g - i, back = away - g, rest = (g - (away - back)) + (-i - back);
    const double t = away * (d.per_unit[j] * kGrid);
    const bool exact = (rest == 0) & (std::fabs(t) < kLargestError);
    d.implementation[j] = exact ? nearest(t) : std::numeric_limits<double>::quiet_NaN();
    open += exact ? 0 : 1;
  }
  return open;
}

}  // namespace

SettleFormat settle_format(const Format& format) {
  return {.least_normal = min_normal(format.id),
          .ulp_of_one = std::ldexp(1.0, 1 - format.precision),
          .largest = max_finite(format.id)};
}

std::size_t settle(const SettleFormat& format, const QuickRun& truth, const double* got, std::size_t count,
                   Decided& decided) {
  return settle_run(format, truth.mid, truth.radius, truth.magnitude, got, count, decided);
}

std::size_t settle_definition(const QuickRun& truth, const QuickRun& erasure, std::size_t count, Decided& decided) {
  return settle_definition_run(truth.mid, truth.radius, erasure.mid, erasure.radius, count, decided);
}

bool split_implementation(const double* got, const double* ideal, std::size_t count, Decided& decided) {
  return split_implementation_run(got, ideal, count, decided) == 0;
}

}  // namespace norma

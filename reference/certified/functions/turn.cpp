// sin and cos: x = k pi/32 + r, tables of 64 angles, Taylor's series at |r| < 0.0492. u = 2^-53; errors of
// double-double operations by double_double.hpp.
#include "reference/certified/functions/turn.hpp"

#include <array>
#include <cmath>
#include <cstddef>

#include "reference/exact/real.hpp"

namespace norma {

namespace {

constexpr int kAngles = 64;
constexpr mpfr_prec_t kBits = 256;

DoubleDouble pair_of(const Real& v) {
  const double h = mpfr_get_d(v.get(), MPFR_RNDN);
  Real rest(kBits);
  mpfr_sub_d(rest.get(), v.get(), h, MPFR_RNDN);
  return {h, mpfr_get_d(rest.get(), MPFR_RNDN)};
}

struct Table {
  std::array<DoubleDouble, kAngles> sine, cosine;  // within u^2, relative; 0 and 1 exactly
  // pi/32 = c1 + c2 + c3 + c4: three times 29 bits, then a binary64 number. k c1, k c2, k c3 are exact for |k| < 2^24.
  double c1, c2, c3, c4;
};

const Table& table() {
  static const Table made = [] {
    Table t{};
    Real step(kBits), angle(kBits), s(kBits), c(kBits), part(29);
    mpfr_const_pi(step.get(), MPFR_RNDN);
    mpfr_div_2ui(step.get(), step.get(), 5, MPFR_RNDN);
    for (int k = 0; k < kAngles; ++k) {
      const auto i = static_cast<std::size_t>(k);
      if (k % 16 == 0) {
        constexpr double kSines[] = {0, 1, 0, -1};
        t.sine[i] = {kSines[k / 16], 0};
        t.cosine[i] = {kSines[(k / 16 + 1) % 4], 0};
        continue;
      }
      mpfr_mul_si(angle.get(), step.get(), k, MPFR_RNDN);
      mpfr_sin_cos(s.get(), c.get(), angle.get(), MPFR_RNDN);
      t.sine[i] = pair_of(s), t.cosine[i] = pair_of(c);
    }
    for (double* part_of : {&t.c1, &t.c2, &t.c3}) {
      mpfr_set(part.get(), step.get(), MPFR_RNDN);
      mpfr_sub(step.get(), step.get(), part.get(), MPFR_RNDN);
      *part_of = mpfr_get_d(part.get(), MPFR_RNDN);
    }
    t.c4 = mpfr_get_d(step.get(), MPFR_RNDN);
    return t;
  }();
  return made;
}

/// 1/first!, 1/(first + 2)!, ..., with alternating signs, the first negative; 2u^2 each.
template <int kFirst, std::size_t kCount>
std::array<DoubleDouble, kCount> alternating() {
  std::array<DoubleDouble, kCount> terms{};
  Real factorial(kBits), term(kBits);
  for (std::size_t n = 0; n < kCount; ++n) {
    mpfr_fac_ui(factorial.get(), kFirst + 2 * n, MPFR_RNDN);
    mpfr_si_div(term.get(), n % 2 == 0 ? -1 : 1, factorial.get(), MPFR_RNDN);
    terms[n] = pair_of(term);
  }
  return terms;
}

/// s (terms[0] + s (terms[1] + ...)). Every sum is within 1 % of its constant, so errs by 2u^2 + 3u^2 and a hundredth
/// of what was added; s errs by 5u^2, the last product by 5u^2: 16u^2 in all.
template <std::size_t kCount>
DoubleDouble series(const std::array<DoubleDouble, kCount>& terms, DoubleDouble s) {
  DoubleDouble sum = terms[kCount - 1];
  for (std::size_t n = kCount - 1; n-- > 0;) sum = add(mul(sum, s), terms[n]);
  return mul(sum, s);
}

}  // namespace

// r: two_sum(x.h, -k c1) is exact; then |t| < 0.053 always (k c2 < 2^-8), so that four additions err by 4 * 2u^2 *
// 0.053, and k c4, below 2^-66, by less than u^2/2^10 with c4's own error: 0.5u^2. At k = 0 all of it is exact.
//
// sin r = r + r p: p, at most 4.1e-4, errs by 16u^2 of itself, the product by 5u^2, the sum by 3u^2; what the series
// leaves out is below 2^-117 r: 3.1u^2 of sin r. cos r = 1 + c: |c| <= 0.0013, 16u^2 of it, what is left out below
// 2^-129, the sum 2u^2, r's error times |sin r|: 2.1u^2.
//
// sin x = S cos r + C sin r with |S|, |C| <= 1: the first product 1 + 2.1 + 5u^2, the second 0.05 (1 + 3.1 + 5)u^2 +
// 0.5u^2, their sum 3u^2: 12.2u^2. At k = 0 it is sin r itself. cos x alike.
SineCosine sine_cosine(DoubleDouble x) {
  static const auto kSine = alternating<3, 7>();
  static const auto kCosine = alternating<2, 8>();
  const Table& t = table();
  const double k = std::floor(x.h * (32 / 3.141592653589793) + 0.5);
  DoubleDouble r = two_sum(x.h, -k * t.c1);
  r = add(r, x.l);
  r = add(r, -k * t.c2);
  r = add(r, -k * t.c3);
  r = add(r, -k * t.c4);
  const DoubleDouble s = mul(r, r);
  const DoubleDouble sine = add(r, mul(r, series(kSine, s))), cosine = add(series(kCosine, s), 1.0);
  if (k == 0) return {sine, cosine, true};
  const auto at = static_cast<std::size_t>(static_cast<long>(k) & (kAngles - 1));
  const DoubleDouble &big_s = t.sine[at], &big_c = t.cosine[at];
  return {add(mul(big_s, cosine), mul(big_c, sine)), sub(mul(big_c, cosine), mul(big_s, sine)), false};
}

}  // namespace norma

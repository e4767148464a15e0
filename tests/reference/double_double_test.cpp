// Attacks each bound of double_double.hpp against MPFR with 2200 bits, where sums, products and quotients' products of
// such operands are exact.
#include <mpfr.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "reference/certified/double_double.hpp"
#include "tests/reference/rational.hpp"

using namespace norma;
using norma::test::Random;

namespace {

constexpr mpfr_prec_t kBits = 2200;

struct Big {
  mpfr_t v;
  Big() { mpfr_init2(v, kBits); }
  explicit Big(double x) : Big() { mpfr_set_d(v, x, MPFR_RNDN); }
  explicit Big(DoubleDouble x) : Big(x.h) { mpfr_add_d(v, v, x.l, MPFR_RNDN); }
  Big(const Big&) = delete;
  Big& operator=(const Big&) = delete;
  ~Big() { mpfr_clear(v); }
};

// Mantissas that random ones do not find: few bits, runs of ones, next to powers of two, products near ties.
double mantissa(Random& random) {
  const std::uint64_t bits = random.next() >> 12;
  std::uint64_t m = 0;
  switch (random.below(8)) {
    case 0: m = 0; break;
    case 1: m = std::uint64_t{1} << random.below(52); break;
    case 2: m = (std::uint64_t{1} << 52) - 1 - random.below(4); break;
    case 3: m = random.below(4); break;
    case 4: m = bits & (bits >> 3) & (bits << 2) & ((std::uint64_t{1} << 52) - 1); break;
    case 5: m = (bits >> random.below(52)) << random.below(8); break;
    default: m = bits; break;
  }
  m &= (std::uint64_t{1} << 52) - 1;
  return std::bit_cast<double>(std::uint64_t{1023} << 52 | m);
}

double number(Random& random, int least, int most) {
  const double v = std::ldexp(mantissa(random), random.between(least, most));
  return random.below(2) != 0 ? v : -v;
}

// h + l, |l| <= ulp(h) / 2: at that limit, far below it, or 0.
DoubleDouble pair(Random& random, int least, int most) {
  const double h = number(random, least, most);
  int e = 0;
  std::frexp(h, &e);
  const double half = std::ldexp(1.0, e - 54);
  double l = 0;
  switch (random.below(6)) {
    case 0: break;
    case 1: l = half; break;
    case 2: l = half * (1 - std::ldexp(1.0, -random.between(30, 53))); break;
    case 3: l = std::ldexp(mantissa(random), e - 55 - random.between(0, 60)); break;
    default: l = half * (mantissa(random) - 1); break;
  }
  if (random.below(2) != 0) l = -l;
  return fast_two_sum(h, l);
}

bool normalized(DoubleDouble x) { return x.h + x.l == x.h; }

// Largest error of `result` against `exact`, relative, in units of u^2.
class Worst {
 public:
  void note(DoubleDouble result, const Big& exact) {
    if (!normalized(result) || !std::isfinite(result.h)) worst_ = std::numeric_limits<double>::infinity();
    Big got(result);
    mpfr_sub(got.v, got.v, exact.v, MPFR_RNDN);
    if (mpfr_zero_p(exact.v) != 0) {
      if (mpfr_zero_p(got.v) == 0) worst_ = std::numeric_limits<double>::infinity();
      return;
    }
    mpfr_div(got.v, got.v, exact.v, MPFR_RNDN);
    mpfr_mul_2si(got.v, got.v, 106, MPFR_RNDN);
    worst_ = std::max(worst_, std::fabs(mpfr_get_d(got.v, MPFR_RNDA)));
  }
  double value() const { return worst_; }

 private:
  double worst_ = 0;
};

// The second operand: anywhere, near the first one's negative, or the first one with its last bits changed.
DoubleDouble beside(DoubleDouble x, DoubleDouble other, Random& random) {
  switch (random.below(4)) {
    case 0: return neg(x);
    case 1: {
      const double h = std::nextafter(-x.h, random.below(2) != 0 ? 0.0 : -2 * x.h);
      return fast_two_sum(h, random.below(2) != 0 ? x.l : -x.l);
    }
    default: return other;
  }
}

constexpr int kRounds = 150'000;

}  // namespace

TEST_CASE("sums and products of two numbers are exact pairs") {
  Random random{1};
  int wrong = 0;
  for (int i = 0; i < kRounds; ++i) {
    const double a = number(random, -300, 300);
    const double b =
        random.below(2) != 0 ? number(random, -300, 300) : number(random, std::ilogb(a) - 60, std::ilogb(a) + 60);
    const DoubleDouble s = two_sum(a, b), p = two_prod(a, b);
    const DoubleDouble f = std::fabs(a) >= std::fabs(b) ? fast_two_sum(a, b) : fast_two_sum(b, a);
    Big exact(a);
    mpfr_add_d(exact.v, exact.v, b, MPFR_RNDN);
    wrong += mpfr_equal_p(Big(s).v, exact.v) == 0 || mpfr_equal_p(Big(f).v, exact.v) == 0;
    mpfr_set_d(exact.v, a, MPFR_RNDN);
    mpfr_mul_d(exact.v, exact.v, b, MPFR_RNDN);
    wrong += mpfr_equal_p(Big(p).v, exact.v) == 0;
    wrong += !normalized(s) || !normalized(p);
  }
  CHECK(wrong == 0);
}

TEST_CASE("sums of pairs keep 3u^2 and 2u^2, whatever cancels") {
  Random random{2};
  Worst two, one;
  for (int i = 0; i < kRounds; ++i) {
    const DoubleDouble x = pair(random, -300, 300);
    const int e = std::ilogb(x.h);
    const DoubleDouble y = beside(x, pair(random, e - 110, e + 110), random);
    Big exact(x);
    mpfr_add(exact.v, exact.v, Big(y).v, MPFR_RNDN);
    two.note(add(x, y), exact);
    mpfr_add_d(exact.v, Big(x).v, y.h, MPFR_RNDN);
    one.note(add(x, y.h), exact);
  }
  INFO("add(dd, dd) " << two.value() << " u^2, add(dd, d) " << one.value() << " u^2");
  CHECK(two.value() <= 3 + 13 * 0x1p-53);
  CHECK(one.value() <= 2);
  CHECK(two.value() > 1);  // the attack reaches
  CHECK(one.value() > 1);
}

TEST_CASE("products of pairs keep 5u^2 and 2u^2, quotients 9.8u^2 and 3u^2") {
  Random random{3};
  Worst two, one, over_two, over_one;
  for (int i = 0; i < kRounds; ++i) {
    const DoubleDouble x = pair(random, -400, 400), y = pair(random, -400, 400);
    Big exact(x);
    mpfr_mul(exact.v, exact.v, Big(y).v, MPFR_RNDN);
    two.note(mul(x, y), exact);
    mpfr_mul_d(exact.v, Big(x).v, y.h, MPFR_RNDN);
    one.note(mul(x, y.h), exact);
    mpfr_div(exact.v, Big(x).v, Big(y).v, MPFR_RNDN);
    over_two.note(div(x, y), exact);
    mpfr_div_d(exact.v, Big(x).v, y.h, MPFR_RNDN);
    over_one.note(div(x, y.h), exact);
  }
  INFO("mul " << two.value() << ", " << one.value() << "; div " << over_two.value() << ", " << over_one.value()
              << " u^2");
  CHECK(two.value() <= 5);
  CHECK(one.value() <= 2);
  CHECK(over_two.value() <= 9.8);
  CHECK(over_one.value() <= 3);
  CHECK(two.value() > 2);
  CHECK(one.value() > 1);
  CHECK(over_two.value() > 2);
  CHECK(over_one.value() > 1);
}

TEST_CASE("roots keep 25/8 u^2, reciprocal roots 13u^2 from 2^-970 to 2^900") {
  Random random{4};
  Worst root, reciprocal;
  for (int i = 0; i < 2 * kRounds; ++i) {
    DoubleDouble x = i % 4 == 0 ? pair(random, -970, 899) : i % 4 == 1 ? pair(random, -2, 2) : pair(random, -300, 300);
    if (x.h < 0) x = neg(x);
    Big exact(x);
    mpfr_rec_sqrt(exact.v, exact.v, MPFR_RNDN);
    reciprocal.note(rsqrt(x), exact);
    if (x.h < 0x1p-900) continue;
    mpfr_sqrt(exact.v, Big(x).v, MPFR_RNDN);
    root.note(sqrt(x), exact);
  }
  // The ends themselves, and squares of numbers, whose roots are numbers.
  for (const double x : {0x1p-970, 0x1.fffffffffffffp-970, 0x1p900}) {
    Big exact(x);
    mpfr_rec_sqrt(exact.v, exact.v, MPFR_RNDN);
    reciprocal.note(rsqrt({x, 0}), exact);
  }
  int inexact = 0;
  for (int i = 0; i < kRounds; ++i) {
    const double t = std::fabs(number(random, -300, 300));
    const DoubleDouble r = sqrt(two_prod(t, t));
    inexact += r.h != t || r.l != 0;
  }
  INFO("sqrt " << root.value() << ", rsqrt " << reciprocal.value() << " u^2");
  CHECK(root.value() <= 3.125);
  CHECK(reciprocal.value() <= 13);
  CHECK(root.value() > 1);
  CHECK(reciprocal.value() > 3);
  CHECK(inexact == 0);
}

// sin and cos in double-double, of intervals and in balls, against MPFR.
#include "reference/certified/functions/turn.hpp"

#include <mpfr.h>

#include <algorithm>
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <random>

#include "reference/certified/programs/ball_rows.hpp"
#include "reference/exact/elementary.hpp"

namespace norma {
namespace {

/// |value - f(x)| at 400 bits, rounded up.
struct Distance {
  double absolute = 0, relative = 0;
};
Distance distance(DoubleDouble value, DoubleDouble x, bool cosine) {
  mpfr_t y;
  mpfr_init2(y, 400);
  mpfr_set_d(y, x.h, MPFR_RNDN);
  mpfr_add_d(y, y, x.l, MPFR_RNDN);
  cosine ? mpfr_cos(y, y, MPFR_RNDN) : mpfr_sin(y, y, MPFR_RNDN);
  const double size = std::fabs(mpfr_get_d(y, MPFR_RNDN));
  mpfr_sub_d(y, y, value.h, MPFR_RNDN);
  mpfr_sub_d(y, y, value.l, MPFR_RNDN);
  const double error = std::fabs(mpfr_get_d(y, MPFR_RNDA));
  mpfr_clear(y);
  return {error, size > 0 ? error / size : 0};
}

}  // namespace

TEST_CASE("sine and cosine lie within their bounds up to 2^20") {
  std::mt19937_64 rng(5);
  const auto unit = [&] { return static_cast<double>(rng() >> 11) * 0x1p-52 - 1; };
  double worst = 0, worst_small = 0;
  for (int n = 0; n < 40000; ++n) {
    double h = unit() * std::ldexp(1.0, static_cast<int>(rng() % 60) - 39);
    // Next to a multiple of pi/64, where tables change, and of pi/2, where one of the two vanishes.
    if (n % 3 == 0) h = std::floor(unit() * 0x1p24) * (3.141592653589793 / 64) + (n % 2 == 0 ? 0 : unit() * 0x1p-30);
    if (n % 5 == 0) h = std::floor(unit() * 0x1p19) * (3.141592653589793 / 2);
    if (std::fabs(h) > kLargestTurn) continue;
    const DoubleDouble x = two_sum(h, unit() * std::fabs(h) * 0x1p-54);
    const SineCosine turn = sine_cosine(x);
    const Distance s = distance(turn.sine, x, false), c = distance(turn.cosine, x, true);
    CAPTURE(x.h, x.l, s.absolute, c.absolute, s.relative);
    REQUIRE(s.absolute <= kTurnError);
    REQUIRE(c.absolute <= kTurnError);
    if (turn.small) REQUIRE(s.relative <= kSmallSineError);
    worst = std::max({worst, s.absolute, c.absolute});
    if (turn.small) worst_small = std::max(worst_small, s.relative);
  }
  CAPTURE(worst * 0x1p106, worst_small * 0x1p106);
  CHECK(worst > kTurnError / 64);  // the bound says something
  CHECK(worst_small > kSmallSineError / 64);
}

TEST_CASE("sin and cos of what a ball holds lie in the ball") {
  for (const Op op : {Op::sin, Op::cos}) {
    CHECK(std::isnan(apply(op, {HUGE_VAL, 0, 0}, {}, {}).h));
    const Ball beyond = apply(op, {0x1p21, 0, 0}, {}, {}), wide = apply(op, {3, 0, 2}, {}, {});
    CHECK((beyond.h == 0 && beyond.r == 1));
    CHECK((wide.h == 0 && wide.r == 1));
    CHECK(apply(op, {1, 0, 0x1p-30}, {}, {}).r < 0x1p-30);
    CHECK(apply(op, {0x1p20, 0, 0}, {}, {}).r < 0x1p-101);
  }
  CHECK(std::signbit(apply(Op::sin, {-0.0, 0, 0}, {}, {}).h));
  CHECK(apply(Op::cos, {-0.0, 0, 0}, {}, {}).r == 0);
  // An even function at its turning point: what the radius costs is its square.
  CHECK(apply(Op::cos, {0x1p-40, 0, 0x1p-40}, {}, {}).r < 0x1p-78);
}

TEST_CASE("sin, cos and pow of intervals") {
  constexpr mpfr_prec_t kBits = 120;
  const auto is = [](const Interval& v, double low, double high) {
    return mpfr_cmp_d(v.lo.get(), low) == 0 && mpfr_cmp_d(v.hi.get(), high) == 0;
  };
  CHECK(sin(Interval(HUGE_VAL, kBits)).is_nan());
  CHECK(sin(Interval::unknown(kBits)).is_unknown());
  CHECK(is(cos(Interval(0.0, kBits)), 1, 1));
  Real huge(kBits);
  mpfr_set_ui_2exp(huge.get(), 1, 20000, MPFR_RNDN);
  Interval beyond(kBits);
  beyond.lo = huge, beyond.hi = huge;
  CHECK(is(sin(beyond), -1, 1));
  CHECK(mpfr_cmp_d(sin(Interval(0x1p1000, kBits)).lo.get(), -1) > 0);
  CHECK(is(pow(Interval(81.0, kBits), Interval(0.75, kBits)), 27, 27));
  CHECK(pow(Interval(-8.0, kBits), Interval(2.0, kBits)).is_nan());
  CHECK(pow(Interval(0.0, kBits), Interval(2.0, kBits)).is_nan());
  CHECK_FALSE(pow(Interval(3.0, kBits), Interval(0.5, kBits)).is_point());
  CHECK(pow(Interval(2.0, kBits), Interval(0x1p70, kBits)).is_unknown());
}

}  // namespace norma

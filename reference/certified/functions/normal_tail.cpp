// The table of m(t): each coefficient the pair or number nearest to its MPFR enclosure.
#include "reference/certified/functions/normal_tail.hpp"

#include <algorithm>
#include <stdexcept>

#include "reference/exact/real.hpp"

namespace norma {

namespace {

// The recurrence runs against the decay of a_n: 20 terms at t < 40 lose at most 40 log2(40) - log2(20!) = 152 bits.
constexpr mpfr_prec_t kBits = 352;

Interval root_two_pi() {
  Interval pi(kBits);
  mpfr_const_pi(pi.lo.get(), MPFR_RNDD);
  mpfr_const_pi(pi.hi.get(), MPFR_RNDU);
  return sqrt(add(pi, pi));
}

// m(t) from erfc, or for t > 5 (where MPFR's is slow) from Laplace's fraction: sqrt(2 pi) m(t) = 1/T_1 with
// T_n = t + n/T_(n+1), all T_n > t; so t <= T_n <= t + n/t, and intervals narrow from there upwards.
Interval tail_at(double t) {
  const Interval at(t, kBits);
  if (t > 5) {
    constexpr int kSteps = 300;
    Interval fraction(kBits);
    fraction.lo = at.lo;
    fraction.hi = add(at, div(Interval(kSteps, kBits), at)).hi;
    for (int n = kSteps - 1; n >= 1; --n) fraction = add(at, div(Interval(n, kBits), fraction));
    return div(Interval(1.0, kBits), mul(fraction, root_two_pi()));
  }
  const Interval half(0.5, kBits);
  const Interval argument = mul(at, sqrt(half));  // t / sqrt 2
  const Interval exponent = mul(square(at), half);
  Interval tail(kBits), grown(kBits);
  mpfr_erfc(tail.lo.get(), argument.hi.get(), MPFR_RNDD);
  mpfr_erfc(tail.hi.get(), argument.lo.get(), MPFR_RNDU);
  mpfr_exp(grown.lo.get(), exponent.lo.get(), MPFR_RNDD);
  mpfr_exp(grown.hi.get(), exponent.hi.get(), MPFR_RNDU);
  return mul(mul(tail, grown), half);
}

// a_0 .. a_(count-1) at t.
std::vector<Interval> coefficients(double t, std::size_t count) {
  const Interval at(t, kBits);
  std::vector<Interval> a;
  a.push_back(tail_at(t));
  a.push_back(sub(mul(at, a[0]), div(Interval(1.0, kBits), root_two_pi())));
  for (std::size_t n = 1; n + 1 < count; ++n)
    a.push_back(div(add(mul(at, a[n]), a[n - 1]), Interval(static_cast<double>(n + 1), kBits)));
  return a;
}

DoubleDouble pair_of(const Interval& value) {
  const Enclosure e = enclosure_of(value);
  if (!(e.radius <= 0x1p-104 * std::fabs(e.hi)))
    throw std::logic_error("a coefficient of the normal tail is not known");
  return {e.hi, e.lo};
}

}  // namespace

const TailTable& tail_table() {
  static const TailTable table = [] {
    TailTable t;
    // Of the piece before, or of t = 0: |a_N| there is at least what it is anywhere in this piece.
    Interval before = coefficients(0, TailTable::kTerms + 1).back();
    for (std::size_t i = 0; i < TailTable::kCount; ++i) {
      std::vector<Interval> a = coefficients(TailTable::centre(i), TailTable::kTerms + 1);
      TailTable::Piece piece{};
      for (std::size_t n = 0; n < TailTable::kTerms; ++n) {
        const DoubleDouble pair = pair_of(a[n]);
        if (n < TailTable::kPairs)
          piece.a[n] = pair;
        else
          piece.rest[n - TailTable::kPairs] = pair.h;
      }
      t.pieces.push_back(piece);
      // |a_N| w^N over m; m is at least half of m(centre) in the piece: m'/m > -1/t, m'/m >= -0.8.
      const Interval width(TailTable::half_width(i) * (1 + 0x1p-30), kBits);
      Interval missed = div(abs(before), mul(a[0], Interval(0.5, kBits)));
      for (int n = 0; n < TailTable::kTerms; ++n) missed = mul(missed, width);
      t.truncation = std::max(t.truncation, mpfr_get_d(missed.hi.get(), MPFR_RNDU));
      before = a.back();
    }
    if (!(t.truncation < 0x1p-108)) throw std::logic_error("the table of the normal tail has too few terms");
    return t;
  }();
  return table;
}

}  // namespace norma

// The tables of m(t), each coefficient the binary64 number or pair nearest to its MPFR enclosure.
#include "reference/certified/normal_tail.hpp"

#include <algorithm>
#include <stdexcept>

#include "reference/exact/real.hpp"

namespace norma {

namespace {

// The recurrence runs against the decay of a_n: up to 30 terms at t < 40 lose less than 300 bits.
constexpr mpfr_prec_t kBits = 640;

// a_0 .. a_(count-1) at t.
std::vector<Interval> coefficients(double t, int count) {
  const Interval at(t, kBits);
  const Interval half(0.5, kBits);
  const Interval argument = mul(at, sqrt(half));  // t / sqrt 2
  const Interval exponent = mul(square(at), half);
  Interval tail(kBits), grown(kBits), pi(kBits);
  mpfr_erfc(tail.lo.get(), argument.hi.get(), MPFR_RNDD);
  mpfr_erfc(tail.hi.get(), argument.lo.get(), MPFR_RNDU);
  mpfr_exp(grown.lo.get(), exponent.lo.get(), MPFR_RNDD);
  mpfr_exp(grown.hi.get(), exponent.hi.get(), MPFR_RNDU);
  mpfr_const_pi(pi.lo.get(), MPFR_RNDD);
  mpfr_const_pi(pi.hi.get(), MPFR_RNDU);
  std::vector<Interval> a;
  a.push_back(mul(mul(tail, grown), half));
  a.push_back(sub(mul(at, a[0]), rsqrt(add(pi, pi))));
  for (int n = 1; n + 1 < count; ++n)
    a.push_back(div(add(mul(at, a[static_cast<std::size_t>(n)]), a[static_cast<std::size_t>(n - 1)]),
                    Interval(n + 1, kBits)));
  return a;
}

DoubleDouble pair_of(const Interval& value) {
  const Enclosure e = enclosure_of(value);
  if (!(e.radius <= 0x1p-105 * std::fabs(e.hi))) throw std::logic_error("a coefficient of the normal tail is not known");
  return {e.hi, e.lo};
}

// Half the width of a piece and what evaluations at its rim may add.
template <typename Pieces>
double half_width(std::uint64_t index) {
  const double octave = std::bit_cast<double>((index >> std::countr_zero(unsigned{Pieces::kPerOctave}) << 52) +
                                              (std::uint64_t{1023} << 52));
  return octave / (2 * Pieces::kPerOctave) * (1 + 0x1p-30);
}

// |a_N(c - w)| w^N / m(c + w), rounded up.
double truncation_of(double centre, double width, int terms) {
  const Interval next = abs(coefficients(std::max(0.0, centre - width), terms + 1).back());
  const Interval smallest = coefficients(centre + width, 1).front();
  Interval power(1.0, kBits);
  for (int n = 0; n < terms; ++n) power = mul(power, Interval(width, kBits));
  return mpfr_get_d(div(mul(next, power), smallest).hi.get(), MPFR_RNDU);
}

}  // namespace

const TailTable& tail_table() {
  static const TailTable table = [] {
    using Pieces = TailTable::Pieces;
    TailTable t;
    for (std::uint64_t i = 0; i < Pieces::kCount; ++i) {
      const double centre = Pieces::centre(i);
      const std::vector<Interval> a = coefficients(centre, TailTable::kTerms);
      TailTable::Piece piece{};
      std::transform(a.begin(), a.end(), piece.a.begin(), [](const Interval& v) { return pair_of(v).h; });
      t.pieces.push_back(piece);
      t.truncation = std::max(t.truncation, truncation_of(centre, half_width<Pieces>(i), TailTable::kTerms));
    }
    return t;
  }();
  return table;
}

const TailTableDd& tail_table_dd() {
  static const TailTableDd table = [] {
    using Pieces = TailTableDd::Pieces;
    TailTableDd t;
    for (std::uint64_t i = 0; i < Pieces::kCount; ++i) {
      const double centre = Pieces::centre(i);
      const std::vector<Interval> a = coefficients(centre, TailTableDd::kTerms);
      TailTableDd::Piece piece{};
      for (std::size_t n = 0; n < a.size(); ++n) {
        const DoubleDouble pair = pair_of(a[n]);
        if (n < TailTableDd::kPairs) piece.a[n] = pair;
        else piece.rest[n - TailTableDd::kPairs] = pair.h;
      }
      t.pieces.push_back(piece);
      t.truncation = std::max(t.truncation, truncation_of(centre, half_width<Pieces>(i), TailTableDd::kTerms));
    }
    return t;
  }();
  return table;
}

}  // namespace norma

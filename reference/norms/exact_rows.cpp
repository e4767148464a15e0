// Exact sums over the elements of a group: in 128-bit integers, or MPFR with all the bits they need.
#include "reference/norms/exact_rows.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <stdexcept>
#include <utility>

namespace norma {

namespace {

__extension__ typedef unsigned __int128 UnsignedWide;

template <typename Visit>
void for_each(const GroupElements& e, Visit&& visit) {
  for (std::int64_t row = e.group; row < e.rows; row += e.groups)
    for (std::int64_t col = 0; col < e.cols; ++col) visit(e.at(row, col));
}

/// The bits that the numbers span: all are multiples of 2^last and below 2^top.
struct Span {
  int top = std::numeric_limits<int>::min(), last = std::numeric_limits<int>::max();
  void note(double v) {
    if (v == 0) return;
    int exponent = 0;
    const double fraction = std::frexp(v, &exponent);
    const auto digits = static_cast<std::uint64_t>(std::ldexp(std::fabs(fraction), 53));
    top = std::max(top, exponent);
    last = std::min(last, exponent - 53 + std::countr_zero(digits));
  }
};

/// total times 2^exponent.
Dyadic dyadic(UnsignedWide total, int exponent) {
  Dyadic sum(0.0);
  for (int shift = 96; shift >= 0; shift -= 32)
    sum = sum + Dyadic(std::ldexp(static_cast<double>(static_cast<std::uint32_t>(total >> shift)), shift));
  Real scaled = sum.real();
  mpfr_mul_2si(scaled.get(), scaled.get(), exponent, MPFR_RNDN);
  return Dyadic(std::move(scaled));
}

/// |k| < 2^53 and the squares' sum below 2^127.
void sum_integers(const GroupElements& elements, ExactSums& sums) {
  UnsignedWide squares = 0;
  for_each(elements, [&](const Sum& h) {
    const auto k = static_cast<std::int64_t>(std::ldexp(h.a + h.b, -sums.unit));
    const auto magnitude = static_cast<UnsignedWide>(k < 0 ? -k : k);
    sums.units += k;
    squares += magnitude * magnitude;
  });
  const Dyadic total = dyadic(static_cast<UnsignedWide>(sums.units < 0 ? -sums.units : sums.units), sums.unit);
  sums.sum = sums.units < 0 ? -total : total;
  sums.squares = dyadic(squares, 2 * sums.unit);
  sums.ordinary = true;
}

/// `bits` cover from the last bit of the smallest square to the carry of the whole sum.
void sum_in_mpfr(const GroupElements& elements, mpfr_prec_t bits, ExactSums& sums) {
  Real total(0.0, bits), squares(0.0, bits), term(bits);
  int rounded = 0;
  for_each(elements, [&](const Sum& h) {
    rounded |= mpfr_set_d(term.get(), h.a, MPFR_RNDN);
    if (h.b != 0) rounded |= mpfr_add_d(term.get(), term.get(), h.b, MPFR_RNDN);
    rounded |= mpfr_add(total.get(), total.get(), term.get(), MPFR_RNDN);
    rounded |= mpfr_sqr(term.get(), term.get(), MPFR_RNDN);
    rounded |= mpfr_add(squares.get(), squares.get(), term.get(), MPFR_RNDN);
  });
  if (rounded != 0) throw std::logic_error("an exact sum was rounded");
  sums.sum = Dyadic(std::move(total));
  sums.squares = Dyadic(std::move(squares));
}

}  // namespace

ExactSums exact_sums(const GroupElements& elements) {
  ExactSums sums;
  Span span;
  for_each(elements, [&](const Sum& h) {
    if (h.is_nan()) {
      sums.nan = true;
    } else if (h.is_infinite()) {
      (h.negative() ? sums.negative_infinity : sums.positive_infinity) = true;
    } else {
      span.note(h.a);
      span.note(h.b);
    }
  });
  if (!sums.finite() || span.top < span.last) {
    sums.ordinary = sums.finite();  // all zeros
    return sums;
  }
  // |h| < 2^(top + 1), a multiple of 2^last; the sum of `count` squares has so many bits at most.
  const mpfr_prec_t value_bits = span.top + 1 - span.last;
  const auto count_bits = static_cast<mpfr_prec_t>(std::bit_width(static_cast<std::uint64_t>(elements.count())));
  const mpfr_prec_t bits = 2 * value_bits + count_bits + 1;
  if (bits <= 127 && value_bits <= 53) {
    sums.unit = span.last;
    sum_integers(elements, sums);
  } else {
    sum_in_mpfr(elements, std::max<mpfr_prec_t>(bits, 53), sums);
  }
  return sums;
}

}  // namespace norma

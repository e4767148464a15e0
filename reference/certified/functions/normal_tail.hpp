// m(t) = e^(t^2/2) Phi(-t), t >= 0: the tail of the normal distribution without its exponential factor, as polynomials.
//
// m(t) = 1/sqrt(2 pi) * integral over s >= 0 of e^(-ts - s^2/2) ds, a Laplace transform of a positive measure: m and
// its derivatives alternate in sign and shrink in size as t grows. So on [c - w, c + w] the Taylor polynomial at c with
// N terms misses m by at most |a_N(c - w)| w^N, a_N = m^(N)/N! there; the tables are built with MPFR intervals and the
// bound is computed, not assumed. Coefficients: m' = t m - 1/sqrt(2 pi), (n + 1) a_(n+1) = t a_n + a_(n-1).
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "reference/certified/double_double.hpp"

namespace norma {

/// Pieces of equal width in each octave of t + 1, 0 <= t < 39. The first kPairs coefficients of a piece are pairs, the
/// rest numbers. |m - polynomial| <= truncation m.
struct TailTable {
  static constexpr int kPerOctaveBits = 5;
  static constexpr int kCount = (5 << kPerOctaveBits) + (1 << kPerOctaveBits) / 4;  // t + 1 < 40 = 2^5 (1 + 1/4)
  static constexpr int kTerms = 19;
  static constexpr int kPairs = 9;

  static constexpr std::size_t index(double t) {
    return (std::bit_cast<std::uint64_t>(t + 1) >> (52 - kPerOctaveBits)) - (std::uint64_t{1023} << kPerOctaveBits);
  }
  static constexpr double centre(std::size_t index) {
    return std::bit_cast<double>(((index + (std::uint64_t{1023} << kPerOctaveBits)) << (52 - kPerOctaveBits)) |
                                 (std::uint64_t{1} << (51 - kPerOctaveBits))) -
           1;
  }
  /// Half a piece's width.
  static constexpr double half_width(std::size_t index) {
    return static_cast<double>(std::uint64_t{1} << (index >> kPerOctaveBits)) / (2 << kPerOctaveBits);
  }

  struct Piece {
    std::array<DoubleDouble, kPairs> a;
    std::array<double, kTerms - kPairs> rest;
  };
  std::vector<Piece> pieces;
  double truncation = 0;
};
const TailTable& tail_table();

}  // namespace norma

// m(t) = e^(t^2/2) Phi(-t), t >= 0: the tail of the normal distribution without its exponential factor, as polynomials.
//
// m(t) = 1/sqrt(2 pi) * integral over s >= 0 of e^(-ts - s^2/2) ds, a Laplace transform of a positive measure: m and
// its derivatives alternate in sign and shrink in size as t grows. So on [c - w, c + w] the Taylor polynomial at c with
// N terms misses m by at most |a_N(c - w)| w^N, a_N = m^(N)/N! there; the tables are built with MPFR intervals and the
// bound is computed, not assumed. Coefficients: m' = t m - 1/sqrt(2 pi), (n + 1) a_(n+1) = t a_n + a_(n-1).
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "reference/certified/double_double.hpp"

namespace norma {

/// Pieces: kPerOctave of equal width in each octave of t + 1. The centre of t's piece is had from t's bits.
template <int kBits>
struct TailPieces {
  static constexpr int kPerOctave = 1 << kBits;
  static constexpr double kEnd = 38.5;  ///< e^(-t^2/2) < 2^-1000 long before
  static constexpr int kCount = 5 * kPerOctave + (kPerOctave * 8) / 32;  // t + 1 < 40 = 2^5 (1 + 8/32)

  static constexpr std::uint64_t index(double t) {
    return (std::bit_cast<std::uint64_t>(t + 1) >> (52 - kBits)) - (std::uint64_t{1023} << kBits);
  }
  static constexpr double centre(std::uint64_t index) {
    return std::bit_cast<double>(((index + (std::uint64_t{1023} << kBits)) << (52 - kBits)) |
                                 (std::uint64_t{1} << (51 - kBits))) - 1;
  }
};

/// For binary64 rows: 8 coefficients a piece, one cache line; |m - polynomial| <= truncation m.
struct TailTable {
  using Pieces = TailPieces<6>;
  static constexpr int kTerms = 8;
  struct alignas(64) Piece {
    std::array<double, kTerms> a;
  };
  std::vector<Piece> pieces;
  double truncation = 0;
};
const TailTable& tail_table();

/// For double-double: the first kPairs coefficients as pairs, the rest as numbers.
struct TailTableDd {
  using Pieces = TailPieces<5>;
  static constexpr int kTerms = 19;
  static constexpr int kPairs = 9;
  struct Piece {
    std::array<DoubleDouble, kPairs> a;
    std::array<double, kTerms - kPairs> rest;
  };
  std::vector<Piece> pieces;
  double truncation = 0;
};
const TailTableDd& tail_table_dd();

}  // namespace norma

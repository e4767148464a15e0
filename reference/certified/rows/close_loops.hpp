// Loops over arrays of double-double numbers: what the double-double tier of the row norms is made of.
//
// A Pairs is `count` values h[i] + l[i]. Every loop computes the same bits at every vector width and with or without
// FMA: lanes are independent, sums have 32 lanes and a tree whatever the vector is, std::fma rounds once.
//
// Special values travel in h by the rules of IEEE arithmetic: where a product or a sum of the h is not finite, or zero,
// that is the result, and l is 0.
#pragma once

#include <cstddef>
#include <cstdint>

#include "reference/certified/double_double.hpp"
#include "reference/formats/format.hpp"

namespace norma {

/// The most values a loop is given at once.
inline constexpr std::size_t kCloseBlock = 2048;

struct Pairs {
  double* h;
  double* l;
};
struct ConstPairs {
  const double* h;
  const double* l;
};

/// Error of the sums below, relative to sum |h + l| (sum_pairs) or to the result (sum_squares), for `blocks` blocks of
/// `most` elements at most that are added one after another by add(dd, dd), in units of u^2.
///
/// With n = ceil(most / 32) terms a lane: TwoSum leaves the rounding errors e_i of the partial sums, sum |e_i| <= n u S
/// over a lane of sum S; beside them come the low parts c_i of the terms (l, or the error of h^2 plus 2 h l),
/// |c_i| <= 3u a term. Adding these 2n numbers, one rounding for e_i + c_i and one for the sum, costs
/// (n + 1) u (n + 3) u S; what a square leaves out (l^2, the rounding of c_i) 4 u^2 S. Together below (n + 3)^2 u^2 S.
/// The tree: 5 x 3 u^2 S, the rest of Joldes' 13 u^3 and second-order terms: 17 u^2 S. A block more: 3 u^2, taken as 4.
inline double sum_error(std::size_t most, double blocks) {
  const double n = static_cast<double>((most + 31) / 32) + 3;
  return n * n + 17 + 4 * blocks;
}

/// Both read zeros up to the next multiple of 32 behind `count`: the arrays are that long, and those are zero.
DoubleDouble sum_pairs(ConstPairs a, std::size_t count);
DoubleDouble sum_squares(ConstPairs a, std::size_t count);

/// Sums over numbers of at most 24 bits, so that squares are exact, with the error above; the largest |h| and the least
/// that is not 0 (infinite: there is none). Zeros up to the next multiple of 32 behind `count`, as above.
struct RowSums {
  DoubleDouble sum, squares;
  double largest, least;
};
RowSums row_sums(const float* h, std::size_t count);

/// a[i] := high[i] + low[i] exactly (TwoSum).
void add_exactly(const double* high, const double* low, Pairs a, std::size_t count);

/// a[i] := factor a[i] - centre. Error 3 u^2 of the result where the product is a pair (2 u^2 of it otherwise). A
/// result of zero has the sign of IEEE's factor h - centre.
void subtract_centre(Pairs a, std::size_t count, double factor, DoubleDouble centre);

/// a[i] := a[i] b[i], error 5 u^2; and by one number.
void multiply(Pairs a, ConstPairs b, std::size_t count);
void multiply(Pairs a, DoubleDouble b, std::size_t count);

/// The largest |h|; NaN if one is NaN. The least bit set in one of the |h + l|, as a power of two; infinite if all are
/// 0.
struct Extent {
  double largest, last_bit;
};
Extent extent(ConstPairs a, std::size_t count);

/// y = q + b with |q - the exact one| <= relative |q| + spread[i] absolute; see close_norm.cpp for the bounds.
struct CloseBounds {
  double relative, absolute;
};
struct CloseOutput {
  double *hi, *lo, *radius, *magnitude;
};
void add_bias(ConstPairs q, ConstPairs bias, const double* spread, CloseBounds bounds, CloseOutput out,
              std::size_t count);

/// y = slope numerator / root + bias for a root known to be T (1 + e), |e| <= deviation, of known side:
/// value[i] is a binary64 number next to y and side[i] the sign of y - value: y lies strictly between value and its
/// neighbour on that side, or is value if side = 0. NaN: not known here.
struct RationalRoot {
  double root = 0;  ///< T > 0
  double numerator = 1;
  double deviation = 0;
  double side = 0;  ///< sign of e: -1, 0, 1
};
void bracket(ConstPairs a, ConstPairs weight, ConstPairs scale, ConstPairs bias, const RationalRoot& root,
             double* value, double* side, std::size_t count);

/// y = w n / root + bias with n = factor h - centre a number, rounded to odd at 32 or 53 bits: odd[i] is a number from
/// which any rounding to 30 bits or fewer is that of y. `bias` may be null. side[i] is 0, or NaN: not known here.
struct ExactLine {
  double factor, centre, root;
};
void odd_quotients(const float* h, const float* weight, const float* bias, const ExactLine& line, double* odd,
                   double* side, std::size_t count);

/// Sides of enclosures: low > radius puts the value between high and its neighbour on low's side.
void sides_of(const double* low, const double* radius, double* side, std::size_t count);

/// No side is NaN.
bool all_known(const double* side, std::size_t count);

/// Rounded to odd: the number of 53 bits from which any rounding to 51 or fewer is that of the value itself (Boldo and
/// Melquiond, IEEE TC 57(4), 2008). `side` is the sign of the value less `near`, a neighbour of it.
void round_to_odd(const double* near, const double* side, double* odd, std::size_t count);

/// decode_row into binary64 for formats up to fp32.
void load_row(FormatId format, const std::byte* stored, double* values, std::size_t count);

/// Values rounded to odd, at most kCloseBlock of them, to `format` (not fp64), once, to nearest even, in storage
/// layout. Its own arithmetic: the codec of formats/ is what implementations use.
void store_odd(FormatId format, Overflow overflow, const double* odd, std::byte* stored, std::size_t count);

}  // namespace norma

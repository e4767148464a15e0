// Elementary functions rounded once, by arithmetic of the emulator's own.
#pragma once

#include <vector>

#include "reference/formats/format.hpp"
#include "reference/program/program.hpp"

namespace norma {

/// f(a) rounded once to `target`, ties to even; a is any binary64 number. NaN for NaN, the limits at +-Inf (sin and cos:
/// NaN), tanh, erf and sin of +-0 are +-0. A result beyond the target's range is treated by `overflow`; in fp64 it is Inf.
///
/// Ziv's strategy: f(a) is computed with a known relative error and again, closer, where both ends of what it can be
/// do not round alike: the C library's binary64 function (targets up to fp32 only), 113 bits, 400 bits. So the bits
/// depend on no library, as long as the errors assumed here hold:
///   binary64  2^-40: glibc states 1 ulp for exp, erf, sin, cos and pow and 2 ulp for tanh
///   113 bits  2^-100, 400 bits 2^-380: Boost.Multiprecision's exp is documented to a few ulp; the series for tanh and
///             erf have positive terms only, so that n terms err by less than 4n ulp; rounding x^2 in e^(-x^2) adds x^2.
///             sin and cos are taken of a - k pi/2 with 160 bits more, 1200 for large a: no binary64 number is nearer
///             to a multiple than 2^-62 of itself (Muller, Elementary Functions, 3rd ed., section 11.2). x^y is
///             e^(y ln x), and |y ln x| < 1100 costs 11 bits
/// The tests measure all three against MPFR. std::logic_error if 400 bits do not settle it (never seen: it needs 350
/// equal bits after the rounding position).
double rounded_function(Op op, double a, FormatId target, Overflow overflow);

/// x^y rounded once, as rounded_function: x > 0 finite, y finite, NaN else. Exact results are known as such, so that
/// half-way points are decided.
double rounded_power(double x, double y, FormatId target, Overflow overflow);

/// f(a) as the steps of 53, 113 and 400 bits have it, as a sum of binary64 numbers. Domain: a finite, not 0, |f(a)|
/// and |a| between 2^-500 and 2^500 (for the sum), |a| < 8 for erf.
std::vector<double> unrounded_function(Op op, double a, int bits);

}  // namespace norma

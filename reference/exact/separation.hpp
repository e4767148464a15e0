// How near to zero an algebraic number can be without being zero: what ends the search for a tie.
#pragma once

#include <mpfr.h>

#include <set>

namespace norma {

/// E = U / L for algebraic integers U and L, of which it is known that all conjugates have |U| <= 2^log_u and
/// |L| <= 2^log_l, in a field made by the square roots listed (one number for each distinct root).
///
/// If E is not 0 then |E| >= 2^-(log_l + (2^k - 1) log_u) with k roots: U is not 0, so the product of its 2^k
/// conjugates is an integer other than 0.
///
/// Source: Burnikel, Funke, Mehlhorn, Schirra, Schmitt, "A separation bound for real algebraic expressions",
///         ESA 2001; here only square roots, and dyadic leaves n 2^k as n / 2^-k.
struct Algebraic {
  double log_u = 0;
  double log_l = 0;
  std::set<int> roots;
};

Algebraic algebraic(mpfr_srcptr dyadic);
Algebraic sum_or_difference(const Algebraic& a, const Algebraic& b);
Algebraic product(const Algebraic& a, const Algebraic& b);
Algebraic quotient(const Algebraic& a, const Algebraic& b);
Algebraic root(const Algebraic& a, int name);
/// One of the two, it does not matter which.
Algebraic either(const Algebraic& a, const Algebraic& b);

/// s such that the number is 0 or at least 2^-s in magnitude.
double separation_bits(const Algebraic& a);

}  // namespace norma

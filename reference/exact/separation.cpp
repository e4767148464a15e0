// Separation bounds; logarithms are rounded anyhow and padded at the end.
#include "reference/exact/separation.hpp"

#include <algorithm>
#include <cmath>

namespace norma {

namespace {

std::set<int> united(const std::set<int>& a, const std::set<int>& b) {
  std::set<int> all = a;
  all.insert(b.begin(), b.end());
  return all;
}

}  // namespace

Algebraic algebraic(mpfr_srcptr dyadic) {
  if (mpfr_zero_p(dyadic) != 0) return {};
  const auto top = static_cast<double>(mpfr_get_exp(dyadic));  // |value| < 2^top
  const double last = top - static_cast<double>(std::max<mpfr_prec_t>(1, mpfr_min_prec(dyadic)));
  return {.log_u = last < 0 ? top - last : top, .log_l = std::max(0.0, -last), .roots = {}};
}

// (U1 L2 +- L1 U2) / (L1 L2)
Algebraic sum_or_difference(const Algebraic& a, const Algebraic& b) {
  return {.log_u = std::max(a.log_u + b.log_l, a.log_l + b.log_u) + 1,
          .log_l = a.log_l + b.log_l,
          .roots = united(a.roots, b.roots)};
}

Algebraic product(const Algebraic& a, const Algebraic& b) {
  return {.log_u = a.log_u + b.log_u, .log_l = a.log_l + b.log_l, .roots = united(a.roots, b.roots)};
}

Algebraic quotient(const Algebraic& a, const Algebraic& b) {
  return {.log_u = a.log_u + b.log_l, .log_l = a.log_l + b.log_u, .roots = united(a.roots, b.roots)};
}

// sqrt(U / L) = sqrt(U L) / L
Algebraic root(const Algebraic& a, int name) {
  Algebraic result{.log_u = (a.log_u + a.log_l) / 2, .log_l = a.log_l, .roots = a.roots};
  result.roots.insert(name);
  return result;
}

Algebraic either(const Algebraic& a, const Algebraic& b) {
  return {.log_u = std::max(a.log_u, b.log_u), .log_l = std::max(a.log_l, b.log_l), .roots = united(a.roots, b.roots)};
}

double separation_bits(const Algebraic& a) {
  const double conjugates = std::ldexp(1.0, static_cast<int>(std::min<std::size_t>(a.roots.size(), 64)));
  // Each of the few dozen additions behind these numbers, all below 2^40, errs by less than 2^-12.
  return a.log_l + (conjugates - 1) * a.log_u + 1 + conjugates;
}

}  // namespace norma

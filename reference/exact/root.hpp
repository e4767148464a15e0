// r = 1 / sqrt(S/n + eps) and its variants, for exact S: enclosed, and compared through its square.
#pragma once

#include <array>
#include <string_view>

#include "reference/exact/real.hpp"

namespace norma {

/// Where eps enters the factor r of a norm. S is the sum of squares (of deviations), n the count it is divided by.
///
///   inside   1 / sqrt(S/n + eps)        outside  1 / (sqrt(S/n) + eps)      none  1 / sqrt(S/n)
///   sum      1 / sqrt(S + eps)          max      1 / max(sqrt(S/n), eps)    l2max sqrt(n) / max(sqrt(S), eps)
enum class EpsPlace { inside, sum, outside, max, l2max, none };
inline constexpr std::array<std::string_view, 6> kEpsPlaces{"inside", "sum", "outside", "max", "l2max", "none"};

/// S, n and eps are exact: S >= 0 and n > 0 dyadic, eps >= 0; 0/0 (S = 0 without eps) is not a Root.
struct Root {
  EpsPlace place = EpsPlace::inside;
  double eps = 0;
  Dyadic count{1.0};
  Dyadic total;
};

/// r, outward-rounded.
Interval enclose(const Root& root, mpfr_prec_t bits);

/// The sign of a r - c, exactly: squaring removes r; with eps inside, a r > c > 0 is n a^2 > c^2 (S + n eps).
int compare(const Root& root, const Dyadic& a, const Dyadic& c);

}  // namespace norma

// sin, cos and powers of intervals.
#pragma once

#include "reference/exact/real.hpp"

namespace norma {

/// Outward-rounded, as wide as the argument or less: neither changes faster than it. NaN at +-Inf. From 2^16384 on only
/// that they lie in [-1, 1]: the reduction would need as many bits.
Interval sin(const Interval& a);
Interval cos(const Interval& a);

/// x^y for finite x > 0 and finite y, NaN else. Unknown where the ends of x do not tell, and beyond MPFR's range.
Interval pow(const Interval& x, const Interval& y);

}  // namespace norma

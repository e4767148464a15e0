// How an error grows with the number of blocks that it has passed.
#pragma once

#include <span>

namespace norma {

/// e(k) = factor g(k), k = 1, 2, ..., by least squares on relative errors: the sum of (e / (factor g) - 1)^2 is least.
struct GrowthFit {
  double factor = 0;
  double misfit = 0;  ///< root mean square of e / (factor g) - 1
};

struct Growth {
  GrowthFit linear;     ///< g = k
  GrowthFit root;       ///< g = sqrt(k)
  double exponent = 0;  ///< slope of log e over log k, by least squares
};

/// For two positive errors or more; NaN figures otherwise.
Growth growth_of(std::span<const double> errors);

}  // namespace norma

// How far outputs are from the truth, for the tests of what kernels promise.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "reference/norms/norm.hpp"

namespace norma {

inline double ulp_at(const Format& f, double y) {
  const int e = y == 0 ? f.emin : std::max(std::ilogb(y), f.emin);
  return std::ldexp(1.0, e - f.precision + 1);
}

/// The largest |got - exact| / ulp(exact) over finite exact values within the format's range, exact taken from the
/// certified truth's midpoints, which are 2^-80 off at most. A NaN for a finite number: infinity.
inline double largest_ulp(const NormDef& norm, const NormCall& call, const Tensor& got,
                          const std::string& output = "y") {
  const auto truth = truth_of(norm, call, output, TruthKind::fast);
  std::vector<Enclosure> exact(static_cast<std::size_t>(truth->cols()));
  double largest = 0;
  for (std::int64_t row = 0; row < truth->rows(); ++row) {
    truth->enclose_row(row, exact);
    for (std::int64_t c = 0; c < truth->cols(); ++c) {
      const Enclosure& e = exact[static_cast<std::size_t>(c)];
      if (!std::isfinite(e.hi) || std::fabs(e.hi) > max_finite(got.format)) continue;
      const double error =
          std::fabs((got.value(row * truth->cols() + c) - e.hi) - e.lo) / ulp_at(format_of(got.format), e.hi);
      if (!(error <= largest)) largest = std::isnan(error) ? HUGE_VAL : error;
    }
  }
  return largest;
}

}  // namespace norma

// Least squares in closed form.
#include "harness/trace/growth.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace norma {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// With r = e / g the sum of (r / f - 1)^2 has its least at f = sum r^2 / sum r.
GrowthFit fitted(std::span<const double> errors, double (*growth)(double)) {
  const auto ratio = [&](std::size_t k) { return errors[k] / growth(static_cast<double>(k + 1)); };
  double sum = 0, squares = 0, rest = 0;
  for (std::size_t k = 0; k < errors.size(); ++k) sum += ratio(k), squares += ratio(k) * ratio(k);
  const double factor = squares / sum;
  for (std::size_t k = 0; k < errors.size(); ++k) rest += std::pow(ratio(k) / factor - 1, 2);
  return {.factor = factor, .misfit = std::sqrt(rest / static_cast<double>(errors.size()))};
}

double slope(std::span<const double> errors) {
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (std::size_t k = 0; k < errors.size(); ++k) {
    const double a = std::log(static_cast<double>(k + 1)), b = std::log(errors[k]);
    n += 1, x += a, y += b, xx += a * a, xy += a * b;
  }
  return (n * xy - x * y) / (n * xx - x * x);
}

}  // namespace

Growth growth_of(std::span<const double> errors) {
  const bool usable =
      errors.size() >= 2 && std::ranges::all_of(errors, [](double e) { return e > 0 && std::isfinite(e); });
  if (!usable) return {{kNan, kNan}, {kNan, kNan}, kNan};
  return {.linear = fitted(errors, [](double k) { return k; }),
          .root = fitted(errors, [](double k) { return std::sqrt(k); }),
          .exponent = slope(errors)};
}

}  // namespace norma

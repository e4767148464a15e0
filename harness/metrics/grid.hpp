// Ulp errors as integers on the grid of 2^-16 ulp: exact sums, exact quantiles, fixed histogram
// bins. Nothing here depends on the order in which errors arrive.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "reference/exact/decide.hpp"

namespace norma {

__extension__ typedef __int128 Int128;
__extension__ typedef unsigned __int128 UInt128;

/// One ulp on the grid. A grid number is an exact double: |error| is at most kScaledErrorLimit =
/// 2^48.
inline constexpr std::int64_t kGridUlp = 65536;
constexpr double ulps(std::int64_t grid) { return static_cast<double>(grid) / static_cast<double>(kGridUlp); }

/// The largest magnitude of numbers that are not NaN; 0 for none.
double largest_magnitude(std::span<const double> values);

/// Sums of grid numbers, exact for up to 2^28 elements: a part of the split reaches at most three
/// times the limit, so its square stays below 2^100 and the sum of squares below 2^128.
struct GridSum {
  std::int64_t count = 0;
  Int128 sum = 0;
  UInt128 sum_of_magnitudes = 0;
  UInt128 sum_of_squares = 0;
  std::int64_t largest = 0;  ///< magnitude

  void add(std::int64_t error);
  /// Integers of magnitude below 2^51, as binary64 numbers; `top` is the largest of their magnitudes.
  void add(std::span<const double> errors, double top);
  void add(std::span<const double> errors) { add(errors, largest_magnitude(errors)); }
  void merge(const GridSum& other);
  // In ulp; NaN for no elements. Each is the exact quotient rounded at most three times in
  // binary64.
  double bias() const;
  double mean_magnitude() const;
  double rms() const;
};

/// How often each nonnegative integer came: few distinct values or many, small or large.
class GridCounts {
 public:
  void add(std::uint64_t value);
  void add(std::span<const std::uint32_t> values);
  void merge(GridCounts& other);  ///< empties `other`
  std::uint64_t count() const { return count_; }
  /// (value, times) in ascending order.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> sorted();
  /// Nearest rank: the ceil(n * numerator / denominator)-th smallest value; 0 for none.
  std::uint64_t quantile(std::uint64_t numerator, std::uint64_t denominator);

 private:
  void spill();
  void count_one(std::uint64_t value);
  std::uint64_t count_ = 0;
  std::vector<std::uint32_t> dense_;   // times by value, at most 2^28; grows with them; empty until there are many
  std::vector<std::uint64_t> values_;  // all while dense_ is empty, then those beyond its limit; in any order
};

/// Bins for signed errors in ulp: 1/16 wide within +-2, then octaves to +-65536; the outermost take
/// what lies beyond. A bin holds its lower edge and not its upper one.
inline constexpr int kHistogramBins = 64 + 2 * 15;
std::array<double, kHistogramBins + 1> histogram_edges();
int histogram_bin(std::int64_t error);

/// Errors as `GridSum::add` takes them.
void add_errors(std::span<const double> errors, double top, GridCounts& magnitudes,
                std::array<std::int64_t, kHistogramBins>& histogram);

/// Nonnegative integers by their leading eight bits, in order: an integer becomes at most 1 %
/// smaller.
constexpr std::uint64_t leading_bits(std::uint64_t value) {
  const int shift = value < 256 ? 0 : static_cast<int>(std::bit_width(value)) - 8;
  return static_cast<std::uint64_t>(shift) * 128 + (value >> shift);
}
constexpr std::uint64_t from_leading_bits(std::uint64_t key) {
  const std::uint64_t shift = key < 256 ? 0 : key / 128 - 1;
  return (key - shift * 128) << shift;
}

}  // namespace norma

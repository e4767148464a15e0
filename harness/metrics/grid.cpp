// Sums, counts and bins of grid numbers.
#include "harness/metrics/grid.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "reference/formats/clones.hpp"

namespace norma {

namespace {

constexpr double kGridUlps = static_cast<double>(kGridUlp);
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
// 16 ulp of errors, or all leading halves of binary64 numbers: at most 4 MB.
constexpr std::uint64_t kDense = std::uint64_t{1} << 20;
constexpr std::size_t kLeast = 1024;
// Below this many values a list is cheaper than the table.
constexpr std::size_t kFew = 16384;

// Sums of a run of integers of magnitude at most kNarrow, in 64 bits: 2^10 squares stay below 2^62.
constexpr double kNarrow = 0x1p26;
constexpr std::size_t kRun = 1024;
struct RunSums {
  std::int64_t sum = 0, magnitudes = 0, squares = 0;
};
NORMA_CLONES RunSums sums_of(const double* errors, std::size_t count) {
  RunSums sums;
  for (std::size_t i = 0; i < count; ++i) {
    const auto error = static_cast<std::int32_t>(errors[i]);
    const std::int32_t magnitude = error < 0 ? -error : error;
    sums.sum += error;
    sums.magnitudes += magnitude;
    sums.squares += static_cast<std::int64_t>(magnitude) * magnitude;
  }
  return sums;
}

// Magnitudes of numbers that are not NaN are in the order of their bits, and integers have a vector maximum.
NORMA_CLONES std::int64_t largest_bits(const double* values, std::size_t count) {
  std::int64_t top = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto bits = static_cast<std::int64_t>(std::bit_cast<std::uint64_t>(values[i]) & 0x7fff'ffff'ffff'ffff);
    top = bits > top ? bits : top;
  }
  return top;
}

}  // namespace

void GridSum::add(std::int64_t error) {
  const std::int64_t magnitude = error < 0 ? -error : error;
  const auto wide = static_cast<UInt128>(magnitude);
  ++count;
  sum += error;
  sum_of_magnitudes += wide;
  sum_of_squares += wide * wide;
  largest = std::max(largest, magnitude);
}

double largest_magnitude(std::span<const double> values) {
  return std::bit_cast<double>(largest_bits(values.data(), values.size()));
}

void GridSum::add(std::span<const double> errors, double top) {
  if (top > kNarrow) {
    for (const double error : errors) add(static_cast<std::int64_t>(error));
    return;
  }
  for (std::size_t begin = 0; begin < errors.size(); begin += kRun) {
    const std::span<const double> run = errors.subspan(begin, std::min(kRun, errors.size() - begin));
    const RunSums sums = sums_of(run.data(), run.size());
    count += static_cast<std::int64_t>(run.size());
    sum += sums.sum;
    sum_of_magnitudes += static_cast<UInt128>(sums.magnitudes);
    sum_of_squares += static_cast<UInt128>(sums.squares);
  }
  largest = std::max(largest, static_cast<std::int64_t>(top));
}

void GridSum::merge(const GridSum& other) {
  count += other.count;
  sum += other.sum;
  sum_of_magnitudes += other.sum_of_magnitudes;
  sum_of_squares += other.sum_of_squares;
  largest = std::max(largest, other.largest);
}

double GridSum::bias() const {
  return count == 0 ? kNan : static_cast<double>(sum) / static_cast<double>(count) / kGridUlps;
}

double GridSum::mean_magnitude() const {
  return count == 0 ? kNan : static_cast<double>(sum_of_magnitudes) / static_cast<double>(count) / kGridUlps;
}

double GridSum::rms() const {
  return count == 0 ? kNan : std::sqrt(static_cast<double>(sum_of_squares) / static_cast<double>(count)) / kGridUlps;
}

void GridCounts::count_one(std::uint64_t value) {
  if (value >= kDense) {
    values_.push_back(value);
    return;
  }
  if (value >= dense_.size()) dense_.resize(std::bit_ceil(value + 1));
  ++dense_[value];
}

void GridCounts::add(std::uint64_t value) {
  ++count_;
  if (!dense_.empty()) {
    count_one(value);
    return;
  }
  values_.push_back(value);
  if (values_.size() > kFew) spill();
}

void GridCounts::add(std::span<const std::uint32_t> values) {
  std::size_t i = 0;
  while (i < values.size() && dense_.empty()) add(values[i++]);
  count_ += values.size() - i;
  for (; i < values.size(); ++i) {
    if (values[i] < dense_.size()) [[likely]] {
      ++dense_[values[i]];
    } else {
      count_one(values[i]);
    }
  }
}

void GridCounts::spill() {
  dense_.resize(kLeast);
  for (const std::uint64_t value : std::exchange(values_, {})) count_one(value);
}

void GridCounts::merge(GridCounts& other) {
  if (dense_.empty()) {
    std::swap(dense_, other.dense_);
    std::swap(values_, other.values_);
    std::swap(count_, other.count_);
  }
  if (dense_.size() < other.dense_.size()) dense_.resize(other.dense_.size());
  for (std::size_t value = 0; value < other.dense_.size(); ++value) dense_[value] += other.dense_[value];
  count_ += other.count_ - other.values_.size();
  for (const std::uint64_t value : other.values_) add(value);
  other = GridCounts{};
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> GridCounts::sorted() {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> found;
  for (std::uint64_t value = 0; value < dense_.size(); ++value) {
    if (dense_[value] != 0) found.emplace_back(value, dense_[value]);
  }
  std::sort(values_.begin(), values_.end());
  for (const std::uint64_t value : values_) {
    if (!found.empty() && found.back().first == value) {
      ++found.back().second;
    } else {
      found.emplace_back(value, 1);
    }
  }
  return found;
}

std::uint64_t GridCounts::quantile(std::uint64_t numerator, std::uint64_t denominator) {
  if (count_ == 0) return 0;
  std::uint64_t before = (count_ * numerator + denominator - 1) / denominator - 1;
  for (std::uint64_t value = 0; value < dense_.size(); ++value) {
    if (before < dense_[value]) return value;
    before -= dense_[value];
  }
  // With a table, the list holds only values above it; without, it holds all.
  const auto rank = values_.begin() + static_cast<std::ptrdiff_t>(before);
  std::nth_element(values_.begin(), rank, values_.end());
  return *rank;
}

void add_errors(std::span<const double> errors, double top, GridCounts& magnitudes,
                std::array<std::int64_t, kHistogramBins>& histogram) {
  if (top >= 2 * kGridUlps) {
    for (const double value : errors) {
      const auto error = static_cast<std::int64_t>(value);
      ++histogram[static_cast<std::size_t>(histogram_bin(error))];
      magnitudes.add(static_cast<std::uint64_t>(error < 0 ? -error : error));
    }
    return;
  }
  // Only sixteenths of an ulp (histogram_bin). Few bins are hit again and again: four tables, so that one addition need
  // not wait for the last.
  constexpr std::size_t kTables = 4, kBins = 64;
  std::array<std::array<std::uint32_t, kBins>, kTables> bins{};
  std::array<std::uint32_t, kRun> narrow;
  for (std::size_t begin = 0; begin < errors.size(); begin += kRun) {
    const std::span<const double> run = errors.subspan(begin, std::min(kRun, errors.size() - begin));
    for (std::size_t i = 0; i < run.size(); ++i) {
      const auto error = static_cast<std::int32_t>(run[i]);
      narrow[i] = static_cast<std::uint32_t>(error < 0 ? -error : error);
      ++bins[i % kTables][static_cast<std::size_t>((error + 2 * static_cast<std::int32_t>(kGridUlp)) >> 12)];
    }
    magnitudes.add(std::span(narrow).first(run.size()));
  }
  for (const auto& table : bins) {
    for (std::size_t bin = 0; bin < kBins; ++bin) histogram[15 + bin] += table[bin];
  }
}

std::array<double, kHistogramBins + 1> histogram_edges() {
  std::array<double, kHistogramBins + 1> edges{};
  for (int i = 0; i <= 64; ++i) edges[static_cast<std::size_t>(15 + i)] = -2.0 + i / 16.0;
  for (int i = 1; i <= 15; ++i) {
    edges[static_cast<std::size_t>(79 + i)] = std::ldexp(1.0, 1 + i);
    edges[static_cast<std::size_t>(15 - i)] = -std::ldexp(1.0, 1 + i);
  }
  return edges;
}

int histogram_bin(std::int64_t error) {
  constexpr std::int64_t kLinear = 2 * kGridUlp;
  if (error >= -kLinear && error < kLinear) return 15 + static_cast<int>((error + kLinear) >> 12);
  // An octave below zero holds its lower edge, so one unit less than the magnitude decides.
  const auto magnitude = static_cast<std::uint64_t>(error < 0 ? -error - 1 : error);
  const int octave = std::min(static_cast<int>(std::bit_width(magnitude)) - 18, 14);
  return error < 0 ? 14 - octave : 79 + octave;
}

}  // namespace norma

// Sums, counts and bins of grid numbers.
#include "harness/metrics/grid.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "reference/formats/clones.hpp"

namespace norma {

namespace {

constexpr double kGridUlps = static_cast<double>(kGridUlp);
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
// Four ulp of errors, or every leading half of a binary64 number's 36 bits: 2 MB.
constexpr std::uint64_t kDense = std::uint64_t{1} << 18;
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

// In lanes, as a maximum in one word would be a chain.
NORMA_CLONES double largest_magnitude(const double* errors, std::size_t count) {
  constexpr std::size_t kLanes = 16;
  double lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const double magnitude = std::fabs(errors[i + lane]);
      lanes[lane] = magnitude > lanes[lane] ? magnitude : lanes[lane];
    }
  }
  for (; i < count; ++i) lanes[0] = std::max(lanes[0], std::fabs(errors[i]));
  return *std::max_element(lanes, lanes + kLanes);
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

void GridSum::add(std::span<const double> errors) {
  for (std::size_t begin = 0; begin < errors.size(); begin += kRun) {
    const std::span<const double> run = errors.subspan(begin, std::min(kRun, errors.size() - begin));
    const double run_largest = largest_magnitude(run.data(), run.size());
    if (run_largest > kNarrow) {
      for (const double error : run) add(static_cast<std::int64_t>(error));
      continue;
    }
    const RunSums sums = sums_of(run.data(), run.size());
    count += static_cast<std::int64_t>(run.size());
    sum += sums.sum;
    sum_of_magnitudes += static_cast<UInt128>(sums.magnitudes);
    sum_of_squares += static_cast<UInt128>(sums.squares);
    largest = std::max(largest, static_cast<std::int64_t>(run_largest));
  }
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

void GridCounts::add(std::uint64_t value) {
  ++count_;
  if (!dense_.empty() && value < kDense) {
    ++dense_[value];
    return;
  }
  values_.push_back(value);
  if (dense_.empty() && values_.size() > kFew) spill();
}

void GridCounts::add(std::span<const std::uint32_t> values) {
  std::size_t i = 0;
  while (i < values.size() && dense_.empty()) add(values[i++]);
  if (i == values.size()) return;
  count_ += values.size() - i;
  std::uint32_t* const table = dense_.data();
  for (; i < values.size(); ++i) {
    if (values[i] < kDense) {
      ++table[values[i]];
    } else {
      values_.push_back(values[i]);
    }
  }
}

void add_errors(std::span<const double> errors, GridCounts& magnitudes,
                std::array<std::int64_t, kHistogramBins>& histogram) {
  constexpr double kLinear = 2 * kGridUlps;  // histogram_bin's sixteenths
  std::array<std::uint32_t, kRun> narrow;
  for (std::size_t begin = 0; begin < errors.size(); begin += kRun) {
    const std::span<const double> run = errors.subspan(begin, std::min(kRun, errors.size() - begin));
    if (largest_magnitude(run.data(), run.size()) >= kLinear) {
      for (const double value : run) {
        const auto error = static_cast<std::int64_t>(value);
        ++histogram[static_cast<std::size_t>(histogram_bin(error))];
        magnitudes.add(static_cast<std::uint64_t>(error < 0 ? -error : error));
      }
      continue;
    }
    for (std::size_t i = 0; i < run.size(); ++i) {
      const auto error = static_cast<std::int32_t>(run[i]);
      narrow[i] = static_cast<std::uint32_t>(error < 0 ? -error : error);
      ++histogram[static_cast<std::size_t>(15 + ((error + 2 * static_cast<std::int32_t>(kGridUlp)) >> 12))];
    }
    magnitudes.add(std::span(narrow).first(run.size()));
  }
}

void GridCounts::spill() {
  dense_.resize(kDense);
  std::erase_if(values_, [this](std::uint64_t value) {
    if (value >= kDense) return false;
    ++dense_[value];
    return true;
  });
}

void GridCounts::merge(GridCounts& other) {
  if (dense_.empty()) {
    std::swap(dense_, other.dense_);
    std::swap(values_, other.values_);
    std::swap(count_, other.count_);
  }
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

// A row's parameters, statistics and bounds in binary64, as rounding and scoring share them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "reference/certified/rows/kernels.hpp"
#include "reference/certified/rows/quick_factor.hpp"
#include "reference/certified/rows/quick_norm.hpp"

namespace norma {

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// A segment's parameters are written out for this many columns at a time.
constexpr std::size_t kConstant = 512;

/// Columns with the same parameters.
struct Segment {
  std::size_t first, count;
  double weight, bias;
};

/// Parameters of a row: w = weight scale and b as binary64 numbers, of each column or of segments.
struct Columns {
  std::vector<double> weight, bias;
  std::vector<double> bias_size;  ///< largest |b| of each kBlock columns
  std::vector<Segment> segments;
  /// Columns whose parameters are not finite or too large or small; their w is NaN here.
  std::vector<std::uint32_t> strange;
  double most_weight = 0, most_bias = 0;  ///< largest |w| and |b| of the others
  std::int64_t key[3] = {-1, -1, -1};
};

struct QuickNorm::State {
  explicit State(const RowNorm& n);

  RowNorm norm;
  RowReader reader;
  double weight_roundings = 0;  ///< of w
  int weight_bits = 0;          ///< significant bits of w, 0 if it is 1; 54: not known
  bool by_segments = false;     ///< every parameter is the same over spans of columns
  Columns shared;               ///< where the parameters are the same for all rows
  bool is_shared = false;
  std::uint64_t id = 0;  ///< tells threads whose memory they hold

  // Statistics of several rows, made when first asked for.
  struct GroupFactor {
    std::once_flag once, once_careful;
    RowFactor factor, careful;
  };
  std::unique_ptr<GroupFactor[]> groups;

  struct Scratch;
  Scratch& scratch() const;
  void fill(std::int64_t row, Columns& out) const;
  void fill_segments(std::int64_t row, Columns& out) const;
  RowFactor factor(std::int64_t row, Scratch& s, RowValues& values, bool careful) const;

  /// A row with all that its elements need.
  struct Row {
    RowFactor factor;
    RowValues values;
    const Columns* columns;
    double of_product, of_value, absolute;
    bool is_strange(std::size_t column) const {
      return std::binary_search(columns->strange.begin(), columns->strange.end(), column);
    }
  };
  /// narrow: with the least bounds, for enclosures and scores.
  Row prepare(std::int64_t row, Scratch& s, bool narrow = true) const;
  void take(const RowFactor& factor, Row& r) const;
  /// Takes the careful factor if it is the better one.
  bool improve(std::int64_t row, Scratch& s, Row& r) const;
  /// Calls visit(first column, run) for each run of the row.
  template <class Visit>
  void each_run(const Row& r, Scratch& s, Visit visit) const;
  /// The same as round_elements takes them: segments whole, with their weight in the factor.
  template <class Visit>
  void each_rounded_run(const Row& r, Visit visit) const;
  bool round_runs(const Row& r, Scratch& s, FormatId format, Overflow overflow, bool stop_at_many, std::byte* stored,
                  std::vector<std::uint32_t>& open) const;
  /// The run's values, and radii if there is a bias, in the thread's memory.
  EnclosedRun enclosed(const ElementRun& run, Scratch& s, double* magnitude = nullptr) const;
  Affine affine() const {
    if (by_segments) return biased() ? Affine::constant_biased : Affine::constant;
    return biased() ? Affine::biased : Affine::product;
  }
  bool biased() const { return norm.bias.tensor != nullptr; }
  bool centred() const { return norm.statistics != Statistics::squares; }
};

struct QuickNorm::State::Scratch {
  std::uint64_t owner = 0;
  RowReader::Scratch reader;
  Columns columns;
  std::vector<double> value, radius, weight, bias;
  std::vector<float> got;
  std::vector<std::uint32_t> groups;
};

template <class Visit>
void QuickNorm::State::each_run(const Row& r, Scratch& s, Visit visit) const {
  const std::size_t bytes = r.values.layout == Layout::fp64 ? 8 : r.values.layout == Layout::fp32 ? 4 : 2;
  const auto run = [&](std::size_t first, std::size_t count, const double* weight, const double* bias) {
    visit(first, ElementRun{.x = static_cast<const std::byte*>(r.values.data) + first * bytes,
                            .weight = weight,
                            .bias = bias,
                            .count = count,
                            .centre_hi = r.factor.hi,
                            .centre_lo = r.factor.lo,
                            .factor = r.factor.factor,
                            .of_product = r.of_product,
                            .of_value = r.of_value,
                            .absolute = r.absolute});
  };
  if (!by_segments) {
    const auto cols = static_cast<std::size_t>(norm.cols);
    for (std::size_t i = 0; i < cols; i += kRun)
      run(i, std::min(kRun, cols - i), r.columns->weight.data() + i, biased() ? r.columns->bias.data() + i : nullptr);
    return;
  }
  for (const Segment& segment : r.columns->segments) {
    const std::size_t width = std::min(kConstant, segment.count);
    std::fill_n(s.weight.begin(), width, segment.weight);
    std::fill_n(s.bias.begin(), width, segment.bias);
    for (std::size_t i = 0; i < segment.count; i += width)
      run(segment.first + i, std::min(width, segment.count - i), s.weight.data(), biased() ? s.bias.data() : nullptr);
  }
}

template <class Visit>
void QuickNorm::State::each_rounded_run(const Row& r, Visit visit) const {
  const std::size_t bytes = r.values.layout == Layout::fp64 ? 8 : r.values.layout == Layout::fp32 ? 4 : 2;
  const auto at = [&](std::size_t i) { return static_cast<const std::byte*>(r.values.data) + i * bytes; };
  ElementRun run{.x = nullptr,
                 .weight = nullptr,
                 .bias = nullptr,
                 .count = 0,
                 .centre_hi = r.factor.hi,
                 .centre_lo = r.factor.lo,
                 .factor = r.factor.factor,
                 .of_product = r.of_product,
                 .of_value = r.of_value,
                 .absolute = r.absolute,
                 .finite = r.factor.kind != RowFactor::Kind::ieee};
  if (!by_segments) {
    const auto cols = static_cast<std::size_t>(norm.cols);
    for (std::size_t i = 0; i < cols; i += kRun) {
      run.x = at(i);
      run.weight = r.columns->weight.data() + i;
      if (biased()) {
        run.bias = r.columns->bias.data() + i;
        run.bias_size = r.columns->bias_size.data() + i / kBlock;
      }
      run.count = std::min(kRun, cols - i);
      visit(i, run);
    }
    return;
  }
  for (const Segment& segment : r.columns->segments) {
    run.factor = r.factor.factor * segment.weight;
    run.constant_bias = segment.bias;
    for (std::size_t i = 0; i < segment.count; i += kRun) {
      run.x = at(segment.first + i);
      run.count = std::min(kRun, segment.count - i);
      visit(segment.first + i, run);
    }
  }
}

}  // namespace norma

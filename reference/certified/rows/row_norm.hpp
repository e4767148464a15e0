// The problem that every norm here is: rows of one factor and one centre, an affine map after it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "reference/exact/enclosure.hpp"
#include "reference/exact/root.hpp"
#include "reference/formats/tensor.hpp"

namespace norma {

/// Where the parameter of element (row, col) of the view stands in its tensor:
///   ((row / rows_each) % period) * per_row + col / span
/// A vector along the columns (RMSNorm, LayerNorm): period 1, span 1. Channels of [N, C, H, W]: GroupNorm rows are
/// groups: period G, per_row C/G, span HW; InstanceNorm and BatchNorm rows are channels: period C, per_row 1, span HW.
/// One vector for each sample of T rows (AdaLN): rows_each T, period the samples, per_row cols, span 1.
struct ParameterIndex {
  std::int64_t rows_each = 1;
  std::int64_t period = 1;
  std::int64_t per_row = 0;
  std::int64_t span = 1;
  std::int64_t at(std::int64_t row, std::int64_t col) const {
    return ((row / rows_each) % period) * per_row + col / span;
  }
};

/// offset + tensor[index], over the reals; no tensor: the neutral element (1 for a factor, 0 for a term).
struct Parameter {
  const Tensor* tensor = nullptr;
  double offset = 0;
  ParameterIndex index{};
};

/// Where centre and factor of a row come from.
enum class Statistics {
  squares,  ///< centre 0, S = sum h^2
  moments,  ///< centre mean(h), S = sum (h - mean)^2
  given,    ///< centre and S from tensors (running statistics), count 1
};

///   h = x + residual          y = weight scale (h - centre) r + bias          r by root.hpp from S, count, eps
///
/// over the reals, with weight = weight.offset + its tensor, scale likewise.
///
/// View:     x in memory order as rows x cols; y has the same.
/// Shared:   rows with equal row % groups have their statistics in common: groups = rows for every norm of single rows;
///           the channels for BatchNorm, whose statistics run over rows c, c + C, c + 2C, ...
/// Formats:  of at most 24 significant bits (up to fp32) for all tensors. weight and scale: w = offset + t need not be
/// a
///           binary64 number; nothing is rounded.
/// Special:  a NaN in h among the elements of the statistics: y is NaN. An Inf: squares: r = 0, so finite h gives a
/// zero
///           with the sign of weight scale h (plus bias) and Inf gives NaN; moments: NaN. 0/0 (S = 0 without eps): NaN.
///           S = 0 with eps > 0 and moments: y = bias exactly. NaN or Inf parameters act on their elements by IEEE
///           rules. given: IEEE rules; S + eps = 0 divides by zero (h = centre: NaN, else infinite), S + eps < 0 is
///           NaN.
/// Zeros:    a product that is zero has the sign of its factors; a zero plus a bias as in IEEE addition.
struct RowNorm {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const Tensor* x = nullptr;
  const Tensor* residual = nullptr;
  Statistics statistics = Statistics::squares;
  std::int64_t groups = 0;
  double count = 1;                  ///< S is divided by it: cols, the elements of a group, one less, or 1 (L2 norm)
  const Tensor* mean = nullptr;      ///< given: [groups]; null: 0
  const Tensor* variance = nullptr;  ///< given: [groups]
  EpsPlace eps_place = EpsPlace::inside;
  double eps = 0;
  Parameter weight{}, scale{}, bias{};
};

/// True if the fast tiers take this problem: formats up to fp32, finite parameters' offsets, eps finite.
bool has_fast_tiers(const RowNorm& norm);

/// The truth of y with all tiers: binary64 and double-double where they settle, `exact` (the same function, slow) for
/// what they do not. The tensors must outlive it. Thread-safe.
std::unique_ptr<TruthSource> certified_truth(const RowNorm& norm, std::unique_ptr<TruthSource> exact);

/// Every element correctly rounded: the codes of y in `format`, row-major, and how many elements each tier settled.
/// `undecided` elements hold the code of the midpoint. Same result for any number of threads and vector width.
///
/// Memory:  beside the output, rows in flight only.
struct RoundedRows {
  Tensor y;
  TierCounts tiers;
};
RoundedRows round_rows(const RowNorm& norm, const TruthSource& exact, FormatId format, Overflow overflow,
                       int threads = 1);
/// The same to memory of the caller's: rows x cols elements in storage layout.
TierCounts round_rows(const RowNorm& norm, const TruthSource& exact, FormatId format, Overflow overflow,
                      std::byte* stored, int threads = 1);

/// Signed errors (got - y) / ulp_F(y) of an output, in one pass that never holds the reference.
struct RowScore {
  std::int64_t scored = 0;      ///< finite got, finite y within the format's range
  std::int64_t not_scored = 0;  ///< the rest
  double max = 0;               ///< largest |error|, in ulp
  std::int64_t max_at = -1;     ///< its element, row-major; the first of those as large
  double mean_abs = 0, bias = 0, rms = 0;
  std::int64_t incorrect = 0;  ///< certainly not the correctly rounded result: |error| > 1/2
  std::int64_t near_half = 0;  ///< |error| within the bar of 1/2: correct or not is not told here
  double bar = 0;              ///< every error above is known to this many ulp; at most 2^-20
  TierCounts tiers;            ///< which tier gave the bar
};
RowScore score_rows(const RowNorm& norm, const TruthSource& exact, const Tensor& got, int threads = 1);

}  // namespace norma

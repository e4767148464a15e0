// Every element of one output against the truth, the erasure's truth and the ideal: the figures of
// a record.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/metrics/grid.hpp"
#include "reference/exact/enclosure.hpp"
#include "reference/formats/format.hpp"
#include "reference/formats/tensor.hpp"

namespace norma {

/// Row and column of an element; -1, -1: there is none.
struct Place {
  std::int64_t row = -1;
  std::int64_t col = -1;
  friend bool operator==(const Place&, const Place&) = default;
};

struct Counts {
  std::int64_t compared = 0;        ///< scored: finite got, real truth
  std::int64_t nan_expected = 0;    ///< the truth is undefined
  std::int64_t nan_unexpected = 0;  ///< got NaN where the truth is a number
  std::int64_t nan_missing = 0;     ///< the truth is undefined, got is not NaN
  std::int64_t inf_expected = 0;    ///< the truth is infinite
  std::int64_t inf_unexpected = 0;  ///< got Inf where the truth is finite and does not round to it
  std::int64_t inf_missing = 0;     ///< the truth is infinite, got is not what `policy` makes of it
  std::int64_t overflow = 0;        ///< a finite truth rounds beyond the format's range
  std::int64_t underflow = 0;       ///< got zero for a nonzero truth
  std::int64_t subnormal = 0;       ///< got a nonzero number below the least normal one
  std::int64_t undecided = 0;       ///< the truth could not decide; scored by its midpoint, unless it is not known
  std::int64_t unknown = 0;         ///< of those: nothing is known of the truth, so nothing was compared
  std::int64_t beyond_scale = 0;    ///< |error| of 2^32 ulp and more, recorded as 2^32
};

/// Errors (g - y) / ulp_F(y) of one output. 0: equal to the real number; at most 0.5: correctly
/// rounded or a neighbour as near. Figures over no elements are NaN; `max` is infinite after an
/// unexpected NaN or Inf.
struct UlpFigures {
  double max = 0;  ///< |error|; the first in row order of those as large
  Place max_at;
  double mean_abs = 0, rms = 0, bias = 0;
  std::array<double, 4> quantiles{};  ///< of |error| at kQuantiles, nearest rank
  std::array<std::int64_t, kHistogramBins> histogram{};
  double condition_max = 0;  ///< |g - y| / ulp_F(|q| + |b|)
  Place condition_max_at;
  double condition_mean_abs = 0;
  std::int64_t correct = 0, faithful = 0;
  double relative_l2 = 0;  ///< |g - y| / |y|, 2-norms over the scored elements; y from the decided error, to 2^-17 ulp
  double angle = 0;        ///< between g and y, radians; below 2^-26 times relative_l2 it is noise
};
inline constexpr std::array<std::string_view, 4> kQuantiles = {"0.5", "0.9", "0.99", "0.999"};

/// One signed part of the error, in ulp, over the elements that are split.
struct SplitPart {
  double bias = 0;  ///< signed mean; the parts' biases add up
  double max = 0;   ///< largest magnitude
  double rms = 0;
};

/// One of the elements that are worst off.
struct WorstElement {
  Place at;
  std::uint64_t code = 0;
  double hi = 0, lo = 0;  ///< midpoint of the truth
  std::optional<std::uint64_t> ideal{};
  double ulp = 0;  ///< infinite: unexpected NaN or Inf
  std::optional<double> definition{}, path{}, implementation{};
};

/// Bits equal to the ideal's: NaN equals NaN, -0 differs from +0. With several ideals a row whose
/// bits all equal one of them is equal; any other row is held against the first.
struct Conformance {
  std::int64_t equal = 0;
  std::int64_t of = 0;
  Place first_difference;
  int choice_ulp = 0;
  std::optional<WorstElement> furthest{};  ///< of the scored elements that differ, the one furthest from the ideal
};

/// What a tolerance says of this output (against the truth), and how much it lets pass here.
struct Allclose {
  std::string_view name;
  double rtol = 0, atol = 0;
  bool passes = false;
  double admits_ulp_max = 0;     ///< largest (atol + rtol |y|) / ulp_F(y) over the scored elements
  double admits_ulp_median = 0;  ///< with y cut to eight significant bits: up to 1 % low
};

struct Measures {
  FormatId format = FormatId::fp32;
  Shape shape{};
  std::int64_t elements = 0;
  Counts counts{};
  /// By the slowest tier that any figure of an element took; those with `undecided` are counted there alone.
  TierCounts tiers{};
  UlpFigures ulp{};
  /// Of an all-zero output, for vacuity: from y as in relative_l2; quantiles up to 1 % low, no histogram.
  UlpFigures zeros{};
  std::int64_t zeros_equal = 0;  ///< elements of the ideal with the bits of +0
  /// Its own ideal: equal and without implementation error by definition, which a record leaves out.
  bool got_is_ideal = false;
  /// Absent: there is no ideal, or for the definition neither an ideal nor an erasure.
  std::optional<SplitPart> definition{}, path{}, implementation{};
  SplitPart total{};
  std::optional<Conformance> conformance{};
  std::int64_t ideal_nonfinite = 0;      ///< elements of the ideal that are NaN or Inf
  std::int64_t unexpected_in_ideal = 0;  ///< unexpected NaN and Inf that the ideal has too
  std::vector<Allclose> allclose{};
  std::vector<WorstElement> worst{};  ///< at most 8, the worst first
};

struct MeasureOptions {
  int threads = 1;
  int choice_ulp = 0;         ///< recorded with the conformance
  bool got_is_ideal = false;  ///< a path: implementation: no error of its own, by definition
};

/// Measures one output.
///
///   Total = (g-c)/u   Def = (e-c)/u   Impl = (g-i)/u   Path = Total - Def - Impl      u = ulp_F(c)
///
/// c is the truth, e the erasure's, i the ideal, g got. Each is rounded once to the grid of 2^-16
/// ulp; Total is decided against the real number c, Impl is exact, Def is decided up to 2^-24 of
/// that unit (element.hpp). Path is the remainder, so that the three add up to Total on the grid: it differs from
/// its own rounding by at most 1.5 * 2^-16 ulp (three roundings of half a unit).
///
/// erasure: null if it is declared canonical (e := c). ideals: none, one, or all that the path's
/// open choices allow, the plain one first; shaped like got. A finite truth beyond the format's
/// range is counted as overflow and scored only if got is a finite number other than what `policy`
/// makes of it. The figures do not depend on the number of threads, nor, but for `tiers` and undecided
/// elements, on what the truth's tiers are: all of them come from decisions about real numbers.
///
/// Errors: std::invalid_argument, one sentence, for shapes or formats that differ.
Measures measure(const TruthSource& truth, const TruthSource* erasure, std::span<const Tensor> ideals,
                 const Tensor& got, Overflow policy, const MeasureOptions& options = {});
/// With one ideal or none.
Measures measure(const TruthSource& truth, const TruthSource* erasure, const Tensor* ideal, const Tensor& got,
                 Overflow policy, const MeasureOptions& options = {});

/// Codes times scale against the norm's y: error in units of ulp_F(y / scale) * scale. `scales`:
/// one for all rows, one a row, or one for each block of equally many columns of a row. Where a scale is zero or not
/// finite NaN counts as expected and missing. (Codes alone are measured against the truth of y / scale: `measure`.)
Measures measure_dequantized(const TruthSource& truth, const TruthSource* erasure, std::span<const Tensor> ideals,
                             const Tensor& codes, std::span<const double> scales, Overflow policy,
                             const MeasureOptions& options = {});

/// The object under "outputs" of a record.
nlohmann::ordered_json to_json(const Measures& measures);

/// A number; NaN and the infinities as the strings "nan", "inf", "-inf".
nlohmann::ordered_json json_number(double value);

}  // namespace norma

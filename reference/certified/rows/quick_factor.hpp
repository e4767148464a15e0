// Centre and factor of a row in binary64, and what they may be wrong by.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "reference/certified/rows/kernels.hpp"
#include "reference/certified/rows/row_norm.hpp"

namespace norma {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// A row's values h = x + residual as a vector loop reads them.
struct RowValues {
  const void* data = nullptr;
  Layout layout = Layout::fp32;
  bool exact = true;  ///< false: h was rounded to binary64
};

/// How rows lie in memory. With a residual, or in a format without a loop of its own, they are unpacked first.
class RowReader {
 public:
  struct Scratch {
    std::vector<float> x, residual;
    std::vector<double> h;
  };
  explicit RowReader(const RowNorm& norm);
  RowValues read(std::int64_t row, Scratch& scratch) const;
  Layout layout() const { return layout_; }
  /// Values are not where x's are, but in the scratch.
  bool unpacks() const { return unpacks_; }
  /// Significand bits of what `read` gives; 53 with a residual.
  int precision() const { return precision_; }

 private:
  const RowNorm& norm_;
  Layout layout_;
  bool unpacks_;
  int precision_;
};

/// q = (h - hi - lo) w factor in binary64, over the reals: |q' - q| <= relative |q'| + eta |w| where q' is computed as
/// the loops do, before the roundings of the products and those that belong to w (see quick_state.cpp).
struct RowFactor {
  enum class Kind : std::uint8_t {
    bounded,  ///< as above; h finite
    exact,    ///< q' = +-0 for finite h, and y' = y; some h may be infinite if factor is 0: IEEE rules
    ieee,     ///< as `bounded`, but some h may be NaN or infinite: they give what IEEE arithmetic gives
    nan,      ///< every y is NaN
    unknown,  ///< binary64 does not tell
  };
  Kind kind = Kind::unknown;
  double hi = 0, lo = 0, factor = 0;
  double relative = 0, eta = 0;  ///< relative is 0 only if factor is a power of two
  int bits = 54;                 ///< significant bits of h - hi, if it is known to be exact
};
/// `values`: the row's, unless it has its statistics in common with others. careful: by further passes, for rows on
/// which the bounds of one do not suffice, and where eta matters; unknown if they tell no more.
RowFactor row_factor(const RowNorm& norm, const RowReader& reader, std::int64_t row, RowReader::Scratch& scratch,
                     RowValues& values, bool careful = false);

}  // namespace norma

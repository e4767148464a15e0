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
  /// Significand bits and least exponent of what `read` gives; 53 bits with a residual.
  int precision() const { return precision_; }
  int emin() const { return emin_; }

 private:
  const RowNorm& norm_;
  Layout layout_;
  bool unpacks_;
  int precision_, emin_;
};

/// q = (h - hi - lo) w factor in binary64, over the reals: |q' - q| <= relative |q'| + eta |w| where q' is computed as
/// the loops do, before the roundings that belong to w (see quick_norm.cpp).
struct RowFactor {
  enum class Kind : std::uint8_t {
    bounded,  ///< as above; h finite
    exact,    ///< q' = +-0 for finite h, and y' = y; some h may be infinite if factor is 0: IEEE rules
    ieee,     ///< as `bounded`, but some h are NaN or infinite: they give what IEEE arithmetic gives
    nan,      ///< every y is NaN
    unknown,  ///< binary64 does not tell
  };
  Kind kind = Kind::unknown;
  double hi = 0, lo = 0, factor = 0;
  double relative = 0, eta = 0;
};
/// `values`: the row's, unless it has its statistics in common with others.
RowFactor row_factor(const RowNorm& norm, const RowReader& reader, std::int64_t row, RowReader::Scratch& scratch,
                     RowValues& values);

}  // namespace norma

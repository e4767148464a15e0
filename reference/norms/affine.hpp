// Rows of an affine norm, exactly: every element is A r + b for a dyadic A and the row's factor r.
//
//   y = w s (h - T/D) r + b = (w s (D h - T)) (r / D) + b
//
// T/D is the centre: the mean, with D the number of elements; a running mean, D = 1; or 0. The total under the root of
// moments is sum (h - mean)^2 = (n sum h^2 - (sum h)^2) / n. All of it is dyadic but r, and r's square is rational: the
// sign of A r - c is that of an integer polynomial of degree 2 (exact/root.hpp), so that every comparison ends.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "reference/certified/rows/row_norm.hpp"
#include "reference/exact/real.hpp"
#include "reference/exact/root.hpp"
#include "reference/norms/exact_rows.hpp"

namespace norma {

/// What the rows of one group have in common.
struct AffineFactor {
  enum class Kind { real, zero, infinite, nan } kind = Kind::nan;  ///< of r
  Root root;                                                       ///< real: r
  Interval r;                                                      ///< real: r / D
  double denominator = 1;                                          ///< D
  Dyadic centre;                                                   ///< T
  double given_centre = 0;  ///< Statistics::given: the centre, perhaps not finite
  bool ordinary = false;    ///< moments of ordinary spread: T = units 2^unit
  int unit = 0;
  Wide units = 0;
  /// r / D to binary64 pairs, where it is far from binary64's limits.
  struct Pair {
    double hi, lo, radius;
  };
  std::optional<Pair> pair;
  explicit AffineFactor(mpfr_prec_t bits) : r(bits) {}
};

/// y = A r + b of one element.
struct AffineElement {
  enum class Kind { real, infinite, nan } kind = Kind::real;
  bool negative = false;  ///< sign bit of A (of a zero too), or of an infinite y
  bool zero = false;      ///< A r = 0
  Sum weight, scale, h;
  std::optional<double> bias;
  /// D h - T where it is a sum of two binary64 numbers.
  struct Pair {
    double hi, lo;
  };
  std::optional<Pair> difference{};
};

/// The rows of a problem, of whatever formats. Its tensors must outlive it. Thread-safe.
class AffineRows {
 public:
  explicit AffineRows(const RowNorm& norm);

  const RowNorm& norm() const { return norm_; }
  /// The factor of the row's group; kept, for rows come in runs of questions.
  std::shared_ptr<const AffineFactor> factor(std::int64_t row) const;
  AffineFactor read_factor(std::int64_t row, mpfr_prec_t bits) const;
  AffineElement element(const AffineFactor& f, std::int64_t row, std::int64_t col) const;

  /// A D of a real element: y = slope r / D + shift.
  Dyadic slope(const AffineFactor& f, const AffineElement& e) const;
  static Dyadic shift(const AffineElement& e) { return Dyadic(e.bias.value_or(0.0)); }
  /// The sign of a r / D - c, where r is real or zero.
  static int compare(const AffineFactor& f, const Dyadic& a, const Dyadic& c);
  /// The sign of y - m for a real element.
  int compare_value(const AffineFactor& f, const AffineElement& e, const Dyadic& m) const;

  /// y as an interval of r's precision, and |A r| + |b|.
  struct Value {
    Interval y, terms;
  };
  Value value(const AffineFactor& f, const AffineElement& e) const;
  /// y as TruthSource::enclose_row promises it; radius at most 2^-100 (|A r| + |b|) + 2^-1074.
  Enclosure enclose(const AffineFactor& f, const AffineElement& e) const;

 private:
  struct Difference;
  Difference difference(const AffineFactor& f, const Sum& h) const;
  std::optional<Enclosure> multiply(const AffineFactor& f, const AffineElement& e) const;

  struct Slot {
    std::int64_t group = -1;
    std::shared_ptr<const AffineFactor> value;
  };
  RowNorm norm_;
  mutable std::mutex mutex_;
  mutable std::vector<Slot> slots_;
};

/// The truth of y, by MPFR and exact comparisons alone. The rules for special values are row_norm.hpp's; beside them, a
/// difference h - centre that is zero has the sign of IEEE's h - centre, where a mean of zero is +0.
std::unique_ptr<TruthSource> affine_truth(const RowNorm& norm);

}  // namespace norma

// What the oracle hands out: enclosures of real values, and answers to comparisons.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace norma {

/// Which arithmetic an answer comes from, the cheapest first. Each is proved; they differ in cost and radius only.
enum class Tier : std::uint8_t {
  binary64,       ///< binary64 with a proved bound
  double_double,  ///< pairs of binary64 numbers with a proved bound
  exact,          ///< MPFR, or the sign of an integer polynomial
};

/// How many elements each tier settled, by Tier; and those that none could.
struct TierCounts {
  std::int64_t binary64 = 0;
  std::int64_t double_double = 0;
  std::int64_t exact = 0;
  std::int64_t undecided = 0;

  void settle(Tier tier, std::int64_t elements = 1) {
    (tier == Tier::binary64 ? binary64 : tier == Tier::double_double ? double_double : exact) += elements;
  }
  TierCounts& operator+=(const TierCounts& other) {
    binary64 += other.binary64;
    double_double += other.double_double;
    exact += other.exact;
    undecided += other.undecided;
    return *this;
  }
  bool operator==(const TierCounts&) const = default;
};

/// A real number y with |y - (hi + lo)| <= radius, |lo| <= ulp(hi)/2 in binary64; the midpoint hi + lo is
/// what 'the double-double midpoint of the truth' means everywhere.
/// Not a number: hi is NaN (the value is undefined, or an input of its row is NaN). Infinite: hi is +-Inf.
/// A zero whose sign is known carries it in hi. An infinite radius says that binary64 cannot hold y, or that
/// nothing is known of it (hi = 0); then only compare() tells.
struct Enclosure {
  double hi = 0;
  double lo = 0;
  double radius = 0;
  /// |q| + |b| + ... of the terms whose sum y is, to binary64's nearest; |y| itself where y is one term.
  /// The unit of the condition-aware error.
  double magnitude = 0;
  Tier tier = Tier::exact;  ///< the one that made it
};

/// Cheap enclosures of one row, an array a figure: |y - mid| <= radius, magnitude as Enclosure's but good to radius
/// only. NaN mid: y is undefined; +-Inf mid: y is infinite (radius 0 for both). Infinite radius beside a finite mid:
/// not known here, ask enclose().
struct QuickRow {
  std::span<double> mid, radius, magnitude;
};

enum class Comparison : std::int8_t { less = -1, equal = 0, greater = 1, undecided = 2 };

/// The truth of one output tensor [rows, cols] (cols = 1 for per-row outputs): enclosures on demand and exact
/// comparisons.
class TruthSource {
 public:
  virtual ~TruthSource() = default;
  virtual std::int64_t rows() const = 0;
  virtual std::int64_t cols() const = 0;
  /// Radius at most 2^-80 |y| + 2^-1074 wherever y is a finite number whose terms do not cancel (a sum such as
  /// y = q + b: relative to |q| + |b|); 0 if y is a binary64 number and that can be decided. `out` holds cols()
  /// enclosures. Thread-safe.
  virtual void enclose_row(std::int64_t row, std::span<Enclosure> out) const = 0;
  /// One of them: what enclose_row gives there. Thread-safe.
  virtual Enclosure enclose(std::int64_t row, std::int64_t col) const;
  /// The cheapest enclosures there are, of whatever radius; returns the tier they come from. The spans hold cols()
  /// numbers each. Thread-safe.
  virtual Tier enclose_quick(std::int64_t row, const QuickRow& out) const;
  /// The sign of y - (m_hi + m_lo) for a finite y, the sum taken over the reals. Exact for algebraic norms
  /// (ties included); a generic program answers `undecided` when its precision cap is reached. Thread-safe.
  virtual Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const = 0;
  /// The tier whose arithmetic `compare` decides by.
  virtual Tier compare_tier() const { return Tier::exact; }
};

/// Quick enclosures from closer ones: hi with the radius that covers lo. Returns the slowest tier among them.
Tier quick_from(std::span<const Enclosure> enclosures, const QuickRow& out);

}  // namespace norma

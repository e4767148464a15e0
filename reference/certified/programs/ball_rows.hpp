// Balls along a row, an array a figure: operations element by element, and sums in a fixed order.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "reference/certified/programs/ball.hpp"
#include "reference/program/program.hpp"

namespace norma {

/// `count` balls from the pointers on.
struct BallRow {
  const double* h = nullptr;
  const double* l = nullptr;
  const double* r = nullptr;
  Ball at(std::size_t i) const { return {h[i], l[i], r[i]}; }
};
struct BallRowOut {
  double* h = nullptr;
  double* l = nullptr;
  double* r = nullptr;
  void set(std::size_t i, const Ball& b) const { h[i] = b.h, l[i] = b.l, r[i] = b.r; }
};

/// out[i] = op(a[i], b[i], c[i]); operands that the operation does not have are not read. `out` overlaps none of them.
/// Same bits at every vector width.
void apply(Op op, const BallRow& a, const BallRow& b, const BallRow& c, const BallRowOut& out, std::size_t count);
/// One of them.
Ball apply(Op op, const Ball& a, const Ball& b, const Ball& c);

/// exp, tanh and erf in binary64, a few times wider than 2^-53 and many times faster than apply().
void apply_quick(Op op, const BallRow& a, const BallRowOut& out, std::size_t count);

/// exp, tanh and erf in binary64 where that adds less than a 32nd to the radius, else as apply().
void apply_function(Op op, const BallRow& a, const BallRowOut& out, std::size_t count);

/// h as exact balls: l = 0; r = 0, or Inf beyond 2^900.
void exact_row(const double* h, const BallRowOut& out, std::size_t count);

void widen_row(const float* values, double* wide, std::size_t count);

/// What TruthSource::enclose_quick says of balls and their magnitudes: one midpoint in binary64 and a radius about it.
void quick_row(const BallRow& y, const BallRow& size, double* mid, double* radius, double* magnitude,
               std::size_t count);

/// The binary64 number nearest to everything in the ball is h.
bool is_nearest(const Ball& size);

/// settled[i] = 1 where y and its magnitude are as close as TruthSource::enclose_row promises and y is no binary64
/// number unless exactly known; NaN and Inf are left open. The magnitude's h is then the binary64 number nearest to it.
void settled_row(const BallRow& y, const BallRow& size, std::int64_t* settled, std::size_t count);

/// A sum of balls, fed piece by piece; every piece but the last has a multiple of kLanes balls.
///
/// Term i is added to pair i mod kLanes: hi by TwoSum, its rest and the term's low part to lo, each rounding error of
/// which is known exactly and enters the radius. So the radius is sum(R_i) + sum |errors|, below sum(R_i) + h u^2
/// sum |A_i| for h additions a lane, and 0 where the sum is a pair: then it is exact.
class BallSum {
 public:
  static constexpr std::size_t kLanes = 16;
  BallSum();
  void add(const BallRow& terms, std::size_t count);
  Ball total() const;

 private:
  using Lanes = std::array<double, kLanes>;
  Lanes hi_, lo_, radius_, error_;
};

/// The largest |term|, 0 for none, or with `signs` the largest term, -Inf for none; NaN if one is NaN.
/// |max |v| - max |m|| <= max R, and so without the absolute values.
class BallMax {
 public:
  static constexpr std::size_t kLanes = 16;
  explicit BallMax(bool signs = false);
  void add(const BallRow& terms, std::size_t count);
  Ball total() const;

 private:
  using Lanes = std::array<double, kLanes>;
  bool signs_;
  Lanes h_, l_, radius_, nan_;
};

}  // namespace norma

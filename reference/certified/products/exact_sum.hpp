// The exact sum of any binary64 numbers: one integer as wide as their range, in overlapping digits.
#pragma once

#include <array>
#include <cstdint>

namespace norma {

/// Sum of finite numbers, without rounding. After Neal, "Fast exact summation using small and large superaccumulators",
/// 2015: the value is sum of digit[i] 2^(32 i - 1074); digits are signed 64-bit integers, so 2^30 additions need no
/// carry between them.
class ExactSum {
 public:
  void add(double x);
  int sign() const;  ///< -1, 0, 1

  /// The leading 53 bits of what is left, cut towards zero; they are subtracted. 0 if nothing is left.
  double take();

 private:
  static constexpr int kDigits = 69;  // the highest bit of a binary64 number is 2098 of 2208
  std::array<std::int64_t, kDigits> digits_{};
  std::int32_t additions_ = 0;

  void carry();
};

}  // namespace norma

// sin and cos in double-double.
#pragma once

#include "reference/certified/double_double.hpp"

namespace norma {

struct SineCosine {
  DoubleDouble sine, cosine;
  bool small = false;  ///< |x| below pi/64: the sine's relative bound holds
};

inline constexpr double kLargestTurn = 0x1p20;
/// Of both, absolute; and of a small x's sine, relative (|x| >= 2^-900).
inline constexpr double kTurnError = 0x1p-102, kSmallSineError = 0x1p-104;

/// sin x and cos x for |x| <= kLargestTurn.
SineCosine sine_cosine(DoubleDouble x);

}  // namespace norma

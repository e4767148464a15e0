// The arithmetic of an accumulator: one rounding an operation, in its format.
#pragma once

#include <cmath>

#include "impls/emulate/arithmetic.hpp"
#include "reference/program/program.hpp"

namespace norma {

/// Accumulator in binary32: the hardware's own operations.
struct Fp32 {
  using Value = float;
  Value add(Value a, Value b) const { return a + b; }
  Value mul(Value a, Value b) const { return a * b; }
  Value div(Value a, Value b) const { return a / b; }
  Value fma(Value a, Value b, Value c) const { return std::fma(a, b, c); }
};
/// Accumulator in binary64.
struct Fp64 {
  using Value = double;
  Value add(Value a, Value b) const { return a + b; }
  Value mul(Value a, Value b) const { return a * b; }
  Value div(Value a, Value b) const { return a / b; }
  Value fma(Value a, Value b, Value c) const { return std::fma(a, b, c); }
};
/// Accumulator in a narrower format: every operation is rounded to it.
struct Narrow {
  using Value = double;
  FormatId format;
  Value add(Value a, Value b) const { return rounded_op(Op::add, a, b, 0, format, Overflow::ieee); }
  Value mul(Value a, Value b) const { return rounded_op(Op::mul, a, b, 0, format, Overflow::ieee); }
  Value div(Value a, Value b) const { return rounded_op(Op::div, a, b, 0, format, Overflow::ieee); }
  Value fma(Value a, Value b, Value c) const { return rounded_op(Op::fma, a, b, c, format, Overflow::ieee); }
};

}  // namespace norma

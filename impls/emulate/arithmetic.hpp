// One rounded operation at a time, on values held in binary32 or binary64.
#pragma once

#include <cstddef>

#include "reference/formats/format.hpp"
#include "reference/program/program.hpp"

namespace norma {

/// op(a, b, c) rounded once to `target`, for operands that are binary64 numbers.
/// Targets up to fp32: the operation is rounded to odd in binary64, then once to the target (Boldo & Melquiond,
/// "Emulation of FMA and correctly rounded sums", IEEE TC 2008: right for p <= 51). fp64: the hardware's own
/// operation. exp, tanh, erf, sin, cos and pow: functions.hpp. rsqrt to fp64 is refused (ProgramError): write sqrt, then reciprocal.
double rounded_op(Op op, double a, double b, double c, FormatId target, Overflow overflow);

/// The same on `count` binary32 values with an fp32 target: one hardware operation each.
void fp32_op(Op op, const float* a, const float* b, const float* c, float* out, std::size_t count);

/// True if the operation on binary32 numbers is exact in binary32 (so that rounding afterwards is one rounding).
bool exact_in_fp32(Op op);

/// `ulps` steps up (down if negative) in a format, from a value of it.
double nudge(FormatId format, double value, int ulps);

}  // namespace norma

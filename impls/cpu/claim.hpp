// The error that a kernel promises, proved from the steps it declares.
#pragma once

#include <optional>

#include "reference/program/layout.hpp"

namespace norma {

/// A bound on |y - exact| in ulp of y's format, of the output y of a program on its tensors, exact being what the
/// program computes without its roundings; over every finite exact y. None: a step may
/// overflow or divide by what may be zero, a variance is lost in its rounding errors (E[x^2] - mean^2 with a large
/// mean), or the bound is beyond 2^24 ulp and says nothing.
std::optional<double> proved_claim(const PlacedProgram& placed, const Attributes& attributes);

}  // namespace norma

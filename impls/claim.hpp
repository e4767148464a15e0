// The error that a kernel promises, proved from the steps it declares.
#pragma once

#include <optional>

#include "impls/implementation.hpp"
#include "reference/program/layout.hpp"

namespace norma {

/// A bound on |y - exact| in ulp of y's format, of the output y of a program on its tensors, exact being what the
/// program computes without its roundings; over every finite exact y. None: a step may
/// overflow or divide by what may be zero, a variance is lost in its rounding errors (E[x^2] - mean^2 with a large
/// mean), or the bound is beyond 2^24 ulp and says nothing.
std::optional<double> proved_claim(const PlacedProgram& placed, const Attributes& attributes);

/// What a kernel declares that has a program of its own and no path: the claim proved from it, none for a quantized y,
/// whose error is another.
Declaration declare_claim(const Program& program, const ImplCall& call);

}  // namespace norma

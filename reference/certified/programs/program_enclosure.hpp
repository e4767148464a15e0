// The fast truth of a program: every value of a row as a ball, MPFR for what that leaves open.
#pragma once

#include <memory>
#include <string_view>

#include "reference/exact/enclosure.hpp"
#include "reference/formats/tensor.hpp"
#include "reference/program/program.hpp"

namespace norma {

/// Truth of one output of the erased program, as program_truth (reference/exact/program_truth.hpp) has it: same
/// meaning, shapes, errors and lifetimes; roundings in the program are ignored.
///
/// enclose_quick:  double-double balls, all of them (exp, tanh and erf in binary64); what they do not tell has an
///                 infinite radius.
/// enclose_row:    those that are as tight as TruthSource promises; program_truth for the others.
/// compare:        program_truth.
///
/// Rows that are ordinary cost a few nanoseconds an element and step. Slow, as each needs program_truth: what cancels
/// below 2^-80 of its terms without being exact; results that are binary64 numbers without every step being exact;
/// values beyond 2^+-900; signs of zero that depend on inexact steps.
std::unique_ptr<TruthSource> certified_program_truth(const Program& program, const Tensors& inputs,
                                                     const Attributes& attributes, std::string_view output);

}  // namespace norma

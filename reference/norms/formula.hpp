// The truth of a formula that is no RowNorm and no sum of three terms: a program of exact steps.
#pragma once

#include <memory>
#include <string_view>

#include "reference/norms/norm.hpp"
#include "reference/program/builder.hpp"

namespace norma {

/// Formats of the call's tensors, its numbers, x's columns: what a formula's Builder needs.
Binding formula_binding(const NormCall& call);

/// One step of a formula: exact.
Operand exactly(Builder& b, const std::string& name, Op op, std::initializer_list<Operand> operands);

/// Truth of one output of `formula`; its steps have no roundings, its attributes are the call's numbers. The truth
/// keeps the program and the numbers; the call's tensors must outlive it, unless `own` take their place. `fast`: balls
/// first, MPFR for what they leave open.
std::unique_ptr<TruthSource> formula_truth(Program formula, const NormCall& call, std::string_view output,
                                           TruthKind kind, Tensors own = {});

}  // namespace norma

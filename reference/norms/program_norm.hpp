// Norms whose meaning is written as a program without roundings.
#pragma once

#include <memory>
#include <string_view>

#include "reference/exact/enclosure.hpp"
#include "reference/formats/tensor.hpp"
#include "reference/program/program.hpp"

namespace norma {

enum class ProgramTiers { all, mpfr };

/// The truth of one output of `program`, which it keeps alive. `tensors` must outlive it; `own` take their place where
/// there are any.
std::unique_ptr<TruthSource> meaning_truth(Program program, const Tensors& tensors, Tensors own,
                                           const Attributes& attributes, std::string_view output, ProgramTiers tiers);

}  // namespace norma

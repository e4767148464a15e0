// Formulas as programs of exact steps.
#include "reference/norms/formula.hpp"

#include <utility>

#include "reference/norms/program_norm.hpp"

namespace norma {

Binding formula_binding(const NormCall& call) {
  const Tensor& x = call.inputs->find("x")->second;
  Binding binding{.x = x.format, .formats = {}, .attributes = call.numbers, .cols = x.cols(), .profile = {}};
  for (const auto& [name, tensor] : *call.inputs)
    if (name != "x") binding.formats.emplace(name, tensor.format);
  return binding;
}

Operand exactly(Builder& b, const std::string& name, Op op, std::initializer_list<Operand> operands) {
  return b.map(name, op, Rounding{}, operands);
}

std::unique_ptr<TruthSource> formula_truth(Program formula, const NormCall& call, std::string_view output,
                                           TruthKind kind) {
  const ProgramTiers tiers = kind == TruthKind::fast ? ProgramTiers::all : ProgramTiers::mpfr;
  return meaning_truth(std::move(formula), *call.inputs, {}, call.numbers, output, tiers);
}

}  // namespace norma

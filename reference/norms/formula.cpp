// Formulas as programs of exact steps.
#include "reference/norms/formula.hpp"

#include <utility>

#include "reference/certified/programs/program_enclosure.hpp"
#include "reference/exact/program_truth.hpp"

namespace norma {

namespace {

/// The truth of a program together with what it needs alive.
class FormulaTruth final : public TruthSource {
 public:
  FormulaTruth(Program formula, const NormCall& call, std::string_view output, TruthKind kind, Tensors own)
      : formula_(std::move(formula)), own_(std::move(own)) {
    const Tensors& tensors = own_.empty() ? *call.inputs : own_;
    inner_ = kind == TruthKind::fast ? certified_program_truth(formula_, tensors, call.numbers, output)
                                     : program_truth(formula_, tensors, call.numbers, output);
  }

  std::int64_t rows() const override { return inner_->rows(); }
  std::int64_t cols() const override { return inner_->cols(); }
  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override { inner_->enclose_row(row, out); }
  Enclosure enclose(std::int64_t row, std::int64_t col) const override { return inner_->enclose(row, col); }
  Tier enclose_quick(std::int64_t row, const QuickRow& out) const override { return inner_->enclose_quick(row, out); }
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    return inner_->compare(row, col, m_hi, m_lo);
  }

 private:
  Program formula_;
  Tensors own_;
  std::unique_ptr<TruthSource> inner_;
};

}  // namespace

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
                                           TruthKind kind, Tensors own) {
  return std::make_unique<FormulaTruth>(std::move(formula), call, output, kind, std::move(own));
}

}  // namespace norma

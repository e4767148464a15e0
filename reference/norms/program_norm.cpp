// The truth of a program together with what it needs alive.
#include "reference/norms/program_norm.hpp"

#include <utility>

#include "reference/certified/programs/program_enclosure.hpp"
#include "reference/exact/program_truth.hpp"

namespace norma {

namespace {

class MeaningTruth final : public TruthSource {
 public:
  MeaningTruth(Program program, const Tensors& tensors, Tensors own, const Attributes& attributes,
               std::string_view output, ProgramTiers tiers)
      : program_(std::move(program)), own_(std::move(own)) {
    const Tensors& inputs = own_.empty() ? tensors : own_;
    inner_ = tiers == ProgramTiers::all ? certified_program_truth(program_, inputs, attributes, output)
                                        : program_truth(program_, inputs, attributes, output);
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
  Program program_;
  Tensors own_;
  std::unique_ptr<TruthSource> inner_;
};

}  // namespace

std::unique_ptr<TruthSource> meaning_truth(Program program, const Tensors& tensors, Tensors own,
                                           const Attributes& attributes, std::string_view output, ProgramTiers tiers) {
  return std::make_unique<MeaningTruth>(std::move(program), tensors, std::move(own), attributes, output, tiers);
}

}  // namespace norma

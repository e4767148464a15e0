// Outputs made elsewhere (a GPU, another library, another day), judged from their bits.
#pragma once

#include <string>

#include "impls/implementation.hpp"

namespace norma {

/// An implementation that gives back what was recorded. Its outputs belong to one set of inputs: the caller
/// pairs it with the case they were made for. It declares nothing; a case says path= if it has a contract.
class RecordedOutput final : public Implementation {
 public:
  /// `name` as the command line writes it: file:OUT.safetensors#y. `norm`: the norm they are outputs of; empty:
  /// whichever a case names. `outputs` by output name (y, residual, scale), already loaded.
  RecordedOutput(std::string name, std::string norm, Tensors outputs);

  std::string name() const override { return name_; }
  std::string title() const override { return "recorded output"; }
  bool accepts_norm(std::string_view norm) const override { return norm_.empty() || norm == norm_; }
  Declaration declares(const ImplCall&) const override { return {}; }
  /// ImplCrashed if there is no y or its shape is not x's: nothing was recorded for this case.
  Tensors run(const ImplCall& call) override;

 private:
  std::string name_;
  std::string norm_;
  Tensors outputs_;
};

}  // namespace norma

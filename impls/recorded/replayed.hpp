// An output of a kernel that was recorded where the kernel ran, judged by the kernel's own contract.
#pragma once

#include "impls/implementation.hpp"

namespace norma {

/// Declares what `kernel` declares and returns what it once returned. `kernel` must outlive it.
class ReplayedOutput final : public Implementation {
 public:
  ReplayedOutput(const Implementation& kernel, Tensors outputs) : kernel_(kernel), outputs_(std::move(outputs)) {}

  std::string name() const override { return kernel_.name(); }
  std::string title() const override { return kernel_.title() + ", as recorded"; }
  bool accepts_norm(std::string_view norm) const override { return kernel_.accepts_norm(norm); }
  Declaration declares(const ImplCall& call) const override { return kernel_.declares(call); }
  std::optional<Program> declared_program(const ImplCall& call) const override {
    return kernel_.declared_program(call);
  }
  Tensors run(const ImplCall&) override { return outputs_; }

 private:
  const Implementation& kernel_;
  Tensors outputs_;
};

}  // namespace norma

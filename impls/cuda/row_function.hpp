// Kernels of x alone as implementations: activations and softmax.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "impls/cuda/row_kernel.hpp"

namespace norma::cuda {

/// A call of such a kernel, where the kernel can reach its tensors.
struct FunctionCall {
  const std::byte* x = nullptr;
  std::byte* y = nullptr;
  FormatId format = FormatId::fp32;  ///< of both
  std::uint32_t rows = 0, cols = 0;
};

/// x in fp32, bf16, fp16, e4m3fn or e5m2; y in x's format, where 8-bit formats saturate.
class RowFunction : public Implementation {
 public:
  /// `inputs` outlives it; `row` as its programs have it.
  RowFunction(SideKind side, RowThreads row, const KernelInputs& inputs, const std::string& name,
              const std::string& title);

  std::string name() const override { return name_; }
  std::string title() const override { return title_; }
  bool accepts_norm(std::string_view norm) const override { return norm == inputs_.norm; }
  Declaration declares(const ImplCall&) const override { return {}; }
  std::optional<Program> declared_program(const ImplCall& call) const override;
  Tensors run(const ImplCall& call) override;

 protected:
  /// y in fp32, from x on.
  virtual Operand steps(Builder& b, const RowShape& shape, Operand x) const = 0;
  virtual void launch(const FunctionCall& call) const = 0;

  SideKind side() const { return side_; }
  RowThreads row() const { return row_; }

 private:
  SideKind side_;
  RowThreads row_;
  const KernelInputs& inputs_;
  std::string name_, title_;
};

}  // namespace norma::cuda

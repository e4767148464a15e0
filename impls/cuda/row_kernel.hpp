// What the kernels of rows share as implementations: their operands, and how a call reaches a side and comes back.
#pragma once

#include <cstddef>
#include <string>

#include "impls/operands.hpp"
#include "impls/cuda/row_shape.hpp"
#include "impls/cuda/side.hpp"
#include "impls/implementation.hpp"
#include "reference/program/builder.hpp"

namespace norma::cuda {

/// A call of a kernel of rows, where the kernel can reach its tensors.
struct RowCall {
  const std::byte* x = nullptr;
  const std::byte* weight = nullptr;  ///< null: none
  const std::byte* bias = nullptr;    ///< null: none
  std::byte* y = nullptr;
  FormatId format = FormatId::fp32;  ///< of x and y
  bool parameters_fp32 = false;      ///< weight and bias; else in x's format
  std::uint32_t rows = 0, cols = 0;
  float eps = 0;
};

/// x in fp32, bf16, fp16, e4m3fn or e5m2; weight and bias both in x's format or both in fp32; y in x's format, where 8-bit
/// formats saturate.
class RowKernel : public Implementation {
 public:
  RowKernel(SideKind side, RowThreads row, const KernelInputs& inputs, std::string name, std::string title);

  std::string name() const override { return name_; }
  std::string title() const override { return title_; }
  bool accepts_norm(std::string_view norm) const override { return norm == inputs_.norm; }
  Declaration declares(const ImplCall& call) const override;
  std::optional<Program> declared_program(const ImplCall& call) const override;
  Tensors run(const ImplCall& call) override;

 protected:
  /// The steps of one row, from x on, to y.
  virtual Program steps(Builder& b, const RowShape& shape) const = 0;
  virtual void launch(const RowCall& call) const = 0;

  SideKind side() const { return side_; }
  RowThreads row() const { return row_; }

 private:
  void check(const ImplCall& call) const;

  SideKind side_;
  RowThreads row_;
  KernelInputs inputs_;
  std::string name_, title_;
};

/// ImplSkipped where no kernel here stores x's format, or a grid has no room for its rows.
void check_storage(const Tensor& x);
/// A sum of a row as its threads take it.
Order order_of(RowThreads row, const RowShape& shape);
/// To x's format as a kernel stores it; `value` itself where that is fp32.
Operand to_storage(Builder& b, const std::string& name, Operand value);
/// The name of the step before the last cast: y itself in fp32.
std::string last_step(const Builder& b);
/// eps as kernels take it.
Operand plus_eps_fp32(Builder& b, const std::string& name, Operand a);

}  // namespace norma::cuda

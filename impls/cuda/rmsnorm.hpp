// The RMSNorm kernels as implementations.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "impls/cuda/rmsnorm_launch.hpp"
#include "impls/cuda/row_kernel.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

struct RmsVariant {
  SideKind side = SideKind::gpu;
  RowThreads row = RowThreads::warp;
  RmsTail tail = RmsTail::once;
  bool approximate_root = false;
};

/// Declares its sum's order, fused squares and its root. Formats: RowKernel.
std::unique_ptr<Implementation> make_rmsnorm(const RmsVariant& variant);

// What the kernels that do more beside RMSNorm share with it.

/// A tail as a part of a kernel's name and in words.
struct RmsTailWords {
  std::string_view name, formula;
};
const RmsTailWords& words_of(RmsTail tail);
/// r = 1 / sqrt(mean(h^2) + eps) as threads find it.
Operand declare_rms_root(Builder& b, Operand h, RowThreads row, const RowShape& shape, bool approximate);
/// y from h and r.
Operand declare_rms_tail(Builder& b, RmsTail tail, Operand h, Operand r, std::optional<Operand> weight);

}  // namespace norma::cuda

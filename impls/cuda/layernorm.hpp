// The LayerNorm kernels as implementations.
#pragma once

#include <memory>

#include "impls/cuda/layernorm_launch.hpp"
#include "impls/cuda/row_kernel.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

struct LayerNormVariant {
  SideKind side = SideKind::gpu;
  RowThreads row = RowThreads::warp;
  Statistic statistic = Statistic::two_pass;
  LayerNormTail tail = LayerNormTail::once;
  bool approximate_root = false;  ///< rsqrtf, not __frsqrt_rn
};

/// How threads find mean and variance, as steps of a program.
struct DeclaredMoments {
  Operand mean, variance;
};
DeclaredMoments declare_moments(Builder& b, RowThreads row, const RowShape& shape, Statistic statistic, Operand x);
/// (x - mean) r as a program, its last step named `name`.
Operand declare_normalized(Builder& b, const std::string& name, const RowShape& shape, const LayerNormVariant& variant,
                           Operand x);
/// How a variant finds mean and variance, as a part of a kernel's name and in words.
struct StatisticWords {
  std::string_view name, title;
};
const StatisticWords& words_of(Statistic statistic);

/// Declares its orders and fused steps; claims no error. Formats: RowKernel.
std::unique_ptr<Implementation> make_layernorm(const LayerNormVariant& variant);

}  // namespace norma::cuda

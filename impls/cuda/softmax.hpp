// The softmax kernels as implementations.
#pragma once

#include <memory>

#include "impls/cuda/softmax_launch.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

struct SoftmaxVariant {
  SideKind side = SideKind::gpu;
  RowThreads row = RowThreads::warp;
  Exponential exponential = Exponential::library;
};

/// Declares its sum's order and its exponential; claims no error. Formats: RowFunction.
std::unique_ptr<Implementation> make_softmax(const SoftmaxVariant& variant);

}  // namespace norma::cuda

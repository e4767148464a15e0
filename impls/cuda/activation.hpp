// The activation kernels as implementations.
#pragma once

#include <memory>

#include "impls/cuda/activation_launch.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

/// Declares its steps; claims no error. Formats: RowFunction.
std::unique_ptr<Implementation> make_activation(SideKind side, Activation activation);

}  // namespace norma::cuda

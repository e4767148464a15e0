// Modulation and gated residual as implementations.
#pragma once

#include <memory>

#include "impls/cuda/elementwise_launch.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

/// y = x (scale_offset + scale) + shift; scale, shift in x's format or, with one rounding, in fp32.
std::unique_ptr<Implementation> make_modulate(SideKind side, Roundings roundings);
/// y = x + gate f, all in one format.
std::unique_ptr<Implementation> make_gated_residual(SideKind side, Roundings roundings);

}  // namespace norma::cuda

// Native kernels without a statistic: modulation and the gated residual.
#pragma once

#include <memory>

#include "impls/implementation.hpp"

namespace norma {

enum class Steps {
  eager,  ///< every operation is rounded to x's format T, as op-by-op frameworks do; all tensors are of it
  fused,  ///< fp32, product and sum by one fused multiply-add, one cast to T
};

/// y = x (scale_offset + scale) + shift
std::unique_ptr<Implementation> make_modulate(Steps steps);
/// y = x + gate f
std::unique_ptr<Implementation> make_gated_residual(Steps steps);

}  // namespace norma

// One launch of an activation kernel: what is compiled for both sides, and what asks for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "impls/cuda/row_shape.hpp"
#include "impls/cuda/side.hpp"
#include "reference/formats/format.hpp"

namespace norma::cuda {

enum class Activation : std::uint8_t {
  silu_library,  ///< x / (1 + expf(-x))
  silu_steps,    ///< the same with exp_by_steps
  gelu_erf,      ///< (x / 2) (1 + erff(x / sqrt 2))
  gelu_tanh,     ///< (x / 2) (1 + tanhf(sqrt(2 / pi) (x + 0.044715 x^3)))
};

struct ActivationLaunch {
  const std::byte* x = nullptr;
  std::byte* y = nullptr;
  FormatId format = FormatId::fp32;  ///< of x and y
  std::uint32_t rows = 0, cols = 0;
  Activation activation = Activation::silu_library;
};

void launch_activation_on_host(const ActivationLaunch& launch, const LaunchOptions& options);
#ifdef NORMA_CUDA_BUILT
void launch_activation_on_gpu(const ActivationLaunch& launch, const LaunchOptions& options);
#endif

}  // namespace norma::cuda

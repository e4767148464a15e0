// One launch of a softmax kernel: what is compiled for both sides, and what asks for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "impls/cuda/exponential.hpp"
#include "impls/cuda/row_shape.hpp"
#include "impls/cuda/side.hpp"
#include "reference/formats/format.hpp"

namespace norma::cuda {

struct SoftmaxLaunch {
  const std::byte* x = nullptr;
  std::byte* y = nullptr;
  FormatId format = FormatId::fp32;  ///< of x and y
  std::uint32_t rows = 0, cols = 0;
  RowThreads row = RowThreads::warp;
  Exponential exponential = Exponential::library;
};

void launch_softmax_on_host(const SoftmaxLaunch& launch, const LaunchOptions& options);
#ifdef NORMA_CUDA_BUILT
void launch_softmax_on_gpu(const SoftmaxLaunch& launch, const LaunchOptions& options);
#endif

}  // namespace norma::cuda

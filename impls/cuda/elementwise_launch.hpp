// One launch of a kernel of elements: modulation and gated residual.
#pragma once

#include <cstddef>
#include <cstdint>

#include "impls/cuda/row_shape.hpp"
#include "impls/cuda/side.hpp"
#include "reference/formats/format.hpp"

namespace norma::cuda {

enum class Roundings : std::uint8_t {
  each,  ///< every operation to x's format
  one,   ///< a fused multiply-add in binary32, then the cast
};

/// y = x factor + term, by rows. A factor and a term are rows too: one for every `rows` rows of x.
struct ElementwiseLaunch {
  struct Rows {
    const std::byte* values = nullptr;  ///< null: none
    std::uint32_t rows = 1;
  };
  const std::byte* x = nullptr;
  Rows factor, term;
  std::byte* y = nullptr;
  FormatId format = FormatId::fp32;  ///< of x and y
  bool parameters_fp32 = false;      ///< factor and term; else in x's format
  bool one_plus = false;             ///< 1 + factor
  std::uint32_t rows = 0, cols = 0;
  Roundings roundings = Roundings::one;
};

void launch_elementwise_on_host(const ElementwiseLaunch& launch, const LaunchOptions& options);
#ifdef NORMA_CUDA_BUILT
void launch_elementwise_on_gpu(const ElementwiseLaunch& launch, const LaunchOptions& options);
#endif

}  // namespace norma::cuda

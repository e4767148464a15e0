// Casts to and from binary32: how the conversions of a GPU are compared with reference/formats, value by value.
#pragma once

#include <cstddef>
#include <cstdint>

#include "impls/cuda/side.hpp"
#include "reference/formats/format.hpp"

namespace norma::cuda {

struct CastLaunch {
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  FormatId format = FormatId::bf16;  ///< bf16, fp16, e4m3fn or e5m2
  bool to_fp32 = false;              ///< else from fp32, rounded to nearest even; 8-bit formats saturate
  std::uint32_t count = 0;
};

void launch_cast_on_host(const CastLaunch& launch, const LaunchOptions& options);
#ifdef NORMA_CUDA_BUILT
void launch_cast_on_gpu(const CastLaunch& launch, const LaunchOptions& options);
#endif
/// Asks the side; ImplSkipped where it is not built.
void launch_cast(SideKind side, const CastLaunch& launch);

}  // namespace norma::cuda

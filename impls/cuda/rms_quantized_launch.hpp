// One launch of a kernel of RMSNorm with quantized output: what is compiled for both sides, and what asks for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "impls/cuda/rmsnorm_launch.hpp"

namespace norma::cuda {

enum class Quant : std::uint8_t {
  fixed,      ///< e4m3 codes of z * (1 / scale), one scale, given
  per_token,  ///< e4m3 codes of z / scale, scale[row] = max(min(max |z|, cap) / max, floor)
  mxfp8,      ///< e4m3 codes; bytes of E8M0 for 32 columns each
  nvfp4,      ///< e2m1 codes, two a byte, the first one low; e4m3 scales for 16 columns each
};
/// Columns that share a scale.
constexpr unsigned block_of(Quant quant) { return quant == Quant::mxfp8 ? 32 : 16; }

/// What is quantized; n = x r in binary32.
enum class QuantizedRow : std::uint8_t {
  fp32,           ///< z = n w, as FlashInfer has it
  rounded,        ///< z = rT(n w), as TensorRT-LLM
  rounded_twice,  ///< z = rT(rT(n) w), as vLLM
};

struct RmsQuantizedLaunch {
  RmsLaunch norm;  ///< x in fp32, bf16 or fp16; y: codes; its tail is not asked
  Quant quant = Quant::fixed;
  QuantizedRow row = QuantizedRow::fp32;
  const std::byte* scale = nullptr;  ///< fixed: one fp32 value
  std::byte* scales = nullptr;       ///< per_token: fp32; mxfp8, nvfp4: bytes
  float quant_max = 448, scale_floor = 0, scale_cap = 0;  ///< per_token
  float global_scale = 1;                                 ///< nvfp4
};

void launch_rms_quantized_on_host(const RmsQuantizedLaunch& launch, const LaunchOptions& options);
#ifdef NORMA_CUDA_BUILT
void launch_rms_quantized_on_gpu(const RmsQuantizedLaunch& launch, const LaunchOptions& options);
#endif

}  // namespace norma::cuda

// The kernels of RMSNorm with quantized output as implementations.
#pragma once

#include <memory>
#include <vector>

#include "impls/cuda/rms_quantized_launch.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

/// x in fp32, bf16 or fp16, weight in that or in fp32. y holds e4m3fn codes, of nvfp4 e2m1 codes; scale fp32 numbers, of
/// nvfp4 e4m3fn codes. What a kernel packs, codes of fp4 and bytes of E8M0, is unpacked here.
std::vector<std::unique_ptr<Implementation>> make_rms_quantized(SideKind side);

}  // namespace norma::cuda

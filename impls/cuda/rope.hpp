// The rotary embedding, alone and behind RMSNorm, as implementations.
#pragma once

#include <memory>

#include "impls/cuda/rope_launch.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

struct RopeVariant {
  SideKind side = SideKind::gpu;
  RopeRoundings roundings = RopeRoundings::one;
  bool normed = false;            ///< behind RMSNorm
  bool approximate_root = false;  ///< rsqrtf, not __frsqrt_rn
};

/// x in fp32, bf16, fp16, e4m3fn or e5m2; cos, sin of one shape and, with the weight, in x's format or, where not every
/// operation is rounded to it, in fp32.
std::unique_ptr<Implementation> make_rope(const RopeVariant& variant);

}  // namespace norma::cuda

// The exponentials of kernels as steps of a program.
#pragma once

#include <cstdint>

#include "reference/program/builder.hpp"

namespace norma::cuda {

enum class Exponential : std::uint8_t {
  library,  ///< CUDA's expf: within 2 ulp
  steps,    ///< functions.hpp: every step correctly rounded, so that its bits are predicted
};

/// The largest error that CUDA states for expf, tanhf and erff, in ulp of the correctly rounded value.
inline constexpr int kLibraryUlp = 2;

/// "e" = e^x in fp32.
Operand exponential(Builder& b, Exponential kind, Operand x);

}  // namespace norma::cuda

// The CUDA kernels as implementations: each once for the GPU (cuda.NAME) and once for the host executor (cuda_host.NAME).
#pragma once

#include <span>

#include "impls/implementation.hpp"

namespace norma {

/// In the order of the list in cuda.cpp, which is the catalogue.
std::span<Implementation* const> cuda_implementations();

}  // namespace norma

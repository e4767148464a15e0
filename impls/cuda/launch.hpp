// Starting a kernel on either side; only for the files that are compiled for both.
#pragma once

#include "impls/cuda/device.hpp"
#include "impls/cuda/side.hpp"

namespace norma::cuda::inline NORMA_SIDE {

#ifdef __CUDACC__
/// Errors: those of the launch itself stay with the CUDA runtime until Memory::finish asks for them.
template <class Arguments>
void start(const LaunchShape& shape, const LaunchOptions&, void (*kernel)(Arguments), const Arguments& arguments) {
  kernel<<<shape.blocks, shape.threads, shape.shared_bytes>>>(arguments);
}
#else
template <class Arguments>
void start(const LaunchShape& shape, const LaunchOptions& options, void (*kernel)(Arguments),
           const Arguments& arguments) {
  host::execute(shape, [&] { kernel(arguments); }, options.order);
}
#endif

}  // namespace norma::cuda::inline NORMA_SIDE

// Starting a kernel on either side; only for the files that are compiled for both.
#pragma once

#include "impls/cuda/device.hpp"
#include "impls/cuda/side.hpp"
#include "impls/launch_log.hpp"

namespace norma::cuda::inline NORMA_SIDE {

/// The kernel's name in the source, without its template arguments.
template <auto kKernel>
constexpr std::string_view kernel_name() {
  return kernel_name_in(__PRETTY_FUNCTION__);
}

/// Errors: those of the launch itself stay with the CUDA runtime until Memory::finish asks for them.
template <auto kKernel, class Arguments>
void start(const LaunchShape& shape, const LaunchOptions& options, const Arguments& arguments) {
  note_started({.kernel = std::string(kernel_name<kKernel>()),
                .grid = shape.blocks,
                .block = shape.threads,
                .shared_bytes = shape.shared_bytes});
#ifdef __CUDACC__
  kKernel<<<shape.blocks, shape.threads, shape.shared_bytes, static_cast<cudaStream_t>(options.stream)>>>(arguments);
#else
  host::execute(
      shape, [&] { kKernel(arguments); }, options.order);
#endif
}

}  // namespace norma::cuda::inline NORMA_SIDE

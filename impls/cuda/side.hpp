// Where kernels run: on a GPU, or their source on the host executor.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "impls/cuda/host_executor.hpp"

namespace norma::cuda {

struct LaunchOptions {
  host::ThreadOrder order = host::ThreadOrder::ascending;  ///< of the host executor
};

/// What one call's kernels read and write, where they can reach it.
class Memory {
 public:
  virtual ~Memory() = default;
  virtual const std::byte* in(std::span<const std::byte> bytes) = 0;
  virtual std::byte* out(std::span<std::byte> bytes) = 0;
  /// Waits for the kernels and brings the outputs back. ImplCrashed with the runtime's own words.
  virtual void finish() = 0;
};

enum class SideKind : std::uint8_t { host, gpu };

/// What a side runs on, for the record: device, compute capability, driver, runtime; or the host executor.
struct SideDescription {
  std::string device, capability, driver, runtime;
};

/// Memory of a side. ImplSkipped with one sentence where there is no such side: no device, no driver, a program built
/// without CUDA, a device that the binary has no code for.
std::unique_ptr<Memory> memory_of(SideKind side);
SideDescription describe(SideKind side);
/// True if this program was built with kernels for a GPU.
bool built_for_gpu();

}  // namespace norma::cuda

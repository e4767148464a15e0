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
  void* stream = nullptr;                                  ///< a cudaStream_t of the GPU; null: the default stream
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

/// What a side runs on, for the record. Empty: not known, or of the host executor.
struct SideDescription {
  std::string device, capability;  ///< "NVIDIA H200", "9.0"
  std::string driver, runtime;     ///< versions of CUDA that they support
  std::string compiler, flags;     ///< of the kernels
  std::string code;                ///< what the driver took out of the program: "sm_90", or PTX that it compiled itself
  std::string problem;             ///< why nothing can run there, one sentence; empty: it can
};

/// Memory of a side. ImplSkipped with one sentence where there is no such side: no device, no driver, a program built
/// without CUDA, a device that the binary has no code for.
std::unique_ptr<Memory> memory_of(SideKind side);
SideDescription describe(SideKind side);
/// True if this program was built with kernels for a GPU.
bool built_for_gpu();

}  // namespace norma::cuda

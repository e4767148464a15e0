// A GPU's memory for one call, and what went wrong there in words. What it asks of CUDA's runtime is an interface, so
// that every error is tested where there is no GPU.
#pragma once

#include <mutex>
#include <optional>

#include "impls/cuda/side.hpp"

namespace norma::cuda {

/// An error of the runtime. Some are the GPU's state, not a kernel's fault, and have sentences of their own.
struct GpuFailure {
  enum class Kind : std::uint8_t { no_device, no_driver, old_driver, no_code, out_of_memory, other };
  Kind kind = Kind::other;
  std::string words;  ///< the runtime's own: "cudaErrorIllegalAddress: an illegal memory access was encountered"
};

class GpuRuntime {
 public:
  using Failed = std::optional<GpuFailure>;
  virtual ~GpuRuntime() = default;
  virtual Failed count_devices(int& count) = 0;
  /// Whether the program has code for the device, and which.
  virtual Failed find_code(std::string& code) = 0;
  virtual Failed allocate(std::byte*& p, std::size_t bytes) = 0;
  virtual void release(std::byte* p) = 0;
  virtual Failed copy_in(std::byte* to, std::span<const std::byte> from) = 0;
  virtual Failed fill(std::byte* to, unsigned char value, std::size_t bytes) = 0;
  virtual Failed copy_out(std::span<std::byte> to, const std::byte* from) = 0;
  /// The error that a launch left behind; taken away where it can be.
  virtual Failed take_error() = 0;
  virtual Failed wait() = 0;
  /// All but `code` and `problem`.
  virtual SideDescription describe() = 0;
};

/// One GPU of this process. Calls come one after the other, so that what goes wrong has one culprit.
class Gpu {
 public:
  explicit Gpu(GpuRuntime& runtime) : runtime_(runtime) {}
  /// Holds the GPU for its thread while it lives. ImplSkipped where nothing can run.
  std::unique_ptr<Memory> memory();
  SideDescription describe();

 private:
  class Call;
  /// Found once, with `mutex_` held.
  const std::string& problem();
  /// Throws what a failure means to the caller.
  [[noreturn]] void fail(const GpuFailure& failure, const std::string& doing);

  GpuRuntime& runtime_;
  std::mutex mutex_;
  std::optional<std::string> problem_;
  std::string code_;
  std::string lost_;  ///< what ended the process's use of the GPU; empty: nothing did
};

}  // namespace norma::cuda

// Memory of a GPU, and what went wrong there in words.
#include <cuda_runtime.h>

#include <string>
#include <vector>

#include "impls/cuda/side.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

namespace {

std::string words(cudaError_t error) {
  return std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error);
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

/// Whether calls can be made at all; found once. Empty: yes.
const std::string& why_not() {
  static const std::string reason = [] {
    int devices = 0;
    if (const cudaError_t error = cudaGetDeviceCount(&devices); error != cudaSuccess)
      return "there is no usable CUDA device (" + words(error) + ")";
    if (devices == 0) return std::string("there is no CUDA device");
    return std::string();
  }();
  return reason;
}

class GpuMemory final : public Memory {
 public:
  ~GpuMemory() override {
    for (void* p : owned_) cudaFree(p);
  }

  const std::byte* in(std::span<const std::byte> bytes) override {
    std::byte* on_gpu = allocate(bytes.size());
    check(cudaMemcpy(on_gpu, bytes.data(), bytes.size(), cudaMemcpyHostToDevice), "copying an input to the GPU");
    return on_gpu;
  }
  std::byte* out(std::span<std::byte> bytes) override {
    std::byte* on_gpu = allocate(bytes.size());
    // A kernel that writes nothing must not return the right bytes of an earlier call.
    check(cudaMemset(on_gpu, 0xcd, bytes.size()), "clearing an output");
    outputs_.push_back({bytes, on_gpu});
    return on_gpu;
  }
  void finish() override {
    check(cudaGetLastError(), "starting the kernel");
    check(cudaDeviceSynchronize(), "running the kernel");
    for (const auto& [bytes, on_gpu] : outputs_)
      check(cudaMemcpy(bytes.data(), on_gpu, bytes.size(), cudaMemcpyDeviceToHost), "copying an output from the GPU");
  }

 private:
  static void check(cudaError_t error, const char* doing) {
    if (error == cudaSuccess) return;
    const std::string what = std::string(doing) + ": " + words(error);
    switch (error) {
      case cudaErrorMemoryAllocation: cudaGetLastError(); throw ImplSkipped(what);
      case cudaErrorNoKernelImageForDevice:
        cudaGetLastError();
        throw ImplSkipped(what + "; this norma has no code for " + describe(SideKind::gpu).capability);
      default: throw ImplCrashed(what);
    }
  }
  std::byte* allocate(std::size_t bytes) {
    void* p = nullptr;
    check(cudaMalloc(&p, bytes == 0 ? 1 : bytes), "allocating on the GPU");
    owned_.push_back(p);
    return static_cast<std::byte*>(p);
  }

  struct Output {
    std::span<std::byte> bytes;
    std::byte* on_gpu;
  };
  std::vector<void*> owned_;
  std::vector<Output> outputs_;
};

}  // namespace

std::unique_ptr<Memory> gpu_memory() {
  if (!why_not().empty()) throw ImplSkipped(why_not());
  return std::make_unique<GpuMemory>();
}

SideDescription describe_gpu() {
  SideDescription d;
  int runtime = 0, driver = 0;
  if (cudaRuntimeGetVersion(&runtime) == cudaSuccess) d.runtime = version_text(runtime);
  if (!why_not().empty()) return d;
  if (cudaDriverGetVersion(&driver) == cudaSuccess) d.driver = version_text(driver);
  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) return d;
  d.device = properties.name;
  d.capability = std::to_string(properties.major) + "." + std::to_string(properties.minor);
  return d;
}

}  // namespace norma::cuda

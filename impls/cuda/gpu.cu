// CUDA's runtime as norma uses it.
#include <cuda_runtime.h>

#include "impls/cuda/gpu_memory.hpp"

namespace norma::cuda {

namespace {

/// Asked for its code, never started: the other kernels were compiled for the same devices.
__global__ void probe() {}

GpuFailure::Kind kind_of(cudaError_t error) {
  using enum GpuFailure::Kind;
  switch (error) {
    case cudaErrorNoDevice: return no_device;
    case cudaErrorInsufficientDriver: {
      int driver = 0;
      return cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0 ? old_driver : no_driver;
    }
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorUnsupportedPtxVersion: return no_code;
    case cudaErrorMemoryAllocation: return out_of_memory;
    default: return other;
  }
}

GpuRuntime::Failed failed(cudaError_t error) {
  if (error == cudaSuccess) return std::nullopt;
  return GpuFailure{.kind = kind_of(error),
                    .words = std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error)};
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

class CudaRuntime final : public GpuRuntime {
 public:
  Failed count_devices(int& count) override { return failed(cudaGetDeviceCount(&count)); }
  Failed find_code(std::string& code) override {
    cudaFuncAttributes attributes{};
    if (const auto error = failed(cudaFuncGetAttributes(&attributes, probe))) return error;
    cudaDeviceProp device{};
    if (const auto error = failed(cudaGetDeviceProperties(&device, 0))) return error;
    // Machine code is of the device's generation; what the driver compiled from PTX is of a lower target.
    const bool from_ptx = attributes.ptxVersion / 10 != device.major;
    code = "sm_" + std::to_string(attributes.binaryVersion) +
           (from_ptx ? ", compiled by the driver from PTX of compute_" + std::to_string(attributes.ptxVersion) : "");
    return std::nullopt;
  }
  Failed allocate(std::byte*& p, std::size_t bytes) override {
    void* allocated = nullptr;
    const auto error = failed(cudaMalloc(&allocated, bytes));
    p = static_cast<std::byte*>(allocated);
    return error;
  }
  void release(std::byte* p) override { cudaFree(p); }
  Failed copy_in(std::byte* to, std::span<const std::byte> from) override {
    return failed(cudaMemcpy(to, from.data(), from.size(), cudaMemcpyHostToDevice));
  }
  Failed fill(std::byte* to, unsigned char value, std::size_t bytes) override {
    return failed(cudaMemset(to, value, bytes));
  }
  Failed copy_out(std::span<std::byte> to, const std::byte* from) override {
    return failed(cudaMemcpy(to.data(), from, to.size(), cudaMemcpyDeviceToHost));
  }
  Failed take_error() override { return failed(cudaGetLastError()); }
  Failed wait() override { return failed(cudaDeviceSynchronize()); }

  SideDescription describe() override {
    SideDescription d;
    int runtime = 0, driver = 0;
    if (cudaRuntimeGetVersion(&runtime) == cudaSuccess) d.runtime = version_text(runtime);
    if (cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0) d.driver = version_text(driver);
    d.compiler = "nvcc " + std::to_string(__CUDACC_VER_MAJOR__) + "." + std::to_string(__CUDACC_VER_MINOR__) + "." +
                 std::to_string(__CUDACC_VER_BUILD__);
    d.flags = NORMA_CUDA_FLAGS;
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, 0) == cudaSuccess) {
      d.device = properties.name;
      d.capability = std::to_string(properties.major) + "." + std::to_string(properties.minor);
    }
    cudaGetLastError();  // none of this is a kernel's fault
    return d;
  }
};

}  // namespace

Gpu& process_gpu() {
  static CudaRuntime runtime;
  static Gpu gpu(runtime);
  return gpu;
}

}  // namespace norma::cuda

// The host executor's memory is the caller's; a GPU's is in gpu.cu.
#include "impls/cuda/side.hpp"

#include "impls/cuda/gpu_memory.hpp"
#include "impls/implementation.hpp"

namespace norma::cuda {

#ifdef NORMA_CUDA_BUILT
Gpu& process_gpu();
#else
constexpr const char* kNotBuilt = "this norma was built without CUDA: nvcc was not found";
#endif

namespace {

class HostMemory final : public Memory {
 public:
  const std::byte* in(std::span<const std::byte> bytes) override { return bytes.data(); }
  std::byte* out(std::span<std::byte> bytes) override { return bytes.data(); }
  void finish() override {}
};

}  // namespace

bool built_for_gpu() {
#ifdef NORMA_CUDA_BUILT
  return true;
#else
  return false;
#endif
}

std::unique_ptr<Memory> memory_of(SideKind side) {
  if (side == SideKind::host) return std::make_unique<HostMemory>();
#ifdef NORMA_CUDA_BUILT
  return process_gpu().memory();
#else
  throw ImplSkipped(kNotBuilt);
#endif
}

SideDescription describe(SideKind side) {
  SideDescription d;
  if (side == SideKind::host) {
    d.device = "host executor";
    return d;
  }
#ifdef NORMA_CUDA_BUILT
  return process_gpu().describe();
#else
  d.problem = kNotBuilt;
  return d;
#endif
}

}  // namespace norma::cuda

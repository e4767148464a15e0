// The host executor's memory is the caller's; a GPU's is in gpu.cu.
#include "impls/cuda/side.hpp"

#include "impls/implementation.hpp"

namespace norma::cuda {

#ifdef NORMA_CUDA_BUILT
std::unique_ptr<Memory> gpu_memory();
SideDescription describe_gpu();
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
  return gpu_memory();
#else
  throw ImplSkipped("this norma was built without CUDA: nvcc was not found");
#endif
}

SideDescription describe(SideKind side) {
  if (side == SideKind::host) return {.device = "host executor", .capability = {}, .driver = {}, .runtime = {}};
#ifdef NORMA_CUDA_BUILT
  return describe_gpu();
#else
  return {};
#endif
}

}  // namespace norma::cuda

// A GPU's memory for one call, and what went wrong there in words.
#include "impls/cuda/gpu_memory.hpp"

#include <vector>

#include "impls/implementation.hpp"
#include "impls/launch_log.hpp"

namespace norma::cuda {

namespace {

constexpr unsigned char kGarbage = 0xcd;

std::string with_words(const std::string& sentence, const GpuFailure& failure) {
  return failure.words.empty() ? sentence : sentence + " (" + failure.words + ")";
}

}  // namespace

class Gpu::Call final : public Memory {
 public:
  explicit Call(Gpu& gpu, std::unique_lock<std::mutex> lock) : gpu_(gpu), lock_(std::move(lock)) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() override {
    for (std::byte* p : owned_) gpu_.runtime_.release(p);
  }

  const std::byte* in(std::span<const std::byte> bytes) override {
    std::byte* on_gpu = allocate(bytes.size());
    check(gpu_.runtime_.copy_in(on_gpu, bytes), "copying an input to the GPU");
    return on_gpu;
  }
  std::byte* out(std::span<std::byte> bytes) override {
    std::byte* on_gpu = allocate(bytes.size());
    // A kernel that writes nothing must not return the right bytes of an earlier call.
    check(gpu_.runtime_.fill(on_gpu, kGarbage, bytes.size()), "clearing an output");
    outputs_.push_back({bytes, on_gpu});
    return on_gpu;
  }
  void finish() override {
    const std::string kernel = text_of(last_started());
    check(gpu_.runtime_.take_error(), "starting " + kernel);
    check(gpu_.runtime_.wait(), "running " + kernel);
    for (const auto& [bytes, on_gpu] : outputs_)
      check(gpu_.runtime_.copy_out(bytes, on_gpu), "copying an output of " + kernel + " from the GPU");
  }

 private:
  void check(const GpuRuntime::Failed& failed, const std::string& doing) {
    if (failed) gpu_.fail(*failed, doing);
  }
  std::byte* allocate(std::size_t bytes) {
    std::byte* p = nullptr;
    check(gpu_.runtime_.allocate(p, bytes == 0 ? 1 : bytes),
          "allocating " + std::to_string(bytes) + " bytes on the GPU");
    owned_.push_back(p);
    return p;
  }

  struct Output {
    std::span<std::byte> bytes;
    std::byte* on_gpu;
  };
  Gpu& gpu_;
  std::unique_lock<std::mutex> lock_;
  std::vector<std::byte*> owned_;
  std::vector<Output> outputs_;
};

const std::string& Gpu::problem() {
  if (problem_) return *problem_;
  problem_ = [&]() -> std::string {
    int devices = 0;
    auto failed = runtime_.count_devices(devices);
    const SideDescription about = runtime_.describe();
    if (!failed && devices == 0) return "there is no CUDA device";
    if (!failed) failed = runtime_.find_code(code_);
    if (!failed) return "";
    switch (failed->kind) {
      case GpuFailure::Kind::no_device: return with_words("there is no CUDA device", *failed);
      case GpuFailure::Kind::no_driver: return with_words("there is no NVIDIA driver", *failed);
      case GpuFailure::Kind::old_driver:
        return with_words(
            "the NVIDIA driver is too old: it supports CUDA " + about.driver + ", this norma needs " + about.runtime,
            *failed);
      case GpuFailure::Kind::no_code:
        return with_words("this norma has no code for " + about.device + " of compute capability " + about.capability +
                              "; its kernels were built with " + about.flags,
                          *failed);
      default: return with_words("there is no usable CUDA device", *failed);
    }
  }();
  return *problem_;
}

std::unique_ptr<Memory> Gpu::memory() {
  std::unique_lock lock(mutex_);
  if (!problem().empty()) throw ImplSkipped(*problem_);
  if (!lost_.empty())
    throw ImplSkipped("not run: this process lost the GPU when " + lost_ + "; start norma anew for it");
  return std::make_unique<Call>(*this, std::move(lock));
}

SideDescription Gpu::describe() {
  const std::lock_guard lock(mutex_);
  const std::string& why_not = problem();
  SideDescription d = runtime_.describe();
  d.code = code_;
  d.problem = !why_not.empty() ? why_not : lost_.empty() ? "" : "this process lost the GPU when " + lost_;
  return d;
}

void Gpu::fail(const GpuFailure& failure, const std::string& doing) {
  const std::string what = doing + " failed" + (failure.words.empty() ? "" : ": " + failure.words);
  // An error of a running kernel stays: every later call of this process gets it too. It is this kernel's alone.
  runtime_.take_error();
  if (runtime_.wait()) lost_ = what;
  throw ImplCrashed(what);
}

}  // namespace norma::cuda

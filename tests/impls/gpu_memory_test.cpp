// What can go wrong on a GPU, told by a runtime that makes it go wrong: one sentence each, and never a result.
#include <catch2/catch_test_macros.hpp>

#include <cstring>
#include <set>
#include <utility>

#include "impls/cuda/gpu_memory.hpp"
#include "impls/implementation.hpp"
#include "impls/launch_log.hpp"

using namespace norma;
using namespace norma::cuda;
using Kind = GpuFailure::Kind;

namespace {

/// A GPU in the memory of the CPU, whose calls fail when told to.
class FakeRuntime final : public GpuRuntime {
 public:
  int devices = 1;
  Failed at_count, at_code, at_allocate, at_launch, at_wait;
  bool sticky = false;  ///< at_wait stays
  std::set<std::byte*> held;

  Failed count_devices(int& count) override {
    count = devices;
    return at_count;
  }
  Failed find_code(std::string& code) override {
    if (!at_code) code = "sm_90";
    return at_code;
  }
  Failed allocate(std::byte*& p, std::size_t bytes) override {
    if (at_allocate) return at_allocate;
    p = new std::byte[bytes];
    held.insert(p);
    return std::nullopt;
  }
  void release(std::byte* p) override {
    held.erase(p);
    delete[] p;
  }
  Failed copy_in(std::byte* to, std::span<const std::byte> from) override {
    std::memcpy(to, from.data(), from.size());
    return std::nullopt;
  }
  Failed fill(std::byte* to, unsigned char value, std::size_t bytes) override {
    std::memset(to, value, bytes);
    return std::nullopt;
  }
  Failed copy_out(std::span<std::byte> to, const std::byte* from) override {
    std::memcpy(to.data(), from, to.size());
    return std::nullopt;
  }
  Failed take_error() override { return std::exchange(at_launch, std::nullopt); }
  Failed wait() override { return sticky ? at_wait : std::exchange(at_wait, std::nullopt); }
  SideDescription describe() override {
    SideDescription d;
    d.device = "NVIDIA H200";
    d.capability = "9.0";
    d.driver = "12.4";
    d.runtime = "13.0";
    d.flags = "--fmad=false";
    return d;
  }
};

/// One call: a byte goes in and comes back out. What the error says; empty: none.
template <class Error>
std::string error_of(Gpu& gpu, const char* kernel = "copies") {
  std::byte input{7}, output{0};
  try {
    const auto memory = gpu.memory();
    const std::byte* in = memory->in({&input, 1});
    std::byte* out = memory->out({&output, 1});
    CHECK(*out == std::byte{0xcd});  // garbage until a kernel writes
    *out = *in;
    note_started({.kernel = kernel, .grid = 2, .block = 64, .shared_bytes = 128});
    memory->finish();
  } catch (const Error& e) {
    CHECK(output == std::byte{0});
    return e.what();
  }
  CHECK(output == input);
  return "";
}

const GpuFailure kIllegal{.kind = Kind::other, .words = "cudaErrorIllegalAddress: an illegal memory access"};

}  // namespace

TEST_CASE("without trouble a call's outputs come back and its memory is given back", "[cuda]") {
  FakeRuntime runtime;
  Gpu gpu(runtime);
  CHECK(error_of<std::runtime_error>(gpu).empty());
  CHECK(error_of<std::runtime_error>(gpu).empty());
  CHECK(runtime.held.empty());
  CHECK(gpu.describe().problem.empty());
  CHECK(gpu.describe().code == "sm_90");
}

TEST_CASE("a GPU that cannot be used is skipped with its reason", "[cuda]") {
  FakeRuntime runtime;
  std::string said;
  SECTION("none") {
    runtime.devices = 0;
    said = "there is no CUDA device";
  }
  SECTION("none, as the runtime says") {
    runtime.at_count = {Kind::no_device, "cudaErrorNoDevice: no CUDA-capable device is detected"};
    said = "there is no CUDA device (cudaErrorNoDevice: no CUDA-capable device is detected)";
  }
  SECTION("no driver") {
    runtime.at_count = {Kind::no_driver, "cudaErrorInsufficientDriver: x"};
    said = "there is no NVIDIA driver (cudaErrorInsufficientDriver: x)";
  }
  SECTION("a driver before the runtime") {
    runtime.at_count = {Kind::old_driver, "x"};
    said = "the NVIDIA driver is too old: it supports CUDA 12.4, this norma needs 13.0 (x)";
  }
  SECTION("a capability that the program lacks") {
    runtime.at_code = {Kind::no_code, "cudaErrorNoKernelImageForDevice: x"};
    said =
        "this norma has no code for NVIDIA H200 of compute capability 9.0; its kernels were built with "
        "--fmad=false (cudaErrorNoKernelImageForDevice: x)";
  }
  SECTION("anything else") {
    runtime.at_count = {Kind::other, "cudaErrorSystemNotReady: x"};
    said = "there is no usable CUDA device (cudaErrorSystemNotReady: x)";
  }
  Gpu gpu(runtime);
  CHECK(error_of<ImplSkipped>(gpu) == said);
  CHECK(error_of<ImplSkipped>(gpu) == said);
  CHECK(gpu.describe().problem == said);
}

TEST_CASE("an error of one call is that call's alone", "[cuda]") {
  FakeRuntime runtime;
  Gpu gpu(runtime);
  runtime.at_allocate = {Kind::out_of_memory, "cudaErrorMemoryAllocation: out of memory"};
  CHECK(error_of<ImplCrashed>(gpu) == "allocating 1 bytes on the GPU failed: cudaErrorMemoryAllocation: out of memory");
  runtime.at_allocate.reset();
  CHECK(error_of<ImplCrashed>(gpu).empty());
  runtime.at_launch = {Kind::other, "cudaErrorInvalidConfiguration: invalid configuration argument"};
  CHECK(error_of<ImplCrashed>(gpu, "too_wide") ==
        "starting too_wide (grid 2, block 64, 128 shared bytes) failed: "
        "cudaErrorInvalidConfiguration: invalid configuration argument");
  CHECK(error_of<ImplCrashed>(gpu).empty());
  CHECK(runtime.held.empty());
}

TEST_CASE("an error that stays is the fault of the kernel that met it first, and later calls say so", "[cuda]") {
  FakeRuntime runtime;
  Gpu gpu(runtime);
  runtime.at_wait = kIllegal;
  runtime.sticky = true;
  const std::string culprit =
      "running strays (grid 2, block 64, 128 shared bytes) failed: cudaErrorIllegalAddress: an illegal memory access";
  CHECK(error_of<ImplCrashed>(gpu, "strays") == culprit);
  const std::string later = "not run: this process lost the GPU when " + culprit + "; start norma anew for it";
  CHECK(error_of<ImplSkipped>(gpu, "innocent") == later);
  CHECK(error_of<ImplSkipped>(gpu, "innocent") == later);
  CHECK(gpu.describe().problem == "this process lost the GPU when " + culprit);
}

TEST_CASE("an error of a wait that does not stay loses nothing", "[cuda]") {
  FakeRuntime runtime;
  Gpu gpu(runtime);
  runtime.at_wait = kIllegal;
  CHECK_FALSE(error_of<ImplCrashed>(gpu).empty());
  CHECK(error_of<ImplCrashed>(gpu).empty());
}

TEST_CASE("a log holds what its thread starts while it lives", "[cuda]") {
  note_started({.kernel = "before", .grid = 1, .block = 32, .shared_bytes = 0});
  LaunchLog outer;
  note_started({.kernel = "a", .grid = 1, .block = 32, .shared_bytes = 0});
  {
    LaunchLog inner;
    note_started({.kernel = "b", .grid = 2, .block = 64, .shared_bytes = 16});
    CHECK(inner.started() == std::vector<StartedKernel>{{"b", 2, 64, 16}});
  }
  note_started({.kernel = "c", .grid = 3, .block = 96, .shared_bytes = 0});
  CHECK(outer.started() == std::vector<StartedKernel>{{"a", 1, 32, 0}, {"c", 3, 96, 0}});
}

TEST_CASE("a kernel's name is found in what compilers write", "[cuda]") {
  CHECK(kernel_name_in("constexpr std::string_view f() [with auto kKernel = rms<Bf16, a::Tail::two>; std::string_view "
                       "= std::basic_string_view<char>]") == "rms");
  CHECK(kernel_name_in("constexpr std::string_view f() [with auto kKernel = norma::cuda::on_host::rms<a::Bf16>]") ==
        "rms");
  CHECK(kernel_name_in("std::string_view norma::cuda::f() [kKernel = &norma::cuda::rms]") == "rms");
  CHECK(kernel_name_in("std::string_view norma::cuda::f() [kKernel = &norma::cuda::rms<norma::cuda::Bf16>]") == "rms");
}

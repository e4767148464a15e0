// norma_gpu_speed: how fast CUDA kernels are, beside a device-to-device copy of as many bytes in the same run.
//
// A launch's tensors lie in one of several slots, taken in turn, that together exceed the second-level cache four
// times: what a launch reads is not in the cache. Launches are replayed as one CUDA graph, so that the time of starting
// them from the host is not measured; so is the copy. Copy and kernel alternate, so that both meet the same clocks.
#include <cuda_runtime.h>
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "bench/gpu/work.hpp"
#include "impls/cuda/side.hpp"

using namespace norma;
using namespace norma::bench;
using Json = nlohmann::ordered_json;

namespace {

constexpr int kRepeats = 21;
constexpr int kWarmUps = 3;
constexpr double kLeastBytes = 2e9;  ///< moved in one timed replay: half a millisecond at 4 TB/s
constexpr double kGoal = 0.9;        ///< of the copy's bandwidth
constexpr int kNoGpu = 77;

void check(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(fmt::format("{}: {}: {}", doing, cudaGetErrorName(error), cudaGetErrorString(error)));
}

/// Memory of the GPU.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) {
    check(cudaMalloc(&p_, bytes), fmt::format("allocating {} bytes", bytes).c_str());
  }
  ~Buffer() { cudaFree(p_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  std::byte* bytes() const { return static_cast<std::byte*>(p_); }

 private:
  void* p_ = nullptr;
};

/// Finite values of both signs between 1/2 and 2 in every position.
std::vector<std::byte> values(FormatId format, std::size_t bytes) {
  std::vector<std::byte> made(bytes);
  std::uint64_t state = 88172645463325252u;
  const std::size_t size = static_cast<std::size_t>(format_of(format).storage_bytes());
  for (std::size_t i = 0; i + size <= bytes; i += size) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::uint32_t code = 0;
    if (format == FormatId::fp32)
      code = 0x3f000000u | (static_cast<std::uint32_t>(state) & 0x80ffffffu);
    else if (format == FormatId::bf16)
      code = 0x3f00u | (static_cast<std::uint32_t>(state) & 0x80ffu);
    else
      code = 0x3800u | (static_cast<std::uint32_t>(state) & 0x87ffu);
    for (std::size_t k = 0; k < size; ++k) made[i + k] = static_cast<std::byte>(code >> (8 * k));
  }
  return made;
}

/// Launches as one graph.
class Replay {
 public:
  template <class Launches>
  Replay(cudaStream_t stream, const Launches& launches) : stream_(stream) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "beginning a graph");
    launches();
    check(cudaGetLastError(), "starting the kernel");
    check(cudaStreamEndCapture(stream, &graph_), "ending a graph");
    check(cudaGraphInstantiate(&made_, graph_, 0), "making a graph");
    check(cudaEventCreate(&begin_), "making an event");
    check(cudaEventCreate(&end_), "making an event");
  }
  ~Replay() {
    cudaGraphExecDestroy(made_);
    cudaGraphDestroy(graph_);
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

  /// Microseconds of one replay.
  double time() {
    check(cudaEventRecord(begin_, stream_), "recording an event");
    check(cudaGraphLaunch(made_, stream_), "starting a graph");
    check(cudaEventRecord(end_, stream_), "recording an event");
    check(cudaEventSynchronize(end_), "running the kernels");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin_, end_), "reading the time");
    return 1e3 * static_cast<double>(ms);
  }

 private:
  cudaStream_t stream_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t made_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

struct Times {
  double median = 0, low = 0, high = 0;  ///< microseconds of a launch; quartiles
};
Times quartiles(std::vector<double> all, double launches) {
  std::ranges::sort(all);
  const auto at = [&](double part) {
    return all[static_cast<std::size_t>(part * static_cast<double>(all.size() - 1))] / launches;
  };
  return {.median = at(0.5), .low = at(0.25), .high = at(0.75)};
}

Json json_of(const Times& t, std::size_t bytes) {
  return {{"us", t.median},
          {"us_low", t.low},
          {"us_high", t.high},
          {"gb_per_s", static_cast<double>(bytes) / t.median * 1e-3}};
}

Json about(const GpuWork& w) {
  return {{"kernel", w.kernel}, {"norm", w.norm},       {"format", name_of(w.format)},
          {"rows", w.rows},     {"cols", w.cols},       {"reads", w.reads},
          {"writes", w.writes}, {"vectors", w.vectors}, {"bytes", w.bytes()}};
}

Json measure(const GpuWork& w, std::size_t cache, cudaStream_t stream) {
  const std::size_t tensor = w.tensor_bytes(), tensors = static_cast<std::size_t>(w.reads + w.writes);
  const std::size_t count = 1 + 4 * cache / (tensors * tensor);
  const auto launches =
      std::max(count, static_cast<std::size_t>(std::ceil(kLeastBytes / static_cast<double>(w.bytes()))));
  const std::size_t vector_bytes = w.vector_bytes() * static_cast<std::size_t>(std::max(w.vectors, 1));
  const Buffer rows(count * tensors * tensor), vectors(vector_bytes);
  // A part of the values, again and again: what they are changes no time, that they are not all alike may.
  const std::vector<std::byte> some = values(w.format, std::min(tensor, std::size_t{1} << 24));
  for (std::size_t at = 0; at < count * tensors * tensor; at += some.size())
    check(cudaMemcpy(rows.bytes() + at, some.data(), std::min(some.size(), count * tensors * tensor - at),
                     cudaMemcpyHostToDevice),
          "copying values to the GPU");
  const std::vector<std::byte> parameters = values(w.format, vector_bytes);
  check(cudaMemcpy(vectors.bytes(), parameters.data(), vector_bytes, cudaMemcpyHostToDevice),
        "copying values to the GPU");

  std::vector<Slot> slots(count);
  for (std::size_t i = 0; i < count; ++i) {
    std::byte* at = rows.bytes() + i * tensors * tensor;
    for (int k = 0; k < w.reads; ++k, at += tensor) slots[i].reads.push_back(at);
    for (int k = 0; k < w.writes; ++k, at += tensor) slots[i].writes.push_back(at);
    slots[i].vectors = vectors.bytes();
  }
  Replay kernel(stream, [&] {
    for (std::size_t i = 0; i < launches; ++i) w.launch(slots[i % count], stream);
  });
  // The copy reads one half of a slot and writes the other: it moves the bytes of the row tensors.
  const std::size_t half = tensors * tensor / 2;
  Replay copy(stream, [&] {
    for (std::size_t i = 0; i < launches; ++i) {
      std::byte* from = rows.bytes() + (i % count) * tensors * tensor;
      check(cudaMemcpyAsync(from + half, from, half, cudaMemcpyDeviceToDevice, stream), "copying on the GPU");
    }
  });
  std::vector<double> kernel_us, copy_us;
  for (int i = -kWarmUps; i < kRepeats; ++i) {
    const double k = kernel.time(), c = copy.time();
    if (i < 0) continue;
    kernel_us.push_back(k);
    copy_us.push_back(c);
  }
  const Times ours = quartiles(kernel_us, static_cast<double>(launches)),
              theirs = quartiles(copy_us, static_cast<double>(launches));
  Json line = about(w);
  line["launches"] = launches;
  line["slots"] = count;
  line["kernel_time"] = json_of(ours, w.bytes());
  line["copy_time"] = json_of(theirs, 2 * half);
  line["ratio"] = line["kernel_time"]["gb_per_s"].get<double>() / line["copy_time"]["gb_per_s"].get<double>();
  line["goal"] = kGoal;
  return line;
}

int run(bool plan, bool quick, const std::string& path) {
  std::ofstream file;
  if (!path.empty()) file.open(path);
  if (!path.empty() && !file) throw std::runtime_error(fmt::format("cannot write '{}'", path));
  const auto put = [&](const Json& line) {
    if (file.is_open())
      file << line.dump() << "\n" << std::flush;
    else
      fmt::print("{}\n", line.dump());
  };
  const std::vector<GpuWork> all = gpu_work(quick);
  if (plan) {
    for (const GpuWork& w : all) put(about(w));
    return 0;
  }
  const cuda::SideDescription gpu = cuda::describe(cuda::SideKind::gpu);
  if (!gpu.problem.empty()) {
    fmt::print(stderr, "norma_gpu_speed: nothing measured: {}\n", gpu.problem);
    return kNoGpu;
  }
  int cache = 0;
  check(cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, 0), "asking for the cache's size");
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  put({{"kind", "context"},
       {"device", gpu.device},
       {"capability", gpu.capability},
       {"driver", gpu.driver},
       {"runtime", gpu.runtime},
       {"compiler", gpu.compiler},
       {"flags", gpu.flags},
       {"l2_bytes", cache},
       {"repeats", kRepeats},
       {"time", "median and quartiles of CUDA events, microseconds a launch"}});
  int below = 0;
  for (const GpuWork& w : all) {
    const Json line = measure(w, static_cast<std::size_t>(cache), stream);
    put(line);
    if (!(line["ratio"].get<double>() >= kGoal)) ++below;
  }
  fmt::print("{} kernels and shapes measured, {} below {} of the copy's bandwidth\n", all.size(), below, kGoal);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  bool plan = false, quick = false;
  std::string path;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--plan")
      plan = true;
    else if (word == "--quick")
      quick = true;
    else if (word == "--out" && i + 1 < argc)
      path = argv[++i];
    else {
      fmt::print(stderr, "norma_gpu_speed: unknown argument '{}'; known: --plan --quick --out FILE\n", word);
      return 2;
    }
  }
  try {
    return run(plan, quick, path);
  } catch (const std::exception& e) {
    fmt::print(stderr, "norma_gpu_speed: {}\n", e.what());
    return 1;
  }
}

// Runs a CUDA kernel's source on a CPU: every thread of a block is a fiber, blocks come one after the other.
//
// What it is for is the order of arithmetic, not speed: a kernel gives here the bits that it gives on a GPU wherever its
// operations are correctly rounded, under any sanitizer and debugger. Threads run alone between two meetings, so a
// missing barrier shows as another result under another ThreadOrder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>

namespace norma::cuda {

inline constexpr unsigned kWarp = 32;

/// A launch: blocks in one dimension, threads of each (a multiple of 32), bytes of shared memory for each block.
struct LaunchShape {
  unsigned blocks = 1;
  unsigned threads = kWarp;
  std::size_t shared_bytes = 0;
};

namespace host {

/// In which order the threads of a block take their turns.
enum class ThreadOrder : std::uint8_t { ascending, descending };

/// Threads that do not meet where they must: some of a block wait at a barrier, or some of a warp at a shuffle, while
/// another has finished or waits elsewhere.
struct DivergentBarrier : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Calls `body` once for each thread of the launch. Errors: DivergentBarrier; std::invalid_argument for a shape that no
/// GPU takes; what `body` throws. Thread-safe: each caller runs its own launch.
void execute(const LaunchShape& shape, const std::function<void()>& body,
             ThreadOrder order = ThreadOrder::ascending);

// What a thread sees and does; only inside of `body`.
unsigned thread_index();
unsigned block_index();
unsigned block_threads();
unsigned grid_blocks();
/// Shared memory of the block, aligned to 16 bytes; new garbage for each block, as on a GPU.
std::byte* shared_memory();
void block_barrier();
/// Gives `value` to the warp and takes that of lane `lane` of it. All 32 lanes take part.
std::uint64_t exchange(std::uint64_t value, unsigned lane);

}  // namespace host

}  // namespace norma::cuda

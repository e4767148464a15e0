// Fibers by Boost.Context, announced to the address sanitizer, which must know which stack is in use.
#include "impls/cuda/host_executor.hpp"

#include <array>
#include <boost/context/fiber.hpp>
#include <boost/context/preallocated.hpp>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define NORMA_FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NORMA_FIBER_ASAN 1
#endif
#endif
#ifdef NORMA_FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace norma::cuda::host {

namespace {

using boost::context::fiber;

constexpr unsigned kMostThreads = 1024;            // of a block, on every GPU so far
constexpr std::size_t kMostShared = 227 << 10;     // bytes of a block, compute capability 9.0
constexpr std::size_t kStack = std::size_t{128} << 10;
constexpr std::uint8_t kGarbage = 0xcd;

enum class State : std::uint8_t { ready, at_barrier, at_exchange, finished };

/// Thrown inside a fiber that a broken launch leaves behind.
struct Abandoned {};

/// The stack of a fiber, handed to Boost, which must not free it.
struct Borrowed {
  boost::context::stack_context allocate() { return {}; }
  void deallocate(boost::context::stack_context&) noexcept {}
};

struct Thread {
  unsigned index = 0;
  State state = State::ready;
  fiber resume_point;                     ///< of the thread while it waits, of the scheduler while it runs
  std::array<std::uint64_t, 2> given{};   ///< by turn: a lane may still read the last exchange's when the next begins
  unsigned turn = 0;
  void* fake_stack = nullptr;
};

struct Block {
  unsigned index = 0, blocks = 0;
  std::vector<Thread> threads;
  std::byte* stacks = nullptr;
  std::vector<std::byte> shared;
  const std::function<void()>* body = nullptr;
  Thread* running = nullptr;
  std::exception_ptr error;
  bool abandoned = false;
  // The scheduler's own stack, for the sanitizer.
  const void* scheduler_bottom = nullptr;
  std::size_t scheduler_size = 0;
  void* scheduler_fake_stack = nullptr;

  std::byte* stack_of(const Thread& t) { return stacks + std::size_t{t.index} * kStack; }
};

thread_local Block* current = nullptr;

/// Room for the largest block, kept from launch to launch and never filled: only what threads use is touched.
std::byte* stacks_of_this_thread() {
  thread_local const auto stacks = std::make_unique_for_overwrite<std::byte[]>(kMostThreads * kStack);
  return stacks.get();
}

void announce_to_thread([[maybe_unused]] Block& block, [[maybe_unused]] Thread& t) {
#ifdef NORMA_FIBER_ASAN
  __sanitizer_start_switch_fiber(&block.scheduler_fake_stack, block.stack_of(t), kStack);
#endif
}
void back_in_scheduler([[maybe_unused]] Block& block) {
#ifdef NORMA_FIBER_ASAN
  __sanitizer_finish_switch_fiber(block.scheduler_fake_stack, nullptr, nullptr);
#endif
}
void announce_to_scheduler([[maybe_unused]] Block& block, [[maybe_unused]] Thread& t, [[maybe_unused]] bool for_good) {
#ifdef NORMA_FIBER_ASAN
  __sanitizer_start_switch_fiber(for_good ? nullptr : &t.fake_stack, block.scheduler_bottom, block.scheduler_size);
#endif
}
void back_in_thread([[maybe_unused]] Block& block, [[maybe_unused]] Thread& t) {
#ifdef NORMA_FIBER_ASAN
  __sanitizer_finish_switch_fiber(t.fake_stack, &block.scheduler_bottom, &block.scheduler_size);
#endif
}

/// Leaves the running thread until the scheduler takes it up again.
void wait(State why) {
  Block& block = *current;
  Thread& t = *block.running;
  t.state = why;
  announce_to_scheduler(block, t, false);
  t.resume_point = std::move(t.resume_point).resume();
  back_in_thread(block, t);
  if (block.abandoned) throw Abandoned{};
}

fiber enter(Block& block, Thread& t, fiber scheduler) {
  back_in_thread(block, t);
  t.resume_point = std::move(scheduler);
  try {
    if (!block.abandoned) (*block.body)();
  } catch (const Abandoned&) {
  } catch (...) {
    if (!block.error) block.error = std::current_exception();
  }
  t.state = State::finished;
  announce_to_scheduler(block, t, true);
  return std::move(t.resume_point);
}

void run_thread(Block& block, Thread& t) {
  block.running = &t;
  t.state = State::ready;
  announce_to_thread(block, t);
  t.resume_point = std::move(t.resume_point).resume();
  back_in_scheduler(block);
}

std::string thread_name(const Block& block, const Thread& t) {
  return "thread " + std::to_string(t.index) + " of block " + std::to_string(block.index);
}

constexpr std::string_view kWhere[] = {"runs", "waits at a barrier", "waits at a shuffle", "has finished"};

[[noreturn]] void diverged(const Block& block, const Thread& a, const Thread& b) {
  throw DivergentBarrier(thread_name(block, a) + " " + std::string(kWhere[static_cast<std::size_t>(a.state)]) + " while " +
                         thread_name(block, b) + " " + std::string(kWhere[static_cast<std::size_t>(b.state)]));
}

/// The threads of a warp up to its next barrier, or its end.
void run_warp(Block& block, unsigned first, ThreadOrder order) {
  for (;;) {
    for (unsigned k = 0; k < kWarp; ++k) {
      run_thread(block, block.threads[first + (order == ThreadOrder::ascending ? k : kWarp - 1 - k)]);
      if (block.error) return;
    }
    const Thread& lead = block.threads[first];
    for (unsigned k = 1; k < kWarp; ++k)
      if (block.threads[first + k].state != lead.state &&
          (lead.state == State::at_exchange || block.threads[first + k].state == State::at_exchange))
        diverged(block, lead, block.threads[first + k]);
    if (lead.state != State::at_exchange) return;
  }
}

void run_block(Block& block, ThreadOrder order) {
  const auto count = static_cast<unsigned>(block.threads.size());
  for (;;) {
    for (unsigned w = 0; w < count; w += kWarp) {
      run_warp(block, order == ThreadOrder::ascending ? w : count - kWarp - w, order);
      if (block.error) return;
    }
    for (const Thread& t : block.threads)
      if (t.state != block.threads[0].state) diverged(block, block.threads[0], t);
    if (block.threads[0].state == State::finished) return;
  }
}

/// Lets every thread that still waits end, so that its stack is unwound.
void abandon(Block& block) {
  block.abandoned = true;
  for (Thread& t : block.threads)
    if (t.state != State::finished) run_thread(block, t);
}

}  // namespace

void execute(const LaunchShape& shape, const std::function<void()>& body, ThreadOrder order) {
  if (shape.threads == 0 || shape.threads > kMostThreads || shape.threads % kWarp != 0)
    throw std::invalid_argument("a block must have 32 to 1024 threads, a multiple of 32, got " +
                                std::to_string(shape.threads));
  if (shape.shared_bytes > kMostShared)
    throw std::invalid_argument("a block has at most " + std::to_string(kMostShared) + " bytes of shared memory, got " +
                                std::to_string(shape.shared_bytes));
  Block block;
  block.blocks = shape.blocks;
  block.body = &body;
  block.stacks = stacks_of_this_thread();
  if (current != nullptr) throw std::logic_error("a kernel on the host executor cannot launch another");
  current = &block;
  for (unsigned b = 0; b < shape.blocks && !block.error; ++b) {
    block.index = b;
    block.shared.assign(shape.shared_bytes, std::byte{kGarbage});
    block.threads.clear();
    block.threads.resize(shape.threads);
    for (unsigned i = 0; i < shape.threads; ++i) {
      Thread& t = block.threads[i];
      t.index = i;
      boost::context::stack_context stack;
      stack.size = kStack;
      stack.sp = block.stack_of(t) + kStack;
      t.resume_point = fiber(std::allocator_arg, boost::context::preallocated(stack.sp, kStack, stack), Borrowed{},
                             [&block, &t](fiber&& scheduler) { return enter(block, t, std::move(scheduler)); });
    }
    try {
      run_block(block, order);
    } catch (...) {
      if (!block.error) block.error = std::current_exception();
    }
    if (block.error) abandon(block);
  }
  current = nullptr;
  if (block.error) std::rethrow_exception(block.error);
}

unsigned thread_index() { return current->running->index; }
unsigned block_index() { return current->index; }
unsigned block_threads() { return static_cast<unsigned>(current->threads.size()); }
unsigned grid_blocks() { return current->blocks; }
std::byte* shared_memory() { return current->shared.data(); }

void block_barrier() { wait(State::at_barrier); }

std::uint64_t exchange(std::uint64_t value, unsigned lane) {
  Block& block = *current;
  Thread& t = *block.running;
  const unsigned turn = t.turn;
  t.given[turn] = value;
  t.turn = 1 - turn;
  wait(State::at_exchange);
  return block.threads[(t.index & ~(kWarp - 1)) + (lane & (kWarp - 1))].given[turn];
}

}  // namespace norma::cuda::host

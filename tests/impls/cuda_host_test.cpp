// CUDA kernels without a GPU: their source on the host executor gives the bits of the program that they declare.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include <cmath>
#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "impls/cuda/cuda.hpp"
#include "impls/cuda/host_executor.hpp"
#include "impls/cuda/layernorm_launch.hpp"
#include "impls/cuda/rmsnorm_launch.hpp"
#include "impls/emulate/emulate.hpp"

using namespace norma;
using cuda::host::ThreadOrder;

namespace {

constexpr FormatId kStorage[] = {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2};

std::vector<Implementation*> host_kernels() {
  std::vector<Implementation*> kernels;
  for (Implementation* kernel : cuda_implementations())
    if (kernel->name().starts_with("cuda_host.")) kernels.push_back(kernel);
  return kernels;
}

/// Finite values of both signs, magnitudes log-uniform in [2^low, 2^high), in T.
Tensor ordinary(FormatId format, Shape shape, double low, double high, std::uint64_t seed) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  std::mt19937_64 bits(seed);
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const double u = std::ldexp(static_cast<double>(bits() >> 11), -53);
    const double sign = (bits() & 1) != 0 ? -1 : 1;
    t.set_code(i, encode(format, sign * std::exp2(low + (high - low) * u), Overflow::saturate));
  }
  return t;
}

/// Codes drawn at random: NaN, Inf, subnormals and all.
Tensor any_bits(FormatId format, Shape shape, std::uint64_t seed) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  std::mt19937_64 bits(seed);
  const std::uint64_t mask = (std::uint64_t{2} << (format_of(format).code_bits - 1)) - 1;
  for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, bits() & mask);
  return t;
}

std::int64_t differing(const Tensor& a, const Tensor& b) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < a.size(); ++i)
    if (a.code(i) != b.code(i) && !(is_nan_code(a.format, a.code(i)) && is_nan_code(b.format, b.code(i)))) ++count;
  return count;
}

void expect_ideal(Implementation& kernel, const Tensors& inputs, double eps) {
  ImplCall call;
  call.norm = kernel.accepts_norm("rmsnorm") ? "rmsnorm" : "layernorm";
  call.inputs = &inputs;
  call.numbers["eps"] = eps;
  if (kernel.name().find("one_plus") != std::string::npos) {
    call.numbers["weight_offset"] = 1;
    if (!inputs.contains("weight")) {
      CHECK_THROWS_AS(kernel.run(call), ImplSkipped);
      return;
    }
  }
  const auto program = kernel.declared_program(call);
  REQUIRE(program.has_value());
  const Tensors ideal = emulate(*program, inputs, call.numbers);
  const Tensors got = kernel.run(call);
  CAPTURE(kernel.name(), name_of(inputs.at("x").format), shape_text(inputs.at("x").shape), print_program(*program));
  CHECK(differing(got.at("y"), ideal.at("y")) == 0);
}

/// x with no parameter, with a weight, and where the kernel takes one with a bias; in x's format and in fp32.
std::vector<Tensors> calls_on(const Tensor& x, bool biases, std::uint64_t seed) {
  std::vector<Tensors> calls(1);
  calls[0].emplace("x", x);
  for (const FormatId format : {x.format, FormatId::fp32})
    for (int which = 1; which < (biases ? 4 : 2); ++which) {
      Tensors inputs = calls[0];
      if ((which & 1) != 0) inputs.emplace("weight", ordinary(format, {x.cols()}, -2, 2, seed));
      if ((which & 2) != 0) inputs.emplace("bias", ordinary(format, {x.cols()}, -2, 2, seed + 1));
      calls.push_back(std::move(inputs));
    }
  return calls;
}

}  // namespace

TEST_CASE("kernels on the host executor give the bits of the program they declare", "[cuda]") {
  const FormatId format = kStorage[static_cast<std::size_t>(GENERATE(range(0, 5)))];
  for (const std::int64_t cols : {1, 7, 16, 33, 129, 256, 1000, 4096, 4112}) {
    const auto seed = static_cast<std::uint64_t>(cols);
    const Tensor x = cols == 33 ? any_bits(format, {5, cols}, seed) : ordinary(format, {5, cols}, -6, 4, seed);
    for (Implementation* kernel : host_kernels())
      for (const Tensors& inputs : calls_on(x, kernel->accepts_norm("layernorm"), seed + 1))
        expect_ideal(*kernel, inputs, 1e-6);
  }
}

TEST_CASE("the order in which threads take their turns changes no bit", "[cuda]") {
  constexpr std::uint32_t kRows = 3, kCols = 6000;
  const Tensor x = ordinary(FormatId::bf16, {kRows, kCols}, -6, 4, 1), w = ordinary(FormatId::bf16, {kCols}, -1, 1, 2);
  const auto same_in_both_orders = [&](const auto& launch) {
    std::vector<Tensor> got;
    for (const ThreadOrder order : {ThreadOrder::ascending, ThreadOrder::descending}) {
      got.push_back(Tensor::zeros(FormatId::bf16, x.shape));
      launch(got.back().bytes.data(), cuda::LaunchOptions{.order = order});
    }
    CHECK(differing(got[0], got[1]) == 0);
  };
  for (const cuda::RowThreads row : {cuda::RowThreads::warp, cuda::RowThreads::block}) {
    same_in_both_orders([&](std::byte* y, const cuda::LaunchOptions& options) {
      cuda::launch_rmsnorm_on_host({.x = x.bytes.data(), .weight = w.bytes.data(), .y = y, .format = FormatId::bf16,
                                    .weight_fp32 = false, .rows = kRows, .cols = kCols, .eps = 1e-6f,
                                    .tail = cuda::RmsTail::once, .row = row, .approximate_root = false},
                                   options);
    });
    for (const auto statistic : {cuda::Statistic::two_pass, cuda::Statistic::welford, cuda::Statistic::one_pass})
      same_in_both_orders([&](std::byte* y, const cuda::LaunchOptions& options) {
        cuda::launch_layernorm_on_host({.x = x.bytes.data(), .weight = w.bytes.data(), .bias = w.bytes.data(), .y = y,
                                        .format = FormatId::bf16, .parameters_fp32 = false, .rows = kRows,
                                        .cols = kCols, .eps = 1e-6f, .statistic = statistic,
                                        .tail = cuda::LayerNormTail::once, .row = row},
                                       options);
      });
  }
}

TEST_CASE("a block's threads see their indices, its shared memory and each other's values", "[cuda]") {
  std::set<unsigned> seen;
  cuda::host::execute({.blocks = 2, .threads = 64, .shared_bytes = 64 * sizeof(unsigned)}, [&] {
    const unsigned t = cuda::host::thread_index();
    auto* shared = reinterpret_cast<unsigned*>(cuda::host::shared_memory());
    shared[t] = 100 * cuda::host::block_index() + t;
    cuda::host::block_barrier();
    seen.insert(shared[63 - t]);
    const auto other = cuda::host::exchange(t, (t + 1) % 32);
    CHECK(other == t / 32 * 32 + (t + 1) % 32);
    CHECK(cuda::host::block_threads() == 64);
    CHECK(cuda::host::grid_blocks() == 2);
  });
  CHECK(seen.size() == 128);
}

TEST_CASE("a barrier that a thread does not reach is an error that names both", "[cuda]") {
  const auto launch = [](const std::function<void()>& body) {
    cuda::host::execute({.blocks = 1, .threads = 64, .shared_bytes = 0}, body);
  };
  CHECK_THROWS_AS(launch([] {
                    if (cuda::host::thread_index() < 32) cuda::host::block_barrier();
                  }),
                  cuda::host::DivergentBarrier);
  CHECK_THROWS_AS(launch([] {
                    if (cuda::host::thread_index() % 2 == 0) cuda::host::exchange(0, 0);
                    else cuda::host::block_barrier();
                  }),
                  cuda::host::DivergentBarrier);
  CHECK_THROWS_AS(launch([] {
                    if (cuda::host::thread_index() == 5) return;
                    cuda::host::exchange(0, 0);
                  }),
                  cuda::host::DivergentBarrier);
  try {
    launch([] {
      if (cuda::host::thread_index() != 63) cuda::host::block_barrier();
    });
    FAIL("it passed");
  } catch (const cuda::host::DivergentBarrier& e) {
    CHECK(std::string(e.what()) ==
          "thread 0 of block 0 waits at a barrier while thread 63 of block 0 has finished");
  }
  CHECK_THROWS_AS(cuda::host::execute({.blocks = 1, .threads = 33, .shared_bytes = 0}, [] {}), std::invalid_argument);
}

TEST_CASE("an exception of a kernel's thread ends its launch", "[cuda]") {
  CHECK_THROWS_AS(cuda::host::execute({.blocks = 2, .threads = 64, .shared_bytes = 0},
                                      [] {
                                        if (cuda::host::thread_index() == 40) throw std::domain_error("x");
                                        cuda::host::block_barrier();
                                      }),
                  std::domain_error);
}

TEST_CASE("without a device a CUDA kernel says so and gives nothing", "[cuda]") {
  for (Implementation* kernel : cuda_implementations()) {
    if (!kernel->name().starts_with("cuda.")) continue;
    Tensors inputs;
    inputs.emplace("x", ordinary(FormatId::fp32, {2, 64}, -1, 1, 3));
    ImplCall call;
    call.norm = kernel->accepts_norm("rmsnorm") ? "rmsnorm" : "layernorm";
    call.inputs = &inputs;
    call.numbers["eps"] = 1e-6;
    try {
      const Tensors got = kernel->run(call);
      const auto program = kernel->declared_program(call);  // there is one: then it must be right
      if (choice_ulp(*program) == 0) CHECK(differing(got.at("y"), emulate(*program, inputs, call.numbers).at("y")) == 0);
    } catch (const ImplSkipped& e) {
      CHECK(std::string(e.what()).size() > 20);
    }
  }
}

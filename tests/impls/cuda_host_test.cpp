// CUDA kernels without a GPU: their source on the host executor gives the bits of the program that they declare.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include <cmath>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "impls/cuda/cast_launch.hpp"
#include "impls/cuda/host_executor.hpp"
#include "impls/cuda/layernorm_launch.hpp"
#include "impls/cuda/rmsnorm_launch.hpp"
#include "tests/impls/cuda_kernels.hpp"

using namespace norma;
using namespace norma::test;
using cuda::host::ThreadOrder;

TEST_CASE("kernels on the host executor give the bits of the program they declare", "[cuda]") {
  const FormatId format = kStorage[static_cast<std::size_t>(GENERATE(range(0, 5)))];
  for (const std::int64_t cols : {1, 7, 16, 33, 129, 256, 1000, 4096, 4112}) expect_ideals("cuda_host.", format, 3, cols);
}

TEST_CASE("casts on the host executor are those of the formats", "[cuda]") {
  for (const FormatId format : {FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2}) {
    const Tensor codes = any_bits(format, {4096}, 5), values = any_bits(FormatId::fp32, {4096}, 6);
    Tensor wide = Tensor::zeros(FormatId::fp32, {4096}), narrow = Tensor::zeros(format, {4096});
    cuda::launch_cast(cuda::SideKind::host,
                      {.from = codes.bytes.data(), .to = wide.bytes.data(), .format = format, .to_fp32 = true, .count = 4096});
    cuda::launch_cast(cuda::SideKind::host, {.from = values.bytes.data(), .to = narrow.bytes.data(), .format = format,
                                             .to_fp32 = false, .count = 4096});
    const Overflow overflow = format_of(format).storage_bits == 8 ? Overflow::saturate : Overflow::ieee;
    for (std::int64_t i = 0; i < 4096; ++i) {
      if (!is_nan_code(format, codes.code(i))) CHECK(wide.value(i) == codes.value(i));
      if (!std::isnan(values.value(i))) CHECK(narrow.code(i) == encode(format, values.value(i), overflow));
    }
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
  try {
    cuda::memory_of(cuda::SideKind::gpu);
    SUCCEED("there is a device: the tests labelled gpu judge it");
    return;
  } catch (const ImplSkipped& e) {
    CHECK(std::string(e.what()).size() > 20);
  }
  const Tensor x = ordinary(FormatId::fp32, {2, 64}, -1, 1, 3);
  for (Implementation* kernel : kernels_named("cuda.")) {
    const Tensors inputs = calls_on(x, *kernel, 4).back();
    CHECK_THROWS_AS(kernel->run(kernel_call(*kernel, inputs)), ImplSkipped);
  }
}

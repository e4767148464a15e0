// GroupNorm, InstanceNorm and BatchNorm as CUDA kernels on the host executor: shapes that reach every way through them.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "impls/cuda/channel_norm_launch.hpp"
#include "tests/impls/cuda_channels.hpp"

using namespace norma;
using namespace norma::test;
using cuda::host::ThreadOrder;

TEST_CASE("norms over channels give their program's bits whatever the shape", "[cuda]") {
  expect_channel_ideals("cuda_host.", kStorage[static_cast<std::size_t>(GENERATE(range(0, 5)))]);
}

TEST_CASE("long rows over channels give their program's bits, slice by slice", "[cuda]") {
  const auto slices_of = [](std::uint32_t rows, std::uint32_t cols) {
    return cuda::run_slices({.rows = rows, .cols = cols});
  };
  CHECK(slices_of(2, 16390) == 2);
  CHECK(slices_of(2, 2 * 9 * 2003) == 4);
  CHECK(slices_of(1, 530000) == 64);
  CHECK(cuda::column_slices({.sets = 1, .rows = 9 * 2003, .channels = 4}) == 32);
  expect_long_channel_ideals("cuda_host.");
}

TEST_CASE("a norm over channels changes no bit with the order in which threads take their turns", "[cuda]") {
  constexpr std::uint32_t kImages = 2, kWidth = 6, kPixels = 1100;
  const Tensor x = ordinary(FormatId::bf16, {kImages, kWidth, kPixels}, -6, 4, 1);
  const Tensor w = ordinary(FormatId::fp32, {kWidth}, -1, 1, 2);
  const auto same_in_both_orders = [&](const auto& launch) {
    for (const auto statistic : {cuda::Statistic::two_pass, cuda::Statistic::welford, cuda::Statistic::one_pass}) {
      std::vector<Tensor> got, mean, variance;
      for (const ThreadOrder order : {ThreadOrder::ascending, ThreadOrder::descending}) {
        got.push_back(Tensor::zeros(FormatId::bf16, x.shape));
        mean.push_back(Tensor::zeros(FormatId::fp32, {kWidth}));
        variance.push_back(Tensor::zeros(FormatId::fp32, {kWidth}));
        std::vector<std::byte> partials(std::size_t{1} << 16);
        launch({.x = x.bytes.data(),
                .weight = w.bytes.data(),
                .bias = w.bytes.data(),
                .mean = w.bytes.data(),
                .variance = w.bytes.data(),
                .y = got.back().bytes.data(),
                .new_mean = mean.back().bytes.data(),
                .new_variance = variance.back().bytes.data(),
                .partials = partials.data(),
                .format = FormatId::bf16,
                .parameters_fp32 = true,
                .eps = 1e-5f,
                .momentum = 0.1f,
                .statistic = statistic,
                .from = cuda::MomentsFrom::slices,
                .slices = 4,
                .approximate_root = false},
               cuda::LaunchOptions{.order = order});
      }
      CHECK(differing(got[0], got[1]) == 0);
      CHECK(differing(mean[0], mean[1]) == 0);
      CHECK(differing(variance[0], variance[1]) == 0);
    }
  };
  // BatchNorm, as a channel's runs and as columns.
  same_in_both_orders([](cuda::ChannelNormLaunch l, const cuda::LaunchOptions& options) {
    for (const cuda::MomentsFrom from : {cuda::MomentsFrom::block, cuda::MomentsFrom::slices}) {
      l.from = from;
      cuda::launch_channel_runs_on_host(l,
                                        {.rows = kWidth,
                                         .cols = kImages * kPixels,
                                         .set = kWidth,
                                         .run = kPixels,
                                         .width = 4,
                                         .each = 1,
                                         .positions = kPixels,
                                         .channel_by = cuda::ChannelBy::row,
                                         .per_row = kPixels,
                                         .per_set = 0,
                                         .apart = kWidth * kPixels},
                                        options);
    }
  });
  same_in_both_orders([](const cuda::ChannelNormLaunch& l, const cuda::LaunchOptions& options) {
    cuda::launch_channel_columns_on_host(l, {.sets = 1, .rows = kImages * kPixels, .channels = kWidth}, options);
  });
}

TEST_CASE("a norm over channels says which tensors and shapes it does not take", "[cuda]") {
  const auto said = [](const Tensors& inputs, std::string_view name) -> std::string {
    for (Implementation* kernel : channel_kernels("cuda_host."))
      if (kernel->name() == name) {
        try {
          kernel->run(kernel_call(*kernel, inputs));
          return "";
        } catch (const ImplSkipped& e) {
          return e.what();
        }
      }
    return "there is no such kernel";
  };
  const std::string group = "cuda_host.groupnorm.block_per_row.two_pass",
                    batch = "cuda_host.batchnorm.train.slices.welford";
  const Tensor x = ordinary(FormatId::bf16, {2, 4, 3}, -1, 1, 1), four = ordinary(FormatId::fp32, {4}, -1, 1, 2);
  CHECK(said({{"x", x}, {"weight", four}}, group).empty());
  CHECK(said({{"x", ordinary(FormatId::bf16, {2, 3, 3}, -1, 1, 1)}}, group) ==
        "groups is 2.000000 but must be a whole number that divides the 3 channels of x");
  CHECK(said({{"x", ordinary(FormatId::bf16, {6}, -1, 1, 1)}}, batch) ==
        "x has shape 6 but a program with 'view batch' takes samples and channels, [N, C, ...]");
  CHECK(said({{"x", x}, {"weight", ordinary(FormatId::fp32, {2, 4}, -1, 1, 2)}}, group) ==
        "weight must have 4 values, got shape 2x4");
  CHECK(said({{"x", x}, {"running_mean", four}, {"weight", ordinary(FormatId::bf16, {4}, -1, 1, 2)}}, batch) ==
        "weight, bias and running statistics must have one format, got bf16 and fp32");
  CHECK(said({{"x", x}, {"running_mean", four}}, "cuda_host.instancenorm.slices.two_pass") ==
        "this kernel takes no tensor 'running_mean', only x, weight and bias");
  CHECK(said({{"x", x}, {"running_mean", four}}, "cuda_host.batchnorm.eval") == "there is no tensor 'running_var'");
}

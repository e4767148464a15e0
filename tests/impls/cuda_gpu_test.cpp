// CUDA kernels on a GPU: their bits against the programs they declare, their conversions against the formats.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include <cmath>
#include <cstdint>

#include "impls/cuda/cast_launch.hpp"
#include "tests/impls/cuda_channels.hpp"

using namespace norma;
using namespace norma::test;

namespace {

/// What the GPU makes of `from`.
Tensor cast_on_gpu(const Tensor& from, FormatId format, bool to_fp32) {
  Tensor to = Tensor::zeros(to_fp32 ? FormatId::fp32 : format, from.shape);
  const auto memory = cuda::memory_of(cuda::SideKind::gpu);
  cuda::launch_cast(cuda::SideKind::gpu, {.from = memory->in(from.bytes), .to = memory->out(to.bytes), .format = format,
                                          .to_fp32 = to_fp32, .count = static_cast<std::uint32_t>(from.size())});
  memory->finish();
  return to;
}

}  // namespace

TEST_CASE("kernels on a GPU give the bits of the program they declare", "[gpu]") {
  const FormatId format = kStorage[static_cast<std::size_t>(GENERATE(range(0, 5)))];
  for (const std::int64_t cols : {1, 7, 16, 33, 129, 256, 1000, 3072, 4096, 4112, 32768, 65536})
    expect_ideals("cuda.", format, cols > 8192 ? 3 : 37, cols);
}

TEST_CASE("norms over channels on a GPU give the bits of the program they declare", "[gpu]") {
  expect_channel_ideals("cuda.", kStorage[static_cast<std::size_t>(GENERATE(range(0, 5)))]);
}
TEST_CASE("long rows over channels on a GPU give the bits of the program they declare", "[gpu]") {
  expect_long_channel_ideals("cuda.");
}

TEST_CASE("a GPU's casts are those of the formats: every code, and fp32 values of every exponent", "[gpu]") {
  for (const FormatId format : {FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2}) {
    CAPTURE(name_of(format));
    const std::int64_t all = std::int64_t{1} << format_of(format).code_bits;
    Tensor codes = Tensor::zeros(format, {all});
    for (std::int64_t i = 0; i < all; ++i) codes.set_code(i, static_cast<std::uint64_t>(i));
    const Tensor wide = cast_on_gpu(codes, format, true);
    std::int64_t differ = 0;
    for (std::int64_t i = 0; i < all; ++i)
      if (is_nan_code(format, codes.code(i)) ? !std::isnan(wide.value(i)) : wide.value(i) != codes.value(i)) ++differ;
    CHECK(differ == 0);

    const Tensor values = any_bits(FormatId::fp32, {std::int64_t{1} << 22}, 11);
    const Tensor narrow = cast_on_gpu(values, format, false);
    const Overflow overflow = format_of(format).storage_bits == 8 ? Overflow::saturate : Overflow::ieee;
    differ = 0;
    for (std::int64_t i = 0; i < values.size(); ++i) {
      const double value = values.value(i);
      if (std::isnan(value) ? !is_nan_code(format, narrow.code(i)) : narrow.code(i) != encode(format, value, overflow))
        ++differ;
    }
    CHECK(differ == 0);
  }
}

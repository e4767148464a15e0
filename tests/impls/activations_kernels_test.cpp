// Kernels of activations and softmax on the host executor: what they make of rows that are not ordinary, and of every
// magnitude; how far their exponentials are from e^x.
#include <catch2/catch_test_macros.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "impls/cuda/functions.hpp"
#include "impls/emulate/arithmetic.hpp"
#include "tests/impls/cuda_kernels.hpp"

namespace norma::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::string_view kNorms[] = {"cuda_host.silu", "cuda_host.gelu", "cuda_host.softmax"};

Tensor tensor_of(FormatId format, Shape shape, const std::vector<double>& values) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i)
    t.set_code(i, encode(format, values[static_cast<std::size_t>(i) % values.size()], Overflow::saturate_finite));
  return t;
}

std::int64_t ulps_between(float a, float b) {
  const auto ordered = [](float v) {
    const auto bits = static_cast<std::int64_t>(std::bit_cast<std::uint32_t>(v));
    return bits >> 31 != 0 ? -(bits & 0x7fffffff) : bits;
  };
  return std::abs(ordered(a) - ordered(b));
}

float rounded(Op op, float x) {
  return static_cast<float>(rounded_op(op, static_cast<double>(x), 0, 0, FormatId::fp32, Overflow::ieee));
}

/// Every 4099th fp32 number between two of one sign.
template <class Check>
void for_numbers(float from, float to, const Check& check) {
  const auto first = std::bit_cast<std::uint32_t>(from), last = std::bit_cast<std::uint32_t>(to);
  for (std::uint64_t bits = first; bits <= last; bits += 4099)
    check(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
}

}  // namespace

TEST_CASE("activations and softmax have their program's bits at every magnitude, and where x is not finite", "[cuda]") {
  // Overflow and underflow of e^x, saturation of erf and tanh, ties of n, zeros.
  const std::vector<double> values{0,     -0.0,   0.5,   -0.5,       88.7,        -88.7,     88.9,     -88.9,
                                   103.9, -103.9, 104.5, -104.5,     700,         -700,      0x1p-149, -0x1p-126,
                                   5.5,   -5.5,   -13.1, 0.34657359, -0.34657359, 1.0397208, 3e38,     -3e38};
  for (const FormatId format : kStorage)
    for (const std::string_view prefix : kNorms)
      for (Implementation* kernel : kernels_named(prefix)) {
        CAPTURE(kernel->name(), name_of(format));
        expect_ideal(*kernel, {{"x", tensor_of(format, {3, 24}, values)}});
        for (const double special : {kInfinity, -kInfinity, std::nan("")})
          for (const std::int64_t cols : {1, 5, 64}) {
            expect_ideal(*kernel, {{"x", tensor_of(format, {2, cols}, {special})}});
            expect_ideal(*kernel, {{"x", tensor_of(format, {3, cols}, {1.5, special, -2, 0.25, 3, -0.75, 2})}});
          }
      }
}

TEST_CASE("softmax kernels follow the rules for rows that are not finite", "[cuda]") {
  for (Implementation* kernel : kernels_named("cuda_host.softmax")) {
    CAPTURE(kernel->name());
    const auto row = [&](std::vector<double> values) {
      const Tensors inputs{{"x", tensor_of(FormatId::fp32, {1, static_cast<std::int64_t>(values.size())}, values)}};
      const Tensor y = kernel->run(kernel_call(*kernel, inputs)).at("y");
      std::vector<double> got;
      for (std::int64_t i = 0; i < y.size(); ++i) got.push_back(y.value(i));
      return got;
    };
    CHECK(row({-kInfinity, 2, -kInfinity, 2}) == std::vector<double>{0, 0.5, 0, 0.5});
    for (const std::vector<double>& values :
         {std::vector<double>{-kInfinity, -kInfinity}, {1, kInfinity, 2}, {1, std::nan(""), 2}})
      for (const double y : row(values)) CHECK(std::isnan(y));
  }
}

TEST_CASE("the C library's exp, tanh and erf are as near as the kernels' programs say", "[cuda]") {
  std::int64_t most = 0;
  const auto compare = [&](Op op, float got, float x) { most = std::max(most, ulps_between(got, rounded(op, x))); };
  for (const float sign : {1.0f, -1.0f}) {
    for_numbers(0x1p-30f, 88.0f, [&](float x) { compare(Op::exp, cuda::exp_library(sign * x), sign * x); });
    for_numbers(0x1p-30f, 12.0f, [&](float x) {
      compare(Op::tanh, cuda::tanh_library(sign * x), sign * x);
      compare(Op::erf, cuda::erf_library(sign * x), sign * x);
    });
  }
  CHECK(most <= 2);
}

TEST_CASE("the exponential of explicit steps errs by less than two ulp", "[cuda]") {
  std::int64_t most = 0, unequal = 0, count = 0;
  const auto compare = [&](float x) {
    const std::int64_t ulps = ulps_between(cuda::exp_by_steps(x), rounded(Op::exp, x));
    most = std::max(most, ulps);
    unequal += ulps != 0 ? 1 : 0;
    ++count;
  };
  for_numbers(0x1p-30f, 100.0f, compare);
  for_numbers(-0x1p-30f, -110.0f, compare);
  CAPTURE(most, unequal, count);
  CHECK(most == 1);  // measured, at these arguments
  CHECK(unequal < count / 5);
  CHECK(cuda::exp_by_steps(std::numeric_limits<float>::infinity()) == std::numeric_limits<float>::infinity());
  CHECK(cuda::exp_by_steps(-std::numeric_limits<float>::infinity()) == 0);
  CHECK(std::isnan(cuda::exp_by_steps(std::nanf(""))));
  CHECK(cuda::exp_by_steps(0) == 1);
}

}  // namespace norma::test

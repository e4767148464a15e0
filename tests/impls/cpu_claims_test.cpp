// The native kernels against the truth: the errors they promise, and that they compute their norms at all.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include <optional>

#include "cpu_calls.hpp"
#include "largest_ulp.hpp"

using namespace norma;

namespace {

double largest_ulp(const NormDef& norm, const KernelCall& made, const Tensor& got, const std::string& output = "y") {
  return norma::largest_ulp(norm, made.norm_call(), got, output);
}

std::optional<double> claim_of(const Implementation& kernel, const KernelCall& made) {
  return kernel.declares(made.call).claim_ulp;
}

}  // namespace

TEST_CASE("a native kernel keeps its claim", "[cpu]") {
  const FormatId format = kStorage[static_cast<std::size_t>(GENERATE(range(0, 8)))];
  int claims = 0;
  for (Implementation* kernel : cpu_implementations())
    for (const std::int64_t cols : {1, 2, 7, 16, 33, 129, 768}) {
      const auto seed = static_cast<std::uint64_t>(cols) + 100;
      const Shape shape = shape_for(*kernel, cols);
      for (const Tensor& x : {ordinary(format, shape, -3, 3, seed), ordinary(format, shape, -1, 0, seed),
                              ordinary(format, shape, -20, 4, seed), ordinary(format, shape, -4, 0, seed, 16)})
        for (const KernelCall& call : calls_on(*kernel, x, seed)) {
          const auto claim = claim_of(*kernel, call);
          if (!claim) continue;
          ++claims;
          CAPTURE(kernel->name(), name_of(format), shape_text(shape), call.inputs.size());
          CHECK(*claim >= 0.5);
          CHECK(largest_ulp(norm_of(*kernel), call, kernel->run(call.call).at("y")) <= *claim);
        }
    }
  CHECK(claims > 1000);
}

TEST_CASE("claims are near what is measured where nothing cancels", "[cpu]") {
  const Tensor x = ordinary(FormatId::bf16, {4, 768}, -1, 1, 5);
  for (const char* name : {"cpu.rmsnorm.lanes", "cpu.rmsnorm.double_accumulator", "cpu.layernorm.two_pass_double"}) {
    Implementation& kernel = kernel_named(name);
    const KernelCall call = calls_on(kernel, x, 6)[0];
    CAPTURE(name);
    CHECK(claim_of(kernel, call).value() < 0.51);
    CHECK(largest_ulp(norm_of(kernel), call, kernel.run(call.call).at("y")) > 0.499);
  }
}

TEST_CASE("the claims of RMSNorm are those of the counting lemma", "[cpu]") {
  const Tensors inputs{{"x", ordinary(FormatId::bf16, {1, 3072}, -1, 1, 5)},
                       {"weight", ordinary(FormatId::bf16, {3072}, -1, 1, 6)}};
  const auto claim = [&](std::string_view name) {
    return claim_of(kernel_named(name), KernelCall(kernel_named(name), inputs)).value();
  };
  // 0.5 + (h/2 + 5) 2^-24 2^8 with h = 3071, and h = 191 + 15 in 16 lanes; |y| < 2^8 ulp(y) but for one part in 500.
  CHECK(claim("cpu.rmsnorm.sequential") > 0.5 + 1540.5 * 0x1p-16 * 0.998);
  CHECK(claim("cpu.rmsnorm.sequential") < 0.5 + 1541.5 * 0x1p-16);
  CHECK(claim("cpu.rmsnorm.lanes") > 0.5 + 108 * 0x1p-16 * 0.998);
  CHECK(claim("cpu.rmsnorm.lanes") < 0.5 + 109 * 0x1p-16);
  CHECK(claim("cpu.rmsnorm.double_accumulator") < 0.5 + 3.6 * 0x1p-16);
  CHECK(claim("cpu.rmsnorm.lanes.cast_before_weight") > 1.9);  // two casts, and the binade's edge
}

TEST_CASE("a native kernel claims nothing where a step may overflow or underflow", "[cpu]") {
  for (const auto& [low, high] : {std::pair{100.0, 120.0}, std::pair{-120.0, -100.0}})
    for (const char* name : {"cpu.rmsnorm.sequential", "cpu.rmsnorm.lanes", "cpu.rmsnorm.double_accumulator",
                             "cpu.layernorm.two_pass", "cpu.layernorm.welford", "cpu.layernorm.two_pass_double"}) {
      Implementation& kernel = kernel_named(name);
      const KernelCall call(kernel, {{"x", ordinary(FormatId::fp32, {1, 64}, low, high, 1)}}, 0);
      CAPTURE(name, low);
      CHECK(claim_of(kernel, call).has_value() == (std::string(name).find("double") != std::string::npos));
    }
}

TEST_CASE("a step inside that overflows takes the claim away", "[cpu]") {
  // y = +-1e38, r = 1e3: alpha = r w is beyond fp32, (x - m) r w is not.
  Tensors inputs{{"x", Tensor::zeros(FormatId::fp32, {1, 2, 2})}, {"weight", constant(FormatId::fp32, {2}, 1e38)}};
  for (std::int64_t i = 0; i < 4; ++i)
    inputs.at("x").set_code(i, encode(FormatId::fp32, i < 2 ? 1e-3 : -1e-3, Overflow::ieee));
  for (const auto& [name, claims] :
       {std::pair{"cpu.groupnorm.two_pass", true}, std::pair{"cpu.groupnorm.two_pass.alpha_beta", false}}) {
    Implementation& kernel = kernel_named(name);
    KernelCall call(kernel, inputs, 0);
    call.call.numbers["groups"] = 1;
    CAPTURE(name);
    CHECK(claim_of(kernel, call).has_value() == claims);
    CHECK((largest_ulp(norm_of(kernel), call, kernel.run(call.call).at("y")) < 1e9) == claims);
  }
}

TEST_CASE("a NaN in a row without statistics leaves the claim on the rest", "[cpu]") {
  Implementation& kernel = kernel_named("cpu.modulate.eager");
  KernelCall call = calls_on(kernel, ordinary(FormatId::bf16, {1, 64}, -3, 3, 8), 9)[1];
  call.inputs.at("x").set_code(5, format_of(FormatId::bf16).nan_code());
  const double measured = largest_ulp(norm_of(kernel), call, kernel.run(call.call).at("y"));
  CHECK(measured > 1);
  CHECK(claim_of(kernel, call).value() >= measured);
}

TEST_CASE("E[x^2] - mean^2 claims nothing once the mean is large, and would err beyond any claim", "[cpu]") {
  Implementation& one = kernel_named("cpu.layernorm.one_pass");
  Implementation& two = kernel_named("cpu.layernorm.two_pass");
  const auto call = [](Implementation& kernel, double offset) {
    return KernelCall(kernel, {{"x", ordinary(FormatId::fp32, {2, 256}, -1, 0, 4, offset)}});
  };
  CHECK(claim_of(one, call(one, 0)).has_value());
  CHECK(claim_of(one, call(one, 10)).has_value());
  for (const double offset : {3000.0, 1e4, 1e5}) {
    CAPTURE(offset);
    CHECK_FALSE(claim_of(one, call(one, offset)).has_value());
    if (offset > 3000)
      CHECK(largest_ulp(norm_of(one), call(one, offset), one.run(call(one, offset).call).at("y")) > 0x1p20);
    const auto claim = claim_of(two, call(two, offset));
    if (claim) CHECK(largest_ulp(norm_of(two), call(two, offset), two.run(call(two, offset).call).at("y")) <= *claim);
  }
  CHECK(claim_of(two, call(two, 3000)).has_value());
}

TEST_CASE("running statistics are the norm's, to a few roundings", "[cpu]") {
  for (Implementation* kernel : cpu_implementations()) {
    const std::string name = kernel->name();
    if (name.find("instancenorm") == std::string::npos && name.find("batchnorm.train") == std::string::npos) continue;
    if (name.find("one_pass") != std::string::npos) continue;
    CAPTURE(name);
    const Tensor x = ordinary(FormatId::bf16, {3, 5, 4, 7}, -2, 2, 21, 1);
    const KernelCall call = calls_on(*kernel, x, 22)[2];
    const Tensors got = kernel->run(call.call);
    for (const std::string output : {"running_mean", "running_var"}) {
      REQUIRE(got.contains(output));
      CHECK(got.at(output).format == FormatId::fp32);
      CHECK(got.at(output).shape == Shape{5});
      CHECK(largest_ulp(norm_of(*kernel), call, got.at(output), output) <= 64);
    }
  }
}

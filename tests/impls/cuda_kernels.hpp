// What the tests of CUDA kernels share, on a GPU and on the host executor.
#pragma once

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "impls/cuda/cuda.hpp"
#include "impls/emulate/emulate.hpp"
#include "tests/impls/tensors.hpp"

namespace norma::test {

inline constexpr FormatId kStorage[] = {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2};

inline std::vector<Implementation*> kernels_named(std::string_view prefix) {
  std::vector<Implementation*> kernels;
  for (Implementation* kernel : cuda_implementations())
    if (kernel->name().starts_with(prefix)) kernels.push_back(kernel);
  return kernels;
}

/// A call that the kernel takes, but for what `inputs` lacks.
inline ImplCall kernel_call(const Implementation& kernel, const Tensors& inputs) {
  ImplCall call;
  call.norm = kernel.accepts_norm("rmsnorm") ? "rmsnorm" : "layernorm";
  call.inputs = &inputs;
  call.numbers["eps"] = 1e-6;
  if (kernel.name().find("one_plus") != std::string::npos) call.numbers["weight_offset"] = 1;
  return call;
}

/// The output has the bits of the declared program's ideal; every row of it, for one choice of each approximate root.
inline void expect_ideal(Implementation& kernel, const Tensors& inputs) {
  const ImplCall call = kernel_call(kernel, inputs);
  if (call.numbers.contains("weight_offset") && !inputs.contains("weight")) {
    CHECK_THROWS_AS(kernel.run(call), ImplSkipped);
    return;
  }
  const auto program = kernel.declared_program(call);
  REQUIRE(program.has_value());
  const Tensor got = kernel.run(call).at("y");
  CAPTURE(kernel.name(), name_of(got.format), shape_text(got.shape), print_program(*program));
  const int choices = choice_ulp(*program);
  std::vector<bool> conforms(static_cast<std::size_t>(got.rows()), false);
  for (int nudge = -choices; nudge <= choices; ++nudge) {
    const Tensor ideal = emulate(*program, inputs, call.numbers, {.nudge_ulp = nudge}).at("y");
    for (std::int64_t row = 0; row < got.rows(); ++row)
      if (differing(got, ideal, row) == 0) conforms[static_cast<std::size_t>(row)] = true;
  }
  CHECK(std::ranges::count(conforms, false) == 0);
}

/// x with no parameter, with a weight, and where the kernel takes one with a bias; in x's format and in fp32.
inline std::vector<Tensors> calls_on(const Tensor& x, bool biases, std::uint64_t seed) {
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

/// All kernels of a side on rows of one length and format, with every choice of parameters.
inline void expect_ideals(std::string_view prefix, FormatId format, std::int64_t rows, std::int64_t cols) {
  const auto seed = static_cast<std::uint64_t>(cols);
  for (const Tensor& x : {ordinary(format, {rows, cols}, -6, 4, seed), any_bits(format, {rows, cols}, seed)})
    for (Implementation* kernel : kernels_named(prefix))
      for (const Tensors& inputs : calls_on(x, kernel->accepts_norm("layernorm"), seed + 1))
        expect_ideal(*kernel, inputs);
}

}  // namespace norma::test

// What the tests of CUDA kernels share, on a GPU and on the host executor.
#pragma once

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
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

inline std::string_view norm_of(const Implementation& kernel) {
  for (const std::string_view norm : {"rmsnorm", "layernorm", "modulate", "gated_residual"})
    if (kernel.accepts_norm(norm)) return norm;
  throw std::logic_error(kernel.name() + " is of a norm that is not tested");
}

/// A call that the kernel takes, but for what `inputs` lacks.
inline ImplCall kernel_call(const Implementation& kernel, const Tensors& inputs) {
  ImplCall call;
  call.norm = norm_of(kernel);
  call.inputs = &inputs;
  if (call.norm == "modulate") call.numbers["scale_offset"] = inputs.contains("shift") ? 1 : 0;
  if (call.norm.ends_with("norm")) call.numbers["eps"] = 1e-6;
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

/// What the kernel takes beside x: each choice of optional tensors, in x's format and, where it may be, in fp32; vectors
/// for all rows and for each.
inline std::vector<Tensors> calls_on(const Tensor& x, const Implementation& kernel, std::uint64_t seed) {
  const Tensors only{{"x", x}};
  std::vector<Tensors> calls;
  const auto with = [&](const std::vector<std::pair<std::string, Shape>>& tensors, FormatId format) {
    Tensors inputs = only;
    std::uint64_t s = seed;
    for (const auto& [name, shape] : tensors) inputs.emplace(name, ordinary(format, shape, -2, 2, ++s));
    calls.push_back(std::move(inputs));
  };
  const Shape row{x.cols()};
  const std::string_view norm = norm_of(kernel);
  if (norm == "gated_residual") {
    for (const Shape& gate : {row, x.shape}) with({{"f", x.shape}, {"gate", gate}}, x.format);
    return calls;
  }
  for (const FormatId format : {x.format, FormatId::fp32}) {
    if (norm == "modulate") {
      if (format != x.format && kernel.name().ends_with("eager")) continue;
      for (const Shape& shape : {row, x.shape}) {
        with({{"scale", shape}}, format);
        with({{"scale", row}, {"shift", shape}}, format);
      }
      continue;
    }
    with({}, format);
    with({{"weight", row}}, format);
    if (norm != "layernorm") continue;
    with({{"bias", row}}, format);
    with({{"bias", row}, {"weight", row}}, format);
  }
  return calls;
}

/// All kernels of a side on rows of one length and format, with every choice of parameters.
inline void expect_ideals(std::string_view prefix, FormatId format, std::int64_t rows, std::int64_t cols) {
  const auto seed = static_cast<std::uint64_t>(cols);
  for (const Tensor& x : {ordinary(format, {rows, cols}, -6, 4, seed), any_bits(format, {rows, cols}, seed)})
    for (Implementation* kernel : kernels_named(prefix))
      for (const Tensors& inputs : calls_on(x, *kernel, seed + 1))
        expect_ideal(*kernel, inputs);
}

}  // namespace norma::test

// What the tests of CUDA kernels share, on a GPU and on the host executor.
#pragma once

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "impls/cuda/cuda.hpp"
#include "impls/emulate/choices.hpp"
#include "impls/emulate/emulate.hpp"
#include "reference/program/layout.hpp"
#include "tests/impls/tensors.hpp"

namespace norma::test {

inline constexpr FormatId kStorage[] = {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2};

inline std::vector<Implementation*> kernels_named(std::string_view prefix) {
  std::vector<Implementation*> kernels;
  for (Implementation* kernel : cuda_implementations())
    if (kernel->name().starts_with(prefix)) kernels.push_back(kernel);
  return kernels;
}

/// A tensor beside x; without a format, one of those that its norm's row says.
struct Beside {
  std::string name;
  Shape shape;
  std::optional<FormatId> format = {};
  bool like_x = false;  ///< in x's format in any case
};
using Choice = std::vector<Beside>;

/// How kernels of a norm are called.
struct NormRow {
  std::string_view norm;
  void (*complete)(const Implementation&, ImplCall&);  ///< numbers and words
  std::vector<Choice> (*choices)(const Implementation&, const Shape& x);
  bool (*takes_fp32)(const Implementation&);           ///< tensors beside x, not in x's format only
  /// Empty: the norm is not tried on rows of that length.
  Shape (*x_shape)(std::int64_t rows, std::int64_t cols) = [](std::int64_t rows, std::int64_t cols) -> Shape {
    return {rows, cols};
  };
};

inline bool says(const Implementation& kernel, std::string_view word) {
  return kernel.name().find(word) != std::string::npos;
}

/// Rotary embeddings: heads of tokens, of even lengths as heads have. Tables of columns turn halves, those of pairs
/// neighbours, shorter ones the first columns only.
inline Shape heads_shape(std::int64_t rows, std::int64_t cols) {
  return cols < 7 || cols > 300 ? Shape{} : Shape{2, 2, (rows + 1) / 2, (cols + 1) / 2 * 2};
}
inline void complete_pairs(const Implementation&, ImplCall& call) {
  const std::int64_t cols = call.inputs->at("x").cols(), width = call.inputs->at("cos").cols();
  call.words["pairing"] = width == cols ? "half" : "interleaved";
  if (2 * width < cols) call.numbers["rotary"] = static_cast<double>(2 * width);
}
inline std::vector<Choice> pair_choices(const Shape& x) {
  const std::int64_t cols = x.back();
  if (x.size() != 4) return {{{"cos", {cols}}, {"sin", {cols}}}};
  std::vector<Choice> choices;
  for (const Shape& table : {Shape{x[0], 1, x[2], cols}, Shape{cols / 2}, Shape{x[2], cols / 4}})
    choices.push_back({{"cos", table}, {"sin", table}});
  return choices;
}

/// Norms over channels: x of two samples, four channels and about `cols` / 4 positions, in two groups; few lengths, as
/// cuda_channels.hpp has shapes of its own.
inline Shape channels_shape(std::int64_t, std::int64_t cols) {
  return cols % 4 == 0 ? Shape{} : Shape{2, 4, (cols + 3) / 4};
}
inline void complete_channels(const Implementation& kernel, ImplCall& call) {
  call.numbers["eps"] = 1e-5;
  if (call.norm == "groupnorm") call.numbers["groups"] = 2;
  else call.words["statistics"] = says(kernel, ".eval") ? "running" : "batch";
  if (call.norm == "batchnorm") call.numbers["momentum"] = 0.1;
}
/// One choice: all that the kernel takes.
inline std::vector<Choice> channels_choices(const Implementation& kernel, const Shape& x) {
  const Shape each{x[1]};
  Choice all{{"bias", each}, {"weight", each}};
  if (says(kernel, ".eval") || says(kernel, ".train")) all.push_back({"running_mean", each}), all.push_back({"running_var", each});
  return {all};
}
inline bool channels_fp32(const Implementation& kernel) { return !says(kernel, "rsqrtf"); }

inline void complete_nothing(const Implementation&, ImplCall&) {}
inline std::vector<Choice> nothing_beside(const Implementation&, const Shape&) { return {{}}; }
inline bool only_x(const Implementation&) { return false; }

inline void complete_rms(const Implementation& kernel, ImplCall& call) {
  call.numbers["eps"] = 1e-6;
  if (says(kernel, "one_plus")) call.numbers["weight_offset"] = 1;
  for (const auto& [part, quant] : {std::pair{".static_fp8", "static"}, std::pair{".per_token_fp8", "per_token"},
                                    std::pair{".mxfp8", "mxfp8"}, std::pair{".nvfp4", "nvfp4"}})
    if (says(kernel, part)) call.words["quant"] = quant;
  if (says(kernel, ".per_token_fp8")) {
    call.numbers["quant_max"] = 448;
    call.numbers["scale_floor"] = 1.0 / (448 * 512);
    call.numbers["scale_cap"] = call.inputs->contains("weight") ? 3.7 : HUGE_VAL;
  }
  if (says(kernel, ".nvfp4")) call.numbers["global_scale"] = 0.37;
}
/// RMSNorm with something beside it; of two roots one has all choices.
inline bool plus_more(const Implementation& kernel) {
  return says(kernel, ".residual") || says(kernel, "_fp8") || says(kernel, ".mxfp8") || says(kernel, ".nvfp4");
}
inline std::vector<Choice> rms_choices(const Implementation& kernel, const Shape& x) {
  Choice plain;
  if (says(kernel, ".residual")) plain.push_back({.name = "residual", .shape = x, .like_x = true});
  if (says(kernel, ".static_fp8")) plain.push_back({"scale", {1}, FormatId::fp32});
  Choice weighted = plain;
  weighted.push_back({"weight", {x.back()}});
  if (plus_more(kernel) && says(kernel, "rsqrtf")) return {weighted};
  return {plain, weighted};
}
inline bool rms_fp32(const Implementation& kernel) { return !plus_more(kernel) || !says(kernel, "rsqrtf"); }

inline constexpr NormRow kNormRows[] = {
    {.norm = "rmsnorm",
     .complete = complete_rms,
     .choices = rms_choices,
     .takes_fp32 = rms_fp32},
    {.norm = "layernorm",
     .complete = [](const Implementation&, ImplCall& call) { call.numbers["eps"] = 1e-6; },
     .choices = [](const Implementation&, const Shape& x) -> std::vector<Choice> {
       const Beside weight{"weight", {x.back()}}, bias{"bias", {x.back()}};
       return {{}, {weight}, {bias}, {bias, weight}};
     },
     .takes_fp32 = [](const Implementation&) { return true; }},
    {.norm = "modulate",
     .complete = [](const Implementation&,
                    ImplCall& call) { call.numbers["scale_offset"] = call.inputs->contains("shift") ? 1 : 0; },
     .choices = [](const Implementation&, const Shape& x) -> std::vector<Choice> {
       const Shape row{x.back()};
       return {{{"scale", row}}, {{"scale", row}, {"shift", row}}, {{"scale", x}}, {{"scale", row}, {"shift", x}}};
     },
     .takes_fp32 = [](const Implementation& kernel) { return !says(kernel, "eager"); }},
    {.norm = "gated_residual",
     .complete = [](const Implementation&, ImplCall&) {},
     .choices = [](const Implementation&, const Shape& x) -> std::vector<Choice> {
       return {{{"f", x}, {"gate", {x.back()}}}, {{"f", x}, {"gate", x}}};
     },
     .takes_fp32 = [](const Implementation&) { return false; }},
    {.norm = "ada_layernorm",
     .complete =
         [](const Implementation&, ImplCall& call) { call.numbers["eps"] = 1e-6, call.numbers["scale_offset"] = 1; },
     .choices = [](const Implementation&, const Shape& x) -> std::vector<Choice> {
       const Shape row{x.back()}, sample{x.front(), 1, x.back()};
       return {{{"scale", x}, {"weight", row}},
               {{"scale", sample}, {"shift", x}},
               {{"bias", row}, {"scale", row}, {"shift", sample}, {"weight", row}}};
     },
     .takes_fp32 = [](const Implementation& kernel) { return !says(kernel, "eager"); },
     .x_shape = [](std::int64_t rows, std::int64_t cols) -> Shape { return {(rows + 1) / 2, 2, cols}; }},
    {.norm = "rope",
     .complete = complete_pairs,
     .choices = [](const Implementation&, const Shape& x) -> std::vector<Choice> { return pair_choices(x); },
     .takes_fp32 = [](const Implementation& kernel) { return !says(kernel, "eager"); },
     .x_shape = heads_shape},
    {.norm = "rmsnorm_rope",
     .complete =
         [](const Implementation& kernel, ImplCall& call) {
           complete_pairs(kernel, call);
           call.numbers["eps"] = 1e-6;
         },
     .choices = [](const Implementation&, const Shape& x) -> std::vector<Choice> {
       std::vector<Choice> choices = pair_choices(x);
       for (std::size_t i = 1; i < choices.size(); ++i) choices[i].push_back({"weight", {x.back()}});
       return choices;
     },
     .takes_fp32 = [](const Implementation& kernel) { return !says(kernel, "eager"); },
     .x_shape = heads_shape},
    {.norm = "silu", .complete = complete_nothing, .choices = nothing_beside, .takes_fp32 = only_x},
    {.norm = "gelu",
     .complete = [](const Implementation& kernel,
                    ImplCall& call) { call.words["approximate"] = says(kernel, "tanh") ? "tanh" : "none"; },
     .choices = nothing_beside,
     .takes_fp32 = only_x},
    {.norm = "softmax", .complete = complete_nothing, .choices = nothing_beside, .takes_fp32 = only_x},
    {.norm = "groupnorm",
     .complete = complete_channels,
     .choices = channels_choices,
     .takes_fp32 = channels_fp32,
     .x_shape = channels_shape},
    {.norm = "instancenorm",
     .complete = complete_channels,
     .choices = channels_choices,
     .takes_fp32 = channels_fp32,
     .x_shape = channels_shape},
    {.norm = "batchnorm",
     .complete = complete_channels,
     .choices = channels_choices,
     .takes_fp32 = channels_fp32,
     .x_shape = channels_shape},
};

inline const NormRow& norm_row_of(const Implementation& kernel) {
  for (const NormRow& row : kNormRows)
    if (kernel.accepts_norm(row.norm)) return row;
  throw std::logic_error(kernel.name() + " is of a norm that is not tested");
}

/// A call that the kernel takes, but for what `inputs` lacks.
inline ImplCall kernel_call(const Implementation& kernel, const Tensors& inputs) {
  const NormRow& row = norm_row_of(kernel);
  ImplCall call;
  call.norm = row.norm;
  call.inputs = &inputs;
  row.complete(kernel, call);
  return call;
}

inline bool same_code(const Tensor& a, const Tensor& b, std::int64_t i) {
  return a.code(i) == b.code(i) || (is_nan_code(a.format, a.code(i)) && is_nan_code(b.format, b.code(i)));
}

/// Which rows of a placed program have in `got` the bits that `ideal` has: of an output like x all columns of the row, of
/// another one the row's own value; of one that is neither, all values or no row.
inline void strike_unequal(const Layout& layout, const Tensor& got, const Tensor& ideal, std::vector<bool>& equal) {
  const std::int64_t elements = layout.rows * layout.cols;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    if (same_code(got, ideal, i)) continue;
    if (got.size() == elements) equal[static_cast<std::size_t>(layout.place_of(i).row)] = false;
    else if (got.size() % layout.rows == 0) equal[static_cast<std::size_t>(i / (got.size() / layout.rows))] = false;
    else equal.assign(equal.size(), false);
  }
}

/// Elements of y that no choice of approximate functions gives, where choices are made element by element (decision 0015).
inline std::int64_t outside_of_choices(const Program& program, const Tensors& inputs, const Attributes& numbers,
                                       const Tensor& got) {
  const ChoiceKind kind = choice_kind(program);
  std::vector<Tensor> ideals{emulate(program, inputs, numbers).at("y")};
  if (kind == ChoiceKind::range) {
    OutputRange range = emulate_range(program, inputs, numbers);
    ideals.push_back(std::move(range.low.at("y")));
    ideals.push_back(std::move(range.high.at("y")));
  } else {
    for (int k = 1; k <= choice_ulp(program); ++k)
      for (const int nudge : {k, -k}) ideals.push_back(emulate(program, inputs, numbers, {.nudge_ulp = nudge}).at("y"));
  }
  return differing(got, held_against(kind, ideals, got));
}

/// Quantized outputs: x of 8 bits, and rows that are not whole blocks.
inline bool refuses(const Implementation& kernel, const Tensors& inputs) {
  const Tensor& x = inputs.at("x");
  if (!says(kernel, "_fp8") && !says(kernel, ".mxfp8") && !says(kernel, ".nvfp4")) return false;
  return format_of(x.format).storage_bits == 8 || (says(kernel, ".mxfp8") && x.cols() % 32 != 0) ||
         (says(kernel, ".nvfp4") && x.cols() % 16 != 0);
}

/// All outputs have the bits of the declared program's ideal; every row of them, for one choice of each approximate
/// function, or every element for one of its own.
inline void expect_ideal(Implementation& kernel, const Tensors& inputs) {
  const ImplCall call = kernel_call(kernel, inputs);
  if (refuses(kernel, inputs)) {
    CHECK_THROWS_AS(kernel.run(call), ImplSkipped);
    CHECK_THROWS_AS(kernel.declared_program(call), ImplSkipped);
    return;
  }
  if (call.numbers.contains("weight_offset") && !inputs.contains("weight")) {
    CHECK_THROWS_AS(kernel.run(call), ImplSkipped);
    return;
  }
  const auto program = kernel.declared_program(call);
  REQUIRE(program.has_value());
  const Tensors got = kernel.run(call);
  const Layout layout = place(*stages_of(*program).front(), inputs, call.numbers).layout;
  CAPTURE(kernel.name(), name_of(got.at("y").format), shape_text(got.at("y").shape), print_program(*program));
  if (const ChoiceKind kind = choice_kind(*program); kind == ChoiceKind::element || kind == ChoiceKind::range) {
    CHECK(outside_of_choices(*program, inputs, call.numbers, got.at("y")) == 0);
    return;
  }
  const int choices = choice_ulp(*program);
  std::vector<bool> conforms(static_cast<std::size_t>(layout.rows), false);
  // 0, 1, -1, 2, -2, ...: the host executor needs the first one only.
  for (int k = 0; k <= 2 * choices && std::ranges::count(conforms, false) != 0; ++k) {
    const int nudge = k % 2 == 1 ? (k + 1) / 2 : -k / 2;
    const Tensors ideals = emulate(*program, inputs, call.numbers, {.nudge_ulp = nudge});
    REQUIRE(got.size() == ideals.size());
    std::vector<bool> equal(conforms.size(), true);
    for (const auto& [name, ideal] : ideals) {
      CAPTURE(name);
      REQUIRE(got.contains(name));
      const Tensor& output = got.at(name);
      REQUIRE(output.format == ideal.format);
      REQUIRE(output.shape == ideal.shape);
      strike_unequal(layout, output, ideal, equal);
    }
    for (std::size_t row = 0; row < equal.size(); ++row)
      if (equal[row]) conforms[row] = true;
  }
  CHECK(std::ranges::count(conforms, false) == 0);
}

/// What the kernel takes beside x: each choice of tensors, in x's format and, where it may be, in fp32.
inline std::vector<Tensors> calls_on(const Tensor& x, const Implementation& kernel, std::uint64_t seed) {
  const NormRow& row = norm_row_of(kernel);
  std::vector<Tensors> calls;
  for (const FormatId format : {x.format, FormatId::fp32}) {
    if (format != x.format && !row.takes_fp32(kernel)) continue;
    for (const Choice& choice : row.choices(kernel, x.shape)) {
      Tensors inputs;
      inputs.emplace("x", x);
      std::uint64_t s = seed;
      for (const Beside& tensor : choice)
        inputs.emplace(tensor.name, ordinary(tensor.like_x ? x.format : tensor.format.value_or(format), tensor.shape, -2, 2, ++s));
      calls.push_back(std::move(inputs));
    }
  }
  return calls;
}

/// All kernels of a side on rows of one length and format, with every choice of parameters.
inline void expect_ideals(std::string_view prefix, FormatId format, std::int64_t rows, std::int64_t cols) {
  const auto seed = static_cast<std::uint64_t>(cols);
  for (Implementation* kernel : kernels_named(prefix)) {
    const Shape shape = norm_row_of(*kernel).x_shape(rows, cols);
    if (shape.empty()) continue;
    for (const Tensor& x : {ordinary(format, shape, -6, 4, seed), any_bits(format, shape, seed)})
      for (const Tensors& inputs : calls_on(x, *kernel, seed + 1)) expect_ideal(*kernel, inputs);
  }
}

}  // namespace norma::test

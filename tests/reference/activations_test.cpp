// silu, gelu and softmax as norms: both truths against MPFR used directly, what is not finite, what is refused.
#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "reference/exact/decide.hpp"
#include "reference/norms/norm.hpp"
#include "tests/impls/tensors.hpp"
#include "tests/reference/mpfr_functions.hpp"

namespace norma {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr TruthKind kKinds[] = {TruthKind::fast, TruthKind::mpfr};
using Words = std::map<std::string, std::string, std::less<>>;

struct Activation {
  const char* norm;
  Words words;
  Function function;
};
const Activation kActivations[] = {{"silu", {}, Function::silu},
                                   {"gelu", {}, Function::gelu},
                                   {"gelu", {{"approximate", "none"}}, Function::gelu},
                                   {"gelu", {{"approximate", "tanh"}}, Function::gelu_tanh}};

Tensor tensor_of(FormatId format, Shape shape, const std::vector<double>& values) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i)
    t.set_code(i, encode(format, values[static_cast<std::size_t>(i)], Overflow::ieee));
  return t;
}

/// The code of one element of a norm's y, rounded once; nothing is undecided.
std::uint64_t rounded(const TruthSource& truth, std::int64_t row, std::int64_t col, FormatId format) {
  const Enclosure e = truth.enclose(row, col);
  const auto code = round_to({.truth = truth, .row = row, .col = col, .enclosure = e}, format, Overflow::ieee);
  REQUIRE(code.has_value());
  return *code;
}

std::string refusal(const char* norm, const Words& words, const char* output) {
  const Tensors inputs{{"x", tensor_of(FormatId::fp32, {1}, {1})}};
  try {
    const NormCall call{.inputs = &inputs, .numbers = {}, .words = words};
    find_norm(norm)->check(call);
    truth_of(*find_norm(norm), call, output, TruthKind::fast);
  } catch (const NormError& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("activations are MPFR's functions, by both truths, of every format") {
  for (const FormatId format : {FormatId::fp64, FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn})
    for (const Activation& a : kActivations) {
      const Tensors inputs{{"x", ordinary(format, {4, 16}, -12, 5, 7)}};
      const Tensor& x = inputs.at("x");
      const NormCall call{.inputs = &inputs, .numbers = {}, .words = a.words};
      find_norm(a.norm)->check(call);
      for (const TruthKind kind : kKinds) {
        const auto truth = truth_of(*find_norm(a.norm), call, "y", kind);
        for (std::int64_t i = 0; i < x.size(); ++i)
          for (const FormatId target : {FormatId::fp32, FormatId::fp16}) {
            CAPTURE(a.norm, name_of(format), x.value(i), name_of(target));
            REQUIRE(rounded(*truth, i / 16, i % 16, target) ==
                    testing::round_function_by_mpfr(a.function, x.value(i), target));
          }
      }
    }
}

TEST_CASE("activations end in their limits and keep the sign of zero") {
  const Tensors inputs{{"x", tensor_of(FormatId::fp32, {6}, {kInfinity, -kInfinity, 0.0, -0.0, -1e30, std::nan("")})}};
  for (const Activation& a : kActivations)
    for (const TruthKind kind : kKinds) {
      const auto truth = truth_of(*find_norm(a.norm), {.inputs = &inputs, .numbers = {}, .words = a.words}, "y", kind);
      CAPTURE(a.norm, kind == TruthKind::fast);
      const auto y = [&](std::int64_t i) { return truth->enclose(0, i).hi; };
      CHECK(y(0) == kInfinity);
      for (const std::int64_t i : {1, 3, 4}) CHECK((y(i) == 0 && std::signbit(y(i))));
      CHECK((y(2) == 0 && !std::signbit(y(2))));
      CHECK(std::isnan(y(5)));
    }
}

TEST_CASE("softmax is MPFR's quotient, by both truths") {
  constexpr std::int64_t kRows = 5, kCols = 9;
  constexpr mpfr_prec_t kBits = 400;
  for (const FormatId format : {FormatId::fp64, FormatId::fp32, FormatId::bf16, FormatId::e5m2}) {
    const Tensors inputs{{"x", ordinary(format, {kRows, kCols}, -6, 5, 11)}};
    const Tensor& x = inputs.at("x");
    for (const TruthKind kind : kKinds) {
      const auto truth = truth_of(*find_norm("softmax"), {.inputs = &inputs, .numbers = {}, .words = {}}, "y", kind);
      for (std::int64_t row = 0; row < kRows; ++row) {
        testing::Number sum(0.0, kBits), e(kBits), y(kBits);
        for (std::int64_t j = 0; j < kCols; ++j) {
          mpfr_exp(e, testing::Number(x.value(row * kCols + j), 53), MPFR_RNDN);
          mpfr_add(sum, sum, e, MPFR_RNDN);
        }
        for (std::int64_t j = 0; j < kCols; ++j) {
          mpfr_exp(e, testing::Number(x.value(row * kCols + j), 53), MPFR_RNDN);
          mpfr_div(y, e, sum, MPFR_RNDN);
          const auto expected = testing::round_known(FormatId::fp32, y, static_cast<int>(kBits) - 16);
          CAPTURE(name_of(format), row, j);
          REQUIRE(expected.has_value());
          REQUIRE(rounded(*truth, row, j, FormatId::fp32) == *expected);
        }
      }
    }
  }
}

TEST_CASE("softmax of masked rows, of equal scores and of rows that are not finite") {
  const double n = std::nan("");
  const std::vector<double> x{-kInfinity, 3,          -kInfinity, 3,    -kInfinity, -kInfinity, -kInfinity,
                              -kInfinity, 1,          kInfinity,  2,    3,          1,          n,
                              2,          -kInfinity, 0.0,        -0.0, 0.0,        -0.0};
  const std::vector<double> y{0, 0.5, 0, 0.5, n, n, n, n, n, n, n, n, n, n, n, n, 0.25, 0.25, 0.25, 0.25};
  const Tensors inputs{{"x", tensor_of(FormatId::fp16, {5, 4}, x)}};
  for (const TruthKind kind : kKinds) {
    const auto truth = truth_of(*find_norm("softmax"), {.inputs = &inputs, .numbers = {}, .words = {}}, "y", kind);
    for (std::int64_t i = 0; i < 20; ++i) {
      const double expected = y[static_cast<std::size_t>(i)], got = truth->enclose(i / 4, i % 4).hi;
      CAPTURE(i, kind == TruthKind::fast, got);
      CHECK((std::isnan(expected) ? std::isnan(got) : got == expected));
    }
  }
}

TEST_CASE("activations and softmax refuse by name") {
  CHECK(refusal("silu", {}, "z") == "silu: there is no output z; known: y.");
  CHECK(refusal("gelu", {}, "z") == "gelu: there is no output z; known: y.");
  CHECK(refusal("softmax", {}, "z") == "softmax: there is no output z; known: y.");
  const std::string word = refusal("gelu", {{"approximate", "erf"}}, "y");
  for (const char* said : {"gelu", "approximate", "erf", "none", "tanh"}) CHECK(word.find(said) != std::string::npos);
}

}  // namespace norma

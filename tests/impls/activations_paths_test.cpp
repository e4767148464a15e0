// Paths of activations and softmax: text, what the code means, what choices allow.
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "impls/cast_paths/cast_path.hpp"
#include "impls/emulate/arithmetic.hpp"
#include "impls/emulate/choices.hpp"
#include "reference/exact/program_truth.hpp"
#include "reference/norms/norm.hpp"
#include "tests/impls/tensors.hpp"

namespace norma::test {
namespace {

constexpr FormatId kFloats[] = {FormatId::fp32, FormatId::bf16, FormatId::fp16};
constexpr std::string_view kNorms[] = {"silu", "gelu", "softmax"};

std::vector<const CastPath*> paths() {
  std::vector<const CastPath*> found;
  for (const CastPath* path : all_cast_paths())
    if (std::ranges::find(kNorms, path->norm) != std::end(kNorms)) found.push_back(path);
  return found;
}

Program program_of(const CastPath& path, const Tensor& x, std::string_view profile = "") {
  return build_path(path, {.x = x.format,
                           .formats = {},
                           .attributes = {},
                           .cols = x.cols(),
                           .profile = std::string(profile),
                           .shape = x.shape});
}

std::unique_ptr<TruthSource> canonical(const CastPath& path, const Tensors& inputs) {
  NormCall call{.inputs = &inputs, .numbers = {}, .words = {}};
  for (const CaseDefault& own : path.norm_attributes) call.words.emplace(own.key, own.value);
  find_norm(path.norm)->check(call);
  return truth_of(*find_norm(path.norm), call, "y", TruthKind::fast);
}

/// How far an erasure may be from its norm: gaps have bounds of their own, of |x| where it is above 1.
double gap_bound(const CastPath& path) {
  if (path.gaps.empty()) return 0x1p-90;
  const std::string_view gap = path.gaps.front();
  if (gap == "constant_in_binary64") return 0x1p-50;  // sqrt(2 / pi) to 2^-54, through tanh's slope
  if (gap == "constant_of_ten_digits") return 1e-10;  // sqrt(2 / pi) to 3e-11
  if (gap == "erf_polynomial") return 0.76e-7;  // 1.5e-7 of erf, halved: Abramowitz & Stegun 7.1.26, and its digits
  REQUIRE(gap == "sigmoid_approximation");
  return 0.0205;  // measured: largest at |x| = 2.2
}

/// y's that random choices give: each approximate step off by what `draw` says.
Tensor one(FormatId format, double value) {
  Tensor t = Tensor::zeros(format, {1});
  t.set_code(0, encode(format, value, Overflow::ieee));
  return t;
}

}  // namespace

TEST_CASE("activations print what parses to the same, under every profile", "[cast_paths]") {
  CHECK(paths().size() == 13);
  for (const CastPath* path : paths())
    for (const FormatId format : kFloats)
      for (const std::string_view profile : path->profiles) {
        const Tensor x = ordinary(format, {2, 33}, -6, 3, 1);
        const Program program = program_of(*path, x, profile);
        CAPTURE(path->name, name_of(format), profile);
        CHECK(parse_program(
                  print_program(program),
                  {.x = format, .formats = {}, .attributes = {}, .cols = 33, .profile = "", .shape = x.shape}) ==
              program);
        CHECK((choice_ulp(program) == 0) == (profile == "exact"));
      }
}

TEST_CASE("erasures of activations are their norm, or differ by the gap they name", "[cast_paths]") {
  for (const CastPath* path : paths())
    for (const FormatId format : kFloats) {
      const Tensors inputs{{"x", ordinary(format, {3, 40}, -8, 3, 5)}};
      const Tensor& x = inputs.at("x");
      const Program erased = erase_roundings(program_of(*path, x));
      const auto meant = program_truth(erased, inputs, {}, "y"), norm = canonical(*path, inputs);
      double most = 0;
      for (std::int64_t i = 0; i < x.size(); ++i) {
        const Enclosure a = meant->enclose(i / 40, i % 40), b = norm->enclose(i / 40, i % 40);
        most = std::max(most, std::fabs((a.hi - b.hi) + (a.lo - b.lo)) / std::max(1.0, std::fabs(x.value(i))));
      }
      CAPTURE(path->name, name_of(format), most);
      CHECK(most <= gap_bound(*path));
      if (!path->gaps.empty()) CHECK(most > 0);
    }
}

TEST_CASE("bits of activations lie near what they mean", "[cast_paths]") {
  for (const CastPath* path : paths())
    for (const FormatId format : kFloats)
      for (const std::string_view profile : path->profiles) {
        const Tensors inputs{{"x", ordinary(format, {3, 40}, -8, 3, 6)}};
        const Program program = program_of(*path, inputs.at("x"), profile);
        const Tensor y = emulate(program, inputs, {}).at("y");
        const auto meant = program_truth(erase_roundings(program), inputs, {}, "y");
        CAPTURE(path->name, name_of(format), profile);
        for (std::int64_t i = 0; i < y.size(); ++i) {
          // A dozen roundings of numbers up to |x|: 1 + tanh and 1 + erf cancel where x is negative.
          const double size = std::max(1.0, std::fabs(inputs.at("x").value(i)));
          const double unit = std::ldexp(1.0, -format_of(format).precision);
          REQUIRE(std::fabs(y.value(i) - meant->enclose(i / 40, i % 40).hi) <= 24 * unit * size);
        }
      }
}

TEST_CASE("which kind of choice a path leaves", "[choices]") {
  const Tensor x = ordinary(FormatId::bf16, {2, 33}, -6, 3, 1);
  for (const CastPath* path : paths())
    for (const std::string_view profile : path->profiles) {
      const ChoiceKind kind = choice_kind(program_of(*path, x, profile));
      CAPTURE(path->name, profile);
      CHECK(kind == (profile == "exact"        ? ChoiceKind::none
                     : path->norm == "softmax" ? ChoiceKind::range
                                               : ChoiceKind::element));
    }
}

TEST_CASE("a range holds what its choices give, and little more", "[choices]") {
  const CastPath& path = *find_cast_path("torch.softmax.cuda");
  for (const FormatId format : kFloats) {
    const Tensors inputs{{"x", ordinary(format, {4, 50}, -3, 3, 9)}};
    const Program program = program_of(path, inputs.at("x"));
    const OutputRange range = emulate_range(program, inputs, {});
    const Tensor &low = range.low.at("y"), &high = range.high.at("y");
    // All exponentials up or down; each alone among those that go the other way is bounded by the same ends.
    for (int nudge = -2; nudge <= 2; ++nudge) {
      const Tensor y = emulate(program, inputs, {}, {.nudge_ulp = nudge}).at("y");
      for (std::int64_t i = 0; i < y.size(); ++i) {
        REQUIRE(low.value(i) <= y.value(i));
        REQUIRE(y.value(i) <= high.value(i));
      }
    }
    for (std::int64_t i = 0; i < low.size(); ++i) {
      const std::int64_t width = static_cast<std::int64_t>(high.code(i)) - static_cast<std::int64_t>(low.code(i));
      REQUIRE(width >= 0);
      REQUIRE(width <= (format == FormatId::fp32 ? 18 : 1));  // 4k + 1 to each side; 16 bits: at most two values
    }
  }
}

TEST_CASE("a range follows signs, zeros and what is not finite", "[choices]") {
  const auto range_of = [](std::string_view steps, double x) {
    const std::string text = "norm silu\nin x:T\n" + std::string(steps);
    const Tensors inputs{{"x", one(FormatId::fp32, x)}};
    const OutputRange r = emulate_range(
        parse_program(text,
                      {.x = FormatId::fp32, .formats = {}, .attributes = {}, .cols = 1, .profile = "", .shape = {1}}),
        inputs, {});
    return std::pair{r.low.at("y").value(0), r.high.at("y").value(0)};
  };
  const double e = rounded_op(Op::exp, 1, 0, 0, FormatId::fp32, Overflow::ieee), u = 0x1p-22;
  CHECK(range_of("out y = exp T x within=2\n", 1) == std::pair{e - 2 * u, e + 2 * u});
  CHECK(range_of("e = exp T x within=2\nout y = neg T e\n", 1) == std::pair{-e - 2 * u, -e + 2 * u});
  CHECK(range_of("e = exp T x within=1\nn = neg T e\nout y = abs T n\n", 1) == std::pair{e - u, e + u});
  CHECK(range_of("e = exp T x within=1\nd = sub T e, e\nout y = square T d\n", 1) == std::pair{0.0, 4 * u * u});
  CHECK(range_of("e = exp T x within=1\ns = sum T e\nout y = mul T s, x\n", 1) == std::pair{e - u, e + u});
  const auto zero_divisor = range_of("e = exp T x within=1\nd = sub T e, e\nout y = div T x, d\n", 1);
  CHECK((std::isnan(zero_divisor.first) && !std::isnan(zero_divisor.second)));
  const auto nan = range_of("e = exp T x within=1\nout y = add T e, x\n", std::nan(""));
  CHECK((std::isnan(nan.first) && std::isnan(nan.second)));
}

TEST_CASE("an output is held against the choices of each element, or against the range", "[choices]") {
  const FormatId f = FormatId::fp16;
  const auto row = [&](std::vector<double> values) {
    Tensor t = Tensor::zeros(f, {static_cast<std::int64_t>(values.size())});
    for (std::int64_t i = 0; i < t.size(); ++i)
      t.set_code(i, encode(f, values[static_cast<std::size_t>(i)], Overflow::ieee));
    return t;
  };
  const double nan = std::nan("");
  const std::vector<Tensor> nudges{row({1, 2, 3, nan}), row({1.5, 2.5, 3.5, nan}), row({0.5, 1.5, 2.5, nan})};
  const Tensor got = row({0.5, 2.5, 4, nan});
  CHECK(differing(got, held_against(ChoiceKind::element, nudges, got)) == 1);
  CHECK(held_against(ChoiceKind::element, nudges, got).value(2) == 3);
  const std::vector<Tensor> range{row({1, 2, 3, nan, 5}), row({0.5, 1.5, 2.5, nan, nan}), row({1.5, 2.5, 3.5, nan, 0})};
  const Tensor in = row({0.75, 2.5, 3.5, nan, 7}), out = row({0.25, 3, nan, 1, nan});
  CHECK(differing(in, held_against(ChoiceKind::range, range, in)) == 0);
  CHECK(differing(out, held_against(ChoiceKind::range, range, out)) == 4);
}

TEST_CASE("torch's CUDA softmax refuses rows of kernels that are not known", "[cast_paths]") {
  const CastPath& path = *find_cast_path("torch.softmax.cuda");
  const auto order = [&](FormatId format, std::int64_t cols) {
    const Program program = program_of(path, Tensor::zeros(format, {1, cols}));
    return text_of(program.nodes[static_cast<std::size_t>(program.find_value("total")->node)].reduction.order);
  };
  CHECK(order(FormatId::fp32, 2048) == "warp(32,vec=1)");
  CHECK(order(FormatId::fp32, 2049) == "block(1024,vec=1)");
  CHECK(order(FormatId::bf16, 9216) == "block(1024,vec=1)");
  CHECK(order(FormatId::bf16, 16384) == "block(1024,vec=8)");
  CHECK_THROWS_AS(order(FormatId::bf16, 16385), ProgramError);
  CHECK_THROWS_AS(order(FormatId::fp32, 16384), ProgramError);
}

}  // namespace norma::test

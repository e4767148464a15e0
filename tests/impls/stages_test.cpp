// Programs in stages: bits against plain loops, text, and what is refused.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <random>

#include "impls/emulate/emulate.hpp"
#include "reference/program/builder.hpp"
#include "reference/program/layout.hpp"

using namespace norma;
using Catch::Matchers::ContainsSubstring;

namespace {

Tensor random_tensor(FormatId format, Shape shape, unsigned seed, double offset = 0) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<double> normal;
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, encode(format, offset + normal(rng), Overflow::ieee));
  return t;
}

float at(const Tensor& t, std::int64_t i) { return static_cast<float>(t.value(i)); }

constexpr Order kSequential{.kind = OrderKind::sequential};

/// LayerNorm's gradients in plain fp32 steps: statistics a row, then sums over the rows.
Program layernorm_gradient(const Binding& binding) {
  Builder rows("layernorm_backward", binding);
  const Operand x = rows.input("x"), dy = rows.input("dy", kRowsCols), weight = rows.input("weight");
  const Operand mean = rows.reduce("mean", kFp32, x, {.kind = ReduceKind::mean, .order = kSequential, .term_format = {}});
  const Operand d = rows.sub("d", kFp32, x, mean);
  const Operand var = rows.reduce(
      "var", kFp32, d, {.kind = ReduceKind::mean, .term = Term::square, .order = kSequential, .term_format = {}});
  const Operand rstd = rows.rsqrt("rstd", kFp32, rows.add("v", kFp32, var, rows.attribute("eps")));
  const Operand g = rows.mul("g", kFp32, dy, weight);
  const Operand xhat = rows.mul("xhat", kFp32, d, rstd);
  const Operand a = rows.reduce("a", kFp32, g, {.kind = ReduceKind::mean, .order = kSequential, .term_format = {}});
  const Operand b = rows.reduce("b", kFp32, rows.mul("gx", kFp32, g, xhat),
                                {.kind = ReduceKind::mean, .order = kSequential, .term_format = {}});
  const Operand inner = rows.sub("i", kFp32, rows.sub("h", kFp32, g, a), rows.mul("xb", kFp32, xhat, b));
  rows.output("dx", rows.cast("dx", rows.x_format(), rows.mul("dx_f32", kFp32, inner, rstd)));
  rows.pass(mean);
  rows.pass("r", rstd);

  Builder columns = rows.next_stage({.kind = ViewKind::columns});
  const Operand centred = columns.sub("d", kFp32, columns.input("x"), columns.input("mean", kCols));
  const Operand term = columns.mul("t", kFp32, columns.mul("n", kFp32, centred, columns.input("r", kCols)),
                                   columns.input("dy", kRowsCols));
  const auto summed = [&](const std::string& name, Operand of) {
    const Operand s = columns.reduce(name + "_f32", kFp32, of, {.order = kSequential, .term_format = {}});
    columns.output(name, columns.cast(name, columns.format(columns.input("dy")), s));
  };
  summed("dweight", term);
  summed("dbias", columns.input("dy"));
  return columns.finish();
}

Binding binding_of(const Tensors& tensors) {
  Binding b;
  b.x = tensors.at("x").format, b.cols = tensors.at("x").cols(), b.shape = tensors.at("x").shape;
  for (const auto& [name, t] : tensors)
    if (name != "x") b.formats[name] = t.format;
  return b;
}

Tensors gradient_inputs(FormatId format, const Shape& shape) {
  Tensors in;
  in["x"] = random_tensor(format, shape, 1, 0.5);
  in["dy"] = random_tensor(format, shape, 2);
  in["weight"] = random_tensor(format, {shape.back()}, 3, 1.0);
  return in;
}

struct Gradients {
  std::vector<float> dx, dweight, dbias;
};

Gradients plain_gradients(const Tensors& in, float eps) {
  const std::int64_t cols = in.at("x").cols(), rows = in.at("x").rows();
  const auto width = static_cast<std::size_t>(cols);
  Gradients result{.dx = {}, .dweight = std::vector<float>(width), .dbias = std::vector<float>(width)};
  const auto n = static_cast<float>(cols);
  for (std::int64_t r = 0; r < rows; ++r) {
    float mean = 0, var = 0, a = 0, b = 0;
    for (std::int64_t c = 0; c < cols; ++c) mean += at(in.at("x"), r * cols + c);
    mean /= n;
    const auto centred = [&](std::int64_t c) { return at(in.at("x"), r * cols + c) - mean; };
    for (std::int64_t c = 0; c < cols; ++c) {
      const float square = centred(c) * centred(c);
      var += square;
    }
    var /= n;
    // In binary64 first: two roundings are one but where the root comes within 2^-51 of half-way, which no row here does.
    const auto rstd = static_cast<float>(1 / std::sqrt(static_cast<double>(var + eps)));
    const auto g = [&](std::int64_t c) { return at(in.at("dy"), r * cols + c) * at(in.at("weight"), c); };
    for (std::int64_t c = 0; c < cols; ++c) {
      const float xhat = centred(c) * rstd;
      const float product = g(c) * xhat;
      a += g(c);
      b += product;
      const float term = xhat * at(in.at("dy"), r * cols + c);
      result.dweight[static_cast<std::size_t>(c)] += term;
      result.dbias[static_cast<std::size_t>(c)] += at(in.at("dy"), r * cols + c);
    }
    a /= n;
    b /= n;
    for (std::int64_t c = 0; c < cols; ++c) {
      const float back = centred(c) * rstd * b;
      const float inner = g(c) - a - back;
      result.dx.push_back(inner * rstd);
    }
  }
  return result;
}

void check_bits(const Tensor& got, const std::vector<float>& wanted) {
  REQUIRE(got.size() == static_cast<std::int64_t>(wanted.size()));
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const auto w = static_cast<double>(wanted[static_cast<std::size_t>(i)]);
    CAPTURE(i, got.value(i), w);
    REQUIRE(got.code(i) == encode(got.format, w, Overflow::ieee));
  }
}

}  // namespace

TEST_CASE("a stage that sums over rows takes what a stage of rows passes") {
  for (const FormatId format : {FormatId::fp32, FormatId::bf16})
    for (const Shape& shape : {Shape{5, 7}, Shape{2, 3, 33}, Shape{1, 4}, Shape{1500, 3}, Shape{3, 1300}}) {
      const Tensors in = gradient_inputs(format, shape);
      const Program program = layernorm_gradient(binding_of(in));
      const Gradients plain = plain_gradients(in, 0x1p-17F);
      for (const int threads : {1, 3}) {
        const Tensors out = emulate(program, in, {{"eps", 0x1p-17}}, {.nudge_ulp = 0, .threads = threads});
        REQUIRE(out.size() == 3);  // what is only passed is no output
        REQUIRE(out.at("dx").shape == shape);
        REQUIRE(out.at("dweight").shape == Shape{shape.back()});
        check_bits(out.at("dx"), plain.dx);
        check_bits(out.at("dweight"), plain.dweight);
        check_bits(out.at("dbias"), plain.dbias);
      }
    }
}

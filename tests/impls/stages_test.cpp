// Programs in stages: bits against plain loops, truths against 100 digits, text, and what is refused.
#include <boost/multiprecision/cpp_bin_float.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <random>

#include "impls/emulate/emulate.hpp"
#include "reference/certified/programs/program_enclosure.hpp"
#include "reference/exact/program_truth.hpp"
#include "reference/program/builder.hpp"
#include "reference/program/layout.hpp"

using namespace norma;
using Digits = boost::multiprecision::cpp_bin_float_100;
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
  const Operand mean =
      rows.reduce("mean", kFp32, x, {.kind = ReduceKind::mean, .order = kSequential, .term_format = {}});
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
    // In binary64 first: two roundings are one but where the root comes within 2^-51 of half-way, which no row here
    // does.
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

namespace {

/// Every element of a truth against 100 digits.
void check_truth(const TruthSource& truth, const std::vector<Digits>& wanted) {
  REQUIRE(truth.rows() * truth.cols() == static_cast<std::int64_t>(wanted.size()));
  std::vector<Enclosure> row(static_cast<std::size_t>(truth.cols()));
  for (std::int64_t r = 0; r < truth.rows(); ++r) {
    truth.enclose_row(r, row);
    for (std::int64_t c = 0; c < truth.cols(); ++c) {
      const Digits& y = wanted[static_cast<std::size_t>(r * truth.cols() + c)];
      const Enclosure e = row[static_cast<std::size_t>(c)];
      CAPTURE(r, c, e.hi, e.lo, e.radius, e.magnitude);
      const Digits off = abs(y - Digits(e.hi) - Digits(e.lo));
      REQUIRE(off <= Digits(e.radius) + abs(y) * Digits(0x1p-300));
      REQUIRE(e.radius <= 0x1p-80 * e.magnitude);
      REQUIRE(truth.enclose(r, c).hi == e.hi);
      REQUIRE(truth.compare(r, c, std::nextafter(e.hi, HUGE_VAL), 0) == Comparison::less);
    }
  }
}

struct DigitGradients {
  std::vector<Digits> dx, dweight, dbias;
};

DigitGradients digit_gradients(const Tensors& in, double eps) {
  const std::int64_t cols = in.at("x").cols(), rows = in.at("x").rows();
  DigitGradients result{.dx = {}, .dweight = std::vector<Digits>(static_cast<std::size_t>(cols)), .dbias = {}};
  result.dbias = result.dweight;
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto x = [&](std::int64_t c) { return Digits(in.at("x").value(r * cols + c)); };
    const auto dy = [&](std::int64_t c) { return Digits(in.at("dy").value(r * cols + c)); };
    const auto g = [&](std::int64_t c) { return Digits(dy(c) * Digits(in.at("weight").value(c))); };
    Digits mean = 0, var = 0, a = 0, b = 0;
    for (std::int64_t c = 0; c < cols; ++c) mean += x(c) / cols;
    for (std::int64_t c = 0; c < cols; ++c) var += (x(c) - mean) * (x(c) - mean) / cols;
    const Digits rstd = 1 / sqrt(var + Digits(eps));
    for (std::int64_t c = 0; c < cols; ++c) {
      const Digits xhat = (x(c) - mean) * rstd;
      a += g(c) / cols, b += g(c) * xhat / cols;
      result.dweight[static_cast<std::size_t>(c)] += dy(c) * xhat;
      result.dbias[static_cast<std::size_t>(c)] += dy(c);
    }
    for (std::int64_t c = 0; c < cols; ++c) result.dx.push_back(rstd * (g(c) - a - (x(c) - mean) * rstd * b));
  }
  return result;
}

Program parsed(std::string_view text, const Tensors& tensors) { return parse_program(text, binding_of(tensors)); }

std::string refusal(std::string_view text, const Tensors& tensors, const Attributes& attributes = {}) {
  try {
    emulate(parsed(text, tensors), tensors, attributes);
  } catch (const ProgramError& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("the truth of a program in stages rounds nothing between them") {
  for (const Shape& shape : {Shape{5, 7}, Shape{2, 3, 33}, Shape{1, 4}}) {
    const Tensors in = gradient_inputs(FormatId::bf16, shape);
    const Program program = layernorm_gradient(binding_of(in));
    const DigitGradients wanted = digit_gradients(in, 0x1p-17);
    for (const auto& source : {program_truth, certified_program_truth}) {
      check_truth(*source(program, in, {{"eps", 0x1p-17}}, "dx"), wanted.dx);
      check_truth(*source(program, in, {{"eps", 0x1p-17}}, "dweight"), wanted.dweight);
      check_truth(*source(program, in, {{"eps", 0x1p-17}}, "dbias"), wanted.dbias);
      REQUIRE_THROWS_AS(source(program, in, {{"eps", 0x1p-17}}, "r"), ProgramError);  // only passed
    }
    REQUIRE(program_truth(program, in, {{"eps", 0x1p-17}}, "dbias")->enclose(0, 0).radius == 0);
  }
}

TEST_CASE("what cancels across stages is found to be zero") {
  // The mean of equal numbers is each of them, but their sum over three is not a binary fraction at any precision.
  const std::string_view text =
      "norm n\nin x:T eps\npass m = mean fp32 x\npass s = sqrt fp32 m\nstage\nin x:T m:fp32[rows] s:fp32[rows] eps\n"
      "d = sub fp32 x, m\nq = square fp32 s\ne = sub fp32 x, q\nt = add fp32 d, e\nout y = add fp32 t, eps\n";
  Tensors in;
  in["x"] = Tensor::zeros(FormatId::fp32, {2, 3});
  for (std::int64_t i = 0; i < 3; ++i) in["x"].set_code(i, encode(FormatId::fp32, 0.1, Overflow::ieee));
  for (std::int64_t i = 3; i < 6; ++i) in["x"].set_code(i, encode(FormatId::fp32, 0.7, Overflow::ieee));
  const auto zero = program_truth(parsed(text, in), in, {{"eps", 0.0}}, "y");
  const auto tie = program_truth(parsed(text, in), in, {{"eps", 1 + 0x1p-24}}, "y");
  for (std::int64_t r = 0; r < 2; ++r)
    for (std::int64_t c = 0; c < 3; ++c) {
      CHECK(zero->compare(r, c, 0, 0) == Comparison::equal);
      CHECK(zero->compare(r, c, -0x1p-200, 0) == Comparison::greater);
      CHECK(zero->enclose(r, c).radius == 0);
      CHECK(tie->compare(r, c, 1 + 0x1p-24, 0) == Comparison::equal);
    }
}

namespace {

constexpr std::int64_t kN = 3, kC = 6, kS = 10, kG = 2, kD = kC / kG, kW = 5;

template <class Number>
struct Chain {
  std::vector<Number> y, dweight, z;
};

/// Sums over positions, over a group's channels, over samples, over rows of a sample, each operation in `Number`.
template <class Number>
Chain<Number> plain_chain(const Tensors& in) {
  const auto x = [&](std::size_t i) { return Number(in.at("x").value(static_cast<std::int64_t>(i))); };
  const auto weight = [&](std::size_t c) { return Number(in.at("weight").value(static_cast<std::int64_t>(c))); };
  std::vector<Number> s(kN * kC), g(kN * kG);
  Chain<Number> result{std::vector<Number>(kN * kC * kS), std::vector<Number>(kC), std::vector<Number>(kN * kW)};
  for (std::size_t i = 0; i < result.y.size(); ++i) s[i / kS] += x(i);
  for (std::size_t i = 0; i < s.size(); ++i) {
    const Number w = s[i] * weight(i % kC);
    g[i / kD] += w;
  }
  for (std::size_t i = 0; i < result.y.size(); ++i) {
    const Number h = x(i) * g[i / (kD * kS)];
    result.y[i] = h + s[i / kS];
  }
  for (std::size_t i = 0; i < s.size(); ++i) {
    const Number spread = s[i] + g[i / kD];
    const Number t = s[i] * spread;
    result.dweight[i % kC] += t;
  }
  for (std::size_t c = 0; c < kC; ++c) result.dweight[c] *= weight(c);
  // y seen as tokens: its last axis is what view tokens calls channels.
  for (std::size_t i = 0; i < result.y.size(); ++i) result.z[i / (kC * kS) * kW + i % kW] += result.y[i];
  return result;
}

}  // namespace

TEST_CASE("views follow one another: sums over positions, over a group's channels, over samples") {
  Tensors in;
  in["x"] = random_tensor(FormatId::fp32, {kN, kC, kS / kW, kW}, 1, 0.25);
  in["weight"] = random_tensor(FormatId::fp32, {kC}, 2, 1.0);
  const std::string text =
      "norm n\nview channels\nin x:T\npass s = sum fp32 x\n"
      "stage\nview groups\nin s:fp32[rows,cols] weight:T groups\nw = mul fp32 s, weight\npass g = sum fp32 w\n"
      "pass spread = add fp32 s, g\n"
      "stage\nview groups\nin x:T g:fp32[rows] s:fp32[channels] groups\nh = mul fp32 x, g\nout y = add fp32 h, s\n"
      "stage\nview columns\nin s:fp32[rows,cols] spread:fp32[rows,cols] weight:T\n"
      "t = mul fp32 s, spread\nu = sum fp32 t\nout dweight = mul fp32 u, weight\n"
      "stage\nview tokens\nin y:fp32[rows,cols]\nout z = sum fp32 y\n";
  const Program program = parsed(text, in);
  const auto plain = plain_chain<float>(in);
  for (const int threads : {1, 4}) {
    const Tensors out = emulate(program, in, {{"groups", 2.0}}, {.nudge_ulp = 0, .threads = threads});
    REQUIRE(out.size() == 3);
    check_bits(out.at("y"), plain.y);
    check_bits(out.at("dweight"), plain.dweight);
    check_bits(out.at("z"), plain.z);
    REQUIRE(out.at("z").shape == Shape{kN, kW});
  }
  const auto wanted = plain_chain<Digits>(in);
  for (const auto& source : {program_truth, certified_program_truth}) {
    check_truth(*source(program, in, {{"groups", 2.0}}, "y"), wanted.y);
    check_truth(*source(program, in, {{"groups", 2.0}}, "dweight"), wanted.dweight);
    check_truth(*source(program, in, {{"groups", 2.0}}, "z"), wanted.z);
  }
  CHECK(parse_program(print_program(program), binding_of(in)) == program);
}

TEST_CASE("what is passed keeps its radius") {
  Tensors in;
  in["x"] = random_tensor(FormatId::fp32, {2, 3}, 1, 8.0);
  std::vector<Digits> root, third;
  for (std::int64_t i = 0; i < 6; ++i) {
    root.push_back(sqrt(Digits(in.at("x").value(i))));
    third.push_back(
        (in.at("x").value(i / 3 * 3) + Digits(in.at("x").value(i / 3 * 3 + 1)) + in.at("x").value(i / 3 * 3 + 2)) / 3);
  }
  const Program program = parsed(
      "norm n\nin x:T\npass q = sqrt fp32 x\npass m = mean fp32 x\n"
      "stage\nin x:T q:fp32[rows,cols] m:fp32[rows]\nout y = cast fp32 q\nzero = sub fp32 x, x\nout z = add fp32 zero, "
      "m\n",
      in);
  for (const auto& source : {program_truth, certified_program_truth}) {
    check_truth(*source(program, in, {}, "y"), root);
    check_truth(*source(program, in, {}, "z"), third);
  }
}

TEST_CASE("values of columns seen as rows: one a channel, a sample's, a token's") {
  constexpr std::int64_t kBatch = 2, kTokens = 3, kWidth = 4;
  Tensors in;
  in["x"] = random_tensor(FormatId::fp32, {kBatch, kTokens, kWidth}, 1);
  in["weight"] = random_tensor(FormatId::fp32, {kWidth}, 2);
  in["shift"] = random_tensor(FormatId::fp32, {kBatch, 1, kWidth}, 3);
  in["mean"] = random_tensor(FormatId::fp32, {kBatch, kTokens}, 4);
  for (const std::string view : {"columns", "tokens"}) {
    const std::string text = "norm n\nview " + view +
                             "\nin x:T weight:T shift:T[channels] mean:T[cols]\nd = sub fp32 x, mean\n"
                             "m = mul fp32 d, weight\nout y = add fp32 m, shift\n";
    const Program program = parsed(text, in);
    const Tensor y = emulate(program, in, {}).at("y");
    const auto truth = certified_program_truth(program, in, {}, "y");
    REQUIRE(y.shape == in.at("x").shape);
    REQUIRE(truth->cols() == kWidth);
    std::vector<Enclosure> row(kWidth);
    for (std::int64_t i = 0; i < y.size(); ++i) {
      const std::int64_t c = i % kWidth, n = i / (kTokens * kWidth);
      const float d = at(in.at("x"), i) - at(in.at("mean"), i / kWidth);
      const float m = d * at(in.at("weight"), c);
      CAPTURE(view, i);
      REQUIRE(at(y, i) == m + at(in.at("shift"), n * kWidth + c));
      const double real = (in.at("x").value(i) - in.at("mean").value(i / kWidth)) * in.at("weight").value(c) +
                          in.at("shift").value(n * kWidth + c);
      REQUIRE(std::fabs(truth->enclose(i / kWidth, c).hi - real) <= 0x1p-45);
      truth->enclose_row(i / kWidth, row);
      REQUIRE(row[static_cast<std::size_t>(c)].hi == truth->enclose(i / kWidth, c).hi);
      REQUIRE(truth->enclose(i / kWidth, c).hi == program_truth(program, in, {}, "y")->enclose(i / kWidth, c).hi);
    }
  }
}

TEST_CASE("what a stage passes stands before a tensor that is given, and the last before earlier ones") {
  Tensors in;
  in["x"] = random_tensor(FormatId::fp32, {2, 3}, 1);
  in["m"] = random_tensor(FormatId::fp32, {2}, 2, 100.0);
  const std::string first = "norm n\nin x:T m:T[rows]\nsum = sum fp32 x\n";
  const std::string last = "stage\nin x:T m:fp32[rows]\nout y = sub fp32 x, m\n";
  const auto y = [&](const std::string& middle) {
    const Program program = parsed(first + middle + last, in);
    const Tensor bits = emulate(program, in, {}).at("y");
    for (const auto& source : {program_truth, certified_program_truth}) {
      const auto truth = source(program, in, {}, "y");
      for (std::int64_t i = 0; i < 6; ++i)
        REQUIRE(std::fabs(truth->enclose(i / 3, i % 3).hi - bits.value(i)) <= 0x1p-16);
    }
    return bits;
  };
  const auto sum = [&](std::int64_t row) {
    float total = 0;
    for (std::int64_t c = 0; c < 3; ++c) total += at(in.at("x"), 3 * row + c);
    return total;
  };
  const std::string passed = "pass m = sum\n",
                    again = "stage\nin m:fp32[rows] x:T\ntwice = add fp32 m, m\npass m = twice\n";
  const Tensor given = y("pass n = sum\n"), once = y(passed), twice = y(passed + again);
  for (std::int64_t i = 0; i < 6; ++i) {
    CHECK(at(given, i) == at(in.at("x"), i) - at(in.at("m"), i / 3));
    CHECK(at(once, i) == at(in.at("x"), i) - sum(i / 3));
    CHECK(at(twice, i) == at(in.at("x"), i) - 2 * sum(i / 3));
  }
}

TEST_CASE("a program in stages prints and parses back") {
  const Tensors in = gradient_inputs(FormatId::bf16, {3, 5});
  const Program program = layernorm_gradient(binding_of(in));
  const std::string text = print_program(program);
  CAPTURE(text);
  CHECK(parse_program(text, binding_of(in)) == program);
  CHECK(print_program(parse_program(text, binding_of(in))) == text);
  CHECK_THAT(text, ContainsSubstring("pass r = rstd\n") && ContainsSubstring("stage\nview columns\n") &&
                       ContainsSubstring("pass mean"));
  const Program erased = erase_roundings(program);
  CHECK(choice_ulp(program) == 0);
  for (const Program* stage : stages_of(erased))
    for (const Node& node : stage->nodes)
      if (node.kind != NodeKind::input) CHECK_FALSE(node.rounding.format.has_value());
}

TEST_CASE("bad stages are refused in a sentence") {
  const Tensors in = gradient_inputs(FormatId::bf16, {3, 5});
  CHECK_THAT(refusal("norm n\nin x:T\npass m = mean fp32 x\nstage\nin x:T q:fp32[rows]\nout y = sub T x, q\n", in),
             ContainsSubstring("the tensor 'q' is missing: it is not given and no stage before stage 2 passes it"));
  CHECK_THAT(refusal("norm n\nin x:T\npass m = mean fp32 x\nstage\nin x:T m:bf16[rows]\nout y = sub T x, m\n", in),
             ContainsSubstring("line 5: input 'm' is declared bf16 but stage 1 passes fp32"));
  CHECK_THAT(
      refusal("norm n\nin x:T\npass m = mean fp32 x\nstage\nview columns\nin x:T m:fp32[rows]\nout y = sub T x, m\n",
              in),
      ContainsSubstring("tensor 'm' has shape 3, 5 elements would fit x of shape 3x5"));
  CHECK_THAT(refusal("norm n\nin x:T\nm = mean fp32 x\nstage\nin x:T\nout y = cast T x\n", in),
             ContainsSubstring("line 4: the stage before this line neither puts out nor passes anything"));
  CHECK_THAT(refusal("norm n\nin x:T\npass m = mean fp32 x\n", in), ContainsSubstring("needs a line 'out y"));
  CHECK_THAT(refusal("norm n\nin x:T\nout y = cast T x\nstage\nin x:T\nout y = cast T x\n", in),
             ContainsSubstring("output 'y' is given twice"));
  CHECK_THAT(refusal("norm n\nin x:T\npass q\n", in), ContainsSubstring("unknown value 'q'"));
  Builder builder("n", binding_of(in));
  builder.input("x");
  CHECK_THROWS_AS(builder.next_stage(), ProgramError);
}

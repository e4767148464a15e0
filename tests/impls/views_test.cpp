// Views: which element of which tensor a program's row and column take, in the emulator and in both truths.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <functional>
#include <random>

#include "impls/emulate/emulate.hpp"
#include "reference/certified/programs/program_enclosure.hpp"
#include "reference/exact/program_truth.hpp"
#include "reference/norms/norm.hpp"
#include "reference/program/builder.hpp"
#include "reference/program/layout.hpp"

using namespace norma;
using Catch::Matchers::ContainsSubstring;

namespace {

Tensor fp32_tensor(Shape shape, const std::function<double(std::int64_t)>& value) {
  Tensor t = Tensor::zeros(FormatId::fp32, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i) t.set_code(i, encode(FormatId::fp32, value(i), Overflow::ieee));
  return t;
}

Tensor random_tensor(Shape shape, unsigned seed, double offset = 0) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<double> normal;
  return fp32_tensor(std::move(shape), [&](std::int64_t) { return offset + normal(rng); });
}

float at(const Tensor& t, std::int64_t i) { return static_cast<float>(t.value(i)); }

Program program_of(std::string_view text, const Tensors& tensors) {
  Binding b;
  b.x = tensors.at("x").format;
  for (const auto& [name, t] : tensors)
    if (name != "x") b.formats[name] = t.format;
  return parse_program(text, b);
}

std::string refusal(std::string_view text, const Tensors& tensors, const Attributes& attributes = {}) {
  try {
    emulate(program_of(text, tensors), tensors, attributes);
  } catch (const ProgramError& e) {
    return e.what();
  }
  return "accepted";
}

constexpr std::int64_t kN = 3, kC = 6, kH = 2, kW = 5, kS = kH * kW;

Tensors image() {
  Tensors t;
  t["x"] = random_tensor({kN, kC, kH, kW}, 1, 3.0);
  t["weight"] = random_tensor({kC}, 2, 1.0);
  t["bias"] = random_tensor({kC}, 3);
  t["running_mean"] = random_tensor({kC}, 4);
  t["running_var"] = fp32_tensor({kC}, [](std::int64_t c) { return 0.5 + 0.25 * static_cast<double>(c); });
  return t;
}

/// y = x weight + bias by the channel of each element, in binary32.
void check_channel_map(const Tensors& in, const Tensor& y) {
  REQUIRE(y.shape == in.at("x").shape);
  for (std::int64_t i = 0; i < y.size(); ++i) {
    const std::int64_t c = (i / kS) % kC;
    const float product = at(in.at("x"), i) * at(in.at("weight"), c);
    REQUIRE(at(y, i) == product + at(in.at("bias"), c));
  }
}

/// The largest difference of two truths' midpoints, in units of 2^-45 of the magnitude; shapes must agree.
void check_same_truth(const TruthSource& a, const TruthSource& b) {
  REQUIRE(a.rows() == b.rows());
  REQUIRE(a.cols() == b.cols());
  std::vector<Enclosure> ea(static_cast<std::size_t>(a.cols())), eb = ea;
  std::vector<double> mid(ea.size()), radius(ea.size()), magnitude(ea.size());
  for (std::int64_t row = 0; row < a.rows(); ++row) {
    a.enclose_row(row, ea);
    b.enclose_row(row, eb);
    b.enclose_quick(row, {.mid = mid, .radius = radius, .magnitude = magnitude});
    for (std::size_t j = 0; j < ea.size(); ++j) {
      const Enclosure one = b.enclose(row, static_cast<std::int64_t>(j));
      CAPTURE(row, j, ea[j].hi, eb[j].hi);
      REQUIRE(std::isfinite(ea[j].hi));
      REQUIRE(ea[j].hi == eb[j].hi);
      REQUIRE(one.hi == eb[j].hi);
      REQUIRE(std::fabs(ea[j].lo - eb[j].lo) <= ea[j].radius + eb[j].radius + 0x1p-80 * ea[j].magnitude);
      REQUIRE(std::fabs(mid[j] - ea[j].hi) <= radius[j] + std::fabs(ea[j].lo) + ea[j].radius);
      REQUIRE(b.compare(row, static_cast<std::int64_t>(j), std::nextafter(ea[j].hi, HUGE_VAL), 0) == Comparison::less);
    }
  }
}

constexpr std::string_view kNormalize =
    "mean, var = moments fp32 x\n"
    "d = sub fp32 x, mean\n"
    "r = rsqrt fp32 var + eps\n"
    "n = mul fp32 d, r\n"
    "w = mul fp32 n, weight\n"
    "out y = add fp32 w, bias\n";

std::string normalizing(const std::string& norm, const std::string& view) {
  return "norm " + norm + "\n" + view + "in x:T weight:fp32 bias:fp32 eps\n" + std::string(kNormalize);
}

}  // namespace

TEST_CASE("a vector a column may be given for every sample, or for every element") {
  const std::string text = "norm modulate\nin x:T scale:fp32[cols] shift:fp32[cols]\nm = mul fp32 x, scale\nout y = add fp32 m, shift\n";
  constexpr std::int64_t kRows = 4, kCols = 7;
  for (const Shape& shape : {Shape{kCols}, Shape{kN, kCols}, Shape{kN, 1, kCols}, Shape{kN, kRows, kCols}}) {
    Tensors in;
    in["x"] = random_tensor({kN, kRows, kCols}, 5);
    in["scale"] = random_tensor(shape, 6);
    in["shift"] = random_tensor(shape, 7);
    const Program p = program_of(text, in);
    const Tensor y = emulate(p, in, {}).at("y");
    REQUIRE(y.shape == in.at("x").shape);
    const auto exact = program_truth(p, in, {}, "y");
    const auto fast = certified_program_truth(p, in, {}, "y");
    check_same_truth(*exact, *fast);
    for (std::int64_t i = 0; i < y.size(); ++i) {
      const std::int64_t col = i % kCols, sample = i / (kRows * kCols);
      const std::int64_t k = shape.size() == 1 ? col : element_count(shape) == y.size() ? i : sample * kCols + col;
      const float product = at(in.at("x"), i) * at(in.at("scale"), k);
      REQUIRE(at(y, i) == product + at(in.at("shift"), k));
      const double real = in.at("x").value(i) * in.at("scale").value(k) + in.at("shift").value(k);
      REQUIRE(std::fabs(exact->enclose(i / kCols, col).hi - real) <= 0x1p-50 * (1 + std::fabs(real)));
    }
  }
  Tensors in;
  in["x"] = random_tensor({kN, kRows, kCols}, 5);
  in["shift"] = in["scale"] = random_tensor({kRows, kCols}, 6);
  CHECK_THAT(refusal(text, in), ContainsSubstring("tensor 'scale' has shape 4x7, 7 elements would fit x of shape 3x4x7"));
}

TEST_CASE("a value for each channel meets its channel under every view, and y has x's shape") {
  const Tensors in = image();
  for (const std::string view : {"view groups\n", "view groups channels_last\n", "view channels\n", "view batch\n"}) {
    CAPTURE(view);
    const std::string text = "norm groupnorm\n" + view + "in x:T weight:fp32 bias:fp32\nm = mul fp32 x, weight\nout y = add fp32 m, bias\n";
    const Program p = program_of(text, in);
    CHECK(print_program(p).find(view) != std::string::npos);
    CHECK(program_of(print_program(p), in) == p);
    for (const int threads : {1, 3}) check_channel_map(in, emulate(p, in, {{"groups", 2.0}}, {.nudge_ulp = 0, .threads = threads}).at("y"));
    check_same_truth(*program_truth(p, in, {{"groups", 2.0}}, "y"), *certified_program_truth(p, in, {{"groups", 2.0}}, "y"));
  }
}

TEST_CASE("a value for each channel and sample") {
  Tensors in = image();
  in["scale"] = random_tensor({kN, kC, 1, 1}, 8);
  for (const std::string view : {"view groups\n", "view groups channels_last\n", "view channels\n", "view batch\n"}) {
    CAPTURE(view);
    const Program p = program_of("norm groupnorm\n" + view + "in x:T scale:fp32[channels]\nout y = mul fp32 x, scale\n", in);
    const Tensor y = emulate(p, in, {{"groups", 2.0}}).at("y");
    for (std::int64_t i = 0; i < y.size(); ++i) REQUIRE(at(y, i) == at(in.at("x"), i) * at(in.at("scale"), i / kS));
    check_same_truth(*program_truth(p, in, {{"groups", 2.0}}, "y"), *certified_program_truth(p, in, {{"groups", 2.0}}, "y"));
  }
}

TEST_CASE("sums of a row run over the view's elements in the view's order") {
  const Tensors in = image();
  const Tensor& x = in.at("x");
  const auto sums = [&](const std::string& view) {
    const Program p = program_of("norm groupnorm\n" + view + "in x:T\ns = sum fp32 x\nout sum = cast fp32 s\nout y = cast fp32 x\n", in);
    return emulate(p, in, {{"groups", 2.0}}).at("sum");
  };
  const auto element = [&](std::int64_t n, std::int64_t c, std::int64_t s) { return at(x, (n * kC + c) * kS + s); };
  const Tensor contiguous = sums("view groups\n"), last = sums("view groups channels_last\n");
  const Tensor channels = sums("view channels\n"), batch = sums("view batch\n");
  CHECK(contiguous.shape == Shape{kN, 2});
  CHECK(channels.shape == Shape{kN, kC});
  CHECK(batch.shape == Shape{kC});
  std::int64_t differing = 0;
  for (std::int64_t n = 0; n < kN; ++n)
    for (std::int64_t g = 0; g < 2; ++g) {
      float a = 0, b = 0;
      for (std::int64_t c = 0; c < 3; ++c)
        for (std::int64_t s = 0; s < kS; ++s) a += element(n, 3 * g + c, s);
      for (std::int64_t s = 0; s < kS; ++s)
        for (std::int64_t c = 0; c < 3; ++c) b += element(n, 3 * g + c, s);
      CHECK(at(contiguous, n * 2 + g) == a);
      CHECK(at(last, n * 2 + g) == b);
      differing += a == b ? 0 : 1;
    }
  CHECK(differing > 0);  // else the two orders would not be told apart
  for (std::int64_t c = 0; c < kC; ++c) {
    float a = 0;
    for (std::int64_t n = 0; n < kN; ++n) {
      float b = 0;
      for (std::int64_t s = 0; s < kS; ++s) a += element(n, c, s), b += element(n, c, s);
      CHECK(at(channels, n * kC + c) == b);
    }
    CHECK(at(batch, c) == a);
  }
}

TEST_CASE("the erasure of a program with a view is the canonical norm") {
  struct Row {
    std::string norm, view;
    double groups;
  };
  const Row rows[] = {{"groupnorm", "view groups\n", 2},
                      {"groupnorm", "view groups channels_last\n", 3},
                      {"instancenorm", "view channels\n", 0},
                      {"batchnorm", "view batch\n", 0}};
  const Tensors in = image();
  for (const Row& row : rows) {
    CAPTURE(row.norm, row.view);
    Attributes numbers{{"eps", 1e-5}};
    if (row.groups > 0) numbers["groups"] = row.groups;
    const Program p = program_of(normalizing(row.norm, row.view), in);
    NormCall call{.inputs = &in, .numbers = numbers, .words = {}};
    const auto canonical = truth_of(*find_norm(row.norm), call, "y", TruthKind::mpfr);
    check_same_truth(*canonical, *program_truth(p, in, numbers, "y"));
    check_same_truth(*canonical, *certified_program_truth(p, in, numbers, "y"));
  }
}

TEST_CASE("running statistics: inputs and outputs of a batch view, one value a channel") {
  const Tensors in = image();
  const Program p = program_of(
      "norm batchnorm\nview batch\nin x:T running_mean:fp32 running_var:fp32 momentum\n"
      "mean, var = moments fp32 x\nout y = sub fp32 x, mean\n"
      "keep = const 0.75\n"
      "old = mul fp32 running_mean, keep\nnew = mul fp32 mean, momentum\nnew_mean = add fp32 old, new\nout running_mean = new_mean\n"
      "old_var = mul fp32 running_var, keep\nn1 = sub fp32 N, 1\nunbiased = mul fp32 var, N / n1\n"
      "part = mul fp32 unbiased, momentum\nnew_var = add fp32 old_var, part\nout running_var = new_var\n",
      in);
  const Attributes numbers{{"momentum", 0.25}};
  const Tensors out = emulate(p, in, numbers);
  CHECK(out.at("running_mean").shape == Shape{kC});
  CHECK(out.at("running_var").shape == Shape{kC});
  const NormCall call{.inputs = &in, .numbers = {{"eps", 1e-5}, {"momentum", 0.25}}, .words = {}};
  for (const std::string name : {"running_mean", "running_var"}) {
    const auto canonical = truth_of(*find_norm("batchnorm"), call, name, TruthKind::mpfr);
    check_same_truth(*canonical, *program_truth(p, in, numbers, name));
    check_same_truth(*canonical, *certified_program_truth(p, in, numbers, name));
    for (std::int64_t c = 0; c < kC; ++c) {
      const double y = canonical->enclose(c, 0).hi;
      CHECK(std::fabs(out.at(name).value(c) - y) <= 1e-5 * std::fabs(y));
    }
  }
}

TEST_CASE("a place of the memory order is a place of the program") {
  const Tensors in = image();
  for (const std::string view : {"view groups\n", "view groups channels_last\n", "view channels\n", "view batch\n"}) {
    const PlacedProgram placed = place(program_of("norm groupnorm\n" + view + "in x:T\nout y = cast fp32 x\n", in), in, {{"groups", 3.0}});
    const Layout& l = placed.layout;
    CHECK(l.rows * l.cols == in.at("x").size());
    for (std::int64_t i = 0; i < in.at("x").size(); ++i) {
      const Layout::Place p = l.place_of(i);
      REQUIRE(p.row < l.rows);
      REQUIRE(p.col < l.cols);
      REQUIRE(l.elements.at(p.row, p.col) == i);
    }
  }
}

TEST_CASE("views and tensors that do not fit are refused by one sentence") {
  const Tensors in = image();
  const std::string head = "norm groupnorm\n", tail = "in x:T\nout y = cast fp32 x\n";
  CHECK_THAT(refusal(head + "view group\n" + tail, in), ContainsSubstring("unknown view 'group'; known: rows groups channels batch"));
  CHECK_THAT(refusal(head + "view batch channels_last\n" + tail, in), ContainsSubstring("channels_last orders the columns of a group"));
  CHECK_THAT(refusal(head + "in x:T\nview batch\nout y = cast fp32 x\n", in), ContainsSubstring("before the inputs"));
  CHECK_THAT(refusal(head + "in x:T running_mean:fp32\nout y = sub fp32 x, running_mean\n", in), ContainsSubstring("a value for each channel"));
  CHECK_THAT(refusal(head + "view groups\n" + tail, in), ContainsSubstring("attribute 'groups' is missing"));
  CHECK_THAT(refusal(head + "view groups\n" + tail, in, {{"groups", 4.0}}), ContainsSubstring("must be a whole number that divides the 6 channels"));
  CHECK_THAT(refusal(head + "view groups\nin x:T weight:fp32[rows,channels]\nout y = mul fp32 x, weight\n", in), ContainsSubstring("has channels beside other axes"));
  Tensors flat;
  flat["x"] = random_tensor({7}, 1);
  CHECK_THAT(refusal(head + "view batch\n" + tail, flat), ContainsSubstring("takes samples and channels, [N, C, ...]"));
  Tensors wrong = in;
  wrong["weight"] = random_tensor({kC + 1}, 1);
  CHECK_THAT(refusal(head + "view batch\nin x:T weight:fp32\nout y = mul fp32 x, weight\n", wrong), ContainsSubstring("tensor 'weight' has shape 7, 6 elements would fit"));
}

// The judge must catch every planted fault: by the ideal's bits always, by limits where the fault
// is gross.
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "harness/judge/criteria.hpp"
#include "harness/judge/faults.hpp"
#include "impls/emulate/emulate.hpp"
#include "reference/program/builder.hpp"
#include "tests/harness/hand_made_truth.hpp"

using namespace norma;

namespace {

constexpr std::int64_t kRows = 4, kCols = 64;
constexpr FormatId kFormat = FormatId::bf16;

// y = w x / sqrt(mean(x^2) + eps), small enough for its truth to be written down here: x and w have
// few bits and the eps is large, so that each fault shows.
struct Call {
  Tensors inputs;
  Attributes numbers = {{"eps", 0x1p-7}};
};

Call call() {
  Call made;
  Tensor x = Tensor::zeros(kFormat, {kRows, kCols}), weight = Tensor::zeros(kFormat, {kCols});
  for (std::int64_t i = 0; i < kRows * kCols; ++i) {
    const double value = static_cast<double>((i * 37 + i / kCols * 11) % 101 - 50) / 64.0;
    x.set_code(i, encode(kFormat, value == 0 ? 0.125 : value, Overflow::ieee));
  }
  for (std::int64_t i = 0; i < kCols; ++i) {
    weight.set_code(i, encode(kFormat, 0.5 + static_cast<double>(i) / 32, Overflow::ieee));
  }
  made.inputs = {{"x", x}, {"weight", weight}};
  return made;
}

/// In binary64: good to 2^-50, which is what this truth claims to be exactly.
std::vector<HandMade> truth_of(const Call& c) {
  const Tensor& x = c.inputs.at("x");
  const Tensor& weight = c.inputs.at("weight");
  std::vector<HandMade> y;
  for (std::int64_t row = 0; row < kRows; ++row) {
    double squares = 0;
    for (std::int64_t col = 0; col < kCols; ++col) {
      squares += x.value(row * kCols + col) * x.value(row * kCols + col);
    }
    const double r = 1 / std::sqrt(squares / kCols + c.numbers.at("eps"));
    for (std::int64_t col = 0; col < kCols; ++col) {
      y.push_back({.hi = weight.value(col) * x.value(row * kCols + col) * r});
    }
  }
  return y;
}

Program program() {
  Binding binding{.x = kFormat, .formats = {{"weight", kFormat}}, .attributes = {}, .cols = kCols, .profile = {}};
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x"), weight = b.input("weight"), eps = b.attribute("eps");
  const Operand ms =
      b.reduce("ms", kFp32, x, {.kind = ReduceKind::mean, .term = Term::square, .order = {}, .term_format = {}});
  const Operand r = b.rsqrt("r", kFp32, b.add("v", kFp32, ms, eps));
  const Operand n = b.mul("n", kFp32, x, r);
  b.output("y", b.mul("y", b.x_format(), n, weight));
  return b.finish();
}

Tensor run(const Call& c, const Program& p = program()) { return emulate(p, c.inputs, c.numbers).at("y"); }

Measures measured(const Tensor& got) {
  const HandMadeTruth truth(kRows, kCols, truth_of(call()));
  const Tensor ideal = run(call());
  return measure(truth, nullptr, &ideal, got, Overflow::ieee);
}

Verdict judged(const Tensor& got, std::string_view criterion) {
  const std::vector<NamedMeasures> outputs = {{"y", measured(got)}};
  const std::vector<Criterion> criteria = {parse_criterion(criterion)};
  return judge(outputs, criteria);
}

/// The output with the fault planted.
Tensor faulty(const Fault& fault) {
  Call c = call();
  if (fault.in_call != nullptr) {
    REQUIRE(fault.in_call(c.inputs, c.numbers));
    return run(c);
  }
  if (fault.in_program != nullptr) {
    Program p = program();
    REQUIRE(fault.in_program(p));
    REQUIRE_FALSE(p == program());
    return run(c, p);
  }
  Tensor output = run(c);
  REQUIRE(fault.in_output(output));
  return output;
}

}  // namespace

// The honest path rounds in fp32 and then once to bf16: hardly more than half an ulp.
TEST_CASE("the honest output passes by bits and by limits") {
  CHECK(judged(run(call()), "differing<=0").kind == VerdictKind::pass);
  CHECK(judged(run(call()), "max_ulp<=0.51").kind == VerdictKind::pass);
}

TEST_CASE("every planted fault is caught by the ideal's bits") {
  for (const Fault& fault : all_faults()) {
    CAPTURE(fault.name);
    CHECK(judged(faulty(fault), "differing<=0").kind == VerdictKind::fail);
    CHECK(judged(faulty(fault), "max_ulp<=0.51").kind == VerdictKind::fail);
  }
}

TEST_CASE("every gross fault is caught by a generous limit too") {
  for (const Fault& fault : all_faults()) {
    if (!fault.gross) continue;
    CAPTURE(fault.name);
    CHECK(judged(faulty(fault), "max_ulp<=4").kind == VerdictKind::fail);
  }
}

TEST_CASE("a limit wide enough for zeros makes the check vacuous, not passed") {
  CHECK(judged(run(call()), "max_ulp<=256").kind == VerdictKind::vacuous);
  CHECK(judged(faulty(*find_fault("all_zeros")), "max_ulp<=256").kind == VerdictKind::vacuous);
}

TEST_CASE("a fault that cannot be planted changes nothing and says so") {
  Tensor one_row = Tensor::zeros(kFormat, {1, 4});
  CHECK_FALSE(find_fault("swapped_rows")->in_output(one_row));
  Tensor equal_rows = Tensor::zeros(kFormat, {2, 4});
  CHECK_FALSE(find_fault("swapped_rows")->in_output(equal_rows));
  CHECK(equal_rows.bytes == Tensor::zeros(kFormat, {2, 4}).bytes);
  Tensors inputs;
  Attributes numbers;
  CHECK_FALSE(find_fault("wrong_eps")->in_call(inputs, numbers));
  CHECK_FALSE(find_fault("dropped_weight")->in_call(inputs, numbers));
  Program empty;
  CHECK_FALSE(find_fault("early_cast")->in_program(empty));
}

TEST_CASE("the canary of an unwritten tail is far from any norm's value in every format") {
  for (const Format& format : all_formats()) {
    CAPTURE(format.name);
    Tensor output = Tensor::zeros(format.id, {2, 16});
    REQUIRE(find_fault("unwritten_tail")->in_output(output));
    CHECK(output.code(29) == 0);
    const double large = std::min(100.0, max_finite(format.id) / 2 - 1);
    CHECK(output.value(30) > large);
    CHECK(output.value(31) > large);
    CHECK(std::isfinite(output.value(31)));
  }
}

TEST_CASE("each fault has one way in, a name of its own and a title") {
  for (const Fault& fault : all_faults()) {
    CAPTURE(fault.name);
    CHECK((fault.in_output != nullptr) + (fault.in_call != nullptr) + (fault.in_program != nullptr) == 1);
    CHECK(find_fault(fault.name) == &fault);
    CHECK_FALSE(fault.title.empty());
  }
}

// Programs as data: the text form, the builder's rules, erasure.
#include "reference/program/program.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <random>

#include "reference/program/builder.hpp"

using namespace norma;
using Catch::Matchers::ContainsSubstring;

namespace {

Binding half_binding() {
  Binding b;
  b.x = FormatId::bf16;
  b.formats["weight"] = FormatId::fp32;
  b.cols = 64;
  return b;
}

std::string refusal(std::string_view text) {
  try {
    parse_program(text, half_binding());
  } catch (const ProgramError& e) {
    return e.what();
  }
  return "accepted";
}

constexpr std::string_view kHead = "norm rmsnorm\nin x:T weight:W eps\n";

std::string after_head(const std::string& lines) { return refusal(std::string(kHead) + lines); }

/// A program of random steps over what stands before.
Program random_program(unsigned seed) {
  std::mt19937 rng(seed);
  const auto below = [&](std::size_t n) { return static_cast<int>(rng() % n); };
  const View views[] = {{}, {.pairing = Pairing::half, .rotary = 6}, {.pairing = Pairing::interleaved}};
  Builder p("rmsnorm", half_binding(), views[below(std::size(views))]);
  std::vector<Operand> values{p.input("x"), p.input("weight"), p.attribute("eps")};
  if (below(2) == 0) values.push_back(p.count());
  const FormatRef formats[] = {kFp64, kFp32, kBf16, kFp16, {FormatId::e4m3fn}, p.x_format(), p.binding().format("weight")};
  std::vector<Operand> with_columns{values[0]};
  const int steps = 3 + below(8);
  for (int i = 0; i < steps; ++i) {
    const std::string name = "v" + std::to_string(i);
    const FormatRef to = formats[below(std::size(formats))];
    const auto any = [&] { return values[static_cast<std::size_t>(below(values.size()))]; };
    switch (below(6)) {
      case 0: values.push_back(p.constant(name, std::ldexp(static_cast<double>(rng()), below(80) - 60) * (below(2) == 0 ? -1 : 1))); break;
      case 1: {
        const OrderRow& order = all_orders()[static_cast<std::size_t>(below(11))];  // those that sum
        Reduction r{.kind = below(2) == 0 ? ReduceKind::sum : ReduceKind::mean,
                    .term = below(2) == 0 ? Term::value : Term::square,
                    .order = {.kind = order.kind, .count = order.count.empty() ? 0 : 1 << below(6), .vec = order.vec ? 1 + below(8) : 0},
                    .contract = below(3) == 0,
                    .term_format = {}};
        if (below(3) == 0) r.term_format = formats[below(std::size(formats))];
        values.push_back(p.reduce(name, to, with_columns[static_cast<std::size_t>(below(with_columns.size()))], r));
        break;
      }
      case 2: {
        const Operand both = p.moments(name + "m", name + "v", kFp32, values[0],
                                       {.kind = OrderKind::welford_warp, .count = 32, .vec = 4}, below(2) == 0);
        values.push_back(both);
        values.push_back({both.node, 1});
        break;
      }
      default: {
        const OpRow& op = all_ops()[static_cast<std::size_t>(below(all_ops().size()))];
        Rounding rounding{.format = to, .overflow = static_cast<Overflow>(below(4)), .within_ulp = below(4) == 0 ? 2 : 0};
        const Operand a = any(), b = any(), c = any();
        const Operand made = op.arity == 1   ? p.map(name, op.op, rounding, {a})
                             : op.arity == 2 ? p.map(name, op.op, rounding, {a, b})
                                             : p.map(name, op.op, rounding, {a, b, c});
        values.push_back(made);
      }
    }
  }
  const Operand count = p.count();  // the text has no place for a count that nothing uses
  p.output("y", p.map("y", Op::fma, formats[below(std::size(formats))], {values[0], values.back(), count}));
  if (below(2) == 0) p.output("residual", values[values.size() / 2]);
  return p.finish();
}

}  // namespace

TEST_CASE("the text that the design shows is a program") {
  Binding b = half_binding();
  b.formats["weight"] = FormatId::bf16;
  const Program p = parse_program(
      "norm rmsnorm\n"
      "in   x:T weight:T eps\n"
      "ms  = mean fp32 square(x)  order=warp(32,vec=8)   # thread-strided\n"
      "r   = rsqrt fp32 ms + eps\n"
      "n   = mul T x, r\n"
      "out y = mul T n, weight\n",
      b);
  CHECK(p.norm == "rmsnorm");
  CHECK(print_program(p) ==
        "norm rmsnorm\n"
        "in   x:T weight:T eps\n"
        "ms    = mean fp32 square(x)  order=warp(32,vec=8)\n"
        "r.1   = add fp32 ms, eps\n"
        "r     = rsqrt fp32 r.1\n"
        "n     = mul T x, r\n"
        "out y = mul T n, weight\n");
  CHECK(parse_program(print_program(p), b) == p);
}

TEST_CASE("parse and print are inverse on random programs") {
  for (unsigned seed = 0; seed < 2000; ++seed) {
    const Program p = random_program(seed);
    const std::string text = print_program(p);
    CAPTURE(seed, text);
    const Program again = parse_program(text, half_binding());
    REQUIRE(again == p);
    REQUIRE(print_program(again) == text);
  }
}

TEST_CASE("exp, tanh and erf are operations like the others") {
  const Program p = parse_program("norm gelu\nin x:T\nt = tanh fp32 0.5 * x\nout y = mul T x, exp(-erf(t))\n", half_binding());
  CHECK(print_program(p) ==
        "norm gelu\n"
        "in   x:T\n"
        "t.c1  = const 0.5\n"
        "t.2   = mul fp32 t.c1, x\n"
        "t     = tanh fp32 t.2\n"
        "y.1   = erf T t\n"
        "y.2   = neg T y.1\n"
        "y.3   = exp T y.2\n"
        "out y = mul T x, y.3\n");
  CHECK(parse_program(print_program(p), half_binding()) == p);
  for (const Op op : {Op::exp, Op::tanh, Op::erf, Op::sin, Op::cos}) {
    CHECK(row_of(op).arity == 1);
    CHECK_FALSE(row_of(op).onnx.empty());
    CHECK(find_op(row_of(op).name) == op);
  }
  CHECK(rounds(p, p.find_value("t")->node));
  CHECK_FALSE(rounds(erase_roundings(p), p.find_value("t")->node));
  CHECK_THAT(after_head("out y = exp T x, x\n"), ContainsSubstring("exp takes 1 operand(s), 2 given"));
}

TEST_CASE("every order prints as it is read") {
  for (const OrderRow& row : all_orders()) {
    Order order{.kind = row.kind, .count = row.count.empty() ? 0 : 8, .vec = row.vec ? 4 : 0};
    CHECK(parse_order(text_of(order)) == order);
  }
  CHECK_THROWS_WITH(parse_order("spiral(3)"), ContainsSubstring("unknown; known: exact sequential"));
  CHECK_THROWS_WITH(parse_order("warp(24)"), ContainsSubstring("power of two, got 24"));
  CHECK_THROWS_WITH(parse_order("lanes"), ContainsSubstring("write lanes(lanes)"));
  CHECK_THROWS_WITH(parse_order("lanes(0)"), ContainsSubstring("1 to 1048576"));
}

TEST_CASE("a malformed program is refused with its line and what is known") {
  CHECK_THAT(refusal(""), ContainsSubstring("begins with a line 'norm NAME'"));
  CHECK_THAT(refusal("in x:T\n"), ContainsSubstring("line 1: a program begins with 'norm NAME'"));
  CHECK_THAT(after_head("n = mul fp32 x, weight\n"), ContainsSubstring("needs a line 'out y"));
  CHECK_THAT(after_head("out y = muul T x, weight\n"), ContainsSubstring("line 3: unknown operation 'muul'; known: const"));
  CHECK_THAT(after_head("out y = mul fp31 x, weight\n"), ContainsSubstring("unknown format 'fp31'; known: T W exact fp64"));
  CHECK_THAT(after_head("out y = mul T x, wait\n"), ContainsSubstring("unknown value 'wait'; known so far: x weight eps N"));
  CHECK_THAT(after_head("out y = mul T x\n"), ContainsSubstring("mul takes 2 operand(s), 1 given"));
  CHECK_THAT(after_head("x = cast T x\n"), ContainsSubstring("'x' is given to two values"));
  CHECK_THAT(after_head("s = sum fp32 eps\n"), ContainsSubstring("sum needs a value with columns"));
  CHECK_THAT(after_head("s = sum fp32 x order=welford\n"), ContainsSubstring("order welford is for moments only"));
  CHECK_THAT(after_head("m = moments fp32 x\n"), ContainsSubstring("gives 2 value(s), 1 named"));
  CHECK_THAT(after_head("out y = cast T/clip x\n"), ContainsSubstring("unknown overflow policy 'clip'"));
  CHECK_THAT(after_head("out y = cast T x x\n"), ContainsSubstring("'x' is left over"));
  CHECK_THAT(refusal("norm rmsnorm\nin x:fp32\nout y = cast T x\n"), ContainsSubstring("declared fp32 but the tensor is bf16"));
  CHECK_THAT(refusal("norm rmsnorm\nin x:T gate:T\nout y = cast T x\n"), ContainsSubstring("input 'gate' needs its axes"));
}

TEST_CASE("erasure removes every rounding, order and contraction, and nothing else") {
  for (unsigned seed = 0; seed < 200; ++seed) {
    const Program p = random_program(seed);
    const Program erased = erase_roundings(p);
    REQUIRE(erased.nodes.size() == p.nodes.size());
    for (std::size_t i = 0; i < p.nodes.size(); ++i) {
      CHECK(erased.nodes[i].names == p.nodes[i].names);
      CHECK(erased.nodes[i].operands == p.nodes[i].operands);
      if (p.nodes[i].kind == NodeKind::input) CHECK(erased.nodes[i] == p.nodes[i]);
      else CHECK_FALSE(erased.nodes[i].rounding.format.has_value());
      CHECK_FALSE(rounds(erased, static_cast<int>(i)));
      CHECK_FALSE(erased.nodes[i].reduction.contract);
      CHECK_FALSE(erased.nodes[i].reduction.term_format.has_value());
      if (p.nodes[i].kind == NodeKind::reduce) CHECK(erased.nodes[i].reduction.order.kind == OrderKind::exact);
    }
    CHECK(erase_roundings(erased) == erased);
  }
}

TEST_CASE("formats promote as torch's table has it") {
  CHECK(promote(kBf16, kFp16).id == FormatId::fp32);
  CHECK(promote(kBf16, kFp32).id == FormatId::fp32);
  CHECK(promote(kFp64, kFp16).id == FormatId::fp64);
  CHECK(promote(kBf16, kBf16).id == FormatId::bf16);
  CHECK(promote({FormatId::e4m3fn}, {FormatId::e4m3fn}).id == FormatId::e4m3fn);
  CHECK_THROWS_AS(promote({FormatId::e4m3fn}, kBf16), ProgramError);
}

TEST_CASE("one eager operation rounds to fp32 and then once to the tensor's format") {
  Builder p("rmsnorm", half_binding());
  const Operand x = p.input("x");
  p.output("y", p.eager("y", Op::add, p.x_format(), {x, x}));
  CHECK(print_program(p.finish()) == "norm rmsnorm\nin   x:T\ny_f32 = add fp32 x, x\nout y = cast T y_f32\n");
  Builder wide("rmsnorm", half_binding());
  const Operand w = wide.input("weight");
  wide.output("y", wide.eager("y", Op::add, kFp32, {w, w}));
  CHECK(print_program(wide.finish()) == "norm rmsnorm\nin   weight:W\nout y = add fp32 weight, weight\n");
}

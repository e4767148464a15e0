// Intervals and the evaluator of programs: they contain the exact value, and follow IEEE rules beyond the reals.
#include "reference/exact/real.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "reference/exact/program_truth.hpp"
#include "reference/exact/separation.hpp"
#include "reference/norms/rmsnorm.hpp"
#include "tests/reference/rational.hpp"

namespace norma::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// An end of an interval as a rational.
Rational rational(const Real& r) {
  if (mpfr_zero_p(r.get()) != 0) return 0;
  mpz_t n;
  mpz_init(n);
  const mpfr_exp_t exponent = mpfr_get_z_2exp(n, r.get());
  char* digits = mpz_get_str(nullptr, 10, n);
  const cpp_int value(digits);
  std::free(digits);
  mpz_clear(n);
  return Rational(value) * power_of_two(static_cast<int>(exponent));
}

bool contains(const Interval& i, const Rational& v) { return rational(i.lo) <= v && v <= rational(i.hi); }

// lo <= sqrt(v) <= hi for nonnegative ends
bool contains_root(const Interval& i, const Rational& v) {
  const Rational lo = rational(i.lo), hi = rational(i.hi);
  return lo * lo <= v && v <= hi * hi;
}

double random_double(Random& random) {
  const double m = 1 + std::ldexp(static_cast<double>(random.next() >> 12), -52);
  const double v = std::ldexp(random.below(4) == 0 ? std::floor(m * 8) : m, random.between(-60, 60));
  return random.below(2) == 0 ? v : -v;
}

// An interval that is not a point: 53-bit values rounded outward to few bits, of any sign.
Interval random_interval(Random& random, Rational& inside) {
  const double a = random_double(random), b = random.below(3) == 0 ? -a * 0.5 : a * (1 + 0x1p-12);
  Interval i(a, 53);
  mpfr_set_d(i.lo.get(), std::min(a, b), MPFR_RNDD);
  mpfr_set_d(i.hi.get(), std::max(a, b), MPFR_RNDU);
  const Rational t(static_cast<int>(random.below(9)), 8);
  inside = test::rational(a) * t + test::rational(b) * (1 - t);
  return i;
}

TEST_CASE("interval operations contain the exact result for every pair of values inside") {
  Random random{10};
  for (int repeat = 0; repeat < 3000; ++repeat) {
    Rational u, v;
    const Interval a = random_interval(random, u), b = random_interval(random, v);
    REQUIRE(contains(add(a, b), u + v));
    REQUIRE(contains(sub(a, b), u - v));
    REQUIRE(contains(mul(a, b), u * v));
    REQUIRE(contains(neg(a), -u));
    REQUIRE(contains(abs(a), u < 0 ? Rational(-u) : u));
    REQUIRE(contains(square(a), u * u));
    REQUIRE(contains(max(a, b), std::max(u, v)));
    REQUIRE(contains(min(a, b), std::min(u, v)));
    REQUIRE(contains(fmax(a, b), std::max(u, v)));
    const Interval terms[] = {a, b, a, a};
    REQUIRE(contains(sum(terms, 53), 3 * u + v));
    const Interval q = div(a, b);
    if (contains(b, 0))
      REQUIRE(q.is_unknown());
    else
      REQUIRE(contains(q, u / v));
    if (rational(a.lo) > 0) {
      REQUIRE(contains_root(sqrt(a), u));
      REQUIRE(contains_root(rsqrt(a), 1 / u));
    } else {
      REQUIRE((rational(a.hi) < 0 ? rsqrt(a).is_nan() : rsqrt(a).is_unknown()));
    }
  }
}

TEST_CASE("operations on points round each end by less than one unit") {
  Random random{11};
  const Rational width = power_of_two(-157);
  for (int repeat = 0; repeat < 2000; ++repeat) {
    const double x = random_double(random), y = random_double(random);
    const Interval a(x, 160), b(y, 160);
    for (const Interval& i : {add(a, b), sub(a, b), mul(a, b), div(a, b), square(a), rsqrt(abs(a)), sqrt(abs(a))}) {
      const Rational lo = rational(i.lo), hi = rational(i.hi);
      REQUIRE(hi - lo <= width * abs(lo));
      REQUIRE(lo <= hi);
    }
    REQUIRE(mul(a, b).is_point());
    REQUIRE(square(a).is_point());
  }
}

// What IEEE arithmetic gives, in binary64; exact here, so rounding does not matter.
bool same(const Interval& i, double v) {
  if (std::isnan(v)) return i.is_nan();
  if (i.is_nan() || i.is_unknown()) return false;
  const double lo = mpfr_get_d(i.lo.get(), MPFR_RNDN), hi = mpfr_get_d(i.hi.get(), MPFR_RNDN);
  return lo == v && hi == v && std::signbit(lo) == std::signbit(v) && std::signbit(hi) == std::signbit(v);
}

TEST_CASE("points follow IEEE 754 on infinities, NaN and signed zeros") {
  const double values[] = {0.0, -0.0, 1.0, -1.0, 4.0, -4.0, kInfinity, -kInfinity, kNaN};
  for (double x : values) {
    const Interval a(x, 64);
    CAPTURE(x);
    REQUIRE(same(neg(a), -x));
    REQUIRE(same(abs(a), std::fabs(x)));
    REQUIRE(same(square(a), x * x));
    REQUIRE(same(sqrt(a), std::sqrt(x)));
    REQUIRE(same(rsqrt(a), 1 / std::sqrt(x)));
    for (double y : values) {
      const Interval b(y, 64);
      CAPTURE(y);
      REQUIRE(same(add(a, b), x + y));
      REQUIRE(same(sub(a, b), x - y));
      REQUIRE(same(mul(a, b), x * y));
      REQUIRE(same(div(a, b), x / y));
      const bool nan = std::isnan(x) || std::isnan(y);
      const double larger = x == y ? (std::signbit(x) ? y : x) : std::max(x, y);  // max(-0, 0) = 0
      const double smaller = x == y ? (std::signbit(x) ? x : y) : std::min(x, y);
      REQUIRE(same(max(a, b), nan ? kNaN : larger));
      REQUIRE(same(min(a, b), nan ? kNaN : smaller));
      REQUIRE(same(fmax(a, b), std::isnan(x) ? y : std::isnan(y) ? x : larger));
      REQUIRE(same(fmin(a, b), std::isnan(x) ? y : std::isnan(y) ? x : smaller));
      const Interval terms[] = {a, b};
      REQUIRE(same(sum(terms, 64), x + y));
    }
  }
}

TEST_CASE("an interval that may be zero divides to nothing known, not to a wrong bound") {
  Interval straddling(1.0, 64);
  mpfr_set_d(straddling.lo.get(), -1, MPFR_RNDN);
  const Interval one(1.0, 64), zero(0.0, 64), infinite(kInfinity, 64);
  REQUIRE(div(one, straddling).is_unknown());
  REQUIRE(rsqrt(straddling).is_unknown());
  REQUIRE(sqrt(straddling).is_unknown());
  REQUIRE(div(straddling, zero).is_unknown());
  REQUIRE(mul(straddling, infinite).is_unknown());
  const Interval unsigned_zero = div(straddling, infinite);
  REQUIRE(mpfr_signbit(unsigned_zero.lo.get()) != mpfr_signbit(unsigned_zero.hi.get()));
  REQUIRE(add(Interval::unknown(64), one).is_unknown());
  REQUIRE(add(Interval::unknown(64), Interval(kNaN, 64)).is_nan());
  REQUIRE(enclosure_of(Interval::unknown(64)).radius == kInfinity);
}

TEST_CASE("exponents are wide in every thread") {
  const auto power = [] {
    Interval x(0x1p1000, 64);
    for (int i = 0; i < 30; ++i) x = square(x);
    for (int i = 0; i < 30; ++i) x = sqrt(x);
    return same(x, 0x1p1000);
  };
  REQUIRE(power());
  bool elsewhere = false;
  std::thread thread([&] { elsewhere = power(); });
  thread.join();
  REQUIRE(elsewhere);
}

TEST_CASE("dyadic arithmetic is exact, and refuses what is not a number") {
  Random random{12};
  for (int repeat = 0; repeat < 2000; ++repeat) {
    const double x = std::ldexp(random_double(random), random.between(-900, 900)), y = random_double(random);
    const Dyadic a(x), b(y);
    const Rational u = test::rational(x), v = test::rational(y);
    REQUIRE(rational((a + b).real()) == u + v);
    REQUIRE(rational((a - b * a).real()) == u - v * u);
    REQUIRE(rational((square(a + b) - square(a)).real()) == (u + v) * (u + v) - u * u);
    REQUIRE(order(a, b) == (u > v) - (u < v));
  }
  REQUIRE_THROWS_AS(Dyadic(kInfinity), std::logic_error);
  REQUIRE_THROWS_AS(Dyadic(kNaN), std::logic_error);
}

TEST_CASE("the double-double midpoint and its radius hold the whole interval") {
  Random random{13};
  for (int repeat = 0; repeat < 5000; ++repeat) {
    const mpfr_prec_t bits = 80 + 40 * static_cast<mpfr_prec_t>(random.below(4));
    // Down to subnormals and up to overflow.
    const int exponent = random.between(-1140, 1010);
    Interval i = div(Interval(random_double(random), bits), Interval(random_double(random), bits));
    if (random.below(2) == 0) i = mul(i, add(Interval(1.0, bits), Interval(0x1p-60, bits)));
    mpfr_mul_2si(i.lo.get(), i.lo.get(), exponent, MPFR_RNDD);
    mpfr_mul_2si(i.hi.get(), i.hi.get(), exponent, MPFR_RNDU);
    const Enclosure e = enclosure_of(i);
    REQUIRE(std::isfinite(e.hi));
    REQUIRE(is_double_double(e.hi, e.lo));
    if (std::isinf(e.radius)) {
      REQUIRE(std::fabs(e.hi) == std::numeric_limits<double>::max());
      continue;
    }
    const Rational middle = test::rational(e.hi) + test::rational(e.lo), radius = test::rational(e.radius);
    REQUIRE(middle - radius <= rational(i.lo));
    REQUIRE(rational(i.hi) <= middle + radius);
    const Rational half_width = (rational(i.hi) - rational(i.lo)) / 2;
    REQUIRE(radius <= half_width * Rational(11, 10) + abs(middle) * power_of_two(-105) + power_of_two(-1074));
  }
  REQUIRE(std::signbit(enclosure_of(Interval(-0.0, 64)).hi));
  REQUIRE(enclosure_of(Interval(-kInfinity, 64)).hi == -kInfinity);
  REQUIRE(std::isnan(enclosure_of(Interval(kNaN, 64)).hi));
  // 2^1024 is a real number that binary64 cannot hold.
  const Enclosure beyond = enclosure_of(mul(Interval(0x1p1023, 64), Interval(2.0, 64)));
  REQUIRE(beyond.hi == std::numeric_limits<double>::max());
  REQUIRE(beyond.radius == kInfinity);
}

// ---- separation bounds ----

Real integer(const cpp_int& n) {
  Real r(400);
  mpfr_set_str(r.get(), n.str().c_str(), 10, MPFR_RNDN);
  return r;
}

TEST_CASE("no algebraic number lies between zero and its separation bound, and the bound is nearly attained") {
  // 25 N = 2^200 - 1, so 5 2^-100 is as near to 1 / sqrt(N) as it can be: about 2^-299.
  const cpp_int n = ((cpp_int(1) << 200) - 1) / 25;
  REQUIRE(n * 25 == (cpp_int(1) << 200) - 1);
  const Real big = integer(n);
  const Interval m(0x5p-100, 1000);
  Interval wide(1000);
  mpfr_set(wide.lo.get(), big.get(), MPFR_RNDN);
  mpfr_set(wide.hi.get(), big.get(), MPFR_RNDN);
  const Interval difference = abs(sub(rsqrt(wide), m));
  const double size = static_cast<double>(mpfr_get_exp(difference.lo.get()));  // |difference| < 2^size
  const double bits = separation_bits(sum_or_difference(
      quotient(algebraic(Real(1.0, 53).get()), root(algebraic(big.get()), 0)), algebraic(m.lo.get())));
  REQUIRE(-size < bits);
  REQUIRE(bits < -size + 16);

  // Pell: a^2 - 2 b^2 = +-1, a / b the convergents of sqrt(2).
  double a = 1, b = 1;
  for (int k = 0; k < 35; ++k) {
    const Interval pell = abs(sub(Interval(a, 400), mul(Interval(b, 400), sqrt(Interval(2.0, 400)))));
    const double pell_bits = separation_bits(sum_or_difference(
        algebraic(Real(a, 53).get()), product(algebraic(Real(b, 53).get()), root(algebraic(Real(2.0, 53).get()), 0))));
    const double pell_size = static_cast<double>(mpfr_get_exp(pell.lo.get()));
    REQUIRE(-pell_size < pell_bits);
    REQUIRE(pell_bits < -pell_size + 16);
    const double next = a + 2 * b;
    b = a + b;
    a = next;
  }

  // One root more doubles the degree, and a root counts once however often it stands.
  const Algebraic two = root(algebraic(Real(2.0, 53).get()), 0), three = root(algebraic(Real(3.0, 53).get()), 1);
  REQUIRE(separation_bits(sum_or_difference(two, three)) > 2 * separation_bits(sum_or_difference(two, two)));
}

// ---- programs ----

Node input(const std::string& name, Axes axes) {
  return {.kind = NodeKind::input, .names = {name}, .axes = axes, .rounding = {}, .operands = {}, .reduction = {}};
}
Node map(const std::string& name, Op op, Axes axes, std::vector<Operand> operands) {
  return {.kind = NodeKind::map,
          .names = {name},
          .axes = axes,
          .rounding = {.format = FormatRef{FormatId::bf16}},
          .op = op,
          .operands = std::move(operands),
          .reduction = {}};
}
Node reduced(const std::string& name, ReduceKind kind, Term term, Operand of) {
  return {.kind = NodeKind::reduce,
          .names = {name},
          .axes = kRows,
          .rounding = {.format = FormatRef{FormatId::bf16}},
          .operands = {of},
          .reduction = {.kind = kind, .term = term, .order = {}, .term_format = {}}};
}
Node attribute(const std::string& name) {
  return {.kind = NodeKind::attribute, .names = {name}, .axes = {}, .rounding = {}, .operands = {}, .reduction = {}};
}

// y = bf16(bf16(x bf16(rsqrt(bf16(mean(x^2)) + eps))) + bias), whose roundings do not count.
Program rmsnorm_program() {
  Program p{.norm = "rmsnorm", .nodes = {}, .outputs = {}};
  p.nodes = {input("x", kRowsCols),
             reduced("ms", ReduceKind::mean, Term::square, {0, 0}),
             attribute("eps"),
             map("v", Op::add, kRows, {{1, 0}, {2, 0}}),
             map("r", Op::rsqrt, kRows, {{3, 0}}),
             map("n", Op::mul, kRowsCols, {{0, 0}, {4, 0}}),
             input("bias", kCols),
             map("s", Op::add, kRowsCols, {{5, 0}, {6, 0}}),
             map("y", Op::cast, kRowsCols, {{7, 0}})};
  p.outputs = {{"y", {8, 0}}, {"r", {4, 0}}, {"n", {5, 0}}};
  return p;
}

Tensors rmsnorm_inputs() {
  return {{"x", tensor(FormatId::bf16, {2, 3}, {1.0, -2.0, 3.0, 0x1p-30, 0.0, 5.0})},
          {"bias", tensor(FormatId::bf16, {3}, {1.0, 0.0, -1.25})}};
}

TEST_CASE("a program's truth ignores its roundings and holds the real function") {
  const Program p = rmsnorm_program();
  const Tensors in = rmsnorm_inputs();
  const Attributes at{{"eps", 1e-5}};
  const auto y = program_truth(p, in, at, "y");
  const auto r = program_truth(p, in, at, "r");
  REQUIRE(y->rows() == 2);
  REQUIRE(y->cols() == 3);
  REQUIRE(r->cols() == 1);
  for (std::int64_t row = 0; row < 2; ++row) {
    Rational v = test::rational(1e-5);
    for (int j = 0; j < 3; ++j)
      v += test::rational(in.at("x").value(row * 3 + j)) * test::rational(in.at("x").value(row * 3 + j)) / 3;
    std::vector<Enclosure> out(3);
    y->enclose_row(row, out);
    for (int j = 0; j < 3; ++j) {
      // y - b = x / sqrt(v): both sides squared, with x's sign
      const Enclosure& e = out[static_cast<std::size_t>(j)];
      const Rational x = test::rational(in.at("x").value(row * 3 + j)), b = test::rational(in.at("bias").value(j));
      const auto signed_square = [](const Rational& t) { return t < 0 ? Rational(-t * t) : Rational(t * t); };
      const Rational middle = test::rational(e.hi) + test::rational(e.lo) - b, radius = test::rational(e.radius);
      REQUIRE(signed_square(middle - radius) * v <= signed_square(x));
      REQUIRE(signed_square(middle + radius) * v >= signed_square(x));
      REQUIRE(e.radius <= 0x1p-100 * e.magnitude);
      REQUIRE(e.magnitude >= std::fabs(in.at("bias").value(j)));
      REQUIRE(y->compare(row, j, e.hi, e.lo + 0x1p-90) == Comparison::less);
      REQUIRE(y->compare(row, j, e.hi, e.lo - 0x1p-90) == Comparison::greater);
    }
  }
}

TEST_CASE("a program that means rmsnorm has the canonical norm's truth") {
  const Program p = rmsnorm_program();
  Random random{14};
  for (int repeat = 0; repeat < 40; ++repeat) {
    const std::int64_t cols = 1 + static_cast<std::int64_t>(random.below(40));
    Tensors in{{"x", Tensor::zeros(FormatId::fp32, {2, cols})}, {"bias", Tensor::zeros(FormatId::bf16, {cols})}};
    for (std::int64_t i = 0; i < 2 * cols; ++i) {
      // Any codes: NaN, infinities, subnormals.
      const std::uint64_t code = random.below(5) == 0 ? 0 : random.next() >> 32;
      in.at("x").set_code(i, repeat % 4 == 0 ? code : code & 0xbfff'ffff);
    }
    for (std::int64_t i = 0; i < cols; ++i) in.at("bias").set_code(i, random.next() >> 48);
    const double eps = repeat % 3 == 0 ? 0.0 : 1e-6;
    const NormCall call{.inputs = &in, .numbers = {{"eps", eps}}, .words = {}};
    const auto canonical = rmsnorm.truth(call, "y");
    const auto program = program_truth(p, in, {{"eps", eps}}, "y");
    std::vector<Enclosure> a(static_cast<std::size_t>(cols)), b(static_cast<std::size_t>(cols));
    for (std::int64_t row = 0; row < 2; ++row) {
      canonical->enclose_row(row, a);
      program->enclose_row(row, b);
      for (std::size_t j = 0; j < a.size(); ++j) {
        CAPTURE(repeat, row, j, a[j].hi, b[j].hi);
        if (!std::isfinite(a[j].hi) || !std::isfinite(b[j].hi)) {
          REQUIRE((std::isnan(a[j].hi) ? std::isnan(b[j].hi) : a[j].hi == b[j].hi));
          continue;
        }
        const Rational left = test::rational(a[j].hi) + test::rational(a[j].lo);
        const Rational right = test::rational(b[j].hi) + test::rational(b[j].lo);
        REQUIRE(abs(left - right) <= test::rational(a[j].radius) + test::rational(b[j].radius));
        REQUIRE(a[j].magnitude == b[j].magnitude);
        if (a[j].hi == 0) REQUIRE(std::signbit(a[j].hi) == std::signbit(b[j].hi));
      }
    }
  }
}

TEST_CASE("a program's truth decides ties, of dyadic values and of others") {
  const Program p = rmsnorm_program();
  const Tensors in{{"x", tensor(FormatId::bf16, {2, 2}, {4.0, 4.0, 3.0, 3.0})},
                   {"bias", tensor(FormatId::bf16, {2}, {0.0, 0x1p-8})}};
  const auto y = program_truth(p, in, {{"eps", 0.0}}, "y");
  REQUIRE(y->compare(0, 0, 1.0, 0) == Comparison::equal);
  REQUIRE(y->compare(0, 1, 1.0, 0x1p-8) == Comparison::equal);
  REQUIRE(y->compare(0, 1, 1.0, 0x1.1p-8) == Comparison::less);
  // 3 * rsqrt(9): no step of it is exact.
  REQUIRE(y->compare(1, 0, 1.0, 0) == Comparison::equal);
  REQUIRE(y->compare(1, 0, 1.0, 0x1p-900) == Comparison::less);
  REQUIRE(y->compare(1, 1, 1.0, 0x1p-8) == Comparison::equal);
  // With eps the same row is next to a tie: 1 - eps/18, however small eps is.
  for (double eps : {0x1p-100, 0x1p-400, 0x1p-1000}) {
    const auto near = program_truth(p, in, {{"eps", eps}}, "y");
    REQUIRE(near->compare(1, 0, 1.0, 0) == Comparison::less);
    REQUIRE(near->compare(0, 0, 1.0, 0) == Comparison::less);
  }
}

TEST_CASE("a mean over a count that is no power of two is still decided") {
  // Both rows have mean(x^2) = 25.
  const Program p = rmsnorm_program();
  const Tensors in{{"x", tensor(FormatId::fp32, {2, 3}, {5.0, -5.0, 5.0, 7.0, 1.0, 5.0})},
                   {"bias", tensor(FormatId::fp32, {3}, {0.0, 0.0, 0x1p-24})}};
  const auto y = program_truth(p, in, {{"eps", 0.0}}, "y");
  REQUIRE(y->compare(0, 1, -1.0, 0) == Comparison::equal);
  REQUIRE(y->compare(0, 2, 1.0, 0x1p-24) == Comparison::equal);
  // 7/5 is no dyadic number, so it equals none.
  REQUIRE(y->compare(1, 0, 1.4, 0) == Comparison::greater);
  const auto n = program_truth(p, in, {{"eps", 0x1p-60}}, "n");
  REQUIRE(n->compare(1, 2, 1.0, 0) == Comparison::less);
}

TEST_CASE("a program's truth tells numbers apart that differ after two thousand bits") {
  // eps = 2^-1074 against a mean of 9 * 2^1000.
  const Program p = rmsnorm_program();
  const Tensors in{{"x", tensor(FormatId::fp64, {1, 3}, {0x3p500, 0x3p500, 0x3p500})},
                   {"bias", tensor(FormatId::fp64, {3}, {0.0, 0.0, 0x1p-1074})}};
  const auto y = program_truth(p, in, {{"eps", 0x1p-1074}}, "y");
  REQUIRE(y->compare(0, 0, 1.0, 0) == Comparison::less);
  REQUIRE(y->compare(0, 2, 1.0, 0) == Comparison::greater);
}

TEST_CASE("a tie without a separation bound is undecided, not equal") {
  // The sum of 3 * rsqrt(9) and its negative: terms that are not exact have no bound here.
  Program p = rmsnorm_program();
  p.nodes.push_back(reduced("total", ReduceKind::sum, Term::value, {5, 0}));
  p.outputs = {{"y", {9, 0}}};
  const Tensors in{{"x", tensor(FormatId::bf16, {1, 2}, {3.0, -3.0})}, {"bias", tensor(FormatId::bf16, {2}, {0, 0})}};
  const auto y = program_truth(p, in, {{"eps", 0.0}}, "y");
  REQUIRE(y->compare(0, 0, 0.0, 0) == Comparison::undecided);
  REQUIRE(y->compare(0, 0, 0x1p-1000, 0) == Comparison::less);
}

TEST_CASE("a value that is a binary64 number is handed out exactly") {
  const Program p = rmsnorm_program();
  const Tensors in{{"x", tensor(FormatId::bf16, {1, 2}, {3.0, -3.0})}, {"bias", tensor(FormatId::bf16, {2}, {0, 1})}};
  const auto y = program_truth(p, in, {{"eps", 0.0}}, "y");
  Enclosure out[2];
  y->enclose_row(0, out);
  REQUIRE((out[0].hi == 1 && out[0].lo == 0 && out[0].radius == 0));
  REQUIRE((out[1].hi == 0 && out[1].lo == 0 && out[1].radius == 0));
  REQUIRE(out[1].magnitude == 2);
}

TEST_CASE("overridden steps stand as given, and prefixes of them telescope") {
  const Program p = rmsnorm_program();
  const Tensors in = rmsnorm_inputs();
  const RowEvaluator rows(p, in, {{"eps", 0.0}});
  const auto exact = rows.enclose({8, 0}, 0);
  const auto given_r = rows.enclose({8, 0}, 0, {{4, {0.5}}});
  REQUIRE(given_r[0].hi == 1.5);
  REQUIRE(given_r[1].hi == -1.0);
  REQUIRE(given_r[2].hi == 0.25);
  REQUIRE(given_r[2].magnitude == 2.75);
  REQUIRE(exact[0].hi != given_r[0].hi);
  const auto given_n = rows.enclose({8, 0}, 0, {{4, {0.5}}, {5, {1.0, 2.0, 3.0}}});
  REQUIRE(given_n[2].hi == 1.75);
  REQUIRE_THROWS_AS(rows.enclose({8, 0}, 0, {{5, {1.0}}}), ProgramError);
  // What stands before an override does not matter.
  const auto nan_behind = rows.enclose({8, 0}, 0, {{1, {kNaN}}, {4, {0.5}}});
  REQUIRE(nan_behind[0].hi == 1.5);
}

TEST_CASE("reduces: sum, mean, amax and moments") {
  Program p{.norm = "", .nodes = {}, .outputs = {}};
  Node moments = reduced("mean", ReduceKind::moments, Term::value, {0, 0});
  moments.names = {"mean", "var"};
  p.nodes = {input("x", kRowsCols),
             reduced("sum", ReduceKind::sum, Term::value, {0, 0}),
             reduced("amax", ReduceKind::amax, Term::value, {0, 0}),
             moments,
             {.kind = NodeKind::count, .names = {"N"}, .axes = {}, .rounding = {}, .operands = {}, .reduction = {}}};
  p.outputs = {{"sum", {1, 0}}, {"amax", {2, 0}}, {"mean", {3, 0}}, {"var", {3, 1}}, {"N", {4, 0}}};
  const Tensors in{{"x", tensor(FormatId::fp32, {4, 3}, {1, 2, -6, 7, 7, 7, 1, kInfinity, -5, 0, kNaN, 1})}};
  const auto value = [&](const std::string& output, std::int64_t row) {
    Enclosure e;
    program_truth(p, in, {}, output)->enclose_row(row, std::span(&e, 1));
    return e;
  };
  REQUIRE(value("sum", 0).hi == -3);
  REQUIRE(value("amax", 0).hi == 6);
  REQUIRE(value("mean", 0).hi == -1);
  REQUIRE(value("var", 0).hi == 38.0 / 3);
  REQUIRE(value("var", 1).hi == 0);
  REQUIRE(value("var", 1).radius == 0);
  REQUIRE(value("sum", 2).hi == kInfinity);
  REQUIRE(value("amax", 2).hi == kInfinity);
  REQUIRE(std::isnan(value("var", 2).hi));
  REQUIRE(std::isnan(value("amax", 3).hi));
  REQUIRE(value("N", 0).hi == 3);
}

TEST_CASE("precision is raised until a cancelling value is known relative to itself") {
  // d = sqrt(1 + h) + sqrt(1 - h) - 2 = -h^2/4 - 5 h^4/64 - ...: 104 bits of the roots cancel.
  const double h = 0x1p-52;
  Program p{.norm = "", .nodes = {}, .outputs = {}};
  p.nodes = {input("x", kRowsCols),
             input("z", kRowsCols),
             map("a", Op::sqrt, kRowsCols, {{0, 0}}),
             map("b", Op::sqrt, kRowsCols, {{1, 0}}),
             map("s", Op::add, kRowsCols, {{2, 0}, {3, 0}}),
             attribute("two"),
             map("d", Op::sub, kRowsCols, {{4, 0}, {5, 0}}),
             map("y", Op::neg, kRowsCols, {{6, 0}})};
  p.outputs = {{"y", {7, 0}}, {"d", {6, 0}}};
  const Tensors in{{"x", tensor(FormatId::fp64, {1, 1}, {1 + h})}, {"z", tensor(FormatId::fp64, {1, 1}, {1 - h})}};
  Enclosure y, d;
  program_truth(p, in, {{"two", 2}}, "y")->enclose_row(0, std::span(&y, 1));
  REQUIRE(y.hi == h * h / 4);
  REQUIRE(y.lo == 5 * h * h * h * h / 64);
  REQUIRE(y.radius <= 0x1p-100 * y.hi);
  REQUIRE(y.magnitude == y.hi);
  // As a sum its scale is |a| + |b| + |2|, and the first precision does.
  program_truth(p, in, {{"two", 2}}, "d")->enclose_row(0, std::span(&d, 1));
  REQUIRE(d.magnitude == 4);
  REQUIRE(d.radius <= 0x1p-100 * d.magnitude);
  REQUIRE(d.radius > 0x1p-100 * std::fabs(d.hi));
}

TEST_CASE("a program's truth names what is missing") {
  const Program p = rmsnorm_program();
  Tensors in = rmsnorm_inputs();
  REQUIRE_THROWS_AS(program_truth(p, in, {}, "y"), ProgramError);
  REQUIRE_THROWS_AS(program_truth(p, in, {{"eps", 0.0}}, "q"), ProgramError);
  in.at("bias") = Tensor::zeros(FormatId::bf16, {2});
  REQUIRE_THROWS_AS(program_truth(p, in, {{"eps", 0.0}}, "y"), ProgramError);
  in.erase("bias");
  REQUIRE_THROWS_AS(program_truth(p, in, {{"eps", 0.0}}, "y"), ProgramError);
}

}  // namespace
}  // namespace norma::test

// The emulator: every operation against exact arithmetic, every order against a loop written out or against what
// torch itself returned.
#include "impls/emulate/emulate.hpp"

#include <mpfr.h>

#include <boost/multiprecision/cpp_int.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <random>

#include "harness/inputs/safetensors.hpp"
#include "impls/emulate/arithmetic.hpp"
#include "impls/emulate/choices.hpp"
#include "impls/emulate/functions.hpp"
#include "impls/emulate/orders.hpp"
#include "reference/formats/convert.hpp"

using namespace norma;

namespace {

using Rational = boost::multiprecision::cpp_rational;

Rational exact(double v) { return Rational(v); }

/// RN to a format by comparing an exact rational with the format's own neighbours; shares nothing with `encode`.
double nearest_in(FormatId id, const Rational& v) {
  const Format& f = format_of(id);
  const bool negative = v < 0;
  const Rational a = negative ? Rational(-v) : v;
  std::uint64_t low = 0;
  std::uint64_t high = f.max_finite_code();
  if (a >= exact(decode(id, high))) {
    const Rational half_ulp = (exact(decode(id, high)) - exact(decode(id, high - 1))) / 2;
    const bool beyond = a > exact(decode(id, high)) + half_ulp || (a == exact(decode(id, high)) + half_ulp && (high & 1) != 0);
    const double largest = decode(id, high);
    const double result = beyond ? (f.has_infinity() ? HUGE_VAL : std::nan("")) : largest;
    return negative ? -result : result;
  }
  while (high - low > 1) {
    const std::uint64_t middle = low + (high - low) / 2;
    (exact(decode(id, middle)) <= a ? low : high) = middle;
  }
  const Rational below = a - exact(decode(id, low));
  const Rational above = exact(decode(id, high)) - a;
  const std::uint64_t code = below < above || (below == above && (low & 1) == 0) ? low : high;
  const double result = decode(id, code);
  return negative ? -result : result;
}

bool same(double a, double b) { return (a != a && b != b) || a == b; }

double random_value(std::mt19937_64& rng, FormatId id) {
  const Format& f = format_of(id);
  for (;;) {
    const double v = decode(id, rng() & (f.sign_code() | f.magnitude_mask()));
    if (std::isfinite(v)) return v;
  }
}

Tensor tensor_of(FormatId format, const std::vector<double>& values) {
  Tensor t = Tensor::zeros(format, {1, static_cast<std::int64_t>(values.size())});
  for (std::size_t i = 0; i < values.size(); ++i) t.set_code(static_cast<std::int64_t>(i), encode(format, values[i], Overflow::ieee));
  return t;
}

const SafetensorsFile& torch_ops(const std::string& format) {
  static std::map<std::string, SafetensorsFile> files;
  auto& file = files[format];
  if (file.entries.empty()) file = open_safetensors(NORMA_SOURCE_DIR "/tests/golden/captures/torch_ops." + format + ".safetensors");
  return file;
}

/// One Reduce over the rows of x, as a program's only step, then rounded once to T.
Tensor reduced(const Tensor& x, const std::string& step) {
  Binding b;
  b.x = x.format;
  const Program p = parse_program("norm rmsnorm\nin x:T\n" + step + "\nout s = cast T r\nout y = mul fp32 x, r\n", b);
  Tensors in;
  in["x"] = x;
  return emulate(p, in, {}).at("s");
}

std::int64_t differing(const Tensor& a, const Tensor& b) {
  REQUIRE(a.size() == b.size());
  REQUIRE(a.format == b.format);
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < a.size(); ++i) count += a.code(i) == b.code(i) ? 0 : 1;
  return count;
}

constexpr int kLengths[] = {1, 7, 8, 9, 31, 64, 100, 576, 1000, 3072, 5000};

}  // namespace

TEST_CASE("every operation is rounded once, whatever the formats") {
  std::mt19937_64 rng(1);
  const FormatId sources[] = {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn};
  const FormatId targets[] = {FormatId::fp32, FormatId::tf32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2fnuz};
  std::int64_t compared = 0;
  for (int n = 0; n < 4000; ++n) {
    const FormatId source = sources[n % 4];
    double a = random_value(rng, source), b = random_value(rng, source), c = random_value(rng, source);
    if (n % 3 == 0) b = a * (1 + std::ldexp(1.0, -static_cast<int>(rng() % 20)));  // near-cancelling sums
    for (const FormatId target : targets) {
      const auto check = [&](Op op, const Rational& want) {
        CAPTURE(row_of(op).name, name_of(target), a, b, c);
        REQUIRE(same(rounded_op(op, a, b, c, target, Overflow::ieee), nearest_in(target, want)));
        ++compared;
      };
      check(Op::add, exact(a) + exact(b));
      check(Op::sub, exact(a) - exact(b));
      check(Op::mul, exact(a) * exact(b));
      check(Op::square, exact(a) * exact(a));
      check(Op::fma, exact(a) * exact(b) + exact(c));
      if (b != 0) check(Op::div, exact(a) / exact(b));
      if (a != 0) check(Op::reciprocal, 1 / exact(a));
      check(Op::cast, exact(a));
      check(Op::max, exact(std::max(a, b)));
      check(Op::min, exact(std::min(a, b)));
    }
  }
  CHECK(compared > 200'000);
}

TEST_CASE("binary64 operands are rounded once to a narrow format, also where binary64 lands on its midpoint") {
  std::mt19937_64 rng(8);
  std::int64_t on_midpoint = 0;
  for (int n = 0; n < 3000; ++n) {
    // A midpoint m of bf16 (9 bits), and operands whose exact result is next to it.
    const double m = static_cast<double>(257 + 2 * (rng() % 127)) * 0x1p-8;
    const double a = 1 + static_cast<double>(rng() >> 12) * 0x1p-52;
    const double b = m / a;
    const double c = m - a;
    const double d = a * m;
    const FormatId target = n % 2 == 0 ? FormatId::bf16 : FormatId::fp16;
    CAPTURE(m, a, name_of(target));
    REQUIRE(rounded_op(Op::mul, a, b, 0, target, Overflow::ieee) == nearest_in(target, exact(a) * exact(b)));
    REQUIRE(rounded_op(Op::div, d, a, 0, target, Overflow::ieee) == nearest_in(target, exact(d) / exact(a)));
    REQUIRE(rounded_op(Op::add, a, c, 0, target, Overflow::ieee) == nearest_in(target, exact(a) + exact(c)));
    REQUIRE(rounded_op(Op::add, m, a * 0x1p-60, 0, target, Overflow::ieee) == nearest_in(target, exact(m) + exact(a) / exact(0x1p60)));
    REQUIRE(rounded_op(Op::fma, a, b, 0x1p-70, target, Overflow::ieee) == nearest_in(target, exact(a) * exact(b) + exact(0x1p-70)));
    on_midpoint += a * b == m && exact(a) * exact(b) != exact(m) ? 1 : 0;
  }
  CHECK(on_midpoint > 500);  // the case that a second rounding would get wrong does occur
}

TEST_CASE("roots are rounded once: the result's midpoints lie on the right sides of the exact root") {
  std::mt19937_64 rng(2);
  for (int n = 0; n < 20000; ++n) {
    const double a = std::fabs(random_value(rng, n % 2 == 0 ? FormatId::fp32 : FormatId::fp16));
    if (a == 0) continue;
    for (const FormatId target : {FormatId::fp32, FormatId::bf16, FormatId::fp16}) {
      for (const bool reciprocal : {false, true}) {
        const double got = rounded_op(reciprocal ? Op::rsqrt : Op::sqrt, a, 0, 0, target, Overflow::ieee);
        if (!std::isfinite(got) || got == 0) continue;  // beyond a narrow range
        const std::uint64_t code = encode(target, got, Overflow::ieee);
        const Rational low = (exact(got) + exact(decode(target, code - 1))) / 2;
        const Rational high = (exact(got) + exact(decode(target, code + 1))) / 2;
        if (!std::isfinite(decode(target, code + 1))) continue;
        CAPTURE(a, name_of(target), reciprocal, got);
        // low <= sqrt(a) <= high, or low <= 1/sqrt(a) <= high.
        const Rational square_low = reciprocal ? Rational(low * low * exact(a)) : Rational(low * low / exact(a));
        const Rational square_high = reciprocal ? Rational(high * high * exact(a)) : Rational(high * high / exact(a));
        REQUIRE(square_low <= 1);
        REQUIRE(square_high >= 1);
      }
    }
  }
}

TEST_CASE("rsqrt is correctly rounded for all positive binary32 numbers", "[exhaustive][nightly]") {
  constexpr std::size_t kBlock = 4096;
  std::vector<float> x(kBlock), r(kBlock);
  std::uint64_t wrong = 0;
  for (std::uint64_t first = 1; first < 0x7f80'0000; first += kBlock) {
    for (std::size_t i = 0; i < kBlock; ++i)
      x[i] = std::bit_cast<float>(static_cast<std::uint32_t>(std::min<std::uint64_t>(first + i, 0x7f7f'ffff)));
    fp32_op(Op::rsqrt, x.data(), nullptr, nullptr, r.data(), kBlock);
    for (std::size_t i = 0; i < kBlock; ++i) {
      // The midpoints m beside r have 25 bits, m^2 is exact in binary64, and a fused m^2 x - 1 has the right sign.
      const double below = (static_cast<double>(r[i]) + static_cast<double>(std::nextafterf(r[i], 0))) / 2;
      const double above = (static_cast<double>(r[i]) + static_cast<double>(std::nextafterf(r[i], HUGE_VALF))) / 2;
      const double v = static_cast<double>(x[i]);
      wrong += std::fma(below * below, v, -1.0) <= 0 && std::fma(above * above, v, -1.0) >= 0 ? 0 : 1;
    }
  }
  CHECK(wrong == 0);
}

namespace {

using MpfrFunction = int (*)(mpfr_ptr, mpfr_srcptr, mpfr_rnd_t);
MpfrFunction mpfr_function(Op op) {
  switch (op) {
    case Op::exp: return mpfr_exp;
    case Op::tanh: return mpfr_tanh;
    case Op::sin: return mpfr_sin;
    case Op::cos: return mpfr_cos;
    default: return mpfr_erf;
  }
}

Rational rational_of(mpfr_srcptr y) {
  mpz_t digits;
  mpz_init(digits);
  const auto exponent = static_cast<long>(mpfr_get_z_2exp(digits, y));
  char* text = mpz_get_str(nullptr, 16, digits);
  const bool negative = text[0] == '-';
  boost::multiprecision::cpp_int whole(std::string("0x") + (negative ? text + 1 : text));
  std::free(text);
  mpz_clear(digits);
  if (negative) whole = -whole;
  const boost::multiprecision::cpp_int power = boost::multiprecision::cpp_int(1) << std::labs(exponent);
  return exponent < 0 ? Rational(whole, power) : Rational(whole * power);
}

/// f(a) by MPFR at 600 bits, as a rational; its own error does not matter beside a midpoint of 54 bits.
Rational function_by_mpfr(Op op, double a) {
  mpfr_t y;
  mpfr_init2(y, 600);
  mpfr_set_d(y, a, MPFR_RNDN);
  mpfr_function(op)(y, y, MPFR_RNDN);
  const Rational value = rational_of(y);
  mpfr_clear(y);
  return value;
}

constexpr Op kIncreasing[] = {Op::exp, Op::tanh, Op::erf};
constexpr Op kFunctions[] = {Op::exp, Op::tanh, Op::erf, Op::sin, Op::cos};

}  // namespace

TEST_CASE("elementary functions are rounded once, in every format") {
  std::mt19937_64 rng(11);
  const FormatId targets[] = {FormatId::fp64, FormatId::fp32, FormatId::tf32,   FormatId::bf16,
                              FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2fnuz};
  const auto check = [&](Op op, double a, FormatId target) {
    CAPTURE(row_of(op).name, name_of(target), a);
    REQUIRE(same(rounded_op(op, a, 0, 0, target, Overflow::ieee), nearest_in(target, function_by_mpfr(op, a))));
  };
  for (int n = 0; n < 800; ++n) {
    const double spread = std::ldexp(1.0, static_cast<int>(rng() % (n % 2 == 0 ? 16 : 160)) - (n % 2 == 0 ? 6 : 150));
    double a = (static_cast<double>(rng() >> 11) * 0x1p-53 * 2 - 1) * spread;
    if (n % 3 == 0) a = static_cast<double>(static_cast<float>(a));
    if (n % 5 == 0) a = decode(FormatId::bf16, encode(FormatId::bf16, a, Overflow::ieee));
    for (const Op op : kFunctions) check(op, a, targets[static_cast<std::size_t>(n) % std::size(targets)]);
  }
  // Results next to a midpoint m: the argument is m's pre-image to 53 bits, and its neighbours.
  for (int n = 0; n < 60; ++n) {
    const double m = static_cast<double>(257 + 2 * (rng() % 127)) * 0x1p-9;  // between 1/2 and 1, 9 bits
    for (const Op op : kIncreasing) {
      double low = -1, high = 6;
      for (int k = 0; k < 80; ++k) {
        const double middle = (low + high) / 2;
        const double y = op == Op::exp ? std::exp(middle) : op == Op::tanh ? std::tanh(middle) : std::erf(middle);
        (y < m ? low : high) = middle;
      }
      check(op, low, FormatId::bf16);
      check(op, high, FormatId::bf16);
    }
    // tanh(x) below x by x^3/3, where x is a midpoint
    for (const int e : {-10, -29, -31, -100, -140}) check(Op::tanh, std::ldexp(m, e), FormatId::bf16);
  }
  // Near a midpoint of binary64 to some 2^-112 of itself (Lefevre and Muller's search); ends of binary64's range.
  for (const double a : {0x1.9e9cbbfd6080bp-31, -0x1.e8bdbfcd9144ep+3, 0x1.62e42fefa39efp+9, -0x1.74385446d71c3p+9,
                         -0x1.74910d52d3052p+9, 709.7, -708.4, -745.2})
    for (const FormatId target : targets) check(Op::exp, a, target);
  // Next to multiples of pi/2 (the second the nearest of all binary64 numbers), large, and where 1 - cos is next to nothing.
  for (const double a : {0x1.921fb54442d18p+1, 0x1.6ac5b262ca1ffp+849, 0x1.6c6cbc45dc8dep+5, 1e22, 0x1p1000, 0x1p-20, 0x1p-29,
                         -0x1p-31, 710.0, 1048576.5})
    for (const FormatId target : targets)
      for (const Op op : {Op::sin, Op::cos}) check(op, a, target);
}

TEST_CASE("powers are rounded once, half-way points included") {
  std::mt19937_64 rng(13);
  const FormatId targets[] = {FormatId::fp64, FormatId::fp32, FormatId::bf16, FormatId::fp16};
  const auto check = [&](double x, double y, FormatId target) {
    mpfr_t z, e;
    mpfr_inits2(600, z, e, static_cast<mpfr_ptr>(nullptr));
    mpfr_set_d(z, x, MPFR_RNDN);
    mpfr_set_d(e, y, MPFR_RNDN);
    mpfr_pow(z, z, e, MPFR_RNDN);
    CAPTURE(x, y, name_of(target));
    REQUIRE(same(rounded_op(Op::pow, x, y, 0, target, Overflow::ieee), nearest_in(target, rational_of(z))));
    mpfr_clears(z, e, static_cast<mpfr_ptr>(nullptr));
  };
  for (int n = 0; n < 600; ++n) {
    const double x = n % 2 == 0 ? 10000 : std::ldexp(1 + static_cast<double>(rng() >> 11) * 0x1p-53, static_cast<int>(rng() % 41) - 20);
    const double y = (static_cast<double>(rng() >> 11) * 0x1p-53 * 2 - 1) * (n % 3 == 0 ? 30 : 1);
    for (const FormatId target : targets) check(x, y, target);
  }
  for (int k = 0; k <= 64; ++k)
    for (const FormatId target : targets) check(10000, static_cast<double>(k) / 64, target), check(10000, -static_cast<double>(k) / 64, target);
  // 4097^2 and 257^2 lie half-way between numbers of fp32 and bf16; roots; a half of the least subnormal.
  for (const auto& [x, y] : {std::pair{4097.0, 2.0}, {257.0, 2.0}, {4097.0 * 4097.0, 1.0}, {std::pow(4097.0, 4), 0.5}, {2.0, -150.0},
                             {2.0, -149.5}, {0.25, 0.5}, {81.0, 0.75}, {3.0, 33.0}, {3.0, -1.0}, {2.0, 127.99}, {2.0, 1023.5}})
    for (const FormatId target : targets) check(x, y, target);
  for (const auto& [x, y] : {std::pair{-2.0, 2.0}, {0.0, 1.0}, {HUGE_VAL, 1.0}, {2.0, HUGE_VAL}, {std::nan(""), 0.0}})
    CHECK(std::isnan(rounded_op(Op::pow, x, y, 0, FormatId::fp32, Overflow::ieee)));
}

TEST_CASE("the steps behind elementary functions err by less than is assumed of them") {
  std::mt19937_64 rng(12);
  double worst[3] = {0, 0, 0};
  for (int n = 0; n < 1500; ++n) {
    const double a = (static_cast<double>(rng() >> 11) * 0x1p-53 * 2 - 1) * std::ldexp(7.5, -static_cast<int>(rng() % 30));
    for (const Op op : kFunctions) {
      mpfr_t y, error;
      mpfr_inits2(600, y, error, static_cast<mpfr_ptr>(nullptr));
      mpfr_set_d(y, a, MPFR_RNDN);
      mpfr_function(op)(y, y, MPFR_RNDN);
      const int bits[] = {53, 113, 400};
      for (std::size_t k = 0; k < 3; ++k) {
        mpfr_set(error, y, MPFR_RNDN);
        for (const double term : unrounded_function(op, a, bits[k])) mpfr_sub_d(error, error, term, MPFR_RNDN);
        mpfr_div(error, error, y, MPFR_RNDN);
        worst[k] = std::max(worst[k], std::fabs(mpfr_get_d(error, MPFR_RNDA)));
      }
      mpfr_clears(y, error, static_cast<mpfr_ptr>(nullptr));
    }
  }
  CAPTURE(std::log2(worst[0]), std::log2(worst[1]), std::log2(worst[2]));
  CHECK(worst[0] < 0x1p-40 * 0x1p-5);
  CHECK(worst[1] < 0x1p-100 * 0x1p-5);
  CHECK(worst[2] < 0x1p-380 * 0x1p-5);
}

TEST_CASE("elementary functions have IEEE's limits and signs") {
  const double inf = HUGE_VAL;
  for (const FormatId target : {FormatId::fp64, FormatId::fp32, FormatId::bf16}) {
    const auto f = [&](Op op, double a) { return rounded_op(op, a, 0, 0, target, Overflow::ieee); };
    CHECK(f(Op::exp, inf) == inf);
    CHECK(f(Op::exp, 1000) == inf);
    CHECK(f(Op::exp, -inf) == 0);
    CHECK_FALSE(std::signbit(f(Op::exp, -1e30)));
    CHECK(f(Op::exp, -0.0) == 1);
    for (const Op op : {Op::tanh, Op::erf}) {
      CHECK(f(op, inf) == 1);
      CHECK(f(op, -1e30) == -1);
      CHECK(std::signbit(f(op, -0.0)));
      CHECK_FALSE(std::signbit(f(op, 0.0)));
    }
    for (const Op op : kFunctions) CHECK(std::isnan(f(op, std::nan(""))));
    for (const Op op : {Op::sin, Op::cos}) CHECK(std::isnan(f(op, -inf)));
    CHECK(f(Op::cos, -0.0) == 1);
    CHECK(std::signbit(f(Op::sin, -0.0)));
  }
  CHECK(rounded_op(Op::exp, 1000, 0, 0, FormatId::fp16, Overflow::saturate_finite) == 65504);
  CHECK(rounded_op(Op::exp, inf, 0, 0, FormatId::fp16, Overflow::saturate_finite) == inf);
}

TEST_CASE("a function that is only accurate within some ulp is nudged like a root") {
  Binding b;
  b.x = FormatId::bf16;
  const Program p = parse_program("norm rmsnorm\nin x:T\ne = exp fp32 x within=2\nout y = cast fp32 e\n", b);
  Tensors in;
  in["x"] = tensor_of(FormatId::bf16, {-1, 0, 0.5, 3});
  CHECK(choice_ulp(p) == 2);
  const Tensor plain = emulate(p, in, {}).at("y");
  const Tensor up = emulate(p, in, {}, {.nudge_ulp = 5, .threads = 1}).at("y");
  for (std::int64_t i = 0; i < 4; ++i) {
    CHECK(plain.value(i) == rounded_op(Op::exp, in.at("x").value(i), 0, 0, FormatId::fp32, Overflow::ieee));
    CHECK(up.code(i) == plain.code(i) + 2);
  }
}

TEST_CASE("the range of a cosine holds what its angle's range makes, where it turns too") {
  Binding b;
  b.x = FormatId::fp32;
  const Program p = parse_program("norm turn\nin x:T\ne = exp fp32 x within=1\nc = cos fp32 e within=1\nout y = sin fp32 c\n", b);
  REQUIRE(choice_kind(p) == ChoiceKind::range);
  // ln of multiples of pi, where cos turns; of others; of a large one.
  Tensors in;
  in["x"] = tensor_of(FormatId::fp32, {std::log(3.141592653589793), std::log(6.283185307179586), std::log(9.42477796076938), 0.25, 1.3, 6.9, -3, 23});
  const OutputRange range = emulate_range(p, in, {});
  const Tensor &low = range.low.at("y"), &high = range.high.at("y");
  for (std::int64_t i = 0; i < low.size(); ++i) {
    const double e = rounded_op(Op::exp, in.at("x").value(i), 0, 0, FormatId::fp32, Overflow::ieee);
    for (const int k : {-1, 0, 1})
      for (const int j : {-1, 0, 1}) {
        const double c = rounded_op(Op::cos, nudge(FormatId::fp32, e, k), 0, 0, FormatId::fp32, Overflow::ieee);
        const double y = rounded_op(Op::sin, nudge(FormatId::fp32, c, j), 0, 0, FormatId::fp32, Overflow::ieee);
        CAPTURE(i, k, j);
        CHECK(low.value(i) <= y);
        CHECK(y <= high.value(i));
      }
    if (i < 7) CHECK(high.value(i) - low.value(i) < 1e-3);
  }
  // -1 and 1 themselves: between the ends of the angles' range the cosine is there.
  for (const std::int64_t i : {0, 2}) CHECK(low.value(i) <= rounded_op(Op::sin, -1, 0, 0, FormatId::fp32, Overflow::ieee));
  CHECK(high.value(1) >= rounded_op(Op::sin, 1, 0, 0, FormatId::fp32, Overflow::ieee));
  // Twice 2^30 and more: nothing is known but [-1, 1].
  CHECK(low.value(7) <= rounded_op(Op::sin, -1, 0, 0, FormatId::fp32, Overflow::ieee));
}

TEST_CASE("rows of fp32 operations are the single operations") {
  std::mt19937_64 rng(3);
  std::vector<float> a(999), b(999), c(999), out(999);
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<float>(random_value(rng, FormatId::fp32));
    b[i] = static_cast<float>(random_value(rng, FormatId::fp32));
    c[i] = static_cast<float>(random_value(rng, FormatId::fp32));
  }
  a[5] = b[6] = std::nanf("");
  a[7] = HUGE_VALF;
  for (const OpRow& row : all_ops()) {
    fp32_op(row.op, a.data(), b.data(), c.data(), out.data(), out.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      CAPTURE(row.name, a[i], b[i], c[i]);
      REQUIRE(same(static_cast<double>(out[i]), rounded_op(row.op, static_cast<double>(a[i]), static_cast<double>(b[i]),
                                                           static_cast<double>(c[i]), FormatId::fp32, Overflow::ieee)));
    }
  }
}

TEST_CASE("torch's own sums and means of fp32 rows are reproduced in every bit") {
  for (const int d : kLengths) {
    const std::string site = "reduce.D" + std::to_string(d);
    const Tensor x = read_tensor(torch_ops("fp32"), site + ".x");
    CAPTURE(d);
    CHECK(differing(reduced(x, "r = sum fp32 x order=torch_cpu(8)"), read_tensor(torch_ops("fp32"), site + ".sum")) == 0);
    CHECK(differing(reduced(x, "r = mean fp32 x order=torch_cpu(8)"), read_tensor(torch_ops("fp32"), site + ".mean")) == 0);
    CHECK(differing(reduced(x, "r = mean fp32 square(x) order=torch_cpu(8)"), read_tensor(torch_ops("fp32"), site + ".mean_square")) == 0);
  }
  // The order is seen: another one differs somewhere.
  std::int64_t other = 0;
  for (const int d : kLengths) {
    const std::string site = "reduce.D" + std::to_string(d);
    const Tensor x = read_tensor(torch_ops("fp32"), site + ".x");
    other += differing(reduced(x, "r = sum fp32 x order=torch_cpu(4)"), read_tensor(torch_ops("fp32"), site + ".sum"));
  }
  CHECK(other > 0);
}

namespace {

/// torch's row sum written down lane by lane from the measured description (1.13 and 2.6): no code shared.
float torch_cascade(const std::vector<float>& items) {
  const std::size_t q = items.size();
  const std::size_t c = q <= 2 ? 1 : static_cast<std::size_t>(std::ceil(std::log2(static_cast<double>(q))));
  const std::size_t p = std::max<std::size_t>(4, c / 4);
  float a[4] = {0, 0, 0, 0};
  std::size_t done = 0;
  for (; done + (std::size_t{1} << p) <= q;) {
    for (std::size_t k = 0; k < (std::size_t{1} << p); ++k) a[0] += items[done++];
    for (std::size_t j = 1; j < 4; ++j) {
      a[j] += a[j - 1];
      a[j - 1] = 0;
      if (done % (std::size_t{1} << ((j + 1) * p)) != 0) break;
    }
  }
  for (; done < q; ++done) a[0] += items[done];
  return ((a[0] + a[1]) + a[2]) + a[3];
}

float torch_sum(const std::vector<float>& x, std::size_t lanes, std::size_t halves) {
  const std::size_t width = x.size() < lanes * halves ? 1 : lanes * halves;
  if (width == 1) lanes = halves = 1;
  const std::size_t n = x.size() / width;
  std::vector<float> lane_sums;
  for (std::size_t l = 0; l < lanes; ++l) {
    const auto item = [&](std::size_t v) { return halves == 1 ? x[v * width + l] : x[v * width + l] + x[v * width + lanes + l]; };
    float stream[4];
    for (std::size_t k = 0; k < 4; ++k) {
      std::vector<float> items;
      for (std::size_t i = 0; i < n / 4; ++i) items.push_back(item(4 * i + k));
      stream[k] = torch_cascade(items);
    }
    for (std::size_t v = n / 4 * 4; v < n; ++v) stream[0] += item(v);
    lane_sums.push_back(((stream[0] + stream[1]) + stream[2]) + stream[3]);
  }
  float t = 0;
  for (std::size_t i = n * width; i < x.size(); ++i) t += x[i];
  for (const float lane : lane_sums) t += lane;
  return t;
}

}  // namespace

TEST_CASE("torch's cascade is the described one, at every lane count, on rows long enough for all its levels") {
  std::mt19937_64 rng(9);
  for (const std::size_t d : {3u, 17u, 300u, 1025u, 4099u, 20011u, 131096u}) {
    std::vector<float> x(d);
    for (float& v : x) v = static_cast<float>(std::ldexp(static_cast<double>(rng() % 2048) - 1000, static_cast<int>(rng() % 12)));
    for (const int lanes : {4, 8, 16}) {
      CAPTURE(d, lanes);
      const std::span<const float> terms(x);
      const Order whole{.kind = OrderKind::torch_cpu, .count = lanes, .vec = 0};
      const Order half{.kind = OrderKind::torch_cpu_half, .count = lanes, .vec = 0};
      CHECK(static_cast<float>(ordered_sum(whole, FormatId::fp32, false, terms)) == torch_sum(x, static_cast<std::size_t>(lanes), 1));
      CHECK(static_cast<float>(ordered_sum(half, FormatId::fp32, false, terms)) == torch_sum(x, static_cast<std::size_t>(lanes), 2));
    }
  }
}

TEST_CASE("torch's own sums and means of 16-bit rows are reproduced in every bit") {
  for (const std::string format : {"bf16", "fp16"})
    for (const int d : kLengths) {
      const std::string site = "reduce.D" + std::to_string(d);
      const Tensor x = read_tensor(torch_ops(format), site + ".x");
      CAPTURE(format, d);
      CHECK(differing(reduced(x, "r = sum fp32 x order=torch_cpu_half(8)"), read_tensor(torch_ops(format), site + ".sum")) == 0);
      CHECK(differing(reduced(x, "r = mean fp32 x order=torch_cpu(8)"), read_tensor(torch_ops(format), site + ".mean")) == 0);
    }
}

TEST_CASE("torch.linalg.vector_norm is reproduced where its tail is a multiple of four") {
  for (const int d : {8, 64, 100, 576, 1000, 3072, 5000}) {
    const std::string site = "reduce.D" + std::to_string(d);
    const Tensor x = read_tensor(torch_ops("fp32"), site + ".x");
    CAPTURE(d);
    CHECK(differing(reduced(x, "ss = sum fp32 square(x) order=torch_norm(8,vec=1)\nr = sqrt fp32 ss"),
                    read_tensor(torch_ops("fp32"), site + ".vector_norm")) == 0);
  }
}

TEST_CASE("each order adds as its definition says") {
  std::mt19937_64 rng(4);
  std::normal_distribution<float> normal;
  std::vector<float> t(101);
  for (float& v : t) v = normal(rng) * std::ldexp(1.0f, static_cast<int>(rng() % 20));
  const auto sum = [&](const char* order, std::size_t n) {
    return static_cast<float>(ordered_sum(parse_order(order), FormatId::fp32, false, std::span<const float>(t).first(n)));
  };
  CHECK(sum("pairwise(1)", 4) == (t[0] + t[1]) + (t[2] + t[3]));
  CHECK(sum("pairwise(2)", 5) == (t[0] + t[1]) + (t[2] + (t[3] + t[4])));
  CHECK(sum("lanes(3)", 7) == ((t[0] + t[3] + t[6]) + (t[1] + t[4])) + (t[2] + t[5]));
  CHECK(sum("lanes_tree(4)", 8) == ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7])));
  CHECK(sum("blocked(3,vec=2)", 7) == ((t[0] + t[1]) + (t[2] + t[3] + t[4])) + (t[5] + t[6]));
  CHECK(sum("blocked(3)", 7) == ((t[0] + t[1] + t[2]) + (t[3] + t[4] + t[5])) + t[6]);
  CHECK(sum("warp(2,vec=2)", 7) == (((t[0] + t[1]) + t[4]) + t[5]) + ((t[2] + t[3]) + t[6]));
  float sequential = 0;
  for (const float v : t) sequential += v;
  CHECK(sum("sequential", t.size()) == sequential);
  CHECK(sum("block(32,vec=1)", 32) == sum("warp(32,vec=1)", 32));
  // Two warps: each its tree, then their sum.
  const float first = sum("warp(32,vec=1)", 32);
  const float second = static_cast<float>(ordered_sum(parse_order("warp(32,vec=1)"), FormatId::fp32, false, std::span<const float>(t).subspan(32, 32)));
  CHECK(sum("block(64,vec=1)", 64) == first + second);
  std::vector<float> squares = t;
  for (float& v : squares) v = std::fma(v, v, 0.0f);
  float fused = 0;
  for (const float v : t) fused = std::fma(v, v, fused);
  CHECK(static_cast<float>(ordered_sum(parse_order("sequential"), FormatId::fp32, true, std::span<const float>(t))) == fused);
  float narrow = 0;
  for (std::size_t i = 0; i < 30; ++i)
    narrow = static_cast<float>(decode(FormatId::bf16, encode(FormatId::bf16, static_cast<double>(narrow) + static_cast<double>(t[i]), Overflow::ieee)));
  CHECK(static_cast<float>(ordered_sum(parse_order("sequential"), FormatId::bf16, false, std::span<const float>(t).first(30))) == narrow);
}

TEST_CASE("an exact sum is the rational sum, rounded once, in any order of its terms") {
  std::mt19937_64 rng(5);
  for (int n = 0; n < 300; ++n) {
    std::vector<double> terms;
    Rational total = 0;
    for (std::size_t i = 0; i < 1 + rng() % 20; ++i) {
      double v = random_value(rng, FormatId::fp32);
      if (n % 2 == 0) v *= v;
      terms.push_back(v);
      total += exact(v);
      if (n % 3 == 0 && i % 2 == 1) {  // cancel all but the last bits
        terms.push_back(-terms[0]);
        total -= exact(terms[0]);
      }
    }
    for (const FormatId target : {FormatId::fp64, FormatId::fp32, FormatId::bf16}) {
      const double want = nearest_in(target, total);
      REQUIRE(same(exact_sum(terms, target, Overflow::ieee), want));
      std::shuffle(terms.begin(), terms.end(), rng);
      REQUIRE(same(exact_sum(terms, target, Overflow::ieee), want));
    }
  }
}

TEST_CASE("where sums are exact every order gives the same bits") {
  std::mt19937_64 rng(6);
  std::vector<float> t(1000);
  for (float& v : t) v = static_cast<float>(static_cast<int>(rng() % 2001) - 1000);
  double want = 0;
  for (const float v : t) want += static_cast<double>(v);
  for (const OrderRow& row : all_orders()) {
    if (gives_moments(row.kind) || row.kind == OrderKind::torch_norm) continue;
    const Order order{.kind = row.kind, .count = row.count.empty() ? 0 : 8, .vec = row.vec ? 4 : 0};
    CAPTURE(row.name);
    CHECK(ordered_sum(order, FormatId::fp32, false, std::span<const float>(t)) == want);
  }
}

TEST_CASE("moments are the mean and biased variance, in each Welford order") {
  std::vector<double> t;
  for (int i = 0; i < 1024; ++i) t.push_back(100 + (i % 2 == 0 ? 1 : -1));  // mean 100, variance 1
  for (const OrderRow& row : all_orders()) {
    if (!gives_moments(row.kind)) continue;
    const bool lanes = row.count == "lanes";
    const std::string order =
        text_of({.kind = row.kind, .count = row.count.empty() ? 0 : lanes ? 8 : 128, .vec = row.vec ? (lanes ? 2 : 4) : 0});
    CAPTURE(order);
    const Moments m = ordered_moments(parse_order(order), FormatId::fp32, false, t);
    // One fp32 ulp of 100 is 2^-17; a running mean drifts by a few of them over 1024 steps (measured: at most 4).
    CHECK(std::fabs(m.mean - 100) <= 8 * 0x1p-17);
    CHECK(std::fabs(m.variance - 1) <= 0x1p-10);
  }
  const std::vector<double> constant(777, 3.0);
  for (const char* order : {"welford", "welford_warp(32,vec=4)", "welford_block(128,vec=1)", "torch_moments(8,vec=1)",
                            "torch_moments_2_6(8,vec=2)"}) {
    const Moments m = ordered_moments(parse_order(order), FormatId::fp32, true, constant);
    CHECK(m.mean == 3.0);
    CHECK(m.variance == 0.0);
  }
}

TEST_CASE("threads change nothing, and a nudge moves only the approximate step") {
  std::mt19937_64 rng(7);
  Binding b;
  b.x = FormatId::bf16;
  const Program p = parse_program(
      "norm rmsnorm\nin x:T eps\nms = mean fp32 square(x) order=lanes(8)\nr = rsqrt fp32 ms + eps within=2\nout y = mul fp32 x, r\n", b);
  CHECK(choice_ulp(p) == 2);
  Tensors in;
  in["x"] = Tensor::zeros(FormatId::bf16, {37, 650});
  for (std::int64_t i = 0; i < in["x"].size(); ++i) in["x"].set_code(i, encode(FormatId::bf16, std::ldexp(static_cast<double>(rng() % 1000), -9), Overflow::ieee));
  const Tensors one = emulate(p, in, {{"eps", 1e-6}});
  for (const int threads : {2, 5}) CHECK(emulate(p, in, {{"eps", 1e-6}}, {.nudge_ulp = 0, .threads = threads}).at("y").bytes == one.at("y").bytes);
  const RowTrace plain = trace_row(p, in, {{"eps", 1e-6}}, 3);
  const RowTrace nudged = trace_row(p, in, {{"eps", 1e-6}}, 3, {.nudge_ulp = 5, .threads = 1});
  const auto r = p.find_value("r");
  const auto steps = static_cast<std::size_t>(r->node);
  CHECK(nudged.values[steps][0][0] == nudge(FormatId::fp32, plain.values[steps][0][0], 2));  // clamped to its bound
  CHECK(nudged.values[steps - 1][0][0] == plain.values[steps - 1][0][0]);
}

TEST_CASE("tensors that do not fit a program are named") {
  Binding b;
  b.x = FormatId::bf16;
  b.formats["weight"] = FormatId::bf16;
  const Program p = parse_program("norm rmsnorm\nin x:T weight:W\nout y = mul fp32 x, weight\n", b);
  using Catch::Matchers::ContainsSubstring;
  Tensors in;
  in["x"] = tensor_of(FormatId::bf16, {1, 2, 3});
  CHECK_THROWS_WITH(emulate(p, in, {}), ContainsSubstring("tensor 'weight' is missing"));
  in["weight"] = tensor_of(FormatId::bf16, {1, 2});
  CHECK_THROWS_WITH(emulate(p, in, {}), ContainsSubstring("has shape 1x2, 3 elements would fit x of shape 1x3"));
  in["weight"] = tensor_of(FormatId::fp16, {1, 2, 3});
  CHECK_THROWS_WITH(emulate(p, in, {}), ContainsSubstring("is fp16 but the program takes bf16"));
}

// The fast truth of programs against MPFR: every ball operation on all that its operands may be, every value of random
// programs on random and special rows, fixed programs, the catalogue's erasures.
#include "reference/certified/programs/program_enclosure.hpp"

#include <mpfr.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "impls/cast_paths/cast_path.hpp"
#include "reference/certified/functions/functions.hpp"
#include "reference/certified/programs/ball_program.hpp"
#include "reference/exact/elementary.hpp"
#include "reference/exact/program_truth.hpp"
#include "reference/norms/norm.hpp"
#include "tests/reference/program_settings.hpp"

using namespace norma;
using namespace norma::test;

namespace {

// ---- what a ball may be ----

/// Does the ball hold a value that is in the interval? Both are what is known of one number.
bool agree(const Ball& b, const Interval& v) {
  if (!(b.r < kInfinity) || v.is_unknown()) return true;
  if (v.is_nan()) return b.h != b.h && b.r == 0;
  if (v.is_infinite()) return b.h == mpfr_get_d(v.lo.get(), MPFR_RNDN) && b.r == 0;
  if (!std::isfinite(b.h) || !std::isfinite(b.l) || !(b.r >= 0)) return false;
  const Dyadic middle = Dyadic(b.h) + Dyadic(b.l);
  const Dyadic low = middle - Dyadic(b.r), high = middle + Dyadic(b.r);
  if (mpfr_cmp(v.lo.get(), high.real().get()) > 0 || mpfr_cmp(v.hi.get(), low.real().get()) < 0) return false;
  const bool zero = mpfr_zero_p(v.lo.get()) != 0 && mpfr_zero_p(v.hi.get()) != 0;
  const bool sign_known = (mpfr_signbit(v.lo.get()) != 0) == (mpfr_signbit(v.hi.get()) != 0);
  if (b.r == 0 && zero && sign_known) return std::signbit(b.h) == (mpfr_signbit(v.lo.get()) != 0);
  return true;
}

std::string text_of(const Ball& b) {
  char text[120];
  std::snprintf(text, sizeof text, "%a + %a +- %a", b.h, b.l, b.r);
  return text;
}
std::string text_of(const Interval& v) {
  char* text = nullptr;
  mpfr_asprintf(&text, "[%.45Rg, %.45Rg]", v.lo.get(), v.hi.get());
  const std::string result(text);
  mpfr_free_str(text);
  return result;
}

/// The least power of two not below |v|, from 2^-127 to 2^127, by comparison alone.
double power_above(mpfr_srcptr v) {
  double power = 0x1p-127;
  while (power < 0x1p127 && mpfr_cmpabs(v, Dyadic(power).real().get()) > 0) power *= 2;
  return power;
}

Interval exact_value(Op op, const std::array<Interval, 3>& x) {
  switch (op) {
    case Op::cast: return x[0];
    case Op::add: return add(x[0], x[1]);
    case Op::sub: return sub(x[0], x[1]);
    case Op::mul: return mul(x[0], x[1]);
    case Op::div: return div(x[0], x[1]);
    case Op::neg: return neg(x[0]);
    case Op::abs: return abs(x[0]);
    case Op::square: return square(x[0]);
    case Op::sqrt: return sqrt(x[0]);
    case Op::rsqrt: return rsqrt(x[0]);
    case Op::reciprocal: return div(Interval(1.0, x[0].bits()), x[0]);
    case Op::max: return max(x[0], x[1]);
    case Op::min: return min(x[0], x[1]);
    case Op::fmax: return fmax(x[0], x[1]);
    case Op::fmin: return fmin(x[0], x[1]);
    case Op::fma: return add(mul(x[0], x[1]), x[2]);
    case Op::exp: return evaluate(Function::exp, x[0]);
    case Op::tanh: return evaluate(Function::tanh, x[0]);
    case Op::erf: return evaluate(Function::erf, x[0]);
    case Op::sin: return sin(x[0]);
    case Op::cos: return cos(x[0]);
    case Op::pow: return pow(x[0], x[1]);
    case Op::rotate:
    case Op::join: return x[0];  // of the column and operand that the program takes
    case Op::e8m0_up: {
      const double low = power_above(x[0].lo.get()), high = power_above(x[0].hi.get());
      return x[0].is_nan() ? x[0] : x[0].is_unknown() || low != high ? Interval::unknown(x[0].bits()) : Interval(low, x[0].bits());
    }
    case Op::nearest_e4m3:
    case Op::unless_zero: break;  // no ball operations
  }
  std::abort();
}

/// A ball, and one of the numbers that it holds.
struct Sample {
  Ball ball;
  Interval value{64};
};

constexpr mpfr_prec_t kSampleBits = 700;

Sample random_sample(Random& rng, double spread) {
  const double h = rng() % 12 == 0 ? std::ldexp(1.0, static_cast<int>(rng() % 5)) * (rng() % 2 == 0 ? 1 : -1)
                                   : signed_unit(rng) * std::ldexp(1.0, static_cast<int>(rng() % 7) - 3) * spread;
  if (rng() % 40 == 0) {
    const double special[] = {0.0, -0.0, kInfinity, -kInfinity, std::nan("")};
    const double v = special[below(rng, 5)];
    return {{v, 0, 0}, Interval(v, kSampleBits)};
  }
  const DoubleDouble mid = two_sum(h, rng() % 3 == 0 ? 0.0 : signed_unit(rng) * 0x1p-54 * h);
  constexpr int kWidths[] = {-104, -100, -60, -30, -10, -3, 1};
  const double r = rng() % 3 == 0 ? 0 : std::fabs(h) * std::ldexp(1.0, kWidths[below(rng, std::size(kWidths))]);
  const double where = rng() % 4 == 0 ? signed_unit(rng) : rng() % 2 == 0 ? 1 : -1;
  const Dyadic value = Dyadic(mid.h) + Dyadic(mid.l) + Dyadic(where) * Dyadic(r);
  return {{mid.h, mid.l, r}, Interval(value, kSampleBits)};
}

/// How many values were compared, and of how many the balls know nothing, or little.
struct Seen {
  std::int64_t values = 0, unknown = 0, exact = 0, tight = 0, undefined = 0;
};

/// Every value of every row: ball against interval.
void check_values(const Setting& s, Seen& seen) {
  std::vector<Operand> wanted;
  for (std::size_t i = 0; i < s.program.nodes.size(); ++i)
    for (std::size_t port = 0; port < s.program.nodes[i].names.size(); ++port)
      wanted.push_back({static_cast<int>(i), static_cast<int>(port)});
  const RowEvaluator evaluator(s.program, s.tensors, s.attributes);
  const BallProgram balls(place(s.program, s.tensors, s.attributes), s.attributes, wanted);
  BallProgram::Workspace work = balls.workspace();
  for (std::int64_t row = 0; row < s.rows; ++row) {
    balls.run(work, row);
    std::vector<char> done(s.program.nodes.size(), 0);
    for (std::size_t k = wanted.size(); k-- > 0;) {
      if (done[static_cast<std::size_t>(wanted[k].node)] != 0) continue;
      const RowValues values = evaluator.evaluate(wanted[k], row, 300);
      for (const Operand& o : wanted) {
        const auto node = static_cast<std::size_t>(o.node);
        if (values.nodes[node].empty() || done[node] != 0) continue;
        const BallRow got = balls.row_of(work, o);
        for (std::size_t j = 0; j < values.of(o).size(); ++j) {
          const Ball b = got.at(j);
          const Interval& v = values.of(o)[j];
          if (!agree(b, v)) {
            CAPTURE(print_program(s.program), s.program.nodes[node].names[0], row, j, text_of(b), text_of(v));
            REQUIRE(agree(b, v));
          }
          ++seen.values;
          seen.unknown += b.r < kInfinity ? 0 : 1;
          seen.undefined += v.is_real() ? 0 : 1;
          seen.exact += b.r == 0 ? 1 : 0;
          seen.tight += b.r <= 0x1p-80 * std::fabs(b.h) ? 1 : 0;
        }
      }
      for (std::size_t i = 0; i < done.size(); ++i) done[i] = done[i] != 0 || !values.nodes[i].empty() ? 1 : 0;
    }
  }
}

/// The truth against program_truth: what TruthSource promises, element by element.
struct Slow {
  std::int64_t elements = 0, exact_tier = 0, single = 0;
};
void check_truth(const Setting& s, std::string_view output, Slow& slow) {
  const auto fast = certified_program_truth(s.program, s.tensors, s.attributes, output);
  const auto exact = program_truth(s.program, s.tensors, s.attributes, output);
  REQUIRE(fast->rows() == exact->rows());
  REQUIRE(fast->cols() == exact->cols());
  Random rng(7);
  const auto n = static_cast<std::size_t>(fast->cols());
  std::vector<Enclosure> a(n), b(n);
  std::vector<double> mid(n), radius(n), magnitude(n);
  for (std::int64_t row = 0; row < fast->rows(); ++row) {
    fast->enclose_row(row, a);
    exact->enclose_row(row, b);
    fast->enclose_quick(row, {mid, radius, magnitude});
    for (std::size_t j = 0; j < n; ++j) {
      CAPTURE(print_program(s.program), output, row, j, a[j].hi, a[j].lo, a[j].radius, b[j].hi, b[j].lo, b[j].radius,
              mid[j], radius[j]);
      ++slow.elements;
      if (rng() % 16 == 0) {
        for (const auto& truth : {fast.get(), exact.get()}) {
          const Enclosure one = truth->enclose(row, static_cast<std::int64_t>(j));
          const Enclosure& all = truth == fast.get() ? a[j] : b[j];
          const bool same = one.radius == all.radius && one.tier == all.tier &&
                            ((one.hi == all.hi && one.lo == all.lo) || (std::isnan(one.hi) && std::isnan(all.hi)));
          if (!same) CHECK(same);
        }
        ++slow.single;
      }
      slow.exact_tier += a[j].tier == Tier::exact ? 1 : 0;
      const bool same_magnitude =
          a[j].magnitude == b[j].magnitude || (std::isnan(a[j].magnitude) && std::isnan(b[j].magnitude));
      if (!same_magnitude) CHECK(a[j].magnitude == b[j].magnitude);
      if (!(radius[j] < kInfinity)) {
        if (!std::isfinite(mid[j])) CHECK(std::isfinite(mid[j]));
      } else if (std::isfinite(b[j].hi) && std::isfinite(mid[j])) {
        const double gap = std::fabs((mid[j] - b[j].hi) - b[j].lo);
        if (!(gap <= radius[j] * (1 + 0x1p-50) + b[j].radius)) CHECK(gap <= radius[j]);
      } else if (b[j].radius < kInfinity) {
        const bool same = mid[j] == b[j].hi || (std::isnan(mid[j]) && std::isnan(b[j].hi));
        if (!same) CHECK(mid[j] == b[j].hi);
      }
      if (std::isnan(b[j].hi) || std::isinf(b[j].hi) || b[j].radius == 0 || !(b[j].radius < kInfinity)) {
        const bool same = (std::isnan(a[j].hi) && std::isnan(b[j].hi)) ||
                          (a[j].hi == b[j].hi && a[j].lo == b[j].lo && a[j].radius == b[j].radius &&
                           std::signbit(a[j].hi) == std::signbit(b[j].hi));
        if (!same) CHECK(a[j].hi == b[j].hi);
        continue;
      }
      const Dyadic distance = abs(Dyadic(a[j].hi) + Dyadic(a[j].lo) - Dyadic(b[j].hi) - Dyadic(b[j].lo));
      const bool overlap = order(distance, Dyadic(a[j].radius) + Dyadic(b[j].radius)) <= 0;
      if (!overlap) CHECK(overlap);
      const bool tight = a[j].radius <= 0x1p-80 * a[j].magnitude + 0x1p-1074 || a[j].radius <= b[j].radius;
      if (!tight) CHECK(tight);
    }
  }
}

/// Do the enclosures of two truths of one thing have a number in common, wherever both are real?
std::int64_t check_overlap(const TruthSource& a, const TruthSource& b) {
  REQUIRE(a.rows() * a.cols() == b.rows() * b.cols());
  const auto cols = static_cast<std::size_t>(a.cols());
  REQUIRE(b.cols() == a.cols());
  std::vector<Enclosure> x(cols), y(cols);
  std::int64_t compared = 0;
  for (std::int64_t row = 0; row < a.rows(); ++row) {
    a.enclose_row(row, x);
    b.enclose_row(row, y);
    for (std::size_t j = 0; j < cols; ++j) {
      if (!std::isfinite(x[j].hi) || !std::isfinite(y[j].hi) || !std::isfinite(x[j].radius + y[j].radius)) continue;
      const Dyadic distance = abs(Dyadic(x[j].hi) + Dyadic(x[j].lo) - Dyadic(y[j].hi) - Dyadic(y[j].lo));
      const bool overlap = order(distance, Dyadic(x[j].radius) + Dyadic(y[j].radius)) <= 0;
      CAPTURE(row, j, x[j].hi, y[j].hi, x[j].radius, y[j].radius);
      if (!overlap) CHECK(overlap);
      ++compared;
    }
  }
  return compared;
}

}  // namespace

TEST_CASE("a ball operation holds what the operation makes of everything in its operands' balls") {
  Random rng(1);
  for (const OpRow& row : all_ops()) {
    if (row.op == Op::nearest_e4m3 || row.op == Op::unless_zero) {
      CHECK(apply(row.op, {1, 0, 0}, {1, 0, 0}, {}).r == kInfinity);
      continue;
    }
    std::int64_t known = 0, total = 0, in_binary64 = 0;
    for (int n = 0; n < 8000; ++n) {
      const double spread = row.op == Op::exp || row.op == Op::tanh || row.op == Op::erf ? 0.5
                            : n % 2 == 0                                                 ? 1
                                                                                         : 0x1p60;
      std::array<Sample, 3> x{random_sample(rng, spread), random_sample(rng, n % 3 == 0 ? 0x1p-50 : spread),
                              random_sample(rng, 1)};
      // Differences that cancel, equal operands, perfect squares.
      if (n % 5 == 0) x[1] = x[0];
      if (n % 5 == 1 && std::isfinite(x[0].ball.h)) {
        const double near = x[0].ball.h * (1 + 0x1p-30);
        x[1] = {{near, 0, 0}, Interval(near, kSampleBits)};
      }
      const Ball got = apply(row.op, x[0].ball, x[1].ball, x[2].ball);
      const Interval want = exact_value(row.op, {x[0].value, x[1].value, x[2].value});
      ++total;
      known += got.r < kInfinity ? 1 : 0;
      if (row.op == Op::exp || row.op == Op::tanh || row.op == Op::erf) {
        const Ball& a = x[0].ball;
        Ball quick;
        apply_quick(row.op, {&a.h, &a.l, &a.r}, {&quick.h, &quick.l, &quick.r}, 1);
        if (!agree(quick, want)) {
          CAPTURE(row.name, text_of(a), text_of(quick), text_of(want));
          REQUIRE(agree(quick, want));
        }
        // In binary64 where that costs little: a 64th by the function's error, a 64th by the low part.
        Ball in_row;
        apply_function(row.op, {&a.h, &a.l, &a.r}, {&in_row.h, &in_row.l, &in_row.r}, 1);
        CAPTURE(row.name, text_of(a), text_of(in_row), text_of(got), text_of(want));
        if (!agree(in_row, want)) REQUIRE(agree(in_row, want));
        if (!(in_row.r <= got.r * (1 + 0x1p-5))) REQUIRE(in_row.r <= got.r * (1 + 0x1p-5));
        in_binary64 += in_row.l == 0 && got.l != 0 && in_row.r < kInfinity ? 1 : 0;
      }
      if (agree(got, want)) continue;
      CAPTURE(row.name, text_of(x[0].ball), text_of(x[1].ball), text_of(x[2].ball), text_of(got), text_of(want));
      REQUIRE(agree(got, want));
    }
    CAPTURE(row.name, known, total, in_binary64);
    CHECK(known * 10 > total * 2);
    if (row.op == Op::exp || row.op == Op::tanh || row.op == Op::erf) CHECK(in_binary64 > 100);
  }
}

TEST_CASE("a function is in binary64 only where the radius hardly grows by it") {
  Random rng(9);
  for (const Op op : {Op::exp, Op::tanh, Op::erf}) {
    std::int64_t in_binary64 = 0, close = 0;
    for (int n = 0; n < 20000; ++n) {
      const double size = op == Op::exp ? 200 : 4, h = size * (static_cast<double>(below(rng, 2001)) / 1000 - 1);
      const double l = 0x1p-53 * h, r = std::ldexp(1.0, -30 - static_cast<int>(below(rng, 26)));
      const Ball best = apply(op, {h, l, r}, {}, {});
      Ball got;
      apply_function(op, {&h, &l, &r}, {&got.h, &got.l, &got.r}, 1);
      (got.l == 0 ? in_binary64 : close) += 1;
      const Dyadic apart = abs(Dyadic(got.h) + Dyadic(got.l) - Dyadic(best.h) - Dyadic(best.l));
      CAPTURE(static_cast<int>(op), h, l, r, got.r, best.r);
      if (!(got.r <= best.r * (1 + 0x1p-5))) REQUIRE(got.r <= best.r * (1 + 0x1p-5));
      if (order(apart, Dyadic(got.r) + Dyadic(best.r)) > 0) REQUIRE(order(apart, Dyadic(got.r) + Dyadic(best.r)) <= 0);
    }
    CAPTURE(static_cast<int>(op), in_binary64, close);
    CHECK(in_binary64 > 2000);
    CHECK(close > 2000);
  }
}

TEST_CASE("sums and largest terms of balls hold what the terms may be") {
  Random rng(3);
  for (int n = 0; n < 4000; ++n) {
    const std::size_t count = 1 + below(rng, 70);
    std::vector<double> h, l, r;
    std::vector<Interval> values, sizes;
    const bool few = n % 2 == 0;  // two terms meet in one lane, so that each rounding stands alone
    for (std::size_t i = 0; i < count; ++i) {
      Sample x = random_sample(rng, 1);
      if (few && (i % BallSum::kLanes != 0 || i > BallSum::kLanes)) x = {{0, 0, 0}, Interval(0.0, kSampleBits)};
      if (few && i == 0 && std::isfinite(x.ball.h)) x = {{x.ball.h, 0, 0}, Interval(x.ball.h, kSampleBits)};
      h.push_back(x.ball.h);
      l.push_back(x.ball.l);
      r.push_back(x.ball.r);
      sizes.push_back(abs(x.value));
      values.push_back(std::move(x.value));
    }
    BallSum total;
    BallMax largest;
    total.add({h.data(), l.data(), r.data()}, count);
    largest.add({h.data(), l.data(), r.data()}, count);
    Interval most(0.0, kSampleBits);
    for (const Interval& v : sizes) most = max(most, v);
    CAPTURE(n, count, text_of(total.total()), text_of(sum(values, kSampleBits)), text_of(largest.total()),
            text_of(most));
    REQUIRE(agree(total.total(), sum(values, kSampleBits)));
    REQUIRE(agree(largest.total(), most));
    BallMax highest(true);
    highest.add({h.data(), l.data(), r.data()}, count);
    Interval top = values.front();
    for (const Interval& v : values) top = max(top, v);
    REQUIRE(agree(highest.total(), top));
  }
}

TEST_CASE("rows of ball operations are the single operations") {
  Random rng(2);
  constexpr std::size_t kCount = 1003;
  std::array<std::vector<double>, 9> x;
  std::array<std::vector<double>, 3> out;
  for (auto& v : x) v.resize(kCount);
  for (auto& v : out) v.resize(kCount);
  for (std::size_t i = 0; i < kCount; ++i)
    for (std::size_t k = 0; k < 3; ++k) {
      const Ball b = random_sample(rng, 1).ball;
      x[3 * k][i] = b.h, x[3 * k + 1][i] = b.l, x[3 * k + 2][i] = b.r;
    }
  const auto operand = [&](std::size_t k) {
    return BallRow{x[3 * k].data(), x[3 * k + 1].data(), x[3 * k + 2].data()};
  };
  const auto same = [](double a, double b) { return a == b || (a != a && b != b); };
  for (const OpRow& row : all_ops()) {
    if (row.op == Op::cast) continue;
    apply(row.op, operand(0), operand(1), operand(2), {out[0].data(), out[1].data(), out[2].data()}, kCount);
    for (std::size_t i = 0; i < kCount; ++i) {
      const Ball want = apply(row.op, operand(0).at(i), operand(1).at(i), operand(2).at(i));
      CAPTURE(row.name, i);
      REQUIRE(same(out[0][i], want.h));
      REQUIRE(out[2][i] == want.r);
      if (want.r < kInfinity) REQUIRE(same(out[1][i], want.l));
    }
  }
}

TEST_CASE("balls hold every value of random programs, special rows included") {
  Seen seen;
  for (std::uint64_t seed = 0; seed < 400; ++seed) check_values(random_setting(seed, 4 + seed % 12), seen);
  CAPTURE(seen.values, seen.unknown, seen.exact, seen.tight, seen.undefined);
  CHECK(seen.values > 100'000);
  CHECK(seen.tight * 10 > seen.values * 7);  // the check is not vacuous
}

TEST_CASE("balls hold every value of very many random programs", "[nightly]") {
  Seen seen;
  Slow slow;
  for (std::uint64_t seed = 100'000; seed < 112'000; ++seed) {
    const Setting s = random_setting(seed, 4 + seed % 14);
    check_values(s, seen);
    if (seed % 8 == 0) check_truth(s, "y", slow);
  }
  CAPTURE(seen.values, seen.unknown, seen.exact, seen.tight, seen.undefined, slow.elements, slow.exact_tier);
  CHECK(seen.values > 3'000'000);
}

TEST_CASE("the fast truth of random programs is program_truth's, as close and as exact") {
  Slow slow;
  for (std::uint64_t seed = 1000; seed < 1150; ++seed) {
    const Setting s = random_setting(seed, 3 + seed % 8);
    check_truth(s, "y", slow);
    check_truth(s, "last", slow);
  }
  CAPTURE(slow.elements, slow.exact_tier);
  CHECK(slow.elements > 5000);
}

TEST_CASE("norms, softmax, modulation and activations: the fast truth is program_truth's") {
  std::uint64_t seed = 0;
  for (const std::string_view text :
       {kRmsNorm, kLayerNorm, kLayerNormByPowers, kSoftmax, kModulate, kSigmoid, kSilu, kGelu, kGeluTanh}) {
    Slow slow;
    for (const FormatId format : {FormatId::bf16, FormatId::fp32, FormatId::e4m3fn})
      for (const std::int64_t cols : {1, 3, 33, 130}) {
        const Setting s = setting_of(text, format, cols < 100 ? 6 : 2, cols, ++seed);
        Seen seen;
        check_values(s, seen);
        check_truth(s, "y", slow);
      }
    CAPTURE(std::string(text), slow.elements, slow.exact_tier);
    CHECK(slow.single > 0);
  }
}

TEST_CASE("what happens every day is settled without MPFR") {
  Random rng(5);
  for (const std::string_view text : {kRmsNorm, kLayerNorm, kLayerNormByPowers, kSoftmax, kModulate, kSilu}) {
    Setting s = setting_of(text, FormatId::bf16, 6, 500, 3);
    for (auto& [name, tensor] : s.tensors)
      for (std::int64_t i = 0; i < tensor.size(); ++i) {
        // Row 0 ordinary, row 1 constant, row 2 zeros, row 3 one outlier, row 4 integers, row 5 two neighbours.
        const std::int64_t row = name == "x" ? i / s.cols : 0;
        const double values[] = {signed_unit(rng) * 3,
                                 1.171875,
                                 0,
                                 i % s.cols == 7 ? 300 : signed_unit(rng),
                                 static_cast<double>(rng() % 9) - 4,
                                 rng() % 2 == 0 ? 1 : 1.0078125};
        tensor.set_code(i, encode(tensor.format, values[row], Overflow::ieee));
      }
    const auto truth = certified_program_truth(s.program, s.tensors, s.attributes, "y");
    std::vector<Enclosure> e(static_cast<std::size_t>(s.cols));
    for (std::int64_t row = 0; row < s.rows; ++row) {
      truth->enclose_row(row, e);
      const auto exact = std::ranges::count(e, Tier::exact, &Enclosure::tier);
      CAPTURE(std::string(text), row);
      CHECK(exact == 0);
    }
  }
}

TEST_CASE("threads that ask for rows in any order get the same enclosures") {
  const Setting s = setting_of(kGelu, FormatId::fp32, 24, 40, 9);
  const auto truth = certified_program_truth(s.program, s.tensors, s.attributes, "y");
  const auto row_of = [&](std::int64_t row) {
    std::vector<Enclosure> e(static_cast<std::size_t>(s.cols));
    truth->enclose_row(row, e);
    const Enclosure one = truth->enclose(row, row % s.cols);
    std::vector<double> figures{one.hi, one.lo, one.radius};
    for (const Enclosure& x : e) figures.insert(figures.end(), {x.hi, x.lo, x.radius, x.magnitude});
    for (double& f : figures) f = f == f ? f : -1;
    return figures;
  };
  std::vector<std::vector<double>> want;
  for (std::int64_t row = 0; row < s.rows; ++row) want.push_back(row_of(row));
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (std::int64_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (std::int64_t k = 0; k < s.rows; ++k) {
        const std::int64_t row = (k * 7 + t * 5) % s.rows;
        wrong += row_of(row) == want[static_cast<std::size_t>(row)] ? 0 : 1;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("activations written as programs are the functions") {
  const struct {
    std::string_view text;
    Function function;
  } kActivations[] = {{kSigmoid, Function::sigmoid}, {kSilu, Function::silu}, {kGelu, Function::gelu}};
  for (const auto& [text, function] : kActivations)
    for (const FormatId format : {FormatId::bf16, FormatId::fp32}) {
      const Setting s = setting_of(text, format, 40, 50, 11);
      const auto program = certified_program_truth(s.program, s.tensors, s.attributes, "y");
      const auto direct = function_truth(function, s.tensors.at("x"));
      CAPTURE(std::string(text), name_of(format));
      CHECK(check_overlap(*program, *direct) > 1200);
    }
}

// RMSNorm's paths: other norms' inputs have shapes of their own, and tests beside their paths.
TEST_CASE("the erasures of the catalogue have fast truths: program_truth's, and the canonical norm's") {
  std::int64_t paths = 0, canonical = 0, compared = 0;
  Slow slow;
  for (const CastPath* path : all_cast_paths()) {
    if (path->norm != "rmsnorm") continue;
    // Blocks are left to the exact tier, which block_scale_paths_test holds to the norm.
    if (std::ranges::any_of(path->norm_attributes, [](const CaseDefault& d) {
          return d.key == "quant" && (d.value.starts_with("mx") || d.value.starts_with("nv"));
        }))
      continue;
    bool built = false;
    for (const FormatId format : {FormatId::bf16, FormatId::fp32})
      for (const bool optional : {false, true}) {
        Setting s;
        try {
          s = setting_of(*path, format, optional, 17 + static_cast<std::uint64_t>(paths));
        } catch (const ProgramError&) {
          continue;  // a format or an input that the code refuses
        }
        built = true;
        CAPTURE(path->name, name_of(format), optional);
        for (const ProgramOutput& output : s.program.outputs) check_truth(s, output.name, slow);
        if (!path->gaps.empty()) continue;
        const NormDef* norm = find_norm(path->norm);
        REQUIRE(norm != nullptr);
        NormCall call{.inputs = &s.tensors, .numbers = {{"eps", 1e-6}}, .words = {}};
        for (const CaseDefault& d : path->norm_attributes) {
          const auto attribute = std::ranges::find(norm->attributes, d.key, &NormAttribute::name);
          REQUIRE(attribute != norm->attributes.end());
          if (attribute->choices.empty())
            call.numbers[std::string(d.key)] = std::strtod(std::string(d.value).c_str(), nullptr);
          else
            call.words[std::string(d.key)] = std::string(d.value);
        }
        for (const ProgramOutput& output : s.program.outputs) {
          const auto fast = certified_program_truth(s.program, s.tensors, s.attributes, output.name);
          const auto own = norm->truth(call, output.name);
          compared += check_overlap(*fast, *own);
          ++canonical;
        }
      }
    CHECK(built);
    ++paths;
  }
  CAPTURE(paths, canonical, compared, slow.elements, slow.exact_tier);
  CHECK(paths >= 69);
  CHECK(canonical > 60);
  CHECK(compared > 5000);
  CHECK(slow.elements > 20'000);
}

// RoPE, every tier, against MPFR.
#include <catch2/catch_test_macros.hpp>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "reference/certified/functions/rope.hpp"
#include "reference/certified/vector_level.hpp"
#include "tests/reference/mpfr_functions.hpp"

namespace norma {
namespace {

using testing::Number;

// cos and sin of position theta^(-2i/rotary), and y, at 500 bits.
struct Reference {
  static constexpr mpfr_prec_t kBits = 500;
  Number cosine{kBits}, sine{kBits};
  Reference(const Rope& rope, std::int64_t position, std::int64_t pair) {
    Number angle(kBits), exponent(static_cast<double>(-2 * pair), kBits);
    mpfr_div_si(exponent, exponent, static_cast<long>(rope.rotary), MPFR_RNDN);
    mpfr_set_d(angle, rope.theta, MPFR_RNDN);
    mpfr_pow(angle, angle, exponent, MPFR_RNDN);
    mpfr_mul_si(angle, angle, static_cast<long>(position), MPFR_RNDN);
    mpfr_sin_cos(sine, cosine, angle, MPFR_RNDN);
  }
  void turn(mpfr_ptr out, double x1, double x2, bool is_second) {
    Number other(kBits);
    mpfr_mul_d(out, is_second ? sine : cosine, x1, MPFR_RNDN);
    mpfr_mul_d(other, is_second ? cosine : sine, x2, MPFR_RNDN);
    if (is_second)
      mpfr_add(out, out, other, MPFR_RNDN);
    else
      mpfr_sub(out, out, other, MPFR_RNDN);
  }
};

struct Tally {
  std::int64_t elements = 0, wrong = 0, outside = 0, undecided = 0, beyond_binary64 = 0;
};

void check(const Rope& rope, FormatId to, Tally& tally) {
  const Tensor& x = *rope.x;
  const RoundedRows rounded = round_rope(rope, to, Overflow::ieee);
  tally.undecided += rounded.tiers.undecided;
  tally.beyond_binary64 += rounded.tiers.double_double + rounded.tiers.exact;
  const auto truth = rope_truth(rope);
  const auto n = static_cast<std::size_t>(x.cols());
  std::vector<double> mid(n), radius(n), magnitude(n);
  std::vector<Enclosure> close(n);
  const std::int64_t half = rope.rotary / 2;
  for (std::int64_t r = 0; r < x.rows(); ++r) {
    truth->enclose_quick(r, {mid, radius, magnitude});
    truth->enclose_row(r, close);
    const std::int64_t position = rope.positions[static_cast<std::size_t>(r / rope.rows_each) % rope.positions.size()];
    for (std::int64_t j = 0; j < x.cols(); ++j) {
      const auto i = static_cast<std::size_t>(j);
      Number y(Reference::kBits), d(Reference::kBits);
      if (j >= rope.rotary) {
        mpfr_set_d(y, x.value(r * x.cols() + j), MPFR_RNDN);
      } else {
        const bool interleaved = rope.pairing == RopePairing::interleaved;
        const std::int64_t pair = interleaved ? j / 2 : j % half;
        const bool is_second = interleaved ? j % 2 == 1 : j >= half;
        const std::int64_t first = r * x.cols() + (interleaved ? 2 * pair : pair);
        Reference(rope, position, pair).turn(y, x.value(first), x.value(first + (interleaved ? 1 : half)), is_second);
      }
      const auto outside = [&](double h, double l, double bound) {
        mpfr_sub_d(d, y, h, MPFR_RNDN);
        mpfr_sub_d(d, d, l, MPFR_RNDN);
        const double slack = bound + 0x1p-400 * std::fabs(h);
        return mpfr_cmp_d(d, slack) > 0 || mpfr_cmp_d(d, -slack) < 0;
      };
      tally.outside += outside(mid[i], 0, radius[i]) ? 1 : 0;
      tally.outside += outside(close[i].hi, close[i].lo, close[i].radius) ? 1 : 0;
      tally.outside += close[i].radius <= 0x1p-80 * close[i].magnitude + 0x1p-1074 ? 0 : 1;
      auto right = testing::round_known(to, y, 440);
      if (position == 0 || j >= rope.rotary) right = testing::round_by_mpfr(to, y);  // exact, ties too
      const std::uint64_t code = rounded.y.code(r * x.cols() + j);
      // A zero's sign is stated, not computed here.
      const bool zero = mpfr_zero_p(y) != 0 && decode(to, code) == 0;
      tally.wrong += !zero && (!right || code != *right) ? 1 : 0;
      ++tally.elements;
    }
  }
}

Tensor random_tensor(FormatId format, std::int64_t rows, std::int64_t cols, int kind, std::uint64_t seed) {
  std::mt19937_64 bits(seed);
  Tensor x = Tensor::zeros(format, {rows, cols});
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const double u = std::ldexp(static_cast<double>(bits() >> 11), -52) - 1;
    double v = u;
    if (kind == 1) v = std::ldexp(u, static_cast<int>(bits() % 120) - 60);
    if (kind == 2) v = bits() % 3 == 0 ? 0 : bits() % 2 == 0 ? 1 : -1;
    if (kind == 3) v = std::ldexp(u, -140);
    x.set_code(i, encode(format, v, Overflow::saturate_finite));
  }
  return x;
}

constexpr std::int64_t kPositions[] = {0, 1, 2, 77, 4096, 131071, 1000000007};

TEST_CASE("RoPE is enclosed and correctly rounded") {
  Tally tally;
  std::uint64_t seed = 1;
  for (const RopePairing pairing : {RopePairing::interleaved, RopePairing::half}) {
    for (const double theta : {10000.0, 500000.0, 1e6 + 0.1}) {
      for (const FormatId from : {FormatId::fp32, FormatId::bf16}) {
        for (int kind = 0; kind < 4; ++kind) {
          const Tensor x = random_tensor(from, 14, 24, kind, seed++);
          const Rope rope{
              .x = &x, .positions = kPositions, .rows_each = 2, .rotary = 16, .theta = theta, .pairing = pairing};
          for (const FormatId to : {FormatId::fp32, FormatId::bf16, FormatId::e4m3fn}) check(rope, to, tally);
        }
      }
    }
  }
  CHECK(tally.elements > 40000);
  CHECK(tally.wrong == 0);
  CHECK(tally.outside == 0);
  CHECK(tally.undecided == 0);
}

TEST_CASE("RoPE where the terms cancel") {
  // x1 and x2 next to multiples of sin t and cos t: y1 is what their rounding leaves.
  Tensor x = Tensor::zeros(FormatId::fp32, {7, 32});
  Rope rope{.x = &x, .positions = kPositions, .rotary = 32};
  for (std::int64_t r = 0; r < 7; ++r) {
    for (std::int64_t pair = 0; pair < 16; ++pair) {
      Reference reference(rope, kPositions[r], pair);
      const double scale = 1 + static_cast<double>(pair) / 16;
      x.set_code(r * 32 + pair, encode(FormatId::fp32, scale * mpfr_get_d(reference.sine, MPFR_RNDN), Overflow::ieee));
      x.set_code(r * 32 + pair + 16,
                 encode(FormatId::fp32, scale * mpfr_get_d(reference.cosine, MPFR_RNDN), Overflow::ieee));
    }
  }
  Tally tally;
  check(rope, FormatId::fp32, tally);
  CHECK(tally.wrong == 0);
  CHECK(tally.outside == 0);
  CHECK(tally.undecided == 0);
  CHECK(tally.beyond_binary64 > 20);
}

TEST_CASE("RoPE of special values") {
  const double inf = std::numeric_limits<double>::infinity();
  const std::vector<double> values{-0.0, inf, std::numeric_limits<double>::quiet_NaN(), 1, -2, -0.0, 0.0, 3};
  Tensor x = Tensor::zeros(FormatId::fp32, {2, 8});
  for (std::int64_t i = 0; i < 16; ++i)
    x.set_code(i, encode(FormatId::fp32, values[static_cast<std::size_t>(i % 8)], Overflow::ieee));
  constexpr std::int64_t positions[] = {0, 1};
  const Rope rope{.x = &x, .positions = positions, .rotary = 8, .pairing = RopePairing::interleaved};
  const RoundedRows y = round_rope(rope, FormatId::fp32, Overflow::ieee);
  for (std::int64_t j = 0; j < 8; ++j)
    if (j != 2) CHECK(y.y.code(j) == x.code(j));
  CHECK(std::isnan(y.y.value(2)));
  CHECK(y.y.value(8 + 0) == -inf);  // -0 cos - Inf sin
  CHECK(y.y.value(8 + 1) == inf);
  CHECK(std::isnan(y.y.value(8 + 2)));
  CHECK(std::isnan(y.y.value(8 + 3)));
  const auto truth = rope_truth(rope);
  CHECK(truth->compare(0, 3, 1, 0) == Comparison::equal);
  CHECK(truth->enclose(1, 0).hi == -inf);
}

TEST_CASE("RoPE does not depend on threads or vector level") {
  const Tensor x = random_tensor(FormatId::fp32, 64, 128, 0, 9);
  const Rope rope{.x = &x, .positions = kPositions, .rotary = 128};
  const VectorLevel before = vector_level();
  const RoundedRows first = round_rope(rope, FormatId::bf16, Overflow::ieee, 1);
  for (const VectorLevel level : vector_levels()) {
    set_vector_level(level);
    const RoundedRows other = round_rope(rope, FormatId::bf16, Overflow::ieee, 2);
    CHECK(other.y.bytes == first.y.bytes);
    CHECK(other.tiers == first.tiers);
  }
  set_vector_level(before);
}

TEST_CASE("RoPE refuses what it is not defined for") {
  const Tensor x = random_tensor(FormatId::fp32, 1, 8, 0, 1);
  constexpr std::int64_t positions[] = {1};
  CHECK_THROWS_AS(rope_truth({.x = &x, .positions = positions, .rotary = 7}), std::invalid_argument);
  CHECK_THROWS_AS(rope_truth({.x = &x, .positions = positions, .rotary = 10}), std::invalid_argument);
  CHECK_THROWS_AS(rope_truth({.x = &x, .positions = {}, .rotary = 8}), std::invalid_argument);
  CHECK_THROWS_AS(rope_truth({.x = &x, .positions = positions, .rotary = 8, .theta = 0.5}), std::invalid_argument);
}

}  // namespace
}  // namespace norma

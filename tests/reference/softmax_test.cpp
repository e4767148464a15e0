// Softmax, every tier, against MPFR.
#include <catch2/catch_test_macros.hpp>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "reference/certified/functions/softmax.hpp"
#include "reference/certified/vector_level.hpp"
#include "tests/reference/mpfr_functions.hpp"

namespace norma {
namespace {

using testing::Number;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

enum class Family { normal, wide, far_apart, close, outlier, masked, equal, two_values, any_bits };
constexpr Family kFamilies[] = {Family::normal, Family::wide,  Family::far_apart,  Family::close,   Family::outlier,
                                Family::masked, Family::equal, Family::two_values, Family::any_bits};

Tensor scores(Family family, FormatId format, std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  std::mt19937_64 bits(seed);
  const auto uniform = [&] { return std::ldexp(static_cast<double>(bits() >> 11), -52) - 1; };
  const auto normal = [&] { return uniform() + uniform() + uniform() + uniform(); };
  Tensor x = Tensor::zeros(format, {rows, cols});
  for (std::int64_t r = 0; r < rows; ++r) {
    const double base = 20 * uniform(), other = base + uniform();
    for (std::int64_t j = 0; j < cols; ++j) {
      const auto v = [&]() -> double {
        switch (family) {
          case Family::normal: return 2 * normal();
          case Family::wide: return 60 * uniform();
          case Family::far_apart: return 1e4 * std::pow(uniform(), 9);  // e^-d from 1 to far below every format
          case Family::close: return 1 + 0x1p-20 * uniform();
          case Family::outlier: return j == cols / 2 ? 30 : normal();
          case Family::masked: return j != 0 && bits() % 3 == 0 ? -kInfinity : normal();
          case Family::equal: return base;
          case Family::two_values: return bits() % 2 == 0 ? base : other;
          case Family::any_bits: {
            const float f = std::bit_cast<float>(static_cast<std::uint32_t>(bits()));
            return std::isfinite(f) ? static_cast<double>(f) : 0;
          }
        }
        return 0;
      }();
      x.set_code(r * cols + j, encode(format, v, Overflow::saturate_finite));
    }
  }
  return x;
}

// e^(x_j - max) / sum by MPFR; empty where the row is NaN.
class Reference {
 public:
  Reference(const Tensor& x, std::int64_t row, mpfr_prec_t bits) : x_(x), row_(row), bits_(bits), sum_(bits) {
    most_ = -kInfinity;
    for (std::int64_t j = 0; j < x.cols(); ++j) most_ = std::max(most_, at(j));
    mpfr_set_zero(sum_, 1);
    Number term(bits);
    for (std::int64_t j = 0; j < x.cols(); ++j) {
      power(term, j);
      mpfr_add(sum_, sum_, term, MPFR_RNDN);
    }
  }
  void value(mpfr_ptr out, std::int64_t j) {
    power(out, j);
    mpfr_div(out, out, sum_, MPFR_RNDN);
  }

 private:
  double at(std::int64_t j) const { return x_.value(row_ * x_.cols() + j); }
  void power(mpfr_ptr out, std::int64_t j) const {
    Number d(at(j), bits_ + 300);
    mpfr_sub_d(d, d, most_, MPFR_RNDN);
    mpfr_exp(out, d, MPFR_RNDN);
  }
  const Tensor& x_;
  std::int64_t row_;
  mpfr_prec_t bits_;
  double most_ = 0;
  Number sum_;
};

struct Tally {
  std::int64_t elements = 0, wrong = 0, outside = 0, undecided = 0;
};

void check(const Tensor& x, FormatId to, Tally& tally) {
  const RoundedRows rounded = round_softmax(x, to, Overflow::ieee);
  tally.undecided += rounded.tiers.undecided;
  const auto truth = softmax_truth(x);
  const std::int64_t cols = x.cols();
  const auto n = static_cast<std::size_t>(cols);
  std::vector<double> mid(n), radius(n), magnitude(n);
  std::vector<Enclosure> close(n);
  for (std::int64_t r = 0; r < x.rows(); ++r) {
    truth->enclose_quick(r, {mid, radius, magnitude});
    truth->enclose_row(r, close);
    Reference reference(x, r, 300);
    Number y(300), d(400);
    const auto outside = [&](double h, double l, double bound) {
      mpfr_sub_d(d, y, h, MPFR_RNDN);
      mpfr_sub_d(d, d, l, MPFR_RNDN);
      return mpfr_cmp_d(d, bound * (1 + 0x1p-40) + 0x1p-1073) > 0 ||
             mpfr_cmp_d(d, -bound * (1 + 0x1p-40) - 0x1p-1073) < 0;
    };
    for (std::int64_t j = 0; j < cols; ++j) {
      const auto i = static_cast<std::size_t>(j);
      reference.value(y, j);
      tally.outside += outside(mid[i], 0, radius[i]) ? 1 : 0;
      // 300 bits are no reference for radius 0: 1/n to its last bit.
      tally.outside += outside(close[i].hi, close[i].lo, std::max(close[i].radius, 0x1p-290 * close[i].hi)) ? 1 : 0;
      tally.outside += close[i].radius <= 0x1p-80 * close[i].hi + 0x1p-1074 ? 0 : 1;
      auto right = testing::round_known(to, y, 280);
      if (!right) {
        Reference more(x, r, 3000);
        Number z(3000);
        more.value(z, j);
        right = testing::round_known(to, z, 2980);
        if (!right) right = testing::round_by_mpfr(to, z);  // 1/n on a half-way point
      }
      tally.wrong += rounded.y.code(r * cols + j) != *right ? 1 : 0;
      ++tally.elements;
    }
  }
}

TEST_CASE("softmax is enclosed and correctly rounded") {
  Tally tally;
  std::uint64_t seed = 1;
  for (const Family family : kFamilies) {
    for (const FormatId from : {FormatId::fp32, FormatId::bf16, FormatId::fp16}) {
      for (const std::int64_t cols : {1, 2, 3, 8, 37, 64, 300}) {
        const Tensor x = scores(family, from, 12, cols, seed++);
        for (const FormatId to : {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn}) {
          if (cols == 300 && to != FormatId::fp32) continue;
          check(x, to, tally);
        }
      }
    }
  }
  CHECK(tally.elements > 100000);
  CHECK(tally.wrong == 0);
  CHECK(tally.outside == 0);
  CHECK(tally.undecided == 0);
}

TEST_CASE("softmax of long rows") {
  Tally tally;
  check(scores(Family::normal, FormatId::fp32, 1, 20011, 77), FormatId::fp32, tally);
  CHECK(tally.wrong == 0);
  CHECK(tally.outside == 0);
}

TEST_CASE("softmax of a million random elements", "[nightly]") {
  Tally tally;
  std::uint64_t seed = 1000;
  for (int i = 0; i < 40; ++i)
    for (const Family family : kFamilies) check(scores(family, FormatId::fp32, 8, 400, seed++), FormatId::fp32, tally);
  CHECK(tally.wrong == 0);
  CHECK(tally.outside == 0);
}

Tensor row_of(const std::vector<double>& values) {
  Tensor x = Tensor::zeros(FormatId::fp32, {1, static_cast<std::int64_t>(values.size())});
  for (std::size_t i = 0; i < values.size(); ++i)
    x.set_code(static_cast<std::int64_t>(i), encode(FormatId::fp32, values[i], Overflow::ieee));
  return x;
}

TEST_CASE("softmax of special rows") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const auto& values :
       {std::vector<double>{1, nan, 2}, {1, kInfinity}, {-kInfinity, -kInfinity}, {kInfinity, kInfinity}}) {
    const Tensor x = row_of(values);
    const RoundedRows y = round_softmax(x, FormatId::fp32, Overflow::ieee);
    for (std::int64_t j = 0; j < x.cols(); ++j) CHECK(y.y.code(j) == format_of(FormatId::fp32).nan_code());
    CHECK(std::isnan(softmax_truth(x)->enclose(0, 0).hi));
  }
  const Tensor one = row_of({-kInfinity, 3, -kInfinity});
  const RoundedRows y = round_softmax(one, FormatId::fp32, Overflow::ieee);
  CHECK(y.y.value(0) == 0);
  CHECK(y.y.value(1) == 1);
  // 2^-10 is half-way between 0 and the least e4m3fn number, and exact: ties go to even.
  const Tensor equal = row_of(std::vector<double>(1024, 0.25));
  const RoundedRows tie = round_softmax(equal, FormatId::e4m3fn, Overflow::ieee);
  CHECK(tie.y.code(5) == 0);
  CHECK(tie.tiers.undecided == 0);
  const auto truth = softmax_truth(equal);
  CHECK(truth->compare(0, 5, 0x1p-10, 0) == Comparison::equal);
  CHECK(truth->compare(0, 5, 0x1p-10, 0x1p-90) == Comparison::less);
  CHECK(truth->enclose(0, 5).radius == 0);
  // Nearer to 1 and to 0 than any precision tells.
  const Tensor apart = row_of({1e30, -1e30});
  CHECK(softmax_truth(apart)->compare(0, 0, 1, 0) == Comparison::less);
  CHECK(softmax_truth(apart)->compare(0, 1, 0, 0) == Comparison::greater);
  CHECK(softmax_truth(apart)->compare(0, 1, 0x1p-1074, 0) == Comparison::less);
}

TEST_CASE("softmax does not depend on threads or vector level") {
  const Tensor x = scores(Family::normal, FormatId::fp32, 16, 5000, 5);
  const VectorLevel before = vector_level();
  const RoundedRows first = round_softmax(x, FormatId::bf16, Overflow::ieee, 1);
  for (const VectorLevel level : vector_levels()) {
    set_vector_level(level);
    const RoundedRows other = round_softmax(x, FormatId::bf16, Overflow::ieee, 2);
    CHECK(other.y.bytes == first.y.bytes);
    CHECK(other.tiers == first.tiers);
  }
  set_vector_level(before);
}

}  // namespace
}  // namespace norma

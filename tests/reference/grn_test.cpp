// Global response normalization against its formula at 400 bits, and where comparisons are decided exactly.
#include "reference/norms/grn.hpp"

#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "reference/exact/real.hpp"
#include "tests/reference/rational.hpp"

namespace norma::test {
namespace {

using Catch::Matchers::ContainsSubstring;

constexpr mpfr_prec_t kBits = 400;

Tensor filled(FormatId format, Shape shape, const std::vector<double>& values) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i)
    t.set_code(i, encode(format, values[static_cast<std::size_t>(i) % values.size()], Overflow::ieee));
  return t;
}

std::vector<double> random_values(Random& random, int count) {
  std::vector<double> values;
  for (int i = 0; i < count; ++i) {
    const double mantissa = 1 + static_cast<double>(random.below(1 << 20)) * 0x1p-20;
    values.push_back((random.below(2) == 0 ? 1 : -1) * std::ldexp(mantissa, random.between(-5, 3)));
  }
  return values;
}

Tensors tensors_of(const std::vector<double>& x, Shape shape, const std::vector<double>& weight,
                   const std::vector<double>& bias) {
  const auto channels = shape.back();
  Tensors t;
  t["x"] = filled(FormatId::fp32, std::move(shape), x);
  t["weight"] = filled(FormatId::fp32, {channels}, weight);
  t["bias"] = filled(FormatId::fp32, {channels}, bias);
  return t;
}

void check_point(const TruthSource& truth, std::int64_t row, std::int64_t col, double y) {
  const Enclosure e = truth.enclose(row, col);
  CHECK(e.hi == y);
  CHECK(e.lo == 0);
  CHECK(e.radius == 0);
  CHECK(truth.compare(row, col, y, 0) == Comparison::equal);
  CHECK(truth.compare(row, col, y, 0x1p-90) == Comparison::less);
  CHECK(truth.compare(row, col, y, -0x1p-90) == Comparison::greater);
}

}  // namespace

TEST_CASE("GRN is its formula on random samples") {
  Random random{77};
  const std::int64_t samples = 2, positions = 6, channels = 5;
  const Tensors t = tensors_of(random_values(random, 60), {samples, 2, 3, channels}, random_values(random, 5),
                               random_values(random, 5));
  const NormCall call{.inputs = &t, .numbers = {{"eps", 1e-3}}, .words = {}};
  grn.check(call);
  const auto truth = grn.truth(call, "y");
  REQUIRE(truth->rows() == samples * positions);
  REQUIRE(truth->cols() == channels);
  const auto x_at = [&](std::int64_t n, std::int64_t p, std::int64_t c) {
    return Interval(t.at("x").value((n * positions + p) * channels + c), kBits);
  };
  std::vector<Enclosure> row(static_cast<std::size_t>(channels));
  for (std::int64_t n = 0; n < samples; ++n) {
    std::vector<Interval> lengths;
    for (std::int64_t c = 0; c < channels; ++c) {
      std::vector<Interval> squares;
      for (std::int64_t p = 0; p < positions; ++p) squares.push_back(square(x_at(n, p, c)));
      lengths.push_back(sqrt(sum(squares, kBits)));
    }
    const Interval mean = div(sum(lengths, kBits), Interval(static_cast<double>(channels), kBits));
    for (std::int64_t p = 0; p < positions; ++p) {
      truth->enclose_row(n * positions + p, row);
      for (std::int64_t c = 0; c < channels; ++c) {
        const auto at = static_cast<std::size_t>(c);
        const Interval r = div(lengths[at], add(mean, Interval(1e-3, kBits)));
        const Interval scaled = mul(Interval(t.at("weight").value(c), kBits), mul(x_at(n, p, c), r));
        const Interval y = add(add(scaled, Interval(t.at("bias").value(c), kBits)), x_at(n, p, c));
        const Enclosure want = enclosure_of(y);
        CHECK(row[at].radius <= 0x1p-80 * row[at].magnitude);
        CHECK(std::fabs((row[at].hi - want.hi) + (row[at].lo - want.lo)) <=
              row[at].radius + want.radius + 0x1p-104 * std::fabs(want.hi));
        CHECK(truth->compare(n * positions + p, c, want.hi, want.lo + 0x1p-95 * std::fabs(want.hi)) ==
              Comparison::less);
        CHECK(truth->compare(n * positions + p, c, want.hi, want.lo - 0x1p-95 * std::fabs(want.hi)) ==
              Comparison::greater);
      }
    }
  }
}

TEST_CASE("GRN's fast truth encloses it, tightly where it is ordinary") {
  Random random{78};
  for (const bool biased : {true, false})
    for (const double spike : {1.0, 0x1p60, std::numeric_limits<double>::infinity(), std::nan("")}) {
      Tensors t = tensors_of(random_values(random, 180), {3, 2, 6, 5}, random_values(random, 5), random_values(random, 5));
      if (!biased) t.erase("bias");
      t["x"].set_code(7, encode(t["x"].format, spike, Overflow::ieee));
      const NormCall call{.inputs = &t, .numbers = {{"eps", 1e-3}}, .words = {}};
      const auto exact = truth_of(grn, call, "y", TruthKind::mpfr), fast = truth_of(grn, call, "y", TruthKind::fast);
      std::vector<double> mid(5), radius(5), magnitude(5);
      std::int64_t known = 0;
      for (std::int64_t row = 0; row < exact->rows(); ++row) {
        fast->enclose_quick(row, {.mid = mid, .radius = radius, .magnitude = magnitude});
        for (std::size_t c = 0; c < 5; ++c) {
          const auto col = static_cast<std::int64_t>(c);
          const Enclosure e = exact->enclose(row, col);
          CAPTURE(biased, spike, row, c, e.hi, mid[c], radius[c]);
          if (std::isnan(e.hi)) continue;
          CHECK(fast->enclose(row, col).hi == e.hi);
          if (!(radius[c] < std::numeric_limits<double>::infinity())) continue;
          ++known;
          CHECK(std::fabs((mid[c] - e.hi) - e.lo) <= radius[c] + e.radius);
          CHECK(radius[c] <= 0x1p-50 * e.magnitude);
          CHECK(std::fabs(magnitude[c] - e.magnitude) <= radius[c] + 0x1p-52 * e.magnitude);
        }
      }
      CHECK(known >= (std::isfinite(spike) ? 180 : 120));  // a spike that is not finite spoils its sample
    }
}

TEST_CASE("GRN decides ties") {
  NormCall call{.inputs = nullptr, .numbers = {{"eps", 0.5}}, .words = {}};
  // Lengths 5 and 10, mean 7.5: responses 5/8 and 10/8.
  const Tensors exact = tensors_of({3, 6, 4, 8}, {1, 2, 2}, {2, 4}, {0.5, 0.25});
  call.inputs = &exact;
  const auto first = grn.truth(call, "y");
  check_point(*first, 0, 0, 2 * 3 * 0.625 + 0.5 + 3);
  check_point(*first, 1, 1, 4 * 8 * 1.25 + 0.25 + 8);
  // Lengths 5, 10, 5, mean 20/3, no eps: 3/4 though the mean is no binary number.
  call.numbers["eps"] = 0;
  const Tensors thirds = tensors_of({3, 6, 3, 4, 8, 4}, {1, 2, 3}, {2}, {0});
  call.inputs = &thirds;
  check_point(*grn.truth(call, "y"), 0, 0, 2 * 3 * 0.75 + 3);
  // Equal lengths sqrt(2): responses 1.
  const Tensors equal = tensors_of({1, -1, 1, 1}, {1, 2, 2}, {0.5}, {0});
  call.inputs = &equal;
  check_point(*grn.truth(call, "y"), 0, 1, -1.5);
  // Weight 0 and bias 0 change nothing.
  const Tensors identity = tensors_of({3, 1, 7, 5}, {1, 2, 2}, {0}, {0});
  call.inputs = &identity;
  check_point(*grn.truth(call, "y"), 1, 0, 7);
}

TEST_CASE("GRN of zeros, NaN, Inf, and calls it refuses") {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  NormCall call{.inputs = nullptr, .numbers = {{"eps", 0}}, .words = {}};
  const auto y = [&](const Tensors& t, std::int64_t row, std::int64_t col) {
    call.inputs = &t;
    grn.check(call);
    return grn.truth(call, "y")->enclose(row, col).hi;
  };
  CHECK(std::isnan(y(tensors_of({0}, {1, 2, 2}, {1}, {0}), 0, 0)));
  CHECK(std::isnan(y(tensors_of({1, nan, 3, 4}, {1, 2, 2}, {1}, {0}), 1, 0)));
  const Tensors half = tensors_of({1, infinity, 3, 4}, {1, 2, 2}, {1}, {0.5});
  CHECK(y(half, 1, 0) == 3.5);
  CHECK(std::isnan(y(half, 1, 1)));
  CHECK(y(tensors_of({1, nan, 3, 4, 5, 6, 7, 8}, {2, 2, 2}, {0}, {1}), 2, 0) == 6);  // the other sample is its own
  call.numbers["eps"] = 1;
  CHECK(y(tensors_of({0}, {1, 2, 2}, {1}, {0.25}), 0, 0) == 0.25);
  const auto refusal = [&](const Tensors& t) {
    call.inputs = &t;
    try {
      grn.check(call);
    } catch (const NormError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK_THAT(refusal(tensors_of({1, 2}, {2}, {1}, {0})), ContainsSubstring("[samples, positions..., channels]"));
  Tensors bare = tensors_of({1, 2}, {1, 2}, {1}, {0});
  bare.erase("weight");
  CHECK_THAT(refusal(bare), ContainsSubstring("weight"));
}

}  // namespace norma::test

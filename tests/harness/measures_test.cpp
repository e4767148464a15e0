// Each figure on pairs made by hand, where the right answer is known without the code under test.
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "harness/metrics/measures.hpp"
#include "harness/metrics/tolerances.hpp"
#include "tests/harness/hand_made_truth.hpp"

using namespace norma;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Measures measure_one(FormatId format, HandMade truth, double got, Overflow policy = Overflow::ieee) {
  const HandMadeTruth source(1, 1, {truth});
  return measure(source, nullptr, nullptr, tensor_of(format, {1, 1}, {got}), policy);
}

/// A portable pseudorandom sequence (splitmix64).
struct Stream {
  std::uint64_t state;
  std::uint64_t next() {
    state += 0x9e3779b97f4a7c15;
    std::uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  double uniform() { return std::ldexp(static_cast<double>(next() >> 11), -53); }
};

struct Sample {
  std::vector<HandMade> truth, erasure;
  Tensor ideal, got;
};

Sample sample_of(std::int64_t rows, std::int64_t cols, FormatId format) {
  Stream stream{.state = 7};
  Sample sample{.truth = {},
                .erasure = {},
                .ideal = Tensor::zeros(format, {rows, cols}),
                .got = Tensor::zeros(format, {rows, cols})};
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    const double y = std::ldexp(stream.uniform() - 0.5, static_cast<int>(stream.next() % 12) - 4);
    sample.truth.push_back({.hi = y, .lo = std::ldexp(y * (stream.uniform() - 0.5), -54)});
    sample.erasure.push_back({.hi = y * (1 + 0x1p-9), .lo = 0});
    const std::uint64_t code = encode(format, y * (1 + 0x1p-9 * stream.uniform()), Overflow::ieee);
    sample.ideal.set_code(i, code);
    sample.got.set_code(i, code + stream.next() % 2);
  }
  return sample;
}

}  // namespace

TEST_CASE("the grid sums and ranks integers exactly") {
  GridSum sum;
  for (const std::int64_t error : {-3, 4, 0}) sum.add(error * kGridUlp);
  CHECK(sum.bias() == 1.0 / 3.0);
  CHECK(sum.mean_magnitude() == 7.0 / 3.0);
  CHECK(sum.rms() == std::sqrt(25.0 / 3.0));
  CHECK(sum.largest == 4 * kGridUlp);

  // Many values, so that the table is used, some of them above it.
  GridCounts counts, more;
  for (std::uint64_t i = 1; i <= 60000; ++i) (i % 2 == 0 ? counts : more).add(i * 10);
  counts.merge(more);
  CHECK(counts.count() == 60000);
  CHECK(counts.quantile(1, 2) == 300000);
  CHECK(counts.quantile(999, 1000) == 599400);
  CHECK(counts.quantile(1, 100000) == 10);
  GridCounts few;
  for (const std::uint64_t value : {5u, 1u, 3u}) few.add(value);
  CHECK(few.quantile(1, 2) == 3);
  CHECK(few.sorted().size() == 3);
  few.merge(counts);
  CHECK(few.quantile(1, 100000) == 1);
  CHECK(few.sorted().front().first == 1);
}

TEST_CASE("each histogram bin holds its lower edge and not its upper one") {
  const auto edges = histogram_edges();
  for (int bin = 0; bin < kHistogramBins; ++bin) {
    const auto b = static_cast<std::size_t>(bin);
    CAPTURE(bin, edges[b]);
    CHECK(edges[b] < edges[b + 1]);
    const auto low = static_cast<std::int64_t>(edges[b] * 65536),
               high = static_cast<std::int64_t>(edges[b + 1] * 65536);
    CHECK(histogram_bin(low) == bin);
    CHECK(histogram_bin(high - 1) == bin);
  }
  CHECK(histogram_bin(-kScaledErrorLimit) == 0);
  CHECK(histogram_bin(kScaledErrorLimit) == kHistogramBins - 1);
}

TEST_CASE("leading bits keep order and lose at most one percent") {
  std::uint64_t previous = 0;
  for (std::uint64_t v = 1; v < (std::uint64_t{1} << 50); v += 1 + v / 300) {
    const std::uint64_t back = from_leading_bits(leading_bits(v));
    CHECK(leading_bits(v) >= previous);
    previous = leading_bits(v);
    REQUIRE((back <= v && static_cast<double>(v - back) <= 0.01 * static_cast<double>(v)));
  }
}

TEST_CASE("the error is in units of the exact value's ulp, on both sides of a binade edge") {
  // bf16: ulp 2^-7 in [1, 2), 2^-8 below.
  CHECK(measure_one(FormatId::bf16, {.hi = 1.0}, 1 + 0x1p-7).ulp.max == 1.0);
  CHECK(measure_one(FormatId::bf16, {.hi = 1.0, .lo = -0x1p-60}, 1 + 0x1p-7).ulp.max == 2.0);
  // 2^-8 below one is half an ulp of one, yet not its rounding.
  const Measures below = measure_one(FormatId::bf16, {.hi = 1.0, .lo = 0x1p-60}, 1 - 0x1p-8);
  CHECK(below.ulp.max == 0.5);
  CHECK(below.ulp.correct == 0);
  CHECK(below.ulp.faithful == 0);
  CHECK(below.ulp.bias == -0.5);
  const Measures exact = measure_one(FormatId::bf16, {.hi = -1.0}, -1.0);
  CHECK(exact.ulp.max == 0);
  CHECK(exact.ulp.correct == 1);
}

TEST_CASE("a tie is correctly rounded to even only, and faithful both ways") {
  const HandMade tie{.hi = 1 + 0x1p-8};
  const Measures even = measure_one(FormatId::bf16, tie, 1.0);
  const Measures odd = measure_one(FormatId::bf16, tie, 1 + 0x1p-7);
  CHECK(even.ulp.correct == 1);
  CHECK(odd.ulp.correct == 0);
  CHECK(odd.ulp.faithful == 1);
  CHECK(even.ulp.bias == -0.5);
  CHECK(odd.ulp.bias == 0.5);
  // The grid cannot tell a value just above the tie from it; the comparison can.
  const HandMade above{.hi = 1 + 0x1p-8, .lo = 0x1p-70};
  CHECK(measure_one(FormatId::bf16, above, 1.0).ulp.correct == 0);
  CHECK(measure_one(FormatId::bf16, above, 1 + 0x1p-7).ulp.correct == 1);
}

TEST_CASE("subnormal results are in units of the least subnormal") {
  const double least = min_subnormal(FormatId::fp16);
  const Measures subnormal = measure_one(FormatId::fp16, {.hi = 2.5 * least}, 3 * least);
  CHECK(subnormal.ulp.max == 0.5);
  CHECK(subnormal.counts.subnormal == 1);
  const Measures gone = measure_one(FormatId::fp16, {.hi = 0.25 * least}, 0.0);
  CHECK(gone.ulp.max == 0.25);
  CHECK(gone.counts.underflow == 1);
  CHECK(gone.ulp.correct == 1);
  const Measures zero = measure_one(FormatId::fp16, {.hi = 0.0}, -0.0);
  CHECK(zero.counts.underflow == 0);
  CHECK(zero.ulp.max == 0);
  CHECK(zero.ulp.correct == 1);
  // Flushed to zero: a whole normal number's worth of ulps.
  CHECK(measure_one(FormatId::fp16, {.hi = min_normal(FormatId::fp16)}, 0.0).ulp.max == 1024);
}

TEST_CASE("e4m3fn overflows above 464 and not at it") {
  const Measures at = measure_one(FormatId::e4m3fn, {.hi = 464}, 448);
  CHECK(at.counts.overflow == 0);
  CHECK(at.ulp.max == 0.5);
  CHECK(at.ulp.correct == 1);
  const HandMade beyond{.hi = 464, .lo = 0x1p-50};
  const Measures nan = measure_one(FormatId::e4m3fn, beyond, kNan);
  CHECK(nan.counts.overflow == 1);
  CHECK(nan.counts.nan_unexpected == 0);
  CHECK(nan.counts.compared == 0);
  const Measures saturated = measure_one(FormatId::e4m3fn, beyond, 448, Overflow::saturate);
  CHECK(saturated.counts.overflow == 1);
  CHECK(saturated.counts.compared == 0);
  // Finite, and not what the rule makes of it: scored.
  const Measures other = measure_one(FormatId::e4m3fn, beyond, 448, Overflow::ieee);
  CHECK(other.counts.overflow == 1);
  CHECK(other.counts.compared == 1);
  CHECK(other.ulp.correct == 0);
  CHECK(other.ulp.faithful == 1);
  const Measures far = measure_one(FormatId::e4m3fn, {.hi = -1e6}, 1.0);
  CHECK(far.counts.overflow == 1);
  CHECK(far.ulp.max >= 8);
  CHECK(measure_one(FormatId::e4m3fn, {.hi = 464}, kNan).counts.nan_unexpected == 1);
  CHECK(measure_one(FormatId::e4m3fn, {.hi = 1000}, kNan, Overflow::saturate).counts.nan_unexpected == 1);
  CHECK(measure_one(FormatId::fp16, {.hi = 65520}, kInfinity).counts.overflow == 1);
  CHECK(measure_one(FormatId::fp16, {.hi = -65520}, -kInfinity).counts.inf_unexpected == 0);
  CHECK(measure_one(FormatId::fp16, {.hi = -65520}, kInfinity).counts.inf_unexpected == 1);
  CHECK(measure_one(FormatId::fp16, {.hi = 65520, .lo = -0x1p-40}, kInfinity).counts.inf_unexpected == 1);
  CHECK(measure_one(FormatId::fp64, {.hi = max_finite(FormatId::fp64), .lo = 0x1p970}, kInfinity).counts.overflow == 1);
}

TEST_CASE("NaN and Inf are counted and never scored as small") {
  const HandMadeTruth truth(1, 5, {{kNan}, {kNan}, {kInfinity}, {-kInfinity}, {1.0}});
  const Measures m =
      measure(truth, nullptr, nullptr, tensor_of(FormatId::fp32, {5}, {kNan, 1, kInfinity, 3, kNan}), Overflow::ieee);
  CHECK(m.counts.nan_expected == 2);
  CHECK(m.counts.nan_missing == 1);
  CHECK(m.counts.inf_expected == 2);
  CHECK(m.counts.inf_missing == 1);
  CHECK(m.counts.nan_unexpected == 1);
  CHECK(m.counts.compared == 0);
  CHECK(m.ulp.max == kInfinity);
  CHECK(m.ulp.max_at == Place{.row = 0, .col = 4});
  CHECK(std::isnan(m.ulp.rms));
  REQUIRE(m.worst.size() == 1);
  CHECK(m.worst[0].ulp == kInfinity);
  CHECK(to_json(m)["ulp"]["max"] == "inf");
  CHECK(to_json(m)["ulp"]["rms"] == "nan");
  CHECK_FALSE(to_json(m)["allclose"][0]["passes"]);
}

TEST_CASE("the parts of the error add up to the total on the grid, for each element and in the mean") {
  for (const FormatId format : {FormatId::bf16, FormatId::fp16, FormatId::fp32}) {
    CAPTURE(name_of(format));
    const Sample sample = sample_of(40, 50, format);
    const HandMadeTruth truth(40, 50, sample.truth), erasure(40, 50, sample.erasure);
    const Measures m = measure(truth, &erasure, &sample.ideal, sample.got, Overflow::ieee);
    REQUIRE(m.definition);
    REQUIRE(m.path);
    REQUIRE(m.implementation);
    REQUIRE(m.worst.size() == 8);
    for (const WorstElement& w : m.worst) CHECK(w.ulp == *w.definition + *w.path + *w.implementation);
    // Sums of 2000 integers over 2000: the quotients differ from the exact ones by an ulp of
    // binary64 each.
    const double parts = m.definition->bias + m.path->bias + m.implementation->bias;
    CHECK(std::fabs(parts - m.total.bias) <= 0x1p-50 * (std::fabs(m.definition->bias) + std::fabs(m.path->bias)));
    CHECK(m.total.bias == m.ulp.bias);
    CHECK(m.total.max == m.ulp.max);
    // Within 1.5 units of the path error rounded by itself.
    const WorstElement& w = m.worst.front();
    const double unit =
        std::ldexp(1.0, std::max(std::ilogb(w.hi), format_of(format).emin) + 1 - format_of(format).precision);
    const double c_minus_e = -w.hi * 0x1p-9;
    const double path = (decode(format, *w.ideal) - w.hi + c_minus_e) / unit;
    CHECK(std::fabs(path - *w.path) <= 1.5 / 65536 + 1e-6);
  }
}

TEST_CASE("figures do not depend on the number of threads") {
  const Sample sample = sample_of(300, 257, FormatId::bf16);
  const HandMadeTruth truth(300, 257, sample.truth), erasure(300, 257, sample.erasure);
  const std::string alone =
      to_json(measure(truth, &erasure, &sample.ideal, sample.got, Overflow::ieee, {.threads = 1})).dump();
  for (const int threads : {2, 3, 8}) {
    CAPTURE(threads);
    CHECK(to_json(measure(truth, &erasure, &sample.ideal, sample.got, Overflow::ieee, {.threads = threads})).dump() ==
          alone);
  }
  // A wide enclosure sends every decision to `compare` and changes no figure.
  const HandMadeTruth wide(300, 257, sample.truth, 0x1p-20);
  CHECK(to_json(measure(wide, &erasure, &sample.ideal, sample.got, Overflow::ieee, {.threads = 2})).dump() == alone);
}

namespace {

/// Values where decisions are hard, in pairs with what a kernel might have written.
struct HardCases {
  std::vector<HandMade> truth;
  std::vector<double> got;
  void add(HandMade y, double g) {
    for (const double sign : {1.0, -1.0}) {
      truth.push_back({sign * y.hi, sign * y.lo, y.magnitude});
      got.push_back(sign * g);
    }
  }
};

HardCases hard_cases(FormatId id) {
  const Format& f = format_of(id);
  HardCases cases;
  const double ulp = std::ldexp(1.0, 1 - f.precision), least = min_subnormal(id), largest = max_finite(id);
  const double tiny = 0x1p-80;
  for (const double base : {1.0, 1 + ulp, 2.0, min_normal(id), 4 * least, largest / 2, 3 * min_normal(id)}) {
    const double unit = std::max(std::ldexp(ulp, std::ilogb(base)), least);
    // On a value, half-way, at a half-way point of the grid, one ulp off, and a hair to each side of each.
    for (const double offset : {0.0, 0.5, -0.5, -0.25, 0x1p-17, 0.5 + 0x1p-17, 1.0, -1.0, 1 - 0x1p-17, 1 + 0x1p-17, 3 + 0x1p-17}) {
      for (const double hair : {0.0, tiny, -tiny}) {
        for (const double away : {-1.0, 0.0, 1.0}) cases.add({base + offset * unit, hair * base}, base + away * unit);
        cases.add({base + offset * unit, hair * base, 4.0 * base}, base);
        cases.add({base + offset * unit, hair * base, std::ldexp(base, 5) * (1 - 0x1p-53)}, base);
      }
    }
  }
  const double threshold = largest + std::ldexp(ulp, f.emax) / 2;
  for (const double hair : {0.0, tiny, -tiny}) {
    for (const double g : {largest, kInfinity, kNan, 0.0}) {
      cases.add({threshold, hair * threshold}, g);
      cases.add({largest, hair * largest}, g);
      cases.add({4 * threshold}, g);
      cases.add({0.75 * largest}, g);
    }
    cases.add({least / 2, hair * least}, 0.0);
    cases.add({least / 2, hair * least}, least);
    cases.add({least * 0x1p-30}, 0.0);
    cases.add({least * 0x1p-30}, least);
  }
  for (const double g : {0.0, 1.0, kInfinity, kNan, least}) {
    cases.add({0.0, 0.0, 0.0}, g);
    cases.add({0.0, 0.0, 1.0}, g);
    cases.add({0x1p-60, 0.0, 1.0}, g);
    cases.add({kNan, 0, kNan}, g);
    cases.add({kInfinity, 0, kInfinity}, g);
  }
  cases.add({1e-3}, std::min(largest, 1e30));
  return cases;
}

/// Without what may differ.
std::string figures_of(const Measures& measures) {
  nlohmann::ordered_json json = to_json(measures);
  json.erase("tiers");
  return json.dump();
}

}  // namespace

TEST_CASE("quick enclosures of any radius change no figure") {
  for (const FormatId format :
       {FormatId::fp64, FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2, FormatId::e5m2fnuz}) {
    CAPTURE(name_of(format));
    const HardCases cases = hard_cases(format);
    const auto size = static_cast<std::int64_t>(cases.truth.size());
    const Tensor got = tensor_of(format, {1, size}, cases.got);
    // The ideal is off by up to two codes, the erasure by shares of an ulp with half-way points of the grid among them.
    Tensor ideal = got;
    std::vector<HandMade> erased = cases.truth;
    for (std::int64_t i = 0; i < size; ++i) {
      const auto at = static_cast<std::size_t>(i);
      ideal.set_code(i, got.code(i) ^ static_cast<std::uint64_t>(i % 4));
      const double size_of_y = std::fabs(erased[at].hi);
      if (size_of_y > 0 && std::isfinite(size_of_y)) {
        const int binade = std::max(std::ilogb(size_of_y), format_of(format).emin);
        const double quarter = std::ldexp(1.0, binade - format_of(format).precision - 18);
        erased[at].hi += static_cast<double>(i % 7) * quarter;
      }
    }
    for (const bool with_ideal : {false, true}) {
      const HandMadeTruth plain(1, size, cases.truth), plain_erasure(1, size, erased);
      const Tensor* held = with_ideal ? &ideal : nullptr;
      const Measures expected = measure(plain, with_ideal ? &plain_erasure : nullptr, held, got, Overflow::ieee);
      CHECK(expected.tiers.exact + expected.counts.undecided == size);
      for (const double radius : {0.0, 0x1p-48, 0x1p-40, 0x1p-30, 0x1p-12, 0.5, kInfinity}) {
        for (const double off : {0.0, -1.0, 1.0, 0.37}) {
          if (std::isinf(radius) && off != 0) continue;
          CAPTURE(with_ideal, radius, off);
          const HandMadeQuick quick{.radius = radius, .off = off};
          const HandMadeTruth truth(1, size, cases.truth, 0, quick), erasure(1, size, erased, 0, quick);
          const Measures m = measure(truth, with_ideal ? &erasure : nullptr, held, got, Overflow::ieee);
          CHECK(figures_of(m) == figures_of(expected));
          CHECK(m.tiers.binary64 + m.tiers.double_double + m.tiers.exact + m.tiers.undecided == size);
          CHECK(m.tiers.undecided == m.counts.undecided);
          if (radius == 0x1p-48 && format_of(format).precision <= 11) CHECK(m.tiers.binary64 > size / 6);
        }
      }
    }
  }
}

TEST_CASE("elements are counted by the slowest tier that they took") {
  // 1.25 is far from every decision, 1 + 2^-8 is a tie of bf16.
  const HandMadeQuick quick{.radius = 0x1p-47};
  const std::vector<HandMade> values{{1.25 + 0x1p-20}, {1.25 + 0x1p-20}, {1 + 0x1p-8}, {kNan}};
  const HandMadeTruth truth(1, 4, values, 0, quick), wide(1, 4, values, 0x1p-60, quick);
  const Tensor got = tensor_of(FormatId::bf16, {4}, {1.25, 1.25, 1.0, 1.0});
  // A closer enclosure that is a point tells a tie, a wider one asks.
  CHECK(measure(truth, nullptr, nullptr, got, Overflow::ieee).tiers == TierCounts{.binary64 = 3, .double_double = 1});
  CHECK(measure(wide, nullptr, nullptr, got, Overflow::ieee).tiers == TierCounts{.binary64 = 3, .exact = 1});
  // The first's definition gap is half a grid unit.
  const HandMadeTruth erasure(1, 4, {{1.25 + 0x1p-20 + 0x1p-24}, {1.25}, {1 + 0x1p-8}, {kNan}}, 0, quick);
  CHECK(measure(truth, &erasure, nullptr, got, Overflow::ieee).tiers == TierCounts{.binary64 = 2, .double_double = 2});
}

TEST_CASE("a definition's part at a half-way point of the grid does not hang on the last bits of midpoints") {
  // (e - c) / ulp = 3/2 units exactly, and with midpoints off by 2^-90.
  const double c = 1.25, e = 1.25 + 1.5 * 0x1p-23;
  for (const double slip : {0.0, 0x1p-90, -0x1p-90}) {
    CAPTURE(slip);
    const HandMadeTruth truth(1, 1, {{c}}), erasure(1, 1, {{e, slip}});
    const Measures m = measure(truth, &erasure, nullptr, tensor_of(FormatId::bf16, {1}, {1.25}), Overflow::ieee);
    REQUIRE(m.definition);
    CHECK(m.definition->bias == 2.0 / 65536);
  }
  // Within 2^-24 units of it the quick pass leaves it to them too.
  for (const double slip : {-0x1p-49, 0x1p-49}) {
    CAPTURE(slip);
    const HandMadeTruth truth(1, 1, {{c}}, 0, HandMadeQuick{}), erasure(1, 1, {{e + slip}}, 0, HandMadeQuick{});
    const Measures m = measure(truth, &erasure, nullptr, tensor_of(FormatId::bf16, {1}, {1.25}), Overflow::ieee);
    CHECK(m.definition->bias == 2.0 / 65536);
    CHECK(m.tiers.binary64 == 0);
  }
}

TEST_CASE("the implementation's part is exact though binary64 cannot hold got - ideal") {
  // 1 - 2^-40 - 2^-63 is a hair below a half-way point of the grid of 2^-39.
  const HandMadeTruth truth(1, 1, {{1.0 + 0x1p-30}}, 0, HandMadeQuick{});
  const Tensor ideal = tensor_of(FormatId::fp32, {1}, {0x1p-40 + 0x1p-63});
  const Measures m = measure(truth, nullptr, &ideal, tensor_of(FormatId::fp32, {1}, {1.0}), Overflow::ieee);
  REQUIRE(m.implementation);
  CHECK(m.implementation->bias == (0x1p39 - 1) / 65536);
  CHECK(m.tiers.binary64 == 1);
}

TEST_CASE("the largest error is the first in row order of those as large") {
  const HandMadeTruth truth(2, 3, {{1}, {1}, {1}, {1}, {1}, {1}});
  const Measures m =
      measure(truth, nullptr, nullptr, tensor_of(FormatId::bf16, {2, 3}, {1, 1, 1 + 0x1p-6, 1 + 0x1p-6, 1, 1 + 0x1p-7}),
              Overflow::ieee);
  CHECK(m.ulp.max == 2);
  CHECK(m.ulp.max_at == Place{.row = 0, .col = 2});
  CHECK(m.worst[1].at == Place{.row = 1, .col = 0});
  CHECK(m.ulp.mean_abs == 5.0 / 6);
  CHECK(m.ulp.quantiles[0] == 0);
  CHECK(m.ulp.quantiles[1] == 2);
  CHECK_FALSE(m.path);
  CHECK_FALSE(m.conformance);
}

TEST_CASE("the condition-aware error is in units of the terms") {
  // q + b with |q| + |b| = 2, y = 2^-10: the plain error is 2^11 times the other.
  const HandMadeTruth truth(1, 1, {{.hi = 0x1p-10, .lo = 0, .magnitude = 2}});
  const Measures m =
      measure(truth, nullptr, nullptr, tensor_of(FormatId::fp32, {1}, {0x1p-10 + 0x1p-23}), Overflow::ieee);
  CHECK(m.ulp.max == 1024);
  CHECK(m.ulp.condition_max == 0.5);
  CHECK(m.ulp.condition_mean_abs == 0.5);
}

TEST_CASE("relative L2 and the angle are those of plane geometry") {
  const HandMadeTruth truth(1, 2, {{1}, {0}});
  const auto of = [&](double a, double b) {
    return measure(truth, nullptr, nullptr, tensor_of(FormatId::fp32, {2}, {a, b}), Overflow::ieee).ulp;
  };
  CHECK(of(1, 0).angle == 0);
  CHECK(of(1, 0).relative_l2 == 0);
  CHECK(of(2, 0).angle == 0);
  CHECK(of(2, 0).relative_l2 == 1);
  CHECK(std::fabs(of(1, 1).angle - std::atan(1.0)) < 1e-15);
  CHECK(std::fabs(of(0, 0).angle - 2 * std::atan(1.0)) < 1e-15);
}

TEST_CASE("conformance compares bits: NaN equals NaN and zeros differ by their sign") {
  const HandMadeTruth truth(2, 2, {{kNan}, {0}, {1}, {1}});
  const Tensor ideal = tensor_of(FormatId::bf16, {2, 2}, {kNan, 0.0, 1, 1});
  Tensor got = tensor_of(FormatId::bf16, {2, 2}, {kNan, -0.0, 1, 1 + 0x1p-7});
  got.set_code(0, 0xffc1);
  const Measures m = measure(truth, nullptr, &ideal, got, Overflow::ieee);
  REQUIRE(m.conformance);
  CHECK(m.conformance->equal == 2);
  CHECK(m.conformance->of == 4);
  CHECK(m.conformance->first_difference == Place{.row = 0, .col = 1});
  CHECK(m.implementation->max == 1);
}

TEST_CASE("with open choices a row conforms if it equals one ideal throughout") {
  const HandMadeTruth truth(2, 2, {{1}, {1}, {1}, {1}});
  const std::vector<Tensor> ideals = {tensor_of(FormatId::bf16, {2, 2}, {1, 1, 1, 1}),
                                      tensor_of(FormatId::bf16, {2, 2}, {1.0078125, 1.0078125, 1.0078125, 1.0078125})};
  const Tensor whole = tensor_of(FormatId::bf16, {2, 2}, {1, 1, 1.0078125, 1.0078125});
  const Measures conformant = measure(truth, nullptr, ideals, whole, Overflow::ieee, {.choice_ulp = 2});
  CHECK(conformant.conformance->equal == 4);
  CHECK(conformant.conformance->first_difference == Place{});
  CHECK(conformant.implementation->max == 0);
  const Tensor mixed = tensor_of(FormatId::bf16, {2, 2}, {1, 1.0078125, 1, 1});
  const Measures other = measure(truth, nullptr, ideals, mixed, Overflow::ieee, {.choice_ulp = 2});
  CHECK(other.conformance->equal == 3);
  CHECK(other.implementation->max == 1);
}

TEST_CASE("a path's own output has a path error and no implementation error") {
  const HandMadeTruth truth(1, 2, {{1}, {1}});
  const Tensor got = tensor_of(FormatId::bf16, {2}, {1, 1.0078125});
  const Measures m = measure(truth, nullptr, nullptr, got, Overflow::ieee, {.got_is_ideal = true});
  CHECK(m.conformance->equal == 2);
  CHECK(m.implementation->max == 0);
  CHECK(m.path->max == 1);
  const nlohmann::ordered_json json = to_json(m);
  CHECK(json["split"]["path"]["bias"] == 0.5);
  CHECK(json["split"]["implementation"].is_null());
  CHECK(json["conformance"].is_null());
  CHECK(json["worst"][0]["ideal"].is_null());
  CHECK(json["worst"][0]["path"] == 1.0);
}

TEST_CASE("a tolerance says what it admits on this tensor") {
  const HandMadeTruth truth(1, 3, {{1}, {1}, {0.5}});
  const Tensor got = tensor_of(FormatId::bf16, {3}, {1, 1, 0.5});
  const Measures m = measure(truth, nullptr, nullptr, got, Overflow::ieee);
  REQUIRE(m.allclose.size() == 4);
  CHECK(m.allclose[0].name == "torch.testing bf16");
  CHECK(m.allclose[0].passes);
  CHECK(m.allclose[0].admits_ulp_max == (1e-5 + 1.6e-2 * 0.5) / 0x1p-8);
  CHECK(m.allclose[1].name == "Liger bf16");
  CHECK(m.allclose[1].admits_ulp_max == (2e-1 + 2e-2 * 0.5) / 0x1p-8);
  CHECK(m.allclose[1].admits_ulp_median == (2e-1 + 2e-2) / 0x1p-7);
  const Measures off =
      measure(truth, nullptr, nullptr, tensor_of(FormatId::bf16, {3}, {1.0625, 1, 0.5}), Overflow::ieee);
  CHECK_FALSE(off.allclose[0].passes);
  CHECK(off.allclose[1].passes);
  for (const Format& format : all_formats()) CHECK(tolerances_for(format.id).size() <= 8);
}

TEST_CASE("dequantized codes are held against the norm in units of the code's ulp times the scale") {
  // y = 3 with scale 1/16: y / scale = 48, code 48 is exact; with scale 0.3 code 10 stands for 3.
  const HandMadeTruth truth(2, 1, {{3}, {-3}});
  const std::vector<double> scales = {0x1p-4, 0.25};
  const Measures exact = measure_dequantized(truth, nullptr, {}, tensor_of(FormatId::e4m3fn, {2, 1}, {48, -12}), scales,
                                             Overflow::saturate);
  CHECK(exact.ulp.max == 0);
  const Measures off = measure_dequantized(truth, nullptr, {}, tensor_of(FormatId::e4m3fn, {2, 1}, {52, -12}), scales,
                                           Overflow::saturate);
  CHECK(off.ulp.max == 1);
  CHECK(off.ulp.correct == 1);
  // Two blocks of two columns: 3 is code 48 in one and 12 in the other.
  const HandMadeTruth row(1, 4, {{3}, {3}, {-3}, {6}});
  const Measures blocks = measure_dequantized(row, nullptr, {}, tensor_of(FormatId::e4m3fn, {1, 4}, {48, 52, -12, 24}),
                                              scales, Overflow::saturate);
  CHECK(blocks.ulp.max == 1);
  CHECK(blocks.ulp.correct == 3);
  CHECK_THROWS_AS(measure_dequantized(row, nullptr, {}, tensor_of(FormatId::e4m3fn, {1, 4}, {1, 1, 1, 1}),
                                      std::vector<double>{1, 2, 3}, Overflow::saturate),
                  std::invalid_argument);
  const std::vector<double> broken = {0.0, 0.25};
  const Measures zero = measure_dequantized(truth, nullptr, {}, tensor_of(FormatId::e4m3fn, {2, 1}, {52, -12}), broken,
                                            Overflow::saturate);
  CHECK(zero.counts.nan_missing == 1);
  // 1 / 0.3: the quotient is not exact, the decision is (0.1 is not a tenth).
  const HandMadeTruth third(1, 1, {{0.3 * 1.0625}});
  const std::vector<double> inexact = {0.3};
  const Measures tie =
      measure_dequantized(third, nullptr, {}, tensor_of(FormatId::e4m3fn, {1, 1}, {1.0}), inexact, Overflow::saturate);
  CHECK(std::fabs(tie.ulp.bias + 0.5) < 2e-5);
  CHECK(tie.counts.undecided == 0);
  CHECK_THROWS_AS(measure_dequantized(truth, nullptr, {}, tensor_of(FormatId::e4m3fn, {2, 1}, {1, 1}),
                                      std::vector<double>{1, 2, 3}, Overflow::saturate),
                  std::invalid_argument);
}

TEST_CASE("shapes and formats that differ are named") {
  const HandMadeTruth truth(1, 2, {{1}, {1}});
  CHECK_THROWS_AS(measure(truth, nullptr, nullptr, tensor_of(FormatId::bf16, {3}, {1, 1, 1}), Overflow::ieee),
                  std::invalid_argument);
  const Tensor ideal = tensor_of(FormatId::fp16, {2}, {1, 1});
  CHECK_THROWS_AS(measure(truth, nullptr, &ideal, tensor_of(FormatId::bf16, {2}, {1, 1}), Overflow::ieee),
                  std::invalid_argument);
}

TEST_CASE("the worst elements are told in hex and in decimals") {
  const Measures m = measure_one(FormatId::bf16, {.hi = 1.0, .lo = -0x1p-60}, 1 + 0x1p-7);
  const nlohmann::ordered_json json = to_json(m);
  const auto& worst = json["worst"][0];
  CHECK(worst["got"] == "0x3f81");
  CHECK(worst["got_value"] == "0x1.02p+0 (1.0078125)");
  CHECK(worst["truth"] == "9.9999999999999999913e-1 (0x1p+0)");
  CHECK(worst["ideal"].is_null());
  CHECK(json["conformance"].is_null());
  CHECK(json["split"]["path"].is_null());
  CHECK(json["ulp"]["histogram"]["edges"].size() == json["ulp"]["histogram"]["counts"].size() + 1);
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  CHECK(keys == std::vector<std::string>{"format", "shape", "elements", "counts", "tiers", "ulp", "condition_ulp", "rounding",
                                         "relative_l2", "angle", "split", "conformance", "allclose", "worst"});
}

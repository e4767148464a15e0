// From a midpoint and a radius to a code: against integers (decide.hpp on exact points), at all the places where a
// rounding can turn; and that "settled" means settled for every real in the enclosure.
#include "reference/certified/rounding.hpp"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "reference/certified/vector_level.hpp"
#include "tests/reference/rational.hpp"

namespace norma::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The real number hi + lo as a truth.
class Point final : public TruthSource {
 public:
  Point(double hi, double lo) : hi_(hi), lo_(lo) {}
  std::int64_t rows() const override { return 1; }
  std::int64_t cols() const override { return 1; }
  void enclose_row(std::int64_t, std::span<Enclosure> out) const override {
    out[0] = {.hi = hi_, .lo = lo_, .radius = 0, .magnitude = std::fabs(hi_)};
  }
  Comparison compare(std::int64_t, std::int64_t, double m_hi, double m_lo) const override {
    const Rational d = rational(hi_) + rational(lo_) - rational(m_hi) - rational(m_lo);
    return d < 0 ? Comparison::less : d > 0 ? Comparison::greater : Comparison::equal;
  }

 private:
  double hi_, lo_;
};

std::uint64_t right_code(double hi, double lo, FormatId format, Overflow overflow) {
  const Point point(hi, lo);
  const Enclosure e = point.enclose(0, 0);
  return round_to({point, 0, 0, e}, format, overflow).value();
}

constexpr FormatId kFormatsHere[] = {FormatId::fp32,   FormatId::tf32, FormatId::bf16,     FormatId::fp16,
                                     FormatId::e4m3fn, FormatId::e5m2, FormatId::e4m3fnuz, FormatId::e5m2fnuz};
constexpr Overflow kPolicies[] = {Overflow::ieee, Overflow::saturate_finite, Overflow::saturate, Overflow::nan};

// Values, midpoints and binade edges of a format, subnormals and the overflow threshold among them.
std::vector<double> turning_points(FormatId format) {
  const Format& f = format_of(format);
  std::vector<double> points{0};
  Random random{static_cast<std::uint64_t>(f.code_bits)};
  const auto take = [&](std::uint64_t code) {
    const double v = decode(format, code);
    const double next =
        code == f.max_finite_code() ? v + std::ldexp(1.0, f.emax - f.precision + 1) : decode(format, code + 1);
    points.insert(points.end(), {v, v / 2 + next / 2});
  };
  for (std::uint64_t code = 0; code < 12; ++code) take(code);
  for (std::uint64_t code = f.max_finite_code() - 6; code <= f.max_finite_code(); ++code) take(code);
  const std::uint64_t fields = f.max_finite_code() >> f.mantissa_bits();
  for (std::uint64_t field = 1; field <= fields; ++field)
    for (std::uint64_t k : {0u, 1u, 2u})
      for (std::uint64_t code : {(field << f.mantissa_bits()) + k, (field << f.mantissa_bits()) - k})
        if (code <= f.max_finite_code()) take(code);
  for (int i = 0; i < 300; ++i) take(random.below(f.max_finite_code() + 1));
  points.insert(points.end(), {max_finite(format) * 2, max_finite(format) * 64, min_subnormal(format) / 4});
  return points;
}

TEST_CASE("what is settled is the one code of all reals in the enclosure, and little is left open") {
  const VectorLevel widest = vector_level();
  for (VectorLevel level : vector_levels()) {
    set_vector_level(level);
    for (FormatId format : kFormatsHere)
      for (Overflow overflow : kPolicies) {
        std::vector<double> mid, radius;
        for (double point : turning_points(format))
          for (double away : {0.0, 0x1p-50, 0x1p-47, 0x1p-40, 0x1p-28, 0x1p-12})
            for (double side : {1.0, -1.0})
              for (double relative : {0.0, 0x1p-52, 0x1p-48, 0x1p-44, 0x1p-30})
                for (double sign : {1.0, -1.0}) {
                  mid.push_back(sign * point * (1 + side * away));
                  radius.push_back(std::fabs(mid.back()) * relative);
                }
        Tensor y = Tensor::zeros(format, {static_cast<std::int64_t>(mid.size())});
        std::vector<std::uint32_t> open;
        round_enclosed(format, overflow, mid, radius, y.bytes.data(), open);
        std::vector<bool> is_open(mid.size());
        for (std::uint32_t i : open) is_open[i] = true;
        bool wrong = false, timid = false;
        for (std::size_t i = 0; i < mid.size() && !wrong && !timid; ++i) {
          const std::uint64_t low = right_code(mid[i], -radius[i], format, overflow);
          const std::uint64_t high = right_code(mid[i], radius[i], format, overflow);
          if (!is_open[i]) wrong = low != high || y.code(static_cast<std::int64_t>(i)) != low;
          // Eight radii and eight units of the last place of leave.
          const double wide = 8 * radius[i] + std::fabs(mid[i]) * 0x1p-49;
          if (is_open[i] && overflow == Overflow::ieee)  // others have one code on both sides of the threshold
            timid = right_code(mid[i], -wide, format, overflow) == right_code(mid[i], wide, format, overflow) &&
                    std::fabs(mid[i]) > wide;
          if (wrong || timid)
            UNSCOPED_INFO(name_of(level) << " " << name_of(format) << " " << name_of(overflow) << " mid " << mid[i]
                                         << " radius " << radius[i] << " code " << y.code(static_cast<std::int64_t>(i))
                                         << " right " << low << " to " << high);
        }
        set_vector_level(wrong || timid ? widest : level);
        REQUIRE_FALSE((wrong || timid));
      }
  }
  set_vector_level(widest);
}

std::uint64_t settled_code(FormatId format, Overflow overflow, double mid, double radius) {
  Tensor y = Tensor::zeros(format, {1});
  std::vector<std::uint32_t> open;
  round_enclosed(format, overflow, std::span(&mid, 1), std::span(&radius, 1), y.bytes.data(), open);
  REQUIRE(open.empty());
  return y.code(0);
}
bool is_open(FormatId format, double mid, double radius) {
  Tensor y = Tensor::zeros(format, {1});
  std::vector<std::uint32_t> open;
  round_enclosed(format, Overflow::ieee, std::span(&mid, 1), std::span(&radius, 1), y.bytes.data(), open);
  return open == std::vector<std::uint32_t>{0};
}
double up(double v) { return std::nextafter(v, kInfinity); }
double down(double v) { return std::nextafter(v, 0.0); }

TEST_CASE("thresholds turn where the formats say") {
  const auto ieee = [](FormatId format, double v) { return settled_code(format, Overflow::ieee, v, 0); };
  CHECK(ieee(FormatId::e4m3fn, down(464)) == 0x7e);
  CHECK(ieee(FormatId::e4m3fn, up(464)) == 0x7f);
  CHECK(ieee(FormatId::fp16, 65520) == 0x7c00);
  CHECK(ieee(FormatId::fp16, down(65520)) == 0x7bff);
  CHECK(ieee(FormatId::fp16, up(0x1p-25)) == 1);
  CHECK(ieee(FormatId::fp16, down(0x1p-25)) == 0);
  CHECK(ieee(FormatId::e5m2, up(61440)) == 0x7c);
  CHECK(ieee(FormatId::e5m2, down(61440)) == 0x7b);
  CHECK(settled_code(FormatId::e4m3fn, Overflow::saturate, 1e9, 1) == 0x7e);
  CHECK(settled_code(FormatId::fp32, Overflow::saturate, -1e60, 1) == 0xff7f'ffff);
  CHECK(settled_code(FormatId::bf16, Overflow::nan, 1e60, 1) == 0x7fc0);
  // Ties, known exactly: radius 0.
  CHECK(ieee(FormatId::e4m3fn, 464) == 0x7e);
  CHECK(ieee(FormatId::fp16, 0x1p-25) == 0);
  CHECK(ieee(FormatId::e5m2, 61440) == 0x7c);
}

TEST_CASE("zeros have a sign only if it is known, and what is no number keeps to the policies") {
  for (FormatId format : kFormatsHere) {
    const Format& f = format_of(format);
    const std::uint64_t minus = f.has_negative_zero() ? f.sign_code() : 0;
    CHECK(settled_code(format, Overflow::ieee, 0.0, 0) == 0);
    CHECK(settled_code(format, Overflow::ieee, -0.0, 0) == minus);
    CHECK(settled_code(format, Overflow::ieee, -0x1p-200, 0x1p-230) == minus);
    CHECK(is_open(format, 0.0, 0x1p-200));
    CHECK(is_open(format, -0x1p-200, 0x1p-200));
    CHECK(settled_code(format, Overflow::ieee, std::nan(""), 1) == f.nan_code());
    CHECK(settled_code(format, Overflow::ieee, -std::nan(""), 0) == f.nan_code());
    CHECK(settled_code(format, Overflow::saturate, kInfinity, 1) == f.max_finite_code());
    CHECK(settled_code(format, Overflow::saturate_finite, -kInfinity, 0) ==
          (f.has_infinity() ? (f.sign_code() | f.infinity_code()) : f.nan_code()));
    CHECK(is_open(format, 1.0, kInfinity));
  }
}

TEST_CASE("one relative bound gives what radii give") {
  Random random{3};
  for (FormatId format : kFormatsHere) {
    const double relative = 0x1p-40;
    std::vector<double> mid, radius;
    for (int i = 0; i < 20001; ++i) {
      const double v = std::ldexp(1 + static_cast<double>(random.next() >> 11) * 0x1p-53, random.between(-30, 12));
      mid.push_back(i % 97 == 0 ? -0.0 : i % 2 == 0 ? v : -v);
      radius.push_back(std::fabs(mid.back()) * relative);
    }
    const auto count = static_cast<std::int64_t>(mid.size());
    Tensor a = Tensor::zeros(format, {count}), b = a;
    std::vector<std::uint32_t> open_a, open_b;
    round_enclosed(format, Overflow::saturate, mid, radius, a.bytes.data(), open_a);
    round_enclosed(format, Overflow::saturate, mid, relative, b.bytes.data(), open_b);
    for (std::uint32_t i : open_a) a.set_code(i, 0), b.set_code(i, 0);
    for (std::uint32_t i : open_b) a.set_code(i, 0), b.set_code(i, 0);
    CHECK(a.bytes == b.bytes);
    CHECK(open_a.size() < 100);
    CHECK(open_b.size() < 100);
  }
}

TEST_CASE("elements left open are settled by the truth and counted by what settled them") {
  TierCounts tiers;
  CHECK(round_open(Point(1 + 0x1p-24, 0x1p-80), 0, 0, FormatId::fp32, Overflow::ieee, tiers) == 0x3f80'0001);
  CHECK(round_open(Point(1 + 0x1p-24, -0x1p-80), 0, 0, FormatId::fp32, Overflow::ieee, tiers) == 0x3f80'0000);
  CHECK(round_open(Point(464, 0), 0, 0, FormatId::e4m3fn, Overflow::ieee, tiers) == 0x7e);
  CHECK(tiers.exact == 3);
  CHECK(tiers.undecided == 0);
}

}  // namespace
}  // namespace norma::test

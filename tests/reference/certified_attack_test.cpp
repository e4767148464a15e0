// Attacks every bound of the row norms' fast tiers: each rounding and each enclosure is checked by integers.
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "reference/certified/rows/row_norm.hpp"
#include "reference/norms/affine.hpp"
#include "tests/reference/integer_oracle.hpp"
#include "tests/reference/rational.hpp"

using namespace norma;
using namespace norma::test;

namespace {

// ---- inputs ----

enum class Family {
  gauss,
  outliers,
  all_equal,
  zeros,
  subnormals,
  huge,
  mean_far,
  near_constant,
  cancel,
  random_bits,
  square_ties,
  sign_ties,
  near_ties,
  negative_zeros,
  wide_cancel,
  count
};
constexpr std::array<const char*, static_cast<std::size_t>(Family::count)> kFamilies{
    "gauss",  "outliers",    "all equal",   "zeros",     "subnormals", "huge",           "mean >> std", "near constant",
    "cancel", "random bits", "square ties", "sign ties", "near ties",  "negative zeros", "wide cancel"};

double uniform(Random& random) { return static_cast<double>(random.next() >> 11) * 0x1p-53; }
double gauss(Random& random) {
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += uniform(random);
  return sum;
}

std::uint64_t nearest(FormatId format, double value) { return encode(format, value, Overflow::saturate); }

std::uint64_t random_finite(FormatId format, Random& random) {
  const Format& f = format_of(format);
  const std::uint64_t sign = random.below(2) != 0 ? f.sign_code() : 0;
  const std::uint64_t magnitude = random.below(f.max_finite_code() + 1);
  return magnitude == 0 && !f.has_negative_zero() ? 0 : sign | magnitude;
}

// One tensor of x; the families of ties set eps as well.
Tensor make_x(Family family, FormatId format, std::int64_t rows, std::int64_t cols, Random& random) {
  Tensor x = Tensor::zeros(format, {rows, cols});
  const Format& f = format_of(format);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::uint64_t base = nearest(format, std::ldexp(1 + uniform(random), random.between(-4, 4)));
    const double scale = std::ldexp(1.0, random.between(-3, 3));
    const auto high = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(cols) + 1));
    const std::int64_t three_eighths = cols * 3 / 8;
    for (std::int64_t j = 0; j < cols; ++j) {
      std::uint64_t code = 0;
      switch (family) {
        case Family::gauss: code = nearest(format, gauss(random)); break;
        case Family::outliers: code = nearest(format, gauss(random) * (random.below(64) == 0 ? 1e4 : 1)); break;
        case Family::all_equal: code = base; break;
        case Family::zeros: code = 0; break;
        case Family::subnormals:
          code = random_finite(format, random) & (f.sign_code() | ((std::uint64_t{2} << f.mantissa_bits()) - 1));
          break;
        case Family::huge:
          code = nearest(format, (random.below(2) != 0 ? 1 : -1) * max_finite(format) * (1 - uniform(random) / 2));
          break;
        case Family::mean_far: code = nearest(format, 200 + gauss(random)); break;
        case Family::near_constant: code = base + random.below(2); break;
        case Family::cancel:
          code = (base + static_cast<std::uint64_t>(j / 2 % 7)) | (j % 2 != 0 ? f.sign_code() : 0);
          break;
        case Family::random_bits: code = random_finite(format, random); break;
        case Family::square_ties:
        case Family::near_ties: {
          const std::int64_t threes = r % 2 == 0 ? three_eighths : high;  // mean square 1 where 8 divides cols
          // Some values far below the others' last bits: sums that a pair cannot hold.
          if (family == Family::near_ties && r % 3 == 1 && random.below(8) == 0) {
            code = nearest(format, std::ldexp(1 + uniform(random), -random.between(30, 140)));
            break;
          }
          code = nearest(format, (j < threes ? 1.5 : 0.5) * (random.below(2) != 0 ? 1 : -1));
          break;
        }
        case Family::sign_ties: code = nearest(format, (j % 2 != 0 ? -scale : scale) + (r % 3 == 2 ? 1 : 0)); break;
        case Family::negative_zeros:
          code = random.below(2) != 0                            ? nearest(format, gauss(random))
                 : f.has_negative_zero() && random.below(2) != 0 ? f.sign_code()
                                                                 : 0;
          break;
        case Family::wide_cancel:
          // x and -x, some way apart, over the whole range of exponents
          code = j % 8 < 4 || j < 4 ? random_finite(format, random) : x.code(r * cols + j - 4) ^ f.sign_code();
          if (!f.has_negative_zero() && code == f.sign_code()) code = 0;
          break;
        case Family::count: break;
      }
      x.set_code(r * cols + j, code);
    }
  }
  return x;
}

enum class Values { none, ones, gauss, grid, tiny, huge, random_bits, count };

std::optional<Tensor> make_parameter(Values kind, FormatId format, std::int64_t size, Random& random) {
  if (kind == Values::none) return std::nullopt;
  Tensor t = Tensor::zeros(format, {size});
  for (std::int64_t i = 0; i < size; ++i) {
    std::uint64_t code = 0;
    switch (kind) {
      case Values::ones: code = nearest(format, 1); break;
      case Values::gauss: code = nearest(format, gauss(random) * 0.25 + 1); break;
      case Values::grid: code = nearest(format, static_cast<double>(random.between(-33, 33)) / 16); break;
      case Values::tiny: code = random_finite(format, random) & (format_of(format).sign_code() | 7); break;
      case Values::huge: code = nearest(format, max_finite(format) * (0.5 - uniform(random))); break;
      default: code = random_finite(format, random); break;
    }
    t.set_code(i, code);
  }
  return t;
}

constexpr std::array kWide{FormatId::bf16, FormatId::fp16, FormatId::fp32, FormatId::e4m3fn, FormatId::e5m2};

template <typename T, std::size_t N>
T pick(const std::array<T, N>& all, Random& random) {
  return all[random.below(N)];
}

// A problem with its tensors.
struct Problem {
  Family family{};
  Tensor x;
  std::optional<Tensor> residual, weight, scale, bias, mean, variance;
  RowNorm norm;
  std::string text() const {
    return std::string(kFamilies[static_cast<std::size_t>(family)]) + " " + std::string(name_of(x.format)) + " " +
           std::to_string(norm.rows) + "x" + std::to_string(norm.cols) + " groups=" + std::to_string(norm.groups) +
           " statistics=" + std::to_string(static_cast<int>(norm.statistics)) + " eps=" + std::to_string(norm.eps) +
           " at " + std::string(kEpsPlaces[static_cast<std::size_t>(norm.eps_place)]) + (weight ? " weight" : "") +
           (scale ? " scale" : "") + (bias ? " bias" : "") + (residual ? " residual" : "");
  }
};

double make_eps(Family family, Random& random) {
  if (random.below(24) == 0) return pick(std::array{0x1p-300, 0x1p300, 1e-30, 1e-45, 1e8, 0.0}, random);
  if (family == Family::near_ties) return std::ldexp(1.0, -random.between(40, 239));
  if (family == Family::square_ties) return pick(std::array{0.0, 0.0, 0.5, 0.75, 3.0}, random);
  if (family == Family::sign_ties) return pick(std::array{0.0, 0.0, 0.0, 3.0, 0x1p-60}, random);
  return pick(std::array{1e-6, 1e-5, static_cast<double>(1e-5F), 0.0, 0x1p-20, 1e-12}, random);
}

std::unique_ptr<Problem> make_problem(Family family, std::int64_t cols, Random& random) {
  auto p = std::make_unique<Problem>();
  p->family = family;
  RowNorm& n = p->norm;
  n.statistics = random.below(2) != 0 ? Statistics::squares : Statistics::moments;
  if (random.below(8) == 0) n.statistics = Statistics::given;
  if (family == Family::sign_ties && n.statistics == Statistics::squares && random.below(2) != 0)
    n.statistics = Statistics::moments;
  n.rows = cols >= 3072 ? 2 : random.between(2, 6);
  n.cols = cols;
  n.groups = n.rows;
  if (random.below(6) == 0 && n.rows % 2 == 0) n.groups = n.rows / 2;
  if (n.statistics == Statistics::given) n.groups = n.rows % 2 == 0 ? 2 : n.rows;
  p->x = make_x(family, pick(kWide, random), n.rows, cols, random);
  const std::int64_t elements = n.rows / n.groups * cols;
  n.count = n.statistics == Statistics::given ? 1 : static_cast<double>(elements);
  if (n.statistics != Statistics::given && elements > 1 && random.below(8) == 0)
    n.count = random.below(2) != 0 ? static_cast<double>(elements - 1) : 1;
  n.eps = make_eps(family, random);
  n.eps_place = random.below(2) != 0 ? EpsPlace::inside : static_cast<EpsPlace>(random.below(6));
  if (n.eps_place == EpsPlace::l2max && n.statistics == Statistics::moments) n.eps_place = EpsPlace::max;
  // Parameters: along the columns, a channel for every `span` of them, or one vector a row.
  const bool ties = family == Family::square_ties || family == Family::sign_ties || family == Family::near_ties;
  ParameterIndex index;
  std::int64_t size = cols;
  switch (random.below(4)) {
    case 0: {
      index.span = random.between(1, 3);
      index.per_row = (cols + index.span - 1) / index.span;
      index.period = n.rows;
      size = index.per_row * n.rows;
      break;
    }
    case 1:
      index.rows_each = 2;
      index.period = (n.rows + 1) / 2;
      index.per_row = cols;
      size = index.period * cols;
      break;
    default: break;
  }
  const auto values = [&] {
    if (ties) return pick(std::array{Values::none, Values::grid, Values::grid, Values::gauss}, random);
    return static_cast<Values>(random.below(static_cast<std::uint64_t>(Values::count)));
  };
  const auto put = [&](std::optional<Tensor>& slot, Parameter& parameter, Values kind) {
    slot = make_parameter(kind, pick(kWide, random), size, random);
    parameter = {.tensor = slot ? &*slot : nullptr, .offset = 0, .index = index};
  };
  put(p->weight, n.weight, values());
  if (random.below(4) == 0) n.weight.offset = pick(std::array{1.0, 1.0, -1.0, 0.1, 0x1p-100}, random);
  if (random.below(4) == 0) {
    put(p->scale, n.scale,
        ties ? Values::grid : pick(std::array{Values::tiny, Values::huge, Values::gauss, Values::random_bits}, random));
    n.scale.offset = random.below(4) != 0 ? 1 : 0;
  }
  if (n.statistics == Statistics::squares ? random.below(4) == 0 : random.below(4) != 0) put(p->bias, n.bias, values());
  if (random.below(8) == 0) {
    p->residual = make_x(family, pick(kWide, random), n.rows, cols, random);
    n.residual = &*p->residual;
  }
  if (n.statistics == Statistics::given) {
    const FormatId format = pick(kWide, random);
    p->mean = Tensor::zeros(format, {n.groups});
    p->variance = Tensor::zeros(format, {n.groups});
    for (std::int64_t g = 0; g < n.groups; ++g) {
      p->mean->set_code(g, random.below(2) != 0 ? random_finite(format, random) : nearest(format, 0.5));
      const std::uint64_t v = random.below(2) != 0 ? random_finite(format, random) & format_of(format).magnitude_mask()
                                                   : nearest(format, 4);
      p->variance->set_code(g, v == 0 ? 1 : v);
    }
    if (random.below(4) != 0) n.mean = &*p->mean;
    n.variance = &*p->variance;
  }
  n.x = &p->x;
  return p;
}

// ---- checks ----

struct Tally {
  std::int64_t elements = 0, faults = 0;
  TierCounts rounded;
  std::int64_t close = 0, exact_rows = 0, not_quick = 0, loose = 0;
  double worst_quick = 0;
  std::string first_fault;
  void fault(const Problem& p, const char* tier, const char* what, std::int64_t row, std::int64_t col, double value) {
    if (faults++ == 0)
      first_fault = p.text() + ": " + tier + ": " + what + " at " + std::to_string(row) + "," + std::to_string(col) +
                    ", value " + std::to_string(value);
  }
};

void check_problem(const Problem& p, FormatId format, Overflow overflow, Tally& tally) {
  const RowNorm& n = p.norm;
  const std::unique_ptr<TruthSource> exact = affine_truth(n), truth = certified_truth(n, affine_truth(n));
  const RoundedRows rounded = round_rows(n, *exact, format, overflow);
  tally.rounded += rounded.tiers;
  const auto cols = static_cast<std::size_t>(n.cols);
  std::vector<Enclosure> close(cols);
  std::vector<double> mid(cols), radius(cols), magnitude(cols);
  for (std::int64_t r = 0; r < n.rows; ++r) {
    truth->enclose_row(r, close);
    truth->enclose_quick(r, {mid, radius, magnitude});
    IntegerRow y(n, r);
    for (std::int64_t j = 0; j < n.cols; ++j) {
      y.at(j);
      ++tally.elements;
      const auto i = static_cast<std::size_t>(j);
      const std::uint64_t code = rounded.y.code(r * n.cols + j);
      if (const char* what = rounding_fault(y, format, overflow, code))
        tally.fault(p, "rounding", what, r, j, decode(format, code));
      const Enclosure& e = close[i];
      if (const char* what = enclosure_fault(y, e.hi, e.lo, e.radius))
        tally.fault(p, "double-double", what, r, j, e.hi);
      if (!std::isnan(e.hi) && !(e.radius <= 0x1p-80 * e.magnitude + 0x1p-1074))
        tally.fault(p, "double-double", "radius beyond what is promised", r, j, e.hi);
      ++(e.tier == Tier::exact ? tally.exact_rows : tally.close);
      if (const char* what = enclosure_fault(y, mid[i], 0, radius[i])) tally.fault(p, "binary64", what, r, j, mid[i]);
      tally.not_quick += std::isinf(radius[i]) ? 1 : 0;
    }
    // One element asked for alone is the row's; a comparison with it is exact.
    const auto j = static_cast<std::int64_t>(static_cast<std::uint64_t>(r * 7919) % cols);
    const Enclosure one = truth->enclose(r, j), &same = close[static_cast<std::size_t>(j)];
    y.at(j);
    if (y.undefined()) continue;
    if (one.hi != same.hi || one.lo != same.lo || one.radius != same.radius)
      tally.fault(p, "one element", "is not the row's", r, j, one.hi);
    if (static_cast<int>(truth->compare(r, j, one.hi, 0)) != y.compare({one.hi}))
      tally.fault(p, "comparison", "wrong", r, j, one.hi);
  }
}

constexpr std::array<std::int64_t, 13> kColumns{1, 2, 3, 7, 8, 31, 64, 72, 100, 128, 776, 3072, 16384};

void attack(std::uint64_t seed, std::int64_t wanted) {
  Random random{seed};
  std::map<std::string, Tally> tallies;
  std::int64_t elements = 0;
  for (std::size_t round = 0; elements < wanted; ++round) {
    const auto family = static_cast<Family>(round % static_cast<std::size_t>(Family::count));
    // Widths get about equal shares of elements, large ones fewer rows.
    const std::int64_t cols = kColumns[random.below(8) == 0 ? random.below(kColumns.size()) : random.below(11)];
    const auto p = make_problem(family, cols, random);
    REQUIRE(has_fast_tiers(p->norm));
    Tally& tally = tallies[kFamilies[static_cast<std::size_t>(family)]];
    const std::int64_t before = tally.elements;
    check_problem(*p, pick(kWide, random), random.below(2) != 0 ? Overflow::ieee : Overflow::saturate, tally);
    elements += tally.elements - before;
  }
  for (const auto& [name, t] : tallies) {
    INFO(name << ": " << t.elements << " elements; rounded by binary64 " << t.rounded.binary64 << ", double-double "
              << t.rounded.double_double << ", exact " << t.rounded.exact << ", undecided " << t.rounded.undecided
              << "; enclosed by double-double " << t.close << ", exact " << t.exact_rows << "; not by binary64 "
              << t.not_quick << "; faults " << t.faults << ", the first: " << t.first_fault);
    CHECK(t.faults == 0);
    CHECK(t.rounded.undecided == 0);
    CHECK(t.rounded.binary64 + t.rounded.double_double + t.rounded.exact == t.elements);
  }
}

}  // namespace

TEST_CASE("no rounding is wrong and no enclosure misses: ten million elements") { attack(20261122, 10'000'000); }

TEST_CASE("no rounding is wrong and no enclosure misses: a hundred million elements", "[nightly]") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) attack(seed, 10'500'000);
}

// The binary64 tier of the row norms against 3000-bit MPFR: its enclosures hold, what it calls rounded is, its scores are
// as exact as they say, and every vector level gives the same bits.
#include "reference/certified/quick_norm.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "reference/certified/rounding.hpp"
#include "reference/certified/row_norm.hpp"
#include "reference/certified/vector_level.hpp"
#include "reference/exact/decide.hpp"
#include "reference/exact/real.hpp"
#include "tests/reference/rational.hpp"

namespace norma::test {
namespace {

constexpr mpfr_prec_t kBits = 3000;

// ---- the norm from its formula, in 3000 bits ----

// One row of a norm of single rows: finite input, x [rows, cols], parameters by column.
struct Exact {
  std::vector<Real> y;

  Exact(const RowNorm& n, std::int64_t row) {
    const auto cols = static_cast<std::size_t>(n.cols);
    std::vector<Real> h(cols, Real(0.0, kBits));
    const auto at = [&](std::size_t j) { return row * n.cols + static_cast<std::int64_t>(j); };
    for (std::size_t j = 0; j < cols; ++j) {
      mpfr_set_d(h[j].get(), n.x->value(at(j)), MPFR_RNDN);
      if (n.residual != nullptr) mpfr_add_d(h[j].get(), h[j].get(), n.residual->value(at(j)), MPFR_RNDN);
    }
    Real centre(0.0, kBits), total(0.0, kBits), term(kBits);
    if (n.statistics == Statistics::moments) {
      for (const Real& v : h) mpfr_add(centre.get(), centre.get(), v.get(), MPFR_RNDN);
      mpfr_div_d(centre.get(), centre.get(), static_cast<double>(n.cols), MPFR_RNDN);
    }
    if (n.statistics == Statistics::given) {
      mpfr_set_d(centre.get(), n.mean->value(row % n.groups), MPFR_RNDN);
      mpfr_set_d(total.get(), n.variance->value(row % n.groups), MPFR_RNDN);
    }
    for (Real& v : h) {
      mpfr_sub(v.get(), v.get(), centre.get(), MPFR_RNDN);
      if (n.statistics == Statistics::given) continue;
      mpfr_sqr(term.get(), v.get(), MPFR_RNDN);
      mpfr_add(total.get(), total.get(), term.get(), MPFR_RNDN);
    }
    const Real divisor = root(n, total);
    for (std::size_t j = 0; j < cols; ++j) {
      const auto column = static_cast<std::int64_t>(j);
      Real v = h[j];
      for (const Parameter* p : {&n.weight, &n.scale})
        if (p->tensor != nullptr) {
          mpfr_set_d(term.get(), p->tensor->value(p->index.at(row, column)), MPFR_RNDN);
          mpfr_add_d(term.get(), term.get(), p->offset, MPFR_RNDN);
          mpfr_mul(v.get(), v.get(), term.get(), MPFR_RNDN);
        }
      if (n.eps_place == EpsPlace::l2max) {
        mpfr_set_d(term.get(), n.count, MPFR_RNDN);
        mpfr_sqrt(term.get(), term.get(), MPFR_RNDN);
        mpfr_mul(v.get(), v.get(), term.get(), MPFR_RNDN);
      }
      mpfr_div(v.get(), v.get(), divisor.get(), MPFR_RNDN);
      if (n.bias.tensor != nullptr) mpfr_add_d(v.get(), v.get(), n.bias.tensor->value(n.bias.index.at(row, column)), MPFR_RNDN);
      y.push_back(v);
    }
  }

  // What the row is divided by (l2max: but for sqrt(n)).
  static Real root(const RowNorm& n, const Real& total) {
    Real r(kBits), eps(n.eps, kBits);
    mpfr_div_d(r.get(), total.get(), n.count, MPFR_RNDN);
    switch (n.eps_place) {
      case EpsPlace::inside: mpfr_add(r.get(), r.get(), eps.get(), MPFR_RNDN); break;
      case EpsPlace::sum: mpfr_add(r.get(), total.get(), eps.get(), MPFR_RNDN); break;
      case EpsPlace::l2max: mpfr_set(r.get(), total.get(), MPFR_RNDN); break;
      default: break;
    }
    mpfr_sqrt(r.get(), r.get(), MPFR_RNDN);
    if (n.eps_place == EpsPlace::outside) mpfr_add(r.get(), r.get(), eps.get(), MPFR_RNDN);
    if (n.eps_place == EpsPlace::max || n.eps_place == EpsPlace::l2max) mpfr_max(r.get(), r.get(), eps.get(), MPFR_RNDN);
    return r;
  }
};

// The values of one row as a truth that decides.hpp can ask: 3000 bits compared as they are. An exact tie of these norms has
// a dyadic root, which MPFR finds exactly.
class ExactTruth final : public TruthSource {
 public:
  explicit ExactTruth(const Exact& exact) : y_(exact.y) {}
  std::int64_t rows() const override { return 1; }
  std::int64_t cols() const override { return static_cast<std::int64_t>(y_.size()); }
  void enclose_row(std::int64_t, std::span<Enclosure> out) const override {
    for (std::size_t j = 0; j < y_.size(); ++j) out[j] = enclose(0, static_cast<std::int64_t>(j));
  }
  Enclosure enclose(std::int64_t, std::int64_t col) const override {
    const Real& v = y_[static_cast<std::size_t>(col)];
    const double hi = mpfr_get_d(v.get(), MPFR_RNDN);
    return {.hi = hi, .lo = 0, .radius = std::fabs(hi) * 0x1p-52 + 0x1p-1000, .magnitude = std::fabs(hi)};
  }
  Comparison compare(std::int64_t, std::int64_t col, double m_hi, double m_lo) const override {
    const Dyadic m = Dyadic(m_hi) + Dyadic(m_lo);
    const int sign = mpfr_cmp(y_[static_cast<std::size_t>(col)].get(), m.real().get());
    return static_cast<Comparison>((sign > 0) - (sign < 0));
  }

 private:
  const std::vector<Real>& y_;
};

// |y - mid| <= radius with 2^-2900 |y| of leave.
bool encloses(double mid, double radius, const Real& y) {
  if (radius == std::numeric_limits<double>::infinity()) return true;
  if (mpfr_nan_p(y.get()) != 0 || std::isnan(mid)) return mpfr_nan_p(y.get()) != 0 && std::isnan(mid);
  Real d(kBits), bound(kBits);
  mpfr_sub_d(d.get(), y.get(), mid, MPFR_RNDN);
  mpfr_abs(d.get(), d.get(), MPFR_RNDN);
  mpfr_abs(bound.get(), y.get(), MPFR_RNDN);
  mpfr_mul_2si(bound.get(), bound.get(), -2900, MPFR_RNDN);
  mpfr_add_d(bound.get(), bound.get(), radius, MPFR_RNDN);
  return mpfr_lessequal_p(d.get(), bound.get()) != 0;
}

// ---- inputs ----

enum class Family { normal, wide, outlier, near_constant, far_mean, cancelling, bits, subnormal, ties, last };

double gauss(Random& random) {
  double sum = 0;
  for (int i = 0; i < 12; ++i) sum += static_cast<double>(random.next() >> 11) * 0x1p-53;
  return sum - 6;
}

double value(Family family, Random& random, std::size_t j) {
  switch (family) {
    case Family::normal: return gauss(random);
    case Family::wide: return std::ldexp(gauss(random), random.between(-40, 40));
    case Family::outlier: return gauss(random) * (random.below(100) == 0 ? 1e4 : 1);
    case Family::near_constant: return 3 + 0x1p-20 * static_cast<double>(random.below(3));
    case Family::far_mean: return 1000 + gauss(random) * 0.1;
    case Family::cancelling: return (j % 2 == 0 ? 1 : -1) * (5 + 1e-3 * gauss(random));
    case Family::subnormal: return std::ldexp(gauss(random), -140);
    case Family::ties: return random.below(2) == 0 ? 1.5 : -0.5;
    default: return 0;
  }
}

Tensor make(FormatId format, Shape shape, Family family, Random& random) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  const Format& f = format_of(format);
  for (std::int64_t i = 0; i < t.size(); ++i) {
    std::uint64_t code = 0;
    if (family == Family::bits) {
      do {
        code = random.below(std::uint64_t{1} << f.code_bits);
      } while (!std::isfinite(decode(format, code)));
    } else {
      code = code_of(format, value(family, random, static_cast<std::size_t>(i)));
    }
    t.set_code(i, code);
  }
  return t;
}

struct Setting {
  Statistics statistics = Statistics::squares;
  EpsPlace place = EpsPlace::inside;
  double eps = 1e-6;
  bool weight = true, scale = false, bias = false, residual = false;
};

struct Problem {
  Tensor x, residual, weight, scale, bias, mean, variance;
  RowNorm norm;

  Problem(const Setting& s, FormatId format, std::int64_t rows, std::int64_t cols, Family family, Random& random) {
    x = make(format, {rows, cols}, family, random);
    residual = make(format, {rows, cols}, Family::normal, random);
    const FormatId narrow = contains(FormatId::bf16, format) ? format : FormatId::bf16;
    weight = make(random.below(2) == 0 ? FormatId::fp32 : narrow, {cols}, family == Family::bits ? family : Family::normal, random);
    scale = make(FormatId::bf16, {cols}, Family::normal, random);
    bias = make(FormatId::bf16, {cols}, Family::normal, random);
    mean = make(FormatId::fp32, {rows}, Family::normal, random);
    variance = make(FormatId::fp32, {rows}, Family::normal, random);
    for (std::int64_t i = 0; i < rows; ++i) variance.set_code(i, variance.code(i) & 0x7fff'ffff);
    norm.rows = rows;
    norm.cols = cols;
    norm.x = &x;
    if (s.residual) norm.residual = &residual;
    norm.statistics = s.statistics;
    norm.groups = rows;
    norm.count = s.statistics == Statistics::given ? 1 : static_cast<double>(cols);
    if (s.statistics == Statistics::given) norm.mean = &mean, norm.variance = &variance;
    norm.eps_place = s.place;
    norm.eps = s.eps;
    const ParameterIndex columns{.per_row = cols};
    if (s.weight) norm.weight = {.tensor = &weight, .offset = 0, .index = {}};
    if (s.scale) norm.scale = {.tensor = &scale, .offset = 1, .index = {}};
    if (s.bias) norm.bias = {.tensor = &bias, .offset = 0, .index = {}};
    static_cast<void>(columns);
  }
  Problem(const Problem&) = delete;
};

struct Found {
  std::int64_t elements = 0, open = 0;
};

// Everything that the tier says of one row.
void check_row(const Problem& p, const QuickNorm& quick, std::int64_t row, Found& found) {
  const auto cols = static_cast<std::size_t>(p.norm.cols);
  const Exact exact(p.norm, row);
  const ExactTruth truth(exact);
  std::vector<double> mid(cols), radius(cols), magnitude(cols);
  quick.enclose(row, {mid, radius, magnitude});
  for (std::size_t j = 0; j < cols; ++j) {
    INFO("row " << row << " column " << j << " mid " << mid[j] << " radius " << radius[j]);
    REQUIRE(encloses(mid[j], radius[j], exact.y[j]));
  }
  for (FormatId format : {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2, FormatId::tf32}) {
    const Overflow overflow = row % 2 == 0 ? Overflow::ieee : Overflow::saturate;
    Tensor y = Tensor::zeros(format, {1, p.norm.cols});
    std::vector<std::uint32_t> open;
    quick.round_row(row, format, overflow, y.bytes.data(), open);
    found.elements += p.norm.cols;
    found.open += static_cast<std::int64_t>(open.size());
    std::size_t next = 0;
    for (std::size_t j = 0; j < cols; ++j) {
      if (next < open.size() && open[next] == j) {
        ++next;
        continue;
      }
      const auto col = static_cast<std::int64_t>(j);
      const Enclosure e = truth.enclose(0, col);
      const std::optional<std::uint64_t> right = round_to({truth, 0, col, e}, format, overflow);
      INFO(name_of(format) << " row " << row << " column " << j << " mid " << mid[j] << " radius " << radius[j]);
      REQUIRE(right);
      // MPFR's zeros have no sign to compare.
      const std::uint64_t mask = mpfr_zero_p(exact.y[j].get()) != 0 ? format_of(format).magnitude_mask() : ~std::uint64_t{0};
      REQUIRE((y.code(col) & mask) == (*right & mask));
    }
    REQUIRE(next == open.size());
  }
}

std::vector<Setting> settings() {
  std::vector<Setting> all;
  for (EpsPlace place : {EpsPlace::inside, EpsPlace::sum, EpsPlace::outside, EpsPlace::max, EpsPlace::l2max, EpsPlace::none})
    all.push_back({.place = place, .eps = place == EpsPlace::max ? 0.5 : 1e-6});
  all.push_back({.scale = true});
  all.push_back({.bias = true, .residual = true});
  all.push_back({.statistics = Statistics::moments});
  all.push_back({.statistics = Statistics::moments, .bias = true});
  all.push_back({.statistics = Statistics::moments, .weight = false, .scale = true, .bias = true});
  all.push_back({.statistics = Statistics::moments, .place = EpsPlace::outside});
  all.push_back({.statistics = Statistics::moments, .bias = true, .residual = true});
  all.push_back({.statistics = Statistics::given, .bias = true});
  all.push_back({.statistics = Statistics::given, .scale = true, .residual = true});
  return all;
}

TEST_CASE("enclosures hold and roundings are right for rows of any kind") {
  Random random{1};
  Found ordinary, others;
  for (const Setting& setting : settings())
    for (int f = 0; f < static_cast<int>(Family::last); ++f)
      for (FormatId format : {FormatId::bf16, FormatId::fp16, FormatId::fp32, FormatId::e4m3fn})
        for (std::int64_t cols : {1, 2, 3, 7, 31, 33, 64, 100}) {
          const auto family = static_cast<Family>(f);
          if (family == Family::bits && setting.place == EpsPlace::none && cols == 1) continue;
          const Problem p(setting, format, 2, cols, family, random);
          const QuickNorm quick(p.norm);
          INFO("statistics " << static_cast<int>(setting.statistics) << " place " << static_cast<int>(setting.place)
                             << " family " << f << " " << name_of(format) << " D " << cols);
          for (std::int64_t row = 0; row < 2; ++row) check_row(p, quick, row, family == Family::normal ? ordinary : others);
        }
  INFO(ordinary.open << " of " << ordinary.elements << ", " << others.open << " of " << others.elements);
  CHECK(ordinary.open * 1000 < ordinary.elements);
  CHECK(others.open * 4 < others.elements);
}

// What the tier says of a problem, as bytes.
std::string everything(const Problem& p) {
  const QuickNorm quick(p.norm);
  const auto cols = static_cast<std::size_t>(p.norm.cols);
  std::string all;
  const auto append = [&](const void* data, std::size_t bytes) { all.append(static_cast<const char*>(data), bytes); };
  for (std::int64_t row = 0; row < p.norm.rows; ++row) {
    std::vector<double> mid(cols), radius(cols), magnitude(cols);
    quick.enclose(row, {mid, radius, magnitude});
    for (const auto* v : {&mid, &radius, &magnitude}) append(v->data(), cols * sizeof(double));
    for (const Format& f : all_formats()) {
      if (f.id == FormatId::fp64) continue;
      Tensor y = Tensor::zeros(f.id, {p.norm.cols});
      std::vector<std::uint32_t> open;
      quick.round_row(row, f.id, Overflow::ieee, y.bytes.data(), open);
      for (std::uint32_t j : open) y.set_code(j, 0);  // any
      append(y.bytes.data(), y.bytes.size());
      append(open.data(), open.size() * sizeof(open[0]));
      RowScoreSums sums;
      open.clear();
      quick.score_row(row, f.id, y.bytes.data(), sums, open);
      const double figures[] = {sums.max, sums.sum, sums.sum_abs, sums.sum_squares, sums.bar};
      const std::int64_t counts[] = {sums.scored, sums.not_scored, sums.incorrect, sums.near_half, sums.max_row};
      append(figures, sizeof figures);
      append(counts, sizeof counts);
      append(open.data(), open.size() * sizeof(open[0]));
    }
  }
  return all;
}

TEST_CASE("every vector level gives the same enclosures, codes and scores") {
  Random random{2};
  const VectorLevel widest = vector_level();
  if (vector_levels().size() == 1) SKIP("this CPU has one vector level");
  for (const Setting& setting : settings())
    for (int f = 0; f < static_cast<int>(Family::last); ++f)
      for (FormatId format : {FormatId::bf16, FormatId::fp16, FormatId::fp32, FormatId::e5m2})
        for (std::int64_t cols : {1, 5, 64, 143, 600}) {
          const Problem p(setting, format, 2, cols, static_cast<Family>(f), random);
          set_vector_level(VectorLevel::baseline);
          const std::string expected = everything(p);
          for (VectorLevel level : vector_levels()) {
            set_vector_level(level);
            const std::string found = everything(p);
            std::size_t at = 0;
            while (at < expected.size() && at < found.size() && expected[at] == found[at]) ++at;
            const bool same = found == expected;
            set_vector_level(widest);
            INFO(name_of(level) << " statistics " << static_cast<int>(setting.statistics) << " place "
                                << static_cast<int>(setting.place) << " family " << f << " " << name_of(format) << " D "
                                << cols << " byte " << at << " of " << expected.size());
            REQUIRE(same);
          }
        }
}

}  // namespace
}  // namespace norma::test

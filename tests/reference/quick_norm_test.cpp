// The binary64 tier of the row norms against 3000-bit MPFR: its enclosures hold, what it calls rounded is, its scores
// are as exact as they say, and every vector level gives the same bits.
#include "reference/certified/rows/quick_norm.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "reference/certified/element.hpp"
#include "reference/certified/rounding.hpp"
#include "reference/certified/rows/kernels.hpp"
#include "reference/certified/rows/quick_factor.hpp"
#include "reference/certified/rows/row_norm.hpp"
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
      if (n.bias.tensor != nullptr)
        mpfr_add_d(v.get(), v.get(), n.bias.tensor->value(n.bias.index.at(row, column)), MPFR_RNDN);
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
    if (n.eps_place == EpsPlace::max || n.eps_place == EpsPlace::l2max)
      mpfr_max(r.get(), r.get(), eps.get(), MPFR_RNDN);
    return r;
  }
};

// The values of one row as a truth that decides.hpp can ask: 3000 bits compared as they are. An exact tie of these
// norms has a dyadic root, which MPFR finds exactly.
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
  std::int64_t span = 1;  ///< of columns with the same parameters
};

struct Problem {
  Tensor x, residual, weight, scale, bias, mean, variance;
  RowNorm norm;

  Problem(const Setting& s, FormatId format, std::int64_t rows, std::int64_t cols, Family family, Random& random) {
    x = make(format, {rows, cols}, family, random);
    residual = make(format, {rows, cols}, Family::normal, random);
    const FormatId narrow = contains(FormatId::bf16, format) ? format : FormatId::bf16;
    weight = make(random.below(2) == 0 ? FormatId::fp32 : narrow, {cols},
                  family == Family::bits ? family : Family::normal, random);
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
    if (s.weight) norm.weight = {.tensor = &weight, .offset = 0, .index = {}};
    if (s.scale) norm.scale = {.tensor = &scale, .offset = 1, .index = {}};
    if (s.bias) norm.bias = {.tensor = &bias, .offset = 0, .index = {}};
    for (Parameter* parameter : {&norm.weight, &norm.scale, &norm.bias}) parameter->index.span = s.span;
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
  for (FormatId format :
       {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::e5m2, FormatId::tf32}) {
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
      const std::uint64_t mask =
          mpfr_zero_p(exact.y[j].get()) != 0 ? format_of(format).magnitude_mask() : ~std::uint64_t{0};
      REQUIRE((y.code(col) & mask) == (*right & mask));
    }
    REQUIRE(next == open.size());
  }
}

std::vector<Setting> settings() {
  std::vector<Setting> all;
  for (EpsPlace place :
       {EpsPlace::inside, EpsPlace::sum, EpsPlace::outside, EpsPlace::max, EpsPlace::l2max, EpsPlace::none})
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
  all.push_back({.span = 64});
  all.push_back({.statistics = Statistics::moments, .weight = false});
  all.push_back({.statistics = Statistics::moments, .bias = true, .span = 64});
  all.push_back({.statistics = Statistics::given, .bias = true, .span = 64});
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
          for (std::int64_t row = 0; row < 2; ++row)
            check_row(p, quick, row, family == Family::normal ? ordinary : others);
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

TEST_CASE("enclosures hold where every addition rounds the same way, and where h itself is rounded") {
  Random random{6};
  Found found;
  // 32 lanes begin with 1; what follows is below half a last place of it and is lost 15 times in each.
  Problem lost({}, FormatId::fp32, 1, 512, Family::normal, random);
  const double small = std::nextafter(static_cast<float>(0x1.6ap-27), 0.0F);
  for (std::int64_t j = 0; j < 512; ++j) lost.x.set_code(j, code_of(FormatId::fp32, j < 32 ? 1 : small));
  check_row(lost, QuickNorm(lost.norm), 0, found);
  // x + residual is not a binary64 number, and its rounding is 2^-21 of the deviations.
  Problem rounded({.statistics = Statistics::moments, .residual = true}, FormatId::fp32, 1, 96, Family::normal, random);
  for (std::int64_t j = 0; j < 96; ++j) {
    rounded.x.set_code(j, code_of(FormatId::fp32, 1));
    const double v = std::ldexp(gauss(random), -32);
    rounded.residual.set_code(j, code_of(FormatId::fp32, static_cast<float>(v)));
  }
  check_row(rounded, QuickNorm(rounded.norm), 0, found);
}

TEST_CASE("constant and zero rows are settled by binary64, ties too") {
  for (FormatId out : {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn}) {
    const std::int64_t cols = 200;
    Tensor x = Tensor::zeros(FormatId::fp32, {2, cols}), weight = Tensor::zeros(FormatId::fp32, {cols}), bias = weight;
    for (std::int64_t j = 0; j < cols; ++j) {
      x.set_code(j, code_of(FormatId::fp32, 0.1f));
      weight.set_code(j, code_of(FormatId::fp32, j % 2 == 0 ? 1.25 : -3));
      bias.set_code(j,
                    code_of(FormatId::fp32, 1 + 0x1p-9 * static_cast<double>(2 * j + 1)));  // ties of bf16 among them
    }
    RowNorm norm{
        .rows = 2, .cols = cols, .x = &x, .statistics = Statistics::moments, .groups = 2, .count = 200, .eps = 1e-5};
    norm.weight.tensor = &weight;
    std::vector<std::uint32_t> open;
    Tensor y = Tensor::zeros(out, {cols});
    for (std::int64_t row = 0; row < 2; ++row) {
      QuickNorm(norm).round_row(row, out, Overflow::ieee, y.bytes.data(), open);
      for (std::int64_t j = 0; j < cols; ++j) CHECK(y.code(j) == (j % 2 == 0 ? 0 : format_of(out).sign_code()));
    }
    norm.bias.tensor = &bias;
    for (std::int64_t row = 0; row < 2; ++row) {
      QuickNorm(norm).round_row(row, out, Overflow::ieee, y.bytes.data(), open);
      for (std::int64_t j = 0; j < cols; ++j) CHECK(y.code(j) == encode(out, bias.value(j), Overflow::ieee));
    }
    CHECK(open.empty());
    norm.eps = 0;
    QuickNorm(norm).round_row(0, out, Overflow::ieee, y.bytes.data(), open);
    CHECK(y.code(3) == format_of(out).nan_code());
    norm.statistics = Statistics::squares;
    norm.bias.tensor = nullptr;
    QuickNorm(norm).round_row(1, out, Overflow::ieee, y.bytes.data(), open);
    CHECK(y.code(3) == format_of(out).nan_code());
    norm.eps = 1e-5;
    QuickNorm(norm).round_row(1, out, Overflow::ieee, y.bytes.data(), open);
    CHECK(y.code(3) == format_of(out).sign_code());
    // An infinite element: r = 0.
    x.set_code(cols + 7, 0x7f80'0000);
    QuickNorm(norm).round_row(1, out, Overflow::ieee, y.bytes.data(), open);
    CHECK(y.code(7) == format_of(out).nan_code());
    CHECK(y.code(4) == 0);
    CHECK(open.empty());
  }
}

// Mean and factor as one plain pass and as further passes give them.
void check_factor(const Problem& p, bool careful) {
  const RowReader reader(p.norm);
  RowReader::Scratch scratch;
  RowValues values;
  const RowFactor f = row_factor(p.norm, reader, 0, scratch, values, careful);
  if (f.kind != RowFactor::Kind::bounded) return;
  Real mean(0.0, kBits), total(0.0, kBits), term(kBits);
  if (p.norm.statistics == Statistics::moments)
    for (std::int64_t j = 0; j < p.norm.cols; ++j) mpfr_add_d(mean.get(), mean.get(), p.x.value(j), MPFR_RNDN);
  mpfr_div_d(mean.get(), mean.get(), static_cast<double>(p.norm.cols), MPFR_RNDN);
  for (std::int64_t j = 0; j < p.norm.cols; ++j) {
    mpfr_sub_d(term.get(), mean.get(), p.x.value(j), MPFR_RNDN);
    mpfr_sqr(term.get(), term.get(), MPFR_RNDN);
    mpfr_add(total.get(), total.get(), term.get(), MPFR_RNDN);
  }
  const Real divisor = Exact::root(p.norm, total);
  mpfr_mul_d(term.get(), divisor.get(), f.factor, MPFR_RNDN);
  mpfr_sub_ui(term.get(), term.get(), 1, MPFR_RNDN);
  const double relative = std::fabs(mpfr_get_d(term.get(), MPFR_RNDA));
  mpfr_sub_d(mean.get(), mean.get(), f.hi, MPFR_RNDN);
  mpfr_sub_d(mean.get(), mean.get(), f.lo, MPFR_RNDN);
  const double off = std::fabs(mpfr_get_d(mean.get(), MPFR_RNDA)) * f.factor;
  INFO("relative " << relative << " of " << f.relative << ", mean " << off << " of " << f.eta);
  REQUIRE(relative <= f.relative * (1 + 0x1p-40));
  REQUIRE(off <= f.eta * (1 + 0x1p-40));
}

TEST_CASE("mean and factor of a row are within their bounds") {
  Random random{9};
  for (int f = 0; f < static_cast<int>(Family::last); ++f)
    for (FormatId format : {FormatId::bf16, FormatId::fp32})
      for (std::int64_t cols : {2, 3, 33, 128, 1000, 5000})
        for (bool careful : {false, true}) {
          INFO("family " << f << " " << name_of(format) << " D " << cols << " careful " << careful);
          check_factor(Problem({.statistics = Statistics::moments}, format, 1, cols, static_cast<Family>(f), random),
                       careful);
        }
  // What follows the lanes' first values is lost in every addition: of the sum, of the squares.
  for (double small : {0x1.6p-54, 0x1.6p-27})
    for (bool careful : {false, true}) {
      Problem lost({.statistics = Statistics::moments}, FormatId::fp32, 1, 512, Family::normal, random);
      for (std::int64_t j = 0; j < 512; ++j) lost.x.set_code(j, code_of(FormatId::fp32, j < 32 ? 1 : small));
      check_factor(lost, careful);
    }
  // The most that sums of squares lose: 15 terms of the lanes' first runs, then 31 runs, each just below half a place.
  const double root = 0x1.6a09e6p-27;
  for (Statistics statistics : {Statistics::squares, Statistics::moments}) {
    Problem lost({.statistics = statistics}, FormatId::fp32, 1, 16384, Family::normal, random);
    for (std::int64_t j = 0; j < 16384; ++j)
      lost.x.set_code(j, code_of(FormatId::fp32, j < 32 ? 1 : j < 512 ? root : root / 4));
    check_factor(lost, false);
  }
  // Almost a power of two: in the sum with eps, in the root, in its inverse.
  for (const auto& [x, eps] : {std::pair(1.0, 0x1p-60), std::pair(1.0, 0x1p-52), std::pair(3.0, 0.0)}) {
    Problem p({.eps = eps}, FormatId::fp32, 1, 96, Family::normal, random);
    for (std::int64_t j = 0; j < 96; ++j) p.x.set_code(j, code_of(FormatId::fp32, x));
    check_factor(p, true);
  }
}

TEST_CASE("ties are settled by binary64 where factor and sums are exact") {
  Random random{8};
  for (std::int64_t cols : {96, 3072}) {
    // mean square 1.25, r = 1/2; deviations of +-1, r = 1. Weights of nine bits: midpoints of bf16.
    for (Statistics statistics : {Statistics::squares, Statistics::moments}) {
      const bool squares = statistics == Statistics::squares;
      Problem p({.statistics = statistics, .eps = squares ? 2.75 : 0, .bias = !squares}, FormatId::fp32, 1, cols,
                Family::normal, random);
      p.weight = Tensor::zeros(FormatId::fp32, {cols});
      p.bias = Tensor::zeros(FormatId::bf16, {cols});
      for (std::int64_t j = 0; j < cols; ++j) {
        p.x.set_code(j, code_of(FormatId::fp32, squares ? (j % 2 == 0 ? 1.5 : 0.5) : (j % 2 == 0 ? 4 : 2)));
        p.weight.set_code(j, code_of(FormatId::fp32, (257 + 2 * static_cast<double>(j % 42)) / 256));
      }
      Found found;
      check_row(p, QuickNorm(p.norm), 0, found);
      CHECK(found.open == 0);
    }
  }
}

TEST_CASE("enclosures hold for wide rows") {
  Random random{3};
  Found found;
  for (std::int64_t cols : {128, 3072, 16384 + 5})
    for (Statistics statistics : {Statistics::squares, Statistics::moments})
      for (Family family : {Family::normal, Family::far_mean, Family::wide, Family::outlier}) {
        const FormatId format = family == Family::wide ? FormatId::fp32 : FormatId::bf16;
        const Problem p({.statistics = statistics, .bias = family == Family::outlier}, format, 1, cols, family, random);
        INFO("D " << cols << " family " << static_cast<int>(family));
        check_row(p, QuickNorm(p.norm), 0, found);
      }
  INFO(found.open << " of " << found.elements);
  CHECK(found.open * 20000 < found.elements);
}

TEST_CASE("enclosures hold for a row of a million") {
  Random random{4};
  for (Statistics statistics : {Statistics::squares, Statistics::moments}) {
    const std::int64_t cols = std::int64_t{1} << 20;
    const Problem p({.statistics = statistics}, FormatId::fp32, 1, cols, Family::normal, random);
    const QuickNorm quick(p.norm);
    std::vector<double> mid(static_cast<std::size_t>(cols)), radius(mid), magnitude(mid);
    quick.enclose(0, {mid, radius, magnitude});
    const Exact exact(p.norm, 0);
    double widest = 0;
    for (std::size_t j = 0; j < mid.size(); j += 997) {
      REQUIRE(encloses(mid[j], radius[j], exact.y[j]));
      widest = std::max(widest, radius[j] / (std::fabs(mid[j]) + 1e-3));
    }
    CHECK(widest < 0x1p-46);
  }
}

TEST_CASE("beside a power of two the bar covers both ulps") {
  // y = 1 + d, d a last place of binary64 or less: |d| is far below the bar of y.
  for (double got : {1.0, 1.5, 0.75, 1 + 0x1p-23}) {
    Tensor x = tensor(FormatId::fp32, {1, 2}, {1, 1}), bias = tensor(FormatId::fp32, {2}, {0, 2});
    Tensor out = tensor(FormatId::fp32, {1, 2}, {got, got});
    RowNorm norm{.rows = 1, .cols = 2, .x = &x, .groups = 1, .count = 2, .eps_place = EpsPlace::none};
    for (const Tensor* b : {static_cast<const Tensor*>(nullptr), static_cast<const Tensor*>(&bias)}) {
      norm.bias.tensor = b;
      RowScoreSums sums;
      std::vector<std::uint32_t> open;
      QuickNorm(norm).score_row(0, FormatId::fp32, out.bytes.data(), sums, open);
      if (got == 1.0)
        CHECK(open.empty());
      else
        CHECK(open.size() == (b == nullptr ? 2 : 1));  // 3 is no power of two
    }
  }
}

// ---- loops by themselves ----

// Elements of a loop whose bounds are the test's own: an element of some blocks lies about as far from a midpoint as
// its bound is, the others on the format's grid. No real row comes as close to its bounds.
struct LooseRun {
  double plain;  ///< other elements' y, and their bias: a power of two or none
  std::vector<float> x;
  std::vector<double> weight, bias, bias_size, y, e;
  ElementRun run{};

  LooseRun(Affine affine, FormatId format, int places, Random& random) : plain(random.below(2) == 0 ? 0.25 : 0.375) {
    const std::size_t count = 1 + random.below(200);
    const bool biased = affine == Affine::biased || affine == Affine::constant_biased;
    const bool constant = affine == Affine::constant || affine == Affine::constant_biased;
    const Format& f = format_of(format);
    run.of_product = random.below(4) == 0 ? 0 : std::ldexp(1.0, -places);
    run.of_value = biased && random.below(2) == 0 ? std::ldexp(1.0, -places) : 0;
    // A midpoint, of the last ones below a power of two where bounds are widest.
    const std::uint64_t half = std::uint64_t{1} << f.mantissa_bits();
    std::uint64_t code = encode(format, 1, Overflow::ieee) + half - 1 - random.below(3);
    if (random.below(4) == 0) code -= random.below(half - 3);
    if (random.below(8) == 0 && !biased) code = random.below(half);  // subnormal
    const double middle = (decode(format, code) + decode(format, code + 1)) / 2;
    run.absolute = random.below(3) == 0 ? 0 : std::ldexp(middle, -random.between(places - 1, places + 1));
    const double b = biased ? (random.below(2) == 0 ? 64 : 0.5) : 0;
    const double error = run.of_product * (b + middle) + run.of_value * middle + run.absolute;
    // On 2^-46: with a bias of 64 no sum rounds.
    double target = middle + error * static_cast<double>(random.between(-1000, 1000)) * 0x1.4p-10;
    if (biased) target = std::rint(target * 0x1p46) * 0x1p-46;
    run.constant_bias = biased && constant ? b : 0;
    run.factor = constant ? target - b : 1;
    for (std::size_t i = 0; i < count; ++i) {
      x.push_back(!constant ? 1.0F : biased ? 0.0F : 0.375F);
      weight.push_back(biased ? 0 : plain);
      bias.push_back(biased ? plain : 0);
    }
    for (std::size_t begin = 0; begin < count; begin += kBlock) {
      const std::size_t i = begin + random.below(std::min(kBlock, count - begin));
      if (random.below(2) == 0) continue;
      x[i] = 1;
      weight[i] = target - b;
      bias[i] = b;
    }
    bias_size.assign((count + kBlock - 1) / kBlock, 0.0);
    for (std::size_t i = 0; i < count; ++i) {
      bias_size[i / kBlock] = std::max(bias_size[i / kBlock], std::fabs(bias[i]));
      const double q = x[i] * (constant ? run.factor : weight[i]);
      y.push_back(q + (constant ? run.constant_bias : bias[i]));
      e.push_back(run.of_product * std::fabs(q) + run.of_value * std::fabs(y[i]) + run.absolute);
    }
    run.x = x.data();
    run.weight = weight.data();
    run.bias = bias.data();
    run.bias_size = bias_size.data();
    run.count = count;
  }
  LooseRun(const LooseRun&) = delete;
};

TEST_CASE("what a loop rounds is right all over its bound") {
  Random random{10};
  const VectorLevel usual = vector_level();
  for (FormatId format : {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn})
    for (Affine affine : {Affine::product, Affine::biased, Affine::constant, Affine::constant_biased}) {
      std::int64_t blocks = 0, settled = 0, faults = 0;
      for (int k = 0; k < 20000; ++k) {
        const LooseRun loose(affine, format, random.between(33, 44), random);
        const std::size_t count = loose.run.count;
        const VectorLevel level = vector_levels()[random.below(vector_levels().size())];
        set_vector_level(level);
        Tensor to = Tensor::zeros(format, {static_cast<std::int64_t>(count)});
        const std::uint64_t open =
            kernels().round_elements[static_cast<std::size_t>(Layout::fp32)][0][static_cast<std::size_t>(affine)]
                                    [static_cast<std::size_t>(format)](loose.run, to.bytes.data());
        set_vector_level(usual);
        for (std::size_t i = 0; i < count; ++i) {
          blocks += i % kBlock == 0 ? 1 : 0;
          if ((open >> (i / kBlock) & 1) != 0) continue;
          settled += i % kBlock == 0 ? 1 : 0;
          // 2^-30 less: what these sums and differences round.
          const double y = loose.y[i], e = loose.e[i] * (1 - 0x1p-30);
          const std::uint64_t code = to.code(static_cast<std::int64_t>(i));
          const double low = y - e, high = y + e;
          if (encode(format, low, Overflow::ieee) != code || encode(format, high, Overflow::ieee) != code) {
            if (faults++ == 0)
              UNSCOPED_INFO("y " << y << " e " << e << " count " << count << " i " << i << " of_product "
                                 << loose.run.of_product << " of_value " << loose.run.of_value << " absolute "
                                 << loose.run.absolute << " bias " << loose.bias[i]);
          }
        }
      }
      INFO(name_of(format) << " affine " << static_cast<int>(affine) << ": " << settled << " of " << blocks);
      CHECK(faults == 0);
      CHECK(settled * 4 > blocks);
      CHECK(settled * 20 < blocks * 19);
    }
}

// (got - y) / ulp_F(y) from 3000 bits.
double exact_error(const Real& y, double got, FormatId format) {
  const Format& f = format_of(format);
  if (mpfr_zero_p(y.get()) != 0) return got / std::ldexp(1.0, f.emin - f.precision + 1);
  const int binade = static_cast<int>(mpfr_get_exp(y.get())) - 1;
  Real d(kBits);
  mpfr_d_sub(d.get(), got, y.get(), MPFR_RNDN);
  mpfr_mul_2si(d.get(), d.get(), f.precision - 1 - std::max(binade, f.emin), MPFR_RNDN);
  return mpfr_get_d(d.get(), MPFR_RNDN);
}

TEST_CASE("what a loop scores is right all over its bound") {
  Random random{11};
  const VectorLevel usual = vector_level();
  for (FormatId format : {FormatId::fp32, FormatId::bf16, FormatId::fp16})
    for (bool biased : {false, true}) {
      const auto layout = static_cast<std::size_t>(format == FormatId::fp32   ? Layout::fp32
                                                   : format == FormatId::bf16 ? Layout::bf16
                                                                              : Layout::fp16);
      std::int64_t scored = 0, near_half = 0;
      for (int k = 0; k < 40000; ++k) {
        const LooseRun loose(biased ? Affine::biased : Affine::product, format, random.between(33, 50), random);
        const auto farther = [&](double a, double b) {
          return std::fabs(a - loose.plain) < std::fabs(b - loose.plain);
        };
        const auto far = std::max_element(loose.y.begin(), loose.y.end(), farther) - loose.y.begin();
        const std::size_t i = random.below(2) == 0 ? 0 : static_cast<std::size_t>(far);
        Tensor got = Tensor::zeros(format, {1});
        got.set_code(0, encode(format, loose.y[i], Overflow::ieee) + (random.below(4) == 0 ? 1 : 0));
        set_vector_level(vector_levels()[random.below(vector_levels().size())]);
        ScoreSums sums{};
        std::uint32_t open[2];
        const std::size_t left = kernels().score[static_cast<std::size_t>(Layout::fp32)][0][biased ? 1 : 0][layout](
            part_of(loose.run, Layout::fp32, i, 1), ulp_rule(format), got.bytes.data(), sums, open);
        set_vector_level(usual);
        if (left > 0) continue;
        ++scored;
        near_half += sums.near_half;
        // A row's of_value is 3u at most.
        if (loose.run.of_value <= 0x1p-48) REQUIRE(sums.bar <= kScoreBar);
        REQUIRE(sums.incorrect + sums.near_half <= 1);
        for (const double side : {-1.0, 1.0}) {
          Real y(loose.y[i], kBits);
          mpfr_add_d(y.get(), y.get(), side * loose.e[i] * (1 - 0x1p-30), MPFR_RNDN);
          const double error = exact_error(y, got.value(0), format);
          INFO(name_of(format) << " biased " << biased << " y " << loose.y[i] << " +- " << loose.e[i] << " error "
                               << error << " score " << sums.sum << " bar " << sums.bar);
          REQUIRE(std::fabs(error - sums.sum) <= sums.bar);
          if (sums.near_half == 0) REQUIRE((std::fabs(error) > 0.5) == (sums.incorrect == 1));
        }
      }
      CHECK(scored > 4000);
      CHECK(near_half > 200);
    }
}

TEST_CASE("scores are as exact as their bar says") {
  Random random{5};
  for (const Setting& setting : settings())
    for (FormatId format : {FormatId::fp32, FormatId::bf16, FormatId::fp16, FormatId::e4m3fn}) {
      if (setting.statistics == Statistics::given) continue;  // variances may be large: all is near zero
      const std::int64_t rows = 6, cols = 133;
      const Problem p(setting, FormatId::bf16, rows, cols, Family::normal, random);
      const QuickNorm quick(p.norm);
      INFO("place " << static_cast<int>(setting.place) << " " << name_of(format));
      Tensor got = Tensor::zeros(format, {rows, cols});
      const std::uint64_t most = format_of(format).max_finite_code();
      std::vector<std::uint32_t> open;
      for (std::int64_t row = 0; row < rows; ++row)
        quick.round_row(row, format, Overflow::saturate,
                        got.bytes.data() + row * cols * format_of(format).storage_bytes(), open);
      for (std::int64_t i = 0; i < got.size(); ++i) {
        const std::uint64_t code = got.code(i), magnitude = code & most;
        if (random.below(3) == 0 && magnitude > 4 && magnitude + 4 < most) got.set_code(i, code + random.below(5) - 2);
        if (random.below(200) == 0) got.set_code(i, random.below(2) == 0 ? 0 : format_of(format).nan_code());
      }
      double largest = 0, sum = 0, sum_abs = 0, bar = 0;
      std::int64_t scored = 0, left = 0, incorrect = 0;
      for (std::int64_t row = 0; row < rows; ++row) {
        const Exact exact(p.norm, row);
        open.clear();
        RowScoreSums sums;
        quick.score_row(row, format, got.bytes.data() + row * cols * format_of(format).storage_bytes(), sums, open);
        left += static_cast<std::int64_t>(open.size());
        bar = std::max(bar, sums.bar);
        std::int64_t numbers = 0;
        double row_max = 0;
        for (std::int64_t j = 0; j < cols; ++j) {
          if (std::find(open.begin(), open.end(), j) != open.end()) continue;
          const double g = got.value(row * cols + j);
          if (std::isnan(g)) continue;
          const double error = exact_error(exact.y[static_cast<std::size_t>(j)], g, format);
          ++numbers;
          sum += error;
          sum_abs += std::fabs(error);
          incorrect += std::fabs(error) > 0.5 ? 1 : 0;
          row_max = std::max(row_max, std::fabs(error));
        }
        REQUIRE(sums.scored == numbers);
        REQUIRE(std::fabs(sums.max - row_max) <= sums.bar + 0x1p-50 * row_max);
        REQUIRE(sums.bar <= kScoreBar);
        scored += numbers;
        largest = std::max(largest, row_max);
        sum -= sums.sum;
        sum_abs -= sums.sum_abs;
        incorrect -= sums.incorrect + sums.near_half;
      }
      CHECK(left * 20 < rows * cols);
      CHECK(std::fabs(sum) <= static_cast<double>(scored) * bar * 1.01);
      CHECK(std::fabs(sum_abs) <= static_cast<double>(scored) * bar * 1.01);
      CHECK(incorrect <= 0);
    }
}

// All rows of a problem as a truth.
class RowsTruth final : public TruthSource {
 public:
  explicit RowsTruth(const RowNorm& norm) : cols_(norm.cols) {
    for (std::int64_t row = 0; row < norm.rows; ++row) all_.emplace_back(norm, row);
  }
  std::int64_t rows() const override { return static_cast<std::int64_t>(all_.size()); }
  std::int64_t cols() const override { return cols_; }
  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::int64_t j = 0; j < cols_; ++j) out[static_cast<std::size_t>(j)] = enclose(row, j);
  }
  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    const Real& y = at(row, col);
    Interval point(kBits);
    point.lo = y;
    point.hi = y;
    return enclosure_of(point);
  }
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    return ExactTruth(all_[static_cast<std::size_t>(row)]).compare(0, col, m_hi, m_lo);
  }
  const Real& at(std::int64_t row, std::int64_t col) const {
    return all_[static_cast<std::size_t>(row)].y[static_cast<std::size_t>(col)];
  }

 private:
  std::int64_t cols_;
  std::vector<Exact> all_;
};

TEST_CASE("a tensor's score is that of its elements, on any number of threads") {
  Random random{7};
  const std::int64_t rows = 1200, cols = 61;
  Problem p({.statistics = Statistics::moments, .bias = true}, FormatId::bf16, rows, cols, Family::normal, random);
  const RowsTruth truth(p.norm);
  Tensor got = round_rows(p.norm, truth, FormatId::fp32, Overflow::ieee, 2).y;
  for (std::int64_t i = 0; i < got.size(); ++i) got.set_code(i, got.code(i) + random.below(3) - 1);
  got.set_code(77, 0x7f80'0000);
  got.set_code(900 * cols + 5, got.code(900 * cols + 5) + 40);
  got.set_code(1000 * cols + 6, got.code(1000 * cols + 6) + 30);
  const RowScore score = score_rows(p.norm, truth, got, 1);
  double sum = 0, sum_abs = 0, sum_squares = 0, largest = 0;
  std::int64_t incorrect = 0, at = -1;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    if (i == 77) continue;
    const double error = exact_error(truth.at(i / cols, i % cols), got.value(i), FormatId::fp32);
    sum += error;
    sum_abs += std::fabs(error);
    sum_squares += error * error;
    incorrect += std::fabs(error) > 0.5 ? 1 : 0;
    if (std::fabs(error) > largest) {
      largest = std::fabs(error);
      at = i;
    }
  }
  const auto n = static_cast<double>(got.size() - 1);
  CHECK(score.scored == got.size() - 1);
  CHECK(score.not_scored == 1);
  CHECK(score.max_at == at);
  CHECK(std::fabs(score.max - largest) <= score.bar);
  CHECK(std::fabs(score.bias - sum / n) <= score.bar * 1.01);
  CHECK(std::fabs(score.mean_abs - sum_abs / n) <= score.bar * 1.01);
  CHECK(std::fabs(score.rms - std::sqrt(sum_squares / n)) <= score.bar * 1.01);
  CHECK(score.bar <= kScoreBar);
  CHECK(score.incorrect == incorrect);
  CHECK(score.tiers.binary64 + score.tiers.double_double + score.tiers.exact == got.size());
  for (int threads : {2, 3, 8}) {
    const RowScore other = score_rows(p.norm, truth, got, threads);
    CHECK(other.max == score.max);
    CHECK(other.max_at == score.max_at);
    CHECK(other.mean_abs == score.mean_abs);
    CHECK(other.bias == score.bias);
    CHECK(other.rms == score.rms);
    CHECK(other.bar == score.bar);
    CHECK(other.incorrect == score.incorrect);
    CHECK(other.near_half == score.near_half);
    CHECK(other.tiers == score.tiers);
  }
}

}  // namespace
/// Means up to 2^20 deviations: their low words must not be lost on the way.
TEST_CASE("short rows taken ahead are rounded as one by one", "[certified]") {
  constexpr std::int64_t kRows = 64, kCols = 100;
  std::uint64_t state = 7;
  const auto uniform = [&] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(state >> 11) * 0x1p-53;
  };
  for (const double mean : {0.0, 1.0, 0x1p20})
    for (const Statistics statistics : {Statistics::squares, Statistics::moments}) {
      Tensor x = Tensor::zeros(FormatId::fp32, {kRows, kCols}), weight = Tensor::zeros(FormatId::fp32, {kCols});
      for (std::int64_t i = 0; i < x.size(); ++i)
        x.set_code(i, encode(FormatId::fp32, mean + uniform() + uniform() - 1, Overflow::ieee));
      for (std::int64_t i = 0; i < kCols; ++i)
        weight.set_code(i, encode(FormatId::fp32, 0.5 + uniform(), Overflow::ieee));
      RowNorm norm;
      norm.rows = norm.groups = kRows;
      norm.cols = kCols;
      norm.count = kCols;
      norm.x = &x;
      norm.statistics = statistics;
      norm.eps = 1e-6;
      norm.weight.tensor = &weight;
      const QuickNorm quick(norm);
      std::int64_t rows_done = 0;
      for (std::int64_t first = 0; first < kRows; first += QuickNorm::kAhead) {
        std::vector<std::byte> ahead(static_cast<std::size_t>(QuickNorm::kAhead * kCols) * 4);
        const std::uint32_t done =
            quick.round_ahead(first, QuickNorm::kAhead, FormatId::fp32, Overflow::ieee, ahead.data());
        for (std::int64_t k = 0; k < QuickNorm::kAhead; ++k) {
          if ((done >> k & 1) == 0) continue;
          std::vector<std::byte> alone(static_cast<std::size_t>(kCols) * 4);
          std::vector<std::uint32_t> open;
          quick.round_row(first + k, FormatId::fp32, Overflow::ieee, alone.data(), open);
          CHECK(std::equal(alone.begin(), alone.end(), ahead.begin() + k * kCols * 4));
          ++rows_done;
        }
      }
      CAPTURE(mean, statistics == Statistics::moments);
      if (mean == 0) CHECK(rows_done > 50);
    }
}

}  // namespace norma::test

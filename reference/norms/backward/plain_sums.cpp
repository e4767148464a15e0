// Sums of products of two or three dyadic numbers: dyadic, and compared as such.
#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <optional>

#include "reference/certified/double_double.hpp"
#include "reference/certified/products/exact_sum.hpp"
#include "reference/certified/share_out.hpp"
#include "reference/exact/real.hpp"
#include "reference/norms/backward/gradients.hpp"
#include "reference/norms/exact_rows.hpp"
#include "reference/norms/terms.hpp"

namespace norma {

namespace {

constexpr double kLeast = std::numeric_limits<double>::denorm_min();

/// The sum of what is not finite by IEEE rules; 0 while all is finite.
struct SpecialSum {
  bool nan = false, positive = false, negative = false;
  /// True if the product is finite.
  bool takes(double dy, const Sum& factor) {
    if (std::isfinite(dy) && std::isfinite(factor.a) && std::isfinite(factor.b)) return true;
    const double other = factor.is_zero() ? 0.0 : factor.is_nan() ? std::nan("") : factor.negative() ? -1.0 : 1.0;
    const double size = factor.is_infinite() ? std::numeric_limits<double>::infinity() : 1.0;
    const double product = dy * (other * size);
    if (std::isnan(product)) nan = true;
    if (std::isinf(product)) (product > 0 ? positive : negative) = true;
    return false;
  }
  double value() const {
    if (nan || (positive && negative)) return std::nan("");
    return positive ? std::numeric_limits<double>::infinity() : negative ? -std::numeric_limits<double>::infinity() : 0;
  }
};

struct Terms {
  const Tensor* dy;
  std::int64_t rows, cols;
  GradientSum sum;

  template <class Visit>
  void visit(std::int64_t begin, std::int64_t end, const Visit& each) const {
    for_each_run(sum.index, rows, cols, begin, end, [&](std::int64_t row, std::int64_t first, std::int64_t last) {
      for (std::int64_t col = first; col < last; ++col) {
        Sum factor{1.0, kNeutral};
        if (const Parameter& p = sum.factor; p.tensor != nullptr)
          factor = {p.tensor->value(p.index.at(row, col)), p.offset == 0 ? kNeutral : p.offset};
        each(begin + (col - first) / sum.index.span, dy->value(row * cols + col), factor);
      }
    });
  }
  std::int64_t out_cols() const { return sum.shape.size() < 2 ? sum.size() : sum.shape.back(); }
};

Enclosure special_enclosure(double value) { return {.hi = value, .lo = 0, .radius = 0, .magnitude = std::fabs(value)}; }

/// By MPFR.
class DyadicSums final : public TruthSource {
 public:
  explicit DyadicSums(Terms terms) : terms_(std::move(terms)) {}
  std::int64_t rows() const override { return terms_.sum.size() / cols(); }
  std::int64_t cols() const override { return terms_.out_cols(); }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::int64_t j = 0; j < cols(); ++j) out[static_cast<std::size_t>(j)] = enclose(row, j);
  }
  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    const Place p = read(row * cols() + col);
    if (p.special != 0 || std::isnan(p.special)) return special_enclosure(p.special);
    const auto point = [](const Dyadic& v) { return Interval(v, std::max<mpfr_prec_t>(v.real().bits(), 128)); };
    Enclosure e = enclosure_of(point(p.total));
    if (p.total.sign() == 0) e.hi = 0;
    e.magnitude = magnitude_of(point(p.size));
    return e;
  }
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    const Place p = read(row * cols() + col);
    if (p.special != 0 || std::isnan(p.special)) return Comparison::undecided;
    const int sign = order(p.total, Dyadic(m_hi) + Dyadic(m_lo));
    return static_cast<Comparison>((sign > 0) - (sign < 0));
  }

 private:
  struct Place {
    Dyadic total{}, size{};
    double special = 0;
  };
  Place read(std::int64_t at) const {
    Place place;
    SpecialSum special;
    terms_.visit(at, at + 1, [&](std::int64_t, double dy, const Sum& factor) {
      if (!special.takes(dy, factor)) return;
      const Dyadic term = Dyadic(dy) * factor.exact();
      place.total = place.total + term;
      place.size = place.size + abs(term);
    });
    place.special = special.value();
    return place;
  }

  Terms terms_;
};

/// By wide integers, of tensors of at most 24 bits: each product is the sum of a few binary64 numbers.
class IntegerSums final : public TruthSource {
 public:
  explicit IntegerSums(Terms terms) : terms_(std::move(terms)) {}
  std::int64_t rows() const override { return terms_.sum.size() / cols(); }
  std::int64_t cols() const override { return terms_.out_cols(); }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    std::copy_n(all().begin() + row * cols(), cols(), out.begin());
  }
  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    return all()[static_cast<std::size_t>(row * cols() + col)];
  }
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    const std::int64_t at = row * cols() + col;
    std::vector<Place> place(1);
    read(at, at + 1, place);
    const double special = place.front().special.value();
    if (special != 0 || std::isnan(special)) return Comparison::undecided;
    ExactSum& total = place.front().total;
    total.add(-m_hi);
    total.add(-m_lo);
    return static_cast<Comparison>(total.sign());
  }

 private:
  struct Place {
    ExactSum total{}, size{};
    SpecialSum special{};
  };

  void read(std::int64_t begin, std::int64_t end, std::vector<Place>& places) const {
    terms_.visit(begin, end, [&](std::int64_t at, double dy, const Sum& factor) {
      Place& place = places[static_cast<std::size_t>(at - begin)];
      if (!place.special.takes(dy, factor)) return;
      // dy a and dy b are exact pairs; |dy (a + b)| is added with the sign of the whole.
      const double sign = factor.negative() != (dy < 0) ? -1 : 1;
      for (const double part : {factor.a, factor.b}) {
        const DoubleDouble term = two_prod(dy, part);
        for (const double v : {term.h, term.l})
          if (v != 0) place.total.add(v), place.size.add(sign * v);
      }
    });
  }

  static Enclosure enclose(Place& place) {
    const double special = place.special.value();
    if (special != 0 || std::isnan(special)) return special_enclosure(special);
    Enclosure e{.tier = Tier::binary64};
    const Nearest total = nearest(place.total);
    e.hi = total.hi;
    e.lo = total.lo;
    e.radius = total.radius;
    e.magnitude = nearest(place.size).hi;
    return e;
  }

  struct Nearest {
    double hi, lo, radius;
  };
  /// The leading bits cut off give hi or its neighbour away from zero; lo is the rest, cut off to 53 bits.
  static Nearest nearest(ExactSum sum) {
    const double first = sum.take();
    ExactSum left = sum;
    const double second = left.take();
    const bool rest = left.sign() != 0;
    DoubleDouble pair = two_sum(first, second);
    // Half-way between two numbers but for a rest: towards the rest, which has the sign of the whole.
    const double gap = std::nextafter(std::fabs(first), std::numeric_limits<double>::infinity()) - std::fabs(first);
    if (rest && std::fabs(second) == gap / 2 && pair.h == first) pair = {first + std::copysign(gap, first), -second};
    // What is cut off is below one unit of the second part's last place.
    return {pair.h, pair.l, rest ? std::max(std::fabs(second) * 0x1p-52, kLeast) : 0};
  }

  std::span<const Enclosure> all() const {
    std::call_once(once_, [&] {
      made_.resize(static_cast<std::size_t>(terms_.sum.size()));
      constexpr std::int64_t kPart = 64;
      const std::int64_t size = terms_.sum.size(), per_row = terms_.sum.index.per_row;
      const std::int64_t period = per_row == 0 ? size : per_row, parts = (period + kPart - 1) / kPart;
      share_out(size / period * parts, 1, 0, [&](std::int64_t a, std::int64_t b) {
        for (std::int64_t part = a; part < b; ++part) {
          const std::int64_t base = part / parts * period, begin = base + part % parts * kPart;
          const std::int64_t end = std::min(base + period, begin + kPart);
          std::vector<Place> places(static_cast<std::size_t>(end - begin));
          read(begin, end, places);
          for (std::int64_t at = begin; at < end; ++at)
            made_[static_cast<std::size_t>(at)] = enclose(places[static_cast<std::size_t>(at - begin)]);
        }
      });
    });
    return made_;
  }

  Terms terms_;
  mutable std::once_flag once_;
  mutable std::vector<Enclosure> made_;
};

}  // namespace

std::unique_ptr<TruthSource> plain_sum(const Tensor& dy, std::int64_t rows, std::int64_t cols, const GradientSum& sum,
                                       TruthKind kind) {
  const Parameter& factor = sum.factor;
  if (sum.size() == rows * cols && (factor.offset == 0 || factor.offset == 1)) {  // one product each
    const ThreeTerms product{.rows = rows,
                             .cols = cols,
                             .x = &dy,
                             .f = nullptr,
                             .factor = factor,
                             .shift = {},
                             .one = factor.offset == 1 ? 1 : 0};
    if (kind == TruthKind::fast)
      if (auto fast = fast_terms_truth(product)) return fast;
    return terms_truth(product);
  }
  const auto narrow = [](const Tensor* t) { return t == nullptr || format_of(t->format).precision <= 24; };
  const bool usual =
      factor.offset == 0 || (std::fabs(factor.offset) >= 0x1p-300 && std::fabs(factor.offset) <= 0x1p300);
  Terms terms{.dy = &dy, .rows = rows, .cols = cols, .sum = sum};
  if (kind == TruthKind::fast && narrow(&dy) && narrow(factor.tensor) && usual)
    return std::make_unique<IntegerSums>(std::move(terms));
  return std::make_unique<DyadicSums>(std::move(terms));
}

}  // namespace norma

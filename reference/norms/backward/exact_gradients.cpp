// Gradients exactly. With D elements a group, D h - T = e over the forward's dyadic sums (affine.hpp), G = sum g, C =
// D sum g h - T G and r = 1 / sqrt(total / count + eps), whose square is count / K:
//
//   dx = r ((D g - G) K - e C) / (D K)          K = total + count eps          (inside; squares: D = 1, T = G = 0)
//
// so that dx against m is the sign of a r - c, a polynomial of degree 2 (exact/root.hpp). K = total where eps is no
// term of the root; where r does not vary C = 0 and K = 1. With eps outside, s = sqrt(total / count) and r = 1 / (s +
// eps):
//
//   dx = r ((D g - G) - e C / (total + count eps s)) / D,
//
// and dx against m is the sign of alpha + beta s once both are multiplied by (s + eps) (total + count eps s) > 0:
//   alpha = (D g - G) total - e C - 2 m D eps total          beta = (D g - G) count eps - m D (total + count eps^2)
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <mutex>
#include <optional>

#include "reference/certified/share_out.hpp"
#include "reference/exact/real.hpp"
#include "reference/exact/root.hpp"
#include "reference/norms/affine.hpp"
#include "reference/norms/backward/gradients.hpp"
#include "reference/norms/exact_rows.hpp"

namespace norma {

namespace {

constexpr mpfr_prec_t kFirstBits = 192, kTieBits = 768, kLastBits = 4096;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

Sum parameter(const Parameter& p, std::int64_t row, std::int64_t col) {
  if (p.tensor == nullptr) return {1.0, kNeutral};
  return {p.tensor->value(p.index.at(row, col)), p.offset == 0 ? kNeutral : p.offset};
}

bool is_finite(const Sum& s) { return std::isfinite(s.a) && std::isfinite(s.b); }

Comparison comparison_of(int sign) { return static_cast<Comparison>((sign > 0) - (sign < 0)); }

/// y may be the binary64 number hi, or 0; if it is, it is handed out exactly. Zeros are +0.
template <class Compare>
void settle(Enclosure& e, const Compare& compare) {
  if (e.hi == 0 && e.radius == 0) e.hi = 0;
  if (!(e.radius > 0 && std::isfinite(e.radius))) return;
  if (std::fabs(e.lo) <= e.radius && compare(e.hi) == Comparison::equal)
    e.lo = e.radius = 0;
  else if (std::fabs(e.hi) <= e.radius + std::fabs(e.lo) && compare(0) == Comparison::equal)
    e.hi = e.lo = e.radius = 0;
}

constexpr Enclosure kUndefined{.hi = kNaN, .lo = 0, .radius = 0, .magnitude = kNaN};

/// What the elements of a group have in common in the forward.
struct Statistic {
  bool real = false;  ///< r and the centre are finite numbers
  Root root{};        ///< r
  double elements = 1;
  Dyadic centre{};  ///< T; the centre is T / elements
};

Statistic given_statistic(const RowNorm& norm, std::int64_t group) {
  const double variance = norm.variance->value(group), mean = norm.mean == nullptr ? 0.0 : norm.mean->value(group);
  if (!std::isfinite(variance) || !std::isfinite(mean)) return {};
  Statistic s{.root = {.place = EpsPlace::none, .eps = 0, .total = Dyadic(variance) + Dyadic(norm.eps)},
              .centre = Dyadic(mean)};
  s.real = s.root.total.sign() > 0;
  return s;
}

Statistic statistic(const RowNorm& norm, std::int64_t group) {
  if (norm.statistics == Statistics::given) return given_statistic(norm, group);
  const GroupElements elements{
      .x = norm.x, .residual = nullptr, .rows = norm.rows, .cols = norm.cols, .groups = norm.groups, .group = group};
  const ExactSums sums = exact_sums(elements);
  if (!sums.finite()) return {};
  Statistic s{.root = {.place = norm.eps_place, .eps = norm.eps, .count = norm.count, .total = sums.squares}};
  if (norm.statistics == Statistics::moments) {
    s.elements = static_cast<double>(elements.count());
    s.centre = sums.sum;
    s.root.total = Dyadic(s.elements) * sums.squares - square(sums.sum);
    s.root.count = Dyadic(s.elements) * norm.count;
    if (norm.eps_place == EpsPlace::sum) s.root.place = EpsPlace::inside, s.root.count = s.elements;
  }
  const bool without_eps = s.root.eps == 0 || s.root.place == EpsPlace::none;
  s.real = s.root.total.sign() != 0 || !without_eps;
  return s;
}

// ---- dx ----

/// What the elements of a group have in common in the backward.
struct Slope {
  Statistic s{};
  bool outside = false;  ///< eps stands outside the root, and the length varies
  Dyadic weighted{};     ///< G
  Dyadic moment{};       ///< C
  Dyadic divisor{1.0};   ///< K
  Interval factor{2};    ///< r / (D K), unless outside
};

/// K; none where r does not vary.
std::optional<Dyadic> divisor_of(const Root& r) {
  const Dyadic eps(r.eps);
  switch (r.place) {
    case EpsPlace::inside: return r.total + r.count * eps;
    case EpsPlace::sum: return r.total + eps;
    case EpsPlace::none: return r.total;
    case EpsPlace::max: return order(r.total, r.count * square(eps)) >= 0 ? std::optional(r.total) : std::nullopt;
    case EpsPlace::l2max: return order(r.total, square(eps)) >= 0 ? std::optional(r.total) : std::nullopt;
    case EpsPlace::outside: return r.total.sign() == 0 ? std::nullopt : std::optional(Dyadic(1.0));
  }
  std::abort();
}

class ExactDx final : public TruthSource {
 public:
  explicit ExactDx(const Gradients& gradients) : norm_(gradients.forward), dy_(gradients.dy) {
    slots_.resize(
        static_cast<std::size_t>(norm_.groups == norm_.rows ? 16 : std::min<std::int64_t>(norm_.groups, 4096)));
  }

  std::int64_t rows() const override { return norm_.rows; }
  std::int64_t cols() const override { return norm_.cols; }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    const auto slope = slope_of(row);
    for (std::int64_t j = 0; j < cols(); ++j) out[static_cast<std::size_t>(j)] = enclose(*slope, row, j);
  }
  Enclosure enclose(std::int64_t row, std::int64_t col) const override { return enclose(*slope_of(row), row, col); }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    const auto slope = slope_of(row);
    if (!slope->s.real) return Comparison::undecided;
    return compare(*slope, terms(*slope, row, col), Dyadic(m_hi) + Dyadic(m_lo));
  }

 private:
  /// D g, G and e C.
  struct Terms {
    Dyadic own, mean, along;
  };

  Dyadic weighted(std::int64_t row, std::int64_t col) const {
    Dyadic g = Dyadic(dy_->value(row * norm_.cols + col)) * parameter(norm_.weight, row, col).exact();
    return norm_.scale.tensor == nullptr ? g : g * parameter(norm_.scale, row, col).exact();
  }

  Terms terms(const Slope& f, std::int64_t row, std::int64_t col) const {
    const Dyadic count(f.s.elements), h(norm_.x->value(row * norm_.cols + col));
    return {count * weighted(row, col), f.weighted, (count * h - f.s.centre) * f.moment};
  }

  static Comparison compare(const Slope& f, const Terms& t, const Dyadic& m) {
    const Dyadic count(f.s.elements), own = t.own - t.mean;
    const Root& r = f.s.root;
    if (!f.outside) return comparison_of(norma::compare(r, own * f.divisor - t.along, m * count * f.divisor));
    const Dyadic eps(r.eps), md = m * count;
    const Dyadic alpha = own * r.total - t.along - Dyadic(2.0) * md * eps * r.total;
    const Dyadic beta = own * r.count * eps - md * (r.total + r.count * square(eps));
    // alpha + beta s with s = sqrt(total / count) > 0.
    if (alpha.sign() * beta.sign() >= 0) return comparison_of(alpha.sign() + beta.sign());
    return comparison_of(alpha.sign() * order(square(alpha) * r.count, square(beta) * r.total));
  }

  Enclosure enclose(const Slope& f, std::int64_t row, std::int64_t col) const {
    if (!f.s.real) return kUndefined;
    const Terms t = terms(f, row, col);
    Enclosure e;
    if (!f.outside) {
      const Dyadic sizes = (abs(t.own) + abs(t.mean)) * f.divisor + abs(t.along);
      const mpfr_prec_t bits = f.factor.bits();
      e = enclosure_of(mul(Interval((t.own - t.mean) * f.divisor - t.along, bits), f.factor));
      e.magnitude = magnitude_of(mul(Interval(sizes, bits), f.factor));
    } else {
      for (mpfr_prec_t bits = kFirstBits;; bits = std::min(2 * bits, kLastBits)) {
        const Root& r = f.s.root;
        const Interval length = sqrt(div(Interval(r.total, bits), Interval(r.count, bits)));
        const Interval factor = div(enclose_root(r, bits), Interval(f.s.elements, bits));
        const Interval below = add(Interval(r.total, bits), mul(Interval(r.count * Dyadic(r.eps), bits), length));
        const Interval along = div(Interval(t.along, bits), below);
        const Interval y = mul(sub(Interval(t.own - t.mean, bits), along), factor);
        const Interval sizes = mul(add(Interval(abs(t.own) + abs(t.mean), bits), norma::abs(along)), factor);
        if (!is_tight(y, sizes) && bits < kLastBits) continue;
        e = enclosure_of(y);
        e.magnitude = magnitude_of(sizes);
        break;
      }
    }
    settle(e, [&](double m) { return compare(f, t, Dyadic(m)); });
    return e;
  }

  static Interval enclose_root(const Root& root, mpfr_prec_t bits) { return norma::enclose(root, bits); }

  Slope read(std::int64_t group) const {
    Slope f{.s = statistic(norm_, group)};
    if (!f.s.real) return f;
    Dyadic sum, product;
    for (std::int64_t row = group; row < norm_.rows; row += norm_.groups)
      for (std::int64_t col = 0; col < norm_.cols; ++col) {
        const std::int64_t i = row * norm_.cols + col;
        const bool finite = std::isfinite(dy_->value(i)) && is_finite(parameter(norm_.weight, row, col)) &&
                            is_finite(parameter(norm_.scale, row, col));
        if (!finite) {
          f.s.real = false;
          return f;
        }
        const Dyadic g = weighted(row, col);
        sum = sum + g;
        product = product + g * Dyadic(norm_.x->value(i));
      }
    const bool centred = norm_.statistics == Statistics::moments;
    if (centred) f.weighted = sum;
    if (const std::optional<Dyadic> divisor = divisor_of(f.s.root)) {
      f.divisor = *divisor;
      f.moment = centred ? Dyadic(f.s.elements) * product - f.s.centre * sum : product;
      f.outside = f.s.root.place == EpsPlace::outside;
    }
    f.factor = div(enclose_root(f.s.root, kFirstBits), Interval(Dyadic(f.s.elements) * f.divisor, kFirstBits));
    return f;
  }

  std::shared_ptr<const Slope> slope_of(std::int64_t row) const {
    const std::int64_t group = row % norm_.groups;
    Slot& slot = slots_[static_cast<std::size_t>(group) % slots_.size()];
    {
      const std::lock_guard lock(mutex_);
      if (slot.group == group) return slot.value;
    }
    auto value = std::make_shared<const Slope>(read(group));
    const std::lock_guard lock(mutex_);
    slot = {group, value};
    return value;
  }

  struct Slot {
    std::int64_t group = -1;
    std::shared_ptr<const Slope> value{};
  };
  RowNorm norm_;
  const Tensor* dy_;
  mutable std::mutex mutex_;
  mutable std::vector<Slot> slots_;
};

// ---- normalized sums ----

/// r^2 = above / below, both positive; none where eps stands outside.
struct Square {
  Dyadic above, below;
};
std::optional<Square> square_of(const Root& r) {
  if (r.place == EpsPlace::outside) return std::nullopt;
  const std::optional<Dyadic> below = divisor_of(r);
  if (!below) return Square{r.place == EpsPlace::l2max ? r.count : Dyadic(1.0), square(Dyadic(r.eps))};
  return Square{r.place == EpsPlace::sum ? Dyadic(1.0) : r.count, *below};
}

/// The root of a positive number, if it is dyadic.
std::optional<Dyadic> root_of(const Dyadic& v) {
  Real root(mpfr_min_prec(v.real().get()) / 2 + 2);
  if (mpfr_sqrt(root.get(), v.real().get(), MPFR_RNDN) != 0) return std::nullopt;
  return Dyadic(std::move(root));
}

/// Groups of equal totals have one root: sum over roots of r a / D, with dyadic a = sum of dy factor (D h - T).
class ExactNormalizedSum final : public TruthSource {
 public:
  ExactNormalizedSum(const Gradients& gradients, const GradientSum& sum)
      : norm_(gradients.forward), dy_(gradients.dy), sum_(sum) {
    cols_ = sum.shape.size() < 2 ? sum.size() : sum.shape.back();
    if (norm_.statistics == Statistics::moments)
      elements_ = static_cast<double>(norm_.rows / norm_.groups * norm_.cols);
  }

  std::int64_t rows() const override { return sum_.size() / cols_; }
  std::int64_t cols() const override { return cols_; }

  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override {
    for (std::int64_t j = 0; j < cols_; ++j) out[static_cast<std::size_t>(j)] = enclose(row, j);
  }

  Enclosure enclose(std::int64_t row, std::int64_t col) const override {
    const auto place = place_of(row * cols_ + col);
    if (!place->real) return kUndefined;
    for (mpfr_prec_t bits = kFirstBits;; bits = std::min(2 * bits, kLastBits)) {
      const auto [y, sizes] = value(*place, bits);
      if (!is_tight(y, sizes) && bits < kLastBits) continue;
      Enclosure e = enclosure_of(y);
      e.magnitude = magnitude_of(sizes);
      settle(e, [&](double m) { return compare(*place, Dyadic(m), m, 0); });
      return e;
    }
  }

  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    const auto place = place_of(row * cols_ + col);
    if (!place->real) return Comparison::undecided;
    return compare(*place, Dyadic(m_hi) + Dyadic(m_lo), m_hi, m_lo);
  }

 private:
  struct Term {
    std::size_t root = 0;
    Dyadic a, size;
  };
  struct Place {
    bool real = true;
    std::vector<Term> terms{};
  };
  struct Known {
    std::vector<Statistic> groups{};
    std::vector<std::size_t> root_of{};  ///< by group
    std::vector<const Root*> roots{};
  };
  struct Value {
    Interval y, sizes;
  };

  Value value(const Place& place, mpfr_prec_t bits) const {
    if (place.terms.empty()) return {Interval(0.0, bits), Interval(0.0, bits)};
    std::vector<Interval> terms, sizes;
    for (const Term& t : place.terms) {
      const Interval r = factor(t.root, bits);
      terms.push_back(mul(Interval(t.a, bits), r));
      sizes.push_back(mul(Interval(t.size, bits), r));
    }
    return {sum(terms, bits), sum(sizes, bits)};
  }

  Comparison compare(const Place& place, const Dyadic& m, double m_hi, double m_lo) const {
    std::vector<const Term*> left;
    for (const Term& t : place.terms)
      if (t.a.sign() != 0) left.push_back(&t);
    if (left.empty()) return comparison_of(-m.sign());
    const Dyadic md = m * Dyadic(elements_);
    if (left.size() == 1) return comparison_of(norma::compare(*known().roots[left[0]->root], left[0]->a, md));
    for (mpfr_prec_t bits = kFirstBits;; bits = std::min(2 * bits, kLastBits)) {
      const Comparison c = norma::compare(value(place, bits).y, m_hi, m_lo);
      if (c != Comparison::undecided || bits == kLastBits) return c;
      if (bits == kTieBits)
        if (const auto answer = compare_commensurable(left, md)) return *answer;
    }
  }

  /// What has one root up to rational factors, r[i] / r[base] = root(s[i] s[base]) / (s[i].below s[base].above) with
  /// s = above / below = r^2, is put together. If no two are left, the answer is exact. Roots of rationals none of
  /// whose products is a square are linearly independent (Besicovitch, 1940): with two left there is no tie, and more
  /// bits tell.
  std::optional<Comparison> compare_commensurable(const std::vector<const Term*>& terms, const Dyadic& md) const {
    struct Class {
      const Root* root;
      Square square;
      Dyadic top, bottom{1.0};
    };
    std::vector<Class> classes;
    for (const Term* t : terms) {
      const Root& root = *known().roots[t->root];
      const std::optional<Square> own = square_of(root);
      if (!own) return std::nullopt;
      bool found = false;
      for (Class& c : classes) {
        const Square& base = c.square;
        const std::optional<Dyadic> product = root_of(own->above * own->below * (base.above * base.below));
        if (!product) continue;
        const Dyadic bottom = own->below * base.above;
        c.top = c.top * bottom + t->a * *product * c.bottom;
        c.bottom = c.bottom * bottom;
        found = true;
        break;
      }
      if (!found) classes.push_back({.root = &root, .square = *own, .top = t->a});
    }
    std::erase_if(classes, [](const Class& c) { return c.top.sign() == 0; });
    if (classes.empty()) return comparison_of(-md.sign());
    if (classes.size() > 1) return std::nullopt;
    return comparison_of(norma::compare(*classes[0].root, classes[0].top, md * classes[0].bottom));
  }

  /// Statistics of all groups, and which of them have one r.
  const Known& known() const {
    std::call_once(once_, [&] {
      known_.groups.resize(static_cast<std::size_t>(norm_.groups));
      share_out(norm_.groups, 1, 0, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t g = first; g < last; ++g) known_.groups[static_cast<std::size_t>(g)] = statistic(norm_, g);
      });
      const auto less = [](const Dyadic* a, const Dyadic* b) { return order(*a, *b) < 0; };
      std::map<const Dyadic*, std::size_t, decltype(less)> seen(less);
      for (const Statistic& s : known_.groups) {
        if (!s.real) {
          known_.root_of.push_back(0);
          continue;
        }
        const auto [at, is_new] = seen.emplace(&s.root.total, known_.roots.size());
        if (is_new) known_.roots.push_back(&s.root);
        known_.root_of.push_back(at->second);
      }
    });
    return known_;
  }

  /// r / D.
  Interval factor(std::size_t root, mpfr_prec_t bits) const {
    const std::pair key(root, bits);
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = factors_.find(key); found != factors_.end()) return found->second;
    }
    const Interval r = div(norma::enclose(*known().roots[root], bits), Interval(elements_, bits));
    const std::lock_guard lock(mutex_);
    return factors_.emplace(key, r).first->second;
  }

  std::shared_ptr<const Place> place_of(std::int64_t at) const {
    {
      const std::lock_guard lock(mutex_);
      if (const auto& slot = slots_[static_cast<std::size_t>(at) % slots_.size()]; slot.first == at) return slot.second;
    }
    auto made = std::make_shared<const Place>(read(at));
    const std::lock_guard lock(mutex_);
    slots_[static_cast<std::size_t>(at) % slots_.size()] = {at, made};
    return made;
  }

  Place read(std::int64_t at) const {
    const Known& k = known();
    Place place;
    const auto each = [&](const auto& visit) {
      for_each_run(sum_.index, norm_.rows, norm_.cols, at, at + 1,
                   [&](std::int64_t row, std::int64_t a, std::int64_t b) {
                     for (std::int64_t col = a; col < b && place.real; ++col) visit(row, col);
                   });
    };
    each([&](std::int64_t row, std::int64_t col) {
      place.real = k.groups[static_cast<std::size_t>(row % norm_.groups)].real &&
                   std::isfinite(dy_->value(row * norm_.cols + col)) && is_finite(parameter(sum_.factor, row, col)) &&
                   std::isfinite(norm_.x->value(row * norm_.cols + col));
    });
    std::map<std::size_t, Term> terms;
    each([&](std::int64_t row, std::int64_t col) {
      const auto group = static_cast<std::size_t>(row % norm_.groups);
      const Statistic& s = k.groups[group];
      const std::int64_t i = row * norm_.cols + col;
      Dyadic a = Dyadic(s.elements) * Dyadic(norm_.x->value(i));
      if (norm_.statistics != Statistics::squares) a = a - s.centre;
      a = a * Dyadic(dy_->value(i));
      if (sum_.factor.tensor != nullptr) a = a * parameter(sum_.factor, row, col).exact();
      Term& t = terms[k.root_of[group]];
      t.root = k.root_of[group];
      t.a = t.a + a;
      t.size = t.size + abs(a);
    });
    for (auto& [root, term] : terms)
      if (term.size.sign() != 0) place.terms.push_back(std::move(term));
    return place;
  }

  RowNorm norm_;
  const Tensor* dy_;
  GradientSum sum_;
  std::int64_t cols_ = 1;
  double elements_ = 1;  ///< D
  mutable std::once_flag once_;
  mutable Known known_;
  mutable std::mutex mutex_;
  mutable std::map<std::pair<std::size_t, mpfr_prec_t>, Interval> factors_;
  mutable std::array<std::pair<std::int64_t, std::shared_ptr<const Place>>, 16> slots_ = [] {
    std::array<std::pair<std::int64_t, std::shared_ptr<const Place>>, 16> none;
    none.fill({-1, nullptr});
    return none;
  }();
};

}  // namespace

std::unique_ptr<TruthSource> exact_dx(const Gradients& gradients) {
  if (gradients.forward.statistics != Statistics::given) return std::make_unique<ExactDx>(gradients);
  RowNorm scaled = gradients.forward;
  scaled.x = gradients.dy;
  scaled.mean = nullptr;
  return affine_truth(scaled);
}

std::unique_ptr<TruthSource> exact_normalized_sum(const Gradients& gradients, const GradientSum& sum) {
  return std::make_unique<ExactNormalizedSum>(gradients, sum);
}

}  // namespace norma

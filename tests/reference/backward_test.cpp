// Gradients of norms against the Jacobian of their forward, written down in exact rationals index by index.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "reference/norms/backward/channel_norms.hpp"
#include "reference/norms/backward/modulation.hpp"
#include "reference/norms/backward/row_norms.hpp"
#include "tests/reference/element_check.hpp"

namespace norma::test {
namespace {

constexpr FormatId kTested[] = {FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::fp32};
constexpr FormatId kRounded[] = {FormatId::bf16, FormatId::fp32};

struct Setup {
  const NormDef* norm = nullptr;
  Tensors inputs{};
  Attributes numbers{};
  std::map<std::string, std::string, std::less<>> words{};

  NormCall call() const { return {.inputs = &inputs, .numbers = numbers, .words = words}; }
  std::unique_ptr<TruthSource> truth(std::string_view output, TruthKind kind = TruthKind::mpfr) const {
    norm->check(call());
    return truth_of(*norm, call(), output, kind);
  }
  bool has(const char* name) const { return inputs.contains(name); }
  const Tensor& x() const { return inputs.at("x"); }
  double number(const char* name, double fallback) const {
    return numbers.contains(name) ? numbers.at(name) : fallback;
  }
  std::string word(const char* name, const char* fallback) const {
    return words.contains(name) ? words.at(name) : fallback;
  }
  Rational at(const char* name, std::int64_t i) const { return rational(inputs.at(name).value(i)); }
};

// ---- the forward, and its Jacobian ----

using Index = std::function<std::int64_t(std::int64_t)>;

/// y[i] = factor[i] (x[i] - centre) r of its group.
struct Forward {
  std::vector<std::int64_t> group{};
  std::vector<Rational> factor{};
  std::map<std::int64_t, Rational> centre{}, elements{};
  std::map<std::int64_t, RationalRoot> root{};
  bool centred = false, given = false;
};

/// Of the vector parameters of rows: one for each column, or for each sample and column.
std::int64_t at_vector(const Setup& s, const char* name, std::int64_t i) {
  const std::int64_t cols = s.x().cols(), per_sample = s.x().size() / s.x().shape.front();
  return s.inputs.at(name).size() == cols ? i % cols : i / per_sample * cols + i % cols;
}

Forward forward_of(const Setup& s) {
  const std::string name(s.norm->name);
  const Shape& shape = s.x().shape;
  const std::int64_t size = s.x().size(), cols = s.x().cols();
  Forward f{.centred = name != "rmsnorm_backward" && name != "l2norm_backward" && name != "ada_rmsnorm_backward",
            .given = s.word("statistics", "batch") == "running"};
  const bool channels = name == "groupnorm_backward" || name == "instancenorm_backward" || name == "batchnorm_backward";
  const std::int64_t positions = channels ? size / (shape[0] * shape[1]) : 1;
  const std::int64_t each =
      name == "groupnorm_backward" ? shape[1] / static_cast<std::int64_t>(s.number("groups", 32)) : 1;
  const auto channel = [&](std::int64_t i) { return i / positions % shape[1]; };
  std::string place = s.word("eps_place", name == "l2norm_backward" ? "max" : "inside");
  for (std::int64_t i = 0; i < size; ++i) {
    f.group.push_back(!channels                                 ? i / cols
                      : name == "batchnorm_backward" || f.given ? channel(i)
                                                                : i / positions / each);
    Rational w = 1;
    if (s.has("weight"))
      w = channels ? s.at("weight", channel(i))
                   : Rational(rational(s.number("weight_offset", 0)) + s.at("weight", at_vector(s, "weight", i)));
    if (s.has("scale")) w *= rational(s.number("scale_offset", 1)) + s.at("scale", at_vector(s, "scale", i));
    f.factor.push_back(w);
    f.elements[f.group.back()] += 1;
  }
  const Rational eps = rational(s.number("eps", 0));
  if (f.given) {
    for (std::int64_t c = 0; c < shape[1]; ++c) {
      f.centre[c] = s.at("running_mean", c);
      f.root[c] = {.total = s.at("running_var", c) + eps, .count = 1, .eps = 0, .place = "none"};
    }
    return f;
  }
  for (std::int64_t i = 0; i < size; ++i)
    if (const std::int64_t g = f.group[static_cast<std::size_t>(i)]; f.centred)
      f.centre[g] += s.at("x", i) / f.elements[g];
    else
      f.centre[g] = 0;
  for (const auto& [g, n] : f.elements)
    f.root[g] = {.total = 0,
                 .count = name == "l2norm_backward" ? Rational(1) : Rational(n - rational(s.number("correction", 0))),
                 .eps = eps,
                 .place = place};
  for (std::int64_t i = 0; i < size; ++i) {
    const std::int64_t g = f.group[static_cast<std::size_t>(i)];
    const Rational d = s.at("x", i) - f.centre[g];
    f.root[g].total += d * d;
  }
  return f;
}

/// dx[j] = a r + b r', where r' is -dr/dS * 2 (so that dr/dx[j] = -(x[j] - centre) r').
struct Gradient {
  Rational a, b;
};

Gradient gradient_at(const Setup& s, const Forward& f, std::int64_t j) {
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  const std::int64_t g = f.group[at(j)];
  Gradient result{.a = 0, .b = 0};
  for (std::int64_t i = 0; i < s.x().size(); ++i) {
    if (f.group[at(i)] != g) continue;
    // dy[i] dy[i]/dx[j], y[i] = factor (x[i] - centre) r
    const Rational own = s.at("dy", i) * f.factor[at(i)];
    Rational inner = i == j ? 1 : 0;
    if (f.centred && !f.given) inner -= 1 / f.elements.at(g);
    result.a += own * inner;
    if (!f.given) result.b -= own * (s.at("x", i) - f.centre.at(g)) * (s.at("x", j) - f.centre.at(g));
  }
  return result;
}

/// The sign of dx - m.
int sign_of_gradient(const RationalRoot& r, const Gradient& g, const Rational& m) {
  const Rational q = r.total / r.count;
  const auto varying = [&](const Rational& square) {  // r' = r square
    return linear(r, g.a + g.b * square, m);
  };
  if (r.place == "inside") return varying(1 / (r.total + r.count * r.eps));
  if (r.place == "sum") return varying(1 / (r.total + r.eps));
  if (r.place == "none") return varying(1 / r.total);
  if (r.place == "max") return varying(q < r.eps * r.eps ? Rational(0) : Rational(1 / r.total));
  if (r.place == "l2max") return varying(r.total < r.eps * r.eps ? Rational(0) : Rational(1 / r.total));
  REQUIRE(r.place == "outside");
  if (r.total == 0) return varying(0);
  // t = sqrt(q), r = 1 / (t + eps), r' = r^2 / (count t); times t (t + eps)^2 > 0: constant + slope t.
  const Rational constant = g.a * q + g.b / r.count - 2 * m * r.eps * q;
  const Rational slope = g.a * r.eps - m * q - m * r.eps * r.eps;
  const int c = sign_of(constant), k = sign_of(slope);
  if (c * k >= 0) return sign_of(Rational(c + k));
  return c * sign_of(constant * constant - slope * slope * q);
}

// ---- sums ----

/// sqrt(v) from below, within 2^-bits of 1 (of the root, if that is larger).
Rational root_below(const Rational& v, int bits) {
  const Rational scaled = v * power_of_two(2 * bits);
  const cpp_int whole = numerator(scaled) / denominator(scaled);
  return Rational(sqrt(whole)) / power_of_two(bits);
}

/// The sum of a r over roots; the sign of the sum less m. Roots of equal value have been put together.
struct RootSum {
  std::vector<std::pair<RationalRoot, Rational>> terms{};
  mutable std::map<int, std::pair<Rational, Rational>> bounds{};  ///< by bits

  int against(const Rational& m) const {
    std::vector<std::pair<RationalRoot, Rational>> left;
    for (const auto& t : terms)
      if (t.second != 0) left.push_back(t);
    if (left.empty()) return sign_of(Rational(-m));
    if (left.size() == 1) return linear(left[0].first, left[0].second, m);
    for (int bits = 256; bits <= 2048; bits *= 2) {
      if (!bounds.contains(bits)) bounds[bits] = bounds_of(left, bits);
      if (bounds[bits].first > m) return 1;
      if (bounds[bits].second < m) return -1;
    }
    return 0;
  }

  static std::pair<Rational, Rational> bounds_of(const std::vector<std::pair<RationalRoot, Rational>>& left, int bits) {
    std::pair<Rational, Rational> sum{0, 0};
    const auto down = [&](const Rational& v) {  // to a multiple of 2^-bits
      const Rational scaled = v * power_of_two(bits);
      cpp_int whole = numerator(scaled) / denominator(scaled);
      if (Rational(whole) > scaled) --whole;
      return Rational(Rational(whole) * power_of_two(-bits));
    };
    for (const auto& [r, a] : left) {
      // r = 1 / d with d in [below, below + 2^-bits]
      const Rational q = r.total / r.count;
      Rational below;
      if (r.place == "inside") below = root_below(q + r.eps, bits);
      if (r.place == "sum") below = root_below(r.total + r.eps, bits);
      if (r.place == "none") below = root_below(q, bits);
      if (r.place == "outside") below = root_below(q, bits) + r.eps;
      if (r.place == "max") below = std::max(root_below(q, bits), r.eps);
      if (r.place == "l2max") below = root_below(std::max(r.total, Rational(r.eps * r.eps)) / r.count, bits);
      const Rational above = below + power_of_two(-bits);
      sum.first += down(a / (a > 0 ? above : below));
      sum.second -= down(-a / (a > 0 ? below : above));
    }
    return sum;
  }
};

/// Where an element's term of an output goes, and its factor beside dy and xhat.
struct Sum {
  Index place;
  std::function<Rational(std::int64_t)> factor;
  bool normalized = true;
};

Sum sum_of(const Setup& s, const std::string& output) {
  const Shape& shape = s.x().shape;
  const bool channels =
      s.norm == &groupnorm_backward || s.norm == &instancenorm_backward || s.norm == &batchnorm_backward;
  const auto one = [](std::int64_t) { return Rational(1); };
  if (channels) {
    const std::int64_t positions = s.x().size() / (shape[0] * shape[1]);
    return {[=, c = shape[1]](std::int64_t i) { return i / positions % c; }, one, output == "dweight"};
  }
  const auto scale = [&s](std::int64_t i) {
    return Rational(rational(s.number("scale_offset", 1)) + s.at("scale", at_vector(s, "scale", i)));
  };
  const auto weight = [&s](std::int64_t i) {
    return s.has("weight")
               ? Rational(rational(s.number("weight_offset", 0)) + s.at("weight", at_vector(s, "weight", i)))
               : Rational(1);
  };
  const bool ada = s.has("scale");
  const auto vector = [&s](const char* name) -> Index {
    if (!s.has(name)) return [cols = s.x().cols()](std::int64_t i) { return i % cols; };
    return [&s, name](std::int64_t i) { return at_vector(s, name, i); };
  };
  if (output == "dscale") return {vector("scale"), weight, true};
  if (output == "dshift") return {vector("scale"), one, false};
  if (output == "dweight" && ada) return {vector("weight"), scale, true};
  return {vector("weight"), one, output == "dweight"};
}

// ---- all outputs of a call ----

Counts check_outputs(const Setup& s, std::span<const FormatId> formats, TruthKind kind) {
  Counts counts;
  const Forward f = forward_of(s);
  const bool narrow = kind == TruthKind::mpfr;
  for (const NormOutput& output : s.norm->outputs_of(s.call())) {
    const std::string name(output.name);
    CAPTURE(s.norm->name, name, kTruthKinds[static_cast<std::size_t>(kind)]);
    const auto truth = s.truth(name, kind);
    REQUIRE(truth->rows() * truth->cols() == element_count(output.shape));
    const auto check = [&](std::int64_t at, bool defined, const SignOfDifference& sign) {
      CAPTURE(at);
      const std::int64_t row = at / truth->cols(), col = at % truth->cols();
      std::vector<Enclosure> all(static_cast<std::size_t>(truth->cols()));
      truth->enclose_row(row, all);
      const Enclosure e = all[static_cast<std::size_t>(col)], alone = truth->enclose(row, col);
      REQUIRE(std::isnan(e.hi) == !defined);
      REQUIRE(std::isnan(alone.hi) == !defined);
      if (!defined) return;
      REQUIRE((e.hi == alone.hi && e.lo == alone.lo && e.radius == alone.radius && e.magnitude == alone.magnitude));
      check_element(sign, *truth, row, col, e, formats, counts, narrow);
    };
    if (name == "dx") {
      for (std::int64_t j = 0; j < s.x().size(); ++j) {
        const RationalRoot& root = f.root.at(f.group[static_cast<std::size_t>(j)]);
        const Gradient g = gradient_at(s, f, j);
        check(j, !root.undefined(), [&](const Rational& m) { return sign_of_gradient(root, g, m); });
      }
      continue;
    }
    const Sum sum = sum_of(s, name);
    for (std::int64_t at = 0; at < element_count(output.shape); ++at) {
      std::map<std::pair<Rational, Rational>, std::pair<RationalRoot, Rational>> by_root;
      Rational plain = 0;
      bool defined = true;
      for (std::int64_t i = 0; i < s.x().size(); ++i) {
        if (sum.place(i) != at) continue;
        const std::int64_t g = f.group[static_cast<std::size_t>(i)];
        const Rational term = s.at("dy", i) * sum.factor(i);
        plain += term;
        const RationalRoot& root = f.root.at(g);
        if (root.undefined()) defined = false;
        auto& entry = by_root[{root.total, root.count}];
        entry.first = root;
        entry.second += term * (s.at("x", i) - f.centre.at(g));
      }
      if (!sum.normalized) {
        check(at, true, [&](const Rational& m) { return sign_of(Rational(plain - m)); });
        continue;
      }
      RootSum total;
      for (const auto& [key, term] : by_root) total.terms.push_back(term);
      check(at, defined, [&](const Rational& m) { return total.against(m); });
    }
  }
  return counts;
}

double random_eps(Random& random) {
  const double all[] = {0, 1e-6, 1e-5, 0x1p-4, 1, 1e-12};
  return all[random.below(6)];
}

void add(Setup& s, const char* name, Random& random, Shape shape, int least, int most) {
  s.inputs[name] = random_tensor(kTested[random.below(4)], std::move(shape), random, least, most);
}

TEST_CASE("gradients of norms of rows are the Jacobian's, in rationals") {
  const NormDef* norm = GENERATE(&rmsnorm_backward, &layernorm_backward, &l2norm_backward, &ada_layernorm_backward,
                                 &ada_rmsnorm_backward);
  Random random{31};
  int elements = 0;
  for (int repeat = 0; repeat < 10; ++repeat) {
    CAPTURE(repeat);
    const Shape shape = std::vector<Shape>{{3, 4}, {2, 2, 3}, {5}, {4, 1}, {2, 2}}[random.below(5)];
    Setup s{.norm = norm};
    const int spread = random.between(1, 20);
    add(s, "x", random, shape, -spread, spread / 2);
    add(s, "dy", random, shape, -spread, spread);
    if (random.below(3) == 0)  // a row of equal numbers
      for (std::int64_t j = 0; j < s.x().cols(); ++j) s.inputs["x"].set_code(j, s.x().code(0));
    const bool samples = shape.size() > 1 && random.below(2) == 0;
    const Shape vector =
        samples && norm != &rmsnorm_backward ? Shape{shape.front(), shape.back()} : Shape{shape.back()};
    const bool ada = norm == &ada_layernorm_backward || norm == &ada_rmsnorm_backward;
    if (norm != &l2norm_backward && random.below(4) != 0)
      add(s, "weight", random, ada ? Shape{shape.back()} : vector, -4, 2);
    if (ada) add(s, "scale", random, vector, -4, 2);
    for (const NormAttribute& a : norm->attributes) {
      const std::string name(a.name);
      if (name == "eps") s.numbers[name] = random_eps(random);
      if (name.ends_with("_offset")) s.numbers[name] = static_cast<double>(random.below(2));
      if (name == "correction" && shape.back() > 1) s.numbers[name] = static_cast<double>(random.below(2));
      if (name == "eps_place") {
        std::vector<std::string> places;
        std::string_view left = a.choices;
        for (auto bar = left.find('|'); bar != std::string_view::npos; bar = left.find('|'))
          places.emplace_back(left.substr(0, bar)), left.remove_prefix(bar + 1);
        places.emplace_back(left);
        s.words[name] = places[random.below(places.size())];
      }
    }
    CAPTURE(s.number("eps", 0), s.word("eps_place", ""), shape_text(shape));
    for (const TruthKind kind : {TruthKind::mpfr, TruthKind::fast})
      elements += check_outputs(s, kRounded, kind).elements;
  }
  REQUIRE(elements > 100);
}

TEST_CASE("gradients of norms of channels are the Jacobian's, in rationals") {
  const NormDef* norm = GENERATE(&groupnorm_backward, &instancenorm_backward, &batchnorm_backward);
  Random random{32};
  int elements = 0;
  for (int repeat = 0; repeat < 6; ++repeat) {
    CAPTURE(repeat);
    const Shape shape = std::vector<Shape>{{2, 2, 3}, {1, 4, 2}, {3, 2}, {2, 2, 1, 2}}[random.below(4)];
    Setup s{.norm = norm};
    add(s, "x", random, shape, -8, 3);
    add(s, "dy", random, shape, -8, 8);
    if (random.below(2) == 0) add(s, "weight", random, {shape[1]}, -4, 2);
    s.numbers["eps"] = random_eps(random);
    if (norm == &groupnorm_backward) {
      s.numbers["groups"] = static_cast<double>(std::int64_t{1} << random.below(2));
    } else if (random.below(3) == 0) {
      add(s, "running_mean", random, {shape[1]}, -4, 2);
      add(s, "running_var", random, {shape[1]}, -4, 2);
      Tensor& variance = s.inputs["running_var"];
      const std::uint64_t sign = format_of(variance.format).sign_code();
      for (std::int64_t c = 0; c < shape[1]; ++c) variance.set_code(c, (variance.code(c) & ~sign) | 1);
      s.words["statistics"] = "running";
    }
    for (const TruthKind kind : {TruthKind::mpfr, TruthKind::fast})
      elements += check_outputs(s, kRounded, kind).elements;
  }
  REQUIRE(elements > 100);
}

TEST_CASE("gradients of modulation and gates are sums of products, exactly") {
  Random random{33};
  Counts counts;
  for (int repeat = 0; repeat < 12; ++repeat) {
    const bool gated = repeat % 2 == 1;
    Setup s{.norm = gated ? &gated_residual_backward : &modulate_backward};
    const char* name = gated ? "gate" : "scale";
    const Shape shape = std::vector<Shape>{{2, 3, 2}, {3, 2}, {2, 2, 2, 2}}[random.below(3)];
    const int spread = random.between(1, 12);
    add(s, "x", random, shape, -spread, spread);
    add(s, "dy", random, shape, -spread, spread);
    const std::uint64_t form = random.below(4);
    Shape broadcast(shape.size(), 1);
    broadcast.front() = shape.front(), broadcast.back() = shape.back();
    add(s, name, random,
        form == 0   ? Shape{shape.back()}
        : form == 1 ? Shape{shape.front(), shape.back()}
        : form == 2 ? broadcast
                    : shape,
        -4, 3);
    if (!gated && random.below(2) == 0) s.numbers["scale_offset"] = 0;
    const Rational one = gated ? Rational(0) : rational(s.number("scale_offset", 1));
    const auto place = [&](std::int64_t i) { return form == 3 ? i : at_vector(s, name, i); };
    for (const TruthKind kind : {TruthKind::mpfr, TruthKind::fast})
      for (const NormOutput& output : s.norm->outputs_of(s.call())) {
        const auto truth = s.truth(output.name, kind);
        CAPTURE(repeat, s.norm->name, output.name, form);
        REQUIRE(truth->rows() * truth->cols() == element_count(output.shape));
        const bool like_x = output.name == "dx" || output.name == "dresidual";
        REQUIRE(output.shape == (like_x ? shape : s.inputs.at(name).shape));
        for (std::int64_t at = 0; at < element_count(output.shape); ++at) {
          Rational y = 0;
          for (std::int64_t i = 0; i < s.x().size(); ++i) {
            if ((like_x ? i : place(i)) != at) continue;
            const Rational factor = output.name == "dx" ? Rational(one + s.at(name, place(i)))
                                    : output.name == "dscale" || output.name == "dgate" ? s.at("x", i)
                                                                                        : Rational(1);
            y += s.at("dy", i) * factor;
          }
          const std::int64_t row = at / truth->cols(), col = at % truth->cols();
          const Enclosure e = truth->enclose(row, col);
          check_element([&](const Rational& m) { return sign_of(Rational(y - m)); }, *truth, row, col, e, kRounded,
                        counts, kind == TruthKind::mpfr);
        }
      }
  }
  REQUIRE(counts.elements > 100);
  REQUIRE(counts.ties > 0);
}

TEST_CASE("gradients of fp64 tensors are made by MPFR") {
  Random random{36};
  for (const NormDef* norm : {&rmsnorm_backward, &layernorm_backward, &batchnorm_backward, &modulate_backward}) {
    Setup s{.norm = norm};
    for (const char* name : {"x", "dy"}) s.inputs[name] = random_tensor(FormatId::fp64, {2, 3}, random, -40, 40);
    if (norm != &modulate_backward) s.numbers["eps"] = 1e-6;
    s.inputs[norm == &modulate_backward ? "scale" : "weight"] = random_tensor(FormatId::fp64, {3}, random, -3, 3);
    if (norm == &modulate_backward) {
      const Rational sum = s.at("dy", 0) * s.at("x", 0) + s.at("dy", 3) * s.at("x", 3);
      const auto truth = s.truth("dscale", TruthKind::fast);
      Counts counts;
      check_element([&](const Rational& m) { return sign_of(Rational(sum - m)); }, *truth, 0, 0, truth->enclose(0, 0),
                    kRounded, counts);
    } else {
      REQUIRE(check_outputs(s, kRounded, TruthKind::fast).elements > 10);
    }
  }
}

}  // namespace
}  // namespace norma::test

// Every canonical norm against exact rationals, written down once more from its formula, index by index.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "harness/inputs/safetensors.hpp"
#include "reference/certified/rows/three_terms.hpp"
#include "reference/norms/norm.hpp"
#include "tests/reference/element_check.hpp"

namespace norma::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

constexpr FormatId kTested[] = {FormatId::bf16, FormatId::fp16, FormatId::e4m3fn, FormatId::fp32};

struct Setup {
  std::string norm;
  Tensors inputs{};
  Attributes numbers{};
  std::map<std::string, std::string, std::less<>> words{};

  const NormDef& def() const { return *find_norm(norm); }
  NormCall call() const { return {.inputs = &inputs, .numbers = numbers, .words = words}; }
  std::unique_ptr<TruthSource> truth(std::string_view output = "y", TruthKind kind = TruthKind::mpfr) const {
    def().check(call());
    return truth_of(def(), call(), output, kind);
  }
  double number(const char* name, double fallback) const {
    return numbers.contains(name) ? numbers.at(name) : fallback;
  }
  std::string word(const char* name, const char* fallback) const {
    return words.contains(name) ? words.at(name) : fallback;
  }
  Rational at(const char* tensor, std::int64_t i, const Rational& absent) const {
    const auto found = inputs.find(tensor);
    return found == inputs.end() ? absent : rational(found->second.value(i));
  }
};

// ---- the formulas, once more ----

/// y = a r + b for every element, r by its group.
struct Formula {
  std::vector<Rational> a, b;
  std::vector<std::int64_t> group;
  std::map<std::int64_t, RationalRoot> roots;
};

using Index = std::function<std::int64_t(std::int64_t)>;

/// Where the value of a channel, of a sample and channel, or of an element stands, for x [N, C, ...].
std::int64_t at_channel(const Setup& s, const char* name, std::int64_t i) {
  const Shape& shape = s.inputs.at("x").shape;
  const std::int64_t positions = s.inputs.at("x").size() / (shape[0] * shape[1]);
  const auto found = s.inputs.find(name);
  const std::int64_t size = found == s.inputs.end() ? shape[1] : found->second.size();
  return size == shape[1] ? i / positions % shape[1] : size == shape[0] * shape[1] ? i / positions : i;
}

/// y = weight (h - mean) / sqrt(var + eps) + bias, over the elements of equal `group`; the mean is 0 where it is not
/// `centred`.
Formula moments(const Setup& s, const Index& group, const Index& parameter, double eps, const std::string& place,
                double correction = 0, bool centred = true) {
  Formula f;
  std::map<std::int64_t, Rational> sums, counts;
  const std::int64_t size = s.inputs.at("x").size();
  const auto h = [&](std::int64_t i) -> Rational {
    const Rational gate = s.inputs.contains("gate")
                              ? Rational(s.at("gate", parameter(i), 0) + s.at("gate_table", parameter(i), 0))
                              : Rational(1);
    const Rational added = s.inputs.contains("embedding") ? s.at("embedding", at_channel(s, "embedding", i), 0) : 0;
    return gate * s.at("x", i, 0) + s.at("residual", i, 0) + added;
  };
  for (std::int64_t i = 0; i < size; ++i) {
    f.group.push_back(group(i));
    if (centred) sums[group(i)] += h(i);
    counts[group(i)] += 1;
  }
  for (const auto& [g, count] : counts)
    f.roots[g] = {.total = 0, .count = count - rational(correction), .eps = rational(eps), .place = place};
  const Rational offset = rational(s.number("weight_offset", 0));
  for (std::int64_t i = 0; i < size; ++i) {
    const Rational d = h(i) - sums[group(i)] / counts[group(i)];
    f.roots[group(i)].total += d * d;
    const Rational w = s.inputs.contains("weight") ? Rational(offset + s.at("weight", parameter(i), 1)) : Rational(1);
    f.a.push_back(w * d);
    f.b.push_back(s.at("bias", parameter(i), 0));
  }
  return f;
}

/// scale_offset + scale + scale_table.
Rational modulation(const Setup& s, std::int64_t scale, std::int64_t table) {
  if (!s.inputs.contains("scale")) return 1;
  return rational(s.number("scale_offset", 1)) + s.at("scale", scale, 0) + s.at("scale_table", table, 0);
}

/// (scale_offset + scale + scale_table) y + shift + shift_table, of vectors [cols].
Formula modulated(const Setup& s, Formula f, const Index& parameter) {
  for (std::size_t i = 0; i < f.a.size(); ++i) {
    const std::int64_t j = parameter(static_cast<std::int64_t>(i));
    const Rational scale = modulation(s, j, j);
    f.a[i] *= scale;
    f.b[i] = scale * f.b[i] + s.at("shift", j, 0) + s.at("shift_table", j, 0);
  }
  return f;
}

/// (scale_offset + scale) y + shift, of channels, of samples and channels, or of elements.
Formula modulated_channels(const Setup& s, Formula f) {
  for (std::size_t k = 0; k < f.a.size(); ++k) {
    const auto i = static_cast<std::int64_t>(k);
    const Rational scale = modulation(s, at_channel(s, "scale", i), 0);
    f.a[k] *= scale;
    f.b[k] = scale * f.b[k] + s.at("shift", at_channel(s, "shift", i), 0);
  }
  return f;
}

/// y = weight (x - running_mean) / sqrt(running_var + eps) + bias.
Formula running(const Setup& s, const Index& channel) {
  Formula f;
  for (std::int64_t i = 0; i < s.inputs.at("x").size(); ++i) {
    const std::int64_t c = channel(i);
    f.group.push_back(c);
    f.roots[c] = {
        .total = s.at("running_var", c, 0) + rational(s.number("eps", 1e-5)), .count = 1, .eps = 0, .place = "none"};
    f.a.push_back(s.at("weight", c, 1) * (s.at("x", i, 0) - s.at("running_mean", c, 0)));
    f.b.push_back(s.at("bias", c, 0));
  }
  return f;
}

/// y itself, with r = 1.
Formula plain(const Setup& s, const std::function<Rational(std::int64_t)>& y) {
  Formula f;
  f.roots[0] = {.total = 1, .count = 1, .eps = 0, .place = "none"};
  for (std::int64_t i = 0; i < s.inputs.at("x").size(); ++i) {
    f.a.push_back(y(i));
    f.b.push_back(0);
    f.group.push_back(0);
  }
  return f;
}

/// y = weight x |x| / (mean of |x| + eps) + bias + x: a length is a size where samples have one position.
Formula responses(const Setup& s) {
  const std::int64_t cols = s.inputs.at("x").cols();
  REQUIRE(s.inputs.at("x").shape.front() == s.inputs.at("x").rows());
  return plain(s, [&](std::int64_t i) -> Rational {
    Rational total = 0;
    for (std::int64_t j = i / cols * cols; j < (i / cols + 1) * cols; ++j) total += abs(s.at("x", j, 0));
    const Rational x = s.at("x", i, 0), weighted = s.at("weight", i % cols, 0) * x * abs(x);
    return weighted / (total / cols + rational(s.number("eps", 1e-6))) + s.at("bias", i % cols, 0) + x;
  });
}

/// y = x / max(|x|_p, eps) for p = 1 and infinity.
Formula rational_lp(const Setup& s) {
  const std::int64_t cols = s.inputs.at("x").cols();
  return plain(s, [&](std::int64_t i) -> Rational {
    Rational total = 0, largest = 0;
    for (std::int64_t j = i / cols * cols; j < (i / cols + 1) * cols; ++j) {
      total += abs(s.at("x", j, 0));
      largest = std::max<Rational>(largest, abs(s.at("x", j, 0)));
    }
    const Rational length = s.word("p", "2") == "1" ? total : largest;
    return s.at("x", i, 0) / std::max<Rational>(length, rational(s.number("eps", 1e-12)));
  });
}

/// RMSNorm under a gate of zeros, whose sigmoid is a half.
Formula half_open(const Setup& s, const Index& row, const Index& parameter) {
  REQUIRE((s.word("activation", "silu") == "sigmoid" && s.word("gate_place", "after") == "after"));
  for (std::int64_t i = 0; i < s.inputs.at("gate").size(); ++i) REQUIRE(s.at("gate", i, 1) == 0);
  Setup open = s;
  open.inputs.erase("gate");
  Formula f = moments(open, row, parameter, s.number("eps", 1e-6), "inside", 0, false);
  for (Rational& a : f.a) a /= 2;
  return f;
}

Formula formula_of(const Setup& s) {
  const Tensor& x = s.inputs.at("x");
  const Shape& shape = x.shape;
  const std::int64_t cols = x.cols();
  const std::int64_t spatial = shape.size() < 2 ? 1 : x.size() / (shape[0] * shape[1]);
  const Index row = [=](std::int64_t i) { return i / cols; };
  const Index channel = [=](std::int64_t i) { return i / spatial % shape[1]; };
  const auto sample = [=](std::int64_t i) { return i / (x.size() / shape[0]); };
  /// A vector's index for [cols], [samples, cols] or x's own shape.
  const auto along = [&s, cols, sample](const char* name) {
    const auto found = s.inputs.find(name);
    const std::int64_t size = found == s.inputs.end() ? 0 : found->second.size();
    const std::int64_t all = s.inputs.at("x").size();
    return [=](std::int64_t i) {
      return size == all && size != cols ? i : size == cols ? i % cols : sample(i) * cols + i % cols;
    };
  };
  const double eps = s.number("eps", 1e-5);
  if (s.norm == "layernorm")
    return moments(s, row, along("weight"), eps, s.word("eps_place", "inside"), s.number("correction", 0));
  if (s.norm == "groupnorm" || s.norm == "ada_groupnorm") {
    const auto groups = static_cast<std::int64_t>(s.number("groups", 32));
    const Index group = [=](std::int64_t i) { return sample(i) * groups + channel(i) / (shape[1] / groups); };
    return modulated_channels(s, moments(s, group, channel, eps, "inside"));
  }
  if (s.norm == "instancenorm" || s.norm == "batchnorm") {
    if (s.word("statistics", "batch") == "running") return running(s, channel);
    if (s.norm == "batchnorm") return moments(s, channel, channel, eps, "inside");
    return moments(
        s, [=](std::int64_t i) { return sample(i) * shape[1] + channel(i); }, channel, eps, "inside");
  }
  if (s.norm == "rmsnorm")
    return moments(s, row, along("weight"), s.number("eps", 1e-6), s.word("eps_place", "inside"), 0, false);
  if (s.norm == "ada_layernorm" || s.norm == "ada_rmsnorm") {
    const Index column = [=](std::int64_t i) { return i % cols; };
    return modulated(s, moments(s, row, column, s.number("eps", 1e-6), "inside", 0, s.norm == "ada_layernorm"), column);
  }
  if (s.norm == "rmsnorm_gated") return half_open(s, row, along("weight"));
  if (s.norm == "grn") return responses(s);
  if (s.norm == "lp_norm" && s.word("p", "2") != "2") return rational_lp(s);
  if (s.norm == "l2norm" || s.norm == "lp_norm") {
    Formula f;
    for (std::int64_t i = 0; i < x.size(); ++i) {
      auto& root = f.roots
                       .try_emplace(row(i), RationalRoot{.total = 0,
                                                         .count = 1,
                                                         .eps = rational(s.number("eps", 1e-12)),
                                                         .place = s.word("eps_place", "max")})
                       .first->second;
      root.total += rational(x.value(i)) * rational(x.value(i));
      f.a.push_back(rational(x.value(i)));
      f.b.push_back(0);
      f.group.push_back(row(i));
    }
    return f;
  }
  if (s.norm == "modulate")
    return plain(s, [&, scale = along("scale"), shift = along("shift")](std::int64_t i) -> Rational {
      return s.at("x", i, 0) * modulation(s, scale(i), i % cols) + s.at("shift", shift(i), 0) +
             s.at("shift_table", i % cols, 0);
    });
  REQUIRE(s.norm == "gated_residual");
  return plain(s, [&, gate = along("gate")](std::int64_t i) -> Rational {
    return s.at("x", i, 0) + (s.at("gate", gate(i), 0) + s.at("gate_table", i % cols, 0)) * s.at("f", i, 0);
  });
}

// ---- truth against formula ----

/// All elements of small tensors; of larger ones every 7th or so.
Counts check_norm(const Setup& s, std::span<const FormatId> formats, TruthKind kind = TruthKind::mpfr) {
  const Formula f = formula_of(s);
  const auto truth = s.truth("y", kind);
  REQUIRE(truth->rows() * truth->cols() == s.inputs.at("x").size());
  Counts counts;
  std::vector<Enclosure> out(static_cast<std::size_t>(truth->cols()));
  const std::int64_t step = s.inputs.at("x").size() <= 40 ? 1 : 7;
  for (std::int64_t row = 0; row < truth->rows(); ++row) {
    truth->enclose_row(row, out);
    for (std::int64_t col = 0; col < truth->cols(); ++col) {
      const std::int64_t flat = row * truth->cols() + col;
      if (flat % step != 0) continue;
      CAPTURE(flat);
      const auto i = static_cast<std::size_t>(flat);
      const RationalRoot& root = f.roots.at(f.group[i]);
      const Enclosure& e = out[static_cast<std::size_t>(col)];
      if (root.undefined()) {
        REQUIRE(std::isnan(e.hi));
        continue;
      }
      check_element([&](const Rational& m) { return linear(root, f.a[i], m - f.b[i]); }, *truth, row, col, e, formats,
                    counts, kind == TruthKind::mpfr);
      const Enclosure one = truth->enclose(row, col);
      REQUIRE((one.hi == e.hi && one.lo == e.lo && one.radius == e.radius));
    }
  }
  return counts;
}

constexpr std::pair<int, int> kExponents[] = {{-2, 2}, {-12, 3}, {-200, -120}, {-200, 200}, {120, 200}};

double random_eps(Random& random) {
  const double all[] = {1e-5, 0.0, 0x1p-20, 1.0, 1e-30};
  return all[random.below(5)];
}

void add(Setup& s, const char* name, FormatId format, Shape shape, Random& random, int least = -3, int most = 3) {
  s.inputs[name] = random_tensor(format, std::move(shape), random, least, most);
}

/// RMSNorm's quantized outputs have a test of their own; without `quant` these say nothing.
constexpr std::string_view kQuantization[] = {"quant",     "quant_max",  "scale_floor",
                                              "scale_cap", "scale_rule", "global_scale"};

/// May the norm take `input` beside the tensors that are there, without quantization?
bool fits(const Setup& s, const NormInput& input) {
  if (s.norm == "rmsnorm") return input.name != "scale";
  if (input.name.ends_with("_table"))
    return s.inputs.contains(input.name.substr(0, input.name.size() - std::string_view("_table").size()));
  const bool of_residual = s.norm.starts_with("ada_") && input.name == "gate";
  return !of_residual || s.inputs.contains("residual");
}

std::vector<std::string> choices_of(const NormAttribute& attribute) {
  std::vector<std::string> words;
  std::istringstream text{std::string(attribute.choices)};
  for (std::string word; std::getline(text, word, '|');) words.push_back(word);
  return words;
}

TEST_CASE("layernorm agrees with exact rationals, on random rows of every magnitude") {
  Random random{11};
  int elements = 0;
  for (FormatId format : kTested)
    for (const auto& [least, most] : kExponents)
      for (const std::int64_t cols : {1, 2, 3, 5, 8, 33}) {
        CAPTURE(name_of(format), least, most, cols);
        Setup s{.norm = "layernorm"};
        s.numbers["eps"] = random_eps(random);
        const char* places[] = {"inside", "outside", "max", "none"};
        s.words["eps_place"] = places[random.below(4)];
        if (cols > 1 && random.below(3) == 0) s.numbers["correction"] = 1;
        add(s, "x", format, {1, cols}, random, least, most);
        if (random.below(4) != 0) add(s, "weight", format, {cols}, random);
        if (random.below(2) == 0) s.numbers["weight_offset"] = 1;
        if (random.below(2) == 0) add(s, "bias", FormatId::fp32, {cols}, random, -6, 2);
        if (random.below(4) == 0) add(s, "residual", FormatId::fp32, {1, cols}, random, least, most);
        const FormatId formats[] = {kTested[random.below(4)]};
        elements += check_norm(s, formats).elements;
      }
  REQUIRE(elements > 600);
}

TEST_CASE("layernorm takes one weight and bias for each sample") {
  Random random{12};
  for (const Shape& shape : {Shape{2, 3, 4}, Shape{3, 4}, Shape{2, 1, 2, 4}, Shape{1, 3, 4}}) {
    CAPTURE(shape_text(shape));
    Setup s{.norm = "layernorm"};
    add(s, "x", FormatId::bf16, shape, random);
    add(s, "weight", FormatId::bf16, {shape[0], 4}, random);
    s.numbers["weight_offset"] = 1;
    Shape broadcast(shape.size(), 1);
    broadcast.front() = shape[0];
    broadcast.back() = 4;
    add(s, "bias", FormatId::fp16, broadcast, random);
    const FormatId formats[] = {FormatId::bf16};
    REQUIRE(check_norm(s, formats).elements == element_count(shape));
  }
}

/// x of which InstanceNorm and BatchNorm take no statistics.
bool one_value_a_channel(const Setup& s) {
  const Shape& shape = s.inputs.at("x").shape;
  const std::int64_t positions = s.inputs.at("x").size() / (shape[0] * shape[1]);
  return (s.norm == "instancenorm" && positions == 1) || (s.norm == "batchnorm" && shape[0] * positions == 1);
}

TEST_CASE("group, instance and batch norm agree with exact rationals, channel by channel") {
  Random random{13};
  const Shape shapes[] = {{2, 6, 3, 3}, {1, 4, 1}, {3, 4}, {2, 4, 5, 1, 1}, {1, 1, 7}, {5, 2, 2}};
  for (const Shape& shape : shapes)
    for (const auto& [least, most] : kExponents)
      for (const char* norm : {"groupnorm", "instancenorm", "batchnorm"}) {
        CAPTURE(shape_text(shape), norm, least, most);
        Setup s{.norm = norm};
        const FormatId format = kTested[random.below(4)];
        s.numbers["eps"] = random_eps(random);
        add(s, "x", format, shape, random, least, most);
        if (random.below(4) != 0) add(s, "weight", format, {shape[1]}, random);
        if (random.below(2) == 0) add(s, "bias", FormatId::fp32, {shape[1]}, random, -6, 2);
        if (s.norm == "groupnorm") {
          std::int64_t groups = 1 + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(shape[1])));
          while (shape[1] % groups != 0) --groups;
          s.numbers["groups"] = static_cast<double>(groups);
        } else if (one_value_a_channel(s) || random.below(2) == 0) {
          s.words["statistics"] = "running";
          add(s, "running_mean", FormatId::fp32, {shape[1]}, random, least, most);
          add(s, "running_var", FormatId::fp32, {shape[1]}, random, -4, 4);
          for (std::int64_t c = 0; c < shape[1]; ++c)
            s.inputs["running_var"].set_code(c, (s.inputs["running_var"].code(c) & 0x7fffffff) | 0x10000000);
        }
        const FormatId formats[] = {kTested[random.below(4)]};
        check_norm(s, formats);
      }
}

TEST_CASE("l2norm agrees with exact rationals for every place of eps") {
  const std::string place = GENERATE("max", "sum", "outside", "none");
  Random random{14};
  for (FormatId format : kTested)
    for (const auto& [least, most] : kExponents)
      for (const std::int64_t cols : {1, 2, 7}) {
        CAPTURE(place, name_of(format), least, most, cols);
        Setup s{.norm = "l2norm"};
        s.words["eps_place"] = place;
        s.numbers["eps"] = random.below(2) == 0 ? 1e-12 : random_eps(random);
        add(s, "x", format, {2, cols}, random, least, most);
        const FormatId formats[] = {kTested[random.below(4)]};
        check_norm(s, formats);
      }
}

TEST_CASE("modulate and gated_residual agree with exact rationals, in both truths") {
  const TruthKind kind = GENERATE(TruthKind::mpfr, TruthKind::fast);
  Random random{15};
  for (const Shape& shape : {Shape{2, 3, 4}, Shape{3, 5}, Shape{7}, Shape{2, 2, 1, 3}})
    for (const auto& [least, most] : kExponents)
      for (int repeat = 0; repeat < 4; ++repeat) {
        CAPTURE(shape_text(shape), least, most, repeat);
        const std::int64_t cols = shape.back();
        const FormatId format = kTested[random.below(4)];
        const Shape vector = shape.size() > 1 && random.below(2) == 0 ? Shape{shape[0], cols} : Shape{cols};
        Setup m{.norm = "modulate"}, g{.norm = "gated_residual"};
        add(m, "x", format, shape, random, least, most);
        add(m, "scale", kTested[random.below(4)], vector, random, -30, 1);
        if (random.below(4) != 0) add(m, "shift", kTested[random.below(4)], vector, random, least, most);
        add(g, "x", format, shape, random, least, most);
        add(g, "f", kTested[random.below(4)], shape, random, least, most);
        add(g, "gate", kTested[random.below(4)], random.below(3) == 0 ? shape : vector, random, -30, 1);
        const FormatId formats[] = {kTested[random.below(4)]};
        REQUIRE(check_norm(m, formats, kind).elements > 0);
        REQUIRE(check_norm(g, formats, kind).elements > 0);
      }
}

TEST_CASE("modulations and adaptive norms agree with exact rationals, whatever tensors are there") {
  Random random{23};
  for (const char* norm : {"modulate", "gated_residual", "ada_layernorm", "ada_rmsnorm"})
    for (int repeat = 0; repeat < 40; ++repeat) {
      const auto [least, most] = kExponents[random.below(2)];
      const TruthKind kind = repeat % 2 == 0 ? TruthKind::fast : TruthKind::mpfr;
      Setup s{.norm = norm};
      const Shape shape{2, 3};
      std::string there;
      for (const NormInput& input : s.def().inputs) {
        // No scale is needed where there is a shift.
        const bool left_out = input.name == "scale" && repeat % 4 < 2;
        const bool required = (input.required && !left_out) || (input.name == "shift" && !s.inputs.contains("scale"));
        if (!fits(s, input) || left_out || (!required && random.below(2) == 0)) continue;
        const bool full = input.axes == "rows,cols";
        add(s, std::string(input.name).c_str(), kTested[random.below(4)], full ? shape : Shape{3}, random,
            full ? least : -3, full ? most : 3);
        there += " " + std::string(input.name);
      }
      for (const char* offset : {"scale_offset", "weight_offset"})
        if (s.norm.starts_with("ada_") && random.below(2) == 0) s.numbers[offset] = offset[0] == 's' ? 0 : 1;
      if (s.norm == "modulate" && random.below(2) == 0) s.numbers["scale_offset"] = 0;
      CAPTURE(s.norm, repeat, there);
      const FormatId formats[] = {kTested[random.below(4)]};
      REQUIRE(check_norm(s, formats, kind).elements > 0);
    }
}

TEST_CASE("adaptive group norm agrees with exact rationals, whatever tensors are there, of any shape it takes") {
  Random random{24};
  for (int repeat = 0; repeat < 60; ++repeat) {
    const auto [least, most] = kExponents[random.below(2)];
    const TruthKind kind = repeat % 2 == 0 ? TruthKind::fast : TruthKind::mpfr;
    Setup s{.norm = "ada_groupnorm"};
    const Shape shape = std::vector<Shape>{{2, 6, 3}, {1, 4, 2, 2}, {3, 4}}[random.below(3)];
    const Shape values[] = {{shape[1]}, {shape[0], shape[1]}, shape};
    add(s, "x", kTested[random.below(4)], shape, random, least, most);
    std::string there;
    for (const char* name : {"weight", "bias", "scale", "shift", "embedding"}) {
      if (random.below(3) == 0) continue;
      const std::string word(name);
      const std::size_t shapes = word == "weight" || word == "bias" ? 1 : word == "embedding" ? 2 : 3;
      const bool stream = word == "embedding";
      add(s, name, kTested[random.below(4)], values[random.below(shapes)], random, stream ? least : -3, stream ? most : 3);
      there += " " + word + shape_text(s.inputs.at(name).shape);
    }
    s.numbers["groups"] = random.below(2) == 0 ? 2 : 1;
    if (random.below(2) == 0) s.numbers["eps"] = random_eps(random);
    if (random.below(2) == 0) s.numbers["scale_offset"] = 0;
    CAPTURE(repeat, shape_text(shape), there);
    const FormatId formats[] = {kTested[random.below(4)]};
    REQUIRE(check_norm(s, formats, kind).elements > 0);
  }
}

// ---- ties ----

TEST_CASE("layernorm decides exact ties and near ties") {
  // Rows of +-s have mean 0 and deviation s: without eps y = +-w + b, and an odd w + b of one bit more is a tie.
  const double eps = GENERATE(0.0, 0x1p-40, 0x1p-239, 0x1p-700);
  CAPTURE(eps);
  Random random{16};
  int ties = 0;
  for (FormatId format : {FormatId::bf16, FormatId::fp16, FormatId::e4m3fn}) {
    Setup s{.norm = "layernorm"};
    s.numbers["eps"] = eps;
    s.inputs["x"] = tensor(format, {1, 8}, {1.5, -1.5, 1.5, 1.5, -1.5, -1.5, -1.5, 1.5});
    s.inputs["weight"] = Tensor::zeros(FormatId::fp32, {8});
    for (std::int64_t j = 0; j < 8; ++j) {
      const double step = std::ldexp(1.0, 1 - format_of(format).precision);
      s.inputs["weight"].set_code(j, code_of(FormatId::fp32, 1 + (static_cast<double>(random.below(4)) + 0.5) * step));
    }
    const FormatId formats[] = {format};
    ties += check_norm(s, formats).ties;
  }
  if (eps == 0) REQUIRE(ties >= 24);
  if (eps > 0) REQUIRE(ties == 0);
}

TEST_CASE("a norm hands out exactly what is a binary64 number, although its root is not") {
  Setup s{.norm = "layernorm"};
  s.numbers["eps"] = 0;
  s.inputs["x"] = tensor(FormatId::fp32, {1, 2}, {3.0, -3.0});
  s.inputs["weight"] = tensor(FormatId::fp32, {2}, {1.0, 0x1.01p0});
  s.inputs["bias"] = tensor(FormatId::fp32, {2}, {-1.0, 3.0});
  Enclosure out[2];
  s.truth()->enclose_row(0, out);
  REQUIRE((out[0].hi == 0 && out[0].lo == 0 && out[0].radius == 0 && out[0].magnitude == 2));
  REQUIRE((out[1].hi == 3 - 0x1.01p0 && out[1].lo == 0 && out[1].radius == 0));
}

// ---- special values ----

struct Special {
  std::string name;
  std::vector<double> x, weight, bias, y;
  double eps = 1e-5;
};

void check_special(Setup s, const Special& c, const Shape& shape, const Shape& parameters, TruthKind kind) {
  CAPTURE(s.norm, c.name, kind == TruthKind::fast);
  const auto fill = [&](const char* name, const std::vector<double>& values, const Shape& of) {
    if (values.empty()) return;
    Tensor t = Tensor::zeros(FormatId::fp32, of);
    for (std::size_t i = 0; i < values.size(); ++i)
      t.set_code(static_cast<std::int64_t>(i), code_of(FormatId::fp32, values[i]));
    s.inputs[name] = t;
  };
  s.numbers["eps"] = c.eps;
  fill("x", c.x, shape);
  fill("weight", c.weight, parameters);
  fill("bias", c.bias, parameters);
  const auto truth = s.truth("y", kind);
  std::vector<Enclosure> out(static_cast<std::size_t>(truth->cols()));
  for (std::size_t i = 0; i < c.y.size(); ++i) {
    CAPTURE(i);
    const auto at = static_cast<std::int64_t>(i);
    truth->enclose_row(at / truth->cols(), out);
    const Enclosure& e = out[static_cast<std::size_t>(at % truth->cols())];
    CAPTURE(e.hi, c.y[i]);
    if (std::isnan(c.y[i])) {
      REQUIRE(std::isnan(e.hi));
      continue;
    }
    REQUIRE(e.hi == c.y[i]);
    REQUIRE(std::signbit(e.hi) == std::signbit(c.y[i]));
    REQUIRE(e.radius == 0);
    const Comparison compared =
        truth->compare(at / truth->cols(), at % truth->cols(), std::isfinite(e.hi) ? e.hi : 0, 0);
    REQUIRE(compared == (std::isfinite(e.hi) ? Comparison::equal : Comparison::undecided));
  }
}

const TruthKind kKinds[] = {TruthKind::mpfr, TruthKind::fast};

TEST_CASE("layernorm of rows that are not ordinary follows the stated rules") {
  const Special cases[] = {
      {"a NaN makes its row NaN", {1, kNaN}, {}, {}, {kNaN, kNaN}},
      {"an Inf makes its row NaN", {1, kInfinity}, {}, {}, {kNaN, kNaN}},
      {"a constant row gives the bias", {3, 3}, {2, -2}, {5, -7}, {5, -7}},
      {"a constant row without a bias gives zeros with the weight's sign", {3, 3}, {2, -2}, {}, {0.0, -0.0}},
      {"a zero row gives the bias", {0.0, -0.0}, {1, 1}, {5, 7}, {5, 7}},
      {"a zero keeps its sign against a mean of +0", {0.0, -0.0}, {1, 1}, {}, {0.0, -0.0}},
      {"a zero and a bias of zero add as IEEE does", {3, 3}, {1, -1}, {-0.0, -0.0}, {0.0, -0.0}},
      {"a constant row without eps is undefined", {3, 3}, {1, 1}, {5, 5}, {kNaN, kNaN}, 0},
      {"a NaN weight spoils its column", {1, -1}, {kNaN, 0}, {}, {kNaN, -0.0}, 0},
      {"an infinite weight", {1, -1}, {kInfinity, -kInfinity}, {}, {kInfinity, kInfinity}, 0},
      {"an infinite weight of a zero difference", {3, 3}, {kInfinity, 1}, {}, {kNaN, 0.0}},
      {"an infinite bias", {1, -1}, {1, 1}, {kInfinity, -kInfinity}, {kInfinity, -kInfinity}},
      {"an infinite weight against an infinite bias", {1, -1}, {kInfinity, 1}, {-kInfinity, 0.0}, {kNaN, -1}, 0},
  };
  for (const Special& c : cases)
    for (const TruthKind kind : kKinds) {
      check_special({.norm = "layernorm"}, c, {1, 2}, {2}, kind);
      // The same row twice as the channels of a group, and as batches of one channel each.
      Special twice = c;
      twice.x.insert(twice.x.end(), c.x.begin(), c.x.end());
      twice.y.insert(twice.y.end(), c.y.begin(), c.y.end());
      Setup group{.norm = "groupnorm"};
      group.numbers["groups"] = 1;
      check_special(group, twice, {2, 2}, {2}, kind);
    }
  for (const TruthKind kind : kKinds) {
    check_special({.norm = "layernorm"}, {"one column gives the bias", {3, -5}, {2}, {5}, {5, 5}}, {2, 1}, {1}, kind);
    check_special({.norm = "layernorm"}, {"one column without eps", {3, -5}, {2}, {5}, {kNaN, kNaN}, 0}, {2, 1}, {1},
                  kind);
    check_special({.norm = "instancenorm"}, {"equal positions give the bias", {3, 3, -5, -5}, {2, 2}, {5, 6}, {5, 5, 6, 6}},
                  {1, 2, 2}, {2}, kind);
    check_special({.norm = "batchnorm"}, {"NaN stays in its channel", {1, 3, kNaN, 3}, {}, {}, {kNaN, 0.0, kNaN, 0.0}},
                  {2, 2}, {2}, kind);
    check_special({.norm = "l2norm"}, {"a zero row keeps signs", {0.0, -0.0}, {}, {}, {0.0, -0.0}}, {1, 2}, {}, kind);
    check_special({.norm = "l2norm"}, {"a zero row without eps", {0.0, -0.0}, {}, {}, {kNaN, kNaN}, 0}, {1, 2}, {},
                  kind);
    check_special({.norm = "l2norm"}, {"an Inf", {-kInfinity, -3}, {}, {}, {kNaN, -0.0}}, {1, 2}, {}, kind);
    check_special({.norm = "l2norm"}, {"a short row", {0x1p-41, 0}, {}, {}, {0x1p-1, 0}, 0x1p-40}, {1, 2}, {}, kind);
  }
}

TEST_CASE("running statistics act by IEEE rules") {
  struct Given {
    std::string name;
    double x, mean, variance, eps, y;
  };
  const Given cases[] = {
      {"a difference of zero", 3, 3, 1, 0, 0.0},
      {"-0 less +0", -0.0, 0.0, 1, 0, -0.0},
      {"-0 less -0", -0.0, -0.0, 1, 0, 0.0},
      {"no variance", 3, 1, 0, 0, kInfinity},
      {"no variance, below the mean", 1, 3, 0, 0, -kInfinity},
      {"no variance, no difference", 3, 3, 0, 0, kNaN},
      {"a negative variance", 3, 1, -1, 0.5, kNaN},
      {"a negative variance that eps outweighs", 3, 1, -0.75, 1, 4},
      {"a negative variance that eps cancels", 3, 1, -1, 1, kInfinity},
      {"an infinite variance", -3, 1, kInfinity, 0, -0.0},
      {"an infinite mean", 3, kInfinity, 1, 0, -kInfinity},
      {"an infinite mean and variance", 3, kInfinity, kInfinity, 0, kNaN},
      {"an infinite x", -kInfinity, 1, 1, 0, -kInfinity},
      {"an infinite x at an infinite mean", kInfinity, kInfinity, 1, 0, kNaN},
      {"a NaN mean", 1, kNaN, 1, 0, kNaN},
      {"a NaN variance", 1, 0, kNaN, 0, kNaN},
  };
  for (const Given& c : cases)
    for (const char* norm : {"batchnorm", "instancenorm"})
      for (const TruthKind kind : kKinds) {
        Setup s{.norm = norm};
        s.words["statistics"] = "running";
        // A second channel that is ordinary: what is special must stay where it is.
        s.inputs["running_mean"] = tensor(FormatId::fp32, {2}, {c.mean, 0});
        s.inputs["running_var"] = tensor(FormatId::fp32, {2}, {c.variance, 1 - c.eps});
        check_special(s, {c.name, {c.x, 5}, {}, {}, {c.y, 5}, c.eps}, {1, 2}, {2}, kind);
      }
}

TEST_CASE("modulate and gated_residual follow IEEE rules for zeros, NaN and Inf") {
  struct Case {
    double x, scale, shift, y;
  };
  const Case modulated[] = {{0.0, -5, -0.0, -0.0},
                            {-0.0, -5, -0.0, 0.0},
                            {0.0, 1, -0.0, 0.0},
                            {-0.0, 1, 0.0, 0.0},
                            {-0.0, 1, -0.0, -0.0},
                            {3, -1, -0.0, 0.0},
                            {-3, -1, -0.0, -0.0},
                            {2, 1, -4, 0.0},
                            {kInfinity, -1, 0, kNaN},
                            {kInfinity, 1, 0, kInfinity},
                            {-kInfinity, 1, kInfinity, kNaN},
                            {1, kInfinity, 0, kInfinity},
                            {0, kInfinity, 0, kNaN},
                            {1, -kInfinity, 5, -kInfinity},
                            {1, kNaN, 0, kNaN},
                            {1, 1, kNaN, kNaN},
                            {1, 1, -kInfinity, -kInfinity},
                            {0x1.fffffep127, 0x1.fffffep127, -kInfinity, -kInfinity}};
  for (const Case& c : modulated)
    for (const TruthKind kind : kKinds) {
      CAPTURE(c.x, c.scale, c.shift);
      Setup s{.norm = "modulate"};
      s.inputs["scale"] = tensor(FormatId::fp32, {1}, {c.scale});
      s.inputs["shift"] = tensor(FormatId::fp32, {1}, {c.shift});
      check_special(s, {"", {c.x}, {}, {}, {c.y}}, {1, 1}, {1}, kind);
      const ThreeTerms terms{.rows = 1,
                             .cols = 1,
                             .x = &s.inputs["scale"],
                             .factor = {.tensor = &s.inputs["scale"]},
                             .shift = {.tensor = &s.inputs["shift"]}};
      Tensor x = tensor(FormatId::fp32, {1, 1}, {c.x});
      ThreeTerms with_x = terms;
      with_x.x = &x;
      const double rounded = round_rows(with_x, FormatId::bf16, Overflow::ieee).y.value(0);
      if (std::isnan(c.y)) {
        REQUIRE(std::isnan(rounded));
      } else {
        REQUIRE(rounded == c.y);
        REQUIRE(std::signbit(rounded) == std::signbit(c.y));
      }
    }
  const Case gated[] = {{-0.0, 0.0, -1, -0.0},
                        {-0.0, 0.0, 1, 0.0},
                        {0.0, 0.0, -1, 0.0},
                        {2, -1, 2, 0.0},
                        {1, 0, kInfinity, kNaN},
                        {kInfinity, -1, kInfinity, kNaN},
                        {-kInfinity, -1, kInfinity, -kInfinity}};
  for (const Case& c : gated)
    for (const TruthKind kind : kKinds) {
      CAPTURE(c.x, c.scale, c.shift);
      Setup s{.norm = "gated_residual"};
      s.inputs["gate"] = tensor(FormatId::fp32, {1}, {c.scale});
      s.inputs["f"] = tensor(FormatId::fp32, {1, 1}, {c.shift});
      check_special(s, {"", {c.x}, {}, {}, {c.y}}, {1, 1}, {1}, kind);
    }
}

// ---- sums of three terms ----

TEST_CASE("sums of three terms are rounded correctly, next to midpoints too") {
  Random random{17};
  const std::int64_t cols = 2048;
  // x = a midpoint of bf16 or fp32's sums of half an ulp; the other terms are nothing, half an ulp, or next to nothing.
  const auto pick = [&](double x) {
    const double ulp = std::ldexp(1.0, std::ilogb(x) - 7);
    const double all[] = {0.0,     0x1p-149, -0x1p-149, ulp / 2, -ulp / 2, ulp * 0x1p-16, -ulp * 0x1p-17,
                          0x1p-40, -0x1p-60, x,         -x,      -x / 2};
    return all[random.below(12)];
  };
  std::int64_t settled = 0, ties = 0;
  for (int repeat = 0; repeat < 8; ++repeat) {
    Setup s{.norm = "modulate"}, g{.norm = "gated_residual"};
    for (const char* name : {"x", "f"}) s.inputs[name] = g.inputs[name] = Tensor::zeros(FormatId::fp32, {1, cols});
    for (const char* name : {"scale", "shift", "gate"})
      s.inputs[name] = g.inputs[name] = Tensor::zeros(FormatId::fp32, {cols});
    for (std::int64_t j = 0; j < cols; ++j) {
      const std::uint64_t code =
          ((100 + random.below(60)) << 23) | (random.below(128) << 16) | (random.below(2) << 15) | random.below(2);
      const double x = decode(FormatId::fp32, code | (random.below(2) << 31));
      const double shift = pick(x);
      const double scales[] = {0x1p-24, 0x1p-8, -0x1p-9, -1.0, -2.0, 0x1p-149, -0x1p-30, 0.0, -0.5, 0x1.000002p0};
      const double scale = scales[random.below(10)];
      s.inputs["x"].set_code(j, code_of(FormatId::fp32, x));
      s.inputs["shift"].set_code(j, code_of(FormatId::fp32, shift));
      s.inputs["scale"].set_code(j, code_of(FormatId::fp32, scale));
      g.inputs["x"].set_code(j, code_of(FormatId::fp32, x));
      g.inputs["f"].set_code(j, code_of(FormatId::fp32, shift));
      g.inputs["gate"].set_code(j, code_of(FormatId::fp32, scale));
    }
    const ThreeTerms modulated{.rows = 1,
                               .cols = cols,
                               .x = &s.inputs["x"],
                               .factor = {.tensor = &s.inputs["scale"]},
                               .shift = {.tensor = &s.inputs["shift"]}};
    const ThreeTerms gated{
        .rows = 1, .cols = cols, .x = &g.inputs["x"], .f = &g.inputs["f"], .factor = {.tensor = &g.inputs["gate"]}};
    for (const FormatId format : {FormatId::bf16, FormatId::fp32, FormatId::fp16, FormatId::e4m3fn}) {
      const RoundedRows m = round_rows(modulated, format, Overflow::ieee, 2),
                        p = round_rows(gated, format, Overflow::ieee, 1);
      settled += m.tiers.binary64 + p.tiers.binary64;
      for (std::int64_t j = 0; j < cols; ++j) {
        const Rational x = s.at("x", j, 0), scale = s.at("scale", j, 0), shift = s.at("shift", j, 0);
        const std::pair<Rational, std::uint64_t> both[] = {{x + x * scale + shift, m.y.code(j)},
                                                           {x + scale * shift, p.y.code(j)}};
        for (const auto& [y, code] : both) {
          CAPTURE(name_of(format), j, code);
          if (y == 0) {
            REQUIRE(decode(format, code) == 0);
            continue;
          }
          // The neighbours of the result, and the midpoints between them and it.
          const Format& f = format_of(format);
          const std::uint64_t magnitude = code & f.magnitude_mask();
          const bool negative = (code & f.sign_code()) != 0;
          if (magnitude <= f.max_finite_code()) REQUIRE(negative == (y < 0));
          const auto value = [&](std::uint64_t c) {
            return c <= f.max_finite_code() ? rational(decode(format, c))
                                            : rational(max_finite(format)) + power_of_two(f.emax - f.precision + 1);
          };
          const std::uint64_t at = std::min(magnitude, f.max_finite_code() + 1);
          const Rational size = y < 0 ? Rational(-y) : y;
          if (at <= f.max_finite_code()) {
            const int above = sign_of(size - (value(at) + value(at + 1)) / 2);
            REQUIRE((above < 0 || (above == 0 && at % 2 == 0)));
            ties += above == 0;
          }
          if (at > 0) {
            const int below = sign_of(size - (value(at - 1) + value(at)) / 2);
            REQUIRE((below > 0 || (below == 0 && at % 2 == 0)));
            ties += below == 0;
          }
        }
      }
    }
  }
  REQUIRE(settled == 8 * 4 * 2 * cols);
  REQUIRE(ties > 1000);
}

TEST_CASE(
    "a sum of terms beyond a format overflows as its policy says, and below it rounds to zero or the least number") {
  const double huge = 0x1.fffffep127, least = 0x1p-149;
  Tensor x = tensor(FormatId::fp32, {1, 8}, {huge, -huge, huge, kInfinity, least, -least, 464, 464});
  Tensor f = tensor(FormatId::fp32, {1, 8}, {0x1p103, -huge, 0x1p102, 1, -least, least, 0, 0x1p-50});
  Tensor g = tensor(FormatId::fp32, {8}, {1, 1, 1, 1, 0.5, 0x1.fffffep-1, 1, 1});
  const ThreeTerms terms{.rows = 1, .cols = 8, .x = &x, .f = &f, .factor = {.tensor = &g}};
  for (const Format& format : all_formats())
    for (const Overflow overflow : {Overflow::ieee, Overflow::saturate, Overflow::saturate_finite, Overflow::nan}) {
      if (format.id == FormatId::fp64) continue;
      const Tensor y = round_rows(terms, format.id, overflow).y;
      const auto truth = three_terms_truth(terms);
      for (std::int64_t j = 0; j < 8; ++j) {
        CAPTURE(format.name, name_of(overflow), j);
        const Enclosure e = truth->enclose(0, j);
        REQUIRE(y.code(j) == round_to({*truth, 0, j, e}, format.id, overflow));
      }
    }
}

TEST_CASE("sums of three terms are compared with numbers far beyond them") {
  Setup s{.norm = "gated_residual"};
  s.inputs["x"] = tensor(FormatId::fp32, {1, 1}, {0x1p127});
  s.inputs["f"] = tensor(FormatId::fp32, {1, 1}, {0x1p-149});
  s.inputs["gate"] = tensor(FormatId::fp32, {1}, {0x1p-149});
  const double huge = std::numeric_limits<double>::max();
  for (const TruthKind kind : kKinds) {
    const auto truth = s.truth("y", kind);
    REQUIRE(truth->compare(0, 0, huge, huge * 0x1p-54) == Comparison::less);
    REQUIRE(truth->compare(0, 0, -huge, 0) == Comparison::greater);
    REQUIRE(truth->compare(0, 0, 0x1p950, -0x1p950) == Comparison::greater);
    REQUIRE(truth->compare(0, 0, 0x1p127, 0x1p-298) == Comparison::equal);
    REQUIRE(truth->compare(0, 0, 0x1p127, 0x1p-299) == Comparison::greater);
    REQUIRE(truth->compare(0, 0, 0x1p127, 0x1p-1074) == Comparison::greater);
    Enclosure e = truth->enclose(0, 0);
    REQUIRE((e.hi == 0x1p127 && e.lo == 0x1p-298 && e.radius == 0));
  }
}

// ---- running statistics as outputs ----

TEST_CASE("running statistics are the rational numbers of their formulas") {
  Random random{18};
  const std::string norm = GENERATE("batchnorm", "instancenorm");
  for (const Shape& shape : {Shape{3, 2, 5}, Shape{2, 3}, Shape{4, 1, 2, 2}})
    for (const auto& [least, most] : {std::pair{-2, 2}, std::pair{-90, 60}})
      for (const double momentum : {0.1, 0.0, 1.0, 0.25}) {
        CAPTURE(norm, shape_text(shape), least, most, momentum);
        if (norm == "instancenorm" && shape.size() == 2) continue;
        Setup s{.norm = norm};
        s.numbers["momentum"] = momentum;
        add(s, "x", FormatId::fp32, shape, random, least, most);
        add(s, "running_mean", FormatId::fp32, {shape[1]}, random, least, most);
        add(s, "running_var", FormatId::bf16, {shape[1]}, random, least, most);
        const Formula f = formula_of(s);
        const std::int64_t spatial = s.inputs["x"].size() / (shape[0] * shape[1]);
        // The groups of a channel: one, or one for each sample.
        const std::int64_t samples = norm == "batchnorm" ? 1 : shape[0];
        const Rational n = shape[0] * spatial / samples;
        for (const std::string output : {"running_mean", "running_var"}) {
          const auto truth = s.truth(output);
          REQUIRE((truth->rows() == shape[1] && truth->cols() == 1));
          for (std::int64_t c = 0; c < shape[1]; ++c) {
            Rational sum = 0;
            for (std::int64_t i = 0; i < s.inputs["x"].size(); ++i)
              if (i / spatial % shape[1] == c) sum += s.at("x", i, 0);
            Rational total = 0;
            for (std::int64_t sample = 0; sample < samples; ++sample) total += f.roots.at(sample * shape[1] + c).total;
            const Rational batch =
                output == "running_mean" ? Rational(sum / (n * samples)) : Rational(total / (n - 1) / samples);
            const Rational m = rational(momentum);
            const Rational y = (1 - m) * s.at(output.c_str(), c, 0) + m * batch;
            Enclosure e;
            truth->enclose_row(c, std::span(&e, 1));
            Counts counts;
            const FormatId formats[] = {FormatId::fp32, FormatId::bf16};
            check_element([&](const Rational& v) { return sign_of(y - v); }, *truth, c, 0, e, formats, counts);
          }
        }
      }
}

TEST_CASE("batchnorm's running statistics of what is not finite") {
  Setup s{.norm = "batchnorm"};
  s.inputs["x"] = tensor(FormatId::fp32, {2, 5}, {kNaN, kInfinity, kInfinity, 1, 1, 1, 1, -kInfinity, 3, 3});
  s.inputs["running_mean"] = tensor(FormatId::fp32, {5}, {0, 0, 0, kInfinity, 0});
  s.inputs["running_var"] = tensor(FormatId::fp32, {5}, {1, 1, 1, kNaN, 1});
  const auto value = [&](const char* output, std::int64_t c) { return s.truth(output)->enclose(c, 0).hi; };
  for (std::int64_t c : {0, 2}) REQUIRE(std::isnan(value("running_mean", c)));
  for (std::int64_t c : {1, 3}) REQUIRE(value("running_mean", c) == kInfinity);
  REQUIRE(std::fabs(value("running_mean", 4) - 0.2) < 1e-15);
  for (std::int64_t c : {0, 1, 2, 3}) REQUIRE(std::isnan(value("running_var", c)));
  REQUIRE(std::fabs(value("running_var", 4) - 1.1) < 1e-15);
}

TEST_CASE("instancenorm's running statistics of what is not finite") {
  // Channels of two samples of two positions each.
  Setup s{.norm = "instancenorm"};
  s.inputs["x"] = tensor(FormatId::fp32, {2, 4, 2}, {kNaN, 1, kInfinity, 1, kInfinity, 1, 1, 3,   //
                                                     1,    1, 1,         1, 1, -kInfinity, 5, 9});
  s.inputs["running_mean"] = tensor(FormatId::fp32, {4}, {0, 0, 0, 0});
  s.inputs["running_var"] = tensor(FormatId::fp32, {4}, {1, 1, 1, 1});
  const auto value = [&](const char* output, std::int64_t c) { return s.truth(output)->enclose(c, 0).hi; };
  for (std::int64_t c : {0, 2}) REQUIRE(std::isnan(value("running_mean", c)));
  REQUIRE(value("running_mean", 1) == kInfinity);
  REQUIRE(std::fabs(value("running_mean", 3) - 0.1 * 4.5) < 1e-15);
  for (std::int64_t c : {0, 1, 2}) REQUIRE(std::isnan(value("running_var", c)));
  REQUIRE(std::fabs(value("running_var", 3) - (0.9 + 0.1 * 5)) < 1e-15);  // (2 + 8) / 2
}

// ---- recordings of torch ----

// torch computes in fp32: each y passes some 40 roundings of 2^-24 (sums in cascades, the root, the affine map), those
// of the mean relative to the largest |x| of its row, which then count |w| r times. 64 of them bound the path with
// room, and the output is rounded once more. Another definition would show: a variance over n - 1 moves y by |q| /
// (2n), at least 2^-11 |q| here.
void check_recording(const Setup& s, const Tensor& y) {
  const auto truth = s.truth();
  double most_weight = 1;
  if (s.inputs.contains("weight"))
    for (std::int64_t i = 0; i < s.inputs.at("weight").size(); ++i)
      most_weight = std::max(most_weight, std::fabs(s.inputs.at("weight").value(i)));
  const std::int64_t cols = truth->cols();
  std::vector<Enclosure> out(static_cast<std::size_t>(cols));
  for (std::int64_t row = 0; row < truth->rows(); ++row) {
    // A row of the view is what the statistics are taken over.
    double largest = 0, sum = 0, squares = 0;
    for (std::int64_t i = row * cols; i < (row + 1) * cols; ++i) {
      const double x = s.inputs.at("x").value(i);
      largest = std::max(largest, std::fabs(x));
      sum += x;
      squares += x * x;
    }
    const auto n = static_cast<double>(cols);
    const double r = 1 / std::sqrt(squares / n - sum / n * (sum / n));
    truth->enclose_row(row, out);
    for (std::int64_t col = 0; col < cols; ++col) {
      const Enclosure& e = out[static_cast<std::size_t>(col)];
      const std::int64_t i = row * cols + col;
      CAPTURE(s.norm, name_of(y.format), i);
      const double half_ulp = ulp_of(y.format, *binade({*truth, row, col, e}, y.format)) / 2;
      REQUIRE(std::fabs(y.value(i) - e.hi) <= half_ulp + 64 * 0x1p-24 * (e.magnitude + most_weight * r * largest));
    }
  }
}

TEST_CASE("torch's recorded LayerNorm and GroupNorm are roundings of these norms") {
  const std::string format = GENERATE("fp32", "bf16", "fp16");
  const TensorFile file =
      read_safetensors(std::string(NORMA_SOURCE_DIR) + "/tests/golden/captures/torch_ops." + format + ".safetensors");
  int recordings = 0;
  const auto read = [&](const std::string& norm, const std::string& prefix, bool affine) {
    Setup s{.norm = norm};
    s.numbers["eps"] = 1e-6;
    if (norm == "groupnorm") s.numbers["groups"] = 4;
    s.inputs["x"] = file.tensors.at(prefix + "x");
    if (affine) s.inputs["weight"] = file.tensors.at(prefix + "weight");
    if (affine) s.inputs["bias"] = file.tensors.at(prefix + "bias");
    check_recording(s, file.tensors.at(prefix + (affine ? "y" : "y.plain")));
    ++recordings;
  };
  for (const char* d : {"8", "9", "100", "576", "1001"})
    for (const bool affine : {true, false}) read("layernorm", std::string("layernorm.D") + d + ".", affine);
  for (const char* c : {"8", "64"}) read("groupnorm", std::string("groupnorm.C") + c + ".", true);
  REQUIRE(recordings == 12);
}

// ---- the fast tiers ----

/// Enclosures of both truths overlap, and comparisons are equal: at the midpoints, and at bf16's and fp32's numbers and
/// midpoints next to y.
void check_agreement(const Setup& s, std::string_view output = "y") {
  const auto slow = s.truth(output, TruthKind::mpfr), fast = s.truth(output, TruthKind::fast);
  REQUIRE((slow->rows() == fast->rows() && slow->cols() == fast->cols()));
  const auto cols = static_cast<std::size_t>(slow->cols());
  std::vector<Enclosure> a(cols), b(cols);
  std::vector<double> mid(cols), radius(cols), magnitude(cols);
  for (std::int64_t row = 0; row < slow->rows(); ++row) {
    slow->enclose_row(row, a);
    fast->enclose_row(row, b);
    fast->enclose_quick(row, {.mid = mid, .radius = radius, .magnitude = magnitude});
    for (std::size_t j = 0; j < cols; ++j) {
      CAPTURE(s.norm, row, j, a[j].hi, a[j].lo, a[j].radius, b[j].hi, b[j].lo, b[j].radius, mid[j], radius[j]);
      const auto col = static_cast<std::int64_t>(j);
      REQUIRE(std::isnan(a[j].hi) == std::isnan(b[j].hi));
      // What is quick may know nothing, but nothing else than the truth.
      const bool known = radius[j] < kInfinity;
      if (known) REQUIRE(std::isnan(a[j].hi) == std::isnan(mid[j]));
      if (std::isnan(a[j].hi)) continue;
      if (std::isinf(a[j].hi) || std::isinf(b[j].hi)) {
        REQUIRE(a[j].hi == b[j].hi);
        REQUIRE((!known || mid[j] == a[j].hi));
        continue;
      }
      if (a[j].hi == 0 && a[j].radius == 0) REQUIRE(std::signbit(a[j].hi) == std::signbit(b[j].hi));
      // e^x beyond MPFR's range: the slow truth knows nothing, and the fast one may.
      if (a[j].radius == kInfinity) continue;
      // |difference of the midpoints| <= sum of the radii, exactly.
      const Rational centre = rational(a[j].hi) + rational(a[j].lo);
      const auto overlap = [&](double hi, double lo, double r) {
        if (r == kInfinity) return true;
        Rational d = centre - (rational(hi) + rational(lo));
        if (d < 0) d = -d;
        return d <= rational(a[j].radius) + rational(r);
      };
      REQUIRE(overlap(b[j].hi, b[j].lo, b[j].radius));
      REQUIRE(overlap(mid[j], 0, radius[j]));
      const auto same = [&](double hi, double lo) {
        CAPTURE(hi, lo);
        REQUIRE(slow->compare(row, col, hi, lo) == fast->compare(row, col, hi, lo));
      };
      same(a[j].hi, a[j].lo);
      same(b[j].hi, 0);
      same(0, 0);
      for (const FormatId format : {FormatId::bf16, FormatId::fp32}) {
        const std::uint64_t code = encode(format, std::fabs(a[j].hi), Overflow::saturate);
        const double low = std::copysign(decode(format, code), a[j].hi), ulp = min_subnormal(format);
        const double next =
            std::copysign(decode(format, std::min(code + 1, format_of(format).max_finite_code())), a[j].hi);
        same(low, 0);
        same(low, (next - low) / 2);
        same(low, ulp / 2);
      }
    }
  }
}

TEST_CASE("fast and slow truth agree") {
  Random random{19};
  std::int64_t elements = 0, exact = 0;
  for (int repeat = 0; repeat < 60; ++repeat) {
    CAPTURE(repeat);
    const auto [least, most] = kExponents[random.below(5)];
    const FormatId format = kTested[random.below(4)];
    const Shape shape = std::vector<Shape>{{2, 6, 3, 3}, {3, 4}, {1, 2, 33}, {2, 4, 5}, {1, 3, 130}}[random.below(5)];
    for (const NormDef* norm : all_norms()) {
      if (norm->name.ends_with("rope")) continue;  // rope_norms_test.cpp
      Setup s{.norm = std::string(norm->name)};
      CAPTURE(s.norm, shape_text(shape), name_of(format), least, most);
      add(s, "x", format, shape, random, least, most);
      if (random.below(6) == 0) {  // rows of equal numbers, zeros, what is not finite
        const std::uint64_t codes[] = {s.inputs["x"].code(0), 0, format_of(format).nan_code(),
                                       format_of(format).sign_code(),
                                       format_of(format).has_infinity() ? format_of(format).infinity_code() : 0};
        const std::uint64_t code = codes[random.below(5)];
        for (std::int64_t i = 0; i < s.inputs["x"].size(); ++i)
          if (random.below(3) != 0 || i < shape.back()) s.inputs["x"].set_code(i, code);
      }
      const bool channels =
          std::ranges::any_of(norm->inputs, [](const NormInput& input) { return input.axes == "channels"; });
      const Shape vector{channels ? shape[1] : shape.back()};
      for (const NormInput& input : norm->inputs) {
        if (input.name == "x" || !fits(s, input)) continue;
        if (!input.required && random.below(2) == 0) continue;
        const bool full = input.axes == "rows,cols" || (input.axes.ends_with("rows,cols") && random.below(4) == 0);
        const bool samples = input.axes.find("samples,cols") != std::string_view::npos && random.below(4) == 0;
        const bool each = input.axes.find("samples,channels") != std::string_view::npos && random.below(2) == 0;
        add(s, std::string(input.name).c_str(), full ? format : kTested[random.below(4)],
            full      ? shape
            : each    ? Shape{shape[0], shape[1]}
            : samples ? Shape{shape.front(), shape.back()}
                      : vector,
            random, full ? least : -4, full ? most : 3);
      }
      // The one tensor that another one can stand in for.
      if (s.norm == "modulate" && s.inputs.contains("shift") && !s.inputs.contains("scale_table") &&
          random.below(3) == 0)
        s.inputs.erase("scale");
      for (const NormAttribute& attribute : norm->attributes) {
        const std::string name(attribute.name);
        if (std::ranges::find(kQuantization, attribute.name) != std::end(kQuantization)) continue;
        if (name == "groups") {
          const std::int64_t split = channels ? shape[1] : shape.back();
          s.numbers[name] = split % 2 == 0 ? 2 : split % 3 == 0 ? 3 : 1;
        } else if (name == "statistics") {
          if (s.inputs.contains("running_mean") && s.inputs.contains("running_var") && random.below(2) == 0)
            s.words[name] = "running";
          else if (one_value_a_channel(s))
            s.inputs["x"].shape = {1, shape[1], element_count(shape) / shape[1]};
        } else if (!attribute.choices.empty()) {
          const std::vector<std::string> words = choices_of(attribute);
          s.words[name] = words[random.below(words.size())];
        } else if (name == "eps") {
          s.numbers[name] = random_eps(random);
        } else if (name == "weight_offset" || name == "scale_offset" || name == "correction") {
          if (random.below(3) == 0) s.numbers[name] = name == "scale_offset" ? 0 : 1;
        }
      }
      for (const NormOutput& output : norm->outputs_of(s.call())) check_agreement(s, output.name);
      const auto fast = s.truth(norm->outputs.front(), TruthKind::fast);
      for (std::int64_t row = 0; row < fast->rows(); ++row)
        for (std::int64_t col = 0; col < fast->cols(); ++col) {
          ++elements;
          exact += fast->enclose(row, col).tier == Tier::exact;
        }
    }
  }
  // The fast truth is not the slow one under another name.
  REQUIRE(elements > 20000);
  REQUIRE(10 * exact < 6 * elements);
}

// ---- calls ----

std::string message_of(const Setup& s, std::string_view output = "y") {
  try {
    s.truth(output);
  } catch (const NormError& e) {
    return e.what();
  }
  return "";
}

TEST_CASE("norms name what does not fit") {
  const auto zeros = [](Shape shape) { return Tensor::zeros(FormatId::bf16, std::move(shape)); };
  Setup layer{.norm = "layernorm"};
  REQUIRE(message_of(layer) == "layernorm: there is no tensor x; it is what is normalized.");
  layer.inputs["x"] = zeros({2, 3, 4});
  layer.inputs["weight"] = zeros({3});
  REQUIRE(message_of(layer) == "layernorm: weight has shape 3 but must have 4 or 2x4 to fit x.");
  layer.inputs["weight"] = zeros({2, 4});
  layer.numbers["correction"] = 4;
  REQUIRE(message_of(layer) == "layernorm: correction is 4 but must be at least 0 and below the number of columns.");
  layer.numbers.clear();
  layer.words["eps_place"] = "l2max";
  REQUIRE(message_of(layer) == "layernorm: eps_place=l2max is not one of inside, outside, max, none.");
  layer.words.clear();
  REQUIRE(message_of(layer, "residual") == "layernorm: the output residual needs the input residual.");
  REQUIRE(message_of(layer, "z") == "layernorm: there is no output z; known: y, residual.");

  Setup group{.norm = "groupnorm"};
  group.inputs["x"] = zeros({8});
  REQUIRE(message_of(group) == "groupnorm: x has shape 8 but must have samples and channels, [N, C, ...].");
  group.inputs["x"] = zeros({2, 8, 3});
  REQUIRE(message_of(group) == "groupnorm: groups is 32 but must divide the 8 channels of x.");
  group.numbers["groups"] = 2.5;
  REQUIRE(message_of(group) == "groupnorm: groups is 2.5 but must be a whole number, at least 1.");
  group.numbers["groups"] = 4;
  group.inputs["bias"] = zeros({3});
  REQUIRE(message_of(group) == "groupnorm: bias has shape 3 but must have 8 to fit x.");

  Setup ada{.norm = "ada_groupnorm"};
  ada.inputs["x"] = zeros({2, 8, 3});
  REQUIRE(message_of(ada) == "ada_groupnorm: groups is 32 but must divide the 8 channels of x.");
  ada.numbers["groups"] = 4;
  ada.inputs["scale"] = zeros({8, 2});
  REQUIRE(message_of(ada) == "ada_groupnorm: scale has shape 8x2 but must have 8 or 2x8 or x's to fit x.");
  ada.inputs["scale"] = zeros({2, 8, 1});
  ada.inputs["embedding"] = zeros({2, 8, 3});
  REQUIRE(message_of(ada) == "ada_groupnorm: embedding has shape 2x8x3 but must have 8 or 2x8 to fit x.");
  ada.inputs.erase("embedding");
  ada.numbers["scale_offset"] = 2;
  REQUIRE(message_of(ada) == "ada_groupnorm: scale_offset is 2 but must be 0 or 1.");
  ada.numbers["scale_offset"] = 0;
  REQUIRE(message_of(ada, "residual") == "ada_groupnorm: there is no output residual; known: y.");
  REQUIRE(message_of(ada).empty());

  Setup single{.norm = "batchnorm"};
  single.inputs["x"] = zeros({1, 8, 1});
  REQUIRE(message_of(single) ==
          "batchnorm: x has shape 1x8x1, one value for each channel; statistics=batch needs at least two.");
  single.norm = "instancenorm";
  single.inputs["x"] = zeros({4, 8});
  REQUIRE(message_of(single) ==
          "instancenorm: x has shape 4x8, one value for each channel of a sample; statistics=batch needs at least two.");
  single.inputs["x"] = zeros({4, 8, 2});
  REQUIRE(message_of(single).empty());
  REQUIRE(message_of(single, "running_var") ==
          "instancenorm: the output running_var needs statistics=batch and the input running_var.");
  REQUIRE(message_of(single, "variance") ==
          "instancenorm: there is no output variance; known: y, running_mean, running_var.");
  for (const double momentum : {-0.5, 1.5, kNaN}) {
    single.numbers["momentum"] = momentum;
    REQUIRE(message_of(single).starts_with("instancenorm: momentum is "));
    REQUIRE(message_of(single).ends_with(" but must be from 0 to 1."));
  }

  Setup batch{.norm = "batchnorm"};
  batch.inputs["x"] = zeros({2, 8, 3});
  REQUIRE(message_of(batch, "running_var") ==
          "batchnorm: the output running_var needs statistics=batch and the input running_var.");
  batch.words["statistics"] = "running";
  REQUIRE(message_of(batch) == "batchnorm: statistics=running needs a tensor running_mean.");
  batch.inputs["running_mean"] = zeros({8});
  REQUIRE(message_of(batch) == "batchnorm: statistics=running needs a tensor running_var.");
  batch.inputs["running_var"] = zeros({8});
  REQUIRE(message_of(batch).empty());
  REQUIRE(message_of(batch, "running_var") ==
          "batchnorm: the output running_var needs statistics=batch and the input running_var.");

  Setup gated{.norm = "gated_residual"};
  gated.inputs["x"] = zeros({2, 4});
  REQUIRE(message_of(gated) == "gated_residual: there is no tensor f.");
  gated.inputs["f"] = zeros({4, 2});
  REQUIRE(message_of(gated) == "gated_residual: there is no tensor gate.");
  gated.inputs["gate"] = zeros({4});
  REQUIRE(message_of(gated) == "gated_residual: f has shape 4x2 but must have x's, 2x4.");
}

bool has_output(const Setup& s, std::string_view name) {
  return std::ranges::any_of(s.def().outputs_of(s.call()),
                             [&](const NormOutput& output) { return output.name == name; });
}

/// Are the outputs that both calls have the same?
bool same_outputs(const Setup& a, const Setup& b) {
  for (const NormOutput& output : a.def().outputs_of(a.call())) {
    if (!has_output(b, output.name)) continue;
    const auto left = a.truth(output.name), right = b.truth(output.name);
    for (std::int64_t row = 0; row < left->rows(); ++row)
      for (std::int64_t col = 0; col < left->cols(); ++col) {
        const Enclosure l = left->enclose(row, col), r = right->enclose(row, col);
        const bool both_nan = std::isnan(l.hi) && std::isnan(r.hi);
        if (!both_nan && !(l.hi == r.hi && l.lo == r.lo && l.radius == r.radius)) return false;
      }
  }
  return true;
}

/// `attribute` with values that are not its fallback.
std::vector<Setup> others(const Setup& s, const NormAttribute& attribute) {
  std::vector<Setup> all;
  const std::string name(attribute.name);
  for (const std::string& word : choices_of(attribute))
    if (word != attribute.fallback) all.emplace_back(s).words[name] = word;
  if (!all.empty()) return all;
  const double fallback = std::strtod(std::string(attribute.fallback).c_str(), nullptr);
  double other = 2 * fallback;
  if (name == "groups" && fallback > 1) other = fallback / 2;
  if (name == "scale_offset") other = 1 - fallback;
  if (fallback == 0) other = 1;
  all.emplace_back(s).numbers[name] = other;
  return all;
}

TEST_CASE("norms without attributes are norms with the fallbacks that their rows state") {
  Random random{20};
  for (const NormDef* norm : all_norms())
    for (const bool optional : {false, true}) {
      if (norm->name.ends_with("rope")) continue;  // rope_norms_test.cpp
      Setup bare{.norm = std::string(norm->name)};
      CAPTURE(bare.norm, optional);
      const Shape shape{2, 64, 2};
      for (const NormInput& input : norm->inputs) {
        if (!fits(bare, input) || (!optional && !input.required)) continue;
        // Lengths on both sides of every eps.
        const bool full = input.axes == "rows,cols", stream = full && input.name != "gate";
        add(bare, std::string(input.name).c_str(), FormatId::bf16,
            full                                             ? shape
            : input.axes.find("channels") != input.axes.npos ? Shape{shape[1]}
                                                             : Shape{shape.back()},
            random, stream ? -50 : -3, stream ? -5 : 3);
      }
      Setup stated = bare;
      for (const NormAttribute& a : norm->attributes)
        if (a.choices.empty())
          stated.numbers[std::string(a.name)] = std::strtod(std::string(a.fallback).c_str(), nullptr);
        else
          stated.words[std::string(a.name)] = a.fallback;
      REQUIRE(same_outputs(bare, stated));
      // With all tensors there, any other value is told by some output.
      if (!optional) continue;
      for (const NormAttribute& a : norm->attributes) {
        CAPTURE(a.name);
        if (std::ranges::find(kQuantization, a.name) != std::end(kQuantization)) continue;
        for (const Setup& other : others(bare, a)) REQUIRE(!same_outputs(bare, other));
      }
    }
}

TEST_CASE("norms take fp64 tensors by MPFR") {
  Random random{21};
  for (const NormDef* norm : all_norms())
    for (const std::string p : {"2", "1", "inf"})
      for (const bool optional : {false, true}) {
        if (norm->name != "lp_norm" && p != "2") continue;
        if (norm->name.ends_with("_backward")) continue;  // backward_test.cpp
        if (norm->name.ends_with("rope")) continue;       // rope_norms_test.cpp
        if (norm->name == "silu" || norm->name == "gelu" || norm->name == "softmax") continue;  // activations_test.cpp
        Setup s{.norm = std::string(norm->name)};
        CAPTURE(s.norm, p, optional);
        // Channels of one position: what is rational of grn's.
        const Shape shape = s.norm == "grn" ? Shape{8, 3} : Shape{2, 4, 3};
        for (const NormInput& input : norm->inputs) {
          if (!fits(s, input) || (!optional && !input.required)) continue;
          const bool full = input.axes == "rows,cols";
          add(s, std::string(input.name).c_str(), FormatId::fp64,
              full                                             ? shape
              : input.axes.find("channels") != input.axes.npos ? Shape{shape[1]}
                                                               : Shape{shape.back()},
              random, full ? -40 : -3, full ? 40 : 3);
        }
        if (s.norm == "groupnorm" || s.norm == "ada_groupnorm") s.numbers["groups"] = 2;
        if (s.norm == "lp_norm") s.words["p"] = p;
        if (s.norm == "rmsnorm_gated") {  // what is rational of it
          s.words["activation"] = "sigmoid";
          s.inputs["gate"] = Tensor::zeros(FormatId::fp64, shape);
        }
        const FormatId formats[] = {FormatId::fp32};
        REQUIRE(check_norm(s, formats, TruthKind::fast).elements == 24);
      }
}

TEST_CASE("a residual sum that carries into a 54th bit is summed exactly") {
  for (const char* norm : {"layernorm", "rmsnorm"}) {
    Setup s{.norm = norm};
    s.numbers["eps"] = 0;
    s.inputs["x"] = tensor(FormatId::fp64, {1, 2}, {1.5, 1.0});
    s.inputs["residual"] = tensor(FormatId::fp64, {1, 2}, {0.5 + 0x1p-52, 0.0});
    // 2 + 2^-52 and 1: the means of their squares and of themselves.
    const Rational h = 2 + power_of_two(-52), mean = (h + 1) / 2, second = (h * h + 1) / 2;
    const bool centred = s.norm == "layernorm";
    const RationalRoot root{
        .total = centred ? Rational(second - mean * mean) : second, .count = 1, .eps = 0, .place = "none"};
    const auto truth = s.truth();
    const Enclosure e = truth->enclose(0, 0);
    Counts counts;
    const FormatId formats[] = {FormatId::fp32};
    check_element([&](const Rational& m) { return linear(root, centred ? Rational(h - mean) : h, m); }, *truth, 0, 0, e,
                  formats, counts);
  }
}

TEST_CASE("shared statistics may be asked for from several threads at once") {
  Random random{22};
  Setup s{.norm = "batchnorm"};
  add(s, "x", FormatId::bf16, {20, 5, 7}, random);
  const auto truth = s.truth();
  const auto digest = [&] {
    double total = 0;
    std::vector<Enclosure> out(7);
    for (std::int64_t row = 0; row < truth->rows(); ++row) {
      truth->enclose_row(row, out);
      for (const Enclosure& e : out) total += e.hi;
    }
    return total;
  };
  const double right = digest();
  std::vector<double> got(4);
  std::vector<std::thread> threads;
  for (double& g : got) threads.emplace_back([&] { g = digest(); });
  for (std::thread& t : threads) t.join();
  for (double g : got) REQUIRE(g == right);
}

}  // namespace
}  // namespace norma::test

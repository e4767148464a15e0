// Gradients of norms: the fast truth beside the exact one, special values, ties, the forward's differences, recordings.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "harness/inputs/safetensors.hpp"
#include "reference/norms/backward/channel_norms.hpp"
#include "reference/norms/backward/modulation.hpp"
#include "reference/norms/backward/row_norms.hpp"
#include "reference/norms/channel_norms.hpp"
#include "reference/norms/l2norm.hpp"
#include "reference/norms/layernorm.hpp"
#include "reference/norms/rmsnorm.hpp"
#include "tests/reference/element_check.hpp"

namespace norma::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

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
  const Tensor& x() const { return inputs.at("x"); }
};

// ---- long rows: the fast truth against the exact one ----

/// The enclosures overlap; the magnitudes are the same number. How many the exact arithmetic had to make.
std::int64_t check_fast(const Setup& s, std::string_view output) {
  const auto fast = s.truth(output, TruthKind::fast), slow = s.truth(output);
  const auto cols = static_cast<std::size_t>(fast->cols());
  std::vector<Enclosure> a(cols), b(cols);
  std::vector<double> mid(cols), radius(cols), magnitude(cols);
  std::int64_t exact = 0;
  for (std::int64_t row = 0; row < fast->rows(); ++row) {
    fast->enclose_row(row, a);
    slow->enclose_row(row, b);
    fast->enclose_quick(row, {.mid = mid, .radius = radius, .magnitude = magnitude});
    for (std::size_t j = 0; j < cols; ++j) {
      CAPTURE(output, row, j, a[j].hi, a[j].lo, a[j].radius, b[j].hi, b[j].lo, b[j].radius);
      exact += a[j].tier == Tier::exact;
      const Rational y = rational(b[j].hi) + rational(b[j].lo);
      const auto holds = [&](double hi, double lo, double r) {
        Rational d = y - rational(hi) - rational(lo);
        if (d < 0) d = -d;
        return d <= rational(r) + rational(b[j].radius);
      };
      REQUIRE(holds(a[j].hi, a[j].lo, a[j].radius));
      REQUIRE(a[j].radius <= 0x1p-80 * a[j].magnitude);
      REQUIRE(a[j].magnitude == b[j].magnitude);
      if (std::isfinite(radius[j])) REQUIRE(holds(mid[j], 0, radius[j]));
    }
  }
  return exact;
}

TEST_CASE("gradients of long rows are made without the exact arithmetic, and agree with it") {
  Random random{34};
  const NormDef* norm = GENERATE(&rmsnorm_backward, &layernorm_backward, &groupnorm_backward, &batchnorm_backward,
                                 &ada_layernorm_backward);
  const FormatId format = GENERATE(FormatId::bf16, FormatId::fp32);
  const bool channels = norm == &groupnorm_backward || norm == &batchnorm_backward;
  const Shape shape = channels ? Shape{3, 4, 50} : Shape{12, 257};
  Setup s{.norm = norm};
  for (const char* name : {"x", "dy"}) s.inputs[name] = random_tensor(format, shape, random, -6, 2);
  const Shape vector{channels ? 4 : 257};
  s.inputs["weight"] = random_tensor(format, vector, random, -2, 1);
  if (norm == &ada_layernorm_backward) s.inputs["scale"] = random_tensor(format, vector, random, -4, 0);
  if (norm == &groupnorm_backward) s.numbers["groups"] = 2;
  const double far = GENERATE(0.0, 64.0, 4096.0);    // how far the mean is from zero
  if (format == FormatId::bf16 && far > 64) return;  // no two numbers there
  for (std::int64_t i = 0; far > 0 && i < s.x().size(); ++i) {
    const double v = far + s.x().value(i);
    s.inputs["x"].set_code(i, code_of(format, v));
  }
  for (const NormOutput& output : norm->outputs_of(s.call())) {
    const std::int64_t exact = check_fast(s, output.name);
    CAPTURE(s.norm->name, output.name, exact);
    REQUIRE(exact <= (far > 64 ? 100 : 0));  // of 3084: the mean's own error
  }
}

// ---- what is not finite, what is zero ----

double value(const Setup& s, const char* output, std::int64_t row, std::int64_t col) {
  const double fast = s.truth(output, TruthKind::fast)->enclose(row, col).hi;
  const double slow = s.truth(output)->enclose(row, col).hi;
  REQUIRE(((std::isnan(fast) && std::isnan(slow)) || fast == slow));
  return fast;
}

TEST_CASE("gradients of what is not finite are NaN where they need statistics, sums go by IEEE rules") {
  for (const NormDef* norm : {&rmsnorm_backward, &layernorm_backward}) {
    for (const double bad : {kNaN, kInfinity}) {
      Setup s{.norm = norm};
      s.inputs["x"] = tensor(FormatId::fp32, {3, 2}, {1, 2, 3, 5, 1, 4});
      s.inputs["dy"] = tensor(FormatId::fp32, {3, 2}, {1, 1, 1, bad, 1, 2});
      s.inputs["weight"] = tensor(FormatId::fp32, {2}, {1, 3});
      CAPTURE(norm->name, bad);
      for (std::int64_t col : {0, 1}) {
        REQUIRE(std::isfinite(value(s, "dx", 0, col)));
        REQUIRE(std::isnan(value(s, "dx", 1, col)));
        REQUIRE(std::isfinite(value(s, "dx", 2, col)));
      }
      // The columns stand apart.
      REQUIRE(std::isfinite(value(s, "dweight", 0, 0)));
      REQUIRE(std::isnan(value(s, "dweight", 0, 1)));
      REQUIRE(value(s, "dbias", 0, 0) == 3);
      REQUIRE((std::isnan(bad) ? std::isnan(value(s, "dbias", 0, 1)) : value(s, "dbias", 0, 1) == kInfinity));
      std::swap(s.inputs["x"], s.inputs["dy"]);
      REQUIRE(std::isnan(value(s, "dx", 1, 0)));
      for (std::int64_t col : {0, 1}) REQUIRE(std::isnan(value(s, "dweight", 0, col)));
      REQUIRE(value(s, "dbias", 0, 0) == 5);
      s.inputs["weight"] = tensor(FormatId::fp32, {2}, {bad, 1});
      REQUIRE(std::isnan(value(s, "dx", 0, 1)));
    }
  }
  Setup s{.norm = &modulate_backward};
  s.inputs["x"] = tensor(FormatId::fp32, {3, 3}, {1, 0, 1, 1, 1, 1, 1, 1, 1});
  s.inputs["dy"] = tensor(FormatId::fp32, {3, 3}, {kInfinity, kInfinity, 1, 1, 1, kInfinity, 1, 2, -kInfinity});
  s.inputs["scale"] = tensor(FormatId::fp32, {3}, {0.5, -1, 2});
  REQUIRE(value(s, "dx", 0, 0) == kInfinity);
  REQUIRE(std::isnan(value(s, "dx", 0, 1)));
  REQUIRE(value(s, "dscale", 0, 0) == kInfinity);
  REQUIRE(std::isnan(value(s, "dscale", 0, 1)));
  REQUIRE(value(s, "dshift", 0, 1) == kInfinity);
  REQUIRE(std::isnan(value(s, "dshift", 0, 2)));
}

TEST_CASE("gradients of rows of equal numbers and of single numbers") {
  Setup s{.norm = &layernorm_backward};
  s.inputs["x"] = tensor(FormatId::bf16, {2, 2}, {3, 3, 1, 2});
  s.inputs["dy"] = tensor(FormatId::bf16, {2, 2}, {1, 2, 1, 1});
  s.inputs["weight"] = tensor(FormatId::bf16, {2}, {1, 1});
  s.numbers["eps"] = 0x1p-4;
  REQUIRE(value(s, "dx", 0, 0) == -2);  // r (g - mean(g)) = 4 (1 - 1.5)
  REQUIRE(value(s, "dx", 1, 0) == 0);   // equal g
  s.numbers["eps"] = 0;
  REQUIRE(std::isnan(value(s, "dx", 0, 0)));
  REQUIRE(std::isnan(value(s, "dweight", 0, 0)));
  REQUIRE(value(s, "dx", 1, 0) == 0);
  s.words["eps_place"] = "outside";
  s.numbers["eps"] = 0.25;
  REQUIRE(value(s, "dx", 0, 0) == -2);

  // One column: y does not move with x without eps.
  Setup one{.norm = &rmsnorm_backward};
  one.inputs["x"] = tensor(FormatId::bf16, {3, 1}, {3, -7, 5});
  one.inputs["dy"] = tensor(FormatId::bf16, {3, 1}, {1, 2, 4});
  one.inputs["weight"] = tensor(FormatId::bf16, {1}, {2});
  one.numbers["eps"] = 0;
  REQUIRE(value(one, "dx", 1, 0) == 0);
  REQUIRE(value(one, "dweight", 0, 0) == 3);  // 1 - 2 + 4: three roots, all of them rational
  REQUIRE(one.truth("dweight")->compare(0, 0, 3, 0) == Comparison::equal);
  // Roots of 2 and of 8 are one up to a factor; those of 2 and 3 are not, and no number is their sum.
  Setup two{.norm = &l2norm_backward};
  two.norm = &rmsnorm_backward;
  two.words["eps_place"] = "none";
  two.inputs["x"] = tensor(FormatId::bf16, {2, 2}, {1, 1.5, 2, 3});
  two.inputs["dy"] = tensor(FormatId::bf16, {2, 2}, {1, 1, -1, 1});
  two.inputs["weight"] = tensor(FormatId::bf16, {2}, {1, 1});
  REQUIRE(value(two, "dweight", 0, 0) == 0);
  REQUIRE(two.truth("dweight")->compare(0, 0, 0, 0) == Comparison::equal);
  two.inputs["x"] = tensor(FormatId::bf16, {2, 2}, {1, 1.5, 2, 2.5});
  REQUIRE(two.truth("dweight")->compare(0, 0, value(two, "dweight", 0, 0), 0) != Comparison::undecided);

  // A length of eps takes the branch of the length; a shorter one leaves r constant.
  Setup l2{.norm = &l2norm_backward};
  l2.inputs["x"] = tensor(FormatId::bf16, {3, 2}, {0.5, 0, 0.25, 0, 0, 0});
  l2.inputs["dy"] = tensor(FormatId::bf16, {3, 2}, {1, 1, 1, 1, 1, 1});
  l2.numbers["eps"] = 0.5;
  REQUIRE(value(l2, "dx", 0, 0) == 0);
  REQUIRE(value(l2, "dx", 0, 1) == 2);
  for (std::int64_t row : {1, 2}) REQUIRE(value(l2, "dx", row, 0) == 2);
}

TEST_CASE("a sum just beside a half-way point of binary64 has its nearest number as the middle") {
  Setup s{.norm = &layernorm_backward};
  s.inputs["x"] = tensor(FormatId::fp32, {3, 2}, {1, 2, 3, 4, 5, 7});
  s.inputs["dy"] = tensor(FormatId::fp32, {3, 2}, {1, -1, 0x1p-53, -0x1p-53, 0x1p-120, -0x1p-120});
  REQUIRE(value(s, "dbias", 0, 0) == 1 + 0x1p-52);
  REQUIRE(value(s, "dbias", 0, 1) == -1 - 0x1p-52);
  REQUIRE(s.truth("dbias", TruthKind::fast)->enclose(0, 0).magnitude == 1 + 0x1p-52);
}

TEST_CASE("equal rows of opposite signs cancel in dweight, exactly") {
  Random random{35};
  Setup s{.norm = &layernorm_backward};
  s.inputs["x"] = random_tensor(FormatId::fp32, {2, 33}, random, -6, 2);
  s.inputs["dy"] = random_tensor(FormatId::fp32, {2, 33}, random, -6, 2);
  s.inputs["weight"] = random_tensor(FormatId::fp32, {33}, random, -2, 1);
  const std::uint64_t sign = format_of(FormatId::fp32).sign_code();
  for (std::int64_t j = 0; j < 33; ++j) {
    s.inputs["x"].set_code(33 + j, s.x().code(j) ^ sign);
    s.inputs["dy"].set_code(33 + j, s.inputs["dy"].code(j));
  }
  for (std::int64_t j = 0; j < 33; ++j) REQUIRE(value(s, "dweight", 0, j) == 0);
}

// ---- differences of the forward ----

TEST_CASE("gradients are what the forward's truth moves by") {
  // y at x + h and x - h, x and h dyadic: (y+ - y-) / 2h differs from the derivative by h^2 times a third derivative of
  // some 10; the sum over y of dy is taken in binary64 pairs.
  const struct {
    const NormDef *backward, *forward;
    Shape shape;
  } pairs[] = {{&rmsnorm_backward, &rmsnorm, {2, 5}},
               {&layernorm_backward, &layernorm, {2, 5}},
               {&l2norm_backward, &l2norm, {2, 5}},
               {&groupnorm_backward, &groupnorm, {2, 4, 3}},
               {&instancenorm_backward, &instancenorm, {2, 2, 4}},
               {&batchnorm_backward, &batchnorm, {2, 3, 3}}};
  constexpr double kStep = 0x1p-16;
  Random random{37};
  for (const auto& [backward, forward, shape] : pairs) {
    CAPTURE(backward->name);
    Setup s{.norm = backward};
    for (const char* name : {"x", "dy"}) s.inputs[name] = random_tensor(FormatId::bf16, shape, random, -3, 0);
    const bool channels = shape.size() > 2;
    if (backward != &l2norm_backward)
      s.inputs["weight"] = random_tensor(FormatId::bf16, {channels ? shape[1] : shape.back()}, random, -2, 1);
    if (backward == &groupnorm_backward) s.numbers["groups"] = 2;
    s.numbers["eps"] = 0x1p-6;
    if (backward == &l2norm_backward) s.words["eps_place"] = "sum";
    Setup moved{.norm = forward, .inputs = s.inputs, .numbers = s.numbers, .words = s.words};
    moved.inputs.erase("dy");
    // In fp64, so that x +- h is there.
    Tensor wide = Tensor::zeros(FormatId::fp64, shape);
    for (std::int64_t i = 0; i < wide.size(); ++i)
      wide.set_code(i, encode(FormatId::fp64, s.x().value(i), Overflow::ieee));
    moved.inputs["x"] = wide;
    const auto loss = [&](const char* tensor, std::int64_t at, double step) {
      Setup there = moved;
      Tensor& t = there.inputs[tensor];
      if (t.format != FormatId::fp64) {
        Tensor w = Tensor::zeros(FormatId::fp64, t.shape);
        for (std::int64_t i = 0; i < w.size(); ++i) w.set_code(i, encode(FormatId::fp64, t.value(i), Overflow::ieee));
        t = w;
      }
      t.set_code(at, encode(FormatId::fp64, t.value(at) + step, Overflow::ieee));
      const auto y = there.truth("y");
      double sum = 0;
      for (std::int64_t i = 0; i < wide.size(); ++i)
        sum += y->enclose(i / y->cols(), i % y->cols()).hi * s.inputs.at("dy").value(i);
      return sum;
    };
    for (const NormOutput& output : backward->outputs_of(s.call())) {
      if (output.name == "dbias") continue;
      const auto truth = s.truth(output.name);
      const char* tensor = output.name == "dx" ? "x" : "weight";
      for (std::int64_t at = 0; at < element_count(output.shape); ++at) {
        CAPTURE(output.name, at);
        const double moves = (loss(tensor, at, kStep) - loss(tensor, at, -kStep)) / (2 * kStep);
        const Enclosure e = truth->enclose(at / truth->cols(), at % truth->cols());
        REQUIRE(std::fabs(moves - e.hi) < 1e-6 * (1 + e.magnitude));
      }
    }
  }
}

// ---- recordings of torch ----

// torch's CPU gradients: fp32 (binary64 in part) from saved statistics, then one cast. Every step is a rounding of
// 2^-24 of what it rounds; a sum of n terms errs by at most n of them, in practice by a few: 64 roundings of the
// gradient's terms bound the recordings with room, where 1/n instead of 1/(n-1), or a mean left out, is hundreds.
// LayerNorm's dweight and dbias are added up row after row in x's own format: there the format's rounding counts once a
// row. All but RMSNorm save their statistics in x's format, and BatchNorm of an x in channels-last rounds every
// operation to it: up to eight of its roundings.
TEST_CASE("torch's recorded gradients are roundings of these norms") {
  const std::string format = GENERATE("fp32", "bf16", "fp16");
  const TensorFile file = read_safetensors(std::string(NORMA_SOURCE_DIR) + "/tests/golden/captures/torch_backward." +
                                           format + ".safetensors");
  const auto calls = nlohmann::json::parse(file.metadata.at("calls"));
  std::map<std::string, int> outputs;
  for (const auto& [site, c] : calls.items()) {
    const std::string norm = c.at("norm").get<std::string>() + "_backward";
    Setup s{.norm = find_norm(norm)};
    CAPTURE(format, site);
    REQUIRE(s.norm != nullptr);
    for (const auto& [name, at] : c.at("inputs").items())
      if (name != "bias") s.inputs[name] = file.tensors.at(at.get<std::string>());
    for (const auto& [name, v] : c.at("attributes").items()) s.numbers[name] = v.get<double>();
    if (c.contains("statistics")) {
      s.words["statistics"] = "running";
      s.inputs["running_mean"] = file.tensors.at(c.at("statistics")[0].get<std::string>());
      s.inputs["running_var"] = file.tensors.at(c.at("statistics")[1].get<std::string>());
    }
    for (const NormOutput& output : s.norm->outputs_of(s.call())) {
      const auto found = file.tensors.find(site + "." + std::string(output.name));
      if (found == file.tensors.end()) continue;
      const Tensor& got = found->second;
      REQUIRE(got.shape == output.shape);
      const auto truth = s.truth(output.name, TruthKind::fast);
      const bool by_rows = norm == "layernorm_backward" && output.name != "dx";
      const double saved = norm == "rmsnorm_backward" ? 0 : 8;
      const double own = (saved + (by_rows ? static_cast<double>(s.x().rows()) : 0)) *
                         std::ldexp(1.0, -format_of(s.x().format).precision);
      for (std::int64_t i = 0; i < got.size(); ++i) {
        const std::int64_t row = i / truth->cols(), col = i % truth->cols();
        const Enclosure e = truth->enclose(row, col);
        const double half_ulp = ulp_of(got.format, *binade({*truth, row, col, e}, got.format)) / 2;
        CAPTURE(output.name, i, got.value(i), e.hi, e.magnitude);
        REQUIRE(std::fabs(got.value(i) - e.hi) <= half_ulp + (64 * 0x1p-24 + own) * e.magnitude);
      }
      ++outputs[norm + "." + std::string(output.name)];
    }
  }
  for (const char* norm : {"layernorm_backward", "groupnorm_backward", "instancenorm_backward", "batchnorm_backward"})
    for (const char* output : {".dx", ".dweight", ".dbias"}) REQUIRE(outputs[norm + std::string(output)] >= 3);
  REQUIRE(outputs["rmsnorm_backward.dweight"] == 6);
}

// ---- calls ----

std::string message_of(const Setup& s, std::string_view output = "dx") {
  try {
    s.truth(output);
  } catch (const NormError& e) {
    return e.what();
  }
  return "";
}

TEST_CASE("gradients name what does not fit") {
  Setup s{.norm = &layernorm_backward};
  s.inputs["x"] = Tensor::zeros(FormatId::bf16, {2, 3, 4});
  REQUIRE(message_of(s) == "layernorm_backward: there is no tensor dy; it is the gradient of the forward's output.");
  s.inputs["dy"] = Tensor::zeros(FormatId::bf16, {6, 4});
  REQUIRE(message_of(s) == "layernorm_backward: dy has shape 6x4 but must have x's, 2x3x4.");
  s.inputs["dy"] = Tensor::zeros(FormatId::bf16, {2, 3, 4});
  s.inputs["weight"] = Tensor::zeros(FormatId::bf16, {3});
  REQUIRE(message_of(s) == "layernorm_backward: weight has shape 3 but must have 4 or 2x4 to fit x.");
  s.inputs.erase("weight");
  REQUIRE(message_of(s, "dweight") == "layernorm_backward: this call has no output dweight; it has: dx, dbias.");
  s.numbers["eps"] = -1;
  REQUIRE(message_of(s) == "layernorm_backward: eps is -1 but must be finite and not negative.");
  Setup m{.norm = &modulate_backward, .inputs = s.inputs};
  REQUIRE(message_of(m) == "modulate_backward: there is no tensor scale.");
  m.inputs["scale"] = Tensor::zeros(FormatId::bf16, {4});
  REQUIRE(message_of(m, "dgate") == "modulate_backward: there is no output dgate; known: dx, dscale, dshift.");
  Setup b{.norm = &batchnorm_backward, .inputs = s.inputs, .words = {{"statistics", "running"}}};
  REQUIRE(message_of(b) == "batchnorm_backward: statistics=running needs a tensor running_mean.");
}

}  // namespace
}  // namespace norma::test

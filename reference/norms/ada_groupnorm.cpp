// Adaptive GroupNorm. What is a RowNorm (no embedding, no bias under a modulation) has all its tiers; the rest is a
// formula.
#include "reference/norms/ada_groupnorm.hpp"

#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "reference/norms/affine.hpp"
#include "reference/norms/call.hpp"
#include "reference/norms/formula.hpp"

namespace norma {

namespace {

constexpr std::string_view kName = "ada_groupnorm";

constexpr NormInput kInputs[] = {
    {"x", "rows,cols", true, "what is normalized, [N, C, ...]"},
    {"weight", "channels", false, "the norm's own factor of every channel"},
    {"bias", "channels", false, "the norm's own term of every channel"},
    {"scale", "samples,channels|channels|rows,cols", true, "added to scale_offset: the modulation's factor"},
    {"shift", "samples,channels|channels|rows,cols", false, "added to the product"},
    {"embedding", "samples,channels|channels", false, "added to x before its statistics are taken"},
};
constexpr NormAttribute kAttributes[] = {
    {"eps", "1e-5", "", "keeps the root away from zero"},
    {"groups", "32", "", "how many groups the channels make"},
    {"scale_offset", "1", "", "1 where scale is the factor's distance from one, 0 where it is the factor"},
};
constexpr std::array<std::string_view, 1> kOutputs{"y"};

/// One value a channel, one for each sample and channel, or one an element.
enum class Given : std::uint8_t { channel, sample, element };

struct Reading {
  RowNorm norm;                    ///< y, if there is no formula
  std::optional<Program> formula;  ///< y
  Attributes numbers;              ///< of the formula
};

bool is_per_sample(const Tensor& t, const Channels& c) {
  return t.shape.size() >= 2 && t.shape[0] == c.samples && t.shape[1] == c.channels &&
         t.size() == c.samples * c.channels;
}

Given given_as(const CallReader& reader, std::string_view name, const Channels& c, bool elements) {
  const Tensor& t = *reader.find(name);
  if (t.size() == c.channels) return Given::channel;
  if (is_per_sample(t, c)) return Given::sample;
  if (elements && t.shape == reader.x().shape) return Given::element;
  reader.refuse(std::string(name) + " has shape " + shape_text(t.shape) + " but must have " + shape_text({c.channels}) +
                " or " + shape_text({c.samples, c.channels}) + (elements ? " or x's" : "") + " to fit x.");
}

Parameter parameter(const CallReader& reader, std::string_view name, const Channels& c, std::int64_t groups) {
  const Tensor* t = reader.find(name);
  if (t == nullptr) return {};
  const std::int64_t each = c.channels / groups;
  ParameterIndex index{.rows_each = 1, .period = c.samples * groups, .per_row = each, .span = c.spatial};
  switch (given_as(reader, name, c, true)) {
    case Given::channel: index.period = groups; break;
    case Given::sample: break;
    case Given::element: index.per_row = each * c.spatial, index.span = 1; break;
  }
  return {.tensor = t, .offset = 0, .index = index};
}

class Formula {
 public:
  Formula(const CallReader& reader, const NormCall& call, const Channels& c)
      : reader_(reader), c_(c), b_(std::string(kName), formula_binding(call), {.kind = ViewKind::groups}) {}

  Program build(double eps, double scale_offset) {
    Operand h = b_.input("x");
    if (has("embedding")) h = exactly(b_, "h", Op::add, {h, b_.input("embedding", kChannels)});
    // The format of a reduction is erased with all others.
    const Operand mean = b_.moments("mean", "var", kFp64, h, {.kind = OrderKind::exact}, false);
    const Operand centred = exactly(b_, "centred", Op::sub, {h, mean});
    const Operand sum = exactly(b_, "var_eps", Op::add, {{.node = mean.node, .port = 1}, b_.constant("eps", eps)});
    Operand y = exactly(b_, "n", Op::mul, {centred, exactly(b_, "r", Op::rsqrt, {sum})});
    if (has("weight")) y = exactly(b_, "weighted", Op::mul, {y, b_.input("weight", kChannels)});
    if (has("bias")) y = exactly(b_, "biased", Op::add, {y, b_.input("bias", kChannels)});
    if (has("scale")) {
      Operand s = modulating("scale");
      if (scale_offset != 0) s = exactly(b_, "factor", Op::add, {b_.constant("scale_offset", scale_offset), s});
      y = exactly(b_, "scaled", Op::mul, {y, s});
    }
    if (has("shift")) y = exactly(b_, "shifted", Op::add, {y, modulating("shift")});
    b_.output("y", y);
    return erase_roundings(b_.finish());
  }

 private:
  bool has(std::string_view name) const { return reader_.find(name) != nullptr; }
  Operand modulating(const std::string& name) {
    return b_.input(name, given_as(reader_, name, c_, true) == Given::element ? kRowsCols : kChannels);
  }

  const CallReader& reader_;
  const Channels& c_;
  Builder b_;
};

Reading read_call(const NormCall& call) {
  const CallReader reader(kName, call);
  const Channels c = channels_of(reader);
  const double number = reader.number("groups", 32, "a whole number, at least 1",
                                      [](double v) { return v >= 1 && v <= 0x1p53 && v == std::floor(v); });
  const auto groups = static_cast<std::int64_t>(number);
  if (c.channels % groups != 0)
    reader.refuse("groups is " + number_text(number) + " but must divide the " + std::to_string(c.channels) +
                  " channels of x.");
  const double offset = reader.number("scale_offset", 1, "0 or 1", [](double v) { return v == 0 || v == 1; });
  const auto has = [&reader](std::string_view name) { return reader.find(name) != nullptr; };
  const std::int64_t each = c.channels / groups, cols = each * c.spatial;
  const ParameterIndex index{.rows_each = 1, .period = groups, .per_row = each, .span = c.spatial};
  const Parameter bias{.tensor = reader.vector("bias", c.channels), .offset = 0, .index = index};
  Parameter scale = parameter(reader, "scale", c, groups);
  if (has("scale")) scale.offset = offset;
  const Parameter shift = parameter(reader, "shift", c, groups);
  if (has("embedding")) static_cast<void>(given_as(reader, "embedding", c, false));
  Reading reading{.norm = {.rows = c.samples * groups,
                           .cols = cols,
                           .x = &reader.x(),
                           .statistics = Statistics::moments,
                           .groups = c.samples * groups,
                           .count = static_cast<double>(cols),
                           .eps = reader.eps(1e-5),
                           .weight = {.tensor = reader.vector("weight", c.channels), .offset = 0, .index = index},
                           .scale = scale,
                           .bias = has("shift") ? shift : bias},
                  .formula = {},
                  .numbers = call.numbers};
  reading.numbers["groups"] = number;
  const bool bias_inside = has("bias") && (has("scale") || has("shift"));
  if (has("embedding") || bias_inside) reading.formula = Formula(reader, call, c).build(reading.norm.eps, offset);
  return reading;
}

void check(const NormCall& call) { static_cast<void>(read_call(call)); }

std::unique_ptr<TruthSource> formula_truth_of(Reading reading, const NormCall& call, TruthKind kind) {
  const NormCall with_groups{.inputs = call.inputs, .numbers = std::move(reading.numbers), .words = {}};
  return formula_truth(std::move(*reading.formula), with_groups, "y", kind);
}

std::unique_ptr<TruthSource> truth(const NormCall& call, std::string_view output) {
  if (output != "y") CallReader(kName, call).refuse("there is no output " + std::string(output) + "; known: y.");
  Reading reading = read_call(call);
  if (reading.formula) return formula_truth_of(std::move(reading), call, TruthKind::mpfr);
  return affine_truth(reading.norm);
}

std::optional<RowNorm> row_norm(const NormCall& call, std::string_view output) {
  const Reading reading = read_call(call);
  return output == "y" && !reading.formula ? fast_problem(reading.norm) : std::nullopt;
}

std::unique_ptr<TruthSource> fast(const NormCall& call, std::string_view output) {
  Reading reading = read_call(call);
  return output == "y" && reading.formula ? formula_truth_of(std::move(reading), call, TruthKind::fast) : nullptr;
}

std::vector<NormOutput> outputs_of(const NormCall& call) { return {{"y", call.inputs->find("x")->second.shape}}; }

}  // namespace

constinit const NormDef ada_groupnorm{
    .name = "ada_groupnorm",
    .title = "Adaptive group normalization",
    .formula =
        "h = x + embedding; y = (scale_offset + scale) (weight (h - mean) / sqrt(var + eps) + bias) + shift, over "
        "the channels of a group and their positions",
    .source = "Dhariwal & Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021",
    .inputs = kInputs,
    .attributes = kAttributes,
    .outputs = kOutputs,
    .check = check,
    .truth = truth,
    .outputs_of = outputs_of,
    .row_norm = row_norm,
    .fast = fast,
};

}  // namespace norma

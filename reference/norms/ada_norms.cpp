// Adaptive norms. What is a RowNorm (no gate, no table, no bias under a scale) has all its tiers; the rest is a
// formula.
#include "reference/norms/ada_norms.hpp"

#include <array>
#include <string>
#include <utility>

#include "reference/norms/affine.hpp"
#include "reference/norms/call.hpp"
#include "reference/norms/formula.hpp"
#include "reference/norms/terms.hpp"

namespace norma {

namespace {

constexpr NormInput kInputs[] = {
    {"x", "rows,cols", true, "what is normalized, or with a residual what is gated and added to it"},
    {"scale", "cols|samples,cols|rows,cols", true, "added to scale_offset: the modulation's factor"},
    {"shift", "cols|samples,cols|rows,cols", false, "added to the product"},
    {"weight", "cols", false, "the norm's own factor, added to weight_offset"},
    {"bias", "cols", false, "the norm's own term"},
    {"residual", "rows,cols", false, "the stream that x is added to first; the sum is an output"},
    {"gate", "cols|samples,cols|rows,cols", false, "factor of x before it is added"},
    {"scale_table", "cols|samples,cols", false, "added to scale"},
    {"shift_table", "cols|samples,cols", false, "added to shift"},
    {"gate_table", "cols|samples,cols", false, "added to gate"},
};
constexpr NormAttribute kAttributes[] = {
    {"eps", "1e-6", "", "keeps the root away from zero"},
    {"weight_offset", "0", "", "1 where weights are stored as their distance from one"},
    {"scale_offset", "1", "", "1 where scale is the factor's distance from one, 0 where it is the factor"},
};
constexpr std::array<std::string_view, 2> kOutputs{"y", "residual"};

constexpr std::string_view name_of_norm(Statistics s) {
  return s == Statistics::moments ? "ada_layernorm" : "ada_rmsnorm";
}

struct Reading {
  RowNorm norm;                    ///< y, if `formula` is empty
  ThreeTerms sum;                  ///< h, if `formula` is empty or there is no gate_table
  std::optional<Program> formula;  ///< y and h
};

class Formula {
 public:
  Formula(std::string_view norm, const NormCall& call) : call_(call), b_(std::string(norm), formula_binding(call)) {}

  Program build(Statistics statistics, const RowNorm& norm, double scale_offset) {
    const Operand h = stream();
    Operand y = normalized(statistics, h, norm.eps);
    if (has("weight")) {
      Operand w = b_.input("weight", kCols);
      if (norm.weight.offset != 0) w = sum("factor_w", b_.constant("weight_offset", norm.weight.offset), w);
      y = product("weighted", y, w);
    }
    if (has("bias")) y = sum("biased", y, b_.input("bias", kCols));
    if (has("scale")) {
      Operand s = parameter("scale");
      if (scale_offset != 0) s = sum("factor_s", b_.constant("scale_offset", scale_offset), s);
      y = product("scaled", y, s);
    }
    if (has("shift")) y = sum("shifted", y, parameter("shift"));
    b_.output("y", y);
    if (has("residual")) b_.output("residual", h);
    return erase_roundings(b_.finish());
  }

 private:
  bool has(std::string_view name) const { return call_.inputs->find(name) != call_.inputs->end(); }
  Operand sum(const std::string& name, Operand a, Operand c) { return exactly(b_, name, Op::add, {a, c}); }
  Operand product(const std::string& name, Operand a, Operand c) { return exactly(b_, name, Op::mul, {a, c}); }

  Operand parameter(const std::string& name) {
    const Operand value = b_.input(name, kCols);
    return has(name + "_table") ? sum(name + "_sum", value, b_.input(name + "_table", kCols)) : value;
  }

  Operand stream() {
    Operand h = b_.input("x");
    if (!has("residual")) return h;
    if (has("gate")) h = product("gated", h, parameter("gate"));
    return sum("h", b_.input("residual", kRowsCols), h);
  }

  /// The format of a reduction is erased with all others.
  Operand normalized(Statistics statistics, Operand h, double eps) {
    const Order order{.kind = OrderKind::exact};
    Operand centred = h, spread;
    if (statistics == Statistics::moments) {
      const Operand mean = b_.moments("mean", "var", kFp64, h, order, false);
      centred = exactly(b_, "centred", Op::sub, {h, mean});
      spread = {.node = mean.node, .port = 1};
    } else {
      spread = b_.reduce(
          "ms", kFp64, h,
          {.kind = ReduceKind::mean, .term = Term::square, .order = order, .contract = false, .term_format = {}});
    }
    return product("n", centred, exactly(b_, "r", Op::rsqrt, {sum("spread_eps", spread, b_.constant("eps", eps))}));
  }

  const NormCall& call_;
  Builder b_;
};

void check_tables(const CallReader& reader) {
  for (const char* name : {"scale", "shift", "gate"}) {
    const std::string table = std::string(name) + "_table";
    if (reader.find(table) == nullptr) continue;
    static_cast<void>(reader.columns(table));
    if (reader.find(name) == nullptr)
      reader.refuse(table + " is added to a tensor " + std::string(name) + ", and there is none.");
  }
  if (reader.find("gate") != nullptr && reader.find("residual") == nullptr)
    reader.refuse("gate is the factor of what is added to a tensor residual, and there is none.");
}

template <Statistics statistics>
Reading read_call(const NormCall& call) {
  const CallReader reader(name_of_norm(statistics), call);
  const Tensor& x = reader.x();
  check_tables(reader);
  for (const char* name : {"weight", "bias"}) static_cast<void>(reader.vector(name, x.cols()));
  const double scale_offset = reader.number("scale_offset", 1, "0 or 1", [](double v) { return v == 0 || v == 1; });
  const double weight_offset = reader.finite("weight_offset", 0);
  const auto has = [&reader](std::string_view name) { return reader.find(name) != nullptr; };
  Parameter scale = reader.columns_or_elements("scale");
  scale.offset = scale_offset;
  Reading reading{.norm = {.rows = x.rows(),
                           .cols = x.cols(),
                           .x = &x,
                           .residual = reader.like_x("residual"),
                           .statistics = statistics,
                           .groups = x.rows(),
                           .count = static_cast<double>(x.cols()),
                           .eps = reader.eps(1e-6),
                           .weight = reader.columns("weight", weight_offset),
                           .scale = has("scale") ? scale : Parameter{},
                           .bias = reader.columns_or_elements(has("shift") ? "shift" : "bias")},
                  .sum = {},
                  .formula = {}};
  const Parameter gate = reader.columns_or_elements("gate");
  reading.sum = {.rows = x.rows(), .cols = x.cols(), .x = reading.norm.residual, .f = &x, .factor = gate, .shift = {}};
  const bool tables = has("scale_table") || has("shift_table") || has("gate_table");
  const bool bias_inside = has("bias") && (has("scale") || has("shift"));
  if (tables || bias_inside || has("gate"))
    reading.formula = Formula(name_of_norm(statistics), call).build(statistics, reading.norm, scale_offset);
  return reading;
}

template <Statistics statistics>
void check(const NormCall& call) {
  static_cast<void>(read_call<statistics>(call));
}

bool is_residual(const CallReader& reader, std::string_view output) {
  if (output == "y") return false;
  if (output != "residual") reader.refuse("there is no output " + std::string(output) + "; known: y, residual.");
  if (reader.find("residual") == nullptr) reader.refuse("the output residual needs the input residual.");
  return true;
}

template <Statistics statistics>
std::unique_ptr<TruthSource> truth(const NormCall& call, std::string_view output) {
  const CallReader reader(name_of_norm(statistics), call);
  Reading reading = read_call<statistics>(call);
  const bool residual = is_residual(reader, output);
  if (reading.formula && (!residual || reader.find("gate_table") != nullptr))
    return formula_truth(std::move(*reading.formula), call, output, TruthKind::mpfr);
  return residual ? terms_truth(reading.sum) : affine_truth(reading.norm);
}

template <Statistics statistics>
std::optional<RowNorm> row_norm(const NormCall& call, std::string_view output) {
  const Reading reading = read_call<statistics>(call);
  return output == "y" && !reading.formula ? fast_problem(reading.norm) : std::nullopt;
}

template <Statistics statistics>
std::unique_ptr<TruthSource> fast(const NormCall& call, std::string_view output) {
  const CallReader reader(name_of_norm(statistics), call);
  Reading reading = read_call<statistics>(call);
  const bool residual = is_residual(reader, output);
  if (reading.formula && (!residual || reader.find("gate_table") != nullptr))
    return formula_truth(std::move(*reading.formula), call, output, TruthKind::fast);
  return residual ? fast_terms_truth(reading.sum) : nullptr;
}

std::vector<NormOutput> outputs_of(const NormCall& call) {
  const Shape& shape = call.inputs->find("x")->second.shape;
  std::vector<NormOutput> outputs{{"y", shape}};
  if (call.inputs->contains("residual")) outputs.push_back({"residual", shape});
  return outputs;
}

}  // namespace

constinit const NormDef ada_layernorm{
    .name = "ada_layernorm",
    .title = "Adaptive layer normalization",
    .formula =
        "h = residual + gate x; y = (scale_offset + scale) ((weight_offset + weight) (h - mean(h)) / "
        "sqrt(var(h) + eps) + bias) + shift",
    .source = "Peebles & Xie, Scalable Diffusion Models with Transformers, 2022",
    .inputs = kInputs,
    .attributes = kAttributes,
    .outputs = kOutputs,
    .check = check<Statistics::moments>,
    .truth = truth<Statistics::moments>,
    .outputs_of = outputs_of,
    .row_norm = row_norm<Statistics::moments>,
    .fast = fast<Statistics::moments>,
};

constinit const NormDef ada_rmsnorm{
    .name = "ada_rmsnorm",
    .title = "Adaptive root mean square normalization",
    .formula =
        "h = residual + gate x; y = (scale_offset + scale) ((weight_offset + weight) h / sqrt(mean(h^2) + eps) + "
        "bias) + shift",
    .source = "Zhang & Sennrich, 2019; modulated as Peebles & Xie, 2022",
    .inputs = kInputs,
    .attributes = kAttributes,
    .outputs = kOutputs,
    .check = check<Statistics::squares>,
    .truth = truth<Statistics::squares>,
    .outputs_of = outputs_of,
    .row_norm = row_norm<Statistics::squares>,
    .fast = fast<Statistics::squares>,
};

}  // namespace norma

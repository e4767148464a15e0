// RMSNorm: the affine truth of its rows; quantized outputs in rmsnorm_quantized and rmsnorm_blocks.
#include "reference/norms/rmsnorm.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "reference/norms/affine.hpp"
#include "reference/norms/call.hpp"
#include "reference/norms/rmsnorm_blocks.hpp"
#include "reference/norms/rmsnorm_quantized.hpp"
#include "reference/norms/terms.hpp"

namespace norma {

namespace {

constexpr NormInput kInputs[] = {
    {"x", "rows,cols", true, "what is normalized"},
    {"weight", "cols", false, "factor of every column, added to weight_offset"},
    {"bias", "cols", false, "added to every column"},
    {"residual", "rows,cols", false, "added to x first; the sum is an output"},
    {"scale", "", false, "divides the result (quant=static)"},
};

constexpr NormAttribute kAttributes[] = {
    {"eps", "1e-6", "", "keeps the root away from zero"},
    {"eps_place", "inside", "inside|sum|outside|max|l2max|none", "where eps enters"},
    {"weight_offset", "0", "", "1 where weights are stored as their distance from one"},
    {"quant", "none", "none|static|per_token|mxfp8|mxfp4|nvfp4", "what the result is divided by"},
    {"quant_max", "448", "", "the code that a row's largest value becomes (per_token)"},
    {"scale_floor", "0x1.2492492492492p-18", "", "least scale of a row: 1 / (448 * 512) (per_token)"},
    {"scale_cap", "inf", "", "largest absolute value that sets a scale (per_token)"},
    {"scale_rule", "ceil", "ceil|floor", "how a block's scale becomes a power of two (mxfp8, mxfp4)"},
    {"global_scale", "1", "", "factor of the result before its codes (nvfp4)"},
};

enum class Output { y, dequantized, residual, scale };
constexpr std::array<std::string_view, 4> kOutputs{"y", "dequantized", "residual", "scale"};
constexpr std::array<std::string_view, 6> kQuants{"none", "static", "per_token", "mxfp8", "mxfp4", "nvfp4"};
constexpr std::array<std::string_view, 2> kScaleRules{"ceil", "floor"};

struct Call {
  RowNorm problem;
  bool quantized = false;
  Quantization quantization;
  std::optional<BlockScales> blocks;  ///< mxfp8, mxfp4, nvfp4
};

Quantization read_quantization(const CallReader& reader, std::string_view quant) {
  const auto positive = [](double v) { return std::isfinite(v) && v > 0; };
  Quantization q;
  q.per_token = quant == "per_token";
  q.max = reader.number("quant_max", q.max, "finite and positive", positive);
  q.floor = reader.number("scale_floor", q.floor, "finite and not negative",
                          [](double v) { return std::isfinite(v) && v >= 0; });
  q.cap = reader.number("scale_cap", q.cap, "positive", [](double v) { return v > 0; });
  if (quant != "static") return q;
  const Tensor* scale = reader.find("scale");
  if (scale == nullptr) reader.refuse("quant=static needs a tensor scale of one value.");
  if (scale->size() != 1)
    reader.refuse("scale has shape " + shape_text(scale->shape) + " but must hold one value (quant=static).");
  q.scale = scale->value(0);
  if (!positive(q.scale)) reader.refuse("scale is " + number_text(q.scale) + " but must be finite and positive.");
  return q;
}

std::optional<BlockScales> read_blocks(const CallReader& reader, std::string_view quant, std::int64_t cols) {
  const bool floor = reader.word("scale_rule", kScaleRules) == "floor";
  const auto positive = [](double v) { return std::isfinite(v) && v > 0; };
  const double global = reader.number("global_scale", 1, "finite and positive", positive);
  BlockScales b{.rule = floor ? BlockScales::Rule::floor : BlockScales::Rule::ceil};
  if (quant == "mxfp4" || quant == "nvfp4") b.code_max = 6, b.code_exponent = 2;
  if (quant == "nvfp4") b.rule = BlockScales::Rule::e4m3, b.global = global;
  b.block = block_columns(quant);
  if (b.block == 1) return std::nullopt;
  if (cols % b.block != 0)
    reader.refuse("quant=" + std::string(quant) + " has a scale for every " + std::to_string(b.block) +
                  " columns, and the " + std::to_string(cols) + " of x are no multiple of them.");
  return b;
}

Call read_call(const NormCall& call) {
  const CallReader reader("rmsnorm", call);
  const Tensor& x = reader.x();
  Call c;
  c.problem = {.rows = x.rows(),
               .cols = x.cols(),
               .x = &x,
               .residual = reader.like_x("residual"),
               .statistics = Statistics::squares,
               .groups = x.rows(),
               .count = static_cast<double>(x.cols()),
               .weight = {.tensor = reader.vector("weight", x.cols())},
               .bias = {.tensor = reader.vector("bias", x.cols())}};
  c.problem.eps = reader.eps(1e-6);
  c.problem.eps_place = reader.eps_place(kEpsPlaces);
  // Without a weight the factor is 1, whatever the offset.
  const double offset = reader.finite("weight_offset", 0);
  if (c.problem.weight.tensor != nullptr) c.problem.weight.offset = offset;
  const std::string_view quant = reader.word("quant", kQuants);
  c.quantized = quant != "none";
  c.quantization = read_quantization(reader, quant);
  c.blocks = read_blocks(reader, quant, x.cols());
  return c;
}

void check(const NormCall& call) { static_cast<void>(read_call(call)); }

Output find_output(const NormCall& call, const Call& c, std::string_view name) {
  const CallReader reader("rmsnorm", call);
  const auto found = std::find(kOutputs.begin(), kOutputs.end(), name);
  if (found == kOutputs.end())
    reader.refuse("there is no output " + std::string(name) + "; known: y, dequantized, residual, scale.");
  const auto output = static_cast<Output>(found - kOutputs.begin());
  if (output == Output::residual && c.problem.residual == nullptr)
    reader.refuse("the output residual needs the input residual.");
  if ((output == Output::scale || output == Output::dequantized) && !c.quantized)
    reader.refuse("the output " + std::string(name) + " needs quant=static, per_token, mxfp8, mxfp4 or nvfp4.");
  return output;
}

std::unique_ptr<TruthSource> truth(const NormCall& call, std::string_view name) {
  const Call c = read_call(call);
  const Output output = find_output(call, c, name);
  if (c.blocks) {
    if (output == Output::y) return block_codes_truth(c.problem, *c.blocks);
    if (output == Output::scale) return block_scales_truth(c.problem, *c.blocks);
    if (output == Output::dequantized && c.blocks->global != 1) return block_dequantized_truth(c.problem, *c.blocks);
  }
  switch (output) {
    case Output::y: return c.quantized ? quantized_truth(c.problem, c.quantization) : affine_truth(c.problem);
    case Output::dequantized: return affine_truth(c.problem);
    case Output::residual: return terms_truth(residual_sum(c.problem));
    case Output::scale: return scale_truth(c.problem, c.quantization);
  }
  std::abort();
}

std::optional<RowNorm> row_norm(const NormCall& call, std::string_view name) {
  const Call c = read_call(call);
  const Output output = find_output(call, c, name);
  if (c.blocks && c.blocks->global != 1) return std::nullopt;
  const bool is_norm = output == Output::dequantized || (output == Output::y && !c.quantized);
  return is_norm ? fast_problem(c.problem) : std::nullopt;
}

std::unique_ptr<TruthSource> fast(const NormCall& call, std::string_view name) {
  const Call c = read_call(call);
  if (find_output(call, c, name) != Output::residual) return nullptr;
  return fast_terms_truth(residual_sum(c.problem));
}

std::vector<NormOutput> outputs_of(const NormCall& call) {
  const Call c = read_call(call);
  const Shape& shape = c.problem.x->shape;
  std::vector<NormOutput> outputs{{"y", shape}};
  if (c.problem.residual != nullptr) outputs.push_back({"residual", shape});
  if (c.blocks) {
    Shape scales = shape;
    scales.back() /= c.blocks->block;
    outputs.push_back({"scale", std::move(scales)});
  }
  if (c.quantized && c.quantization.per_token) outputs.push_back({"scale", Shape(shape.begin(), shape.end() - 1)});
  return outputs;
}

}  // namespace

constinit const NormDef rmsnorm{
    .name = "rmsnorm",
    .title = "Root-mean-square normalization",
    .formula = "h = x + residual; y = (weight_offset + weight) h / sqrt(mean(h^2) + eps) + bias",
    .source = "Zhang & Sennrich, Root Mean Square Layer Normalization, 2019",
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

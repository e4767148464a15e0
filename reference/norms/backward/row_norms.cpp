// The backward of norms of rows.
#include "reference/norms/backward/row_norms.hpp"

#include <array>

#include "reference/norms/backward/gradients.hpp"
#include "reference/norms/call.hpp"

namespace norma {

namespace {

constexpr std::string_view kRms = "rmsnorm_backward", kLayer = "layernorm_backward", kL2 = "l2norm_backward",
                           kAdaLayer = "ada_layernorm_backward", kAdaRms = "ada_rmsnorm_backward";

constexpr NormInput kX{"x", "rows,cols", true, "what the forward normalized"};
constexpr NormInput kDy{"dy", "rows,cols", true, "gradient of the forward's output"};
constexpr NormInput kScale{"scale", "cols|samples,cols", true, "added to scale_offset: the modulation's factor"};

constexpr NormInput kRmsInputs[] = {
    kX, kDy, {"weight", "cols", false, "factor of every column, added to weight_offset"}};
constexpr NormInput kLayerInputs[] = {
    kX, kDy, {"weight", "cols|samples,cols", false, "factor of every column, added to weight_offset"}};
constexpr NormInput kL2Inputs[] = {kX, kDy};
constexpr NormInput kAdaInputs[] = {
    kX, kDy, kScale, {"weight", "cols", false, "the norm's own factor, added to weight_offset"}};

constexpr NormAttribute kOffset{"weight_offset", "0", "", "1 where weights are stored as their distance from one"};
constexpr NormAttribute kScaleOffset{"scale_offset", "1", "",
                                     "1 where scale is the factor's distance from one, 0 where it is the factor"};
constexpr NormAttribute kRmsAttributes[] = {
    {"eps", "1e-6", "", "keeps the root away from zero"},
    {"eps_place", "inside", "inside|sum|outside|max|l2max|none", "where eps enters"},
    kOffset,
};
constexpr NormAttribute kLayerAttributes[] = {
    {"eps", "1e-5", "", "keeps the root away from zero"},
    {"eps_place", "inside", "inside|outside|max|none", "where eps enters"},
    kOffset,
    {"correction", "0", "", "taken off the number of columns in the variance"},
};
constexpr NormAttribute kL2Attributes[] = {
    {"eps", "1e-12", "", "keeps the length away from zero"},
    {"eps_place", "max", "max|sum|outside|none", "where eps enters"},
};
constexpr NormAttribute kAdaAttributes[] = {
    {"eps", "1e-6", "", "keeps the root away from zero"}, kOffset, kScaleOffset};

constexpr std::array<std::string_view, 4> kLayerPlaces{"inside", "outside", "max", "none"};
constexpr std::array<std::string_view, 4> kL2Places{"max", "sum", "outside", "none"};

constexpr std::array<std::string_view, 1> kOnlyDx{"dx"};
constexpr std::array<std::string_view, 3> kAffineOutputs{"dx", "dweight", "dbias"};
constexpr std::array<std::string_view, 4> kAdaOutputs{"dx", "dscale", "dshift", "dweight"};

/// A row's norm before its eps and weight are known.
RowNorm rows_of(const Tensor& x, Statistics statistics) {
  return {.rows = x.rows(),
          .cols = x.cols(),
          .x = &x,
          .statistics = statistics,
          .groups = x.rows(),
          .count = static_cast<double>(x.cols())};
}

/// dweight, where there is a weight, and dbias; of weight's shape.
void add_affine(Gradients& gradients) {
  const Parameter& weight = gradients.forward.weight;
  const Shape shape = weight.tensor != nullptr ? weight.tensor->shape : Shape{gradients.forward.cols};
  if (weight.tensor != nullptr)
    gradients.sums.push_back({.name = "dweight", .shape = shape, .index = weight.index, .normalized = true});
  gradients.sums.push_back({.name = "dbias", .shape = shape, .index = weight.index});
}

Gradients read_rms(const NormCall& call) {
  const CallReader reader(kRms, call);
  Gradients g{.forward = rows_of(reader.x(), Statistics::squares), .dy = read_dy(reader)};
  g.forward.eps = reader.eps(1e-6);
  g.forward.eps_place = reader.eps_place(kEpsPlaces);
  g.forward.weight = {.tensor = reader.vector("weight", g.forward.cols)};
  const double offset = reader.finite("weight_offset", 0);
  if (g.forward.weight.tensor != nullptr) g.forward.weight.offset = offset;
  add_affine(g);
  return g;
}

Gradients read_layer(const NormCall& call) {
  const CallReader reader(kLayer, call);
  Gradients g{.forward = rows_of(reader.x(), Statistics::moments), .dy = read_dy(reader)};
  const double cols = g.forward.count;
  g.forward.count -= reader.number("correction", 0, "at least 0 and below the number of columns",
                                   [cols](double v) { return v >= 0 && v < cols; });
  g.forward.eps = reader.eps(1e-5);
  g.forward.eps_place = reader.eps_place(kLayerPlaces);
  g.forward.weight = reader.columns("weight", reader.finite("weight_offset", 0));
  add_affine(g);
  return g;
}

Gradients read_l2(const NormCall& call) {
  const CallReader reader(kL2, call);
  Gradients g{.forward = rows_of(reader.x(), Statistics::squares), .dy = read_dy(reader)};
  g.forward.count = 1;
  g.forward.eps = reader.eps(1e-12);
  g.forward.eps_place = reader.eps_place(kL2Places);
  return g;
}

template <Statistics statistics>
Gradients read_ada(const NormCall& call) {
  const CallReader reader(statistics == Statistics::moments ? kAdaLayer : kAdaRms, call);
  Gradients g{.forward = rows_of(reader.x(), statistics), .dy = read_dy(reader)};
  g.forward.eps = reader.eps(1e-6);
  const double offset = reader.number("scale_offset", 1, "0 or 1", [](double v) { return v == 0 || v == 1; });
  const double weight_offset = reader.finite("weight_offset", 0);
  static_cast<void>(reader.vector("weight", g.forward.cols));
  g.forward.weight = reader.columns("weight", weight_offset);
  g.forward.scale = reader.columns("scale", offset);
  const Parameter& scale = g.forward.scale;
  if (scale.tensor == nullptr) reader.refuse("there is no tensor scale.");
  const Shape& shape = scale.tensor->shape;
  g.sums.push_back(
      {.name = "dscale", .shape = shape, .index = scale.index, .normalized = true, .factor = g.forward.weight});
  g.sums.push_back({.name = "dshift", .shape = shape, .index = scale.index});
  if (const Tensor* weight = g.forward.weight.tensor)
    g.sums.push_back({.name = "dweight", .shape = weight->shape, .index = {}, .normalized = true, .factor = scale});
  return g;
}

using Rms = GradientNorm<read_rms, kRms>;
using Layer = GradientNorm<read_layer, kLayer>;
using L2 = GradientNorm<read_l2, kL2>;
using AdaLayer = GradientNorm<read_ada<Statistics::moments>, kAdaLayer>;
using AdaRms = GradientNorm<read_ada<Statistics::squares>, kAdaRms>;

}  // namespace

constinit const NormDef rmsnorm_backward{
    .name = kRms,
    .title = "Gradient of root-mean-square normalization",
    .formula =
        "g = dy (weight_offset + weight); r = 1 / sqrt(mean(x^2) + eps); dx = r g - r^3 x mean(g x); dweight = "
        "sum over rows of dy x r; dbias = sum over rows of dy",
    .source = "the derivative of rmsnorm: Zhang & Sennrich, Root Mean Square Layer Normalization, 2019",
    .inputs = kRmsInputs,
    .attributes = kRmsAttributes,
    .outputs = kAffineOutputs,
    .check = Rms::check,
    .truth = Rms::truth,
    .outputs_of = Rms::outputs_of,
    .fast = Rms::fast,
};

constinit const NormDef layernorm_backward{
    .name = kLayer,
    .title = "Gradient of layer normalization",
    .formula =
        "g = dy (weight_offset + weight); r = 1 / sqrt(var(x) + eps); xhat = (x - mean(x)) r; dx = r (g - "
        "mean(g) - xhat mean(g xhat)); dweight = sum over rows of dy xhat; dbias = sum over rows of dy",
    .source = "the derivative of layernorm: Ba, Kiros & Hinton, Layer Normalization, 2016",
    .inputs = kLayerInputs,
    .attributes = kLayerAttributes,
    .outputs = kAffineOutputs,
    .check = Layer::check,
    .truth = Layer::truth,
    .outputs_of = Layer::outputs_of,
    .fast = Layer::fast,
};

constinit const NormDef l2norm_backward{
    .name = kL2,
    .title = "Gradient of L2 normalization",
    .formula = "r = 1 / max(sqrt(sum(x^2)), eps); dx = r dy - r^3 x sum(dy x), r dy where eps is larger",
    .source = "the derivative of l2norm: torch.nn.functional.normalize",
    .inputs = kL2Inputs,
    .attributes = kL2Attributes,
    .outputs = kOnlyDx,
    .check = L2::check,
    .truth = L2::truth,
    .outputs_of = L2::outputs_of,
    .fast = L2::fast,
};

constinit const NormDef ada_layernorm_backward{
    .name = kAdaLayer,
    .title = "Gradient of adaptive layer normalization",
    .formula =
        "n = (weight_offset + weight) xhat; g = dy (scale_offset + scale) (weight_offset + weight); dx = r (g - "
        "mean(g) - xhat mean(g xhat)); dscale = sum over tokens of dy n; dshift = sum over tokens of dy; "
        "dweight = sum over rows of dy (scale_offset + scale) xhat",
    .source = "the derivative of ada_layernorm: Peebles & Xie, Scalable Diffusion Models with Transformers, 2022",
    .inputs = kAdaInputs,
    .attributes = kAdaAttributes,
    .outputs = kAdaOutputs,
    .check = AdaLayer::check,
    .truth = AdaLayer::truth,
    .outputs_of = AdaLayer::outputs_of,
    .fast = AdaLayer::fast,
};

constinit const NormDef ada_rmsnorm_backward{
    .name = kAdaRms,
    .title = "Gradient of adaptive root-mean-square normalization",
    .formula =
        "n = (weight_offset + weight) x r; g = dy (scale_offset + scale) (weight_offset + weight); dx = r g - "
        "r^3 x mean(g x); dscale = sum over tokens of dy n; dshift = sum over tokens of dy; dweight = sum over "
        "rows of dy (scale_offset + scale) x r",
    .source = "the derivative of ada_rmsnorm: Zhang & Sennrich, 2019; modulated as Peebles & Xie, 2022",
    .inputs = kAdaInputs,
    .attributes = kAdaAttributes,
    .outputs = kAdaOutputs,
    .check = AdaRms::check,
    .truth = AdaRms::truth,
    .outputs_of = AdaRms::outputs_of,
    .fast = AdaRms::fast,
};

}  // namespace norma

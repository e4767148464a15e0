// The backward of modulation and gated residual.
#include "reference/norms/backward/modulation.hpp"

#include <array>
#include <string>

#include "reference/norms/backward/gradients.hpp"
#include "reference/norms/call.hpp"
#include "reference/norms/terms.hpp"

namespace norma {

namespace {

constexpr std::string_view kModulate = "modulate_backward", kGated = "gated_residual_backward";

constexpr NormInput kDy{"dy", "rows,cols", true, "gradient of the forward's output"};
constexpr NormInput kModulateInputs[] = {
    {"x", "rows,cols", true, "what the forward modulated"},
    kDy,
    {"scale", "cols|samples,cols|rows,cols", true, "added to scale_offset: the factor"},
};
constexpr NormInput kGatedInputs[] = {
    {"x", "rows,cols", true, "what the forward's gate multiplied"},
    kDy,
    {"gate", "cols|samples,cols|rows,cols", true, "factor of x"},
};
constexpr NormAttribute kModulateAttributes[] = {
    {"scale_offset", "1", "", "1 where scale is the factor's distance from one, 0 where it is the factor"},
};
constexpr std::array<std::string_view, 3> kModulateOutputs{"dx", "dscale", "dshift"};
constexpr std::array<std::string_view, 3> kGatedOutputs{"dx", "dresidual", "dgate"};

/// Products of dy and sums of them.
struct Products {
  ThreeTerms dx;
  const Tensor* parameter = nullptr;
  ParameterIndex index{};
};

Products read(const CallReader& reader, std::string_view name, double offset) {
  const Tensor& x = reader.x();
  const Tensor* dy = read_dy(reader);
  const Parameter parameter = reader.columns_or_elements(name);
  if (parameter.tensor == nullptr) reader.refuse("there is no tensor " + std::string(name) + ".");
  return {.dx = {.rows = x.rows(),
                 .cols = x.cols(),
                 .x = dy,
                 .f = nullptr,
                 .factor = parameter,
                 .shift = {},
                 .one = offset == 1 ? 1 : 0},
          .parameter = parameter.tensor,
          .index = parameter.index};
}

Products read_modulate(const NormCall& call) {
  const CallReader reader(kModulate, call);
  return read(reader, "scale", reader.number("scale_offset", 1, "0 or 1", [](double v) { return v == 0 || v == 1; }));
}

Products read_gated(const NormCall& call) { return read(CallReader(kGated, call), "gate", 0); }

std::unique_ptr<TruthSource> product(const ThreeTerms& terms, TruthKind kind) {
  if (kind == TruthKind::fast)
    if (auto fast = fast_terms_truth(terms)) return fast;
  return terms_truth(terms);
}

template <Products (*read_call)(const NormCall&)>
struct ProductNorm {
  static constexpr bool is_gated = read_call == read_gated;
  static constexpr auto& outputs = is_gated ? kGatedOutputs : kModulateOutputs;

  static void check(const NormCall& call) { static_cast<void>(read_call(call)); }

  static std::unique_ptr<TruthSource> of(const NormCall& call, std::string_view output, TruthKind kind) {
    const Products p = read_call(call);
    if (output == "dx") return product(p.dx, kind);
    if (output == "dresidual" && is_gated)
      return product(
          {.rows = p.dx.rows, .cols = p.dx.cols, .x = p.dx.x, .f = nullptr, .factor = {}, .shift = {}, .one = 0}, kind);
    GradientSum sum{.name = output, .shape = p.parameter->shape, .index = p.index};
    if (output == (is_gated ? "dgate" : "dscale")) {
      const std::int64_t rows = p.dx.rows, cols = p.dx.cols;
      sum.factor = {.tensor = &call.inputs->find("x")->second,
                    .offset = 0,
                    .index = {.rows_each = 1, .period = rows, .per_row = cols, .span = 1}};
    } else if (is_gated || output != "dshift") {
      std::string known;
      for (const std::string_view name : outputs) known += (known.empty() ? "" : ", ") + std::string(name);
      CallReader(is_gated ? kGated : kModulate, call)
          .refuse("there is no output " + std::string(output) + "; known: " + known + ".");
    }
    return plain_sum(*p.dx.x, p.dx.rows, p.dx.cols, sum, kind);
  }
  static std::unique_ptr<TruthSource> truth(const NormCall& call, std::string_view output) {
    return of(call, output, TruthKind::mpfr);
  }
  static std::unique_ptr<TruthSource> fast(const NormCall& call, std::string_view output) {
    return of(call, output, TruthKind::fast);
  }
  static std::vector<NormOutput> outputs_of(const NormCall& call) {
    const Products p = read_call(call);
    const Shape& x = p.dx.x->shape;
    if (is_gated) return {{"dx", x}, {"dresidual", x}, {"dgate", p.parameter->shape}};
    return {{"dx", x}, {"dscale", p.parameter->shape}, {"dshift", p.parameter->shape}};
  }
};

using Modulate = ProductNorm<read_modulate>;
using Gated = ProductNorm<read_gated>;

}  // namespace

constinit const NormDef modulate_backward{
    .name = kModulate,
    .title = "Gradient of modulation by scale and shift",
    .formula = "dx = dy (scale_offset + scale); dscale = sum over tokens of dy x; dshift = sum over tokens of dy",
    .source = "the derivative of modulate: Peebles & Xie, Scalable Diffusion Models with Transformers, 2022",
    .inputs = kModulateInputs,
    .attributes = kModulateAttributes,
    .outputs = kModulateOutputs,
    .check = Modulate::check,
    .truth = Modulate::truth,
    .outputs_of = Modulate::outputs_of,
    .fast = Modulate::fast,
};

constinit const NormDef gated_residual_backward{
    .name = kGated,
    .title = "Gradient of gated residual",
    .formula = "y = residual + gate x; dx = dy gate; dresidual = dy; dgate = sum over tokens of dy x",
    .source = "the derivative of gated_residual: Peebles & Xie, Scalable Diffusion Models with Transformers, 2022",
    .inputs = kGatedInputs,
    .attributes = {},
    .outputs = kGatedOutputs,
    .check = Gated::check,
    .truth = Gated::truth,
    .outputs_of = Gated::outputs_of,
    .fast = Gated::fast,
};

}  // namespace norma

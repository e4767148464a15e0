// LayerNorm.
#include "reference/norms/layernorm.hpp"

#include <array>

#include "reference/norms/affine.hpp"
#include "reference/norms/call.hpp"
#include "reference/norms/terms.hpp"

namespace norma {

namespace {

constexpr NormInput kInputs[] = {
    {"x", "rows,cols", true, "what is normalized"},
    {"weight", "cols|samples,cols", false, "factor of every column, added to weight_offset"},
    {"bias", "cols|samples,cols", false, "added to every column"},
    {"residual", "rows,cols", false, "added to x first; the sum is an output"},
};

constexpr NormAttribute kAttributes[] = {
    {"eps", "1e-5", "", "keeps the root away from zero"},
    {"eps_place", "inside", "inside|outside|max|none", "where eps enters"},
    {"weight_offset", "0", "", "1 where weights are stored as their distance from one"},
    {"correction", "0", "", "taken off the number of columns in the variance"},
};
constexpr std::array<std::string_view, 4> kPlaces{"inside", "outside", "max", "none"};
constexpr std::array<std::string_view, 2> kOutputs{"y", "residual"};

RowNorm read_call(const NormCall& call) {
  const CallReader reader("layernorm", call);
  const Tensor& x = reader.x();
  const auto cols = static_cast<double>(x.cols());
  const double correction = reader.number("correction", 0, "at least 0 and below the number of columns",
                                          [cols](double v) { return v >= 0 && v < cols; });
  return {.rows = x.rows(),
          .cols = x.cols(),
          .x = &x,
          .residual = reader.like_x("residual"),
          .statistics = Statistics::moments,
          .groups = x.rows(),
          .count = cols - correction,
          .eps_place = reader.eps_place(kPlaces),
          .eps = reader.eps(1e-5),
          .weight = reader.columns("weight", reader.finite("weight_offset", 0)),
          .bias = reader.columns("bias")};
}

void check(const NormCall& call) { static_cast<void>(read_call(call)); }

bool is_residual(const NormCall& call, const RowNorm& problem, std::string_view output) {
  const CallReader reader("layernorm", call);
  if (output == "y") return false;
  if (output != "residual") reader.refuse("there is no output " + std::string(output) + "; known: y, residual.");
  if (problem.residual == nullptr) reader.refuse("the output residual needs the input residual.");
  return true;
}

std::unique_ptr<TruthSource> truth(const NormCall& call, std::string_view output) {
  const RowNorm problem = read_call(call);
  return is_residual(call, problem, output) ? terms_truth(residual_sum(problem)) : affine_truth(problem);
}

std::optional<RowNorm> row_norm(const NormCall& call, std::string_view output) {
  const RowNorm problem = read_call(call);
  return is_residual(call, problem, output) ? std::nullopt : fast_problem(problem);
}

std::unique_ptr<TruthSource> fast(const NormCall& call, std::string_view output) {
  const RowNorm problem = read_call(call);
  return is_residual(call, problem, output) ? fast_terms_truth(residual_sum(problem)) : nullptr;
}

std::vector<NormOutput> outputs_of(const NormCall& call) {
  const RowNorm problem = read_call(call);
  std::vector<NormOutput> outputs{{"y", problem.x->shape}};
  if (problem.residual != nullptr) outputs.push_back({"residual", problem.x->shape});
  return outputs;
}

}  // namespace

constinit const NormDef layernorm{
    .name = "layernorm",
    .title = "Layer normalization",
    .formula = "h = x + residual; y = (weight_offset + weight) (h - mean(h)) / sqrt(var(h) + eps) + bias",
    .source = "Ba, Kiros & Hinton, Layer Normalization, 2016",
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

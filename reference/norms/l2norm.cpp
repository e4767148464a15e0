// L2 normalization.
#include "reference/norms/l2norm.hpp"

#include <array>

#include "reference/norms/affine.hpp"
#include "reference/norms/call.hpp"

namespace norma {

namespace {

constexpr NormInput kInputs[] = {{"x", "rows,cols", true, "what is normalized"}};
constexpr NormAttribute kAttributes[] = {
    {"eps", "1e-12", "", "keeps the length away from zero"},
    {"eps_place", "max", "max|sum|outside|none", "where eps enters"},
};
constexpr std::array<std::string_view, 4> kPlaces{"max", "sum", "outside", "none"};
constexpr std::array<std::string_view, 1> kOutputs{"y"};

RowNorm read_call(const NormCall& call) {
  const CallReader reader("l2norm", call);
  const Tensor& x = reader.x();
  return {.rows = x.rows(),
          .cols = x.cols(),
          .x = &x,
          .statistics = Statistics::squares,
          .groups = x.rows(),
          .count = 1,
          .eps_place = reader.eps_place(kPlaces),
          .eps = reader.eps(1e-12)};
}

void check(const NormCall& call) { static_cast<void>(read_call(call)); }

std::unique_ptr<TruthSource> truth(const NormCall& call, std::string_view output) {
  if (output != "y") CallReader("l2norm", call).refuse("there is no output " + std::string(output) + "; known: y.");
  return affine_truth(read_call(call));
}

std::optional<RowNorm> row_norm(const NormCall& call, std::string_view) { return fast_problem(read_call(call)); }

std::vector<NormOutput> outputs_of(const NormCall& call) { return {{"y", read_call(call).x->shape}}; }

}  // namespace

constinit const NormDef l2norm{
    .name = "l2norm",
    .title = "L2 normalization",
    .formula = "y = x / max(sqrt(sum(x^2)), eps)",
    .source = "torch.nn.functional.normalize",
    .inputs = kInputs,
    .attributes = kAttributes,
    .outputs = kOutputs,
    .check = check,
    .truth = truth,
    .outputs_of = outputs_of,
    .row_norm = row_norm,
};

}  // namespace norma

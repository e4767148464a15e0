// From an output's name to its truth.
#include "reference/norms/backward/gradients.hpp"

#include <string>

namespace norma {

std::unique_ptr<TruthSource> gradient_truth(std::string_view norm, const Gradients& gradients, std::string_view output,
                                            TruthKind kind) {
  const bool fast = kind == TruthKind::fast;
  if (output == "dx") return fast ? fast_dx(gradients) : exact_dx(gradients);
  std::string known = "dx";
  for (const GradientSum& sum : gradients.sums) {
    known += ", " + std::string(sum.name);
    if (sum.name != output) continue;
    const RowNorm& forward = gradients.forward;
    if (!sum.normalized) return plain_sum(*gradients.dy, forward.rows, forward.cols, sum, kind);
    return fast ? fast_normalized_sum(gradients, sum) : exact_normalized_sum(gradients, sum);
  }
  throw NormError(std::string(norm) + ": this call has no output " + std::string(output) + "; it has: " + known + ".");
}

std::vector<NormOutput> gradient_outputs(const Gradients& gradients) {
  std::vector<NormOutput> outputs{{"dx", gradients.forward.x->shape}};
  for (const GradientSum& sum : gradients.sums) outputs.push_back({sum.name, sum.shape});
  return outputs;
}

const Tensor* read_dy(const CallReader& reader) {
  const Tensor* dy = reader.like_x("dy");
  if (dy == nullptr) reader.refuse("there is no tensor dy; it is the gradient of the forward's output.");
  return dy;
}

}  // namespace norma

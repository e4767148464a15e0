// The catalogue of norms.
#include <array>

#include "reference/norms/activations.hpp"
#include "reference/norms/ada_groupnorm.hpp"
#include "reference/norms/ada_norms.hpp"
#include "reference/norms/backward/channel_norms.hpp"
#include "reference/norms/backward/modulation.hpp"
#include "reference/norms/backward/row_norms.hpp"
#include "reference/norms/channel_norms.hpp"
#include "reference/norms/grn.hpp"
#include "reference/norms/l2norm.hpp"
#include "reference/norms/layernorm.hpp"
#include "reference/norms/lp_norm.hpp"
#include "reference/norms/norm.hpp"
#include "reference/norms/rmsnorm.hpp"
#include "reference/norms/rmsnorm_gated.hpp"
#include "reference/norms/rope.hpp"
#include "reference/norms/softmax.hpp"
#include "reference/norms/terms.hpp"

namespace norma {

namespace {
constexpr std::array kNorms{&rmsnorm, &layernorm, &groupnorm, &instancenorm, &batchnorm, &l2norm, &modulate,
                            &gated_residual, &ada_layernorm, &ada_rmsnorm, &ada_groupnorm, &rmsnorm_gated, &lp_norm, &grn,
                            &rope, &rmsnorm_rope,
                            &silu_norm, &gelu_norm, &softmax,
                            &rmsnorm_backward, &layernorm_backward, &groupnorm_backward, &instancenorm_backward,
                            &batchnorm_backward, &l2norm_backward, &modulate_backward, &gated_residual_backward,
                            &ada_layernorm_backward, &ada_rmsnorm_backward};
}

std::span<const NormDef* const> all_norms() { return kNorms; }

const NormDef* find_norm(std::string_view name) {
  for (const NormDef* norm : kNorms)
    if (norm->name == name) return norm;
  return nullptr;
}

std::unique_ptr<TruthSource> truth_of(const NormDef& norm, const NormCall& call, std::string_view output,
                                      TruthKind kind) {
  std::unique_ptr<TruthSource> exact = norm.truth(call, output);
  if (kind == TruthKind::mpfr) return exact;
  if (norm.fast != nullptr)
    if (std::unique_ptr<TruthSource> fast = norm.fast(call, output)) return fast;
  if (norm.row_norm == nullptr) return exact;
  const std::optional<RowNorm> problem = norm.row_norm(call, output);
  if (!problem || !has_fast_tiers(*problem)) return exact;
  return certified_truth(*problem, std::move(exact));
}

}  // namespace norma

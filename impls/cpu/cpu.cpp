// The list of native CPU kernels.
#include "impls/cpu/cpu.hpp"

#include <memory>
#include <vector>

#include "impls/cpu/elementwise.hpp"
#include "impls/cpu/row_norm_kernel.hpp"

namespace norma {

namespace {

using Kernels = std::vector<std::unique_ptr<Implementation>>;

Kernels make_kernels() {
  using enum RowNormKind;
  Kernels kernels;
  for (const Statistic* s : {&kRmsSequential, &kRmsLanes, &kRmsDoubleAccumulator})
    for (const Tail tail : {Tail::once, Tail::before_weight}) kernels.push_back(make_row_norm(rmsnorm, s, tail));
  for (const Statistic* s : {&kTwoPass, &kWelford, &kOnePass, &kTwoPassDouble})
    for (const Tail tail : {Tail::once, Tail::before_weight}) kernels.push_back(make_row_norm(layernorm, s, tail));
  for (const RowNormKind kind : {groupnorm, groupnorm_channels_last, instancenorm, batchnorm_train}) {
    for (const Statistic* s : {&kTwoPass, &kWelford, &kOnePass, &kTwoPassDouble})
      kernels.push_back(make_row_norm(kind, s, Tail::once));
    kernels.push_back(make_row_norm(kind, &kTwoPass, Tail::alpha_beta));
  }
  for (const Tail tail : {Tail::once, Tail::alpha_beta})
    kernels.push_back(make_row_norm(batchnorm_eval, nullptr, tail));
  for (const Steps steps : {Steps::eager, Steps::fused}) kernels.push_back(make_modulate(steps));
  for (const Steps steps : {Steps::eager, Steps::fused}) kernels.push_back(make_gated_residual(steps));
  return kernels;
}

}  // namespace

std::span<Implementation* const> cpu_implementations() {
  static const Kernels kernels = make_kernels();
  static const auto list = [] {
    std::vector<Implementation*> pointers;
    for (const auto& kernel : kernels) pointers.push_back(kernel.get());
    return pointers;
  }();
  return list;
}

}  // namespace norma

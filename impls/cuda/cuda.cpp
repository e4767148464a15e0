// The list of CUDA kernels.
#include "impls/cuda/cuda.hpp"

#include <utility>
#include <vector>

#include "impls/cuda/activation.hpp"
#include "impls/cuda/ada_layernorm.hpp"
#include "impls/cuda/channel_norm.hpp"
#include "impls/cuda/elementwise.hpp"
#include "impls/cuda/layernorm.hpp"
#include "impls/cuda/rms_quantized.hpp"
#include "impls/cuda/rms_residual.hpp"
#include "impls/cuda/rmsnorm.hpp"
#include "impls/cuda/rope.hpp"
#include "impls/cuda/softmax.hpp"

namespace norma {

namespace {

using namespace cuda;

std::vector<std::unique_ptr<Implementation>> make_all() {
  std::vector<std::unique_ptr<Implementation>> all;
  for (const SideKind side : {SideKind::gpu, SideKind::host}) {
    for (const RowThreads row : {RowThreads::warp, RowThreads::block})
      for (const RmsTail tail : {RmsTail::once, RmsTail::before_weight, RmsTail::one_plus_weight,
                                 RmsTail::rounded_one_plus_weight, RmsTail::all_rounded})
        for (const bool approximate : {false, true})
          all.push_back(make_rmsnorm({.side = side, .row = row, .tail = tail, .approximate_root = approximate}));
    for (const RowThreads row : {RowThreads::warp, RowThreads::block})
      for (const ResidualSum sum : {ResidualSum::rounded, ResidualSum::unrounded})
        for (const RmsTail tail : {RmsTail::once, RmsTail::before_weight, RmsTail::one_plus_weight})
          for (const bool approximate : {false, true})
            all.push_back(make_rms_residual(
                {.side = side, .row = row, .sum = sum, .tail = tail, .approximate_root = approximate}));
    for (auto& kernel : make_rms_quantized(side)) all.push_back(std::move(kernel));
    for (const RowThreads row : {RowThreads::warp, RowThreads::block})
      for (const Statistic statistic : {Statistic::two_pass, Statistic::welford, Statistic::one_pass})
        for (const bool approximate : {false, true}) {
          for (const LayerNormTail tail : {LayerNormTail::once, LayerNormTail::before_affine})
            all.push_back(make_layernorm({.side = side, .row = row, .statistic = statistic, .tail = tail,
                                          .approximate_root = approximate}));
          if (statistic == Statistic::one_pass) continue;
          for (const Roundings roundings : {Roundings::each, Roundings::one})
            all.push_back(make_ada_layernorm({.side = side, .row = row, .statistic = statistic,
                                              .approximate_root = approximate, .roundings = roundings}));
        }
    for (auto& kernel : make_channel_norms(side)) all.push_back(std::move(kernel));
    for (const RopeRoundings roundings : {RopeRoundings::each, RopeRoundings::fp32, RopeRoundings::one}) {
      all.push_back(make_rope({.side = side, .roundings = roundings}));
      for (const bool approximate : {false, true})
        all.push_back(make_rope({.side = side, .roundings = roundings, .normed = true, .approximate_root = approximate}));
    }
    for (const Roundings roundings : {Roundings::each, Roundings::one}) {
      all.push_back(cuda::make_modulate(side, roundings));
      all.push_back(cuda::make_gated_residual(side, roundings));
    }
    for (const Activation activation :
         {Activation::silu_library, Activation::silu_steps, Activation::gelu_erf, Activation::gelu_tanh})
      all.push_back(make_activation(side, activation));
    for (const RowThreads row : {RowThreads::warp, RowThreads::block})
      for (const Exponential exponential : {Exponential::library, Exponential::steps})
        all.push_back(make_softmax({.side = side, .row = row, .exponential = exponential}));
  }
  return all;
}

}  // namespace

std::span<Implementation* const> cuda_implementations() {
  static const auto kernels = make_all();
  static const auto list = [] {
    std::vector<Implementation*> pointers;
    for (const auto& kernel : kernels) pointers.push_back(kernel.get());
    return pointers;
  }();
  return list;
}

}  // namespace norma

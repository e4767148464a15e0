// Where a path runs: orders of sums, roots, contraction. Each title says how the facts are known:
// measured (bits compared), read (in the source) or assumed.
#include <algorithm>

#include "impls/cast_paths/cast_path.hpp"

namespace norma {

namespace {

using Root = Profile::Root;

constexpr Order order(OrderKind kind, int count = 0, int vec = 0) { return {.kind = kind, .count = count, .vec = vec}; }

constexpr Profile uniform(std::string_view name, std::string_view title, Order sum, bool contract, Root root) {
  return {.name = name, .title = title, .sum = sum, .sum_half = sum, .contract_squares = contract, .root = root};
}

constexpr Profile kProfiles[] = {
    {.name = "torch_cpu",
     .title = "torch 2.x on x86-64: 8 lanes in every capability, no contraction (measured, 2.6.0 "
              "and 2.15)",
     .sum = order(OrderKind::torch_cpu, 8),
     .sum_half = order(OrderKind::torch_cpu_half, 8),
     .contract_squares = false,
     .root = Root::sqrt_then_reciprocal},
    {.name = "torch_cpu_scalar",
     .title = "as torch_cpu, 16-bit roots by the scalar loop: the last n mod 16 rows of a thread "
              "(measured, 2.6.0)",
     .sum = order(OrderKind::torch_cpu, 8),
     .sum_half = order(OrderKind::torch_cpu_half, 8),
     .contract_squares = false,
     .root = Root::sqrt_then_reciprocal},
    {.name = "torch_cpu_neon",
     .title = "torch 2.x on aarch64: 4 lanes (assumed)",
     .sum = order(OrderKind::torch_cpu, 4),
     .sum_half = order(OrderKind::torch_cpu_half, 4),
     .contract_squares = false,
     .root = Root::sqrt_then_reciprocal},
    uniform("torch_cpu_norm", "torch 2.x on x86-64: vector_norm over a contiguous axis (measured, 2.6.0)",
            order(OrderKind::torch_norm, 8, 1), false, Root::sqrt_then_reciprocal),
    uniform("torch_cpu_strided",
            "torch 2.x on x86-64: vector_norm over a strided axis, one accumulator, no contraction "
            "(measured, 2.15)",
            order(OrderKind::sequential), false, Root::sqrt_then_reciprocal),
    {.name = "torch_cpu_moments",
     .title = "torch's layer_norm and contiguous group_norm on x86-64 with FMA: 8 lanes, avx2 and avx512 alike "
              "(measured, 2.15)",
     .sum = order(OrderKind::torch_moments, 8, 1),
     .sum_half = order(OrderKind::torch_moments, 8, 2),
     .contract_squares = true,
     .root = Root::sqrt_then_reciprocal},
    {.name = "torch_cpu_moments_plain",
     .title = "as torch_cpu_moments, nothing contracted: ATEN_CPU_CAPABILITY=default (measured, 2.15)",
     .sum = order(OrderKind::torch_moments, 8, 1),
     .sum_half = order(OrderKind::torch_moments, 8, 2),
     .contract_squares = false,
     .root = Root::sqrt_then_reciprocal},
    {.name = "torch_cpu_moments_2_6",
     .title = "torch's layer_norm on x86-64 with FMA, up to 2.6 (measured, 2.6.0)",
     .sum = order(OrderKind::torch_moments_2_6, 8, 1),
     .sum_half = order(OrderKind::torch_moments_2_6, 8, 2),
     .contract_squares = true,
     .root = Root::sqrt_then_reciprocal},
    uniform("torch_cpu_moments_bf16",
            "torch's layer_norm of bf16 rows on x86-64, 1.11 to 1.13: 16 lanes, each step rounded to bf16 (measured, "
            "1.13.1)",
            order(OrderKind::torch_moments_2_6, 16, 1), true, Root::sqrt_then_reciprocal),
    {.name = "torch_cpu_softmax",
     .title = "torch's softmax over the last axis on x86-64 with AVX-512: 16 lanes (measured, 2.15)",
     .sum = order(OrderKind::torch_reduce, 16, 1),
     .sum_half = order(OrderKind::ort_rows, 16, 1),
     .contract_squares = false,
     .root = Root::sqrt_then_reciprocal},
    {.name = "torch_cpu_softmax_avx2",
     .title = "as torch_cpu_softmax, 8 lanes: AVX2 (read)",
     .sum = order(OrderKind::torch_reduce, 8, 1),
     .sum_half = order(OrderKind::ort_rows, 8, 1),
     .contract_squares = false,
     .root = Root::sqrt_then_reciprocal},
    uniform("torch_cuda", "torch 2.x eager on CUDA: 512 threads, vectors of 4 (assumed), rsqrtf",
            order(OrderKind::block, 512, 4), false, Root::within_2_ulp),
    uniform("torch_cuda_fused", "torch's layer_norm kernels on CUDA: 128 threads, vectors of 4 (read), rsqrtf",
            order(OrderKind::block, 128, 4), true, Root::within_2_ulp),
    uniform("torch_cuda_moments", "torch's RowwiseMoments kernel on CUDA: 512 threads, scalars (assumed), rsqrtf",
            order(OrderKind::block, 512, 1), true, Root::within_2_ulp),
    uniform("onnxruntime_cpu", "ONNX Runtime's kernels of 8 lanes on x86-64 with AVX2 and FMA (measured, 1.31)",
            order(OrderKind::ort_rows, 8, 4), true, Root::sqrt_then_reciprocal),
    uniform("xla_cpu",
            "XLA on x86-64 op by op, arrays of fewer than 4096 elements: windows of 32 padded on both sides (measured, jax "
            "0.10.2)",
            order(OrderKind::blocked, 32), false, Root::within_2_ulp),
    uniform("xla_cpu_jit", "as xla_cpu, compiled as one: products and sums contract, squares do not (measured, jax 0.10.2)",
            order(OrderKind::blocked, 32), true, Root::within_2_ulp),
    uniform("sequential", "one accumulator, first to last, 1 / sqrtf: a plain loop", order(OrderKind::sequential),
            false, Root::sqrt_then_reciprocal),
    uniform("pairwise", "halves down to 8 terms, 1 / sqrtf", order(OrderKind::pairwise, 8), false,
            Root::sqrt_then_reciprocal),
    uniform("cuda_warp", "one warp a row, vectors of 8, fused multiply-adds, rsqrtf (assumed)",
            order(OrderKind::warp, 32, 8), true, Root::within_2_ulp),
    uniform("cuda_block", "1024 threads, scalars, a tree over the warps, fused multiply-adds, rsqrtf (assumed)",
            order(OrderKind::block, 1024, 1), true, Root::within_2_ulp),
    uniform("cuda_block_vec8", "256 threads, vectors of 8, fused multiply-adds, rsqrtf (assumed)",
            order(OrderKind::block, 256, 8), true, Root::within_2_ulp),
    uniform("cuda_4warps", "4 warps, vectors of 4: apex and its descendants (read; lane order assumed), rsqrtf",
            order(OrderKind::block, 128, 4), true, Root::within_2_ulp),
    uniform("flashinfer", "up to 1024 threads, 16-byte vectors, butterflies (read), rsqrt.approx.ftz without the ftz",
            order(OrderKind::block, 1024, 8), true, Root::within_2_ulp),
    uniform("triton", "8 warps, vectors of 8 (assumed), approximate root and division", order(OrderKind::block, 256, 8),
            true, Root::within_2_ulp),
    uniform("metal", "MLX on Metal: vectors of 4, 1024 threads (assumed), precise::rsqrt taken as correct",
            order(OrderKind::block, 1024, 4), true, Root::correct),
    uniform("exact", "exact sums rounded once, correctly rounded roots: no machine, a bound on all of them",
            order(OrderKind::exact), false, Root::correct),
};

}  // namespace

std::span<const Profile> all_profiles() { return kProfiles; }

const Profile* find_profile(std::string_view name) {
  const auto* found = std::ranges::find(kProfiles, name, &Profile::name);
  return found == std::end(kProfiles) ? nullptr : found;
}

}  // namespace norma

// What many transcriptions share: acceptance of formats, the reciprocal root, torch's eager
// prologue, tails.
//
// C++ leaves the order of a call's arguments open, so no call here or beside has two arguments that
// both add a step: the steps of a program must not depend on the compiler.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "impls/cast_paths/cast_path.hpp"

namespace norma {

inline constexpr FormatRef kE4m3fn{FormatId::e4m3fn};

/// The profile that the binding names; build_path has filled it in.
const Profile& bound_profile(const Binding& binding);

/// Does nothing if the tensor is absent. ProgramError: "weight is e5m2; diffusers takes fp32 bf16
/// fp16".
void require_format(const Binding& binding, std::string_view tensor, std::string_view code,
                    std::initializer_list<FormatId> taken);
/// The formats that nearly all code takes: fp32, bf16, fp16 for x and for every other tensor
/// present.
void require_float_or_half(const Binding& binding, std::string_view code);
/// Every other tensor present has x's format (kernels with one scalar_t).
void require_one_format(const Binding& binding, std::string_view code);

bool is_half(FormatRef format);

/// eps as fp32 sees it: a Python float that meets an fp32 tensor, a C++ double passed as float.
Operand eps_in_fp32(Builder& b);

/// a + eps in fp32.
Operand plus_eps(Builder& b, Operand a, const std::string& name = "ms_eps");

/// Rounded to `format`, exactly or, on a machine whose roots are approximate, within 2 ulp.
Rounding approximate(const Profile& profile, FormatRef format);

/// 1 / sqrt(a), as the profile takes it: one step, or sqrt and reciprocal.
Operand reciprocal_root(Builder& b, const std::string& name, FormatRef to, Operand a);

/// torch.rsqrt on a tensor of `to`. In a half format torch's scalar loop (profile torch_cpu_scalar)
/// rounds the root too.
Operand eager_rsqrt(Builder& b, const std::string& name, FormatRef to, Operand a);

/// A sum or mean with nothing contracted.
Reduction reduction(ReduceKind kind, Term term, Order order);

/// The order that goes with the profile's sums where a kernel accumulates mean and variance
/// together.
Order moments_order(const Profile& profile);

/// mean(x^2) in fp32 as eager torch takes it: pow, then mean, nothing contracted between the two.
Operand eager_mean_square(Builder& b, Operand x);
/// mean(x^2) in fp32 inside a kernel: sum += x * x contracts where the profile says so.
Operand kernel_mean_square(Builder& b, Operand x);
Operand kernel_square_sum(Builder& b, Operand x);

/// The prologue of nearly every Python RMSNorm: x.float(); x * rsqrt(x.pow(2).mean(-1) + eps), in
/// fp32.
Operand eager_x_hat(Builder& b, Operand x);
Operand eager_x_hat(Builder& b, Operand x, Operand eps_f32);
/// The same inside a kernel, where the sum of squares may contract: n = x * rsqrt(ss / N + eps).
Operand kernel_x_hat(Builder& b, Operand x);
Operand kernel_x_hat(Builder& b, Operand x, Operand eps_f32);

/// What goes to e4m3fn: min(max(q, -448), 448) as fmaxf(-448, fminf(q, 448)), which turns NaN into
/// 448, then the conversion.
Operand clamp_to_e4m3(Builder& b, const std::string& name, Operand q, Overflow overflow);

/// Tail A: rT(rT(n) w); torch promotes T and the weight's format for the product.
Program finish_cast_then_weight(Builder& b, Operand n);
/// Tail B: rT(n w). Without a weight rT(n), tail J.
Program finish_weight_then_cast(Builder& b, Operand n);
/// Tail C: rT(n (1 + w)), the sum in fp32.
Program finish_one_plus_weight_then_cast(Builder& b, Operand n);

inline constexpr std::string_view kEagerProfiles[] = {"torch_cpu",  "torch_cpu_neon", "torch_cuda",
                                                      "sequential", "pairwise",       "exact"};
inline constexpr std::string_view kEagerHalfProfiles[] = {
    "torch_cpu", "torch_cpu_scalar", "torch_cpu_neon", "torch_cuda", "sequential", "pairwise", "exact"};
inline constexpr std::string_view kBlockProfiles[] = {"cuda_block", "cuda_block_vec8", "cuda_warp", "sequential",
                                                      "exact"};
inline constexpr std::string_view kTritonProfiles[] = {"triton", "cuda_warp", "sequential", "exact"};
inline constexpr std::string_view kOpenProfiles[] = {"sequential", "pairwise", "exact"};

inline constexpr CaseDefault kOffsetOne[] = {{"weight_offset", "1"}};
inline constexpr std::string_view kGapHardCoded[] = {"eps_hard_coded"};
inline constexpr std::string_view kGapFinfoInput[] = {"eps_finfo_input"};
inline constexpr std::string_view kGapFinfoFp32[] = {"eps_finfo_fp32"};
inline constexpr std::string_view kGapClamp[] = {"clamp"};

}  // namespace norma

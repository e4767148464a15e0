// What transcriptions of activations and softmax share: functions of a library, which rounds none of them correctly.
#pragma once

#include <string>

#include "impls/cast_paths/modulation.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma {

/// exp, tanh or erf in fp32 where the profile runs. Largest errors, counted from the correctly rounded value:
///   CPU   1 ulp: SLEEF's vector functions named u10 err by at most 1.0 ulp of the real value, and so are the correctly
///         rounded value or next to it (SLEEF, "Math functions"); glibc's expf, tanhf, erff state 1 ulp
///   CUDA  2 ulp: expf, tanhf, erff (CUDA C++ Programming Guide, table of single-precision functions, which counts the
///         same way; later editions say 1 for expf)
inline Rounding library_rounding(const Profile& profile) {
  switch (profile.root) {
    case Profile::Root::correct: return {.format = kFp32};
    case Profile::Root::within_2_ulp: return {.format = kFp32, .within_ulp = 2};
    case Profile::Root::sqrt_then_reciprocal: break;
  }
  return {.format = kFp32, .within_ulp = 1};
}
inline Operand library_function(Builder& b, const std::string& name, Op op, Operand a) {
  return b.map(name, op, library_rounding(bound_profile(b.binding())), {a});
}

/// 1 + e^-x in fp32.
inline Operand one_plus_exp_of_minus(Builder& b, Operand x) {
  const Operand e = library_function(b, "e", Op::exp, b.map("minus_x", Op::neg, kFp32, {x}));
  const Operand one = b.constant("one", 1);
  return b.add("one_e", kFp32, one, e);
}

/// A path without a norm's words. `tail`: K, every operation of the code rounded to T; L, in fp32 with one cast.
constexpr CastPath activation_path(std::string_view norm, std::string_view tail,
                                   std::span<const std::string_view> profiles, const ModulationRow& row) {
  return modulation_path(norm, tail, profiles, row);
}

inline constexpr CaseDefault kApproximateTanh[] = {{"approximate", "tanh"}};

}  // namespace norma

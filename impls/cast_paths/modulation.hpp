// What transcriptions of modulations, gates and adaptive norms share. Parameters are vectors: one for all samples, one
// for each, or one for each element.
#pragma once

#include <string>
#include <string_view>

#include "impls/cast_paths/steps.hpp"

namespace norma {

/// scale, shift, gate, their tables: [cols], [samples, cols] or x's shape; under kChannels [C] or [samples, C].
Operand vector_input(Builder& b, const std::string& name, Axes axes = kCols);
/// The block's output that a gate meets: x's shape.
Operand element_input(Builder& b, const std::string& name);

/// Where the factor of a modulation comes from: 1 + scale, or scale itself (FiLM's gamma).
enum class Factor : std::uint8_t { one_plus_scale, scale };

/// Every operation of the code rounds to the format torch promotes its operands to; a Python 1 promotes nothing.
Operand eager_sum(Builder& b, const std::string& name, Operand a, Operand c);
Operand eager_product(Builder& b, const std::string& name, Operand a, Operand c);
/// `name`, or `name`_table + `name` where there is a table (PixArt's scale_shift_table + temb).
Operand eager_parameter(Builder& b, const std::string& name, Axes axes = kCols);
/// n factor + shift, whichever of scale and shift are bound.
Operand eager_modulation(Builder& b, Operand n, Factor factor, Axes axes = kCols);

/// The same in fp32 without a cast; product and sum contract where `contract` says so.
Operand fp32_parameter(Builder& b, const std::string& name);
Operand fp32_modulation(Builder& b, Operand n, Factor factor, bool contract);

/// tanh in fp32, which no library rounds correctly: within 2 ulp (glibc, SLEEF u10 and CUDA's tanhf state at most
/// that).
Operand tanh_in_fp32(Builder& b, const std::string& name, Operand a);

/// A row of a path without a norm inside: no eps, no root.
struct ModulationRow {
  std::string_view name, title;
  PathSource source;
  std::string_view required, optional;
  std::span<const CaseDefault> norm_attributes;
  std::span<const std::string_view> gaps;
  Program (*build)(const Binding&);
};
/// `tail`: K, op by op in the tensors' formats; L, in fp32 with one cast.
constexpr CastPath modulation_path(std::string_view norm, std::string_view tail,
                                   std::span<const std::string_view> profiles, const ModulationRow& row) {
  return {.name = row.name,
          .title = row.title,
          .norm = norm,
          .source = row.source,
          .eps_default = "",
          .eps_place = "none",
          .eps_class = "",
          .root = "",
          .tail = tail,
          .residual = "",
          .required = row.required,
          .optional = row.optional,
          .norm_attributes = row.norm_attributes,
          .gaps = row.gaps,
          .profiles = profiles,
          .build = row.build};
}

/// Nothing in these paths depends on the profile but the root and what a tanh may do.
inline constexpr std::string_view kElementwiseProfiles[] = {"torch_cpu", "torch_cuda", "exact"};
inline constexpr std::string_view kFusedProfiles[] = {"cuda_block_vec8", "cuda_warp", "sequential", "exact"};
inline constexpr CaseDefault kScaleItself[] = {{"scale_offset", "0"}};

}  // namespace norma

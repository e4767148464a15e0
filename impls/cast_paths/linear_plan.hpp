// What a path's linear layers are computed from: codes of weights and activations, other orders of sums.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "impls/cast_paths/block_path.hpp"

namespace norma {

/// What a tensor becomes before a product: codes with a scale for each of these, or none.
enum class Codes : std::uint8_t {
  none,      ///< the tensor as it is
  stored,    ///< cast without a scale, and back to T
  unscaled,  ///< cast without a scale
  tensor,    ///< one scale
  row,       ///< one for each row: a token, an output channel
  blocks,    ///< one for each run of `block` columns
  squares,   ///< one for `block` columns of `block` rows
};

/// How a scale follows from the largest magnitude.
enum class ScaleRule : std::uint8_t {
  in_t,     ///< amax / 448, rounded to T as torch divides, then to binary32
  fp32,     ///< amax / 448
  e8m0,     ///< the least power of two not below amax / 448
  inverse,  ///< 1 / f, f = (1 / amax) 448; codes are those of x f
};

/// One way of computing a linear layer, of a real implementation.
struct LinearMode {
  std::string_view name;
  std::string_view title;
  PathSource source;
  Codes x = Codes::none, weight = Codes::none;
  FormatId format = FormatId::e4m3fn;
  Overflow overflow = Overflow::saturate;
  ScaleRule scale = ScaleRule::fp32, weight_scale = scale;
  std::int64_t block = 0;
  BiasPlace bias = BiasPlace::epilogue;
};
std::span<const LinearMode> all_linear_modes();
const LinearMode* find_linear_mode(std::string_view name);

struct LinearPlan {
  const LinearMode* mode = nullptr;  ///< null: as the path writes them
  std::vector<std::string> keep{};   ///< layers left as they are: those whose name has one of these in it
  /// Layers whose weights stay in fp32 and that compute in it, their result cast to T: as diffusers calls Wan's
  /// time_embedder, one of its _keep_in_fp32_modules (transformer_wan.py v0.42.1). By parts of names, as `keep`; no mode
  /// changes them.
  std::vector<std::string> keep_fp32{};
  std::optional<ProductSum> sum{};   ///< of all linear layers, kept ones too
  std::optional<BiasPlace> bias{};
  bool keep_ragged = false;  ///< layers that blocks do not fit are left as they are; else refused
};

/// The same path with its linear layers as the plan has them. A tensor is made into codes once, at the first layer that
/// reads it: as NAME.e4m3 with NAME.e4m3.scale. Erased, it is the same function of its inputs.
/// Errors: ProgramError naming a part of `keep` or `keep_fp32` that no linear layer has in its name, or a layer that blocks do not
/// fit.
Graph with_linears(const Graph& path, const LinearPlan& plan);

/// "sequential", "blocked(256)", ... as text_of writes them; empty: none of the orders.
std::optional<ProductSum> parse_product_sum(std::string_view text);

/// From a case's words linears, keep and keep_fp32 (parts joined by commas), sums, bias; those that are missing or empty change
/// nothing. Errors: ProgramError naming the word and the known ones.
LinearPlan linear_plan(const std::map<std::string, std::string, std::less<>>& words);

}  // namespace norma

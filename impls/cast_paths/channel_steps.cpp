// Steps that transcriptions of norms over channels share.
#include "impls/cast_paths/channel_steps.hpp"

#include <cmath>

#include "reference/formats/tensor.hpp"

namespace norma {

ChannelSizes channel_sizes(const Binding& binding) {
  ChannelSizes sizes;
  if (!binding.shape.empty()) {
    if (binding.shape.size() < 2)
      throw ProgramError("x has shape " + shape_text(binding.shape) + "; norms over channels take [N, C, ...]");
    sizes.samples = binding.shape[0];
    sizes.channels = binding.shape[1];
    sizes.positions = element_count(binding.shape) / (sizes.samples * sizes.channels);
  }
  const auto groups = binding.attributes.find("groups");
  if (groups == binding.attributes.end()) return sizes;
  const double wanted = groups->second;
  if (!(wanted >= 1) || wanted != std::floor(wanted) || wanted > static_cast<double>(sizes.channels) ||
      sizes.channels % static_cast<std::int64_t>(wanted) != 0)
    throw ProgramError("groups has to be a whole number that divides the " + std::to_string(sizes.channels) +
                       " channels of x");
  sizes.groups = static_cast<std::int64_t>(wanted);
  return sizes;
}

void require_channel_formats(const Binding& binding, std::string_view code) {
  require_float_or_half(binding, code);
  for (const auto& [name, format] : binding.formats) {
    if (format == binding.x) continue;
    if (format == FormatId::fp32 && is_half({.id = binding.x})) continue;
    throw ProgramError(name + " is " + std::string(name_of(format)) + " and x is " + std::string(name_of(binding.x)) +
                       "; " + std::string(code) + " takes x's format, or fp32 parameters with 16-bit x");
  }
  for (const auto& [name, format] : binding.formats)
    if (format != binding.formats.begin()->second)
      throw ProgramError(name + " is " + std::string(name_of(format)) + " and " + binding.formats.begin()->first +
                         " is " + std::string(name_of(binding.formats.begin()->second)) + "; " + std::string(code) +
                         " takes one format for all parameters");
}

FormatRef parameter_format(const Binding& binding, FormatRef otherwise) {
  return binding.formats.empty() ? otherwise : binding.format(binding.formats.begin()->first);
}

Operand multiply_add(Builder& b, const std::string& name, bool fused, Operand a, Operand c, Operand d) {
  if (fused) return b.map(name, Op::fma, kFp32, {a, c, d});
  return b.add(name, kFp32, b.mul(name + "_product", kFp32, a, c), d);
}

Operand inverse_deviation_in_double(Builder& b, Operand variance) {
  const Operand sum = b.add("var_eps", kFp64, variance, b.attribute("eps"));
  const Operand root = b.sqrt("r_sqrt", kFp64, sum);
  return b.cast("r", kFp32, b.map("r_f64", Op::reciprocal, kFp64, {root}));
}

Operand factor_and_offset(Builder& b, Operand x, Operand mean, Operand r, bool fused_offset, bool fused) {
  const LayerNormParameters given = affine_inputs(b);
  const Operand factor = given.weight ? b.mul("rw", kFp32, r, *given.weight) : r;
  const Operand opposite = b.map("minus_rw", Op::neg, kFp32, {factor});
  const Operand beta = given.bias ? *given.bias : b.constant("no_bias", 0);
  const Operand offset = multiply_add(b, "offset", fused_offset, opposite, mean, beta);
  return multiply_add(b, "nwb", fused, x, factor, offset);
}

Operand torch_group_norm(Builder& b, Operand x, FormatRef t) {
  const Profile& profile = bound_profile(b.binding());
  const Operand mean = b.moments("mean", "var", kFp32, x, rowwise_moments_order(profile, t), profile.contract_squares);
  const Operand floored = b.map("var_or_0", Op::max, kFp32, {{mean.node, 1}, b.constant("zero", 0)});
  const Operand r = inverse_deviation_in_double(b, floored);
  const LayerNormParameters given = affine_inputs(b);
  if (!given.weight && !given.bias) return b.mul("n", kFp32, b.sub("d", kFp32, x, mean), r);
  return factor_and_offset(b, x, mean, r, profile.contract_squares, profile.contract_squares);
}

Operand centre_and_weigh(Builder& b, Operand x, Operand mean, Operand r) {
  return weigh(b, b.mul("n", kFp32, b.sub("d", kFp32, x, mean), r));
}

}  // namespace norma

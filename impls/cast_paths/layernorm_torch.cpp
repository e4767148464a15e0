// torch.nn.functional.layer_norm, by device and version, and the classes that only call it.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/layernorm_steps.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kCode = "torch.layer_norm";

// Parameters are of x's format, or, for 16-bit rows on a CPU, all fp32.
void require_torch_formats(const Binding& binding) {
  require_float_or_half(binding, kCode);
  for (const auto& [name, format] : binding.formats) {
    const bool mixed = format == FormatId::fp32 && is_half({.id = binding.x});
    if (format == binding.x || mixed) continue;
    throw ProgramError(name + " is " + std::string(name_of(format)) + " and x is " + std::string(name_of(binding.x)) +
                       "; torch.layer_norm takes x's format for both, or fp32 parameters with 16-bit x");
  }
  if (binding.has("weight") && binding.has("bias") && !(binding.format("weight") == binding.format("bias")))
    throw ProgramError("weight is " + std::string(name_of(binding.format("weight").id)) + " and bias is " +
                       std::string(name_of(binding.format("bias").id)) +
                       "; torch.layer_norm takes one format for both");
}

Program finish(Builder& b, Operand y) {
  b.output("y", b.cast("y", b.x_format(), y));
  return b.finish();
}

Program build(const Binding& binding) {
  require_torch_formats(binding);
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  return finish(b, torch_layer_norm(b, x, b.x_format(), affine_inputs(b)));
}

}  // namespace

constinit const CastPath torch_layer_norm_path{
    .name = "torch.layer_norm",
    .title = "torch layer_norm: Welford in fp32, one cast; on a CPU 16-bit rows take another algebra than fp32 rows",
    .norm = "layernorm",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/cpu/layer_norm_kernel.cpp:26-140", "v2.6.0", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "",
    .optional = "weight,bias",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kLayerNormProfiles,
    .build = build,
};

}  // namespace norma::cast_paths

// LayerNorm in model code: classes of diffusers, transformers and SGLang.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/layernorm_steps.hpp"

namespace norma::cast_paths {

namespace {

// F.layer_norm(x.float(), weight.float(), bias.float()).to(x.dtype)
Program build_fp32(const Binding& binding) {
  require_float_or_half(binding, "FP32LayerNorm");
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  return finish_with_cast(b, torch_layer_norm(b, x, kFp32, affine_inputs(b)));
}

// F.layer_norm(x.to(float32), no affine).to(x.dtype)
Program build_olmo(const Binding& binding) {
  require_float_or_half(binding, "OlmoLayerNorm");
  Builder b("layernorm", binding);
  return finish_with_cast(b, torch_layer_norm(b, b.input("x"), kFp32, {}));
}

// F.layer_norm(x, weight + 1, bias): the sum is rounded to the weight's format
Program build_nemotron(const Binding& binding) {
  require_float_or_half(binding, "NemotronLayerNorm1P");
  for (const auto& [name, format] : binding.formats)
    if (format != binding.x && (format != FormatId::fp32 || !is_half({.id = binding.x})))
      throw ProgramError(name + " is " + std::string(name_of(format)) + " and x is " + std::string(name_of(binding.x)) +
                         "; torch.layer_norm takes x's format for both, or fp32");
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  const Operand w = b.input("weight");
  const Operand one_w = b.eager("one_w", Op::add, b.format(w), {w, b.constant("one", 1)});
  LayerNormParameters parameters{.weight = one_w, .bias = {}};
  if (binding.has("bias")) parameters.bias = b.input("bias");
  return finish_with_cast(b, torch_layer_norm(b, x, b.x_format(), parameters));
}

// fp32: mean, (x - mean).pow(2).mean(), (x - mean) * rsqrt(variance + eps); weight.float() * that; one cast
Program build_cohere(const Binding& binding) {
  require_float_or_half(binding, "CohereLayerNorm");
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  const auto [mean, variance] = two_pass(b, x);
  const Operand r = inverse_deviation(b, variance);
  const Operand n = b.mul("n", kFp32, b.sub("centred", kFp32, x, mean), r);
  return finish_with_cast(b, b.mul("nw", kFp32, b.input("weight"), n));
}

// Every operation in T: x.mean(), (x - mean).pow(2).mean(), (x - mean) / sqrt(var + eps) * w + b
Program build_sglang(const Binding& binding) {
  require_float_or_half(binding, "SGLang");
  require_one_format(binding, "SGLang's native LayerNorm");
  Builder b("layernorm", binding);
  const FormatRef t = b.x_format();
  const Profile& profile = bound_profile(binding);
  const Operand x = b.input("x");
  const auto mean_of = [&](const std::string& name, Operand of) {
    return b.cast(name, t, b.reduce(name + "_f32", kFp32, of, reduction(ReduceKind::mean, Term::value, profile.sum)));
  };
  const Operand d = b.eager("d", Op::sub, t, {x, mean_of("mean", x)});
  const Operand variance = mean_of("var", b.eager("d_sq", Op::square, t, {d}));
  const Operand eps = b.cast("eps_T", t, eps_in_fp32(b));
  const Operand r = eager_rsqrt(b, "r", t, b.eager("var_eps", Op::add, t, {variance, eps}));
  Operand y = b.eager("n", Op::mul, t, {d, r});
  if (binding.has("weight")) y = b.eager("nw", Op::mul, t, {b.input("weight"), y});
  if (binding.has("bias")) y = b.eager("nwb", Op::add, t, {y, b.input("bias")});
  b.output("y", y);
  return b.finish();
}

}  // namespace

constinit const CastPath diffusers_fp32_layer_norm = layernorm_path({
    .name = "diffusers.fp32_layer_norm",
    .title = "diffusers FP32LayerNorm: torch layer_norm on fp32 copies of all tensors, one cast",
    .source = {"huggingface/diffusers", "src/diffusers/models/normalization.py:84", "58eb52c", "read"},
    .profiles = kLayerNormProfiles,
    .build = build_fp32,
});

constinit const CastPath transformers_olmo_layernorm = layernorm_path({
    .name = "transformers.olmo.layernorm",
    .title = "Olmo LayerNorm: torch layer_norm of an fp32 copy, no affine, one cast",
    .source = {"huggingface/transformers", "src/transformers/models/olmo/modular_olmo.py", "00a98e71", "read"},
    .tail = "J",
    .optional = "",
    .profiles = kLayerNormProfiles,
    .build = build_olmo,
});

constinit const CastPath transformers_nemotron_layernorm1p = layernorm_path({
    .name = "transformers.nemotron.layernorm1p",
    .title = "Nemotron LayerNorm1P: torch layer_norm with 1 + weight, the sum rounded to the weight's format",
    .source = {"huggingface/transformers", "src/transformers/models/nemotron/modeling_nemotron.py", "001ccfcb", "read"},
    .tail = "D",
    .required = "weight",
    .optional = "bias",
    .norm_attributes = kOffsetOne,
    .profiles = kLayerNormProfiles,
    .build = build_nemotron,
});

constinit const CastPath transformers_cohere_layernorm = layernorm_path({
    .name = "transformers.cohere.layernorm",
    .title = "Cohere LayerNorm: two passes in fp32, weight in fp32, one cast, no bias",
    .source = {"huggingface/transformers", "src/transformers/models/cohere/modeling_cohere.py", "v5.23.0", "read"},
    .required = "weight",
    .optional = "",
    .profiles = kEagerProfiles,
    .build = build_cohere,
});

constinit const CastPath sglang_layernorm_native = layernorm_path({
    .name = "sglang.layernorm.native",
    .title = "SGLang LayerNorm.forward_native (multimodal): every operation in T, statistics too",
    .source = {"sgl-project/sglang", "python/sglang/multimodal_gen/runtime/layers/layernorm.py", "0078482a",
               "inferred"},
    .eps_default = "1e-6",
    .eps_class = "rounded to T",
    .tail = "F",
    .profiles = kEagerHalfProfiles,
    .build = build_sglang,
});

}  // namespace norma::cast_paths

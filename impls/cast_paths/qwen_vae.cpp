// The channel norm of the Qwen-Image and Wan VAEs: F.normalize(x) * sqrt(C) * gamma + bias.
// A row is one pixel's channels. eps is F.normalize's argument; the module leaves it at 1e-12.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

// n * self.scale * self.gamma + self.bias: sqrt(C) is a Python float (rounded to fp32 inside the
// product, torch 2.x), a missing bias is the float 0.0 and turns -0 into 0.
Program finish_affine(Builder& b, Operand n) {
  const FormatRef t = b.x_format();
  const Operand root = b.cast("root_f32", kFp32, b.sqrt("root", kFp64, b.count()));
  const Operand scaled = b.eager("scaled", Op::mul, t, {n, root});
  const Operand w = b.input("weight");
  const FormatRef product = promote(t, b.format(w));
  const Operand weighted = b.eager("weighted", Op::mul, product, {scaled, w});
  const bool biased = b.binding().has("bias");
  const Operand bias = biased ? b.input("bias") : b.constant("zero", 0);
  b.output("y", b.eager("y", Op::add, biased ? promote(product, b.format(bias)) : product, {weighted, bias}));
  return b.finish();
}

// F.normalize(x.float(), dim=1).to(x.dtype): x / max(norm(x), eps) in fp32
Program build(const Binding& binding) {
  require_float_or_half(binding, "QwenImageRMS_norm");
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand norm = b.sqrt("norm", kFp32, kernel_square_sum(b, x));
  const Operand divisor = b.map("divisor", Op::max, kFp32, {norm, eps_in_fp32(b)});
  return finish_affine(b, b.cast("n", b.x_format(), b.div("n_f32", kFp32, x, divisor)));
}

// F.normalize(x, dim=1): the norm accumulates in fp32, is rounded to T, and meets eps in T (1e-12
// is 0 in fp16)
Program build_before_fix(const Binding& binding) {
  require_float_or_half(binding, "QwenImageRMS_norm");
  Builder b("rmsnorm", binding);
  const FormatRef t = b.x_format();
  const Operand x = b.input("x");
  const Operand norm = b.cast("norm", t, b.sqrt("norm_f32", kFp32, kernel_square_sum(b, x)));
  const Operand eps = b.cast("eps_T", t, eps_in_fp32(b));
  const Operand divisor = b.map("divisor", Op::max, t, {norm, eps});
  return finish_affine(b, b.eager("n", Op::div, t, {x, divisor}));
}

constexpr std::string_view kProfiles[] = {"torch_cpu_strided", "torch_cpu_norm", "torch_cuda", "pairwise", "exact"};
constexpr CaseDefault kMaxForm[] = {{"eps_place", "l2max"}};

}  // namespace

constinit const CastPath qwen_vae_rms_norm{
    .name = "diffusers.qwen_image_vae.rms_norm",
    .title = "Qwen-Image and Wan VAE norm since 5fc2bd2: normalized in fp32, then three roundings to T",
    .norm = "rmsnorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/autoencoders/autoencoder_kl_qwenimage.py", "58eb52c",
               "read"},
    .eps_default = "1e-12",
    .eps_place = "l2max",
    .eps_class = "fp32",
    .root = "x/max(sqrt(sum),eps)",
    .tail = "I",
    .residual = "",
    .required = "weight",
    .optional = "bias",
    .norm_attributes = kMaxForm,
    .gaps = {},
    .profiles = kProfiles,
    .build = build,
};

constinit const CastPath qwen_vae_rms_norm_before_fix{
    .name = "diffusers.qwen_image_vae.rms_norm.before_fix",
    .title =
        "Qwen-Image and Wan VAE norm before 5fc2bd2: everything in T; in fp16 eps is 0 and a zero "
        "row is NaN",
    .norm = "rmsnorm",
    .source = {"huggingface/diffusers", "src/diffusers/models/autoencoders/autoencoder_kl_qwenimage.py",
               "the parent of 5fc2bd2", "read"},
    .eps_default = "1e-12",
    .eps_place = "l2max",
    .eps_class = "rounded to T",
    .root = "x/max(sqrt(sum),eps)",
    .tail = "I",
    .residual = "",
    .required = "weight",
    .optional = "bias",
    .norm_attributes = kMaxForm,
    .gaps = {},
    .profiles = kProfiles,
    .build = build_before_fix,
};

}  // namespace norma::cast_paths

// FLUX's RMSNorm (QKNorm). Its eps is a literal, 1e-6, whatever a case says.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

constexpr double kEps = 1e-6;

Operand x_hat(Builder& b) {
  const Operand x = b.input("x");
  return eager_x_hat(b, x, b.cast("eps_f32", kFp32, b.constant("eps_literal", kEps)));
}

// x = x.float(); rrms = rsqrt(mean(x**2) + 1e-6); (x * rrms).to(x_dtype) * self.scale
Program build(const Binding& binding) {
  require_float_or_half(binding, "FLUX RMSNorm");
  Builder b("rmsnorm", binding);
  return finish_cast_then_weight(b, x_hat(b));
}

// ((x * rrms) * self.scale.float()).to(x_dtype)
Program build_scale_fp32(const Binding& binding) {
  require_float_or_half(binding, "FLUX RMSNorm");
  Builder b("rmsnorm", binding);
  return finish_weight_then_cast(b, x_hat(b));
}

}  // namespace

constinit const CastPath bfl_flux_rmsnorm{
    .name = "bfl.flux.rmsnorm",
    .title = "FLUX.1 RMSNorm of queries and keys, the public form: cast, then scale",
    .norm = "rmsnorm",
    .source = {"black-forest-labs/flux", "src/flux/modules/layers.py", "802fb47", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "hard-coded",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = kGapHardCoded,
    .profiles = kEagerProfiles,
    .build = build,
};

constinit const CastPath bfl_flux_rmsnorm_scale_fp32{
    .name = "bfl.flux.rmsnorm.scale_fp32",
    .title = "FLUX RMSNorm as an article's port has it: scale in fp32, then cast",
    .norm = "rmsnorm",
    .source = {"an article on the norms of FLUX and Qwen-Image", "its listing 'FLUX RMSNorm', the active line", "",
               "quoted"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "hard-coded",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = kGapHardCoded,
    .profiles = kEagerProfiles,
    .build = build_scale_fp32,
};

constinit const CastPath bfl_flux2_rmsnorm{
    .name = "bfl.flux2.rmsnorm",
    .title = "FLUX.2 RMSNorm of queries and keys: as FLUX.1",
    .norm = "rmsnorm",
    .source = {"black-forest-labs/flux2", "src/flux2/model.py", "ab7cca6", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "hard-coded",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = kGapHardCoded,
    .profiles = kEagerProfiles,
    .build = build,
};

}  // namespace norma::cast_paths

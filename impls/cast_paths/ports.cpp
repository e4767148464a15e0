// Ports that changed what they ported.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

// output.type_as(x) * (1 + weight): the sum in the weight's format, the product promoted
Program build_kornia(const Binding& binding) {
  require_float_or_half(binding, "Kornia's RMSNorm");
  Builder b("rmsnorm", binding);
  const FormatRef t = b.x_format();
  const Operand n_t = b.cast("n_T", t, eager_x_hat(b, b.input("x")));
  const Operand w = b.input("weight");
  const Operand factor = b.eager("one_w", Op::add, b.format(w), {b.constant("one", 1), w});
  b.output("y", b.eager("y", Op::mul, promote(t, b.format(w)), {n_t, factor}));
  return b.finish();
}

// layer_norm(cat(x, -x)) without affine, its first half, times weight. The doubled row's mean is 0 by symmetry and its
// variance is mean(x^2): both are taken as such, for the backend's order is closed.
Program build_doubled(const Binding& binding) {
  require_float_or_half(binding, "ANEMLL's RMSNorm");
  Builder b("rmsnorm", binding);
  return finish_cast_then_weight(b, kernel_x_hat(b, b.input("x")));
}

constexpr std::string_view kClosedProfiles[] = {"exact", "sequential", "pairwise"};

}  // namespace

constinit const CastPath kornia_paligemma_rmsnorm{
    .name = "kornia.paligemma.rmsnorm",
    .title = "PaliGemma's norm as Kornia and others ported it: cast, 1 + w in the weight's format, product",
    .norm = "rmsnorm",
    .source = {"kornia/kornia", "a port of GemmaRMSNorm", "", "quoted"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "D",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = kOffsetOne,
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_kornia,
};

constinit const CastPath anemll_rmsnorm_doubled{
    .name = "anemll.rmsnorm.doubled",
    .title = "ANEMLL: RMSNorm as LayerNorm of cat(x, -x), whose mean is taken as the 0 it is; cast, then weight",
    .norm = "rmsnorm",
    .source = {"Anemll/Anemll", "a LayerNorm of cat(x, -x)", "", "quoted"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kClosedProfiles,
    .build = build_doubled,
};

}  // namespace norma::cast_paths

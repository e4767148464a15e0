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

// inv_rms to bf16, then one bf16 product for each element; epsilon is a literal. The rounding mode was the chip's
// default until #139; rounding to nearest, ties to even, is assumed.
Program build_iron_before(const Binding& binding) {
  require_format(binding, "x", "IRON's RMSNorm", {FormatId::bf16});
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand eps = b.cast("eps_f32", kFp32, b.constant("eps_literal", 1e-5));
  const Operand sum = b.add("ms_eps", kFp32, kernel_mean_square(b, x), eps);
  const Operand r = b.cast("r_T", kBf16, reciprocal_root(b, "r", kFp32, sum));
  b.output("y", b.mul("y", kBf16, x, r));
  return b.finish();
}

// since #139: x * inv_rms in fp32, one rounding, to nearest
Program build_iron(const Binding& binding) {
  require_format(binding, "x", "IRON's RMSNorm", {FormatId::bf16});
  Builder b("rmsnorm", binding);
  const Operand n = kernel_x_hat(b, b.input("x"));
  b.output("y", b.cast("y", kBf16, n));
  return b.finish();
}

constexpr PathSource kIronSource{"amd/IRON", "the aie2 and aie2p kernels of rms_norm", "#139", "quoted"};
constexpr std::string_view kVectorProfiles[] = {"cuda_warp", "sequential", "exact"};

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

constinit const CastPath amd_iron_rmsnorm{
    .name = "amd.iron.rms_norm",
    .title = "AMD IRON rms_norm on an NPU since #139: fp32, one cast, no weight (16 lanes; their order is open)",
    .norm = "rmsnorm",
    .source = kIronSource,
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "J",
    .residual = "",
    .required = "",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kVectorProfiles,
    .build = build_iron,
};

constinit const CastPath amd_iron_rmsnorm_before_fix{
    .name = "amd.iron.rms_norm.before_fix",
    .title = "AMD IRON rms_norm before #139: the inverse root rounded to bf16, a bf16 product; eps is a literal",
    .norm = "rmsnorm",
    .source = kIronSource,
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "hard-coded",
    .root = "rsqrt",
    .tail = "J",
    .residual = "",
    .required = "",
    .optional = "",
    .norm_attributes = {},
    .gaps = kGapHardCoded,
    .profiles = kVectorProfiles,
    .build = build_iron_before,
};

}  // namespace norma::cast_paths

// Meta's Llama, which most others descend from.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

// _norm(x.float()).type_as(x) * self.weight
Program build(const Binding& binding) {
  require_float_or_half(binding, "Llama RMSNorm");
  Builder b("rmsnorm", binding);
  return finish_cast_then_weight(b, eager_x_hat(b, b.input("x")));
}

}  // namespace

constinit const CastPath meta_llama_rmsnorm{
    .name = "meta.llama.rmsnorm",
    .title = "Meta's Llama RMSNorm: cast, then weight (also Llama 4)",
    .norm = "rmsnorm",
    .source = {"meta-llama/llama", "llama/model.py", "689c7f2", "read"},
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
    .profiles = kEagerProfiles,
    .build = build,
};

}  // namespace norma::cast_paths

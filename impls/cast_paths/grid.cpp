// The systematic grid: where eps enters, by where the weight meets the cast.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

enum class Place { inside, sum, outside, max, l2max, none };
enum class Weight { before_cast, after_cast };

Operand inverse(Builder& b, Operand divisor) { return b.map("r", Op::reciprocal, kFp32, {divisor}); }

Operand inverse_rms(Builder& b, Operand x, Place place) {
  switch (place) {
    case Place::inside: return reciprocal_root(b, "r", kFp32, plus_eps(b, kernel_mean_square(b, x)));
    case Place::sum: return reciprocal_root(b, "r", kFp32, plus_eps(b, kernel_square_sum(b, x), "ss_eps"));
    case Place::outside: {
      const Operand rms = b.sqrt("rms", kFp32, kernel_mean_square(b, x));
      return inverse(b, plus_eps(b, rms, "rms_eps"));
    }
    case Place::max: {
      const Operand rms = b.sqrt("rms", kFp32, kernel_mean_square(b, x));
      return inverse(b, b.map("rms_or_eps", Op::max, kFp32, {rms, eps_in_fp32(b)}));
    }
    case Place::l2max: {
      const Operand norm = b.sqrt("norm", kFp32, kernel_square_sum(b, x));
      const Operand divisor = b.map("norm_or_eps", Op::max, kFp32, {norm, eps_in_fp32(b)});
      return b.div("r", kFp32, b.sqrt("root_N", kFp32, b.count()), divisor);
    }
    case Place::none: return reciprocal_root(b, "r", kFp32, kernel_mean_square(b, x));
  }
  throw ProgramError("the grid has no such place of eps");
}

template <Place place, Weight weight>
Program build(const Binding& binding) {
  require_float_or_half(binding, "the grid");
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand n = b.mul("n", kFp32, x, inverse_rms(b, x, place));
  return weight == Weight::after_cast ? finish_cast_then_weight(b, n) : finish_weight_then_cast(b, n);
}

constexpr std::string_view kGapSum[] = {"eps_on_sum"};
constexpr std::string_view kGapOutside[] = {"eps_outside"};
constexpr std::string_view kGapMax[] = {"eps_max"};
constexpr std::string_view kGapL2max[] = {"eps_l2max"};
constexpr std::string_view kGapNone[] = {"no_eps"};

constexpr std::string_view kProfiles[] = {"sequential", "torch_cpu", "pairwise", "cuda_block", "cuda_warp", "exact"};

}  // namespace

constinit const CastPath grid_eps_inside_weight_before_cast{
    .name = "grid.eps_inside.weight_before_cast",
    .title = "Grid: x * 1/sqrt(ms + eps), weight before the cast",
    .norm = "rmsnorm",
    .source = {"norma", "impls/cast_paths/grid.cpp", "", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kProfiles,
    .build = build<Place::inside, Weight::before_cast>,
};

constinit const CastPath grid_eps_inside_weight_after_cast{
    .name = "grid.eps_inside.weight_after_cast",
    .title = "Grid: x * 1/sqrt(ms + eps), weight after the cast",
    .norm = "rmsnorm",
    .source = {"norma", "impls/cast_paths/grid.cpp", "", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kProfiles,
    .build = build<Place::inside, Weight::after_cast>,
};

constinit const CastPath grid_eps_sum_weight_before_cast{
    .name = "grid.eps_sum.weight_before_cast",
    .title = "Grid: x * 1/sqrt(ss + eps), weight before the cast",
    .norm = "rmsnorm",
    .source = {"norma", "impls/cast_paths/grid.cpp", "", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "sum",
    .eps_class = "fp32",
    .root = "rsqrt(sum+eps)",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = kGapSum,
    .profiles = kProfiles,
    .build = build<Place::sum, Weight::before_cast>,
};

constinit const CastPath grid_eps_sum_weight_after_cast{
    .name = "grid.eps_sum.weight_after_cast",
    .title = "Grid: x * 1/sqrt(ss + eps), weight after the cast",
    .norm = "rmsnorm",
    .source = {"norma", "impls/cast_paths/grid.cpp", "", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "sum",
    .eps_class = "fp32",
    .root = "rsqrt(sum+eps)",
    .tail = "A",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = kGapSum,
    .profiles = kProfiles,
    .build = build<Place::sum, Weight::after_cast>,
};

constinit const CastPath grid_eps_outside_weight_before_cast{
    .name = "grid.eps_outside.weight_before_cast",
    .title = "Grid: x * 1/(sqrt(ms) + eps), weight before the cast",
    .norm = "rmsnorm",
    .source = {"norma", "impls/cast_paths/grid.cpp", "", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "outside",
    .eps_class = "fp32",
    .root = "1/(sqrt+eps)",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = kGapOutside,
    .profiles = kProfiles,
    .build = build<Place::outside, Weight::before_cast>,
};

constinit const CastPath grid_eps_outside_weight_after_cast{
    .name = "grid.eps_outside.weight_after_cast",
    .title = "Grid: x * 1/(sqrt(ms) + eps), weight after the cast",
    .norm = "rmsnorm",
    .source = {"norma", "impls/cast_paths/grid.cpp", "", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "outside",
    .eps_class = "fp32",
    .root = "1/(sqrt+eps)",
    .tail = "A",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = kGapOutside,
    .profiles = kProfiles,
    .build = build<Place::outside, Weight::after_cast>,
};

constinit const CastPath grid_eps_max_weight_before_cast{
    .name = "grid.eps_max.weight_before_cast",
    .title = "Grid: x * 1/max(sqrt(ms), eps), weight before the cast",
    .norm = "rmsnorm",
    .source = {"norma", "impls/cast_paths/grid.cpp", "", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "max",
    .eps_class = "fp32",
    .root = "1/max(sqrt,eps)",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = kGapMax,
    .profiles = kProfiles,
    .build = build<Place::max, Weight::before_cast>,
};

constinit const CastPath grid_eps_max_weight_after_cast{
    .name = "grid.eps_max.weight_after_cast",
    .title = "Grid: x * 1/max(sqrt(ms), eps), weight after the cast",
    .norm = "rmsnorm",
    .source = {"norma", "impls/cast_paths/grid.cpp", "", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "max",
    .eps_class = "fp32",
    .root = "1/max(sqrt,eps)",
    .tail = "A",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = kGapMax,
    .profiles = kProfiles,
    .build = build<Place::max, Weight::after_cast>,
};

constinit const CastPath grid_eps_l2max_weight_before_cast{
    .name = "grid.eps_l2max.weight_before_cast",
    .title = "Grid: x * sqrt(N)/max(sqrt(ss), eps), weight before the cast",
    .norm = "rmsnorm",
    .source = {"norma", "impls/cast_paths/grid.cpp", "", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "l2max",
    .eps_class = "fp32",
    .root = "1/max(sqrt(sum),eps)",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = kGapL2max,
    .profiles = kProfiles,
    .build = build<Place::l2max, Weight::before_cast>,
};

constinit const CastPath grid_eps_l2max_weight_after_cast{
    .name = "grid.eps_l2max.weight_after_cast",
    .title = "Grid: x * sqrt(N)/max(sqrt(ss), eps), weight after the cast",
    .norm = "rmsnorm",
    .source = {"norma", "impls/cast_paths/grid.cpp", "", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "l2max",
    .eps_class = "fp32",
    .root = "1/max(sqrt(sum),eps)",
    .tail = "A",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = kGapL2max,
    .profiles = kProfiles,
    .build = build<Place::l2max, Weight::after_cast>,
};

constinit const CastPath grid_eps_none_weight_before_cast{
    .name = "grid.eps_none.weight_before_cast",
    .title = "Grid: x * 1/sqrt(ms), weight before the cast",
    .norm = "rmsnorm",
    .source = {"norma", "impls/cast_paths/grid.cpp", "", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "none",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = kGapNone,
    .profiles = kProfiles,
    .build = build<Place::none, Weight::before_cast>,
};

constinit const CastPath grid_eps_none_weight_after_cast{
    .name = "grid.eps_none.weight_after_cast",
    .title = "Grid: x * 1/sqrt(ms), weight after the cast",
    .norm = "rmsnorm",
    .source = {"norma", "impls/cast_paths/grid.cpp", "", "inferred"},
    .eps_default = "1e-6",
    .eps_place = "none",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = kGapNone,
    .profiles = kProfiles,
    .build = build<Place::none, Weight::after_cast>,
};

}  // namespace norma::cast_paths

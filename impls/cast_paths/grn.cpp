// Global response normalization: ConvNeXt V2's code and what was made of it. Three stages: a length of each channel
// over its positions, those beside their mean, the elements.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

void require_image(const Binding& binding) {
  require_float_or_half(binding, "GRN");
  if (!binding.shape.empty() && binding.shape.size() != 4)
    throw ProgramError("x has " + std::to_string(binding.shape.size()) + " axes; GRN takes [N, H, W, C]");
}

// torch adds the squares of a strided axis one after the other; those of one channel lie side by side, as in a row.
Operand sum_of_squares(Builder& b, Operand x) {
  const Profile& profile = bound_profile(b.binding());
  const bool torch = profile.name == "torch_cpu";
  const Profile* row = find_profile("torch_cpu_norm");
  const bool one_channel = !b.binding().shape.empty() && b.binding().shape.back() == 1;
  const Order order = !torch        ? profile.sum
                      : one_channel ? (is_half(b.x_format()) ? row->sum_half : row->sum)
                                    : Order{.kind = OrderKind::sequential};
  return b.reduce("ss", kFp32, x, reduction(ReduceKind::sum, Term::square, order));
}

// g = x.norm(p=2, dim=(1, 2)); g / (g.mean(-1) + eps), every result in T; the mean of 16 bits is taken in fp32, and eps
// meets 16 bits rounded to them.
Builder responses(const Binding& binding) {
  require_image(binding);
  Builder lengths("grn", binding, {.kind = ViewKind::tokens});
  const FormatRef t = lengths.x_format();
  const Operand x = lengths.input("x");
  lengths.pass(lengths.cast("g", t, lengths.sqrt("g_f32", kFp32, sum_of_squares(lengths, x))));

  Builder channels = lengths.next_stage();
  const Operand g = channels.input("g", kRowsCols);
  const Operand mean = channels.cast(
      "mean", t,
      channels.reduce("mean_f32", kFp32, g, reduction(ReduceKind::mean, Term::value, bound_profile(binding).sum)));
  const Operand eps = channels.cast("eps_T", t, channels.attribute("eps"));
  channels.pass(channels.eager("r", Op::div, t, {g, channels.eager("mean_eps", Op::add, t, {mean, eps})}));
  return channels.next_stage();
}

FormatRef promoted(const Builder& b, Operand a, Operand c) { return promote(b.format(a), b.format(c)); }

// gamma * (x * r)
Operand weighed(Builder& b, Operand x) {
  const Operand weight = b.input("weight");
  const Operand scaled = b.eager("scaled", Op::mul, b.x_format(), {x, b.input("r", kCols)});
  return b.eager("weighed", Op::mul, promoted(b, weight, scaled), {weight, scaled});
}

// gamma * (x * r) + beta + x
Program build_eager(const Binding& binding) {
  Builder b = responses(binding);
  const Operand x = b.input("x");
  const Operand w = weighed(b, x);
  const Operand bias = b.input("bias");
  const Operand shifted = b.eager("shifted", Op::add, promoted(b, w, bias), {w, bias});
  b.output("y", b.eager("y", Op::add, promoted(b, shifted, x), {shifted, x}));
  return b.finish();
}

// torch.addcmul(a, b, c) on a CPU: one fused multiply-add in fp32, rounded once.
Operand addcmul(Builder& b, const std::string& name, Operand a, Operand c, Operand d) {
  const FormatRef to = promote(promoted(b, a, c), b.format(d));
  const Operand fused = b.map(to == kFp32 ? name : name + "_f32", Op::fma, kFp32, {c, d, a});
  return to == kFp32 ? fused : b.cast(name, to, fused);
}

// x + addcmul(beta, gamma, x * r)
Program build_addcmul(const Binding& binding) {
  Builder b = responses(binding);
  const Operand x = b.input("x");
  const Operand weight = b.input("weight");
  const Operand bias = b.input("bias");
  const Operand scaled = b.eager("scaled", Op::mul, b.x_format(), {x, b.input("r", kCols)});
  const Operand shifted = addcmul(b, "shifted", bias, weight, scaled);
  b.output("y", b.eager("y", Op::add, promoted(b, x, shifted), {x, shifted}));
  return b.finish();
}

// addcmul(beta, gamma * r + 1, x)
Program build_one_plus(const Binding& binding) {
  Builder b = responses(binding);
  const Operand x = b.input("x");
  const Operand weight = b.input("weight");
  const Operand bias = b.input("bias");
  const Operand r = b.input("r", kCols);
  const Operand one = b.constant("one", 1);
  const Operand gain = b.eager("gain", Op::mul, promoted(b, weight, r), {weight, r});
  const Operand factor = b.eager("factor", Op::add, b.format(gain), {gain, one});
  b.output("y", addcmul(b, "y", bias, factor, x));
  return b.finish();
}

constexpr std::string_view kProfiles[] = {"torch_cpu", "sequential", "pairwise", "exact"};

constexpr CastPath path(std::string_view name, std::string_view title, PathSource source,
                        Program (*build)(const Binding&)) {
  return {.name = name,
          .title = title,
          .norm = "grn",
          .source = source,
          .eps_default = "1e-6",
          .eps_place = "outside",
          .eps_class = "rounded to T",
          .root = "x/sqrt",
          .tail = "",
          .residual = "",
          .required = "weight,bias",
          .optional = "",
          .norm_attributes = {},
          .gaps = {},
          .profiles = kProfiles,
          .build = build};
}

}  // namespace

constinit const CastPath facebook_convnextv2_grn =
    path("facebook.convnextv2.grn",
         "ConvNeXt V2's GRN, channels last: gamma (x r) + beta + x, every result in T (orders of torch on a CPU)",
         {"facebookresearch/ConvNeXt-V2", "models/utils.py:105", "d7cc26f", "read"}, build_eager);
constinit const CastPath transformers_convnextv2_grn =
    path("transformers.convnextv2.grn", "transformers' ConvNextV2GRN: as ConvNeXt V2's own (by vector_norm since 5.x)",
         {"huggingface/transformers", "src/transformers/models/convnextv2/modeling_convnextv2.py", "601c83a", "read"},
         build_eager);
constinit const CastPath diffusers_grn =
    path("diffusers.grn", "diffusers' GlobalResponseNorm (UVit2D, Stable Cascade, Wuerstchen): as ConvNeXt V2's own",
         {"huggingface/diffusers", "src/diffusers/models/normalization.py:601", "v0.42.1", "read"}, build_eager);
constinit const CastPath timm_grn =
    path("timm.grn", "timm's GlobalResponseNorm: addcmul(beta, gamma r + 1, x), where x joins before the one rounding",
         {"huggingface/pytorch-image-models", "timm/layers/grn.py", "569ac28", "read"}, build_one_plus);
constinit const CastPath timm_grn_2023 =
    path("timm.grn.2023", "timm's GlobalResponseNorm as it was: x + addcmul(beta, gamma, x r)",
         {"huggingface/pytorch-image-models", "timm/layers/grn.py", "d26937b", "read"}, build_addcmul);

}  // namespace norma::cast_paths

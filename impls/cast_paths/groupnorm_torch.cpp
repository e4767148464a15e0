// torch.nn.functional.group_norm by device, layout and version, and the modules that call it.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/channel_steps.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kNorm = "groupnorm";

Program build_contiguous(const Binding& binding) {
  require_channel_formats(binding, "torch.group_norm");
  channel_sizes(binding);
  Builder b(std::string(kNorm), binding, kGroups);
  const Operand x = b.input("x");
  return finish_with_cast(b, torch_group_norm(b, x, b.x_format()));
}

/// Sums of x and x^2 over a group, both times 1 / count; var = max(0, E[x^2] - mean^2). Below 1024 positions the
/// channels of a position are added as vectors; from there on each channel by itself, then the channels in order. The
/// offsets of fp32 parameters contract in whole vectors of 8 channels of a group, those of 16-bit parameters never
/// (measured on 2.15, AVX-512). A group of more than 8 channels that 8 does not divide has both; here all contract.
Program build_channels_last(const Binding& binding) {
  require_channel_formats(binding, "torch.group_norm");
  const ChannelSizes sizes = channel_sizes(binding);
  const bool columns = sizes.positions < 1024;
  const bool half = is_half({.id = binding.x});
  const int each = static_cast<int>(sizes.each());
  const Order order = columns ? Order{.kind = half ? OrderKind::torch_columns_half : OrderKind::torch_columns,
                                      .count = 8, .vec = each}
                              : Order{.kind = OrderKind::lanes, .count = each};
  Builder b(std::string(kNorm), binding, kGroupsChannelsLast);
  const bool contracts = bound_profile(binding).contract_squares;
  const Operand x = b.input("x");
  const Operand c = b.map("rn", Op::reciprocal, kFp32, {b.count()});
  const Operand sum = b.reduce("sum", kFp32, x, reduction(ReduceKind::sum, Term::value, order));
  const Operand ss = b.reduce("ss", kFp32, x, reduction(ReduceKind::sum, Term::square, order));
  const Operand mean = b.mul("mean", kFp32, sum, c);
  const Operand square = b.map("mean_sq", Op::square, kFp32, {mean});
  const Operand opposite = b.map("minus_mean_sq", Op::neg, kFp32, {square});
  const Operand var = multiply_add(b, "var", contracts, ss, c, opposite);
  const Operand floored = b.map("var_or_0", Op::max, kFp32, {var, b.constant("zero", 0)});
  const Operand r = inverse_deviation_in_double(b, floored);
  const bool full = parameter_format(binding, {.id = binding.x}).id == FormatId::fp32;
  const bool offset = contracts && full && each >= 8;
  return finish_with_cast(b, factor_and_offset(b, x, mean, r, offset, contracts));
}

enum class Stored : std::uint8_t { in_t, in_fp32 };

/// Welford over a block; mean and rstd stored in T and read back, or kept; a = rstd * gamma, b = -a * mean + beta,
/// y = T(a * x + b). One position a channel: ((x - mean) * rstd) * gamma + beta; no parameters: (x - mean) * rstd.
template <Stored stored>
Program build_cuda(const Binding& binding) {
  constexpr std::string_view code = "torch.group_norm on a GPU";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  const ChannelSizes sizes = channel_sizes(binding);
  Builder b(std::string(kNorm), binding, kGroups);
  const Profile& profile = bound_profile(binding);
  const FormatRef t = b.x_format();
  const Operand x = b.input("x");
  const Operand moments = b.moments("mean", "var", kFp32, x, block_moments_order(profile, OrderKind::welford_block),
                                    profile.contract_squares);
  const Operand eps = b.cast("eps_T", stored == Stored::in_t ? t : kFp32, b.attribute("eps"));
  const Operand sum = b.add("var_eps", kFp32, {moments.node, 1}, eps);
  Operand r = reciprocal_root(b, "r", kFp32, sum), mean = moments;
  if (stored == Stored::in_t && is_half(t)) {
    mean = b.cast("mean_T", t, mean);
    r = b.cast("r_T", t, r);
  }
  const LayerNormParameters given = affine_inputs(b);
  const bool affine = given.weight || given.bias;
  const Operand value = affine && sizes.positions > 1
                            ? factor_and_offset(b, x, mean, r, profile.contract_squares, profile.contract_squares)
                            : centre_and_weigh(b, x, mean, r);
  return finish_with_cast(b, value);
}

// x.float() through torch's fp32 kernel with the parameters as they are, fp32, then .type(x.dtype)
Program build_group_norm_32(const Binding& binding) {
  require_format(binding, "weight", "GroupNorm32", {FormatId::fp32});
  require_format(binding, "bias", "GroupNorm32", {FormatId::fp32});
  require_float_or_half(binding, "GroupNorm32");
  channel_sizes(binding);
  Builder b(std::string(kNorm), binding, kGroups);
  const Operand x = b.input("x");
  return finish_with_cast(b, torch_group_norm(b, b.cast("x_f32", kFp32, x), kFp32));
}

// group_norm is in autocast's fp32 list: all tensors are cast to fp32, and y stays fp32
Program build_autocast(const Binding& binding) {
  require_float_or_half(binding, "FLUX's autoencoder");
  channel_sizes(binding);
  Builder b(std::string(kNorm), binding, kGroups);
  const Operand x = b.input("x");
  b.output("y", torch_group_norm(b, b.cast("x_f32", kFp32, x), kFp32));
  return b.finish();
}

constexpr std::string_view kCpuSums[] = {"torch_cpu_moments", "torch_cpu_moments_plain"};
constexpr std::string_view kCuda[] = {"torch_cuda_moments", "sequential"};

constexpr CastPath path(std::string_view name, std::string_view title, PathSource source, std::string_view eps_default,
                        std::string_view eps_class, std::string_view root, std::string_view tail,
                        std::span<const std::string_view> profiles, Program (*build)(const Binding&)) {
  return {.name = name,
          .title = title,
          .norm = kNorm,
          .source = source,
          .eps_default = eps_default,
          .eps_place = "inside",
          .eps_class = eps_class,
          .root = root,
          .tail = tail,
          .residual = "",
          .required = "",
          .optional = "weight,bias",
          .norm_attributes = {},
          .gaps = {},
          .profiles = profiles,
          .build = build};
}

constexpr PathSource kCpuSource{"pytorch/pytorch", "aten/src/ATen/native/cpu/group_norm_kernel.cpp", "v2.6.0", "read"};
constexpr std::string_view kCudaFile = "aten/src/ATen/native/cuda/group_norm_kernel.cu";

}  // namespace

constinit const CastPath torch_group_norm_cpu =
    path("torch.group_norm.cpu", "torch group_norm on a CPU, contiguous: Welford moments, rstd in double, x * scale + bias",
         kCpuSource, "1e-5", "exact", "1/sqrt", "B", kGroupNormProfiles, build_contiguous);

constinit const CastPath torch_group_norm_cpu_channels_last =
    path("torch.group_norm.cpu.channels_last",
         "torch group_norm on a CPU, channels-last: E[x^2] - mean^2 floored at 0, rstd in double, x * scale + bias",
         kCpuSource, "1e-5", "exact", "1/sqrt", "B", kCpuSums, build_channels_last);

constinit const CastPath torch_group_norm_cuda_stored_in_t =
    path("torch.group_norm.cuda.stored_in_t",
         "torch group_norm on CUDA until 2026-05: mean, rstd and eps rounded to x's format between the two kernels",
         {"pytorch/pytorch", kCudaFile, "v2.6.0", "read"}, "1e-5", "rounded to T", "rsqrt", "B", kCuda,
         build_cuda<Stored::in_t>);

constinit const CastPath torch_group_norm_cuda =
    path("torch.group_norm.cuda", "torch group_norm on CUDA since 2026-05: mean and rstd kept in fp32",
         {"pytorch/pytorch", kCudaFile, "#183946", "quoted"}, "1e-5", "fp32", "rsqrt", "B", kCuda,
         build_cuda<Stored::in_fp32>);

constinit const CastPath torch_group_norm_xpu =
    path("torch.group_norm.xpu", "torch group_norm on an Intel GPU: as CUDA's until 2026-05",
         {"intel/torch-xpu-ops", "src/ATen/native/xpu/sycl/GroupNormKernels.cpp", "ab84f92", "inferred"}, "1e-5",
         "rounded to T", "rsqrt", "B", kCuda, build_cuda<Stored::in_t>);

constinit const CastPath guided_diffusion_group_norm_32 =
    path("guided_diffusion.group_norm_32", "GroupNorm32 of guided-diffusion: x.float() through fp32 parameters, one cast",
         {"openai/guided-diffusion", "guided_diffusion/nn.py:18", "22e0df8", "read"}, "1e-5", "exact", "1/sqrt", "B",
         kGroupNormProfiles, build_group_norm_32);

constinit const CastPath bfl_flux_autoencoder_group_norm =
    path("bfl.flux.autoencoder.group_norm", "FLUX autoencoder's GroupNorm(32, eps 1e-6) under autocast: fp32 in and out",
         {"black-forest-labs/flux", "src/flux/modules/autoencoder.py:30", "802fb47", "read"}, "1e-6", "exact", "1/sqrt",
         "E", kGroupNormProfiles, build_autocast);

constinit const CastPath diffusers_vae_group_norm =
    path("diffusers.vae.group_norm", "diffusers' VAE and attention GroupNorm(32, eps 1e-6) in the model's dtype",
         {"huggingface/diffusers", "src/diffusers/models/resnet.py", "58eb52c", "read"}, "1e-6", "exact", "1/sqrt", "B",
         kGroupNormProfiles, build_contiguous);

}  // namespace norma::cast_paths

// torch.nn.functional.batch_norm and instance_norm, by device and layout.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/channel_steps.hpp"
#include "reference/formats/tensor.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kCode = "torch.batch_norm";

/// torch checks this before it calls a kernel.
void require_several_values(const Binding& binding, bool each_sample) {
  const ChannelSizes sizes = channel_sizes(binding);
  const std::int64_t count = each_sample ? sizes.positions : sizes.samples * sizes.positions;
  if (count == 1)
    throw ProgramError("x has one value for each channel; training statistics need at least two, torch refuses one");
}

void require_both_or_none(const Binding& binding) {
  if (binding.has("running_mean") != binding.has("running_var"))
    throw ProgramError("running_mean and running_var come together; only one of them is there");
}

/// What training on a CPU makes of a row: mean and 1 / deviation as the normalizer takes them, the sum of squared
/// deviations as it is stored.
struct Trained {
  Operand mean, sum_of_squares, r;
};

enum class CpuLayout : std::uint8_t { contiguous, channels_last };

/// fp32, contiguous: sums in double, the mean rounded before the second pass. 16 bits, contiguous: fp32 lanes over whole
/// loads of each image. Channels-last, and [N, C]: fp32, first to last. What is stored has the parameters' format.
Trained train_on_cpu(Builder& b, Operand x, CpuLayout layout) {
  const Binding& binding = b.binding();
  const ChannelSizes sizes = channel_sizes(binding);
  const FormatRef p = parameter_format(binding, b.x_format());
  const bool half = is_half(b.x_format()), in_lanes = layout == CpuLayout::contiguous && sizes.positions > 1;
  const bool contracts = bound_profile(binding).contract_squares;
  const Order order = half && in_lanes
                          ? Order{.kind = OrderKind::torch_runs, .count = 8, .vec = static_cast<int>(sizes.positions)}
                          : Order{.kind = OrderKind::sequential};
  const FormatRef accumulator = !half && in_lanes ? kFp64 : kFp32;
  const Operand sum = b.reduce("sum", accumulator, x, reduction(ReduceKind::sum, Term::value, order));
  Operand mean = half ? b.div("mean", kFp32, sum, b.count())
                      : b.cast("mean", kFp32, b.div("mean_f64", kFp64, sum, b.count()));
  const Operand unrounded = mean;
  if (is_half(p)) mean = b.cast("mean_T", p, mean);
  const Operand d = b.sub("d", kFp32, x, in_lanes ? unrounded : mean);
  Reduction squares = reduction(ReduceKind::sum, Term::square, order);
  squares.contract = contracts && !in_lanes;
  if (accumulator == kFp64) squares.term_format = kFp32;
  Operand ss = b.reduce("ss", accumulator, d, squares);
  if (accumulator == kFp64) ss = b.cast("ss_f32", kFp32, ss);
  if (is_half(p)) ss = b.cast("ss_T", p, ss);
  const Operand count = is_half(p) ? b.cast("N_T", p, b.count()) : b.count();
  const Operand var = b.eager("var", Op::div, p, {ss, count});
  Operand r = inverse_deviation_in_double(b, var);
  if (is_half(p)) r = b.cast("r_T", p, r);
  return {mean, ss, r};
}

/// (1 - momentum) running + momentum new. The variance's part is taken in double beside fp32 rows, in fp32 beside 16
/// bits; everything else in the parameters' format.
void update_on_cpu(Builder& b, const Trained& trained) {
  const FormatRef p = parameter_format(b.binding(), b.x_format());
  const Operand m = b.cast("momentum_T", p, b.attribute("momentum"));
  const Operand one = b.constant("one", 1);
  const Operand keep = b.eager("keep", Op::sub, p, {one, m});
  const Operand old_mean = b.eager("old_mean", Op::mul, p, {keep, b.input("running_mean")});
  const Operand mean_part = b.eager("mean_part", Op::mul, p, {m, trained.mean});
  b.output("running_mean", b.eager("new_mean", Op::add, p, {mean_part, old_mean}));
  const Operand less = b.sub("n1", kFp32, b.count(), one);
  const Operand divisor = is_half(p) ? b.cast("n1_T", p, less) : less;
  const Operand unbiased = b.eager("unbiased", Op::div, p, {trained.sum_of_squares, divisor});
  const Operand old_var = b.eager("old_var", Op::mul, p, {keep, b.input("running_var")});
  const FormatRef wide = is_half(b.x_format()) ? kFp32 : kFp64;
  const Operand var_part = b.mul("var_part", wide, m, unbiased);
  b.output("running_var", b.cast("new_var", p, b.add("new_var_wide", wide, var_part, old_var)));
}

template <CpuLayout layout>
Program build_train_cpu(const Binding& binding) {
  require_channel_formats(binding, kCode);
  require_both_or_none(binding);
  require_several_values(binding, false);
  if (binding.x == FormatId::fp16 && parameter_format(binding, kFp16) == kFp16)
    throw ProgramError(
        "torch trains fp16 x with fp16 parameters in steps whose roundings are not known; take fp32 parameters");
  Builder b("batchnorm", binding, kBatch);
  const Operand x = b.input("x");
  const Trained trained = train_on_cpu(b, x, layout);
  const bool contracts = bound_profile(binding).contract_squares;
  b.output("y", b.cast("y", b.x_format(), factor_and_offset(b, x, trained.mean, trained.r, contracts, contracts)));
  if (binding.has("running_mean")) update_on_cpu(b, trained);
  return b.finish();
}

/// alpha = gamma / sqrt(var + eps) in fp32, beta' = -alpha mean + beta; y = x alpha + beta'
Operand evaluate_on_cpu(Builder& b, Operand x) {
  const bool contracts = bound_profile(b.binding()).contract_squares;
  const Operand mean = b.input("running_mean");
  const Operand root = b.sqrt("std", kFp32, plus_eps(b, b.input("running_var"), "var_eps"));
  const Operand r = b.map("r", Op::reciprocal, kFp32, {root});
  return factor_and_offset(b, x, mean, r, contracts, contracts);
}

Program build_eval_cpu(const Binding& binding) {
  require_channel_formats(binding, kCode);
  channel_sizes(binding);
  Builder b("batchnorm", binding, kBatch);
  const Operand x = b.input("x");
  return finish_with_cast(b, evaluate_on_cpu(b, x));
}

// For memory that is neither contiguous nor channels-last: ((x - mean) * invstd) * w + b
Program build_eval_cpu_strided(const Binding& binding) {
  require_channel_formats(binding, kCode);
  channel_sizes(binding);
  Builder b("batchnorm", binding, kBatch);
  const Operand x = b.input("x");
  const Operand mean = b.input("running_mean");
  const Operand root = b.sqrt("std", kFp32, plus_eps(b, b.input("running_var"), "var_eps"));
  return finish_with_cast(b, centre_and_weigh(b, x, mean, b.map("r", Op::reciprocal, kFp32, {root})));
}

// batch_norm of x as [1, N C, ...], weight and bias repeated
Program build_instance_cpu(const Binding& binding) {
  constexpr std::string_view code = "torch.instance_norm";
  require_channel_formats(binding, code);
  require_several_values(binding, true);
  if (binding.x == FormatId::fp16 && parameter_format(binding, kFp16) == kFp16)
    throw ProgramError(
        "torch normalizes fp16 x with fp16 parameters in steps whose roundings are not known; take fp32 parameters");
  Builder b("instancenorm", binding, kChannelsView);
  const bool contracts = bound_profile(binding).contract_squares;
  const Operand x = b.input("x");
  const Trained trained = train_on_cpu(b, x, CpuLayout::contiguous);
  return finish_with_cast(b, factor_and_offset(b, x, trained.mean, trained.r, contracts, contracts));
}

Program build_instance_eval_cpu(const Binding& binding) {
  require_channel_formats(binding, "torch.instance_norm");
  channel_sizes(binding);
  Builder b("instancenorm", binding, kChannelsView);
  const Operand x = b.input("x");
  return finish_with_cast(b, evaluate_on_cpu(b, x));
}

/// gamma * (x - mean) * invstd + beta, left to right
Operand transform_on_cuda(Builder& b, Operand x, Operand mean, Operand r) {
  const LayerNormParameters given = affine_inputs(b);
  const Operand d = b.sub("d", kFp32, x, mean);
  const Operand weighted = given.weight ? b.mul("wd", kFp32, *given.weight, d) : d;
  const Operand beta = given.bias ? *given.bias : b.constant("no_bias", 0);
  return multiply_add(b, "nwb", weighted, r, beta);
}

enum class Eps : std::uint8_t { in_fp32, in_double };

/// Welford over a block, fp32; (1 - momentum) running + momentum new in fp32
template <Eps eps>
Program build_train_cuda(const Binding& binding) {
  require_channel_formats(binding, kCode);
  require_both_or_none(binding);
  require_several_values(binding, false);
  Builder b("batchnorm", binding, kBatch);
  const Profile& profile = bound_profile(binding);
  const Operand x = b.input("x");
  const Operand mean = b.moments("mean", "var", kFp32, x, block_moments_order(profile, OrderKind::welford_block),
                                 profile.contract_squares);
  const Operand var{mean.node, 1};
  const Operand r = eps == Eps::in_double ? inverse_deviation_in_double(b, var) : inverse_deviation(b, var);
  b.output("y", b.cast("y", b.x_format(), transform_on_cuda(b, x, mean, r)));
  if (!binding.has("running_mean")) return b.finish();
  const FormatRef p = binding.format("running_mean");
  const Operand one = b.constant("one", 1);
  const Operand m = b.cast("momentum_f32", kFp32, b.attribute("momentum"));
  const Operand keep = b.sub("keep", kFp32, one, m);
  const Operand mean_part = b.mul("mean_part", kFp32, m, mean);
  const Operand new_mean = multiply_add(b, "new_mean", keep, b.input("running_mean"), mean_part);
  b.output("running_mean", b.cast("new_mean_P", p, new_mean));
  const Operand less = b.sub("n1", kFp32, b.count(), one);
  const Operand ss = b.mul("ss", kFp32, var, b.count());
  const Operand var_part = b.mul("var_part", kFp32, m, b.div("unbiased", kFp32, ss, less));
  const Operand new_var = multiply_add(b, "new_var", keep, b.input("running_var"), var_part);
  b.output("running_var", b.cast("new_var_P", p, new_var));
  return b.finish();
}

enum class Form : std::uint8_t { weight_first, root_last };

/// invstd = 1 / sqrt(var + eps); gamma * (x - mean) * invstd + beta, or (x - mean) * w * invstd + b elementwise: the same
/// products in another order
template <Form form>
Program build_eval_cuda(const Binding& binding) {
  require_channel_formats(binding, kCode);
  channel_sizes(binding);
  Builder b("batchnorm", binding, kBatch);
  const Operand x = b.input("x");
  const Operand mean = b.input("running_mean");
  const Operand sum = plus_eps(b, b.input("running_var"), "var_eps");
  const Operand r = form == Form::weight_first ? b.map("r", Op::reciprocal, kFp32, {b.sqrt("std", kFp32, sum)})
                                               : reciprocal_root(b, "r", kFp32, sum);
  return finish_with_cast(b, transform_on_cuda(b, x, mean, r));
}

// What torch hands to cuDNN: fp32, or fp16 with fp32 parameters, [N, C, positions...]. The library is closed: algebra and
// statistics are taken to be those of the native kernels.
template <Program (*native)(const Binding&)>
Program build_cudnn(const Binding& binding) {
  constexpr std::string_view code = "torch.batch_norm by cuDNN";
  require_format(binding, "x", code, {FormatId::fp32, FormatId::fp16});
  for (const std::string_view parameter : {"weight", "bias", "running_mean", "running_var"})
    require_format(binding, parameter, code, {FormatId::fp32});
  if (!binding.shape.empty() && binding.shape.size() < 3)
    throw ProgramError("x has shape " + shape_text(binding.shape) + "; torch gives cuDNN [N, C, positions...] only");
  return native(binding);
}

constexpr std::string_view kCpu[] = {"torch_cpu_moments", "torch_cpu_moments_plain"};
constexpr std::string_view kCuda[] = {"torch_cuda_moments", "sequential"};
constexpr CaseDefault kFromBatch[] = {{"statistics", "batch"}};
constexpr CaseDefault kFromRunning[] = {{"statistics", "running"}};
constexpr std::string_view kRunning = "running_mean,running_var";

constexpr CastPath path(std::string_view norm, std::string_view name, std::string_view title, PathSource source,
                        std::string_view eps_class, std::string_view root, std::span<const CaseDefault> statistics,
                        std::string_view required, std::string_view optional,
                        std::span<const std::string_view> profiles, Program (*build)(const Binding&)) {
  return {.name = name,
          .title = title,
          .norm = norm,
          .source = source,
          .eps_default = "1e-5",
          .eps_place = "inside",
          .eps_class = eps_class,
          .root = root,
          .tail = "B",
          .residual = "",
          .required = required,
          .optional = optional,
          .norm_attributes = statistics,
          .gaps = {},
          .profiles = profiles,
          .build = build};
}

constexpr PathSource kCpuSource{"pytorch/pytorch", "aten/src/ATen/native/Normalization.cpp:200-280", "v2.6.0", "read"};
constexpr PathSource kTransformSource{"pytorch/pytorch", "aten/src/ATen/native/cpu/batch_norm_kernel.cpp:35-75", "v2.6.0",
                                      "read"};
constexpr PathSource kCudaSource{"pytorch/pytorch", "aten/src/ATen/native/cuda/Normalization.cuh", "v2.6.0", "read"};
constexpr PathSource kInstanceSource{"pytorch/pytorch", "aten/src/ATen/native/Normalization.cpp:710-740", "v2.6.0",
                                     "read"};
constexpr std::string_view kTrainOptional = "weight,bias,running_mean,running_var";
constexpr std::string_view kAffine = "weight,bias";

}  // namespace

constinit const CastPath torch_batch_norm_cpu_train =
    path("batchnorm", "torch.batch_norm.cpu.train",
         "torch batch_norm in training on a CPU, contiguous: double sums of fp32, fp32 lanes of 16 bits; x * alpha + beta",
         kCpuSource, "exact", "1/sqrt", kFromBatch, "", kTrainOptional, kCpu, build_train_cpu<CpuLayout::contiguous>);

constinit const CastPath torch_batch_norm_cpu_train_channels_last =
    path("batchnorm", "torch.batch_norm.cpu.train.channels_last",
         "torch batch_norm in training on a CPU, channels-last: fp32 sums, first to last; x * alpha + beta", kCpuSource,
         "exact", "1/sqrt", kFromBatch, "", kTrainOptional, kCpu, build_train_cpu<CpuLayout::channels_last>);

constinit const CastPath torch_batch_norm_cpu_eval =
    path("batchnorm", "torch.batch_norm.cpu.eval", "torch batch_norm in evaluation on a CPU, both layouts: x * alpha + beta",
         kTransformSource, "fp32", "1/sqrt", kFromRunning, kRunning, kAffine, kCpu, build_eval_cpu);

constinit const CastPath torch_batch_norm_cpu_eval_strided =
    path("batchnorm", "torch.batch_norm.cpu.eval.strided",
         "torch batch_norm in evaluation on a CPU, other strides: ((x - mean) * invstd) * w + b", kTransformSource, "fp32",
         "1/sqrt", kFromRunning, kRunning, kAffine, kCpu, build_eval_cpu_strided);

constinit const CastPath torch_batch_norm_cuda_train =
    path("batchnorm", "torch.batch_norm.cuda.train",
         "torch batch_norm in training on CUDA, native kernels: Welford, rsqrt, gamma * (x - mean) * invstd + beta",
         kCudaSource, "fp32", "rsqrt", kFromBatch, "", kTrainOptional, kCuda, build_train_cuda<Eps::in_fp32>);

constinit const CastPath torch_sync_batch_norm_cuda_train =
    path("batchnorm", "torch.sync_batch_norm.cuda.train",
         "torch SyncBatchNorm of one process on CUDA: as batch_norm, eps added and the root taken in double", kCudaSource,
         "exact", "1/sqrt", kFromBatch, "", kTrainOptional, kCuda, build_train_cuda<Eps::in_double>);

constinit const CastPath torch_batch_norm_cuda_eval =
    path("batchnorm", "torch.batch_norm.cuda.eval",
         "torch batch_norm in evaluation on CUDA, contiguous: 1 / sqrt, gamma * (x - mean) * invstd + beta", kCudaSource,
         "fp32", "1/sqrt", kFromRunning, kRunning, kAffine, kCuda, build_eval_cuda<Form::weight_first>);

constinit const CastPath torch_batch_norm_cuda_eval_elementwise =
    path("batchnorm", "torch.batch_norm.cuda.eval.elementwise",
         "torch batch_norm in evaluation on CUDA, general layout: rsqrt, (x - mean) * w * invstd + b",
         {"pytorch/pytorch", "aten/src/ATen/native/cuda/Normalization.cu:97-175", "v2.6.0", "read"}, "fp32", "rsqrt",
         kFromRunning, kRunning, kAffine, kCuda, build_eval_cuda<Form::root_last>);

constinit const CastPath torch_batch_norm_cudnn_train =
    path("batchnorm", "torch.batch_norm.cudnn.train",
         "torch batch_norm in training by cuDNN, a closed library: fp32 inside, taken as the native kernels; no bf16",
         {"pytorch/pytorch", "aten/src/ATen/native/Normalization.cpp:490-520", "v2.6.0", "inferred"}, "fp32", "rsqrt",
         kFromBatch, "weight,bias", "running_mean,running_var", kCuda, build_cudnn<build_train_cuda<Eps::in_fp32>>);

constinit const CastPath torch_batch_norm_cudnn_eval =
    path("batchnorm", "torch.batch_norm.cudnn.eval",
         "torch batch_norm in evaluation by cuDNN, a closed library: fp32 inside, taken as the native kernels; no bf16",
         {"pytorch/pytorch", "aten/src/ATen/native/Normalization.cpp:490-520", "v2.6.0", "inferred"}, "fp32", "1/sqrt",
         kFromRunning, "weight,bias,running_mean,running_var", "", kCuda,
         build_cudnn<build_eval_cuda<Form::weight_first>>);

constinit const CastPath torch_instance_norm_cpu =
    path("instancenorm", "torch.instance_norm.cpu", "torch instance_norm on a CPU: batch_norm of x as [1, N C, ...]",
         kInstanceSource, "exact", "1/sqrt", kFromBatch, "", kTrainOptional, kCpu, build_instance_cpu);

constinit const CastPath torch_instance_norm_cpu_eval =
    path("instancenorm", "torch.instance_norm.cpu.eval",
         "torch instance_norm with running statistics on a CPU: batch_norm in evaluation of x as [1, N C, ...]",
         kInstanceSource, "fp32", "1/sqrt", kFromRunning, kRunning, kAffine, kCpu, build_instance_eval_cpu);

}  // namespace norma::cast_paths

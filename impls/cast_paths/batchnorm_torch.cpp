// torch.nn.functional.batch_norm and instance_norm, by device and layout.
#include "impls/cast_paths/backward_steps.hpp"
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

/// What training on a CPU makes of a row: mean and 1 / deviation as the normalizer takes them; mean and sum of squared
/// deviations as the running statistics take them.
struct Trained {
  Operand mean, r, new_mean, sum_of_squares;
};

/// The format of arithmetic among parameters of a format: bf16 is rounded after every operation; fp16 only where it is
/// stored, what lies between is fp32 (bits compared with torch 2.15 on x86-64: no rounding of the mean before the
/// second pass in either layout, of N, or of momentum).
FormatRef between(FormatRef parameters) { return parameters.id == FormatId::fp16 ? kFp32 : parameters; }

/// A cast, but where the value has the format already: that is no step.
Operand stored(Builder& b, const std::string& name, FormatRef to, Operand value) {
  return b.format(value) == to ? value : b.cast(name, to, value);
}

enum class CpuLayout : std::uint8_t { contiguous, channels_last };

/// fp32, contiguous: sums in double, the mean rounded before the second pass. 16 bits, contiguous: fp32 lanes over
/// whole loads of each image. Channels-last, and [N, C]: fp32, first to last. What the normalizer takes has the
/// parameters' format.
Trained train_on_cpu(Builder& b, Operand x, CpuLayout layout) {
  const Binding& binding = b.binding();
  const ChannelSizes sizes = channel_sizes(binding);
  const FormatRef p = parameter_format(binding, b.x_format()), q = between(p);
  const bool half = is_half(b.x_format()), in_lanes = layout == CpuLayout::contiguous && sizes.positions > 1;
  const bool contracts = bound_profile(binding).contract_squares;
  const Order order = half && in_lanes
                          ? Order{.kind = OrderKind::torch_runs, .count = 8, .vec = static_cast<int>(sizes.positions)}
                          : Order{.kind = OrderKind::sequential};
  const FormatRef accumulator = !half && in_lanes ? kFp64 : kFp32;
  const Operand sum = b.reduce("sum", accumulator, x, reduction(ReduceKind::sum, Term::value, order));
  Operand mean =
      half ? b.div("mean", kFp32, sum, b.count()) : b.cast("mean", kFp32, b.div("mean_f64", kFp64, sum, b.count()));
  const Operand unrounded = mean;
  if (is_half(p)) mean = b.cast("mean_T", p, mean);
  const Operand new_mean = is_half(q) ? mean : unrounded;
  const Operand d = b.sub("d", kFp32, x, in_lanes ? unrounded : new_mean);
  Reduction squares = reduction(ReduceKind::sum, Term::square, order);
  squares.contract = contracts && !in_lanes;
  if (accumulator == kFp64) squares.term_format = kFp32;
  Operand ss = b.reduce("ss", accumulator, d, squares);
  if (accumulator == kFp64) ss = b.cast("ss_f32", kFp32, ss);
  if (is_half(q)) ss = b.cast("ss_T", q, ss);
  const Operand count = is_half(q) ? b.cast("N_T", q, b.count()) : b.count();
  const Operand var = b.eager("var", Op::div, q, {ss, count});
  Operand r = inverse_deviation_in_double(b, var);
  if (is_half(p)) r = b.cast("r_T", p, r);
  return {.mean = mean, .r = r, .new_mean = new_mean, .sum_of_squares = ss};
}

/// running_mean and running_var of a row.
struct Running {
  Operand mean, variance;
};

/// x alpha + beta' with beta' = beta - alpha mean, which is one fused operation but beside fp16 parameters (measured as
/// between's: x near the mean, so that y shows the rounding of beta').
Operand transform_on_cpu(Builder& b, Operand x, Operand mean, Operand r) {
  const bool contracts = bound_profile(b.binding()).contract_squares;
  const FormatRef p = parameter_format(b.binding(), b.x_format());
  return factor_and_offset(b, x, mean, r, contracts && p.id != FormatId::fp16, contracts);
}

/// (1 - momentum) running + momentum new. The variance's part is taken in double beside fp32 rows, in fp32 beside 16
/// bits.
Running update_on_cpu(Builder& b, const Trained& trained) {
  const FormatRef p = parameter_format(b.binding(), b.x_format()), q = between(p);
  const Operand m = b.cast(is_half(q) ? "momentum_T" : "momentum_f32", q, b.attribute("momentum"));
  const Operand one = b.constant("one", 1);
  const Operand keep = b.eager("keep", Op::sub, q, {one, m});
  const Operand old_mean = b.eager("old_mean", Op::mul, q, {keep, b.input("running_mean")});
  const Operand mean_part = b.eager("mean_part", Op::mul, q, {m, trained.new_mean});
  const Operand mean = stored(b, "new_mean_T", p, b.eager("new_mean", Op::add, q, {mean_part, old_mean}));
  const Operand less = b.sub("n1", kFp32, b.count(), one);
  const Operand divisor = is_half(q) ? b.cast("n1_T", q, less) : less;
  const Operand unbiased = b.eager("unbiased", Op::div, q, {trained.sum_of_squares, divisor});
  const Operand old_var = b.eager("old_var", Op::mul, q, {keep, b.input("running_var")});
  const FormatRef wide = is_half(b.x_format()) ? kFp32 : kFp64;
  const Operand var_part = b.mul("var_part", wide, m, unbiased);
  return {.mean = mean, .variance = stored(b, "new_var", p, b.add("new_var_wide", wide, var_part, old_var))};
}

template <CpuLayout layout>
Program build_train_cpu(const Binding& binding) {
  require_channel_formats(binding, kCode);
  require_both_or_none(binding);
  require_several_values(binding, false);
  Builder b("batchnorm", binding, kBatch);
  const Operand x = b.input("x");
  const Trained trained = train_on_cpu(b, x, layout);
  b.output("y", b.cast("y", b.x_format(), transform_on_cpu(b, x, trained.mean, trained.r)));
  if (!binding.has("running_mean")) return b.finish();
  const Running updated = update_on_cpu(b, trained);
  b.output("running_mean", updated.mean);
  b.output("running_var", updated.variance);
  return b.finish();
}

/// alpha = gamma / sqrt(var + eps) in fp32, beta' = -alpha mean + beta; y = x alpha + beta'
Operand evaluate_on_cpu(Builder& b, Operand x) {
  const Operand mean = b.input("running_mean");
  const Operand root = b.sqrt("std", kFp32, plus_eps(b, b.input("running_var"), "var_eps"));
  return transform_on_cpu(b, x, mean, b.map("r", Op::reciprocal, kFp32, {root}));
}

Program build_eval_cpu(const Binding& binding) {
  require_channel_formats(binding, kCode);
  channel_sizes(binding);
  Builder b("batchnorm", binding, kBatch);
  const Operand x = b.input("x");
  return finish_with_cast(b, evaluate_on_cpu(b, x));
}

// For memory that is neither contiguous nor channels-last: ((x - mean) * invstd) * w + b by iterators, nothing
// contracted. Beside 16-bit parameters every operation is rounded to their format. An absent b is 0 and added.
Program build_eval_cpu_strided(const Binding& binding) {
  require_channel_formats(binding, kCode);
  channel_sizes(binding);
  Builder b("batchnorm", binding, kBatch);
  const FormatRef p = parameter_format(binding, b.x_format());
  const Operand x = b.input("x"), mean = b.input("running_mean");
  const Operand sum = stored(b, "var_eps_T", p, plus_eps(b, b.input("running_var"), "var_eps"));
  const Operand r = b.eager("r", Op::reciprocal, p, {b.eager("std", Op::sqrt, p, {sum})});
  Operand n = b.eager("n", Op::mul, p, {b.eager("d", Op::sub, p, {x, mean}), r});
  const LayerNormParameters given = affine_inputs(b);
  if (given.weight) n = b.eager("nw", Op::mul, p, {n, *given.weight});
  const Operand beta = given.bias ? *given.bias : b.constant("no_bias", 0);
  return finish_with_cast(b, b.eager("nwb", Op::add, p, {n, beta}));
}

// batch_norm of x as [1, N C, ...], parameters and running statistics repeated for each sample; what becomes of the
// repeated ones, rounded to their format, is averaged over the samples: at::mean, in fp32.
Program build_instance_cpu(const Binding& binding) {
  require_channel_formats(binding, "torch.instance_norm");
  require_both_or_none(binding);
  require_several_values(binding, true);
  Builder b("instancenorm", binding, kChannelsView);
  const Operand x = b.input("x");
  const Trained trained = train_on_cpu(b, x, CpuLayout::contiguous);
  b.output("y", b.cast("y", b.x_format(), transform_on_cpu(b, x, trained.mean, trained.r)));
  if (!binding.has("running_mean")) return b.finish();
  const Running updated = update_on_cpu(b, trained);
  b.pass("sample_mean", updated.mean);
  b.pass("sample_var", updated.variance);
  Builder samples = b.next_stage(kColumns);
  const std::int64_t channels = channel_sizes(binding).channels;
  // [N, 1] is one contiguous row.
  const Order order = channels == 1 ? Order{.kind = OrderKind::torch_cpu, .count = 8} : torch_outer_order(channels);
  const FormatRef p = parameter_format(binding, b.x_format());
  const auto average = [&](const std::string& name, const std::string& of) {
    const Operand sum = value_sum(samples, name + "_sum", kFp32, samples.input(of), order);
    const Operand mean = samples.div(name + "_mean", kFp32, sum, samples.count());
    samples.output(name, stored(samples, name + "_T", p, mean));
  };
  average("running_mean", "sample_mean");
  average("running_var", "sample_var");
  return samples.finish();
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

/// invstd = 1 / sqrt(var + eps); gamma * (x - mean) * invstd + beta, or (x - mean) * w * invstd + b elementwise: the
/// same products in another order
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

// What torch hands to cuDNN: fp32, or fp16 with fp32 parameters, [N, C, positions...]. The library is closed: algebra
// and statistics are taken to be those of the native kernels.
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
constexpr PathSource kTransformSource{"pytorch/pytorch", "aten/src/ATen/native/cpu/batch_norm_kernel.cpp:35-75",
                                      "v2.6.0", "read"};
constexpr PathSource kCudaSource{"pytorch/pytorch", "aten/src/ATen/native/cuda/Normalization.cuh", "v2.6.0", "read"};
constexpr PathSource kInstanceSource{"pytorch/pytorch", "aten/src/ATen/native/Normalization.cpp:710-740", "v2.6.0",
                                     "read"};
constexpr std::string_view kTrainOptional = "weight,bias,running_mean,running_var";
constexpr std::string_view kAffine = "weight,bias";

}  // namespace

constinit const CastPath torch_batch_norm_cpu_train = path(
    "batchnorm", "torch.batch_norm.cpu.train",
    "torch batch_norm in training on a CPU, contiguous: double sums of fp32, fp32 lanes of 16 bits; x * alpha + beta",
    kCpuSource, "exact", "1/sqrt", kFromBatch, "", kTrainOptional, kCpu, build_train_cpu<CpuLayout::contiguous>);

constinit const CastPath torch_batch_norm_cpu_train_channels_last =
    path("batchnorm", "torch.batch_norm.cpu.train.channels_last",
         "torch batch_norm in training on a CPU, channels-last: fp32 sums, first to last; x * alpha + beta", kCpuSource,
         "exact", "1/sqrt", kFromBatch, "", kTrainOptional, kCpu, build_train_cpu<CpuLayout::channels_last>);

constinit const CastPath torch_batch_norm_cpu_eval = path(
    "batchnorm", "torch.batch_norm.cpu.eval", "torch batch_norm in evaluation on a CPU, both layouts: x * alpha + beta",
    kTransformSource, "fp32", "1/sqrt", kFromRunning, kRunning, kAffine, kCpu, build_eval_cpu);

constinit const CastPath torch_batch_norm_cpu_eval_strided =
    path("batchnorm", "torch.batch_norm.cpu.eval.strided",
         "torch batch_norm in evaluation on a CPU, other strides: ((x - mean) * invstd) * w + b", kTransformSource,
         "fp32", "1/sqrt", kFromRunning, kRunning, kAffine, kCpu, build_eval_cpu_strided);

constinit const CastPath torch_batch_norm_cuda_train =
    path("batchnorm", "torch.batch_norm.cuda.train",
         "torch batch_norm in training on CUDA, native kernels: Welford, rsqrt, gamma * (x - mean) * invstd + beta",
         kCudaSource, "fp32", "rsqrt", kFromBatch, "", kTrainOptional, kCuda, build_train_cuda<Eps::in_fp32>);

constinit const CastPath torch_sync_batch_norm_cuda_train =
    path("batchnorm", "torch.sync_batch_norm.cuda.train",
         "torch SyncBatchNorm of one process on CUDA: as batch_norm, eps added and the root taken in double",
         kCudaSource, "exact", "1/sqrt", kFromBatch, "", kTrainOptional, kCuda, build_train_cuda<Eps::in_double>);

constinit const CastPath torch_batch_norm_cuda_eval =
    path("batchnorm", "torch.batch_norm.cuda.eval",
         "torch batch_norm in evaluation on CUDA, contiguous: 1 / sqrt, gamma * (x - mean) * invstd + beta",
         kCudaSource, "fp32", "1/sqrt", kFromRunning, kRunning, kAffine, kCuda, build_eval_cuda<Form::weight_first>);

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

constinit const CastPath torch_batch_norm_cudnn_eval = path(
    "batchnorm", "torch.batch_norm.cudnn.eval",
    "torch batch_norm in evaluation by cuDNN, a closed library: fp32 inside, taken as the native kernels; no bf16",
    {"pytorch/pytorch", "aten/src/ATen/native/Normalization.cpp:490-520", "v2.6.0", "inferred"}, "fp32", "1/sqrt",
    kFromRunning, "weight,bias,running_mean,running_var", "", kCuda, build_cudnn<build_eval_cuda<Form::weight_first>>);

constinit const CastPath torch_instance_norm_cpu =
    path("instancenorm", "torch.instance_norm.cpu", "torch instance_norm on a CPU: batch_norm of x as [1, N C, ...]",
         kInstanceSource, "exact", "1/sqrt", kFromBatch, "", kTrainOptional, kCpu, build_instance_cpu);

constinit const CastPath torch_instance_norm_cpu_eval =
    path("instancenorm", "torch.instance_norm.cpu.eval",
         "torch instance_norm with running statistics on a CPU: batch_norm in evaluation of x as [1, N C, ...]",
         kInstanceSource, "fp32", "1/sqrt", kFromRunning, kRunning, kAffine, kCpu, build_instance_eval_cpu);

}  // namespace norma::cast_paths

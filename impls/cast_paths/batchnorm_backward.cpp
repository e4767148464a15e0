// The gradients of torch's batch_norm and instance_norm on a CPU, by layout. Every variant below was compared bit by
// bit with torch 2.15 on one thread; where a product and a sum contract is the compiler's choice and measured.
#include "impls/cast_paths/backward_steps.hpp"
#include "impls/cast_paths/catalog.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kCode = "torch.batch_norm's gradient";

/// The memory of x and dy: both contiguous, both channels-last (also [N, C]), or each its own.
enum class Memory : std::uint8_t { contiguous, channels_last, mixed };
enum class Statistics : std::uint8_t { batch, running };

struct Formats {
  FormatRef t, p;  ///< of x, of parameters and saved statistics
  bool half() const { return is_half(t); }
  bool same() const { return t == p; }
};
Formats formats_of(const Binding& binding) {
  const FormatRef t = binding.format("x");
  return {t, binding.has("weight")         ? binding.format("weight")
             : binding.has("running_mean") ? binding.format("running_mean")
                                           : t};
}

/// What the forward saved: mean and 1 / deviation in the parameters' format.
struct Saved {
  Operand mean, r;
};

/// As the forward takes them (torch.batch_norm.cpu.train). fp16 beside fp16 parameters keeps the mean, before the second
/// pass, and the sum of squares in fp32.
Saved saved_in_training(Builder& b, Operand x, const Formats& f, bool in_lanes) {
  const Binding& binding = b.binding();
  const int run = static_cast<int>(channel_sizes(binding).positions);
  const Order order = f.half() && in_lanes ? Order{.kind = OrderKind::torch_runs, .count = 8, .vec = run}
                                           : Order{.kind = OrderKind::sequential};
  const FormatRef accumulator = !f.half() && in_lanes ? kFp64 : kFp32;
  const Operand sum = b.reduce("sum_x", accumulator, x, reduction(ReduceKind::sum, Term::value, order));
  Operand mean = f.half() || !in_lanes ? b.div("mean", kFp32, sum, b.count())
                                       : b.cast("mean", kFp32, b.div("mean_f64", kFp64, sum, b.count()));
  const Operand unrounded = mean;
  if (is_half(f.p)) mean = b.cast("mean_P", f.p, mean);
  const Operand centred = b.sub("x_centred", kFp32, x, in_lanes || f.p.id == FormatId::fp16 ? unrounded : mean);
  Reduction squares = reduction(ReduceKind::sum, Term::square, order);
  squares.contract = !in_lanes;
  if (accumulator == kFp64) squares.term_format = kFp32;
  Operand ss = b.reduce("ss", accumulator, centred, squares);
  if (accumulator == kFp64) ss = b.cast("ss_f32", kFp32, ss);
  Operand var;
  if (f.p.id == FormatId::bf16) {
    const Operand count = b.cast("N_P", f.p, b.count());
    var = b.eager("var", Op::div, f.p, {b.cast("ss_P", f.p, ss), count});
  } else {
    var = b.div("var", kFp32, ss, b.count());
  }
  Operand r = inverse_deviation_in_double(b, var);
  if (is_half(f.p)) r = b.cast("r_P", f.p, r);
  return {mean, r};
}

Saved given_statistics(Builder& b, const Formats& f, bool rounded) {
  const Operand mean = b.input("running_mean");
  const Operand r = inverse_deviation_in_double(b, b.input("running_var"));
  return {mean, rounded && is_half(f.p) ? b.cast("r_P", f.p, r) : r};
}

/// dx = ((dy - sum / N - (x - mean) k) r) w with k = dotp r r / N in training, dy r w else. `fused`: the second
/// difference.
Operand input_gradient(Builder& b, Operand centred, Operand dy, Operand k, Operand grad_mean, Operand r, bool fused) {
  const Operand e = b.sub("e", kFp32, dy, grad_mean);
  const Operand v =
      fused ? fused_minus_product(b, "v", e, centred, k) : b.sub("v", kFp32, e, b.mul("dk", kFp32, centred, k));
  return b.mul("vr", kFp32, v, r);
}

void put_parameters(Builder& b, const Formats& f, Operand dotp, Operand r, Operand sum) {
  if (!b.binding().has("weight")) return;
  const FormatRef wide = b.format(dotp).id == FormatId::fp64 ? kFp64 : kFp32;
  put_out(b, "dweight", f.p, b.mul("dotp_r", wide, dotp, r));
  put_out(b, "dbias", f.p, sum);
}

/// x and dy alike in memory. Contiguous fp32: each image in fp32, the images in double. Contiguous 16-bit: lanes over
/// whole loads. Channels-last: fp32, first to last.
void build_alike(Builder& b, const Formats& f, Statistics statistics, bool in_lanes) {
  const ChannelSizes sizes = channel_sizes(b.binding());
  const int run = static_cast<int>(sizes.positions);
  if (!f.half() && !in_lanes && sizes.channels > 8 && sizes.channels % 8 != 0)
    throw ProgramError("x has " + std::to_string(sizes.channels) +
                       " channels; of fp32 in channels-last torch treats the last " +
                       std::to_string(sizes.channels % 8) +
                       " otherwise than the vectors of 8 before them: take a multiple of 8, or fewer than 8");
  const Operand x = b.input("x"), dy = b.input("dy");
  const auto [mean, r] =
      statistics == Statistics::batch ? saved_in_training(b, x, f, in_lanes) : given_statistics(b, f, false);
  const Operand centred = b.sub("d", kFp32, x, mean);
  Order order{.kind = OrderKind::sequential};
  if (in_lanes && f.half())
    order = {
        .kind = f.t.id == FormatId::bf16 ? OrderKind::torch_runs_loads : OrderKind::torch_runs, .count = 8, .vec = run};
  if (in_lanes && !f.half()) order = {.kind = OrderKind::torch_images, .count = 8, .vec = run};
  const FormatRef accumulator = in_lanes && !f.half() ? kFp64 : kFp32;
  const Operand sum = value_sum(b, "sum", accumulator, dy, order);
  const Operand dotp = product_sum(b, "dotp", accumulator, centred, dy, order, true);
  Operand dx;
  if (statistics == Statistics::batch) {
    const bool wide = accumulator == kFp64;
    const Operand k =
        b.div("k", kFp32, product_of(b, "dotp_rr", {wide ? b.cast("dotp_f32", kFp32, dotp) : dotp, r, r}), b.count());
    const Operand grad_mean = wide ? b.cast("grad_mean", kFp32, b.div("grad_mean_f64", kFp64, sum, b.count()))
                                   : b.div("grad_mean", kFp32, sum, b.count());
    dx = input_gradient(b, centred, dy, k, grad_mean, r, in_lanes || f.half() || sizes.channels % 8 == 0);
  } else {
    dx = b.mul("vr", kFp32, dy, r);
  }
  const bool weighted = b.binding().has("weight");
  put_out(b, "dx", f.t, weighted ? b.mul("vrw", kFp32, dx, b.input("weight")) : dx);
  put_parameters(b, f, dotp, r, sum);
}

/// x and dy each in its own layout: scalar code through iterators. fp32: dotp in double of fp32 products. 16 bits
/// beside fp32 parameters: fp32, k, grad_mean and both differences rounded to x's format. 16-bit parameters: every
/// operation rounded to that format but dotp's sum. sum: at::sum, image after image; that of bf16 is rounded, that of
/// fp16 is not.
void build_mixed_memory(Builder& b, const Formats& f, Statistics statistics) {
  const int run = static_cast<int>(channel_sizes(b.binding()).positions);
  const bool bf16 = f.t.id == FormatId::bf16;
  const bool last = run > 1;
  const FormatRef q = f.half() && f.same() ? f.t : kFp32;  // of x, parameters and what is computed from both
  const Operand x = b.input("x"), dy = b.input("dy");
  // x decides the forward's layout: channels-last
  const auto [mean, r] =
      statistics == Statistics::batch ? saved_in_training(b, x, f, !last) : given_statistics(b, f, true);
  Operand sum = value_sum(b, "sum_dy", kFp32, dy, {.kind = OrderKind::torch_cpu_runs, .count = 8, .vec = run});
  if (bf16) sum = b.cast("sum", f.t, sum);
  const Operand centred = b.eager("d", Op::sub, q, {x, mean});
  const Operand terms = b.eager("dotp_terms", Op::mul, q, {centred, dy});
  const Operand dotp = value_sum(b, "dotp", f.half() ? kFp32 : kFp64, terms, {.kind = OrderKind::sequential});
  const bool weighted = b.binding().has("weight");
  Operand v = dy;
  if (statistics == Statistics::batch) {
    const Operand first = b.eager("dotp_r_T", Op::mul, q, {b.cast("dotp_T", f.t, dotp), r});
    const Operand count = is_half(q) ? b.cast("N_T", q, b.count()) : b.count();
    const Operand quotient = b.eager("k_q", Op::div, q, {b.eager("dotp_rr", Op::mul, q, {first, r}), count});
    const Operand k = b.cast("k", f.t, quotient);
    const Operand gi = b.cast("gi", f.t, b.eager("gi_q", Op::mul, q, {centred, k}));
    const Operand of_sum = bf16 ? b.cast("N_bf16", f.t, b.count()) : b.count();
    const Operand grad_mean = b.cast("grad_mean", f.t, b.div("grad_mean_f32", kFp32, sum, of_sum));
    v = b.eager("v", Op::sub, f.t, {b.eager("e", Op::sub, f.t, {dy, grad_mean}), gi});
  }
  Operand dx = b.eager("vr", Op::mul, q, {v, r});
  if (weighted) dx = b.eager("vrw", Op::mul, q, {dx, b.input("weight")});
  put_out(b, "dx", f.t, dx);
  put_parameters(b, f, dotp, r, sum);
}

void require_training_values(const Binding& binding, bool each_sample) {
  const ChannelSizes sizes = channel_sizes(binding);
  if ((each_sample ? sizes.positions : sizes.samples * sizes.positions) == 1)
    throw ProgramError("x has one value for each channel; training statistics need at least two, torch refuses one");
}

void require_statistics_format(const Binding& binding) {
  if (binding.has("running_mean") && binding.has("weight") &&
      !(binding.format("running_mean") == binding.format("weight")))
    throw ProgramError("running_mean is " + std::string(name_of(binding.format("running_mean").id)) +
                       " and weight is " + std::string(name_of(binding.format("weight").id)) +
                       "; torch.batch_norm takes one format for all parameters");
}

template <Memory memory, Statistics statistics>
Program build_batch_norm(const Binding& binding) {
  require_gradient_formats(binding, kCode, Mixed::taken);
  require_statistics_format(binding);
  if (statistics == Statistics::batch) require_training_values(binding, false);
  const Formats f = formats_of(binding);
  Builder b("batchnorm_backward", binding, kBatch);
  if (memory == Memory::mixed)
    build_mixed_memory(b, f, statistics);
  else
    build_alike(b, f, statistics, memory == Memory::contiguous && channel_sizes(binding).positions > 1);
  return b.finish();
}

/// batch_norm of x as [1, N C, ...] with weight and bias repeated; the gradients of the repeated ones, rounded to their
/// format, are added over the samples.
Program build_instance_norm(const Binding& binding) {
  require_gradient_formats(binding, "torch.instance_norm's gradient", Mixed::taken);
  require_training_values(binding, true);
  const Formats f = formats_of(binding);
  Builder b("instancenorm_backward", binding, kChannelsView);
  const int run = static_cast<int>(channel_sizes(binding).positions);
  const Operand x = b.input("x"), dy = b.input("dy");
  const auto [mean, r] = saved_in_training(b, x, f, true);
  const Operand centred = b.sub("d", kFp32, x, mean);
  const OrderKind lanes = f.t.id == FormatId::bf16 ? OrderKind::torch_runs_loads : OrderKind::torch_runs;
  const Order order{.kind = f.half() ? lanes : OrderKind::torch_images, .count = 8, .vec = run};
  const FormatRef accumulator = f.half() ? kFp32 : kFp64;
  const Operand sum = value_sum(b, "sum", accumulator, dy, order);
  const Operand dotp = product_sum(b, "dotp", accumulator, centred, dy, order, true);
  const Operand narrow = f.half() ? dotp : b.cast("dotp_f32", kFp32, dotp);
  const Operand k = b.div("k", kFp32, product_of(b, "dotp_rr", {narrow, r, r}), b.count());
  const Operand grad_mean = f.half() ? b.div("grad_mean", kFp32, sum, b.count())
                                     : b.cast("grad_mean", kFp32, b.div("grad_mean_f64", kFp64, sum, b.count()));
  const Operand dx = input_gradient(b, centred, dy, k, grad_mean, r, true);
  const bool weighted = binding.has("weight");
  put_out(b, "dx", f.t, weighted ? b.mul("vrw", kFp32, dx, b.input("weight")) : dx);
  if (!weighted) return b.finish();
  b.pass("dgamma", b.cast("dgamma", f.p, b.mul("dotp_r", accumulator, dotp, r)));
  b.pass("dbeta", b.cast("dbeta", f.p, sum));
  Builder samples = b.next_stage(kColumns);
  const std::int64_t channels = channel_sizes(binding).channels;
  // [N, 1] is one contiguous row.
  const Order over = channels == 1 ? Order{.kind = OrderKind::torch_cpu, .count = 8} : torch_outer_order(channels);
  put_out(samples, "dweight", f.p, value_sum(samples, "dw", kFp32, samples.input("dgamma"), over));
  put_out(samples, "dbias", f.p, value_sum(samples, "db", kFp32, samples.input("dbeta"), over));
  return samples.finish();
}

constexpr std::string_view kProfiles[] = {"torch_cpu_moments"};
constexpr CaseDefault kFromBatch[] = {{"statistics", "batch"}};
constexpr CaseDefault kFromRunning[] = {{"statistics", "running"}};
constexpr PathSource kKernel{"pytorch/pytorch", "aten/src/ATen/native/cpu/batch_norm_kernel.cpp", "0279398", "read"};
constexpr PathSource kIterators{"pytorch/pytorch", "aten/src/ATen/native/Normalization.cpp", "v2.6.0", "quoted"};

constexpr CastPath batch_norm(std::string_view name, std::string_view title, PathSource source, Statistics statistics,
                              Program (*build)(const Binding&)) {
  const bool batch = statistics == Statistics::batch;
  return gradient_path({.name = name,
                        .title = title,
                        .norm = "batchnorm_backward",
                        .source = source,
                        .eps_class = "exact",
                        .required = batch ? "dy" : "dy,running_mean,running_var",
                        .optional = "weight",
                        .norm_attributes = batch ? std::span<const CaseDefault>(kFromBatch) : kFromRunning,
                        .profiles = kProfiles,
                        .build = build});
}

}  // namespace

constinit const CastPath torch_batch_norm_backward_cpu_train =
    batch_norm("torch.batch_norm_backward.cpu.train",
               "torch batch_norm's gradient in training on a CPU, contiguous (bits compared, 2.15)", kKernel,
               Statistics::batch, build_batch_norm<Memory::contiguous, Statistics::batch>);

constinit const CastPath torch_batch_norm_backward_cpu_train_channels_last =
    batch_norm("torch.batch_norm_backward.cpu.train.channels_last",
               "torch batch_norm's gradient in training on a CPU, x and dy channels-last (bits compared, 2.15)",
               kKernel, Statistics::batch, build_batch_norm<Memory::channels_last, Statistics::batch>);

constinit const CastPath torch_batch_norm_backward_cpu_train_mixed = batch_norm(
    "torch.batch_norm_backward.cpu.train.mixed",
    "torch batch_norm's gradient in training on a CPU, x channels-last, dy contiguous: 16-bit parameters round "
    "every operation (bits compared, 2.15)",
    kIterators, Statistics::batch, build_batch_norm<Memory::mixed, Statistics::batch>);

constinit const CastPath torch_batch_norm_backward_cpu_eval =
    batch_norm("torch.batch_norm_backward.cpu.eval",
               "torch batch_norm's gradient in evaluation on a CPU, contiguous (bits compared, 2.15)", kKernel,
               Statistics::running, build_batch_norm<Memory::contiguous, Statistics::running>);

constinit const CastPath torch_batch_norm_backward_cpu_eval_channels_last =
    batch_norm("torch.batch_norm_backward.cpu.eval.channels_last",
               "torch batch_norm's gradient in evaluation on a CPU, x and dy channels-last (bits compared, 2.15)",
               kKernel, Statistics::running, build_batch_norm<Memory::channels_last, Statistics::running>);

constinit const CastPath torch_batch_norm_backward_cpu_eval_mixed = batch_norm(
    "torch.batch_norm_backward.cpu.eval.mixed",
    "torch batch_norm's gradient in evaluation on a CPU, x channels-last, dy contiguous (bits compared, 2.15)",
    kIterators, Statistics::running, build_batch_norm<Memory::mixed, Statistics::running>);

constinit const CastPath torch_instance_norm_backward_cpu = gradient_path({
    .name = "torch.instance_norm_backward.cpu",
    .title = "torch instance_norm's gradient on a CPU: batch_norm's of x as [1, N C, ...] (bits compared, 2.15)",
    .norm = "instancenorm_backward",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/Normalization.cpp:710-740", "v2.6.0", "read"},
    .eps_class = "exact",
    .optional = "weight",
    .profiles = kProfiles,
    .build = build_instance_norm,
});

}  // namespace norma::cast_paths

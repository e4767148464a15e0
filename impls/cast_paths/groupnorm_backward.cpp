// The gradient of torch's group_norm on a CPU, by layout; bits compared with torch 2.15 on one thread.
//
//   ds = sum x dy, db = sum dy of each channel of a sample; then over a group's channels, times gamma;
//   dx = c1 dy + c2 x + c3,  c1 = r gamma, c2 = (db mean - ds) r^3 / n, c3 = -c2 mean - db r / n;
//   dgamma = sum over samples of (ds - db mean) r, dbeta = sum of db.
#include "impls/cast_paths/backward_steps.hpp"
#include "impls/cast_paths/catalog.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kCode = "torch.group_norm's gradient";
constexpr std::string_view kNorm = "groupnorm_backward";

enum class Memory : std::uint8_t { contiguous, channels_last };

struct Formats {
  FormatRef t, p;  ///< of x, of parameters and saved statistics
  bool half() const { return is_half(t); }
};
Formats formats_of(const Binding& binding) {
  const FormatRef t = binding.format("x");
  return {t, binding.has("weight") ? binding.format("weight") : t};
}

/// var = E[x^2] - mean^2 floored at 0 (torch.group_norm.cpu.channels_last).
RowMoments channels_last_moments(Builder& b, Operand x, Operand nth, const Formats& f) {
  const int each = static_cast<int>(channel_sizes(b.binding()).each());
  const bool columns = channel_sizes(b.binding()).positions < 1024;
  const Order order =
      columns
          ? Order{.kind = f.half() ? OrderKind::torch_columns_half : OrderKind::torch_columns, .count = 8, .vec = each}
          : Order{.kind = OrderKind::lanes, .count = each};
  const Operand sum = b.reduce("sum", kFp32, x, reduction(ReduceKind::sum, Term::value, order));
  const Operand ss = b.reduce("ss", kFp32, x, reduction(ReduceKind::sum, Term::square, order));
  const Operand mean = b.mul("mean", kFp32, sum, nth);
  const Operand square = b.map("mean_sq", Op::square, kFp32, {mean});
  return {mean, fused_product_minus(b, "var", ss, nth, square)};
}

/// mean and r as saved, in the parameters' format, and 1 / n.
Builder pass_statistics(Builder b, const Formats& f, Memory memory) {
  const Profile& profile = bound_profile(b.binding());
  const Operand x = b.input("x");
  RowMoments moments;
  const Operand nth = b.map("rn", Op::reciprocal, kFp32, {b.count()});
  if (memory == Memory::channels_last) {
    moments = channels_last_moments(b, x, nth, f);
  } else {
    moments.mean = b.moments("mean", "var", kFp32, x, rowwise_moments_order(profile, f.t), profile.contract_squares);
    moments.variance = {moments.mean.node, 1};
  }
  const Operand floored = b.map("var_or_0", Op::max, kFp32, {moments.variance, b.constant("zero", 0)});
  const Operand r = inverse_deviation_in_double(b, floored);
  b.pass("saved_mean", is_half(f.p) ? b.cast("mean_P", f.p, moments.mean) : moments.mean);
  b.pass("saved_r", is_half(f.p) ? b.cast("r_P", f.p, r) : r);
  b.pass("one_nth", nth);
  return b.next_stage(kChannelsView);
}

/// ds and db of each channel of a sample. fp32, contiguous: vec::map2_reduce_all. 16 bits, contiguous: lanes over whole
/// loads, whose products fp32 holds. Channels-last: first to last.
Builder pass_channel_sums(Builder b, const Formats& f, Memory memory) {
  Order order{.kind = OrderKind::sequential};
  if (memory == Memory::contiguous)
    order = f.half() ? Order{.kind = OrderKind::torch_norm, .count = 8, .vec = 2}
                     : Order{.kind = OrderKind::torch_reduce, .count = 8, .vec = 1};
  const Operand x = b.input("x"), dy = b.input("dy");
  b.pass(product_sum(b, "ds", kFp32, x, dy, order, false));
  b.pass(value_sum(b, "db", kFp32, dy, order));
  return b.next_stage(kGroups);
}

/// Sums over a group's channels of ds gamma and db gamma, from them c2 and c3; and each channel's part of dgamma.
Builder pass_coefficients(Builder b, const Formats& f, Memory memory) {
  const bool weighted = b.binding().has("weight"), last = memory == Memory::channels_last;
  const Operand ds = b.input("ds"), db = b.input("db");
  const Operand mean = b.input("saved_mean", kRows), r = b.input("saved_r", kRows), s = b.input("one_nth", kScalar);
  Order order{.kind = is_half(f.p) ? OrderKind::torch_norm : OrderKind::torch_norm_fours,
              .count = 8,
              .vec = is_half(f.p) ? 2 : 1};
  if (last) order = {.kind = OrderKind::torch_vectors, .count = 8, .vec = f.half() ? 2 : 1};
  Operand ds_group, db_group;
  if (weighted) {
    const Operand w = b.input("weight");
    const bool fused = !last || f.half();
    ds_group = product_sum(b, "ds_gamma", kFp32, ds, w, order, fused);
    db_group = product_sum(b, "db_gamma", kFp32, db, w, order, fused);
  } else {
    ds_group = value_sum(b, "ds_group", kFp32, ds, order);
    db_group = value_sum(b, "db_group", kFp32, db, order);
  }
  const Operand c2 = product_of(b, "c2", {fused_product_minus(b, "u", db_group, mean, ds_group), r, r, r, s});
  const Operand minus_c2 = b.map("minus_c2", Op::neg, kFp32, {c2});
  const Operand dbr = b.mul("dbr", kFp32, db_group, r);
  b.pass(c2);
  if (last) {
    const Operand part = b.mul("c3_part", kFp32, dbr, s);
    b.pass(fused_product_minus(b, "c3", minus_c2, mean, part));
  } else {
    const Operand minus_dbr = b.map("minus_dbr", Op::neg, kFp32, {dbr});
    const Operand part = b.mul("c3_part", kFp32, minus_c2, mean);
    b.pass(b.map("c3", Op::fma, kFp32, {minus_dbr, s, part}));
  }
  if (weighted) b.pass(b.mul("dgamma_terms", kFp64, fused_minus_product(b, "ds_centred", ds, db, mean), r));
  return b.next_stage(kGroups);
}

template <Memory memory>
Program build_group_norm(const Binding& binding) {
  require_gradient_formats(binding, kCode, Mixed::taken);
  const ChannelSizes sizes = channel_sizes(binding);
  if (memory == Memory::channels_last && sizes.positions >= 2048)
    throw ProgramError("x has " + std::to_string(sizes.positions) +
                       " positions; torch's other kernel for 2048 and more in channels-last is not transcribed");
  const Formats f = formats_of(binding);
  const bool weighted = binding.has("weight");
  Builder first(std::string(kNorm), binding, memory == Memory::channels_last ? kGroupsChannelsLast : kGroups);
  Builder channels = pass_statistics(std::move(first), f, memory);
  Builder groups = pass_channel_sums(std::move(channels), f, memory);
  Builder b = pass_coefficients(std::move(groups), f, memory);
  const Operand x = b.input("x"), dy = b.input("dy"), r = b.input("saved_r", kRows);
  const Operand c2 = b.input("c2", kRows), c3 = b.input("c3", kRows);
  const Operand c1 = weighted ? b.mul("c1", kFp32, r, b.input("weight")) : r;
  const bool dy_fused = memory == Memory::contiguous && !f.half();
  const Operand linear = dy_fused ? b.map("linear", Op::fma, kFp32, {c1, dy, b.mul("c2x", kFp32, c2, x)})
                                  : b.map("linear", Op::fma, kFp32, {c2, x, b.mul("c1dy", kFp32, c1, dy)});
  put_out(b, "dx", f.t, b.add("dx_f32", kFp32, linear, c3));
  if (!weighted) return b.finish();
  Builder samples = b.next_stage(kColumns);
  const Order order{.kind = OrderKind::sequential};
  put_out(samples, "dweight", f.p, fused_sum(samples, "dgamma", kFp32, samples.input("dgamma_terms"), order));
  put_out(samples, "dbias", f.p, value_sum(samples, "dbeta", kFp32, samples.input("db"), order));
  return samples.finish();
}

constexpr std::string_view kProfiles[] = {"torch_cpu_moments"};
constexpr PathSource kSource{"pytorch/pytorch", "aten/src/ATen/native/cpu/group_norm_kernel.cpp:560-1560", "v2.6.0",
                             "quoted"};

}  // namespace

constinit const CastPath torch_group_norm_backward_cpu = gradient_path({
    .name = "torch.group_norm_backward.cpu",
    .title = "torch group_norm's gradient on a CPU, contiguous (bits compared, 2.15)",
    .norm = kNorm,
    .source = kSource,
    .eps_class = "exact",
    .optional = "weight",
    .profiles = kProfiles,
    .build = build_group_norm<Memory::contiguous>,
});

constinit const CastPath torch_group_norm_backward_cpu_channels_last = gradient_path({
    .name = "torch.group_norm_backward.cpu.channels_last",
    .title = "torch group_norm's gradient on a CPU, channels-last (bits compared, 2.15)",
    .norm = kNorm,
    .source = kSource,
    .eps_class = "exact",
    .optional = "weight",
    .profiles = kProfiles,
    .build = build_group_norm<Memory::channels_last>,
});

}  // namespace norma::cast_paths

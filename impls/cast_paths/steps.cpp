// Steps that many transcriptions share.
#include "impls/cast_paths/steps.hpp"

#include <algorithm>

namespace norma {

const Profile& bound_profile(const Binding& binding) {
  const Profile* profile = find_profile(binding.profile);
  if (profile == nullptr) throw ProgramError("there is no profile '" + binding.profile + "'");
  return *profile;
}

void require_format(const Binding& binding, std::string_view tensor, std::string_view code,
                    std::initializer_list<FormatId> taken) {
  if (!binding.has(tensor)) return;
  const FormatId id = binding.format(tensor).id;
  if (std::find(taken.begin(), taken.end(), id) != taken.end()) return;
  std::string list;
  for (const FormatId t : taken) list += " " + std::string(name_of(t));
  throw ProgramError(std::string(tensor) + " is " + std::string(name_of(id)) + "; " + std::string(code) + " takes" +
                     list);
}

void require_float_or_half(const Binding& binding, std::string_view code) {
  require_format(binding, "x", code, {FormatId::fp32, FormatId::bf16, FormatId::fp16});
  for (const auto& [name, format] : binding.formats)
    require_format(binding, name, code, {FormatId::fp32, FormatId::bf16, FormatId::fp16});
}

void require_one_format(const Binding& binding, std::string_view code) {
  for (const auto& [name, format] : binding.formats)
    if (format != binding.x)
      throw ProgramError(name + " is " + std::string(name_of(format)) + " and x is " + std::string(name_of(binding.x)) +
                         "; " + std::string(code) + " takes one format for both");
}

bool is_half(FormatRef format) { return format.id == FormatId::bf16 || format.id == FormatId::fp16; }

Reduction reduction(ReduceKind kind, Term term, Order order) {
  return {.kind = kind, .term = term, .order = order, .contract = false, .term_format = {}};
}

Operand eps_in_fp32(Builder& b) { return b.cast("eps_f32", kFp32, b.attribute("eps")); }

Rounding approximate(const Profile& profile, FormatRef format) {
  return {.format = format, .within_ulp = profile.root == Profile::Root::within_2_ulp ? 2 : 0};
}

Operand reciprocal_root(Builder& b, const std::string& name, FormatRef to, Operand a) {
  const Profile& profile = bound_profile(b.binding());
  switch (profile.root) {
    case Profile::Root::sqrt_then_reciprocal: return b.map(name, Op::reciprocal, to, {b.sqrt(name + "_sqrt", to, a)});
    case Profile::Root::correct: return b.rsqrt(name, to, a);
    case Profile::Root::within_2_ulp: return b.map(name, Op::rsqrt, approximate(profile, to), {a});
  }
  throw ProgramError("the profile names no root");
}

Order moments_order(const Profile& profile) {
  switch (profile.sum.kind) {
    case OrderKind::exact: throw ProgramError("there is no exact order that gives moments");
    case OrderKind::torch_moments:
    case OrderKind::torch_moments_fp16:
    case OrderKind::torch_moments_2_6:
    case OrderKind::torch_moments_2_6_fp16:
    case OrderKind::torch_cuda_moments:
    case OrderKind::apex_moments:
    case OrderKind::ort_moments: return profile.sum;
    case OrderKind::warp:
    case OrderKind::block: return {.kind = OrderKind::welford_warp, .count = profile.sum.count, .vec = profile.sum.vec};
    case OrderKind::sequential:
    case OrderKind::pairwise:
    case OrderKind::lanes:
    case OrderKind::lanes_tree:
    case OrderKind::blocked:
    case OrderKind::torch_cpu:
    case OrderKind::torch_cpu_half:
    case OrderKind::torch_norm:
    case OrderKind::torch_columns:
    case OrderKind::torch_columns_half:
    case OrderKind::torch_runs:
    case OrderKind::torch_runs_loads:
    case OrderKind::torch_reduce:
    case OrderKind::torch_reduce_rest:
    case OrderKind::torch_images:
    case OrderKind::torch_cpu_runs:
    case OrderKind::torch_norm_fours:
    case OrderKind::torch_vectors:
    case OrderKind::torch_outer:
    case OrderKind::through_fp32:
    case OrderKind::ort_rows:
    case OrderKind::welford:
    case OrderKind::welford_mul:
    case OrderKind::welford_warp:
    case OrderKind::welford_block: return {.kind = OrderKind::welford};
  }
  throw ProgramError("the profile names no order");
}

Operand eager_rsqrt(Builder& b, const std::string& name, FormatRef to, Operand a) {
  if (!is_half(to)) return reciprocal_root(b, name, to, a);
  if (b.binding().profile != "torch_cpu_scalar") return b.cast(name, to, reciprocal_root(b, name + "_f32", kFp32, a));
  const Operand root = b.cast(name + "_sqrt", to, b.sqrt(name + "_sqrt_f32", kFp32, a));
  return b.cast(name, to, b.map(name + "_f32", Op::reciprocal, kFp32, {root}));
}

Operand eager_mean_square(Builder& b, Operand x) {
  const Profile& profile = bound_profile(b.binding());
  return b.reduce("ms", kFp32, x, reduction(ReduceKind::mean, Term::square, profile.sum));
}

Operand kernel_mean_square(Builder& b, Operand x) {
  const Profile& profile = bound_profile(b.binding());
  Reduction mean = reduction(ReduceKind::mean, Term::square, profile.sum);
  mean.contract = profile.contract_squares;
  return b.reduce("ms", kFp32, x, mean);
}

Operand kernel_square_sum(Builder& b, Operand x) {
  const Profile& profile = bound_profile(b.binding());
  Reduction sum = reduction(ReduceKind::sum, Term::square, profile.sum);
  sum.contract = profile.contract_squares;
  return b.reduce("ss", kFp32, x, sum);
}

Operand plus_eps(Builder& b, Operand a, const std::string& name) {
  const Operand eps = eps_in_fp32(b);
  return b.add(name, kFp32, a, eps);
}

Operand eager_x_hat(Builder& b, Operand x) {
  return b.mul("n", kFp32, x, reciprocal_root(b, "r", kFp32, plus_eps(b, eager_mean_square(b, x))));
}

Operand eager_x_hat(Builder& b, Operand x, Operand eps_f32) {
  const Operand r = reciprocal_root(b, "r", kFp32, b.add("ms_eps", kFp32, eager_mean_square(b, x), eps_f32));
  return b.mul("n", kFp32, x, r);
}

Operand kernel_x_hat(Builder& b, Operand x) {
  return b.mul("n", kFp32, x, reciprocal_root(b, "r", kFp32, plus_eps(b, kernel_mean_square(b, x))));
}

Operand kernel_x_hat(Builder& b, Operand x, Operand eps_f32) {
  const Operand r = reciprocal_root(b, "r", kFp32, b.add("ms_eps", kFp32, kernel_mean_square(b, x), eps_f32));
  return b.mul("n", kFp32, x, r);
}

Operand clamp_to_e4m3(Builder& b, const std::string& name, Operand q, Overflow overflow) {
  const Operand below = b.map(name + "_below", Op::fmin, kFp32, {q, b.constant("q_max", 448)});
  const Operand inside = b.map(name + "_clamped", Op::fmax, kFp32, {below, b.constant("q_min", -448)});
  return b.map(name, Op::cast, Rounding{.format = kE4m3fn, .overflow = overflow}, {inside});
}

Program finish_cast_then_weight(Builder& b, Operand n) {
  const FormatRef t = b.x_format();
  const Operand w = b.input("weight");
  const Operand n_t = b.cast("n_T", t, n);
  b.output("y", b.eager("y", Op::mul, promote(t, b.format(w)), {n_t, w}));
  return b.finish();
}

Program finish_weight_then_cast(Builder& b, Operand n) {
  const bool weighted = b.binding().has("weight");
  const Operand product = weighted ? b.mul("nw", kFp32, n, b.input("weight")) : n;
  b.output("y", b.cast("y", b.x_format(), product));
  return b.finish();
}

Program finish_one_plus_weight_then_cast(Builder& b, Operand n) {
  const Operand w = b.input("weight");
  const Operand factor = b.add("one_w", kFp32, b.constant("one", 1), w);
  b.output("y", b.cast("y", b.x_format(), b.mul("nw", kFp32, n, factor)));
  return b.finish();
}

}  // namespace norma

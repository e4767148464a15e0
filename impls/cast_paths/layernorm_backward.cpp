// The gradient of torch's layer_norm, by device, and of rms_norm as autograd takes it through its operations.
#include "impls/cast_paths/backward_steps.hpp"
#include "impls/cast_paths/catalog.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kCode = "torch.layer_norm's gradient";

/// Mean and 1 / deviation as the forward saved them: beside 16-bit parameters, or none, rounded to x's format.
struct Saved {
  Operand mean, r;
};
Saved saved_on_cpu(Builder& b, Operand x, bool mixed) {
  const Profile& profile = bound_profile(b.binding());
  const FormatRef t = b.x_format();
  const Operand mean = b.moments("mean", "var", kFp32, x, rowwise_moments_order(profile, t), profile.contract_squares);
  const Operand r = inverse_deviation(b, {mean.node, 1});
  if (mixed || !is_half(t)) return {mean, r};
  const Operand mean_t = b.cast("mean_T", t, mean);
  return {mean_t, b.cast("r_T", t, r)};
}

/// ds = sum dy x gamma and db = sum dy gamma. vec::map3_reduce_all: (dy x) gamma; fp32 rows contract only what is left
/// after whole vectors, 16-bit rows everything. Of 16-bit rows with fp32 gamma, x (dy gamma), and dy gamma is rounded.
struct Sums {
  Operand ds, db;
};
Sums gradient_sums(Builder& b, Operand x, Operand dy, bool mixed) {
  const bool half = is_half(b.x_format()), weighted = b.binding().has("weight");
  const int cols = static_cast<int>(b.binding().cols);
  Order order{.kind = half ? OrderKind::torch_reduce : OrderKind::torch_reduce_rest, .count = 8, .vec = half ? 2 : 1};
  if (!weighted) {
    const Operand ds = product_sum(b, "ds", kFp32, dy, x, order, true);
    return {ds, value_sum(b, "db", kFp32, dy, order)};
  }
  const Operand w = b.input("weight");
  if (!mixed) {
    const Operand ds = product_sum(b, "ds", kFp32, b.mul("dyx", kFp32, dy, x), w, order, true);
    return {ds, product_sum(b, "db", kFp32, dy, w, order, true)};
  }
  // a row between one vector and two: its lanes by halves
  if (cols > 8 && cols < 16) order = {.kind = OrderKind::torch_columns_half, .count = 8, .vec = cols};
  const Operand g = b.mul("g", kFp32, dy, w);
  const Operand ds = product_sum(b, "ds", kFp32, x, g, order, true);
  return {ds, value_sum(b, "db", kFp32, g, order)};
}

/// dx = r dy gamma + b x + c with b = (db mean - ds) r^3 / N, c = -b mean - db r / N. dgamma, dbeta: a buffer of x's
/// format to which row after row is added, dy (r x - r mean) and dy, even where the parameters are fp32.
Program build_layer_norm_cpu(const Binding& binding) {
  require_gradient_formats(binding, kCode, Mixed::taken);
  const FormatRef t = binding.format("x");
  const bool weighted = binding.has("weight");
  const bool mixed = weighted && !(binding.format("weight") == t);
  Builder b("layernorm_backward", binding);
  const Operand x = b.input("x"), dy = b.input("dy");
  const auto [mean, a] = saved_on_cpu(b, x, mixed);
  const auto [ds, db] = gradient_sums(b, x, dy, mixed);
  const Operand scale = b.map("rn", Op::reciprocal, kFp32, {b.count()});
  const Operand u = fused_product_minus(b, "u", db, mean, ds);
  const Operand slope = product_of(b, "slope", {u, a, a, a, scale});
  const Operand part = product_of(b, "offset_part", {db, a, scale});
  const Operand offset =
      b.map("offset", Op::fma, kFp32,
            {b.map("minus_slope", Op::neg, kFp32, {slope}), mean, b.map("minus_part", Op::neg, kFp32, {part})});
  const Operand ady = b.mul("ady", kFp32, a, dy);
  const Operand direct = weighted ? b.mul("adyg", kFp32, ady, b.input("weight")) : ady;
  const Operand sum = b.map("direct_slope", Op::fma, kFp32, {slope, x, direct});
  put_out(b, "dx", t, b.add("dx_f32", kFp32, sum, offset));
  if (!weighted) return b.finish();
  const Operand minus_a = b.map("minus_a", Op::neg, kFp32, {a});
  const Operand shift = b.mul("shift", kFp32, minus_a, mean);
  b.pass("n", b.map("n", Op::fma, kFp32, {a, x, shift}));
  Builder rows = b.next_stage(kColumns);
  const FormatRef p = binding.format("weight");
  const Order buffer{.kind = is_half(t) ? OrderKind::through_fp32 : OrderKind::sequential};
  const Operand dgamma = product_sum(rows, "dgamma", t, rows.input("dy"), rows.input("n"), buffer, true);
  put_out(rows, "dweight", p, dgamma);
  put_out(rows, "dbias", p, value_sum(rows, "dbeta", t, rows.input("dy"), buffer));
  return rows.finish();
}

constexpr std::string_view kCpu[] = {"torch_cpu_moments"};

// autograd through pow, mean, add, rsqrt, mul, mul: dn = dy w; dr = sum dn x; dms = dr (-0.5 (r r) r); dx = dn r + dms
// / N (2 x); dw = sum over rows of dy n. All in fp32; one cast to each tensor's format.
Program build_rms_norm(const Binding& binding) {
  require_float_or_half(binding, "torch.rms_norm's gradient");
  require_format(binding, "dy", "torch.rms_norm's gradient beside such an x", {binding.x});
  const Profile& profile = bound_profile(binding);
  Builder b("rmsnorm_backward", binding);
  const bool weighted = binding.has("weight");
  const Operand x = b.input("x"), dy = b.input("dy");
  const Operand r = reciprocal_root(b, "r", kFp32, plus_eps(b, eager_mean_square(b, x)));
  const Operand dn = weighted ? b.mul("dn", kFp32, dy, b.input("weight")) : dy;
  const Operand dr = product_sum(b, "dr", kFp32, dn, x, profile.sum, false);
  const Operand cube = b.mul("r3", kFp32, b.mul("r2", kFp32, r, r), r);
  const Operand slope = b.mul("half_r3", kFp32, cube, b.constant("minus_half", -0.5));
  const Operand dms = b.mul("dms", kFp32, dr, slope);
  const Operand each = b.div("dms_each", kFp32, dms, b.count());
  const Operand twice = b.mul("twice_x", kFp32, x, b.constant("two", 2));
  const Operand through = b.mul("through_ms", kFp32, each, twice);
  const Operand direct = b.mul("direct", kFp32, dn, r);
  put_out(b, "dx", b.x_format(), b.add("dx_f32", kFp32, direct, through));
  if (!weighted) return b.finish();
  b.pass("dyn", b.mul("dyn", kFp32, dy, b.mul("n", kFp32, x, r)));
  Builder rows = b.next_stage(kColumns);
  const Order order = profile.sum.kind == OrderKind::torch_cpu ? torch_outer_order(binding.cols) : profile.sum;
  put_out(rows, "dweight", binding.format("weight"), value_sum(rows, "dw", kFp32, rows.input("dyn"), order));
  return rows.finish();
}

constexpr std::string_view kEager[] = {"torch_cpu", "torch_cuda", "sequential"};

}  // namespace

constinit const CastPath torch_layer_norm_backward_cpu = gradient_path({
    .name = "torch.layer_norm_backward.cpu",
    .title =
        "torch layer_norm's gradient on a CPU: dx in fp32 from saved statistics; dweight and dbias row after row in "
        "x's format (bits compared, 2.15, one thread)",
    .norm = "layernorm_backward",
    .source = {"pytorch/pytorch", "aten/src/ATen/native/cpu/layer_norm_kernel.cpp:196-560", "v2.6.0", "quoted"},
    .optional = "weight",
    .profiles = kCpu,
    .build = build_layer_norm_cpu,
});

constinit const CastPath torch_rms_norm_backward_2_8 = gradient_path({
    .name = "torch.rms_norm_backward.2_8",
    .title = "torch rms_norm's gradient by autograd through its operations, as on a CPU: fp32, one cast each (bits "
             "compared, 2.15)",
    .norm = "rmsnorm_backward",
    .source = {"pytorch/pytorch", "tools/autograd/derivatives.yaml (pow, mean, rsqrt, mul)", "2.15.0", "inferred"},
    .eps_default = "1e-6",
    .root = "rsqrt",
    .profiles = kEager,
    .build = build_rms_norm,
});

}  // namespace norma::cast_paths

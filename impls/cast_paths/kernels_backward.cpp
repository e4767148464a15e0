// Gradients of LayerNorm and RMSNorm as GPU kernels take them. Sums along a row have the profile's order; the order
// over rows is read where a title says nothing, and each GPU's count of multiprocessors is taken as 132 (H100).
#include <algorithm>

#include "impls/cast_paths/backward_steps.hpp"
#include "impls/cast_paths/catalog.hpp"
#include "reference/formats/tensor.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kLayer = "layernorm_backward", kRms = "rmsnorm_backward";
constexpr std::int64_t kMultiprocessors = 132;

bool fused(const Builder& b) { return bound_profile(b.binding()).contract_squares; }
Order along_row(const Builder& b) { return bound_profile(b.binding()).sum; }

std::int64_t rows_of(const Binding& binding) {
  if (binding.shape.empty() || binding.cols == 0) return kMultiprocessors;
  return element_count(binding.shape) / binding.cols;
}

/// Programs of equally many rows each, whose sums are then added: one after the other.
Order over_programs(const Binding& binding, std::int64_t programs) {
  const std::int64_t each = (rows_of(binding) + programs - 1) / programs;
  return {.kind = OrderKind::blocked, .count = static_cast<int>(std::clamp<std::int64_t>(each, 1, 1 << 20))};
}

/// Where the rows of a sum over rows are taken one by one, and each term is the product dy n.
Program finish_parameters(Builder& b, FormatRef format, Operand n, Order order, bool with_bias) {
  b.pass("normalized", n);
  Builder rows = b.next_stage(kColumns);
  const Operand dy = rows.input("dy");
  put_out(rows, "dweight", format, product_sum(rows, "dw", kFp32, dy, rows.input("normalized"), order, fused(rows)));
  if (with_bias) put_out(rows, "dbias", format, value_sum(rows, "db", kFp32, dy, order));
  return rows.finish();
}

/// a - c d, one operation where the profile contracts.
Operand minus_product(Builder& b, const std::string& name, Operand a, Operand c, Operand d) {
  if (fused(b)) return fused_minus_product(b, name, a, c, d);
  return b.sub(name, kFp32, a, b.mul(name + "_product", kFp32, c, d));
}

// ---- N dy w - sum dy w - n sum(dy w n), times r / N: torch's and apex's kernels ----

enum class Weight : std::uint8_t { before_dy, after_dy };  // (N w) dy or (N dy) w

/// `d`: x, centred or not. The last factor of the second sum is r; plain dy w is summed for LayerNorm only.
Operand by_counts(Builder& b, Operand d, Operand dy, Operand r, bool centred, Weight weight) {
  const bool weighted = b.binding().has("weight");
  const Order order = along_row(b);
  const Operand g = weighted ? b.mul("g", kFp32, dy, b.input("weight")) : dy;
  const Operand s2 = product_sum(b, "s2", kFp32, b.mul("gd", kFp32, g, d), r, order, fused(b));
  Operand f = b.mul("f", kFp32, b.count(), weighted && weight == Weight::before_dy ? b.input("weight") : dy);
  if (weighted) f = b.mul("f_w", kFp32, f, weight == Weight::before_dy ? dy : b.input("weight"));
  const Operand n = b.mul("n", kFp32, d, r);
  if (centred) {
    const Operand s1 = weighted ? product_sum(b, "s1", kFp32, dy, b.input("weight"), order, fused(b))
                                : value_sum(b, "s1", kFp32, dy, order);
    f = weight == Weight::before_dy ? b.sub("f_s", kFp32, minus_product(b, "f_n", f, n, s2), s1)
                                    : minus_product(b, "f_n", b.sub("f_s", kFp32, f, s1), n, s2);
  } else {
    f = minus_product(b, "f_n", f, n, s2);
  }
  const Operand nth = b.map("rn", Op::reciprocal, kFp32, {b.count()});
  return b.mul("dx_f32", kFp32, f, b.mul("term1", kFp32, nth, r));
}

Operand centred_by(Builder& b, Operand x, OrderKind moments, Operand& r) {
  const Profile& profile = bound_profile(b.binding());
  const Operand mean =
      b.moments("mean", "var", kFp32, x, block_moments_order(profile, moments), profile.contract_squares);
  r = inverse_deviation(b, {mean.node, 1});
  return b.sub("d", kFp32, x, mean);
}

// sums by 128 threads; dweight, dbias row after row (up to 128 rows are read so; more take other kernels)
Program build_torch_cuda(const Binding& binding) {
  require_gradient_formats(binding, "torch.layer_norm's gradient on CUDA", Mixed::refused);
  Builder b(std::string(kLayer), binding);
  const Operand x = b.input("x"), dy = b.input("dy");
  Operand r;
  const Operand d = centred_by(b, x, OrderKind::torch_cuda_moments, r);
  put_out(b, "dx", b.x_format(), by_counts(b, d, dy, r, true, Weight::before_dy));
  if (!binding.has("weight")) return b.finish();
  // dy (x - mean) r from left to right
  b.pass("dyd", b.mul("dyd", kFp32, dy, d));
  b.pass("r", r);
  Builder rows = b.next_stage(kColumns);
  const Order order{.kind = OrderKind::sequential};
  const Operand terms = product_sum(rows, "dw", kFp32, rows.input("dyd"), rows.input("r", kCols), order, fused(rows));
  put_out(rows, "dweight", binding.format("weight"), terms);
  put_out(rows, "dbias", binding.format("weight"), value_sum(rows, "db", kFp32, rows.input("dy"), order));
  return rows.finish();
}

/// apex: 16 rows side by side, then by halves; blocks and their sums are assumed to be one block's.
Order apex_rows(const Builder& b) {
  return along_row(b).kind == OrderKind::block ? Order{.kind = OrderKind::lanes_tree, .count = 16} : along_row(b);
}

Program finish_apex(Builder& b, Operand dyd, Operand r, bool with_bias) {
  b.pass("dyd", dyd);
  b.pass("r", r);
  Builder rows = b.next_stage(kColumns);
  const FormatRef format = rows.binding().format("weight");
  const Order order = apex_rows(rows);
  const Operand sum = product_sum(rows, "dw", kFp32, rows.input("dyd"), rows.input("r", kCols), order, fused(rows));
  put_out(rows, "dweight", format, sum);
  if (with_bias) put_out(rows, "dbias", format, value_sum(rows, "db", kFp32, rows.input("dy"), order));
  return rows.finish();
}

Program build_apex_layer_norm(const Binding& binding) {
  require_gradient_formats(binding, "apex", Mixed::refused);
  Builder b(std::string(kLayer), binding);
  const Operand x = b.input("x"), dy = b.input("dy");
  Operand r;
  const Operand d = centred_by(b, x, OrderKind::apex_moments, r);
  put_out(b, "dx", b.x_format(), by_counts(b, d, dy, r, true, Weight::after_dy));
  return binding.has("weight") ? finish_apex(b, b.mul("dyd", kFp32, dy, d), r, true) : b.finish();
}

Program build_apex_rms_norm(const Binding& binding) {
  require_gradient_formats(binding, "apex", Mixed::refused);
  Builder b(std::string(kRms), binding);
  const Operand x = b.input("x"), dy = b.input("dy");
  const Operand r = reciprocal_root(b, "r", kFp32, plus_eps(b, kernel_mean_square(b, x)));
  put_out(b, "dx", b.x_format(), by_counts(b, x, dy, r, false, Weight::after_dy));
  return binding.has("weight") ? finish_apex(b, b.mul("dyd", kFp32, dy, x), r, false) : b.finish();
}

// What was saved is y, rounded to x's format: n is y / w. (Weights nearer to zero than eps are moved to eps: not here.)
Program build_apex_rms_norm_memory_efficient(const Binding& binding) {
  require_gradient_formats(binding, "apex", Mixed::refused);
  Builder b(std::string(kRms), binding);
  const FormatRef t = b.x_format();
  const Operand x = b.input("x"), dy = b.input("dy"), w = b.input("weight");
  const Operand r = reciprocal_root(b, "r", kFp32, plus_eps(b, kernel_mean_square(b, x)));
  const Operand y = b.eager("y_saved", Op::mul, t, {w, b.cast("n_T", t, b.mul("xr", kFp32, x, r))});
  const Operand s2 = product_sum(b, "s2", kFp32, dy, y, along_row(b), fused(b));
  const Operand f = b.mul("f_w", kFp32, b.mul("f", kFp32, b.count(), dy), w);
  const Operand n = b.map("n", Op::div, approximate(bound_profile(binding), kFp32), {y, w});
  const Operand nth = b.map("rn", Op::reciprocal, kFp32, {b.count()});
  const Operand sum = minus_product(b, "f_n", f, n, s2);
  put_out(b, "dx", t, b.mul("dx_f32", kFp32, sum, b.mul("term1", kFp32, nth, r)));
  const Operand dyy = b.mul("dyy", kFp32, dy, y);
  b.pass("terms", b.map("terms", Op::div, approximate(bound_profile(binding), kFp32), {dyy, w}));
  Builder rows = b.next_stage(kColumns);
  put_out(rows, "dweight", binding.format("weight"),
          value_sum(rows, "dw", kFp32, rows.input("terms"), apex_rows(rows)));
  return rows.finish();
}

// ---- (w dy - (n c1 + c2)) r with means c1 = mean(n w dy), c2 = mean(w dy): Triton's tutorial and what grew from it
// ----

Operand triton_mean(Builder& b, const std::string& name, Operand sum) {
  return b.map(name, Op::div, approximate(bound_profile(b.binding()), kFp32), {sum, b.count()});
}

Operand by_means(Builder& b, Operand n, Operand wdy, Operand r, bool centred) {
  const Operand c1 = triton_mean(b, "c1", product_sum(b, "s1", kFp32, n, wdy, along_row(b), false));
  if (!centred) return b.mul("dx_f32", kFp32, minus_product(b, "rest", wdy, n, c1), r);
  const Operand c2 = triton_mean(b, "c2", value_sum(b, "s2", kFp32, wdy, along_row(b)));
  const Operand line = multiply_add(b, "line", n, c1, c2);
  return b.mul("dx_f32", kFp32, b.sub("rest", kFp32, wdy, line), r);
}

/// mean(x), then mean((x - mean)^2), sums of the profile's order.
RowMoments triton_moments(Builder& b, Operand x) {
  const Operand mean = triton_mean(b, "mean", value_sum(b, "sum", kFp32, x, along_row(b)));
  const Operand centred = b.sub("x_centred", kFp32, x, mean);
  const Operand squares = b.mul("x_squares", kFp32, centred, centred);
  return {mean, triton_mean(b, "var", value_sum(b, "ss", kFp32, squares, along_row(b)))};
}

// mean and rstd saved in x's format; dweight, dbias in fp32 over a program's rows
Program build_liger_layer_norm(const Binding& binding) {
  require_gradient_formats(binding, "Liger", Mixed::taken);
  Builder b(std::string(kLayer), binding);
  const FormatRef t = b.x_format();
  const Operand x = b.input("x"), dy = b.input("dy");
  const RowMoments moments = triton_moments(b, x);
  Operand mean = moments.mean, r = inverse_deviation(b, moments.variance);
  if (is_half(t)) {
    mean = b.cast("mean_T", t, mean);
    r = b.cast("r_T", t, r);
  }
  const Operand n = b.mul("n", kFp32, b.sub("d", kFp32, x, mean), r);
  const Operand wdy = b.mul("wdy", kFp32, b.input("weight"), dy);
  put_out(b, "dx", t, by_means(b, n, wdy, r, true));
  return finish_parameters(b, binding.format("weight"), n, over_programs(binding, kMultiprocessors), true);
}

enum class Casting : std::uint8_t { llama, gemma };

// m = dy (w + offset), in their own format for llama; dx = r m + r ((((-1 / N) r) r sum(m x)) x); dweight: dy T(x r)
// for llama
template <Casting casting>
Program build_liger_rms_norm(const Binding& binding) {
  require_gradient_formats(binding, "Liger", Mixed::taken);
  Builder b(std::string(kRms), binding);
  const FormatRef t = b.x_format();
  const Operand x = b.input("x"), dy = b.input("dy"), w = b.input("weight");
  const Operand ms = triton_mean(b, "ms", kernel_square_sum(b, x));
  const Operand r = reciprocal_root(b, "r", kFp32, plus_eps(b, ms));
  const Operand factor = b.add("offset_w", kFp32, b.constant("offset", casting == Casting::gemma ? 1 : 0), w);
  const Operand m = b.mul("m", kFp32, dy, factor);
  const Operand sum = product_sum(b, "mx", kFp32, m, x, along_row(b), false);
  const Operand nth = b.map("minus_nth", Op::neg, kFp32, {triton_mean(b, "nth", b.constant("one", 1))});
  const Operand slope = product_of(b, "slope", {nth, r, r, sum});
  const Operand step = b.mul("slope_x", kFp32, slope, x);
  put_out(b, "dx", t, multiply_add(b, "dx_f32", r, step, b.mul("rm", kFp32, r, m)));
  Operand n = b.mul("n", kFp32, x, r);
  if (casting == Casting::llama && is_half(t)) n = b.cast("n_T", t, n);
  return finish_parameters(b, binding.format("weight"), n, over_programs(binding, kMultiprocessors), false);
}

template <bool rms>
Program build_flash_attention(const Binding& binding) {
  require_gradient_formats(binding, "FlashAttention's Triton kernel", Mixed::taken);
  Builder b(std::string(rms ? kRms : kLayer), binding);
  const Operand x = b.input("x"), dy = b.input("dy");
  Operand n, r;
  if (rms) {
    r = reciprocal_root(b, "r", kFp32, plus_eps(b, triton_mean(b, "ms", kernel_square_sum(b, x))));
    n = b.mul("n", kFp32, x, r);
  } else {
    const RowMoments moments = triton_moments(b, x);
    r = inverse_deviation(b, moments.variance);
    n = b.mul("n", kFp32, b.sub("d", kFp32, x, moments.mean), r);
  }
  const Operand wdy = b.mul("wdy", kFp32, b.input("weight"), dy);
  put_out(b, "dx", b.x_format(), by_means(b, n, wdy, r, !rms));
  return finish_parameters(b, binding.format("weight"), n, over_programs(binding, 8 * kMultiprocessors), !rms);
}

// r / N (N (dy w) - n sum(dy w n)); there is no dweight
Program build_unsloth(const Binding& binding) {
  require_gradient_formats(binding, "Unsloth", Mixed::taken);
  Builder b(std::string(kRms), binding);
  const Operand x = b.input("x"), dy = b.input("dy");
  const Operand r = reciprocal_root(b, "r", kFp32, plus_eps(b, triton_mean(b, "ms", kernel_square_sum(b, x))));
  const Operand n = b.mul("n", kFp32, x, r);
  const Operand m = b.mul("m", kFp32, dy, b.input("weight"));
  const Operand sum = product_sum(b, "mn", kFp32, m, n, along_row(b), false);
  const Operand rest = minus_product(b, "rest", b.mul("Nm", kFp32, b.count(), m), n, sum);
  put_out(b, "dx", b.x_format(), b.mul("dx_f32", kFp32, triton_mean(b, "r_nth", r), rest));
  return b.finish();
}

constexpr std::string_view kTorchCuda[] = {"torch_cuda_fused", "cuda_warp", "sequential"};
constexpr std::string_view kApex[] = {"cuda_4warps", "cuda_warp", "sequential"};

struct Row {
  std::string_view name, title, norm;
  PathSource source;
  std::string_view required;
  std::span<const CaseDefault> norm_attributes = {};
  Program (*build)(const Binding&);
};
constexpr CastPath kernel(const Row& row, std::span<const std::string_view> profiles, std::string_view optional) {
  return gradient_path({.name = row.name,
                        .title = row.title,
                        .norm = row.norm,
                        .source = row.source,
                        .eps_default = row.norm == kRms ? "1e-6" : "1e-5",
                        .root = "rsqrt",
                        .required = row.required,
                        .optional = optional,
                        .norm_attributes = row.norm_attributes,
                        .profiles = profiles,
                        .build = row.build});
}

constexpr PathSource kApexSource{"NVIDIA/apex", "csrc/layer_norm_cuda_kernel.cu", "6424da3", "read"};
constexpr PathSource kLigerRms{"linkedin/Liger-Kernel", "src/liger_kernel/ops/rms_norm.py", "43c5fe1", "read"};
constexpr PathSource kFlash{"Dao-AILab/flash-attention", "flash_attn/ops/triton/layer_norm.py", "0a721da", "read"};

}  // namespace

constinit const CastPath torch_layer_norm_backward_cuda = kernel(
    {.name = "torch.layer_norm_backward.cuda",
     .title = "torch layer_norm's gradient on CUDA: (N w dy - n s2 - s1) r / N; dweight row after row, as up to 128 "
              "rows are",
     .norm = kLayer,
     .source = {"pytorch/pytorch", "aten/src/ATen/native/cuda/layer_norm_kernel.cu", "0005c538", "quoted"},
     .required = "dy",
     .build = build_torch_cuda},
    kTorchCuda, "weight");

constinit const CastPath apex_layer_norm_backward =
    kernel({.name = "apex.layer_norm_backward",
            .title = "apex FusedLayerNorm's gradient: (N dy w - s1 - n s2) r / N; dweight in fp32 (order assumed)",
            .norm = kLayer,
            .source = kApexSource,
            .required = "dy",
            .build = build_apex_layer_norm},
           kApex, "weight");

constinit const CastPath apex_rms_norm_backward =
    kernel({.name = "apex.rms_norm_backward",
            .title = "apex FusedRMSNorm's gradient: (N dy w - n s2) r / N; dweight in fp32 (order assumed)",
            .norm = kRms,
            .source = kApexSource,
            .required = "dy",
            .build = build_apex_rms_norm},
           kApex, "weight");

constinit const CastPath apex_rms_norm_backward_memory_efficient = kernel(
    {.name = "apex.rms_norm_backward.memory_efficient",
     .title = "apex FusedRMSNorm's gradient from the saved y: n = y / w, for weights of at least eps (order assumed)",
     .norm = kRms,
     .source = kApexSource,
     .required = "dy,weight",
     .build = build_apex_rms_norm_memory_efficient},
    kApex, "");

constinit const CastPath liger_layer_norm_backward = kernel(
    {.name = "liger.layer_norm_backward",
     .title = "Liger layer_norm's gradient: mean and rstd saved in x's format; dweight, dbias in fp32 (order assumed)",
     .norm = kLayer,
     .source = {"linkedin/Liger-Kernel", "src/liger_kernel/ops/layer_norm.py", "", "quoted"},
     .required = "dy,weight",
     .build = build_liger_layer_norm},
    kTritonProfiles, "");

constinit const CastPath liger_rms_norm_backward_llama = kernel(
    {.name = "liger.rms_norm_backward.llama",
     .title = "Liger rms_norm's gradient, casting mode llama: dweight from n rounded to x's format (order assumed)",
     .norm = kRms,
     .source = kLigerRms,
     .required = "dy,weight",
     .build = build_liger_rms_norm<Casting::llama>},
    kTritonProfiles, "");

constinit const CastPath liger_rms_norm_backward_gemma =
    kernel({.name = "liger.rms_norm_backward.gemma",
            .title = "Liger rms_norm's gradient, casting mode gemma: fp32 throughout, 1 + w (order assumed)",
            .norm = kRms,
            .source = kLigerRms,
            .required = "dy,weight",
            .norm_attributes = kOffsetOne,
            .build = build_liger_rms_norm<Casting::gemma>},
           kTritonProfiles, "");

constinit const CastPath flash_attention_triton_layer_norm_backward =
    kernel({.name = "flash_attention.triton.layer_norm_backward",
            .title = "FlashAttention's Triton layer_norm, its gradient: fp32 but for the stores (order assumed)",
            .norm = kLayer,
            .source = kFlash,
            .required = "dy,weight",
            .build = build_flash_attention<false>},
           kTritonProfiles, "");

constinit const CastPath flash_attention_triton_rms_norm_backward =
    kernel({.name = "flash_attention.triton.rms_norm_backward",
            .title = "FlashAttention's Triton rms_norm, its gradient: fp32 but for the stores (order assumed)",
            .norm = kRms,
            .source = kFlash,
            .required = "dy,weight",
            .build = build_flash_attention<true>},
           kTritonProfiles, "");

constinit const CastPath unsloth_rms_layernorm_backward =
    kernel({.name = "unsloth.rms_layernorm_backward",
            .title = "Unsloth's RMSNorm gradient: dx only, r / N (N dy w - n s) in fp32 (order assumed)",
            .norm = kRms,
            .source = {"unslothai/unsloth", "unsloth/kernels/rms_layernorm.py", "0050c73", "read"},
            .required = "dy,weight",
            .build = build_unsloth},
           kTritonProfiles, "");

}  // namespace norma::cast_paths

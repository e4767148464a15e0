// ONNX Runtime's CPU kernels as 1.31.1 computes them: no source is cited for the algebra; it was found by experiment
// and is held to recorded bits. Short rows take a plain loop, longer ones vectors of 8 lanes.
#include <limits>

#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/layernorm_steps.hpp"

namespace norma::cast_paths {

namespace {

constexpr std::string_view kCode = "ONNX Runtime's CPU kernel";

void require_formats(const Binding& binding) {
  require_float_or_half(binding, kCode);
  require_one_format(binding, kCode);
}

/// From this length on rows are taken in vectors; bf16 rows never.
std::int64_t least_vector_row(const Binding& binding) {
  return binding.x == FormatId::fp32 ? 8 : binding.x == FormatId::fp16 ? 16 : std::numeric_limits<std::int64_t>::max();
}

/// n weight + bias, the sum fused or not.
Operand affine(Builder& b, Operand n, bool fused) {
  const Operand w = b.input("weight");
  if (!b.binding().has("bias")) return b.mul("nw", kFp32, n, w);
  const Operand beta = b.input("bias");
  if (fused) return b.map("nwb", Op::fma, kFp32, {n, w, beta});
  return b.add("nwb", kFp32, b.mul("nw", kFp32, n, w), beta);
}

/// Welford, first to last; (x - mean) / sqrt(variance + epsilon) * scale + bias, each rounded.
Operand looped(Builder& b, Operand x) {
  const Operand mean = b.moments("mean", "var", kFp32, x, {.kind = OrderKind::welford}, false);
  const Operand deviation = b.sqrt("deviation", kFp32, plus_eps(b, {mean.node, 1}, "var_eps"));
  return affine(b, b.div("n", kFp32, b.sub("centred", kFp32, x, mean), deviation), false);
}

/// The mean of sums in binary64, 4 lanes; squares of fp32 deviations; fma((x - mean) r, scale, bias).
Operand vectorized(Builder& b, Operand x) {
  const Profile& profile = bound_profile(b.binding());
  Order wide = profile.sum;
  if (wide.kind == OrderKind::ort_rows) wide.count = 4;
  const Operand mean =
      b.cast("mean", kFp32, b.reduce("mean_f64", kFp64, x, reduction(ReduceKind::mean, Term::value, wide)));
  const Operand centred = b.sub("centred", kFp32, x, mean);
  const Operand variance = b.div("var", kFp32, kernel_square_sum(b, centred), b.count());
  const Operand deviation = b.sqrt("deviation", kFp32, plus_eps(b, variance, "var_eps"));
  const Operand r = b.map("r", Op::reciprocal, kFp32, {deviation});
  return affine(b, b.mul("n", kFp32, centred, r), profile.contract_squares);
}

Program build_layer_norm(const Binding& binding) {
  require_formats(binding);
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  return finish_with_cast(b, binding.cols < least_vector_row(binding) ? looped(b, x) : vectorized(b, x));
}

/// x + skip in fp32, rounded only where it is returned.
Operand skipped(Builder& b) {
  const Operand x = b.input("x");
  const Operand h = b.add("h", kFp32, x, b.input("residual"));
  b.output("residual", b.cast("h_T", b.x_format(), h));
  return h;
}

Program build_skip(const Binding& binding) {
  require_formats(binding);
  Builder b("layernorm", binding);
  return finish_with_cast(b, looped(b, skipped(b)));
}

/// x / sqrt(mean(x x) + epsilon) * scale by a loop; by vectors the root's reciprocal is taken.
Operand root_mean_square(Builder& b, Operand x, bool vectors) {
  Order order = bound_profile(b.binding()).sum;
  if (order.kind == OrderKind::ort_rows && !vectors) order = {.kind = OrderKind::sequential};
  Reduction squares = reduction(ReduceKind::mean, Term::square, order);
  squares.contract = vectors && bound_profile(b.binding()).contract_squares;
  const Operand root = b.sqrt("rms", kFp32, plus_eps(b, b.reduce("ms", kFp32, x, squares)));
  if (!vectors) return b.div("n", kFp32, x, root);
  return b.mul("n", kFp32, x, b.map("r", Op::reciprocal, kFp32, {root}));
}

Program build_simplified(const Binding& binding) {
  require_formats(binding);
  Builder b("rmsnorm", binding);
  const Operand n = root_mean_square(b, b.input("x"), binding.cols >= 16);
  return finish_weight_then_cast(b, n);
}

Program build_skip_simplified(const Binding& binding) {
  require_formats(binding);
  Builder b("rmsnorm", binding);
  const Operand n = root_mean_square(b, skipped(b), false);
  return finish_weight_then_cast(b, n);
}

constexpr std::string_view kProfiles[] = {"onnxruntime_cpu", "sequential", "exact"};
constexpr std::string_view kLayerNormFile = "onnxruntime/core/providers/cpu/nn/layer_norm_impl.cc";
constexpr std::string_view kSkipFile = "onnxruntime/contrib_ops/cpu/skip_layer_norm.cc";

struct SimplifiedRow {
  std::string_view name, title, file, eps_default, residual, required;
  Program (*build)(const Binding&);
};
constexpr CastPath simplified(const SimplifiedRow& row) {
  return {.name = row.name,
          .title = row.title,
          .norm = "rmsnorm",
          .source = {"microsoft/onnxruntime", row.file, "1.31.1", "inferred"},
          .eps_default = row.eps_default,
          .eps_place = "inside",
          .eps_class = "fp32",
          .root = "x/sqrt",
          .tail = "B",
          .residual = row.residual,
          .required = row.required,
          .optional = "",
          .norm_attributes = {},
          .gaps = {},
          .profiles = kProfiles,
          .build = row.build};
}

}  // namespace

constinit const CastPath onnxruntime_cpu_layernorm_1_31 = layernorm_path({
    .name = "onnxruntime.cpu.layernorm.1_31",
    .title = "ONNX Runtime LayerNormalization on a CPU, 1.31: short rows by Welford, longer ones by two passes with "
             "the mean "
             "in double; one cast (measured)",
    .source = {"microsoft/onnxruntime", kLayerNormFile, "1.31.1", "inferred"},
    .root = "1/sqrt",
    .required = "weight",
    .optional = "bias",
    .profiles = kProfiles,
    .build = build_layer_norm,
});

constinit const CastPath onnxruntime_cpu_skip_layernorm_1_31 = layernorm_path({
    .name = "onnxruntime.cpu.skip_layernorm.1_31",
    .title =
        "ONNX Runtime SkipLayerNormalization on a CPU, 1.31: the sum in fp32, then Welford and a division (measured)",
    .source = {"microsoft/onnxruntime", kSkipFile, "1.31.1", "inferred"},
    .eps_default = "1e-12",
    .root = "x/sqrt",
    .residual = "unrounded",
    .required = "weight,residual",
    .optional = "bias",
    .profiles = kProfiles,
    .build = build_skip,
});

constinit const CastPath onnxruntime_cpu_simplified_layernorm_1_31 = simplified(
    {.name = "onnxruntime.cpu.simplified_layernorm.1_31",
     .title = "ONNX Runtime SimplifiedLayerNormalization and RMSNormalization on a CPU, 1.31: a division in short "
              "rows, 1 / sqrt in longer ones; Scale in fp32, one cast (measured)",
     .file = kLayerNormFile,
     .eps_default = "1e-5",
     .residual = "",
     .required = "weight",
     .build = build_simplified});

constinit const CastPath onnxruntime_cpu_skip_simplified_layernorm = simplified(
    {.name = "onnxruntime.cpu.skip_simplified_layernorm",
     .title = "ONNX Runtime SkipSimplifiedLayerNormalization on a CPU: the sum in fp32, a loop and a division, "
              "one cast (measured)",
     .file = kSkipFile,
     .eps_default = "1e-12",
     .residual = "unrounded",
     .required = "weight,residual",
     .build = build_skip_simplified});

}  // namespace norma::cast_paths

// LayerNorm in inference runtimes: ONNX and ONNX Runtime, TensorRT's plugin, oneDNN, ggml.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/layernorm_steps.hpp"

namespace norma::cast_paths {

namespace {

// Cast(T, normalized), Mul(., Scale), Add(., B), each in T
Program finish_onnx(Builder& b, Operand normalized) {
  const FormatRef t = b.x_format();
  const Operand n = b.cast("n_T", t, normalized);
  Operand y = b.mul("nw", t, n, b.input("weight"));
  if (b.binding().has("bias")) y = b.add("nwb", t, y, b.input("bias"));
  b.output("y", y);
  return b.finish();
}

// The text, stash_type fp32: Mean, D = X - Mean, Var = Mean(D D), InvStdDev = Reciprocal(Sqrt(Var + epsilon)), D
// InvStdDev
Program build_onnx_text(const Binding& binding) {
  constexpr std::string_view code = "LayerNormalization-17";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  Builder b("layernorm", binding);
  const Profile& profile = bound_profile(binding);
  const Operand x = b.input("x");
  const Operand mean = b.reduce("mean", kFp32, x, reduction(ReduceKind::mean, Term::value, profile.sum));
  const Operand d = b.sub("d", kFp32, x, mean);
  const Operand variance = b.reduce("var", kFp32, d, reduction(ReduceKind::mean, Term::square, profile.sum));
  const Operand deviation = b.sqrt("deviation", kFp32, plus_eps(b, variance, "var_eps"));
  return finish_onnx(b, b.mul("n", kFp32, d, b.map("r", Op::reciprocal, kFp32, {deviation})));
}

// The function body: Var = Mean(XU XU) - Mean Mean; Div(XU - Mean, Sqrt(Var + epsilon))
Program build_onnx_body(const Binding& binding) {
  constexpr std::string_view code = "LayerNormalization-17";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  const auto [mean, variance] = difference_of_squares(b, x);
  const Operand deviation = b.sqrt("deviation", kFp32, plus_eps(b, variance, "var_eps"));
  return finish_onnx(b, b.div("n", kFp32, b.sub("d", kFp32, x, mean), deviation));
}

// numpy in x's format throughout; its sums of fp16 are taken in fp32 and rounded once
Program build_onnx_reference(const Binding& binding) {
  constexpr std::string_view code = "onnx.reference";
  require_format(binding, "x", code, {FormatId::fp32, FormatId::fp16});
  require_one_format(binding, code);
  Builder b("layernorm", binding);
  const FormatRef t = b.x_format();
  const Profile& profile = bound_profile(binding);
  const Operand x = b.input("x");
  const auto mean_of = [&](const std::string& name, Operand of) {
    const Operand sum = b.reduce(name + "_sum", kFp32, of, reduction(ReduceKind::sum, Term::value, profile.sum));
    const Operand rounded = b.cast(name + "_sum_T", t, sum);
    return b.div(name, t, rounded, b.count());
  };
  const Operand d = b.sub("d", t, x, mean_of("mean", x));
  const Operand variance = mean_of("var", b.mul("d_sq", t, d, d));
  const Operand sum = b.add("var_eps", t, variance, b.cast("eps_T", t, b.attribute("eps")));
  const Operand r = b.map("r", Op::reciprocal, t, {b.sqrt("deviation", t, sum)});
  const Operand n = b.mul("n", t, d, r);
  Operand y = b.mul("nw", t, n, b.input("weight"));
  if (binding.has("bias")) y = b.add("nwb", t, y, b.input("bias"));
  b.output("y", y);
  return b.finish();
}

// One loop, sums of x and x x; sqrt(ms / N - mean mean + epsilon) not floored; (x - mean) / that * scale + bias
Operand ort_cpu(Builder& b, Operand x) {
  const auto [mean, variance] = difference_of_squares(b, x);
  const Operand deviation = b.sqrt("deviation", kFp32, plus_eps(b, variance, "var_eps"));
  const Operand n = b.div("n", kFp32, b.sub("d", kFp32, x, mean), deviation);
  const Operand w = b.input("weight");
  return b.binding().has("bias") ? multiply_add(b, "nwb", n, w, b.input("bias")) : b.mul("nw", kFp32, n, w);
}

Program build_ort_cpu(const Binding& binding) {
  constexpr std::string_view code = "ONNX Runtime's CPU kernel";
  require_format(binding, "x", code, {FormatId::fp32, FormatId::fp16});
  require_one_format(binding, code);
  Builder b("layernorm", binding);
  return finish_with_cast(b, ort_cpu(b, b.input("x")));
}

// The sum of x and skip in fp32, unrounded in the statistics, rounded where it is returned
Program build_ort_cpu_skip(const Binding& binding) {
  constexpr std::string_view code = "ONNX Runtime's CPU kernel";
  require_format(binding, "x", code, {FormatId::fp32, FormatId::fp16});
  require_one_format(binding, code);
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  const Operand h = b.add("h", kFp32, x, b.input("residual"));
  b.output("residual", b.cast("h_T", b.x_format(), h));
  return finish_with_cast(b, ort_cpu(b, h));
}

// gamma * r * (x - mean) + beta, left to right: the weight meets the root first
Operand ort_cuda(Builder& b, Operand x) {
  const Profile& profile = bound_profile(b.binding());
  const Operand mean = b.moments("mean", "var", kFp32, x, block_moments_order(profile, OrderKind::ort_moments),
                                 profile.contract_squares);
  const Operand r = inverse_deviation(b, {mean.node, 1});
  const Operand factor = b.mul("wr", kFp32, b.input("weight"), r);
  const Operand d = b.sub("d", kFp32, x, mean);
  const Operand beta = b.binding().has("bias") ? b.input("bias") : b.constant("no_bias", 0);
  return multiply_add(b, "nwb", factor, d, beta);
}

Program build_ort_cuda(const Binding& binding) {
  constexpr std::string_view code = "ONNX Runtime's CUDA kernel";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  Builder b("layernorm", binding);
  return finish_with_cast(b, ort_cuda(b, b.input("x")));
}

// Strict: the same kernel on x + skip, the sum in fp32
Program build_ort_skip_strict(const Binding& binding) {
  constexpr std::string_view code = "ONNX Runtime's CUDA kernel";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  const Operand h = b.add("h", kFp32, x, b.input("residual"));
  b.output("residual", b.cast("h_T", b.x_format(), h));
  return finish_with_cast(b, ort_cuda(b, h));
}

// Kernels that work in T alone: sum of (v / N) and of (v / N) v in T, r = rsqrt(E[v^2] - mu mu + eps) in T,
// g (v - mu) r + b. In fp32 what is a product and a sum contracts; half's operators do not.
enum class Skip { onnxruntime, tensorrt, tensorrt_vector };
template <Skip kind>
Program build_skip_in_t(const Binding& binding) {
  constexpr std::string_view code = kind == Skip::onnxruntime ? "SkipLayerNormalization" : "skipLayerNormPlugin";
  require_format(binding, "x", code, {FormatId::fp32, FormatId::fp16});
  require_one_format(binding, code);
  if (kind == Skip::tensorrt_vector && binding.cols != 768 && binding.cols != 1024)
    throw ProgramError("x has rows of " + std::to_string(binding.cols) +
                       "; the plugin's vectorised kernel takes rows of 768 or 1024");
  Builder b("layernorm", binding);
  const FormatRef t = b.x_format();
  const Profile& profile = bound_profile(binding);
  const Operand x = b.input("x");
  const Operand v = b.add("h", t, x, b.input("residual"));
  if (kind == Skip::onnxruntime) b.output("residual", v);
  // T(1.f / ld), or T(1) / T(ld)
  const Operand count = kind == Skip::onnxruntime ? b.count() : b.cast("N_T", t, b.count());
  const FormatRef first = kind == Skip::onnxruntime ? kFp32 : t;
  Operand rn = b.map("rn", Op::reciprocal, first, {count});
  if (kind == Skip::onnxruntime) rn = b.cast("rn_T", t, rn);
  const Operand share = b.mul("share", t, rn, v);
  const Reduction sums = reduction(ReduceKind::sum, Term::value, profile.sum);
  const Operand mean = b.reduce("mean", t, share, sums);
  const Operand square = b.reduce("ms", t, b.mul("share_v", t, share, v), sums);
  Operand sum = b.sub("var", t, square, b.mul("mean_sq", t, mean, mean));
  if (kind == Skip::onnxruntime) sum = b.add("var_eps", t, sum, b.cast("eps_T", t, eps_in_fp32(b)));
  if (kind == Skip::tensorrt_vector)  // numeric_limits<T>::epsilon()
    sum = b.add("var_eps", t, sum, b.constant("eps_finfo", t.id == FormatId::fp16 ? 0x1p-10 : 0x1p-23));
  const Operand r = t == kFp32 ? reciprocal_root(b, "r", t, sum) : b.rsqrt("r", t, sum);
  const Operand w = b.input("weight");
  const Operand d = b.sub("d", t, v, mean);
  const Operand wd = b.mul("wd", t, w, d);
  if (!binding.has("bias")) {
    b.output("y", b.mul("y", t, wd, r));
  } else if (t == kFp32) {
    b.output("y", multiply_add(b, "y", wd, r, b.input("bias")));
  } else {
    const Operand product = b.mul("wdr", t, wd, r);
    b.output("y", b.add("y", t, product, b.input("bias")));
  }
  return b.finish();
}

// ref: sm = scale / sqrtf(var + eps); d = sm (x - mean) + shift. simple: sm = scale (1 / sqrtf(var + eps))
enum class OneDnn { reference, simple };
template <OneDnn kind>
Program build_onednn(const Binding& binding) {
  require_float_or_half(binding, "oneDNN");
  for (const std::string_view name : {"weight", "bias"}) require_format(binding, name, "oneDNN", {FormatId::fp32});
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  const auto [mean, variance] = two_pass(b, x);
  const Operand root = b.sqrt("deviation", kFp32, plus_eps(b, variance, "var_eps"));
  Operand factor;
  if (kind == OneDnn::reference) {
    const Operand w = binding.has("weight") ? b.input("weight") : b.constant("no_weight", 1);
    factor = b.div("sm", kFp32, w, root);
  } else {
    const Operand r = b.map("r", Op::reciprocal, kFp32, {root});
    factor = binding.has("weight") ? b.mul("sm", kFp32, b.input("weight"), r) : r;
  }
  const Operand centred = b.sub("centred", kFp32, x, mean);
  const Operand shift = binding.has("bias") ? b.input("bias") : b.constant("no_bias", 0);
  return finish_with_cast(b, multiply_add(b, "nwb", factor, centred, shift));
}

void require_ggml(const Binding& binding) {
  require_format(binding, "x", "ggml", {FormatId::fp32});
  require_one_format(binding, "ggml");
}

// mean = float(double sum) / n; v = x - mean; variance = double sum of float(v v), / n; v / sqrtf(variance + eps)
Program build_ggml_cpu(const Binding& binding) {
  require_ggml(binding);
  Builder b("layernorm", binding);
  const Profile& profile = bound_profile(binding);
  const Operand x = b.input("x");
  const Operand sum = b.reduce("sum_f64", kFp64, x, reduction(ReduceKind::sum, Term::value, profile.sum));
  const Operand rounded = b.cast("sum", kFp32, sum);
  const Operand mean = b.div("mean", kFp32, rounded, b.count());
  const Operand d = b.sub("d", kFp32, x, mean);
  Reduction squares = reduction(ReduceKind::sum, Term::square, profile.sum);
  squares.term_format = kFp32;
  const Operand m2 = b.reduce("m2", kFp64, d, squares);
  const Operand variance = b.cast("var", kFp32, b.div("var_f64", kFp64, m2, b.count()));
  const Operand root = b.sqrt("deviation", kFp32, plus_eps(b, variance, "var_eps"));
  b.output("y", b.mul("y", kFp32, d, b.map("r", Op::reciprocal, kFp32, {root})));
  return b.finish();
}

// mean and E[x^2] - mean mean from float2 sums, not floored; (x - mean) * rsqrtf(var + eps)
Program build_ggml_cuda(const Binding& binding) {
  require_ggml(binding);
  Builder b("layernorm", binding);
  const Operand x = b.input("x");
  const auto [mean, variance] = difference_of_squares(b, x);
  const Operand r = inverse_deviation(b, variance);
  b.output("y", b.mul("y", kFp32, b.sub("d", kFp32, x, mean), r));
  return b.finish();
}

constexpr std::string_view kOrtCudaProfiles[] = {"cuda_4warps", "cuda_warp", "sequential"};
constexpr std::string_view kLoopProfiles[] = {"sequential", "exact"};
constexpr std::string_view kBlocksProfiles[] = {"cuda_block", "cuda_warp", "sequential", "exact"};
constexpr std::string_view kNoEps[] = {"no_eps"};

}  // namespace

constinit const CastPath onnx_layernormalization_17 = layernorm_path({
    .name = "onnx.layernormalization.17",
    .title = "ONNX LayerNormalization-17, its text: two passes in fp32, cast, then Scale and B in T (the sums' order "
             "is open)",
    .source = {"onnx/onnx", "onnx/defs/nn/defs.cc:2480-2640", "f754691", "read"},
    .root = "1/sqrt",
    .tail = "A",
    .required = "weight",
    .optional = "bias",
    .profiles = kOpenProfiles,
    .build = build_onnx_text,
});

constinit const CastPath onnx_layernormalization_17_body = layernorm_path({
    .name = "onnx.layernormalization.17.body",
    .title = "ONNX LayerNormalization-17, its function body: E[x^2] - E[x]^2 (the sums' order is open)",
    .source = {"onnx/onnx", "onnx/defs/nn/defs.cc:2480-2640", "f754691", "read"},
    .root = "x/sqrt",
    .tail = "A",
    .required = "weight",
    .optional = "bias",
    .profiles = kOpenProfiles,
    .build = build_onnx_body,
});

constinit const CastPath onnx_reference_layernormalization = layernorm_path({
    .name = "onnx.reference.layernormalization",
    .title = "onnx.reference LayerNormalization (numpy): two passes, every operation in T (the sums' order is open)",
    .source = {"onnx/onnx", "onnx/reference/ops/op_layer_normalization.py", "1.23.2", "read"},
    .eps_class = "rounded to T",
    .root = "1/sqrt",
    .tail = "F",
    .required = "weight",
    .optional = "bias",
    .profiles = kOpenProfiles,
    .build = build_onnx_reference,
});

constinit const CastPath onnxruntime_cpu_layernorm = layernorm_path({
    .name = "onnxruntime.cpu.layernorm",
    .title = "ONNX Runtime LayerNormalization on a CPU: E[x^2] - mean^2 not floored, one loop, one cast",
    .source = {"microsoft/onnxruntime", "onnxruntime/core/providers/cpu/nn/layer_norm_impl.cc", "1.21.0", "read"},
    .root = "x/sqrt",
    .required = "weight",
    .optional = "bias",
    .profiles = kLoopProfiles,
    .build = build_ort_cpu,
});

constinit const CastPath onnxruntime_cpu_skip_layernorm = layernorm_path({
    .name = "onnxruntime.cpu.skip_layernorm",
    .title = "ONNX Runtime SkipLayerNormalization on a CPU: the sum in fp32, then as its LayerNormalization",
    .source = {"microsoft/onnxruntime", "onnxruntime/contrib_ops/cpu/skip_layer_norm.cc", "1.21.0", "inferred"},
    .eps_default = "1e-12",
    .root = "x/sqrt",
    .residual = "unrounded",
    .required = "weight,residual",
    .optional = "bias",
    .profiles = kLoopProfiles,
    .build = build_ort_cpu_skip,
});

constinit const CastPath onnxruntime_cuda_layernorm = layernorm_path({
    .name = "onnxruntime.cuda.layernorm",
    .title = "ONNX Runtime LayerNormalization on CUDA: Welford, Scale times root first, one cast",
    .source = {"microsoft/onnxruntime", "onnxruntime/core/providers/cuda/nn/layer_norm_impl.cu", "1.21.0", "read"},
    .tail = "H",
    .required = "weight",
    .optional = "bias",
    .profiles = kOrtCudaProfiles,
    .build = build_ort_cuda,
});

constinit const CastPath onnxruntime_cuda_skip_layernorm_strict = layernorm_path({
    .name = "onnxruntime.cuda.skip_layernorm.strict",
    .title = "ONNX Runtime SkipLayerNormalization on CUDA, strict mode: the sum in fp32, then as LayerNormalization",
    .source = {"microsoft/onnxruntime", "onnxruntime/core/providers/cuda/nn/layer_norm_impl.cu", "1.21.0", "read"},
    .eps_default = "1e-12",
    .tail = "H",
    .residual = "unrounded",
    .required = "weight,residual",
    .optional = "bias",
    .profiles = kOrtCudaProfiles,
    .build = build_ort_skip_strict,
});

constinit const CastPath onnxruntime_cuda_skip_layernorm = layernorm_path({
    .name = "onnxruntime.cuda.skip_layernorm",
    .title = "ONNX Runtime SkipLayerNormalization on CUDA, the default: sums and all else in T; 1e-12 is 0 in fp16",
    .source = {"microsoft/onnxruntime", "onnxruntime/contrib_ops/cuda/bert/skip_layer_norm_impl.cu", "1.21.0", "read"},
    .eps_default = "1e-12",
    .eps_class = "rounded to T",
    .tail = "F",
    .residual = "rounded",
    .required = "weight,residual",
    .optional = "bias",
    .profiles = kBlocksProfiles,
    .build = build_skip_in_t<Skip::onnxruntime>,
});

constinit const CastPath tensorrt_skip_layernorm = layernorm_path({
    .name = "tensorrt.skip_layernorm",
    .title = "TensorRT skipLayerNormPlugin, most row lengths: sums and all else in T, no eps",
    .source = {"NVIDIA/TensorRT", "plugin/skipLayerNormPlugin/skipLayerNormKernel.cu", "a892d22", "read"},
    .eps_place = "none",
    .tail = "F",
    .residual = "rounded",
    .required = "weight,bias,residual",
    .optional = "",
    .gaps = kNoEps,
    .profiles = kBlocksProfiles,
    .build = build_skip_in_t<Skip::tensorrt>,
});

constinit const CastPath tensorrt_skip_layernorm_vector = layernorm_path({
    .name = "tensorrt.skip_layernorm.vector",
    .title = "TensorRT skipLayerNormPlugin, rows of 768 and 1024: all in T, eps is T's machine epsilon",
    .source = {"NVIDIA/TensorRT", "plugin/skipLayerNormPlugin/skipLayerNormKernel.cu", "1637a26", "read"},
    .eps_class = "finfo(T)",
    .tail = "F",
    .residual = "rounded",
    .required = "weight,bias,residual",
    .optional = "",
    .gaps = kGapFinfoInput,
    .profiles = kBlocksProfiles,
    .build = build_skip_in_t<Skip::tensorrt_vector>,
});

constinit const CastPath onednn_layernorm_reference = layernorm_path({
    .name = "onednn.layernorm.reference",
    .title = "oneDNN layer normalization, reference: scale divided by the root, one cast (the sums' order is open)",
    .source = {"oneapi-src/oneDNN", "src/cpu/ref_layer_normalization.cpp", "515bfba", "read"},
    .root = "x/sqrt",
    .tail = "H",
    .profiles = kOpenProfiles,
    .build = build_onednn<OneDnn::reference>,
});

constinit const CastPath onednn_layernorm_simple = layernorm_path({
    .name = "onednn.layernorm.simple",
    .title = "oneDNN layer normalization, simple: scale times the inverse root, one cast (the sums' order is open)",
    .source = {"oneapi-src/oneDNN", "src/cpu/simple_layer_normalization.cpp", "515bfba", "read"},
    .root = "1/sqrt",
    .tail = "H",
    .profiles = kOpenProfiles,
    .build = build_onednn<OneDnn::simple>,
});

constinit const CastPath ggml_cpu_norm = layernorm_path({
    .name = "ggml.cpu.norm",
    .title = "ggml norm on a CPU, no SIMD: sums in double, mean and deviations in float, no affine",
    .source = {"ggml-org/ggml", "src/ggml-cpu/ops.cpp", "d99724f", "read"},
    .root = "1/sqrt",
    .tail = "J",
    .optional = "",
    .profiles = kLoopProfiles,
    .build = build_ggml_cpu,
});

constinit const CastPath ggml_cuda_norm = layernorm_path({
    .name = "ggml.cuda.norm",
    .title = "ggml norm on CUDA: E[x^2] - mean^2 not floored, no affine",
    .source = {"ggml-org/ggml", "src/ggml-cuda/norm.cu:5-45", "d99724f", "read"},
    .tail = "J",
    .optional = "",
    .profiles = kBlocksProfiles,
    .build = build_ggml_cuda,
});

}  // namespace norma::cast_paths

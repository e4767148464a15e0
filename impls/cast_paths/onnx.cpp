// ONNX: the operator's function body, and what ONNX Runtime computes in its place.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

// XU = Cast(X, float); Div(XU, Sqrt(ReduceMean(XU * XU) + epsilon)); Cast(T); Mul(., scale).
// epsilon is a float.
Program build_function(const Binding& binding) {
  constexpr std::string_view code = "RMSNormalization-23";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand rms = b.sqrt("rms", kFp32, plus_eps(b, eager_mean_square(b, x)));
  const FormatRef t = b.x_format();
  const Operand n = b.cast("n_T", t, b.div("n", kFp32, x, rms));
  b.output("y", b.mul("y", t, n, b.input("weight")));
  return b.finish();
}

// p / sqrt(sum / N + epsilon) * scale in fp32, one cast; the loop is sequential
Program build_cpu(const Binding& binding) {
  constexpr std::string_view code = "ONNX Runtime's CPU kernel";
  require_format(binding, "x", code, {FormatId::fp32, FormatId::fp16});
  require_one_format(binding, code);
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand rms = b.sqrt("rms", kFp32, plus_eps(b, kernel_mean_square(b, x)));
  return finish_weight_then_cast(b, b.div("n", kFp32, x, rms));
}

// (V)(gamma * r * x): left to right, the weight meets the root first
Program build_cuda(const Binding& binding) {
  constexpr std::string_view code = "ONNX Runtime's CUDA kernel";
  require_float_or_half(binding, code);
  require_one_format(binding, code);
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand r = reciprocal_root(b, "r", kFp32, plus_eps(b, kernel_mean_square(b, x)));
  const Operand factor = b.mul("wr", kFp32, b.input("weight"), r);
  b.output("y", b.cast("y", b.x_format(), b.mul("wrx", kFp32, factor, x)));
  return b.finish();
}

constexpr std::string_view kCpuProfiles[] = {"sequential", "exact"};
constexpr std::string_view kCudaProfiles[] = {"cuda_4warps", "cuda_warp", "cuda_block", "sequential", "exact"};

}  // namespace

constinit const CastPath onnx_rmsnormalization_23{
    .name = "onnx.rmsnormalization.23",
    .title = "ONNX RMSNormalization-23, its function body: cast before Scale (the sum's order is open)",
    .norm = "rmsnorm",
    .source = {"onnx/onnx", "onnx/defs/nn/defs.cc", "f754691", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "x/sqrt",
    .tail = "A",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kOpenProfiles,
    .build = build_function,
};

constinit const CastPath onnxruntime_cpu_simplified_layernorm{
    .name = "onnxruntime.cpu.simplified_layernorm",
    .title =
        "ONNX Runtime SimplifiedLayerNormalization on a CPU: division by the root, Scale in fp32, "
        "one cast",
    .norm = "rmsnorm",
    .source = {"microsoft/onnxruntime", "onnxruntime/core/providers/cpu/nn/layer_norm_impl.cc", "1.21.0", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "x/sqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kCpuProfiles,
    .build = build_cpu,
};

constinit const CastPath onnxruntime_cuda_simplified_layernorm{
    .name = "onnxruntime.cuda.simplified_layernorm",
    .title = "ONNX Runtime SimplifiedLayerNormalization on CUDA: Scale times root first, one cast",
    .norm = "rmsnorm",
    .source = {"microsoft/onnxruntime", "onnxruntime/core/providers/cuda/nn/layer_norm_impl.cu", "1.21.0", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "H",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kCudaProfiles,
    .build = build_cuda,
};

}  // namespace norma::cast_paths

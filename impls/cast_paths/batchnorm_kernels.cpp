// BatchNorm outside torch: flax, oneDNN, ONNX Runtime.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/channel_steps.hpp"

namespace norma::cast_paths {

namespace {

/// y = (x - mean) * (rsqrt(var + eps) * scale) + bias in fp32, one cast
Program finish_flax(Builder& b, Operand x, Operand mean, Operand variance) {
  const Operand r = inverse_deviation(b, variance);
  const LayerNormParameters given = affine_inputs(b);
  const Operand factor = given.weight ? b.mul("factor", kFp32, r, *given.weight) : r;
  const Operand n = b.mul("n", kFp32, b.sub("d", kFp32, x, mean), factor);
  return finish_with_cast(b, given.bias ? b.add("nb", kFp32, n, *given.bias) : n);
}

// max(0, mean(x^2) - mean(x)^2) in fp32. flax's own running statistics keep the biased variance: not an output here.
Program build_flax_train(const Binding& binding) {
  require_float_or_half(binding, "flax.linen.BatchNorm");
  channel_sizes(binding);
  Builder b("batchnorm", binding, kBatch);
  const Operand x = b.input("x");
  const RowMoments moments = difference_of_squares(b, x, Floor::zero);
  return finish_flax(b, x, moments.mean, moments.variance);
}

Program build_flax_eval(const Binding& binding) {
  require_float_or_half(binding, "flax.linen.BatchNorm");
  channel_sizes(binding);
  Builder b("batchnorm", binding, kBatch);
  const Operand x = b.input("x");
  const Operand mean = b.input("running_mean");
  return finish_flax(b, x, mean, b.input("running_var"));
}

// sm = gamma / sqrtf(variance + eps), sm * (x - mean) + beta
Program build_onednn(const Binding& binding) {
  constexpr std::string_view code = "oneDNN's batch normalization";
  require_float_or_half(binding, code);
  for (const std::string_view parameter : {"weight", "bias", "running_mean", "running_var"})
    require_format(binding, parameter, code, {FormatId::fp32});
  channel_sizes(binding);
  Builder b("batchnorm", binding, kBatch);
  const Operand x = b.input("x");
  const bool running = binding.has("running_mean");
  const RowMoments moments = running ? RowMoments{b.input("running_mean"), {}} : two_pass(b, x);
  const Operand variance = running ? b.input("running_var") : moments.variance;
  const Operand root = b.sqrt("std", kFp32, plus_eps(b, variance, "var_eps"));
  const LayerNormParameters given = affine_inputs(b);
  const Operand factor = b.div("factor", kFp32, given.weight ? *given.weight : b.constant("one", 1), root);
  const Operand centred = b.sub("centred", kFp32, x, moments.mean);
  const Operand beta = given.bias ? *given.bias : b.constant("no_bias", 0);
  return finish_with_cast(b, multiply_add(b, "nwb", factor, centred, beta));
}

// scale * (1 / sqrt(var + epsilon)), bias - mean * that, x * the one + the other: nothing contracts
Program build_onnxruntime(const Binding& binding) {
  constexpr std::string_view code = "ONNX Runtime's CPU kernel";
  require_format(binding, "x", code, {FormatId::fp32, FormatId::fp16});
  require_one_format(binding, code);
  channel_sizes(binding);
  Builder b("batchnorm", binding, kBatch);
  const Operand x = b.input("x"), mean = b.input("running_mean");
  const Operand root = b.sqrt("std", kFp32, plus_eps(b, b.input("running_var"), "var_eps"));
  const Operand factor = b.mul("wr", kFp32, b.input("weight"), b.map("r", Op::reciprocal, kFp32, {root}));
  const Operand product = b.mul("mean_wr", kFp32, mean, factor);
  const Operand offset = b.sub("offset", kFp32, b.input("bias"), product);
  return finish_with_cast(b, b.add("nwb", kFp32, b.mul("nw", kFp32, x, factor), offset));
}

constexpr CaseDefault kFromBatch[] = {{"statistics", "batch"}};
constexpr CaseDefault kFromRunning[] = {{"statistics", "running"}};

constexpr CastPath path(std::string_view name, std::string_view title, PathSource source, std::string_view root,
                        std::span<const CaseDefault> statistics, std::string_view required,
                        std::span<const std::string_view> profiles, Program (*build)(const Binding&)) {
  return {.name = name,
          .title = title,
          .norm = "batchnorm",
          .source = source,
          .eps_default = "1e-5",
          .eps_place = "inside",
          .eps_class = "fp32",
          .root = root,
          .tail = "B",
          .residual = "",
          .required = required,
          .optional = "weight,bias",
          .norm_attributes = statistics,
          .gaps = {},
          .profiles = profiles,
          .build = build};
}

constexpr std::string_view kSequential[] = {"sequential"};
constexpr PathSource kFlax{"google/flax", "flax/linen/normalization.py", "18f8f31", "read"};
constexpr PathSource kOneDnn{"oneapi-src/oneDNN", "src/cpu/ref_batch_normalization.cpp", "515bfba", "inferred"};

}  // namespace

constinit const CastPath flax_linen_batch_norm_train =
    path("flax.linen.batch_norm.train", "flax.linen.BatchNorm in training: max(0, E[x^2] - E[x]^2) in fp32", kFlax,
         "rsqrt", kFromBatch, "", kOpenProfiles, build_flax_train);

constinit const CastPath flax_linen_batch_norm_eval = path(
    "flax.linen.batch_norm.eval", "flax.linen.BatchNorm in evaluation: (x - mean) * (rsqrt(var + eps) * scale) + bias",
    kFlax, "rsqrt", kFromRunning, "running_mean,running_var", kOpenProfiles, build_flax_eval);

constinit const CastPath onednn_batch_norm_train =
    path("onednn.batch_norm.train", "oneDNN batch normalization in training: two passes, gamma / sqrtf first", kOneDnn,
         "1/sqrt", kFromBatch, "", kOpenProfiles, build_onednn);

constinit const CastPath onednn_batch_norm_eval =
    path("onednn.batch_norm.eval", "oneDNN batch normalization with global statistics: gamma / sqrtf first", kOneDnn,
         "1/sqrt", kFromRunning, "running_mean,running_var", kOpenProfiles, build_onednn);

constinit const CastPath onnxruntime_cpu_batch_norm = [] {
  CastPath p = path("onnxruntime.cpu.batch_norm",
                    "ONNX Runtime BatchNormalization on a CPU in evaluation: x * factor + offset, "
                    "nothing contracted (measured)",
                    {"microsoft/onnxruntime", "onnxruntime/core/providers/cpu/nn/batch_norm.h", "1.31.1", "inferred"},
                    "1/sqrt", kFromRunning, "weight,bias,running_mean,running_var", kSequential, build_onnxruntime);
  p.optional = "";
  return p;
}();

}  // namespace norma::cast_paths

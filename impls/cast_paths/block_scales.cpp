// RMSNorm into blocks of columns with a scale each: MXFP8 and NVFP4. The norm is one stage; the next one sees its rows as
// runs of columns. A scale of E8M0 is put out as the binary32 number that its byte stands for, 2^(byte - 127).
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

constexpr FormatRef kE2m1{FormatId::e2m1};
constexpr View blocks_of(int columns) { return {.kind = ViewKind::blocks, .block = columns}; }

void require_blocks_of(int columns, const Binding& binding, std::string_view code) {
  if (binding.cols % columns != 0)
    throw ProgramError(std::string(code) + " takes rows of whole blocks of " + std::to_string(columns) + " columns, not of " +
                       std::to_string(binding.cols));
}

// fmaxf(amax, fabsf(z)) from 0 on: a NaN is not counted
Operand counted_amax(Builder& b, Operand z) {
  const FormatRef format = b.format(z);
  const Operand magnitude = b.map("abs_z", Op::abs, format, {z});
  const Operand counted = b.map("abs_z_or_0", Op::fmax, format, {magnitude, b.constant("zero", 0)});
  return b.reduce("amax", kFp32, counted, reduction(ReduceKind::amax, Term::value, {}));
}

// S_enc, in fp32. TransformerEngine makes it of the tensor's amax, 448 * 6 / amax; here it is given.
Operand global_scale(Builder& b) {
  if (!b.binding().attributes.contains("global_scale")) return b.constant("global_scale_f32", 1);
  return b.cast("global_scale_f32", kFp32, b.attribute("global_scale"));
}

Operand saturated(Builder& b, FormatRef to, Operand q) {
  return b.map("y", Op::cast, Rounding{.format = to, .overflow = Overflow::saturate}, {q});
}

// ---- TransformerEngine ----

constexpr std::string_view kTransformerEngine = "TransformerEngine";

Operand te_normed(Builder& b) {
  const Operand n = kernel_x_hat(b, b.input("x"));
  return b.mul("nw", kFp32, n, b.input("weight"));
}

// float_to_e8m0(amax * fl(1 / 448)): cvt.rp.satfinite.ue8m0x2. Codes are z * 2^(127 - byte); for byte 0 the code has
// z * 1, and z * 0 has the same bits: |z| <= 448 * 2^-127 rounds to a zero of z's sign.
Program te_mxfp8_blocks(Builder& b) {
  const Operand z = b.input("z", kRowsCols);
  const Operand amax = counted_amax(b, z);
  const Operand fraction = b.map("fp8_max_rcp", Op::reciprocal, kFp32, {b.constant("fp8_max", 448)});
  const Operand ratio = b.mul("amax_ratio", kFp32, amax, fraction);
  const Operand scale = b.map("scale", Op::e8m0_up, kFp32, {ratio});
  const Operand above_least = b.sub("above_least", kFp32, scale, b.constant("least_scale", 0x1p-127));
  const Operand power = b.map("scale_rcp", Op::reciprocal, kFp32, {scale});
  const Operand inverse = b.map("scale_inv", Op::unless_zero, kFp32, {above_least, power});
  b.output("y", saturated(b, kE4m3fn, b.mul("q", kFp32, z, inverse)));
  b.output("scale", scale);
  return b.finish();
}

enum class From { fp32, rounded };

template <From from>
Program build_te_mxfp8(const Binding& binding) {
  require_blocks_of(32, binding, kTransformerEngine);
  require_float_or_half(binding, kTransformerEngine);
  require_one_format(binding, kTransformerEngine);
  Builder b("rmsnorm", binding);
  const Operand nw = te_normed(b);
  b.pass("z", from == From::fp32 ? nw : b.cast("nw_T", b.x_format(), nw));
  Builder blocks = b.next_stage(blocks_of(32));
  return te_mxfp8_blocks(blocks);
}

// S = e4m3(min(amax * (S_enc * fl(1 / 6)), FLT_MAX)); codes are z * min(1 / (S * (1 / S_enc)), FLT_MAX).
Program build_te_nvfp4(const Binding& binding) {
  require_blocks_of(16, binding, kTransformerEngine);
  require_format(binding, "x", kTransformerEngine, {FormatId::bf16});
  require_one_format(binding, kTransformerEngine);
  Builder b("rmsnorm", binding);
  b.pass("z", b.cast("nw_T", b.x_format(), te_normed(b)));
  Builder blocks = b.next_stage(blocks_of(16));
  const Operand z = blocks.input("z", kRowsCols);
  const Operand amax = counted_amax(blocks, z);
  const Operand encode = global_scale(blocks);
  const Operand sixth = blocks.map("fp4_max_rcp", Op::reciprocal, kFp32, {blocks.constant("fp4_max", 6)});
  const Operand factor = blocks.mul("S_enc_sixth", kFp32, encode, sixth);
  const Operand largest = blocks.constant("float_max", 0x1.fffffep127);
  const Operand ratio = blocks.mul("S_dec", kFp32, amax, factor);
  const Operand capped = blocks.map("S_dec_capped", Op::fmin, kFp32, {ratio, largest});
  const Operand scale = blocks.map("scale", Op::nearest_e4m3, kE4m3fn, {capped});
  const Operand decode = blocks.map("S_dec_global", Op::reciprocal, kFp32, {encode});
  const Operand product = blocks.mul("S_product", kFp32, scale, decode);
  const Operand quotient = blocks.map("S_rcp", Op::reciprocal, kFp32, {product});
  const Operand inverse = blocks.map("scale_inv", Op::fmin, kFp32, {quotient, largest});
  blocks.output("y", saturated(blocks, kE2m1, blocks.mul("q", kFp32, z, inverse)));
  blocks.output("scale", scale);
  return blocks.finish();
}

// ---- FlashInfer ----

// rT(x w) * rstd in fp32; S = e4m3(min(S_g * amax * rcp(6), 448)); codes are y * (rcp(S) * S_g), rcp of 0 being 0. rcp is
// PTX rcp.approx, within 1 ulp. The code's amax is max(rT(x w)) * rstd, which is the largest product: rounding does not
// change an order.
Program build_flashinfer(const Binding& binding) {
  require_blocks_of(16, binding, "FlashInfer");
  require_format(binding, "x", "FlashInfer", {FormatId::bf16, FormatId::fp16});
  require_format(binding, "weight", "FlashInfer beside such an x", {binding.x});
  const bool fast = bound_profile(binding).root == Profile::Root::within_2_ulp;
  const Rounding rcp{.format = kFp32, .within_ulp = fast ? 1 : 0};
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand xw = b.mul("xw_T", b.x_format(), x, b.input("weight"));
  const Operand rstd = reciprocal_root(b, "rstd", kFp32, plus_eps(b, kernel_mean_square(b, x)));
  b.pass("z", b.mul("z", kFp32, xw, rstd));
  Builder blocks = b.next_stage(blocks_of(16));
  const Operand z = blocks.input("z", kRowsCols);
  const Operand amax = blocks.reduce("amax", kFp32, z, reduction(ReduceKind::amax, Term::value, {}));
  const Operand global = global_scale(blocks);
  const Operand sixth = blocks.map("fp4_max_rcp", Op::reciprocal, rcp, {blocks.constant("fp4_max", 6)});
  const Operand scaled = blocks.mul("amax_global", kFp32, global, amax);
  const Operand ratio = blocks.mul("scale_f32", kFp32, scaled, sixth);
  const Operand capped = blocks.map("scale_capped", Op::fmin, kFp32, {ratio, blocks.constant("e4m3_max", 448)});
  const Operand scale = blocks.map("scale", Op::nearest_e4m3, kE4m3fn, {capped});
  const Operand reciprocal = blocks.map("scale_rcp", Op::reciprocal, rcp, {scale});
  const Operand finite = blocks.map("scale_rcp_or_0", Op::unless_zero, kFp32, {scale, reciprocal});
  const Operand inverse = blocks.mul("scale_inv", kFp32, finite, global);
  blocks.output("y", saturated(blocks, kE2m1, blocks.mul("q", kFp32, z, inverse)));
  blocks.output("scale", scale);
  return blocks.finish();
}

constexpr CaseDefault kMxfp8[] = {{"quant", "mxfp8"}};
constexpr CaseDefault kNvfp4[] = {{"quant", "nvfp4"}};
constexpr std::string_view kClosedProfiles[] = {"exact", "cuda_warp", "cuda_block", "sequential"};
constexpr std::string_view kFastProfiles[] = {"cuda_warp", "cuda_4warps", "sequential", "exact"};

}  // namespace

constinit const CastPath transformer_engine_rmsnorm_cudnn_mxfp8{
    .name = "transformer_engine.rmsnorm.cudnn.mxfp8",
    .title = "TransformerEngine by cuDNN into MXFP8: blocks of 32 from fp32, E8M0 scales rounded up",
    .norm = "rmsnorm",
    .source = {"NVIDIA/TransformerEngine", "transformer_engine/common/cast/mxfp8/quantize_mxfp8.cuh", "01a68ee",
               "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = kMxfp8,
    .gaps = {},
    .profiles = kClosedProfiles,
    .build = build_te_mxfp8<From::fp32>,
};

constinit const CastPath transformer_engine_rmsnorm_cudnn_mxfp8_from_t{
    .name = "transformer_engine.rmsnorm.cudnn.mxfp8_from_t",
    .title = "TransformerEngine by cuDNN into MXFP8 with NVTE_CUDNN_MXFP8_NORM_OUTPUT_IN_INPUT_DTYPE: from the row in T",
    .norm = "rmsnorm",
    .source = {"NVIDIA/TransformerEngine", "transformer_engine/common/cast/mxfp8/quantize_mxfp8.cuh", "01a68ee",
               "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = kMxfp8,
    .gaps = {},
    .profiles = kClosedProfiles,
    .build = build_te_mxfp8<From::rounded>,
};

constinit const CastPath transformer_engine_rmsnorm_nvfp4{
    .name = "transformer_engine.rmsnorm.nvfp4",
    .title = "TransformerEngine into NVFP4: from the row in bf16, e4m3 scales for 16 columns times a global one",
    .norm = "rmsnorm",
    .source = {"NVIDIA/TransformerEngine", "transformer_engine/common/cast/nvfp4/core_nvfp4.cuh", "0718c01", "read"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = kNvfp4,
    .gaps = {},
    .profiles = kClosedProfiles,
    .build = build_te_nvfp4,
};

constinit const CastPath flashinfer_cute_rmsnorm_fp4{
    .name = "flashinfer.cute.rmsnorm_fp4",
    .title = "FlashInfer rmsnorm_fp4quant into NVFP4: x w rounded to T, times rstd in fp32; fast reciprocals",
    .norm = "rmsnorm",
    .source = {"flashinfer-ai/flashinfer", "flashinfer/cute_dsl/rmsnorm_fp4quant.py", "011d0b0", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = kNvfp4,
    .gaps = {},
    .profiles = kFastProfiles,
    .build = build_flashinfer,
};

}  // namespace norma::cast_paths

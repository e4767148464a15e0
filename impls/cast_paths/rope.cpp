// Rotary embedding of queries and keys, alone and behind their RMSNorm. `rotate` is what the code calls rotate_half(x)
// or the stack of (-imag, real); a complex product rounds the same two products and one sum (a sum is the same in both
// orders).
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

View paired(const Binding& binding, Pairing pairing) {
  const auto rotary = binding.attributes.find("rotary");
  return {.pairing = pairing,
          .rotary = rotary == binding.attributes.end() ? 0 : static_cast<std::int64_t>(rotary->second)};
}

/// Beyond the rotary columns what was not turned, in the same format.
Operand joined(Builder& b, Operand turned, Operand passed, const View& view) {
  if (view.rotary == 0 || view.rotary == b.binding().cols) return turned;
  return b.map("joined", Op::join, b.format(turned), {turned, passed});
}

// x.float() * cos + rotated.float() * sin in fp32, then one cast to x's format
Operand turned_in_fp32(Builder& b, Operand x, const View& view) {
  const Operand other = b.map("other", Op::rotate, b.format(x), {x});
  const Operand own = b.mul("own", kFp32, x, b.input("cos"));
  const Operand crossed = b.mul("crossed", kFp32, other, b.input("sin"));
  const Operand sum = b.add("turned_f32", kFp32, own, crossed);
  return joined(b, b.cast("turned", b.x_format(), sum), x, view);
}

// x * cos + rotate_half(x) * sin, every operation in the format that its operands promote to
Operand turned_eagerly(Builder& b, Operand x, const View& view) {
  const FormatRef table = promote(b.format(x), b.format(b.input("cos")));
  const Operand other = b.map("other", Op::rotate, b.format(x), {x});
  const Operand own = b.eager("own", Op::mul, table, {x, b.input("cos")});
  const Operand crossed = b.eager("crossed", Op::mul, table, {other, b.input("sin")});
  return joined(b, b.eager("turned", Op::add, table, {own, crossed}), x, view);
}

void require_fp32_tables(const Binding& binding, std::string_view code) {
  for (const char* table : {"cos", "sin"}) require_format(binding, table, code, {FormatId::fp32});
}
void require_whole_rows(const Binding& binding, std::string_view code) {
  const auto rotary = binding.attributes.find("rotary");
  if (rotary != binding.attributes.end() && rotary->second != 0 && rotary->second != static_cast<double>(binding.cols))
    throw ProgramError(std::string(code) + " turns all columns of a row: rotary must be 0");
}

enum class Turn { in_fp32, eagerly };

template <Pairing pairing, Turn turn>
Program build_rope(const Binding& binding) {
  constexpr std::string_view kCode = "this rotary embedding";
  require_float_or_half(binding, kCode);
  if (turn == Turn::in_fp32)
    require_fp32_tables(binding, kCode);
  else
    require_one_format(binding, kCode);
  require_whole_rows(binding, kCode);
  const View view = paired(binding, pairing);
  Builder b("rope", binding, view);
  const Operand x = b.input("x");
  b.output("y", turn == Turn::in_fp32 ? turned_in_fp32(b, x, view) : turned_eagerly(b, x, view));
  return b.finish();
}

// q[..., :rotary] turned eagerly, the rest behind it unchanged
Program build_partial(const Binding& binding) {
  constexpr std::string_view kCode = "GPT-NeoX's rotary embedding";
  require_float_or_half(binding, kCode);
  require_one_format(binding, kCode);
  const View view = paired(binding, Pairing::half);
  Builder b("rope", binding, view);
  b.output("y", turned_eagerly(b, b.input("x"), view));
  return b.finish();
}

// float x, y of the pair; x cos - y sin and y cos + x sin in fp32, one cast. Whether nvcc fuses a product and the sum
// is left open: here none is.
template <Pairing pairing>
Program build_kernel(const Binding& binding) {
  constexpr std::string_view kCode = "this kernel";
  require_float_or_half(binding, kCode);
  const View view = paired(binding, pairing);
  Builder b("rope", binding, view);
  b.output("y", turned_in_fp32(b, b.input("x"), view));
  return b.finish();
}

/// rT(rT(n) w): what LlamaRMSNorm, FLUX and diffusers with a half weight give.
Operand normed(Builder& b, Operand eps_f32) {
  const Operand n = b.cast("n_T", b.x_format(), eager_x_hat(b, b.input("x"), eps_f32));
  return b.binding().has("weight") ? b.eager("q", Op::mul, b.x_format(), {n, b.input("weight")}) : n;
}

template <Pairing pairing, Turn turn>
Program build_normed(const Binding& binding) {
  constexpr std::string_view kCode = "this norm of queries and keys";
  require_float_or_half(binding, kCode);
  require_format(binding, "weight", kCode, {binding.x});
  if (turn == Turn::in_fp32)
    require_fp32_tables(binding, kCode);
  else
    require_one_format(binding, kCode);
  require_whole_rows(binding, kCode);
  const View view = paired(binding, pairing);
  Builder b("rmsnorm_rope", binding, view);
  const Operand q = normed(b, eps_in_fp32(b));
  b.output("y", turn == Turn::in_fp32 ? turned_in_fp32(b, q, view) : turned_eagerly(b, q, view));
  return b.finish();
}

constexpr double kFluxEps = 1e-6;

Program build_flux(const Binding& binding) {
  constexpr std::string_view kCode = "FLUX's attention";
  require_float_or_half(binding, kCode);
  require_format(binding, "weight", kCode, {binding.x});
  require_fp32_tables(binding, kCode);
  require_whole_rows(binding, kCode);
  const View view = paired(binding, Pairing::interleaved);
  Builder b("rmsnorm_rope", binding, view);
  const Operand q = normed(b, b.cast("eps_f32", kFp32, b.constant("eps_literal", kFluxEps)));
  b.output("y", turned_in_fp32(b, q, view));
  return b.finish();
}

// n w in fp32 and rounded once, and turned from there, where the unfused kernels would be
Program build_flashinfer_normed(const Binding& binding) {
  constexpr std::string_view kCode = "FlashInfer's fused_qk_rmsnorm_rope";
  require_format(binding, "x", kCode, {FormatId::bf16});
  require_format(binding, "weight", kCode, {FormatId::bf16});
  require_fp32_tables(binding, kCode);
  const View view = paired(binding, Pairing::half);
  Builder b("rmsnorm_rope", binding, view);
  const Operand n = kernel_x_hat(b, b.input("x"));
  const Operand q = b.cast("q", b.x_format(), b.mul("nw", kFp32, n, b.input("weight")));
  b.output("y", turned_in_fp32(b, q, view));
  return b.finish();
}

constexpr CaseDefault kInterleaved[] = {{"pairing", "interleaved"}};
constexpr CaseDefault kHalf[] = {{"pairing", "half"}};
constexpr std::string_view kElementwise[] = {"torch_cpu", "torch_cuda", "exact"};
constexpr std::string_view kKernel[] = {"cuda_block_vec8", "exact"};

struct Row {
  std::string_view name, title;
  PathSource source;
  std::string_view tail;
  std::span<const CaseDefault> pairing;
  Program (*build)(const Binding&);
};
constexpr CastPath rope_path(std::span<const std::string_view> profiles, const Row& row) {
  return {.name = row.name,
          .title = row.title,
          .norm = "rope",
          .source = row.source,
          .eps_default = "",
          .eps_place = "none",
          .eps_class = "",
          .root = "",
          .tail = row.tail,
          .residual = "",
          .required = "cos,sin",
          .optional = "",
          .norm_attributes = row.pairing,
          .gaps = {},
          .profiles = profiles,
          .build = row.build};
}
constexpr CastPath normed_path(std::string_view eps_class, std::span<const std::string_view> gaps,
                               std::span<const std::string_view> profiles, const Row& row) {
  CastPath path = rope_path(profiles, row);
  path.norm = "rmsnorm_rope";
  path.eps_default = "1e-6";
  path.eps_place = "inside";
  path.eps_class = eps_class;
  path.root = "rsqrt";
  path.required = "cos,sin,weight";
  path.gaps = gaps;
  return path;
}

}  // namespace

constinit const CastPath bfl_flux_rope =
    rope_path(kElementwise, {.name = "bfl.flux.rope",
                             .title = "FLUX's apply_rope: both products and their sum in fp32, one cast",
                             .source = {"black-forest-labs/flux", "src/flux/math.py", "802fb47", "read"},
                             .tail = "L",
                             .pairing = kInterleaved,
                             .build = build_rope<Pairing::interleaved, Turn::in_fp32>});

constinit const CastPath diffusers_rope = rope_path(
    kElementwise, {.name = "diffusers.rope",
                   .title = "diffusers' apply_rotary_emb on real tables, neighbours (FLUX, CogVideoX): fp32, one cast",
                   .source = {"huggingface/diffusers", "src/diffusers/models/embeddings.py", "v0.42.1", "read"},
                   .tail = "L",
                   .pairing = kInterleaved,
                   .build = build_rope<Pairing::interleaved, Turn::in_fp32>});

constinit const CastPath diffusers_rope_halves = rope_path(
    kElementwise, {.name = "diffusers.rope.halves",
                   .title = "diffusers' apply_rotary_emb on real tables, halves (CogView4, Cosmos): fp32, one cast",
                   .source = {"huggingface/diffusers", "src/diffusers/models/embeddings.py", "v0.42.1", "read"},
                   .tail = "L",
                   .pairing = kHalf,
                   .build = build_rope<Pairing::half, Turn::in_fp32>});

constinit const CastPath diffusers_rope_complex = rope_path(
    kElementwise,
    {.name = "diffusers.rope.complex",
     .title = "diffusers' apply_rotary_emb on complex tables (Lumina, Qwen-Image): a complex product, one cast",
     .source = {"huggingface/diffusers", "src/diffusers/models/embeddings.py", "v0.42.1", "read"},
     .tail = "L",
     .pairing = kInterleaved,
     .build = build_rope<Pairing::interleaved, Turn::in_fp32>});

constinit const CastPath transformers_llama_rope = rope_path(
    kElementwise,
    {.name = "transformers.llama.rope",
     .title = "apply_rotary_pos_emb of LLaMA and its kin: tables in T, every operation rounded to T",
     .source = {"huggingface/transformers", "src/transformers/models/llama/modeling_llama.py", "v5.23.0", "read"},
     .tail = "K",
     .pairing = kHalf,
     .build = build_rope<Pairing::half, Turn::eagerly>});

constinit const CastPath transformers_gpt_neox_rope = rope_path(
    kElementwise,
    {.name = "transformers.gpt_neox.rope",
     .title = "apply_rotary_pos_emb of GPT-NeoX: the first rotary columns as in LLaMA, the others passed on",
     .source = {"huggingface/transformers", "src/transformers/models/gpt_neox/modeling_gpt_neox.py", "v5.23.0", "read"},
     .tail = "K",
     .pairing = kHalf,
     .build = build_partial});

constinit const CastPath vllm_rope_neox = rope_path(
    kKernel, {.name = "vllm.rotary_embedding.neox",
              .title = "vLLM's rotary_embedding, halves: a pair in fp32, one cast; contraction is left to the compiler",
              .source = {"vllm-project/vllm", "csrc/libtorch_stable/pos_encoding_kernels.cu", "", "quoted"},
              .tail = "L",
              .pairing = kHalf,
              .build = build_kernel<Pairing::half>});

constinit const CastPath vllm_rope_gptj = rope_path(
    kKernel,
    {.name = "vllm.rotary_embedding.gptj",
     .title = "vLLM's rotary_embedding, neighbours: a pair in fp32, one cast; contraction is left to the compiler",
     .source = {"vllm-project/vllm", "csrc/libtorch_stable/pos_encoding_kernels.cu", "", "quoted"},
     .tail = "L",
     .pairing = kInterleaved,
     .build = build_kernel<Pairing::interleaved>});

constinit const CastPath bfl_flux_qk_norm_rope =
    normed_path("hard-coded", kGapHardCoded, kEagerProfiles,
                {.name = "bfl.flux.qk_norm_rope",
                 .title = "FLUX's QKNorm and apply_rope: norm rounded, times its scale rounded, then fp32 and one cast",
                 .source = {"black-forest-labs/flux", "src/flux/modules/layers.py", "802fb47", "read"},
                 .tail = "A, L",
                 .pairing = kInterleaved,
                 .build = build_flux});

constinit const CastPath diffusers_qwen_image_qk_norm_rope =
    normed_path("fp32", {}, kEagerProfiles,
                {.name = "diffusers.qwen_image.qk_norm_rope",
                 .title = "Qwen-Image's norm of queries and keys and its complex rotary embedding",
                 .source = {"huggingface/diffusers", "src/diffusers/models/transformers/transformer_qwenimage.py",
                            "v0.42.1", "read"},
                 .tail = "A, L",
                 .pairing = kInterleaved,
                 .build = build_normed<Pairing::interleaved, Turn::in_fp32>});

constinit const CastPath transformers_qwen3_qk_norm_rope = normed_path(
    "fp32", {}, kEagerProfiles,
    {.name = "transformers.qwen3.qk_norm_rope",
     .title = "Qwen3's norm of queries and keys and rotary embedding, every operation rounded to T",
     .source = {"huggingface/transformers", "src/transformers/models/qwen3/modeling_qwen3.py", "v5.23.0", "read"},
     .tail = "A, K",
     .pairing = kHalf,
     .build = build_normed<Pairing::half, Turn::eagerly>});

constinit const CastPath flashinfer_qk_norm_rope = normed_path(
    "fp32", {}, kBlockProfiles,
    {.name = "flashinfer.fused_qk_rmsnorm_rope",
     .title = "FlashInfer's fused norm and rotary embedding: the norm rounded to bf16 in between, as unfused",
     .source = {"flashinfer-ai/flashinfer", "fused_qk_rmsnorm_rope", "", "inferred"},
     .tail = "B, L",
     .pairing = kHalf,
     .build = build_flashinfer_normed});

}  // namespace norma::cast_paths

// Hugging Face transformers: the families that its hundred models copy from.
#include "impls/cast_paths/catalog.hpp"
#include "impls/cast_paths/steps.hpp"

namespace norma::cast_paths {

namespace {

// weight * (x.float() * rsqrt(ms + eps)).to(input_dtype)
Program build_llama(const Binding& binding) {
  require_float_or_half(binding, "LlamaRMSNorm");
  Builder b("rmsnorm", binding);
  return finish_cast_then_weight(b, eager_x_hat(b, b.input("x")));
}

// h = x * rsqrt(ms + eps), promoted to fp32; h.to(weight.dtype) only if that is fp16 or bf16;
// weight * h
Program build_t5(const Binding& binding) {
  require_float_or_half(binding, "T5LayerNorm");
  Builder b("rmsnorm", binding);
  const Operand h = eager_x_hat(b, b.input("x"));
  const Operand w = b.input("weight");
  const FormatRef wf = b.format(w);
  b.output("y", b.eager("y", Op::mul, wf, {w, is_half(wf) ? b.cast("h_W", wf, h) : h}));
  return b.finish();
}

// (_norm(x.float()) * (1.0 + weight.float())).type_as(x)
Program build_gemma(const Binding& binding) {
  require_float_or_half(binding, "GemmaRMSNorm");
  Builder b("rmsnorm", binding);
  return finish_one_plus_weight_then_cast(b, eager_x_hat(b, b.input("x")));
}

// x.float() / sqrt(ms + eps) * weight.float(), cast
Program build_gemma3n(const Binding& binding) {
  require_float_or_half(binding, "Gemma3nRMSNorm");
  Builder b("rmsnorm", binding);
  const Operand x = b.input("x");
  const Operand rms = b.sqrt("rms", kFp32, plus_eps(b, eager_mean_square(b, x)));
  return finish_weight_then_cast(b, b.div("n", kFp32, x, rms));
}

// x.float() * pow(ms + eps, -0.5) * weight.float(), cast; torch takes pow(-0.5) as rsqrt
Program build_gemma4(const Binding& binding) {
  require_float_or_half(binding, "Gemma4RMSNorm");
  Builder b("rmsnorm", binding);
  return finish_weight_then_cast(b, eager_x_hat(b, b.input("x")));
}

// (weight * (x.float() * rsqrt(ms + eps))).to(input_dtype)
Program build_olmo2(const Binding& binding) {
  require_float_or_half(binding, "Olmo2RMSNorm");
  Builder b("rmsnorm", binding);
  return finish_weight_then_cast(b, eager_x_hat(b, b.input("x")));
}

// x * rsqrt((x * x).sum(-1) + eps), every operation in x's format
Program build_l2norm(const Binding& binding) {
  require_float_or_half(binding, "l2norm");
  Builder b("rmsnorm", binding);
  const FormatRef t = b.x_format();
  const Profile& profile = bound_profile(binding);
  const Operand x = b.input("x");
  const Operand squares = b.eager("sq", Op::mul, t, {x, x});
  const Order order = is_half(t) ? profile.sum_half : profile.sum;
  const Operand sum = b.reduce("ss_f32", kFp32, squares, reduction(ReduceKind::sum, Term::value, order));
  const Operand eps = b.cast("eps_T", t, eps_in_fp32(b));
  const Operand shifted = b.eager("ss_eps", Op::add, t, {b.cast("ss", t, sum), eps});
  b.output("y", b.eager("y", Op::mul, t, {x, eager_rsqrt(b, "r", t, shifted)}));
  return b.finish();
}

constexpr CaseDefault kOnSum[] = {{"eps_place", "sum"}};

// _norm(x.float()).type_as(x)
Program build_no_weight(const Binding& binding) {
  require_float_or_half(binding, "Llama4TextL2Norm");
  Builder b("rmsnorm", binding);
  return finish_weight_then_cast(b, eager_x_hat(b, b.input("x")));
}

}  // namespace

constinit const CastPath transformers_llama_rmsnorm{
    .name = "transformers.llama.rmsnorm",
    .title = "LlamaRMSNorm and its copies (Mistral, Qwen2, Qwen3, DeepSeek, Phi-3): cast, then weight",
    .norm = "rmsnorm",
    .source = {"huggingface/transformers", "src/transformers/models/llama/modeling_llama.py", "5dd4a635", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_llama,
};

constinit const CastPath transformers_t5_layernorm{
    .name = "transformers.t5.layernorm",
    .title =
        "T5LayerNorm: cast to the weight's format, and only to a half one; fp32 weights give fp32 "
        "output",
    .norm = "rmsnorm",
    .source = {"huggingface/transformers", "src/transformers/models/t5/modeling_t5.py", "", "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_t5,
};

constinit const CastPath transformers_gemma_rmsnorm{
    .name = "transformers.gemma.rmsnorm",
    .title = "GemmaRMSNorm (Gemma 2 and 3, RecurrentGemma, Qwen3-Next): 1 + w in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"huggingface/transformers", "src/transformers/models/qwen3_next/modular_qwen3_next.py", "043bb8dd",
               "read"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "C",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = kOffsetOne,
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_gemma,
};

constinit const CastPath transformers_gemma3n_rmsnorm{
    .name = "transformers.gemma3n.rmsnorm",
    .title = "Gemma3nRMSNorm as first released: division by the root, weight in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"huggingface/transformers", "src/transformers/models/gemma3n/modeling_gemma3n.py", "", "quoted"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "x/sqrt",
    .tail = "B",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_gemma3n,
};

constinit const CastPath transformers_gemma4_rmsnorm{
    .name = "transformers.gemma4.rmsnorm",
    .title = "Gemma4RMSNorm, and Gemma3nRMSNorm of today: pow(-0.5), weight in fp32, one cast",
    .norm = "rmsnorm",
    .source = {"huggingface/transformers", "src/transformers/models/gemma4/modeling_gemma4.py", "", "quoted"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "pow(-0.5)",
    .tail = "B",
    .residual = "",
    .required = "",
    .optional = "weight",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_gemma4,
};

constinit const CastPath transformers_olmo2_rmsnorm{
    .name = "transformers.olmo2.rmsnorm",
    .title =
        "Olmo2RMSNorm of today and its like (GPT-OSS, Helium, NemotronH, Moshi): weight, then one "
        "cast",
    .norm = "rmsnorm",
    .source = {"huggingface/transformers", "src/transformers/models/olmo2/modular_olmo2.py", "", "quoted"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_olmo2,
};

constinit const CastPath transformers_qwen3_next_l2norm{
    .name = "transformers.qwen3_next.l2norm",
    .title = "l2norm of Qwen3-Next and FLA: eps on the sum, every operation in x's format",
    .norm = "rmsnorm",
    .source = {"huggingface/transformers", "src/transformers/models/qwen3_next/modular_qwen3_next.py", "043bb8dd",
               "read"},
    .eps_default = "1e-6",
    .eps_place = "sum",
    .eps_class = "rounded to T",
    .root = "rsqrt(sum+eps)",
    .tail = "F",
    .residual = "",
    .required = "",
    .optional = "",
    .norm_attributes = kOnSum,
    .gaps = {},
    .profiles = kEagerHalfProfiles,
    .build = build_l2norm,
};

constinit const CastPath transformers_llama4_text_rmsnorm{
    .name = "transformers.llama4.text_rmsnorm",
    .title = "Llama4TextRMSNorm: cast, then weight",
    .norm = "rmsnorm",
    .source = {"huggingface/transformers", "src/transformers/models/llama4/modeling_llama4.py", "", "quoted"},
    .eps_default = "1e-5",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "A",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_llama,
};

constinit const CastPath transformers_llama4_l2norm{
    .name = "transformers.llama4.l2norm",
    .title = "Llama4TextL2Norm of queries and keys: a mean of squares in spite of its name, no weight, one cast",
    .norm = "rmsnorm",
    .source = {"huggingface/transformers", "src/transformers/models/llama4/modeling_llama4.py", "", "quoted"},
    .eps_default = "1e-6",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "J",
    .residual = "",
    .required = "",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_no_weight,
};

constinit const CastPath transformers_moshi_rmsnorm{
    .name = "transformers.moshi.rmsnorm",
    .title = "MoshiRMSNorm: weight in fp32, one cast, eps 1e-8",
    .norm = "rmsnorm",
    .source = {"huggingface/transformers", "src/transformers/models/moshi/modeling_moshi.py", "", "quoted"},
    .eps_default = "1e-8",
    .eps_place = "inside",
    .eps_class = "fp32",
    .root = "rsqrt",
    .tail = "B",
    .residual = "",
    .required = "weight",
    .optional = "",
    .norm_attributes = {},
    .gaps = {},
    .profiles = kEagerProfiles,
    .build = build_olmo2,
};

}  // namespace norma::cast_paths

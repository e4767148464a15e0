// Variants of paths: the same code with its linear layers in fp8, but for those that upstream leaves alone. diffusers
// skips modules whose name has a part of its own list, a model's list or _keep_in_fp32_modules in it
// (modeling_utils.py, enable_layerwise_casting); only Linear and convolution modules are cast. The lists here are
// those, in names of sites.
#include "impls/cast_paths/quantized_blocks.hpp"

#include "impls/cast_paths/flux_blocks.hpp"
#include "impls/cast_paths/linear_plan.hpp"
#include "impls/cast_paths/llama_block.hpp"
#include "impls/cast_paths/qwen_image_block.hpp"
#include "impls/cast_paths/wan_block.hpp"

namespace norma::blocks {

namespace {

struct Variant {
  const BlockPath* base;
  std::string_view mode;
  std::string_view keep = "";  ///< a part of names
  bool keep_ragged = false;
};

// "norm": AdaLayerNormZero's norm1.linear and norm1_context.linear, which give the modulation.
constexpr Variant kFluxDouble{.base = &diffusers_flux_double_block, .mode = "layerwise_e4m3", .keep = ".mod"};
constexpr Variant kFluxSingle{.base = &diffusers_flux_single_block, .mode = "layerwise_e4m3", .keep = "mod"};
// img_mod.1 and txt_mod.1 have no "norm" in their names: they are cast.
constexpr Variant kQwenImage{.base = &diffusers_qwen_image_block, .mode = "layerwise_e4m3"};
// "norm" is no Linear's in the block; scale_shift_table is the block's own parameter and stays fp32.
constexpr Variant kWan{.base = &diffusers_wan_block, .mode = "layerwise_e4m3"};
// Weights that are no whole squares of 128 are passed through (Fp8Quantize), and computed with as they are.
constexpr Variant kLlama{.base = &transformers_llama_block, .mode = "fp8_finegrained", .keep_ragged = true};

template <const Variant& variant>
Graph build(const BlockBinding& binding) {
  LinearPlan plan;
  plan.mode = find_linear_mode(variant.mode);
  plan.keep_ragged = variant.keep_ragged;
  if (!variant.keep.empty()) plan.keep.emplace_back(variant.keep);
  return with_linears(variant.base->build(binding), plan);
}

constexpr PathSource source_of(std::string_view file) { return {"huggingface/diffusers", file, "v0.42.1", "read"}; }

}  // namespace

constinit const BlockPath diffusers_flux_double_block_layerwise{
    .name = "diffusers.flux.double_block.layerwise_e4m3",
    .title = "FluxTransformerBlock by enable_layerwise_casting: weights kept in e4m3 but the modulation's",
    .block = "flux_double_block",
    .source = source_of("src/diffusers/models/transformers/transformer_flux.py:571"),
    .build = build<kFluxDouble>,
};

constinit const BlockPath diffusers_flux_single_block_layerwise{
    .name = "diffusers.flux.single_block.layerwise_e4m3",
    .title = "FluxSingleTransformerBlock by enable_layerwise_casting: weights kept in e4m3 but the modulation's",
    .block = "flux_single_block",
    .source = source_of("src/diffusers/models/transformers/transformer_flux.py:571"),
    .build = build<kFluxSingle>,
};

constinit const BlockPath diffusers_qwen_image_block_layerwise{
    .name = "diffusers.qwen_image.block.layerwise_e4m3",
    .title =
        "QwenImageTransformerBlock by enable_layerwise_casting: all weights of Linears in e4m3, the modulation's too",
    .block = "qwen_image_block",
    .source = source_of("src/diffusers/models/transformers/transformer_qwenimage.py:778"),
    .build = build<kQwenImage>,
};

constinit const BlockPath diffusers_wan_block_layerwise{
    .name = "diffusers.wan.block.layerwise_e4m3",
    .title = "WanTransformerBlock by enable_layerwise_casting: all weights of Linears in e4m3, norms and table in fp32",
    .block = "wan_block",
    .source = source_of("src/diffusers/models/transformers/transformer_wan.py:547-549"),
    .build = build<kWan>,
};

constinit const BlockPath transformers_llama_block_finegrained_fp8{
    .name = "transformers.llama.block.finegrained_fp8",
    .title = "LlamaDecoderLayer by FineGrainedFP8Config: squares of 128 in weights, runs of 128 in activations",
    .block = "llama_block",
    .source = {"huggingface/transformers", "src/transformers/integrations/finegrained_fp8.py", "v5.23.0", "read"},
    .build = build<kLlama>,
};

}  // namespace norma::blocks

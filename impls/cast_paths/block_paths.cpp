// The list of blocks as real code computes them.
#include <algorithm>

#include "impls/cast_paths/adm_block.hpp"
#include "impls/cast_paths/block_path.hpp"
#include "impls/cast_paths/dit_block.hpp"
#include "impls/cast_paths/embedder_blocks.hpp"
#include "impls/cast_paths/final_layer_blocks.hpp"
#include "impls/cast_paths/flux_autoencoder_blocks.hpp"
#include "impls/cast_paths/flux_blocks.hpp"
#include "impls/cast_paths/qwen_image_autoencoder_block.hpp"
#include "impls/cast_paths/quantized_blocks.hpp"
#include "impls/cast_paths/qwen_image_block.hpp"
#include "impls/cast_paths/llama_block.hpp"
#include "impls/cast_paths/rope_ids_blocks.hpp"
#include "impls/cast_paths/wan_block.hpp"

namespace norma {

std::span<const BlockPath* const> all_block_paths() {
  static constexpr const BlockPath* kPaths[] = {&blocks::facebook_dit_block, &blocks::transformers_llama_block,
                                               &blocks::transformers_llama_block_eager, &blocks::diffusers_wan_block,
                                               &blocks::diffusers_flux_double_block, &blocks::diffusers_flux_single_block,
                                               &blocks::bfl_flux_double_block, &blocks::bfl_flux_single_block,
                                               &blocks::diffusers_flux_last_layer, &blocks::bfl_flux_last_layer,
                                               &blocks::diffusers_qwen_image_block,
                                               &blocks::diffusers_flux_double_block_layerwise,
                                               &blocks::diffusers_flux_single_block_layerwise,
                                               &blocks::diffusers_qwen_image_block_layerwise,
                                               &blocks::diffusers_wan_block_layerwise,
                                               &blocks::transformers_llama_block_finegrained_fp8,
                                               &blocks::openai_adm_resblock, &blocks::diffusers_unet_resnet_block,
                                               &blocks::bfl_flux_ae_resnet, &blocks::diffusers_flux_ae_resnet,
                                               &blocks::bfl_flux_ae_attention, &blocks::diffusers_flux_ae_attention,
                                               &blocks::diffusers_qwen_vae_residual,
                                               &blocks::bfl_timestep_embedding, &blocks::diffusers_flux_timestep_embedding,
                                               &blocks::diffusers_qwen_timestep_embedding, &blocks::bfl_mlp_embedder,
                                               &blocks::diffusers_timestep_embedder, &blocks::bfl_flux_vec,
                                               &blocks::diffusers_flux_vec, &blocks::facebook_dit_final_layer,
                                               &blocks::diffusers_qwen_norm_out, &blocks::diffusers_flux_rope_ids,
                                               &blocks::bfl_flux_rope_ids, &blocks::bfl_flux_rope_ids_float64,
                                               &blocks::diffusers_qwen_rope_ids, &blocks::transformers_llama_rope_ids};
  return kPaths;
}

const BlockPath* find_block_path(std::string_view name) {
  const auto paths = all_block_paths();
  const auto found = std::ranges::find(paths, name, &BlockPath::name);
  return found == paths.end() ? nullptr : *found;
}

}  // namespace norma

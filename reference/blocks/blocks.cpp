// The list of blocks.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "reference/blocks/adm.hpp"
#include "reference/blocks/block.hpp"
#include "reference/blocks/dit.hpp"
#include "reference/blocks/embedders.hpp"
#include "reference/blocks/final_layers.hpp"
#include "reference/blocks/flux.hpp"
#include "reference/blocks/flux_autoencoder.hpp"
#include "reference/blocks/llama.hpp"
#include "reference/blocks/qwen_image.hpp"
#include "reference/blocks/qwen_image_autoencoder.hpp"
#include "reference/blocks/rope_ids.hpp"
#include "reference/blocks/wan.hpp"

namespace norma {

std::span<const BlockDef* const> all_blocks() {
  static constexpr const BlockDef* kBlocks[] = {&blocks::dit_block, &blocks::llama_block, &blocks::wan_block,
                                               &blocks::flux_double_block, &blocks::flux_single_block,
                                               &blocks::flux_last_layer, &blocks::qwen_image_block,
                                               &blocks::adm_resblock, &blocks::flux_ae_resnet,
                                               &blocks::flux_ae_attention, &blocks::qwen_vae_residual,
                                               &blocks::timestep_embedding, &blocks::mlp_embedder,
                                               &blocks::flux_vec, &blocks::dit_final_layer,
                                               &blocks::qwen_norm_out, &blocks::rope_from_ids};
  return kBlocks;
}

const BlockDef* find_block(std::string_view name) {
  const auto blocks = all_blocks();
  const auto found = std::ranges::find(blocks, name, &BlockDef::name);
  return found == blocks.end() ? nullptr : *found;
}

std::vector<Stream> streams_of(const BlockDef& block) {
  std::vector<Stream> streams;
  for (const auto& [output, input] : block.streams) streams.push_back({std::string(output), std::string(input)});
  return streams;
}

BlockCall with_defaults(const BlockDef& block, BlockCall call) {
  for (const auto& [name, value] : call.numbers)
    if (std::ranges::find(block.attributes, name, &BlockAttribute::name) == block.attributes.end()) {
      std::string known;
      for (const BlockAttribute& a : block.attributes) known.append(known.empty() ? "" : ", ").append(a.name);
      throw ProgramError("block " + std::string(block.name) + " has no attribute " + name + "; it has " + known);
    }
  for (const BlockAttribute& a : block.attributes)
    call.numbers.try_emplace(std::string(a.name), std::strtod(std::string(a.fallback).c_str(), nullptr));
  return call;
}

std::int64_t whole(const BlockCall& call, std::string_view name) {
  const auto found = call.numbers.find(name);
  const double value = found == call.numbers.end() ? 0 : found->second;
  if (!(value >= 1) || value != std::floor(value) || value > 0x1p31)
    throw ProgramError(std::string(name) + " must be a whole number of at least 1");
  return static_cast<std::int64_t>(value);
}

}  // namespace norma

// One row a tensor of a checkpoint: its name there, and the block's weights that it holds, one below the other.
#include "reference/blocks/layouts.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <iterator>
#include <string>
#include <utility>

namespace norma {

namespace {

/// NAME.weight and NAME.bias of a Linear, or, with `tensor`, one tensor of exactly these names.
struct Row {
  std::string_view there;
  std::array<std::string_view, 4> here;
  bool tensor = false;
};

constexpr Row kDiffusersDouble[] = {
    {"norm1.linear", {"img.mod"}},
    {"attn.to_q", {"img.q"}},
    {"attn.to_k", {"img.k"}},
    {"attn.to_v", {"img.v"}},
    {"attn.norm_q.weight", {"img.q_norm.weight"}, true},
    {"attn.norm_k.weight", {"img.k_norm.weight"}, true},
    {"attn.to_out.0", {"img.proj"}},
    {"ff.net.0.proj", {"img.mlp.0"}},
    {"ff.net.2", {"img.mlp.2"}},
    {"norm1_context.linear", {"txt.mod"}},
    {"attn.add_q_proj", {"txt.q"}},
    {"attn.add_k_proj", {"txt.k"}},
    {"attn.add_v_proj", {"txt.v"}},
    {"attn.norm_added_q.weight", {"txt.q_norm.weight"}, true},
    {"attn.norm_added_k.weight", {"txt.k_norm.weight"}, true},
    {"attn.to_add_out", {"txt.proj"}},
    {"ff_context.net.0.proj", {"txt.mlp.0"}},
    {"ff_context.net.2", {"txt.mlp.2"}},
};

constexpr Row kBflDouble[] = {
    {"img_mod.lin", {"img.mod"}},
    {"img_attn.qkv", {"img.q", "img.k", "img.v"}},
    {"img_attn.norm.query_norm.scale", {"img.q_norm.weight"}, true},
    {"img_attn.norm.key_norm.scale", {"img.k_norm.weight"}, true},
    {"img_attn.proj", {"img.proj"}},
    {"img_mlp.0", {"img.mlp.0"}},
    {"img_mlp.2", {"img.mlp.2"}},
    {"txt_mod.lin", {"txt.mod"}},
    {"txt_attn.qkv", {"txt.q", "txt.k", "txt.v"}},
    {"txt_attn.norm.query_norm.scale", {"txt.q_norm.weight"}, true},
    {"txt_attn.norm.key_norm.scale", {"txt.k_norm.weight"}, true},
    {"txt_attn.proj", {"txt.proj"}},
    {"txt_mlp.0", {"txt.mlp.0"}},
    {"txt_mlp.2", {"txt.mlp.2"}},
};

constexpr Row kDiffusersSingle[] = {
    {"norm.linear", {"mod"}},
    {"attn.to_q", {"q"}},
    {"attn.to_k", {"k"}},
    {"attn.to_v", {"v"}},
    {"attn.norm_q.weight", {"q_norm.weight"}, true},
    {"attn.norm_k.weight", {"k_norm.weight"}, true},
    {"proj_mlp", {"mlp.0"}},
    {"proj_out", {"proj"}},
};

constexpr Row kBflSingle[] = {
    {"modulation.lin", {"mod"}},
    {"linear1", {"q", "k", "v", "mlp.0"}},
    {"norm.query_norm.scale", {"q_norm.weight"}, true},
    {"norm.key_norm.scale", {"k_norm.weight"}, true},
    {"linear2", {"proj"}},
};

// diffusers has the scale first.
constexpr Row kDiffusersLast[] = {{"norm_out.linear", {"scale", "shift"}}, {"proj_out", {"y"}}};
constexpr Row kBflLast[] = {{"adaLN_modulation.1", {"shift", "scale"}}, {"linear", {"y"}}};

constexpr Row kDiffusersQwen[] = {
    {"img_mod.1", {"img.mod"}},
    {"attn.to_q", {"img.q"}},
    {"attn.to_k", {"img.k"}},
    {"attn.to_v", {"img.v"}},
    {"attn.norm_q.weight", {"img.q_norm.weight"}, true},
    {"attn.norm_k.weight", {"img.k_norm.weight"}, true},
    {"attn.to_out.0", {"img.proj"}},
    {"img_mlp.net.0.proj", {"img.mlp.0"}},
    {"img_mlp.net.2", {"img.mlp.2"}},
    {"txt_mod.1", {"txt.mod"}},
    {"attn.add_q_proj", {"txt.q"}},
    {"attn.add_k_proj", {"txt.k"}},
    {"attn.add_v_proj", {"txt.v"}},
    {"attn.norm_added_q.weight", {"txt.q_norm.weight"}, true},
    {"attn.norm_added_k.weight", {"txt.k_norm.weight"}, true},
    {"attn.to_add_out", {"txt.proj"}},
    {"txt_mlp.net.0.proj", {"txt.mlp.0"}},
    {"txt_mlp.net.2", {"txt.mlp.2"}},
};

constexpr Row kDiffusersAdm[] = {
    {"norm1", {"in_layers.0"}},         {"conv1", {"in_layers.2"}},  {"time_emb_proj", {"emb_layers.1"}},
    {"norm2", {"out_layers.0"}},        {"conv2", {"out_layers.3"}}, {"conv_shortcut", {"skip_connection"}},
};
constexpr Row kDiffusersAeResnet[] = {
    {"norm1", {"norm1"}}, {"conv1", {"conv1"}},
    {"norm2", {"norm2"}}, {"conv2", {"conv2"}},
    {"conv_shortcut", {"nin_shortcut"}},
};
constexpr Row kBflAeResnet[] = {
    {"norm1", {"norm1"}}, {"conv1", {"conv1"}},
    {"norm2", {"norm2"}}, {"conv2", {"conv2"}},
    {"nin_shortcut", {"nin_shortcut"}},
};
constexpr Row kBflAeAttention[] = {{"norm", {"norm"}}, {"q", {"q"}}, {"k", {"k"}}, {"v", {"v"}}, {"proj_out", {"proj_out"}}};
// Linears, whose matrices are the block's kernels of one pixel.
constexpr Row kDiffusersAeAttention[] = {
    {"group_norm", {"norm"}}, {"to_q", {"q"}}, {"to_k", {"k"}}, {"to_v", {"v"}}, {"to_out.0", {"proj_out"}},
};

constexpr Row kDiffusersQwenVae[] = {
    {"norm1.gamma", {"norm1.gamma"}, true}, {"conv1", {"conv1"}},
    {"norm2.gamma", {"norm2.gamma"}, true}, {"conv2", {"conv2"}},
    {"conv_shortcut", {"conv_shortcut"}},
};

constexpr Row kDiffusersEmbedder[] = {{"linear_1", {"in_layer"}}, {"linear_2", {"out_layer"}}};
constexpr Row kDiffusersVec[] = {
    {"timestep_embedder.linear_1", {"time_in.in_layer"}},     {"timestep_embedder.linear_2", {"time_in.out_layer"}},
    {"guidance_embedder.linear_1", {"guidance_in.in_layer"}}, {"guidance_embedder.linear_2", {"guidance_in.out_layer"}},
    {"text_embedder.linear_1", {"vector_in.in_layer"}},       {"text_embedder.linear_2", {"vector_in.out_layer"}},
};

struct LayoutTable {
  std::string_view block, layout;
  std::span<const Row> rows;
};
constexpr LayoutTable kTables[] = {
    {"flux_double_block", "diffusers", kDiffusersDouble}, {"flux_double_block", "bfl", kBflDouble},
    {"flux_single_block", "diffusers", kDiffusersSingle}, {"flux_single_block", "bfl", kBflSingle},
    {"flux_last_layer", "diffusers", kDiffusersLast},     {"flux_last_layer", "bfl", kBflLast},
    {"qwen_image_block", "diffusers", kDiffusersQwen},    {"adm_resblock", "diffusers", kDiffusersAdm},
    {"flux_ae_resnet", "diffusers", kDiffusersAeResnet},  {"flux_ae_attention", "diffusers", kDiffusersAeAttention},
    {"flux_ae_resnet", "bfl", kBflAeResnet},              {"flux_ae_attention", "bfl", kBflAeAttention},
    {"qwen_vae_residual", "diffusers", kDiffusersQwenVae}, {"mlp_embedder", "diffusers", kDiffusersEmbedder},
    {"flux_vec", "diffusers", kDiffusersVec},
};

struct Piece {
  std::string there;
  std::vector<const GraphValue*> here;
};

/// Blocks whose own names are a layout's.
struct OwnNames {
  std::string_view block, layout;
};
constexpr OwnNames kOwnNames[] = {{"wan_block", "diffusers"}, {"qwen_norm_out", "diffusers"},
                                  {"mlp_embedder", "bfl"}, {"flux_vec", "bfl"}};

bool has_own_names(const Graph& block, std::string_view layout) {
  return layout == "norma" || std::ranges::any_of(kOwnNames, [&](const OwnNames& own) { return own.block == block.block && own.layout == layout; });
}

std::span<const Row> rows_of(const Graph& block, std::string_view layout) {
  const auto* table =
      std::ranges::find_if(kTables, [&](const LayoutTable& t) { return t.block == block.block && t.layout == layout; });
  if (table != std::end(kTables)) return table->rows;
  std::string known = "norma";
  for (const std::string_view name : layouts_of(block.block)) known.append(", ").append(name);
  throw ProgramError("block " + block.block + " has no layout " + std::string(layout) + "; it has " + known);
}

std::vector<Piece> pieces_of(const Graph& block, std::string_view layout) {
  std::vector<Piece> pieces;
  if (has_own_names(block, layout)) {
    for (const GraphInput& input : block.inputs)
      if (input.weight) pieces.push_back({.there = input.value.name, .here = {&input.value}});
    return pieces;
  }
  for (const Row& row : rows_of(block, layout))
    for (const std::string_view end : {".weight", ".bias"}) {
      if (row.tensor && end == ".bias") continue;
      const std::string suffix(row.tensor ? "" : end);
      Piece piece{.there = std::string(row.there) + suffix, .here = {}};
      for (const std::string_view name : row.here)
        if (!name.empty()) piece.here.push_back(block.find(std::string(name) + suffix));
      // Some weights a block has or has not: a convolution beside it.
      if (std::ranges::find(piece.here, nullptr) == piece.here.end()) pieces.push_back(std::move(piece));
    }
  return pieces;
}

/// 7 of "model.layers.7."; 0 where there is none.
std::uint64_t last_number(std::string_view prefix) {
  constexpr std::string_view kDigits = "0123456789";
  const std::size_t last = prefix.find_last_of(kDigits);
  if (last == std::string_view::npos) return 0;
  const std::size_t before = prefix.find_last_not_of(kDigits, last);
  const std::size_t first = before == std::string_view::npos ? 0 : before + 1;
  std::uint64_t number = 0;
  std::from_chars(prefix.data() + first, prefix.data() + last + 1, number);
  return number;
}

/// What stands before a block's names: of each block that has the layout's first tensor.
std::vector<std::string> prefixes_of(const Piece& first, const Tensors& given) {
  std::vector<std::string> prefixes;
  for (const auto& [name, tensor] : given) {
    const std::size_t length = name.size() - std::min(name.size(), first.there.size());
    if (name.ends_with(first.there) && (length == 0 || name[length - 1] == '.')) prefixes.push_back(name.substr(0, length));
  }
  std::ranges::stable_sort(prefixes, {}, last_number);
  return prefixes;
}

Shape joined_shape(const Piece& piece) {
  Shape shape = piece.here.front()->shape;
  for (std::size_t k = 1; k < piece.here.size(); ++k) shape[0] += piece.here[k]->shape[0];
  return shape;
}

/// A matrix is a kernel of one pixel.
bool is_same_but_for_ones(Shape a, Shape b) {
  for (Shape* shape : {&a, &b})
    while (shape->size() > 2 && shape->back() == 1) shape->pop_back();
  return a == b;
}

void cut(const Piece& piece, const Tensor& whole, Tensors& weights) {
  auto from = whole.bytes.begin();
  for (const GraphValue* value : piece.here) {
    Tensor part = Tensor::zeros(whole.format, value->shape);
    const auto size = static_cast<std::ptrdiff_t>(part.bytes.size());
    std::copy(from, from + size, part.bytes.begin());
    from += size;
    weights[value->name] = std::move(part);
  }
}

}  // namespace

std::vector<std::string_view> layouts_of(std::string_view block) {
  std::vector<std::string_view> names;
  for (const LayoutTable& table : kTables)
    if (table.block == block) names.push_back(table.layout);
  for (const OwnNames& own : kOwnNames)
    if (own.block == block) names.push_back(own.layout);
  return names;
}

Tensors from_layout(const Graph& block, std::string_view layout, const Tensors& given, std::string_view prefix) {
  Tensors weights;
  std::vector<std::string> used;
  for (const Piece& piece : pieces_of(block, layout)) {
    const std::string name = std::string(prefix) + piece.there;
    const auto found = given.find(name);
    if (found == given.end())
      throw ProgramError("layout " + std::string(layout) + " of " + block.block + " has a tensor " + name +
                         ", which is missing");
    const Shape shape = joined_shape(piece);
    if (!is_same_but_for_ones(found->second.shape, shape))
      throw ProgramError("tensor " + name + " must be " + shape_text(shape) + ", got " +
                         shape_text(found->second.shape));
    cut(piece, found->second, weights);
    used.push_back(name);
  }
  for (const auto& [name, tensor] : given) {
    const bool own =
        std::ranges::any_of(block.inputs, [&](const GraphInput& i) { return !i.weight && i.value.name == name; });
    if (own)
      weights[name] = tensor;
    else if (name.starts_with(prefix) && std::ranges::find(used, name) == used.end())
      throw ProgramError("tensor " + name + " is none that layout " + std::string(layout) + " of " + block.block +
                         " has");
  }
  return weights;
}

Tensors stack_from_layout(const Graph& block, int count, std::string_view layout, const Tensors& given) {
  const std::vector<Piece> pieces = pieces_of(block, layout);
  const std::vector<std::string> prefixes = pieces.empty() ? std::vector<std::string>{} : prefixes_of(pieces.front(), given);
  const bool plain = prefixes.empty() || prefixes.front().empty();
  if (count == 1 && plain) return from_layout(block, layout, given);  // which names what is missing
  if (prefixes.size() != static_cast<std::size_t>(count)) {
    std::string found;
    for (const std::string& prefix : prefixes) found.append(found.empty() ? "" : ", ").append(prefix.empty() ? "''" : prefix);
    throw ProgramError("layout " + std::string(layout) + " of " + block.block + ": " + std::to_string(count) +
                       (count == 1 ? " block is" : " blocks are") + " asked for, and the tensors are of " +
                       std::to_string(prefixes.size()) + (found.empty() ? "" : ", with the prefixes " + found));
  }
  if (count == 1) return from_layout(block, layout, given, prefixes.front());
  Tensors weights;
  for (std::size_t k = 0; k < prefixes.size(); ++k)
    for (auto& [name, tensor] : from_layout(block, layout, given, prefixes[k])) {
      const auto input = std::ranges::find(block.inputs, name, [](const GraphInput& i) { return i.value.name; });
      weights[input->weight ? std::to_string(k) + "." + name : name] = std::move(tensor);
    }
  return weights;
}

}  // namespace norma

// guided-diffusion's ResBlock in a torso of T (convert_module_to_f16 casts convolutions alone: GroupNorms, the
// embedding and its Linear stay fp32), and diffusers' ResnetBlock2D, every tensor in T.
#include "impls/cast_paths/adm_block.hpp"

#include "impls/cast_paths/image_steps.hpp"

namespace norma::blocks {

namespace {

struct ResblockCode {
  std::string_view path, first_norm;
  std::string_view modulated, second_norm;  ///< with scale_shift, and after the embedding was added
  bool fp32_embedding;                      ///< emb, its Linear and the parameters of norms are fp32
};
constexpr ResblockCode kAdm{.path = "openai.adm.resblock",
                            .first_norm = "guided_diffusion.group_norm_32",
                            .modulated = "guided_diffusion.resblock.scale_shift",
                            .second_norm = "guided_diffusion.group_norm_32",
                            .fp32_embedding = true};
constexpr ResblockCode kDiffusers{.path = "diffusers.unet.resnet_block",
                                  .first_norm = "torch.group_norm.cpu",
                                  .modulated = "diffusers.resnet.norm2.scale_shift",
                                  .second_norm = "torch.group_norm.cpu",
                                  .fp32_embedding = false};

template <const ResblockCode& code>
Graph build(const BlockBinding& binding) {
  const std::int64_t out = channels_out_of(binding, code.path, 4), batch = binding.x[0], in = binding.x[1];
  const auto given = static_cast<std::int64_t>(binding.numbers.at("emb"));
  const std::int64_t width = given == 0 ? 4 * in : given;
  const bool scale_shift = binding.numbers.at("scale_shift") == 1;
  PathBuilder p(binding, "adm_resblock");
  const FormatId kept = code.fp32_embedding ? FormatId::fp32 : p.format();
  const Value x = p.input("x", binding.x), emb = p.g.input("emb", {batch, width}, kept);

  const Value first = p.silu("in_layers.1", group_norm(p, "in_layers.0", code.first_norm, x, kept));
  const Value h = convolution(p, "in_layers.2", first, out, 3);
  const std::int64_t values = scale_shift ? 2 * out : out;
  const Value weight = p.g.weight("emb_layers.1.weight", {values, width}, kept),
              bias = p.g.weight("emb_layers.1.bias", {values}, kept);
  const LinearSite linear{.sum = {.order = ProductOrder::sequential}, .rounding = {.format = FormatRef{kept}}};
  const Value own = p.g.linear("emb_layers.1", linear, p.silu("emb_layers.0", emb), weight, bias);
  const Value e = cast(p, "emb_out", own, p.format());
  Value n;
  if (scale_shift) {
    const auto parts = p.g.chunk("modulation", e, 1, 2);
    n = group_norm(p, "out_layers.0", code.modulated, h, kept, {{"scale", parts[0]}, {"shift", parts[1]}});
  } else {
    n = group_norm(p, "out_layers.0", code.second_norm, eager_add_to_channels(p, "h_emb", h, e), kept);
  }
  const Value f = convolution(p, "out_layers.3", p.silu("out_layers.1", n), out, 3);
  p.g.output(eager_add(p, "y", out == in ? x : convolution(p, "skip_connection", x, out, 1), f));
  return p.g.finish();
}

}  // namespace

constinit const BlockPath openai_adm_resblock{
    .name = "openai.adm.resblock",
    .title = "ResBlock, no up or down: convolutions in T, GroupNorm32 and embedding in fp32, each with one cast to T",
    .block = "adm_resblock",
    .source = {"openai/guided-diffusion", "guided_diffusion/unet.py:143-258, fp16_util.py:convert_module_to_f16",
               "22e0df8", "read"},
    .build = build<kAdm>,
};

constinit const BlockPath diffusers_unet_resnet_block{
    .name = "diffusers.unet.resnet_block",
    .title = "ResnetBlock2D with an embedding, scale_shift or default, output_scale_factor 1: every tensor in T",
    .block = "adm_resblock",
    .source = {"huggingface/diffusers", "src/diffusers/models/resnet.py", "v0.42.1", "read"},
    .build = build<kDiffusers>,
};

}  // namespace norma::blocks

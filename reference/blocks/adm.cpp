// Dhariwal & Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021: the residual block with adaptive GroupNorm,
// and its older form, which adds the embedding.
#include "reference/blocks/adm.hpp"

#include "reference/blocks/image_formulas.hpp"

namespace norma::blocks {

namespace {

constexpr BlockAttribute kAttributes[] = {
    {"channels_out", "0", "channels of y; 0: as many as x has, and no convolution beside the block"},
    {"groups", "32", "of both GroupNorms; they divide both numbers of channels"},
    {"emb", "0", "the embedding's width; 0: four times x's channels"},
    {"scale_shift", "1", "1: the embedding modulates the second norm; 0: it is added before it"},
    {"eps", "1e-5", "of both GroupNorms"},
};

Graph build(const BlockCall& call) {
  const std::int64_t groups = whole(call, "groups");
  const ImageChannels channels = image_channels("adm_resblock", call, 4, groups);
  const std::int64_t batch = call.x[0], out = channels.out;
  const std::int64_t width = call.numbers.at("emb") == 0 ? 4 * channels.in : whole(call, "emb");
  const double eps = call.numbers.at("eps"), form = call.numbers.at("scale_shift");
  if (form != 0 && form != 1) throw ProgramError("scale_shift must be 0 or 1");

  GraphBuilder g("adm_resblock");
  const Value x = g.input("x", call.x), emb = g.input("emb", {batch, width});
  const Value first = silu(g, "in_layers.1", groupnorm(g, "in_layers.0", x, groups, eps));
  const Value h = convolution(g, "in_layers.2", first, out, 3);
  const std::int64_t given = form == 1 ? 2 * out : out;
  const Value weight = g.weight("emb_layers.1.weight", {given, width}), bias = g.weight("emb_layers.1.bias", {given});
  const Value e = g.linear("emb_layers.1", {}, silu(g, "emb_layers.0", emb), weight, bias);
  Value n;
  if (form == 1) {
    const auto parts = g.chunk("modulation", e, 1, 2);
    n = groupnorm(g, "out_layers.0", h, groups, eps, ChannelModulation{.scale = parts[0], .shift = parts[1]});
  } else {
    n = groupnorm(g, "out_layers.0", add_to_channels(g, "h_emb", h, e), groups, eps);
  }
  const Value f = convolution(g, "out_layers.3", silu(g, "out_layers.1", n), out, 3);
  const Value skip = out == channels.in ? x : convolution(g, "skip_connection", x, out, 1);
  g.output(add(g, "y", skip, f));
  return g.finish();
}

}  // namespace

constinit const BlockDef adm_resblock{
    .name = "adm_resblock",
    .title = "ADM residual block of convolutions under an embedding of time and class",
    .formula =
        "h = conv(silu(GN(x))); e = Linear(silu(emb)); y = skip(x) + conv(silu(n)); with scale_shift s, t = e and "
        "n = GN(h) (1 + s) + t, without n = GN(h + e)",
    .source = "Dhariwal, Nichol, arXiv:2105.05233; openai/guided-diffusion unet.py 22e0df8",
    .attributes = kAttributes,
    .build = build,
};

}  // namespace norma::blocks

// The autoencoder of FLUX.1, whose blocks are those of latent diffusion (Rombach et al., 2022), from its first code.
#include "reference/blocks/flux_autoencoder.hpp"

#include "reference/blocks/image_formulas.hpp"

namespace norma::blocks {

namespace {

constexpr BlockAttribute kResnet[] = {
    {"channels_out", "0", "channels of y; 0: as many as x has, and no convolution beside the block"},
    {"groups", "32", "of both GroupNorms; they divide both numbers of channels"},
    {"eps", "1e-6", "of both GroupNorms"},
};
constexpr BlockAttribute kAttention[] = {
    {"groups", "32", "of the GroupNorm; they divide the channels"},
    {"eps", "1e-6", "of the GroupNorm"},
};

Graph build_resnet(const BlockCall& call) {
  const std::int64_t groups = whole(call, "groups");
  const ImageChannels channels = image_channels("flux_ae_resnet", call, 4, groups);
  const double eps = call.numbers.at("eps");
  GraphBuilder g("flux_ae_resnet");
  const Value x = g.input("x", call.x);
  Value h = silu(g, "swish1", groupnorm(g, "norm1", x, groups, eps));
  h = convolution(g, "conv1", h, channels.out, 3);
  h = silu(g, "swish2", groupnorm(g, "norm2", h, groups, eps));
  h = convolution(g, "conv2", h, channels.out, 3);
  const Value skip = channels.out == channels.in ? x : convolution(g, "nin_shortcut", x, channels.out, 1);
  g.output(add(g, "y", skip, h));
  return g.finish();
}

Graph build_attention(const BlockCall& call) {
  const std::int64_t groups = whole(call, "groups");
  const ImageChannels channels = image_channels("flux_ae_attention", call, 4, groups);
  const Shape& s = call.x;
  const std::int64_t pixels = s[2] * s[3];
  GraphBuilder g("flux_ae_attention");
  const Value x = g.input("x", s), n = groupnorm(g, "norm", x, groups, call.numbers.at("eps"));
  const auto rows = [&](const std::string& name) {
    const Value image = convolution(g, name, n, channels.in, 1);
    const Value columns = g.reshape(name + ".columns", image, {s[0], 1, channels.in, pixels});
    return g.permute(name + ".rows", columns, {0, 1, 3, 2});
  };
  const Value q = rows("q"), k = rows("k"), v = rows("v");
  const Value a = g.permute("attention.columns", g.attention("attention", {}, q, k, v), {0, 1, 3, 2});
  g.output(add(g, "y", x, convolution(g, "proj_out", g.reshape("attention.image", a, s), channels.in, 1)));
  return g.finish();
}

constexpr std::string_view kSource =
    "black-forest-labs/flux src/flux/modules/autoencoder.py 802fb47; Rombach et al., arXiv:2112.10752";

}  // namespace

constinit const BlockDef flux_ae_resnet{
    .name = "flux_ae_resnet",
    .title = "residual block of FLUX.1's autoencoder",
    .formula = "y = skip(x) + conv(silu(GN(conv(silu(GN(x))))))",
    .source = kSource,
    .attributes = kResnet,
    .build = build_resnet,
};

constinit const BlockDef flux_ae_attention{
    .name = "flux_ae_attention",
    .title = "attention block of FLUX.1's autoencoder: one head over all pixels",
    .formula = "y = x + Wo attention(Wq n, Wk n, Wv n), n = GN(x), W of each pixel's channels",
    .source = kSource,
    .attributes = kAttention,
    .build = build_attention,
};

}  // namespace norma::blocks

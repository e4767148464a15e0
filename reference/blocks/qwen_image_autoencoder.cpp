// The causal autoencoder of Wan (arXiv:2503.20314) and Qwen-Image (arXiv:2508.02324): norms of each pixel's channels,
// convolutions of each frame and the two before it.
#include "reference/blocks/qwen_image_autoencoder.hpp"

#include "reference/blocks/image_formulas.hpp"
#include "reference/program/causal_convolution.hpp"

namespace norma::blocks {

namespace {

constexpr BlockAttribute kAttributes[] = {
    {"channels_out", "0", "channels of y; 0: as many as x has, and no convolution beside the block"},
    {"eps", "1e-12", "what a pixel's length is at least"},
};

/// sqrt(C) x / max(|x|, eps) gamma along the last axis.
Value channel_norm(GraphBuilder& g, const std::string& name, Value x, double eps) {
  const std::int64_t channels = g.shape(x).back();
  const Value gamma = g.reshape(name + ".gamma.row", g.weight(name + ".gamma", {channels, 1, 1, 1}), {channels});
  return formula(g, name,
                 "norm rmsnorm\n"
                 "in x:T weight:fp64 eps\n"
                 "ss = sum fp64 square(x) order=exact\n"
                 "length = sqrt exact ss\n"
                 "divisor = max exact length, eps\n"
                 "unit = div exact x, divisor\n"
                 "out y = mul exact unit * sqrt(N), weight\n",
                 {{"x", x}, {"weight", gamma}}, {{"eps", eps}});
}

/// [B, T, C, H, W]
Value causal(GraphBuilder& g, const std::string& name, Value x, std::int64_t out, std::int64_t side) {
  const Value weight = g.weight(name + ".weight", {out, g.shape(x)[2], side, side, side});
  return causal_convolution(g, name, {.padding = {side / 2, side / 2}}, x, weight, g.weight(name + ".bias", {out}));
}

Graph build(const BlockCall& call) {
  const ImageChannels channels = image_channels("qwen_vae_residual", call, 5, 0);
  const double eps = call.numbers.at("eps");
  GraphBuilder g("qwen_vae_residual");
  const Value x = g.input("x", call.x), frames = g.permute("x.frames", x, {0, 2, 1, 3, 4});
  // Channels last for a norm and its activation, third for a convolution.
  const auto layer = [&](const std::string& number, Value from) {
    const Value pixels = g.permute("norm" + number + ".pixels", from, {0, 1, 3, 4, 2});
    const Value a = silu(g, "silu" + number, channel_norm(g, "norm" + number, pixels, eps));
    return causal(g, "conv" + number, g.permute("silu" + number + ".frames", a, {0, 1, 4, 2, 3}), channels.out, 3);
  };
  const Value h = g.permute("h", layer("2", layer("1", frames)), {0, 2, 1, 3, 4});
  const auto skip = [&] {
    return g.permute("skip", causal(g, "conv_shortcut", frames, channels.out, 1), {0, 2, 1, 3, 4});
  };
  g.output(add(g, "y", h, channels.out == channels.in ? x : skip()));
  return g.finish();
}

}  // namespace

constinit const BlockDef qwen_vae_residual{
    .name = "qwen_vae_residual",
    .title = "residual block of Qwen-Image's and Wan's autoencoder: causal convolutions of several frames",
    .formula =
        "y = conv(silu(N(conv(silu(N(x)))))) + skip(x); N(x) = sqrt(C) gamma x / max(|x|, eps) of each pixel's "
        "channels; conv of each frame and the two before it, zeros before the first",
    .source = "Wan team, arXiv:2503.20314; huggingface/diffusers autoencoder_kl_qwenimage.py 58eb52c",
    .attributes = kAttributes,
    .build = build,
};

}  // namespace norma::blocks

// diffusers' QwenImageResidualBlock and WanResidualBlock, the same lines, every tensor in T. With its cache of frames
// the code gives a convolution the frames before a part of a film, without it zeros before the whole: the same
// function.
#include "impls/cast_paths/qwen_image_autoencoder_block.hpp"
#include "impls/cast_paths/image_steps.hpp"
#include "reference/program/causal_convolution.hpp"

namespace norma::blocks {

namespace {

constexpr std::string_view kPath = "diffusers.qwen_vae.residual";

Graph build(const BlockBinding& binding) {
  const std::int64_t out = channels_out_of(binding, kPath, 5), in = binding.x[1];
  const Attributes eps{{"eps", binding.numbers.at("eps")}};
  PathBuilder p(binding, "qwen_vae_residual");
  GraphBuilder& g = p.g;
  const Value x = p.input("x", binding.x), frames = g.permute("x.frames", x, {0, 2, 1, 3, 4});
  const auto causal = [&](const std::string& name, Value from, std::int64_t side) {
    const ConvolutionSite site{.padding = {side / 2, side / 2},
                               .sum = {.order = ProductOrder::sequential},
                               .rounding = {.format = FormatRef{p.format()}}};
    const Value weight = p.weight(name + ".weight", {out, g.shape(from)[2], side, side, side});
    return causal_convolution(g, name, site, from, weight, p.weight(name + ".bias", {out}));
  };
  const auto layer = [&](const std::string& number, Value from) {
    const std::int64_t channels = g.shape(from)[2];
    const std::string norm = "norm" + number, silu = "silu" + number;
    const Value gamma = g.reshape(norm + ".gamma.row", p.weight(norm + ".gamma", {channels, 1, 1, 1}), {channels});
    const Value pixels = g.permute(norm + ".pixels", from, {0, 1, 3, 4, 2});
    const Value n = p.by_path(norm, "diffusers.qwen_image_vae.rms_norm", {{"x", pixels}, {"weight", gamma}}, eps);
    return causal("conv" + number, g.permute(silu + ".frames", p.silu(silu, n), {0, 1, 4, 2, 3}), 3);
  };
  const Value h = g.permute("h", layer("2", layer("1", frames)), {0, 2, 1, 3, 4});
  const auto skip = [&] { return g.permute("skip", causal("conv_shortcut", frames, 1), {0, 2, 1, 3, 4}); };
  g.output(eager_add(p, "y", h, out == in ? x : skip()));
  return g.finish();
}

}  // namespace

constinit const BlockPath diffusers_qwen_vae_residual{
    .name = kPath,
    .title =
        "QwenImageResidualBlock and WanResidualBlock since 5fc2bd2: norms in fp32 with three roundings to T, all else "
        "in T",
    .block = "qwen_vae_residual",
    .source = {"huggingface/diffusers", "src/diffusers/models/autoencoders/autoencoder_kl_qwenimage.py", "v0.42.1",
               "read"},
    .build = build,
};

}  // namespace norma::blocks

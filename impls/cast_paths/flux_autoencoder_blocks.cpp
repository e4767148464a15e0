// FLUX.1's autoencoder: its first code keeps fp32 parameters and runs under autocast, which has group_norm in its fp32
// list and casts what convolutions take; diffusers' AutoencoderKL has every tensor in T.
#include "impls/cast_paths/flux_autoencoder_blocks.hpp"

#include "impls/cast_paths/image_steps.hpp"

namespace norma::blocks {

namespace {

// The stream is in T, as a convolution leaves it; GroupNorm and x * torch.sigmoid(x) are in fp32.
Graph build_bfl_resnet(const BlockBinding& binding) {
  const std::int64_t out = channels_out_of(binding, "bfl.flux_ae.resnet", 4);
  PathBuilder p(binding, "flux_ae_resnet");
  const Value x = p.input("x", binding.x);
  const auto layer = [&](const std::string& number, Value from) {
    const Value n = group_norm(p, "norm" + number, "bfl.flux.autoencoder.group_norm", from, FormatId::fp32);
    return autocast_convolution(p, "conv" + number, p.by_path("swish" + number, "timm.swish", {{"x", n}}), out, 3);
  };
  const Value h = layer("2", layer("1", x));
  p.g.output(eager_add(p, "y", out == binding.x[1] ? x : autocast_convolution(p, "nin_shortcut", x, out, 1), h));
  return p.g.finish();
}

Graph build_diffusers_resnet(const BlockBinding& binding) {
  const std::int64_t out = channels_out_of(binding, "diffusers.flux_ae.resnet", 4);
  PathBuilder p(binding, "flux_ae_resnet");
  const Value x = p.input("x", binding.x);
  const auto layer = [&](const std::string& number, Value from) {
    const Value n = group_norm(p, "norm" + number, "diffusers.vae.group_norm", from, p.format());
    return convolution(p, "conv" + number, p.silu("swish" + number, n), out, 3);
  };
  const Value h = layer("2", layer("1", x));
  p.g.output(eager_add(p, "y", out == binding.x[1] ? x : convolution(p, "nin_shortcut", x, out, 1), h));
  return p.g.finish();
}

Graph build_bfl_attention(const BlockBinding& binding) {
  channels_out_of(binding, "bfl.flux_ae.attention", 4);
  const Shape& s = binding.x;
  PathBuilder p(binding, "flux_ae_attention");
  const Value x = p.input("x", s);
  const Value n = group_norm(p, "norm", "bfl.flux.autoencoder.group_norm", x, FormatId::fp32);
  const auto rows = [&](const std::string& name) {
    const Value image = autocast_convolution(p, name, n, s[1], 1);
    return p.g.permute(name + ".rows", p.g.reshape(name + ".columns", image, {s[0], 1, s[1], s[2] * s[3]}),
                       {0, 1, 3, 2});
  };
  const Value q = rows("q"), k = rows("k"), v = rows("v");
  const Value a = p.g.permute("attention.columns", p.attention("attention", q, k, v), {0, 1, 3, 2});
  p.g.output(eager_add(p, "y", x, autocast_convolution(p, "proj_out", p.g.reshape("attention.image", a, s), s[1], 1)));
  return p.g.finish();
}

// Linear layers of pixels as rows; the block's kernels of one pixel are their matrices. What q, k and v take is a
// transposed view, of which torch's linear makes a product, stored, and an addition of the bias; proj_out takes a
// contiguous tensor.
Graph build_diffusers_attention(const BlockBinding& binding) {
  channels_out_of(binding, "diffusers.flux_ae.attention", 4);
  const Shape& s = binding.x;
  const std::int64_t channels = s[1], pixels = s[2] * s[3];
  PathBuilder p(binding, "flux_ae_attention");
  const Value x = p.input("x", s), n = group_norm(p, "norm", "diffusers.vae.group_norm", x, p.format());
  const Value rows = p.g.permute("norm.rows", p.g.reshape("norm.columns", n, {s[0], channels, pixels}), {0, 2, 1});
  const auto linear = [&](const std::string& name, Value from, BiasPlace bias) {
    const Value weight =
        p.g.reshape(name + ".matrix", p.weight(name + ".weight", {channels, channels, 1, 1}), {channels, channels});
    const LinearSite site{
        .sum = {.order = ProductOrder::sequential}, .bias = bias, .rounding = {.format = FormatRef{p.format()}}};
    return p.g.linear(name, site, from, weight, p.weight(name + ".bias", {channels}));
  };
  const auto head = [&](const std::string& name) {
    return p.g.reshape(name + ".head", linear(name, rows, BiasPlace::after), {s[0], 1, pixels, channels});
  };
  const Value q = head("q"), k = head("k"), v = head("v");
  const Value a = p.g.reshape("attention.rows", p.attention("attention", q, k, v), {s[0], pixels, channels});
  const Value f = p.g.reshape(
      "proj_out.image", p.g.permute("proj_out.columns", linear("proj_out", a, BiasPlace::epilogue), {0, 2, 1}), s);
  p.g.output(eager_add(p, "y", f, x));
  return p.g.finish();
}

constexpr PathSource kBfl{"black-forest-labs/flux", "src/flux/modules/autoencoder.py", "802fb47", "read"};

}  // namespace

constinit const BlockPath bfl_flux_ae_resnet{
    .name = "bfl.flux_ae.resnet",
    .title =
        "ResnetBlock under autocast: GroupNorm and swish in fp32, convolutions and the stream in T; fp32 parameters",
    .block = "flux_ae_resnet",
    .source = kBfl,
    .build = build_bfl_resnet,
};

constinit const BlockPath bfl_flux_ae_attention{
    .name = "bfl.flux_ae.attention",
    .title =
        "AttnBlock under autocast: GroupNorm in fp32, convolutions, attention and the stream in T; fp32 parameters",
    .block = "flux_ae_attention",
    .source = kBfl,
    .build = build_bfl_attention,
};

constinit const BlockPath diffusers_flux_ae_resnet{
    .name = "diffusers.flux_ae.resnet",
    .title = "AutoencoderKL's ResnetBlock2D without an embedding, eps 1e-6: every tensor in T",
    .block = "flux_ae_resnet",
    .source = {"huggingface/diffusers", "src/diffusers/models/resnet.py", "v0.42.1", "read"},
    .build = build_diffusers_resnet,
};

constinit const BlockPath diffusers_flux_ae_attention{
    .name = "diffusers.flux_ae.attention",
    .title = "AutoencoderKL's Attention with AttnProcessor2_0: Linears of pixels as rows; every tensor in T",
    .block = "flux_ae_attention",
    .source = {"huggingface/diffusers", "src/diffusers/models/attention_processor.py", "v0.42.1", "read"},
    .build = build_diffusers_attention,
};

}  // namespace norma::blocks

"""Records real blocks of convolutions site by site: residual and attention blocks of diffusion models and autoencoders.

    python capture_blocks_images.py tests/golden/captures

* blocks_adm: guided-diffusion's ResBlock, whose class no package has: its lines (unet.py 22e0df8) as torch operations, with
  convolutions in T and all else in fp32, as convert_module_to_f16 leaves them; and diffusers' ResnetBlock2D, the same function
  with every tensor in T. With scale_shift and without.
* blocks_flux_ae: FLUX's autoencoder. autoencoder.py (802fb47) runs under CUDA's autocast, which this machine cannot: its lines
  as torch operations, with the casts that autocast's lists say written out; and diffusers' ResnetBlock2D and Attention as
  AutoencoderKL has them.
* blocks_qwen_vae: diffusers' QwenImageResidualBlock on a film of several frames. WanResidualBlock gives the same bits.

As capture_blocks.py: seeded and small weights, one file a block and dtype, one thread.
"""
import os
import sys

import torch
import torch.nn.functional as F
from torch import nn

from capture_blocks import Draw, Sites
from recording import DTYPES, Recording

SEED = 21


def fill(draw, module):
    """Linears and kernels that keep the size of what they are given, factors of norms around 1, small biases."""
    for name, parameter in module.named_parameters():
        shape = tuple(parameter.shape)
        depth = parameter.numel() // shape[0]
        if depth > 1:
            values = draw(*shape, deviation=depth ** -0.5)
        elif name.endswith("bias"):
            values = draw(*shape, deviation=0.1)
        else:
            values = draw(*shape, deviation=0.2, mean=1.0)
        with torch.no_grad():
            parameter.copy_(values)
    return module.eval().requires_grad_(False)


def images(draw, batch, channels, *sides):
    """With a channel that is larger than the others and one far from 0."""
    x = draw(batch, channels, *sides)
    x[:, 3] *= 20
    x[:, 5] += 9
    return x


def keep_all(recording, prefix, tensors):
    return {name: recording.keep(f"{prefix}.{name}", tensor) for name, tensor in tensors.items()}


def hand_over(recording, call, block, operator, given, sites, attributes, path):
    # Strides are not recorded: a block of contiguous tensors stores contiguous ones.
    recording.call(call, block, operator, given, sites.values, attributes, path=path)


# ---- ADM ----

ADM = {"in": 16, "out": 24, "groups": 4, "emb": 20, "eps": 1e-5}
ADM_NAMES = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
             "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}


def adm_class(scale_shift):
    from diffusers.models.resnet import ResnetBlock2D
    return ResnetBlock2D(in_channels=ADM["in"], out_channels=ADM["out"], temb_channels=ADM["emb"], groups=ADM["groups"],
                         eps=ADM["eps"], time_embedding_norm="scale_shift" if scale_shift else "default")


def adm_parameters(block):
    named = {}
    for name, parameter in block.named_parameters():
        part, kind = name.rsplit(".", 1)
        named[f"{ADM_NAMES[part]}.{kind}"] = parameter.detach()
    return named


def adm_lines(w, x, emb, scale_shift, sites):
    def kept(name, value):
        sites.keep(name, value)
        return value

    def conv(name, value, padding=1):
        return kept(name, F.conv2d(value, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding))

    def norm32(name, value):
        own = F.group_norm(value.float(), ADM["groups"], w[f"{name}.weight"], w[f"{name}.bias"], ADM["eps"])
        return own.type(value.dtype)
    h = conv("in_layers.2", kept("in_layers.1", F.silu(kept("in_layers.0", norm32("in_layers.0", x)))))
    activated = kept("emb_layers.0", F.silu(emb))
    out = kept("emb_layers.1", F.linear(activated, w["emb_layers.1.weight"], w["emb_layers.1.bias"]))
    if h.dtype != out.dtype:
        out = kept("emb_out", out.type(h.dtype))
    out = out[..., None, None]
    if scale_shift:
        scale, shift = torch.chunk(out, 2, dim=1)
        n = kept("out_layers.0", norm32("out_layers.0", h) * (1 + scale) + shift)
    else:
        n = kept("out_layers.0", norm32("out_layers.0", kept("h_emb", h + out)))
    f = conv("out_layers.3", kept("out_layers.1", F.silu(n)))
    kept("y", conv("skip_connection", x, 0) + f)


def watch_adm(block, scale_shift, sites):
    calls = []

    def activated(module, args, y):
        calls.append(len(calls))
        if len(calls) == 3 and scale_shift:
            sites.keep("out_layers.0", args[0])
        sites.keep(("in_layers.1", "emb_layers.0", "out_layers.1")[calls[-1]], y)
    sites.undo.append(block.nonlinearity.register_forward_hook(activated).remove)
    for part, site in ADM_NAMES.items():
        if part == "norm2" and scale_shift:
            continue
        sites.output(site, getattr(block, part))
    if not scale_shift:
        sites.undo.append(block.norm2.register_forward_pre_hook(lambda m, args: sites.keep("h_emb", args[0])).remove)
    sites.output("y", block)


def adm(recording, dtype, draw):
    x, emb = images(draw, 2, ADM["in"], 4, 5).to(dtype), draw(2, ADM["emb"])
    kept_x, kept_emb = recording.keep("x", x), recording.keep("emb.fp32", emb)
    emb_in_t = kept_emb if dtype == torch.float32 else recording.keep("emb", emb.to(dtype))
    blocks = {True: fill(draw, adm_class(True)), False: fill(draw, adm_class(False))}
    for name in ("conv1", "conv2", "conv_shortcut"):
        getattr(blocks[False], name).load_state_dict(getattr(blocks[True], name).state_dict())
    kernels = {}
    for scale_shift, block in blocks.items():
        form = "scale_shift" if scale_shift else "additive"
        attributes = {"channels_out": ADM["out"], "groups": ADM["groups"], "emb": ADM["emb"], "eps": ADM["eps"],
                      "scale_shift": int(scale_shift)}
        full = adm_parameters(block)
        halved = adm_parameters(block.to(dtype))
        if not kernels:
            kernels = keep_all(recording, "w", {k: v for k, v in halved.items() if v.dim() == 4 or k.startswith("skip")
                                                or k in ("in_layers.2.bias", "out_layers.3.bias")})
        rest = {k: v for k, v in halved.items() if k not in kernels}
        rest_in_t = keep_all(recording, f"{form}.w", rest)
        rest_full = rest_in_t if dtype == torch.float32 else keep_all(
            recording, f"{form}.w.fp32", {k: full[k] for k in rest})
        sites = Sites()
        with torch.inference_mode():
            adm_lines(kernels | rest_full, kept_x, kept_emb, scale_shift, sites)
        given = {"x": kept_x, "emb": kept_emb} | kernels | rest_full
        hand_over(recording, f"adm.{form}.lines", "adm_resblock", "guided-diffusion ResBlock as torch operations", given,
                  sites, attributes, "openai.adm.resblock")
        sites = Sites()
        watch_adm(block, scale_shift, sites)
        with sites.listening():
            block(kept_x, emb_in_t)
        given = {"x": kept_x, "emb": emb_in_t} | kernels | rest_in_t
        hand_over(recording, f"adm.{form}.class", "adm_resblock", "diffusers ResnetBlock2D", given, sites, attributes,
                  "diffusers.unet.resnet_block")


# ---- FLUX's autoencoder ----

AE = {"in": 16, "out": 24, "groups": 4, "eps": 1e-6}


def autocast_conv(w, dtype, kept):
    def conv(name, value, padding):
        weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
        if dtype != torch.float32:
            value, weight = kept(f"{name}.x", value.to(dtype)) if value.dtype != dtype else value, \
                kept(f"{name}.weight.T", weight.to(dtype))
            bias = kept(f"{name}.bias.T", bias.to(dtype))
        return kept(name, F.conv2d(value, weight, bias, padding=padding))
    return conv


def keeper(sites):
    def kept(name, value):
        sites.keep(name, value)
        return value
    return kept


def ae_resnet_lines(w, x, sites):
    kept = keeper(sites)
    conv = autocast_conv(w, x.dtype, kept)

    def layer(number, value):
        n = kept(f"norm{number}", F.group_norm(value.float(), AE["groups"], w[f"norm{number}.weight"],
                                               w[f"norm{number}.bias"], AE["eps"]))
        return conv(f"conv{number}", kept(f"swish{number}", n * torch.sigmoid(n)), 1)
    h = layer("2", layer("1", x))
    kept("y", conv("nin_shortcut", x, 0) + h)


def ae_attention_lines(w, x, sites):
    kept = keeper(sites)
    conv = autocast_conv(w, x.dtype, kept)
    n = kept("norm", F.group_norm(x.float(), AE["groups"], w["norm.weight"], w["norm.bias"], AE["eps"]))
    if n.dtype != x.dtype:  # what q, k and v are each given
        values = {name: n.to(x.dtype) for name in "qkv"}
    else:
        values = {name: n for name in "qkv"}
    rows = {}
    for name, value in values.items():
        if n.dtype != x.dtype:
            sites.keep(f"{name}.x", value)
        b, c, height, width = x.shape
        rows[name] = conv(name, value, 0).reshape(b, 1, c, height * width).transpose(2, 3).contiguous()
    a = kept("attention", F.scaled_dot_product_attention(rows["q"], rows["k"], rows["v"]))
    image = a.transpose(2, 3).reshape(x.shape)
    kept("y", x + conv("proj_out", image, 0))


def ae_classes():
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D
    resnet = ResnetBlock2D(in_channels=AE["in"], out_channels=AE["out"], temb_channels=None, groups=AE["groups"],
                           eps=AE["eps"])
    attention = Attention(AE["out"], heads=1, dim_head=AE["out"], rescale_output_factor=1.0, eps=AE["eps"],
                          norm_num_groups=AE["groups"], residual_connection=True, bias=True, upcast_softmax=True,
                          _from_deprecated_attn_block=True)
    return resnet, attention


def renamed(block, names):
    """Parameters under norma's names; a Linear of pixels is a kernel of one."""
    named = {}
    for name, parameter in block.named_parameters():
        part, kind = name.rsplit(".", 1)
        value = parameter.detach()
        named[f"{names.get(part, part)}.{kind}"] = value[..., None, None] if value.dim() == 2 else value
    return named


def ae(recording, dtype, draw):
    resnet, attention = ae_classes()
    fill(draw, resnet), fill(draw, attention)
    x = {"resnet": images(draw, 1, AE["in"], 5, 6), "attention": images(draw, 2, AE["out"], 4, 5)}
    names = {"resnet": {"conv_shortcut": "nin_shortcut"},
             "attention": {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}}
    attributes = {"groups": AE["groups"], "eps": AE["eps"]}
    for kind, block, lines in (("resnet", resnet, ae_resnet_lines), ("attention", attention, ae_attention_lines)):
        own = attributes | ({"channels_out": AE["out"]} if kind == "resnet" else {})
        full = keep_all(recording, f"{kind}.fp32", renamed(block, names[kind]))
        given_x = recording.keep(f"{kind}.x", x[kind].to(dtype))
        sites = Sites()
        with torch.inference_mode():
            lines(full, given_x, sites)
        hand_over(recording, f"flux_ae.{kind}.lines", f"flux_ae_{kind}", "FLUX's autoencoder as torch operations",
                  {"x": given_x} | full, sites, own, f"bfl.flux_ae.{kind}")
        block = block.to(dtype)
        in_t = full if dtype == torch.float32 else keep_all(recording, f"{kind}.w", renamed(block, names[kind]))
        sites = Sites()
        if kind == "resnet":
            order = iter(("swish1", "swish2"))
            sites.undo.append(block.nonlinearity.register_forward_hook(
                lambda m, args, y: sites.keep(next(order), y)).remove)
            for part in ("norm1", "conv1", "norm2", "conv2"):
                sites.output(part, getattr(block, part))
            sites.output("nin_shortcut", block.conv_shortcut)
        else:
            shape = given_x.shape
            sites.undo.append(block.group_norm.register_forward_hook(
                lambda m, args, y: sites.keep("norm", y.reshape(shape))).remove)
            for site, part in (("q", block.to_q), ("k", block.to_k), ("v", block.to_v), ("proj_out", block.to_out[0])):
                sites.output(site, part)
            sites.undo.append(block.to_out[0].register_forward_pre_hook(
                lambda m, args: sites.keep("attention", args[0][:, None])).remove)
        sites.output("y", block)
        with sites.listening():
            block(given_x, None) if kind == "resnet" else block(given_x)
        hand_over(recording, f"flux_ae.{kind}.class", f"flux_ae_{kind}",
                  "diffusers ResnetBlock2D" if kind == "resnet" else "diffusers Attention with AttnProcessor2_0",
                  {"x": given_x} | in_t, sites, own, f"diffusers.flux_ae.{kind}")


# ---- Qwen-Image's autoencoder ----

def qwen(recording, dtype, draw):
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageResidualBlock
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanResidualBlock
    channels, out, frames = 10, 12, 4
    block = fill(draw, QwenImageResidualBlock(channels, out)).to(dtype)
    x = recording.keep("x", images(draw, 1, channels, frames, 3, 4).to(dtype))
    given = {"x": x} | keep_all(recording, "w", {name: p.detach() for name, p in block.named_parameters()})
    sites = Sites()
    order = iter(("silu1", "silu2"))

    def last(name):
        return lambda m, args, y: sites.keep(name, y.permute(0, 2, 3, 4, 1))

    def frame_by_frame(name):
        return lambda m, args, y: sites.keep(name, y.permute(0, 2, 1, 3, 4).flatten(0, 1))
    for name in ("norm1", "norm2"):
        sites.undo.append(getattr(block, name).register_forward_hook(last(name)).remove)
    sites.undo.append(block.nonlinearity.register_forward_hook(
        lambda m, args, y: sites.keep(next(order), y.permute(0, 2, 3, 4, 1))).remove)
    for name in ("conv1", "conv2", "conv_shortcut"):
        sites.undo.append(getattr(block, name).register_forward_hook(frame_by_frame(name)).remove)
    sites.output("y", block)
    with sites.listening():
        y = block(x)
    other = WanResidualBlock(channels, out).to(dtype).eval()
    other.load_state_dict(block.state_dict())
    with torch.inference_mode():
        assert torch.equal(other(x), y)
    hand_over(recording, "qwen_vae", "qwen_vae_residual", "diffusers QwenImageResidualBlock", given, sites,
              {"channels_out": out, "eps": 1e-12}, "diffusers.qwen_vae.residual")


def main(out):
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name, record in (("adm", adm), ("flux_ae", ae), ("qwen_vae", qwen)):
        for label, dtype in DTYPES.items():
            recording = Recording(__file__, SEED, "diffusers")
            record(recording, dtype, Draw(SEED))
            recording.save(os.path.join(out, f"blocks_{name}.{label}.safetensors"))


if __name__ == "__main__":
    main(sys.argv[1])

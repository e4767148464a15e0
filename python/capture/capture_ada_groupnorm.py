"""Records GroupNorms under a modulation on CPU: diffusers' SpatialNorm and ResnetBlock2D, and ADM's ResBlock.

    python capture_ada_groupnorm.py tests/golden/captures

One thread. One file per dtype of x: ada_groupnorm.DTYPE.safetensors; its metadata `calls` says what each tensor is. What
a Linear or convolution gives inside a class is recorded as it came out, as is the norm's input; ADM is no package, its
lines are run as they stand in its source.
"""
import os
import sys

import numpy as np
import torch
from diffusers.models.attention_processor import SpatialNorm
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from capture_model_norms import draw, fill
from capture_torch_norms import images
from recording import DTYPES, Recording

SEED = 20261124
CONDITIONING = 24


class outputs_of:
    """What the named modules give during a call: the last tensor of each, and the last input of `into`."""

    def __init__(self, module, names, into, run):
        hooks = [getattr(module, n).register_forward_hook(lambda m, args, y, n=n: setattr(self, n, y.clone())) for n in names]
        if into:
            hooks.append(getattr(module, into).register_forward_pre_hook(lambda m, args: setattr(self, "into", args[0].clone())))
        self.result = run()
        for hook in hooks:
            hook.remove()


def spatial_norms(rng, dtype, out):
    path = "diffusers.models.attention_processor.SpatialNorm"
    for shape in ((2, 32, 4, 5), (1, 64, 3, 3)):
        site = "SpatialNorm." + "x".join(map(str, shape))
        module = fill(rng, SpatialNorm(shape[1], 4), dtype)
        x = out.keep(f"{site}.x", images(rng, dtype, *shape))
        zq = draw(rng, dtype, shape[0], 4, 2, 2)
        seen = outputs_of(module, ("conv_y", "conv_b"), None, lambda: module(x, zq))
        given = {"weight": module.norm_layer.weight, "bias": module.norm_layer.bias, "scale": seen.conv_y, "shift": seen.conv_b}
        for k, p in given.items():
            out.keep(f"{site}.{k}", p)
        out.call(site, "ada_groupnorm", path, {"x": x, **given}, {"y": seen.result},
                 {"eps": 1e-6, "groups": 32, "scale_offset": 0})


def resnet_blocks(rng, dtype, out):
    path = "diffusers.models.resnet.ResnetBlock2D"
    for form in ("scale_shift", "default"):
        site = f"ResnetBlock2D.{form}"
        module = fill(rng, ResnetBlock2D(in_channels=32, out_channels=64, temb_channels=CONDITIONING, groups=32,
                                         time_embedding_norm=form), dtype)
        h, temb = draw(rng, dtype, 2, 32, 4, 5), draw(rng, dtype, 2, CONDITIONING)
        seen = outputs_of(module, ("conv1", "time_emb_proj", "norm2"), "nonlinearity", lambda: module(h, temb))
        given = {"x": seen.conv1, "weight": module.norm2.weight, "bias": module.norm2.bias}
        if form == "scale_shift":
            given["scale"], given["shift"] = (part.clone() for part in seen.time_emb_proj.chunk(2, 1))
        else:
            given["embedding"] = seen.time_emb_proj
        for k, p in given.items():
            out.keep(f"{site}.{k}", p)
        out.call(site, "ada_groupnorm", path, given, {"y": seen.into}, {"eps": 1e-6, "groups": 32})


def adm_blocks(rng, dtype, out):
    class GroupNorm32(nn.GroupNorm):
        def forward(self, x):
            return super().forward(x.float()).type(x.dtype)

    norm = fill(rng, GroupNorm32(32, 64), torch.float32)
    x = out.keep("adm.x", images(rng, dtype, 2, 64, 3, 5))
    w, b = out.keep("adm.weight", norm.weight), out.keep("adm.bias", norm.bias)
    emb = draw(rng, torch.float32, 2, 128).type(dtype)[..., None, None]
    scale, shift = (out.keep(f"adm.{k}", part.clone()) for k, part in zip(("scale", "shift"), torch.chunk(emb, 2, dim=1)))
    numbers = {"eps": 1e-5, "groups": 32}
    out.call("adm.scale_shift", "ada_groupnorm", "guided-diffusion: out_norm(h) * (1 + scale) + shift",
             {"x": x, "weight": w, "bias": b, "scale": scale, "shift": shift}, {"y": norm(x) * (1 + scale) + shift}, numbers)
    out.call("adm.additive", "ada_groupnorm", "guided-diffusion: out_norm(h + emb_out)",
             {"x": x, "weight": w, "bias": b, "embedding": scale}, {"y": norm(x + scale)}, numbers)


def main(folder):
    torch.set_num_threads(1)
    for label, dtype in DTYPES.items():
        torch.manual_seed(SEED)  # of convolutions, which initialize themselves
        rng, out = np.random.default_rng(SEED), Recording(__file__, SEED, "numpy", "diffusers")
        with torch.inference_mode():
            for group in (spatial_norms, resnet_blocks, adm_blocks):
                group(rng, dtype, out)
        out.save(os.path.join(folder, f"ada_groupnorm.{label}.safetensors"), dtype=label)


if __name__ == "__main__":
    main(sys.argv[1])

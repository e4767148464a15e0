"""Records global response normalization on CPU: transformers' ConvNextV2GRN, and timm's two forms.

    python capture_grn.py tests/golden/captures

One thread. One file per dtype of x: grn.DTYPE.safetensors; its metadata `calls` says what each tensor is. timm's lines are
run as they stand in its source (huggingface/pytorch-image-models timm/layers/grn.py at 569ac28 and d26937b).
"""
import os
import sys

import numpy as np
import torch
from transformers.models.convnextv2.modeling_convnextv2 import ConvNextV2GRN

from capture_model_norms import draw, fill
from recording import DTYPES, Recording

SEED = 20261125
EPS = 1e-6


def responses(x):
    x_g = x.norm(p=2, dim=(1, 2), keepdim=True)
    return x_g / (x_g.mean(dim=-1, keepdim=True) + EPS)


def forms(rng, dtype, out):
    for label, shape, spread in (("wide", (1, 3, 4, 136), 1.0), ("small", (12, 1, 2, 4), 1.5e-4), ("one", (2, 3, 7, 1), 1.0)):
        module = fill(rng, ConvNextV2GRN(shape[-1]), dtype)
        if label == "small":
            module.bias.zero_()  # or nothing else would be seen
        w, b = module.weight, module.bias
        x = out.keep(f"{label}.x", draw(rng, dtype, *shape, spread=spread))
        given = {"x": x, "weight": out.keep(f"{label}.weight", w), "bias": out.keep(f"{label}.bias", b)}
        made = {"transformers": module(x), "timm": torch.addcmul(b, w * responses(x) + 1, x),
                "timm.2023": x + torch.addcmul(b, w, x * responses(x))}
        for form, y in made.items():
            out.call(f"{label}.{form}", "grn", form, given, {"y": y}, {"eps": EPS})


def main(folder):
    torch.set_num_threads(1)
    for label, dtype in DTYPES.items():
        rng, out = np.random.default_rng(SEED), Recording(__file__, SEED, "numpy", "transformers")
        with torch.inference_mode():
            forms(rng, dtype, out)
        out.save(os.path.join(folder, f"grn.{label}.safetensors"), dtype=label)


if __name__ == "__main__":
    main(sys.argv[1])

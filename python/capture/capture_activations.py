"""Records silu, gelu and softmax on CPU: torch's own, and the forms that models write in Python.

    python capture_activations.py tests/golden/captures

One thread. One file per dtype of x: activations.DTYPE.safetensors; its metadata `calls` says what each tensor is. gelu is
recorded by ATen's own kernel (oneDNN off) and as torch takes it by default (gelu.default: oneDNN's for fp32 and bf16).
timm's and diffusers' lines are run as they stand in their sources (timm/layers/activations.py at 0d4c04f,
diffusers/models/activations.py at 58eb52c).
"""
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
from transformers.activations import FastGELUActivation, NewGELUActivation, QuickGELUActivation

from recording import DTYPES, Recording

SEED = 20261126
HARD = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1.0, -1.0, 88.7, -88.7, 88.8, -88.8, 104.0, -104.0, 5.4, -5.4,
        13.2, -13.2, 1e-30, -1e-30, 2.0 ** -149, 65504.0, -65504.0, 3e38, -3e38]
LENGTHS = (1, 3, 16, 17, 33, 64, 100, 1000)


def elementwise(x, out, site):
    def call(name, norm, operator, y, attributes=None):
        out.call(f"{site}.{name}", norm, operator, {"x": x}, {"y": y}, attributes)

    tanh = {"approximate": "tanh"}
    call("silu", "silu", "torch.nn.functional.silu", F.silu(x))
    call("gelu.default", "gelu", "torch.nn.functional.gelu", F.gelu(x))
    with torch.backends.mkldnn.flags(enabled=False):
        call("gelu", "gelu", "torch.nn.functional.gelu, oneDNN off", F.gelu(x))
    call("gelu_tanh", "gelu", "torch.nn.functional.gelu", F.gelu(x, approximate="tanh"), tanh)
    call("gelu_new", "gelu", "transformers.activations.NewGELUActivation", NewGELUActivation()(x), tanh)
    call("gelu_fast", "gelu", "transformers.activations.FastGELUActivation", FastGELUActivation()(x), tanh)
    call("quick_gelu", "gelu", "transformers.activations.QuickGELUActivation", QuickGELUActivation()(x))
    call("approximate_gelu", "gelu", "x * torch.sigmoid(1.702 * x)", x * torch.sigmoid(1.702 * x))
    call("fp32_silu", "silu", "F.silu(inputs.float(), inplace=False).to(inputs.dtype)", F.silu(x.float()).to(x.dtype))
    call("swish", "silu", "x.mul(x.sigmoid())", x.mul(x.sigmoid()))


def main(folder):
    torch.set_num_threads(1)
    for label, dtype in DTYPES.items():
        rng, out = np.random.default_rng(SEED), Recording(__file__, SEED, "numpy", "transformers")
        with torch.inference_mode():
            wide = rng.standard_normal((3, 257)) * np.exp2(rng.uniform(-6, 5, (3, 257)))
            x = out.keep("ordinary.x", torch.from_numpy(wide).to(dtype))
            elementwise(x, out, "ordinary")
            elementwise(out.keep("hard.x", torch.tensor(HARD, dtype=dtype)), out, "hard")
            for d in LENGTHS:
                scores = torch.from_numpy(rng.standard_normal((4, d)) * 3)
                scores[1] *= 8
                scores[2, d // 2:] = -float("inf")
                scores[3] += 1000
                x = out.keep(f"softmax.D{d}.x", scores.to(dtype))
                out.call(f"softmax.D{d}", "softmax", "torch.nn.functional.softmax", {"x": x}, {"y": F.softmax(x, dim=-1)})
            special = torch.tensor([[1.0, float("nan"), 2.0], [1.0, float("inf"), 2.0], [-float("inf")] * 3, [0.0, -0.0, 0.0]])
            x = out.keep("softmax.special.x", special.to(dtype))
            out.call("softmax.special", "softmax", "torch.nn.functional.softmax", {"x": x}, {"y": F.softmax(x, dim=-1)})
        out.save(os.path.join(folder, f"activations.{label}.safetensors"), dtype=label)


if __name__ == "__main__":
    main(sys.argv[1])

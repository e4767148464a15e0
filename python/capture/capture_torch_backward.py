"""Records what torch's autograd gives back through its norm operators on a CPU: dx, dweight, dbias for a given dy.

    python capture_torch_backward.py tests/golden/captures

One thread. File torch_backward.DTYPE.safetensors; metadata `calls` says what each tensor is: inputs x, weight, bias and
dy, outputs y, dx, dweight, dbias. rms_norm has the gradient of the operator torch picks on a CPU, the others their own.
"""
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

from capture_torch_norms import parameters
from recording import DTYPES, Recording

SEED = 20261126


def draw(rng, dtype, *shape, mean=0.0):
    return (mean + torch.from_numpy(rng.standard_normal(shape))).to(dtype)


def record(out, name, norm, operator, x, given, dy, run, attributes, **more):
    leaves = {"x": x.detach().clone().requires_grad_(), **{k: t.detach().clone().requires_grad_() for k, t in given.items()}}
    y = run(**leaves)
    gradients = torch.autograd.grad(y, list(leaves.values()), dy)
    out.call(name, norm, operator, {"x": x, **given, "dy": dy},
             {"y": y, **{f"d{k}": g for k, g in zip(leaves, gradients)}}, attributes, **more)


def rows(rng, dtype, out):
    for n, d in ((1, 8), (5, 9), (7, 64), (3, 257), (40, 33), (4, 1000)):
        site = f"rows.{n}x{d}"
        x, dy = (out.keep(f"{site}.{k}", draw(rng, dtype, n, d, mean=m)) for k, m in (("x", 0.5), ("dy", 0.0)))
        w, b = parameters(rng, dtype, d)
        out.keep(f"{site}.weight", w), out.keep(f"{site}.bias", b)
        record(out, f"layernorm.{n}x{d}", "layernorm", "torch.nn.functional.layer_norm", x, {"weight": w, "bias": b}, dy,
               lambda x, weight, bias: F.layer_norm(x, (d,), weight, bias, 1e-5), {"eps": 1e-5})
        record(out, f"layernorm.{n}x{d}.plain", "layernorm", "torch.nn.functional.layer_norm", x, {}, dy,
               lambda x: F.layer_norm(x, (d,), None, None, 1e-6), {"eps": 1e-6})
        record(out, f"rmsnorm.{n}x{d}", "rmsnorm", "torch.nn.functional.rms_norm", x, {"weight": w}, dy,
               lambda x, weight: F.rms_norm(x, (d,), weight, 1e-6), {"eps": 1e-6})
        if dtype != torch.float32:
            w32, b32 = parameters(rng, torch.float32, d)
            out.keep(f"{site}.weight32", w32), out.keep(f"{site}.bias32", b32)
            record(out, f"layernorm.{n}x{d}.mixed", "layernorm", "torch.nn.functional.layer_norm", x,
                   {"weight": w32, "bias": b32}, dy, lambda x, weight, bias: F.layer_norm(x, (d,), weight, bias, 1e-5), {"eps": 1e-5})


def channels(rng, dtype, out):
    for shape, groups in (((2, 8, 5, 5), 4), ((3, 6, 7), 3), ((2, 64, 4, 4), 32)):
        size = "x".join(map(str, shape))
        x, dy = (out.keep(f"channels.{size}.{k}", draw(rng, dtype, *shape, mean=m)) for k, m in (("x", 0.5), ("dy", 0.0)))
        w, b = parameters(rng, dtype, shape[1])
        given = {"weight": out.keep(f"channels.{size}.weight", w), "bias": out.keep(f"channels.{size}.bias", b)}
        mean = out.keep(f"channels.{size}.running_mean", draw(rng, dtype, shape[1]))
        var = out.keep(f"channels.{size}.running_var", torch.from_numpy(rng.uniform(0.5, 2, shape[1])).to(dtype))
        for layout in ("contiguous", "channels_last") if len(shape) == 4 else ("contiguous",):
            form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
            said = {"layout": layout}
            record(out, f"groupnorm.{size}.{layout}", "groupnorm", "torch.nn.functional.group_norm", x, given, dy,
                   lambda x, weight, bias: F.group_norm(x.contiguous(memory_format=form), groups, weight, bias, 1e-6),
                   {"eps": 1e-6, "groups": groups}, **said)
            record(out, f"instancenorm.{size}.{layout}", "instancenorm", "torch.nn.functional.instance_norm", x, given, dy,
                   lambda x, weight, bias: F.instance_norm(x.contiguous(memory_format=form), weight=weight, bias=bias),
                   {"eps": 1e-5}, **said)
            record(out, f"batchnorm.{size}.train.{layout}", "batchnorm", "torch.nn.functional.batch_norm", x, given, dy,
                   lambda x, weight, bias: F.batch_norm(x.contiguous(memory_format=form), None, None, weight, bias, True),
                   {"eps": 1e-5}, mode="train", **said)
            record(out, f"batchnorm.{size}.eval.{layout}", "batchnorm", "torch.nn.functional.batch_norm", x, given, dy,
                   lambda x, weight, bias: F.batch_norm(x.contiguous(memory_format=form), mean, var, weight, bias, False),
                   {"eps": 1e-5}, mode="eval", statistics=[f"channels.{size}.running_mean", f"channels.{size}.running_var"], **said)


def main(folder):
    torch.set_num_threads(1)
    for label, dtype in DTYPES.items():
        rng, out = np.random.default_rng(SEED), Recording(__file__, SEED, "numpy")
        rows(rng, dtype, out)
        channels(rng, dtype, out)
        out.save(os.path.join(folder, f"torch_backward.{label}.safetensors"), dtype=label)


if __name__ == "__main__":
    main(sys.argv[1])

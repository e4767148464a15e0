"""Records more of torch's gradients on a CPU than capture_torch_backward.py does: through modulations and gates, of x and
dy both channels-last, of fp32 parameters beside 16-bit x, of rows that end within a vector.

    python capture_torch_gradients.py tests/golden/captures

One thread. Files torch_gradients.DTYPE.safetensors; metadata `calls` as in capture_torch_backward.py, with
`layout=channels_last_both` where dy lies in memory as x does.
"""
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

from capture_torch_backward import draw
from recording import DTYPES, Recording

SEED = 20261127


def record(out, name, norm, operator, given, dy, run, attributes, form=torch.contiguous_format, dy_form=None, **more):
    """`given`: x first. Tensors of x's shape lie in memory as `form` says, dy as `dy_form`."""
    laid = {k: t.contiguous(memory_format=form) if t.shape == dy.shape else t for k, t in given.items()}
    leaves = {k: t.detach().clone().requires_grad_() for k, t in laid.items()}
    y = run(**leaves)
    laid_dy = dy.contiguous(memory_format=dy_form or torch.contiguous_format)
    gradients = {f"d{k}": g for k, g in zip(leaves, torch.autograd.grad(y, list(leaves.values()), laid_dy)) if k != "residual"}
    out.call(name, norm, operator, {**given, "dy": dy}, gradients, attributes, **more)


def modulations(rng, dtype, out):
    for shape in ((2, 21, 33), (3, 7, 3)):
        size, one = "x".join(map(str, shape)), (shape[0], 1, shape[2])
        given = {k: out.keep(f"modulate.{size}.{k}", draw(rng, dtype, *s)) for k, s in (("x", shape), ("scale", one), ("shift", one))}
        dy = out.keep(f"modulate.{size}.dy", draw(rng, dtype, *shape))
        record(out, f"modulate.{size}", "modulate", "(1 + scale) * x + shift", given, dy,
               lambda x, scale, shift: (1 + scale) * x + shift, {})
        record(out, f"gated_residual.{size}", "gated_residual", "residual + gate * x",
               {"x": given["x"], "gate": given["scale"], "residual": dy}, dy, lambda x, gate, residual: residual + gate * x, {})


def rows(rng, dtype, out):
    for n, d in ((40, 12), (20, 23)):
        x = out.keep(f"rows.{n}x{d}.x", draw(rng, dtype, n, d, mean=0.5))
        spread = torch.from_numpy(np.exp2(rng.uniform(-12, 6, (n, d))))  # sums err by more than the small elements hold
        dy = out.keep(f"rows.{n}x{d}.dy", (draw(rng, torch.float64, n, d) * spread).to(dtype))
        for label, parameters in (("", dtype), (".mixed", torch.float32))[:1 if dtype == torch.float32 else 2]:
            w, b = (out.keep(f"rows.{n}x{d}{label}.{k}", draw(rng, parameters, d)) for k in ("weight", "bias"))
            record(out, f"layernorm.{n}x{d}{label}", "layernorm", "torch.nn.functional.layer_norm",
                   {"x": x, "weight": w, "bias": b}, dy, lambda x, weight, bias: F.layer_norm(x, (d,), weight, bias, 1e-5), {"eps": 1e-5})
            record(out, f"rmsnorm.{n}x{d}{label}", "rmsnorm", "torch.nn.functional.rms_norm", {"x": x, "weight": w}, dy,
                   lambda x, weight: F.rms_norm(x, (d,), weight, 1e-6), {"eps": 1e-6})


def channels(rng, dtype, out):
    last = torch.channels_last
    for shape, groups in (((2, 16, 2, 5), 1), ((2, 5, 3, 3), 5), ((2, 15, 2, 5), 1)):
        size = "x".join(map(str, shape))
        x, dy = (out.keep(f"channels.{size}.{k}", draw(rng, dtype, *shape, mean=0.5)) for k in ("x", "dy"))
        for label, parameters in (("", dtype), (".mixed", torch.float32))[:1 if dtype == torch.float32 else 2]:
            w, b, mean = (out.keep(f"channels.{size}{label}.{k}", draw(rng, parameters, shape[1])) for k in ("weight", "bias", "running_mean"))
            var = out.keep(f"channels.{size}{label}.running_var", torch.from_numpy(rng.uniform(0.5, 2, shape[1])).to(parameters))
            given = {"x": x, "weight": w, "bias": b}
            for layout, form, dy_form in (("contiguous", None, None), ("channels_last", last, None), ("channels_last_both", last, last)):
                where = {"form": form or torch.contiguous_format, "dy_form": dy_form, "layout": layout}
                record(out, f"batchnorm.{size}.train.{layout}{label}", "batchnorm", "torch.nn.functional.batch_norm", given, dy,
                       lambda x, weight, bias: F.batch_norm(x, None, None, weight, bias, True), {"eps": 1e-5}, mode="train", **where)
                record(out, f"batchnorm.{size}.eval.{layout}{label}", "batchnorm", "torch.nn.functional.batch_norm", given, dy,
                       lambda x, weight, bias: F.batch_norm(x, mean, var, weight, bias, False), {"eps": 1e-5}, mode="eval",
                       statistics=[f"channels.{size}{label}.running_mean", f"channels.{size}{label}.running_var"], **where)
                if layout == "channels_last_both":
                    continue  # group_norm lays dy as x
                record(out, f"groupnorm.{size}.{layout}{label}", "groupnorm", "torch.nn.functional.group_norm", given, dy,
                       lambda x, weight, bias: F.group_norm(x, groups, weight, bias, 1e-6), {"eps": 1e-6, "groups": groups}, **where)


def far_means(rng, dtype, out):
    """Channels far from 0, where it shows in which format a mean is kept; samples of one channel, added in another order."""
    last, shape = torch.channels_last, (2, 8, 4, 6)
    x, dy = (out.keep(f"far.{k}", draw(rng, dtype, *shape, mean=m)) for k, m in (("x", 100), ("dy", 0)))
    w, b = (out.keep(f"far.{k}", draw(rng, dtype, shape[1])) for k in ("weight", "bias"))
    for layout, form, dy_form in (("contiguous", None, None), ("channels_last", last, None), ("channels_last_both", last, last)):
        record(out, f"batchnorm.far.train.{layout}", "batchnorm", "torch.nn.functional.batch_norm", {"x": x, "weight": w, "bias": b},
               dy, lambda x, weight, bias: F.batch_norm(x, None, None, weight, bias, True), {"eps": 1e-5}, mode="train", layout=layout,
               form=form or torch.contiguous_format, dy_form=dy_form)
    for n in (9, 70):
        x, dy = (out.keep(f"one.{n}.{k}", draw(rng, dtype, n, 1, 7)) for k in ("x", "dy"))
        w, b = (out.keep(f"one.{n}.{k}", draw(rng, dtype, 1)) for k in ("weight", "bias"))
        record(out, f"instancenorm.one.{n}", "instancenorm", "torch.nn.functional.instance_norm", {"x": x, "weight": w, "bias": b}, dy,
               lambda x, weight, bias: F.instance_norm(x, weight=weight, bias=bias), {"eps": 1e-5}, layout="contiguous")


def main(folder):
    torch.set_num_threads(1)
    for label, dtype in DTYPES.items():
        rng, out = np.random.default_rng(SEED), Recording(__file__, SEED, "numpy")
        modulations(rng, dtype, out)
        rows(rng, dtype, out)
        channels(rng, dtype, out)
        far_means(rng, dtype, out)
        out.save(os.path.join(folder, f"torch_gradients.{label}.safetensors"), dtype=label)


if __name__ == "__main__":
    main(sys.argv[1])

"""Records flax.linen's normalization modules, run by JAX on a CPU, op by op (`eager`) and compiled as one (`jit`).

    python capture_flax.py tests/golden/captures

File flax.DTYPE.safetensors; metadata `calls` says what each tensor is. Channels are last, as flax has them, so x is
[N, ..., C]. Without `dtype=` flax promotes x and the parameters; `.p32` are parameters in fp32, flax's default, beside
a 16-bit x. XLA's own threads do not enter: the arrays are small, and the flag below keeps one.
"""
import os
import sys

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

import flax.linen as nn
import jax
import ml_dtypes
import numpy as np
import torch

from capture_torch_norms import hard_rows, images, parameters
from recording import DTYPES, Recording

SEED = 20261125


def to_jax(t):
    if t.dtype == torch.bfloat16:
        return jax.numpy.asarray(t.detach().contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return jax.numpy.asarray(t.detach().contiguous().numpy())


def to_torch(a):
    a = np.array(a)
    if a.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(a)


def record(out, name, norm, module, x, given, attributes, statistics=None, **more):
    """`given`: weight and bias, flax's scale and bias. `statistics`: running mean and variance of a BatchNorm."""
    variables = {"params": {{"weight": "scale"}.get(k, k): to_jax(t) for k, t in given.items()}}
    if statistics:
        variables["batch_stats"] = {"mean": to_jax(statistics["running_mean"]), "var": to_jax(statistics["running_var"])}
    training = bool(statistics) and not module.use_running_average

    def run(variables, x):
        return module.apply(variables, x, mutable=["batch_stats"]) if training else module.apply(variables, x)

    for tag, function in (("eager", run), ("jit", jax.jit(run))):
        found = function(variables, to_jax(x))
        outputs = {"y": to_torch(found[0] if training else found)}
        if training:
            outputs["running_mean"] = to_torch(found[1]["batch_stats"]["mean"])
            outputs["running_var"] = to_torch(found[1]["batch_stats"]["var"])
        out.call(f"{name}.{tag}", norm, f"flax.linen.{type(module).__name__}, {tag}", {"x": x, **given, **(statistics or {})},
                 outputs, attributes, layout="channels_last", **more)


def main(folder):
    torch.set_num_threads(1)
    for label, dtype in DTYPES.items():
        rng, out = np.random.default_rng(SEED), Recording(__file__, SEED, "numpy", "flax", "jax", "jaxlib", "ml_dtypes")
        kinds = [("", dtype)] + ([(".p32", torch.float32)] if dtype != torch.float32 else [])
        for d in (7, 64, 100, 257):
            x = out.keep(f"rows.D{d}.x", hard_rows(rng, dtype, 9 if d < 200 else 4, d))
            for suffix, p in kinds:
                w, b = parameters(rng, p, d)
                out.keep(f"rows.D{d}.weight{suffix}", w), out.keep(f"rows.D{d}.bias{suffix}", b)
                record(out, f"LayerNorm.D{d}{suffix}", "layernorm", nn.LayerNorm(), x, {"weight": w, "bias": b}, {"eps": 1e-6})
                record(out, f"LayerNorm.D{d}.two_pass{suffix}", "layernorm", nn.LayerNorm(use_fast_variance=False), x,
                       {"weight": w, "bias": b}, {"eps": 1e-6})
                record(out, f"RMSNorm.D{d}{suffix}", "rmsnorm", nn.RMSNorm(), x, {"weight": w}, {"eps": 1e-6})
        for shape, groups in (((2, 8, 5, 5), 4), ((1, 64, 4, 4), 32)):
            size = "x".join(map(str, shape))
            x = out.keep(f"channels.{size}.x", images(rng, dtype, *shape).movedim(1, -1).contiguous())
            for suffix, p in kinds:
                w, b = parameters(rng, p, shape[1])
                out.keep(f"channels.{size}.weight{suffix}", w), out.keep(f"channels.{size}.bias{suffix}", b)
                record(out, f"GroupNorm.{size}{suffix}", "groupnorm", nn.GroupNorm(num_groups=groups), x,
                       {"weight": w, "bias": b}, {"eps": 1e-6, "groups": groups})
                statistics = {
                    "running_mean": out.keep(f"channels.{size}.running_mean{suffix}",
                                             torch.from_numpy(rng.standard_normal(shape[1])).float()),
                    "running_var": out.keep(f"channels.{size}.running_var{suffix}",
                                            torch.from_numpy(rng.uniform(0.5, 2, shape[1])).float())}
                # flax's momentum 0.99 keeps the old statistics; norma's momentum is the new ones' share.
                record(out, f"BatchNorm.{size}.train{suffix}", "batchnorm", nn.BatchNorm(use_running_average=False), x,
                       {"weight": w, "bias": b}, {"eps": 1e-5, "momentum": 1 - 0.99}, statistics, mode="train")
                record(out, f"BatchNorm.{size}.eval{suffix}", "batchnorm", nn.BatchNorm(use_running_average=True), x,
                       {"weight": w, "bias": b}, {"eps": 1e-5}, statistics, mode="eval")
        out.save(os.path.join(folder, f"flax.{label}.safetensors"), dtype=label, xla_flags=os.environ["XLA_FLAGS"])


if __name__ == "__main__":
    main(sys.argv[1])

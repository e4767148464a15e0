"""Records ONNX Runtime's normalization operators on its CPU execution provider.

    python capture_onnxruntime.py tests/golden/captures

One thread, graph optimization off, models of one node. File onnxruntime.DTYPE.safetensors; metadata `calls` says what each
tensor is, `refused` what ONNX Runtime turned down and how (it has few kernels for bf16, and GroupNorm only on GPUs).
"""
import os
import sys

import numpy as np
import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from capture_torch_norms import hard_rows, images, parameters
from norma import _onnxruntime, _tensors
from recording import DTYPES, Recording

SEED = 20261124
MICROSOFT = "com.microsoft"


def record(out, name, norm, op, inputs, outputs, given, opset=17, domain="", **attributes):
    """`inputs` and `outputs` by norma's names, in the operator's order; outputs that are None are not asked for."""
    wanted = [i for i, output in enumerate(outputs) if output]
    packed = [None if t is None else _tensors.pack(k, t) for k, t in inputs]
    operator = f"{domain or 'ai.onnx'}.{op} (opset {1 if domain else opset})"
    try:
        found = _onnxruntime.run(op, packed, opset, domain, wanted, **attributes)
    except _onnxruntime.Refused as refused:
        return out.refuse(name, operator, refused)
    out.call(name, norm, operator, dict(inputs),
             {o: _tensors.unpack(t, like=inputs[0][1]) for o, t in zip(filter(None, outputs), found)}, given)


def rows(rng, dtype, out):
    for d in (1, 7, 8, 16, 33, 64, 100, 257):
        site = f"rows.D{d}"
        x = out.keep(f"{site}.x", hard_rows(rng, dtype, 9 if d < 200 else 4, d))
        residual = out.keep(f"{site}.residual", torch.from_numpy(rng.standard_normal(x.shape)).to(dtype))
        w, b = parameters(rng, dtype, d)
        out.keep(f"{site}.weight", w), out.keep(f"{site}.bias", b)
        eps = {"eps": float(np.float32(1e-5))}  # an ONNX attribute is a fp32
        skipped = ["y", None, None, "residual"]
        for name, norm, op, inputs, outputs, more in (
                ("LayerNormalization", "layernorm", "LayerNormalization", (("x", x), ("weight", w), ("bias", b)), ["y"], {}),
                ("LayerNormalization.no_bias", "layernorm", "LayerNormalization", (("x", x), ("weight", w)), ["y"], {}),
                ("SimplifiedLayerNormalization", "rmsnorm", "SimplifiedLayerNormalization", (("x", x), ("weight", w)), ["y"], {}),
                ("RMSNormalization", "rmsnorm", "RMSNormalization", (("x", x), ("weight", w)), ["y"], {"opset": 23}),
                ("SkipLayerNormalization", "layernorm", "SkipLayerNormalization",
                 (("x", x), ("residual", residual), ("weight", w), ("bias", b)), skipped, {"domain": MICROSOFT}),
                ("SkipSimplifiedLayerNormalization", "rmsnorm", "SkipSimplifiedLayerNormalization",
                 (("x", x), ("residual", residual), ("weight", w)), skipped, {"domain": MICROSOFT})):
            record(out, f"{name}.D{d}", norm, op, inputs, outputs, eps, epsilon=1e-5, **more)
        record(out, f"LpNormalization.D{d}", "l2norm", "LpNormalization", (("x", x),), ["y"], {}, axis=-1, p=2)


def channels(rng, dtype, out):
    for shape, groups in (((2, 8, 5, 5), 4), ((1, 64, 4, 4), 32), ((3, 6, 7), 3)):
        site = "channels." + "x".join(map(str, shape))
        x = out.keep(f"{site}.x", images(rng, dtype, *shape))
        w, b = parameters(rng, dtype, shape[1])
        out.keep(f"{site}.weight", w), out.keep(f"{site}.bias", b)
        mean = out.keep(f"{site}.running_mean", torch.from_numpy(rng.standard_normal(shape[1])).to(dtype))
        var = out.keep(f"{site}.running_var", torch.from_numpy(rng.uniform(0.5, 2, shape[1])).to(dtype))
        affine = (("x", x), ("weight", w), ("bias", b))
        eps, size = {"eps": float(np.float32(1e-5))}, "x".join(map(str, shape))
        record(out, f"GroupNormalization.{size}", "groupnorm", "GroupNormalization", affine, ["y"],
               {**eps, "groups": groups}, opset=21, num_groups=groups, epsilon=1e-5)
        record(out, f"InstanceNormalization.{size}", "instancenorm", "InstanceNormalization", affine, ["y"], eps,
               epsilon=1e-5)
        tracked = affine + (("running_mean", mean), ("running_var", var))
        record(out, f"BatchNormalization.{size}", "batchnorm", "BatchNormalization", tracked, ["y"], eps, opset=15,
               epsilon=1e-5)
        # ONNX's momentum keeps the old statistics; norma's and torch's momentum is the new ones' share. Its running
        # variance takes the biased variance.
        record(out, f"BatchNormalization.{size}.train", "batchnorm", "BatchNormalization", tracked,
               ["y", "running_mean", "running_var"], {**eps, "momentum": 1 - float(np.float32(0.9))}, opset=15, epsilon=1e-5,
               momentum=0.9, training_mode=1)
        record(out, f"GroupNorm.{size}", "groupnorm", "GroupNorm", affine, ["y"], {**eps, "groups": groups}, domain=MICROSOFT,
               groups=groups, epsilon=1e-5, activation=0, channels_last=1)


def main(folder):
    torch.set_num_threads(1)
    for label, dtype in DTYPES.items():
        rng, out = np.random.default_rng(SEED), Recording(__file__, SEED, "numpy", "onnx", "onnxruntime")
        rows(rng, dtype, out)
        channels(rng, dtype, out)
        out.save(os.path.join(folder, f"onnxruntime.{label}.safetensors"), dtype=label, provider="CPUExecutionProvider")


if __name__ == "__main__":
    main(sys.argv[1])

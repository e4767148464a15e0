"""norma's norms by torch's own CPU operators, for norma.serve. Tensors are triples, as in _safetensors."""

import torch
import torch.nn.functional as F

from . import _tensors
from .serve import Unsupported

_DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

torch.set_num_threads(1)


def norm(name, tensors, attributes, dtype):
    t = {k: _unpack(k, triple) for k, triple in tensors.items()}
    if dtype is not None:
        t = {k: v.to(_DTYPES[dtype]) for k, v in t.items()}
    x, w, b, eps = t["x"], t.get("weight"), t.get("bias"), attributes["eps"]
    outputs = {}
    if "residual" in t:
        x = outputs["residual"] = x + t["residual"]
    with torch.no_grad():
        try:
            outputs.update(_run(name, t, x, w, b, eps, attributes))
        except (RuntimeError, NotImplementedError) as error:  # torch has no such kernel: dtypes, too few values
            raise Unsupported("torch %s: %s" % (torch.__version__, str(error).split("\n")[0])) from None
    return {k: _tensors.pack(k, v) for k, v in outputs.items()}


def _unpack(name, triple):
    if triple[0] not in _DTYPES:
        raise Unsupported("'%s' is %s; torch's norms take %s" % (name, triple[0], " ".join(_DTYPES)))
    codes = torch.frombuffer(bytearray(triple[2]), dtype=torch.uint8)
    return codes.view(_DTYPES[triple[0]]).reshape(triple[1])


def _run(name, t, x, w, b, eps, attributes):
    if name == "layernorm":
        if w is not None and w.dim() > 1:
            raise Unsupported("a weight for each sample")
        return {"y": F.layer_norm(x, x.shape[-1:], w, b, eps)}
    if name == "rmsnorm":
        if b is not None or "scale" in t:
            raise Unsupported("rms_norm has neither a bias nor a quantized output")
        if not hasattr(F, "rms_norm"):
            raise Unsupported("torch %s has no rms_norm; it came with 2.4" % torch.__version__)
        return {"y": F.rms_norm(x, x.shape[-1:], w, eps)}
    if name == "groupnorm":
        return {"y": F.group_norm(x, int(attributes.get("groups", 32)), w, b, eps)}
    if name in ("batchnorm", "instancenorm"):
        return _with_statistics(name, t, x, w, b, eps, attributes)
    if name == "modulate":
        y = _rows(x, t["scale"]) * (1 + _parameter(t["scale"]))
        return {"y": (y + _parameter(t["shift"]) if "shift" in t else y).reshape(x.shape)}
    if name == "gated_residual":
        gate = t["gate"]
        if gate.shape == x.shape:
            return {"y": x + gate * t["f"]}
        return {"y": (_rows(x, gate) + _parameter(gate) * _rows(t["f"], gate)).reshape(x.shape)}
    return {"y": F.normalize(x, dim=-1, eps=eps)}


def _with_statistics(name, t, x, w, b, eps, attributes):
    batch = attributes.get("statistics", "batch") == "batch"
    mean, var = (t[k].clone() if k in t else None for k in ("running_mean", "running_var"))
    momentum = attributes.get("momentum", 0.1)
    if name == "batchnorm":
        y = F.batch_norm(x, mean, var, w, b, batch, momentum, eps)
    else:
        y = F.instance_norm(x, mean, var, w, b, batch, momentum, eps)
    updated = batch and mean is not None
    return {"y": y, **({"running_mean": mean, "running_var": var} if updated else {})}


def _parameter(p):
    """[cols], or [samples, cols] and [samples, 1, cols] as one row a sample."""
    return p if p.dim() == 1 else p.reshape(-1, 1, p.shape[-1])


def _rows(x, p):
    """x as [samples, rows of a sample, cols], if the parameter has samples."""
    return x if p.dim() == 1 else x.reshape(p.numel() // p.shape[-1], -1, x.shape[-1])

"""Records single torch operations and small norm formulae on CPU, to check emulated orders and roundings against.

    python capture_torch_ops.py tests/golden/captures

Eager torch, one thread. Files torch_ops.DTYPE.safetensors (DTYPE is x's: fp32, bf16, fp16) and torch_ops.fp8.safetensors.
Names are GROUP.VARIANT.TENSOR; inputs lie beside outputs. In `rmsnorm.D*` one x, weight, bias serve all outputs y.*,
which are named after the path that made them; `.w32` means an fp32 weight, `.w8` a float8_e4m3fn one, eps is 1e-6.
Codes of the formats that safetensors lacks are U8 with metadata format.NAME=.
"""
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

from recording import DTYPES, provenance, save

EPS = 1e-6
ROWS = 3
ROW_SCALES = [1.0, 2.0 ** -11, 1.0]  # in the second row eps weighs; the third gets a wide spread of exponents


def draw(rng, dtype, *shape, spread=0):
    """Normal values, the last row with exponents spread over +-spread binades."""
    x = rng.standard_normal(shape)
    if len(shape) == 2 and shape[0] == ROWS:
        x *= np.array(ROW_SCALES)[:, None]
        x[-1] *= np.exp2(rng.uniform(-spread, spread, shape[-1]))
    return torch.from_numpy(x).to(dtype)


def reductions(rng, dtype, out):
    for d in (1, 7, 8, 9, 31, 64, 100, 576, 1000, 3072, 5000):
        x = out[f"reduce.D{d}.x"] = draw(rng, dtype, ROWS, d, spread=7)
        out[f"reduce.D{d}.sum"] = x.sum(-1)
        out[f"reduce.D{d}.mean"] = x.mean(-1)
        out[f"reduce.D{d}.mean_square"] = x.pow(2).mean(-1)
        out[f"reduce.D{d}.vector_norm"] = torch.linalg.vector_norm(x, dim=-1)
    for shape in ((96, 16), (96, 5), (1000, 40)):  # over a strided axis, as F.normalize(dim=1) and channels-last do
        name = "reduce_dim0.{}x{}".format(*shape)
        x = out[name + ".x"] = draw(rng, dtype, *shape)
        out[name + ".sum"], out[name + ".mean"] = x.sum(0), x.mean(0)
        out[name + ".vector_norm"] = torch.linalg.vector_norm(x, dim=0)


def elementwise(rng, dtype, out):
    """rsqrt and sqrt of random bit patterns (subnormals, Inf and NaN too), with a scalar tail; scalars added to 16 bits."""
    bits = rng.integers(0, 1 << 31 if dtype == torch.float32 else 1 << 15, 1005)
    x = torch.from_numpy(bits.astype(np.int32 if dtype == torch.float32 else np.int16)).view(dtype)
    x[:6] = torch.tensor([0.0, -0.0, float("inf"), -1.0, float("nan"), 1.0], dtype=dtype)
    out["rsqrt.x"], out["rsqrt.y"], out["rsqrt.sqrt"] = x, torch.rsqrt(x), torch.sqrt(x)
    for n in (1, 15, 16, 33):
        out[f"rsqrt.n{n}.x"] = x[100:100 + n].clone()
        out[f"rsqrt.n{n}.y"] = torch.rsqrt(x[100:100 + n].clone())
    s = out["scalar.x"] = draw(rng, dtype, 200)
    out["scalar.add"], out["scalar.mul"], out["scalar.div"] = s + 1e-3, s * 3.3, s / 3.3
    for name, function in (("silu", F.silu), ("gelu_tanh", lambda v: F.gelu(v, approximate="tanh")), ("exp", torch.exp)):
        out[f"scalar.{name}"] = function(s)


def diffusers_rmsnorm(x, weight=None, bias=None):
    """diffusers' class with the branch for fp8 weights that some copies of it carry."""
    input_dtype = x.dtype
    variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
    h = x * torch.rsqrt(variance + EPS)
    if weight is None:
        return h.to(input_dtype)
    if weight.dtype in (torch.float16, torch.bfloat16):
        h = h.to(weight.dtype)
    elif weight.dtype == torch.float8_e4m3fn:
        h = h * weight.to(h.dtype)
        h = h + (bias.to(h.dtype) if bias is not None else 0)
        return h.to(input_dtype)
    h = h * weight
    return h if bias is None else h + bias


def normalized(x):
    v = x.float()
    return v * torch.rsqrt(v.pow(2).mean(-1, keepdim=True) + EPS)


def t5(x, weight):
    h = x * torch.rsqrt(x.to(torch.float32).pow(2).mean(-1, keepdim=True) + EPS)
    return weight * (h.to(weight.dtype) if weight.dtype in (torch.float16, torch.bfloat16) else h)


def flux(x, scale):
    v = x.float()
    rrms = torch.rsqrt(torch.mean(v ** 2, dim=-1, keepdim=True) + 1e-6)
    return (v * rrms).to(dtype=x.dtype) * scale


def rmsnorms(rng, dtype, out):
    for d in (8, 9, 128, 576, 3072):
        name = f"rmsnorm.D{d}."
        x = out[name + "x"] = draw(rng, dtype, ROWS, d, spread=3)
        w = out[name + "weight"] = (1 + 0.3 * draw(rng, torch.float64, d)).to(dtype)
        b = out[name + "bias"] = (0.5 * draw(rng, torch.float64, d)).to(dtype)
        out[name + "y.torch"] = F.rms_norm(x, (d,), w, EPS)
        out[name + "y.torch.eps_none"] = F.rms_norm(x, (d,), w, None)
        out[name + "y.torch.no_weight"] = F.rms_norm(x, (d,), None, EPS)
        out[name + "y.torch.no_weight.eps_none"] = F.rms_norm(x, (d,), None, None)
        if d == 3072:
            continue
        w32 = out[name + "weight32"] = (1 + 0.3 * draw(rng, torch.float32, d))
        b32 = out[name + "bias32"] = 0.5 * draw(rng, torch.float32, d)
        w8 = out[name + "weight8"] = (1 + 0.3 * draw(rng, torch.float32, d)).to(torch.float8_e4m3fn)
        if dtype != torch.float32:
            out[name + "y.torch.w32"] = F.rms_norm(x, (d,), w32, EPS)
        else:
            w16 = out[name + "weight16"] = w32.to(torch.bfloat16)
            out[name + "y.torch.w16"] = F.rms_norm(x, (d,), w16, EPS)
            out[name + "y.diffusers.w16"] = diffusers_rmsnorm(x, w16)
        out[name + "y.diffusers"] = diffusers_rmsnorm(x, w)
        out[name + "y.diffusers.bias"] = diffusers_rmsnorm(x, w, b)
        out[name + "y.diffusers.no_weight"] = diffusers_rmsnorm(x)
        out[name + "y.diffusers.w32"] = diffusers_rmsnorm(x, w32)
        out[name + "y.diffusers.w32.bias32"] = diffusers_rmsnorm(x, w32, b32)
        out[name + "y.diffusers.w8"] = diffusers_rmsnorm(x, w8)
        out[name + "y.diffusers.w8.bias"] = diffusers_rmsnorm(x, w8, b)
        out[name + "y.gemma"] = (normalized(x) * (1.0 + w.float())).type_as(x)
        out[name + "y.t5"], out[name + "y.t5.w32"] = t5(x, w), t5(x, w32)
        out[name + "y.olmo2"] = (w * normalized(x)).to(dtype)
        out[name + "y.flux"] = flux(x, w)


def qwen_vae(rng, dtype, out):
    """QwenImageRMS_norm on [1, C, 4, 4]: F.normalize over channels, all in x's dtype or (since 2026) in fp32."""
    for c in (7, 96, 384):
        name = f"qwen_vae.C{c}."
        x = out[name + "x"] = draw(rng, dtype, 1, c, 4, 4)
        x[0, :, 3, 3] *= 2.0 ** -12
        x[0, :, 0, 0] = 0  # in fp16 the guard 1e-12 of F.normalize is 0 itself, and 0/0 is NaN
        gamma = out[name + "gamma"] = (1 + 0.3 * draw(rng, torch.float64, c, 1, 1)).to(dtype)
        bias = out[name + "bias"] = (0.5 * draw(rng, torch.float64, c, 1, 1)).to(dtype)
        for tag, n in (("before", F.normalize(x, dim=1)), ("fixed", F.normalize(x.float(), dim=1).to(dtype))):
            out[name + f"normalize.{tag}"] = n
            out[name + f"y.{tag}"] = n * c ** 0.5 * gamma + 0.0
            out[name + f"y.{tag}.bias"] = n * c ** 0.5 * gamma + bias


def other_norms(rng, dtype, out):
    for d in (8, 9, 100, 576, 1001):
        name = f"layernorm.D{d}."
        x = out[name + "x"] = draw(rng, dtype, ROWS, d, spread=1) + 1
        w = out[name + "weight"] = (1 + 0.3 * draw(rng, torch.float64, d)).to(dtype)
        b = out[name + "bias"] = (0.5 * draw(rng, torch.float64, d)).to(dtype)
        out[name + "y"] = F.layer_norm(x, (d,), w, b, EPS)
        out[name + "y.plain"] = F.layer_norm(x, (d,), None, None, EPS)
    for c, hw in ((8, 5), (64, 4)):
        name = f"groupnorm.C{c}."
        x = out[name + "x"] = draw(rng, dtype, 2, c, hw, hw) + 1
        w = out[name + "weight"] = (1 + 0.3 * draw(rng, torch.float64, c)).to(dtype)
        b = out[name + "bias"] = (0.5 * draw(rng, torch.float64, c)).to(dtype)
        out[name + "y"] = F.group_norm(x, 4, w, b, EPS)


def fp8_casts(rng):
    special = [0.0, -0.0, 240, 247.99, 248, 248.01, 256, 448, 463.99, 464, float(np.nextafter(np.float32(464), np.float32(1e9))),
               479.99, 480, 496, 512, 57344, 61439, 61440, 61441, 65504, 65536, 1e9, 3.4028235e38, float("inf"), float("nan")]
    for least in (2.0 ** -9, 2.0 ** -10, 2.0 ** -16, 2.0 ** -17):  # least subnormals: ties and neighbours of ties
        special += [least * k for k in (0.25, 0.5, 0.50001, 0.75, 1, 1.25, 1.5, 1.75, 2.5, 3.5, 7.5)]
    special += [1 + k / 16 for k in range(16)]
    special += list(np.exp2(rng.uniform(-20, 17, 400)) * np.sign(rng.standard_normal(400)))
    v = np.array(special, dtype=np.float32)
    x = torch.from_numpy(np.concatenate([v, -v]))
    out = {"cast.x": x}
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"):
        short = name.removeprefix("float8_")
        out[f"cast.{short}"] = x.to(getattr(torch, name)).view(torch.uint8)
        out[f"cast.{short}.one_by_one"] = torch.cat([e.reshape(1).to(getattr(torch, name)) for e in x]).view(torch.uint8)
        for label in ("bf16", "fp16"):
            out[f"cast.{short}.from_{label}"] = x.to(DTYPES[label]).to(getattr(torch, name)).view(torch.uint8)
    formats = {f"format.{name}": name.split(".")[1] for name in out if name != "cast.x"}
    return out, formats


def main(folder):
    torch.set_num_threads(1)
    for label, dtype in DTYPES.items():
        rng, out = np.random.default_rng(2026), {}
        for group in (reductions, elementwise, rmsnorms, qwen_vae, other_norms):
            group(rng, dtype, out)
        save(os.path.join(folder, f"torch_ops.{label}.safetensors"), out,
             {"profile": "torch_cpu", "eps": repr(EPS), "provenance": provenance("numpy", dtype=label)})
    out, formats = fp8_casts(np.random.default_rng(2026))
    save(os.path.join(folder, "torch_ops.fp8.safetensors"), out,
         {"profile": "torch_cpu", "provenance": provenance("numpy"), **formats})


if __name__ == "__main__":
    main(sys.argv[1])

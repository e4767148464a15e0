"""Records rotary embeddings on CPU, alone and behind the norm of queries and keys: transformers' and diffusers' functions.

    python capture_rope.py tests/golden/captures

One thread. One file per dtype of x: rope.DTYPE.safetensors; its metadata `calls` says what each tensor is. Tables are kept in
the shape that broadcasts to x; of a complex table cos is the real part and sin the imaginary one. FLUX's two lines are run as
they stand in its source (black-forest-labs/flux src/flux/math.py and modules/layers.py at 802fb47).
"""
import os
import sys

import numpy as np
import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen
from transformers.models.gpt_neox import modeling_gpt_neox as neox
from transformers.models.llama import modeling_llama as llama
from transformers.models.qwen3 import modeling_qwen3 as qwen3

from capture_model_norms import draw, fill
from recording import DTYPES, Recording

SEED = 20261127
TOKENS, HEADS = 5, 3
HALF, NEXT = {"pairing": "half"}, {"pairing": "interleaved"}


def angles(width):
    """Of rotary columns: [tokens, width / 2], the first token far from 0."""
    positions = torch.tensor([1000.0, 1.0, 2.0, 300.0, 17.0])
    return torch.outer(positions, 1.0 / 10000 ** (torch.arange(0, width, 2, dtype=torch.float32) / width))


def halves(width, dtype):
    t = torch.cat((angles(width), angles(width)), dim=-1)
    return t.cos().to(dtype), t.sin().to(dtype)


def flux_rope(x, cos, sin):
    freqs = torch.stack([cos, -sin, sin, cos], dim=-1).reshape(*cos.shape, 2, 2)
    pairs = x.float().reshape(*x.shape[:-1], -1, 1, 2)
    out = freqs[..., 0] * pairs[..., 0] + freqs[..., 1] * pairs[..., 1]
    return out.reshape(*x.shape).type_as(x)


def flux_norm(x, scale):
    dtype = x.dtype
    x = x.float()
    rrms = torch.rsqrt(torch.mean(x**2, dim=-1, keepdim=True) + 1e-6)
    return (x * rrms).to(dtype=dtype) * scale


def record(rng, dtype, out, d):
    """Heads before tokens for what is called so, tokens before heads for the rest."""
    by_head = out.keep(f"D{d}.by_head", draw(rng, dtype, 1, HEADS, TOKENS, d))
    by_token = out.keep(f"D{d}.by_token", draw(rng, dtype, 1, TOKENS, HEADS, d))
    cos_t, sin_t = (out.keep(f"D{d}.{n}_T", t[None, None]) for n, t in zip(("cos", "sin"), halves(d, dtype)))
    full = {"cos": cos_t, "sin": sin_t}
    out.call(f"D{d}.llama", "rope", "transformers.llama", {"x": by_head, **full},
             {"y": llama.apply_rotary_pos_emb(by_head, by_head, cos_t[0], sin_t[0])[0]}, attributes={"rotary": 0}, words=HALF)
    part_cos, part_sin = (out.keep(f"D{d}.{n}_part", t[None, None])
                          for n, t in zip(("cos", "sin"), halves(d // 4 * 2, dtype)))
    out.call(f"D{d}.gpt_neox", "rope", "transformers.gpt_neox", {"x": by_head, "cos": part_cos, "sin": part_sin},
             {"y": neox.apply_rotary_pos_emb(by_head, by_head, part_cos[0], part_sin[0])[0]},
             attributes={"rotary": part_cos.shape[-1]}, words=HALF)

    t = angles(d)
    cos, sin = (out.keep(f"D{d}.{n}", f(t)[:, None]) for n, f in (("cos", torch.cos), ("sin", torch.sin)))
    pairs = {"cos": cos, "sin": sin}
    twice = (cos[:, 0].repeat_interleave(2, -1), sin[:, 0].repeat_interleave(2, -1))
    out.call(f"D{d}.diffusers", "rope", "diffusers.real", {"x": by_token, **pairs},
             {"y": apply_rotary_emb(by_token, twice, sequence_dim=1)}, attributes={"rotary": 0}, words=NEXT)
    whole = (torch.cat((cos[:, 0],) * 2, -1), torch.cat((sin[:, 0],) * 2, -1))
    out.call(f"D{d}.diffusers.halves", "rope", "diffusers.halves", {"x": by_token, **pairs},
             {"y": apply_rotary_emb(by_token, whole, use_real_unbind_dim=-2, sequence_dim=1)}, attributes={"rotary": 0}, words=HALF)
    unit = torch.complex(cos[:, 0], sin[:, 0])
    out.call(f"D{d}.diffusers.complex", "rope", "diffusers.complex", {"x": by_token, **pairs},
             {"y": apply_rotary_emb_qwen(by_token, unit, use_real=False)}, attributes={"rotary": 0}, words=NEXT)
    out.call(f"D{d}.flux", "rope", "bfl.flux", {"x": by_token, **pairs}, {"y": flux_rope(by_token, cos, sin)},
             attributes={"rotary": 0}, words=NEXT)

    norm = fill(rng, qwen3.Qwen3RMSNorm(d, eps=1e-6), dtype)
    weight = out.keep(f"D{d}.weight", norm.weight)
    q = norm(by_head)
    out.call(f"D{d}.qwen3", "rmsnorm_rope", "transformers.qwen3", {"x": by_head, "weight": weight, **full},
             {"y": qwen3.apply_rotary_pos_emb(q, q, cos_t[0], sin_t[0])[0]}, {"eps": 1e-6, "rotary": 0}, words=HALF)
    module = RMSNorm(d, eps=1e-6).to(dtype)
    module.weight.copy_(weight)
    out.call(f"D{d}.qwen_image", "rmsnorm_rope", "diffusers.qwen_image", {"x": by_token, "weight": weight, **pairs},
             {"y": apply_rotary_emb_qwen(module(by_token), unit, use_real=False)}, {"eps": 1e-6, "rotary": 0}, words=NEXT)
    out.call(f"D{d}.flux.normed", "rmsnorm_rope", "bfl.flux", {"x": by_token, "weight": weight, **pairs},
             {"y": flux_rope(flux_norm(by_token, weight), cos, sin)}, {"eps": 1e-6, "rotary": 0}, words=NEXT)


def main(folder):
    torch.set_num_threads(1)
    for label, dtype in DTYPES.items():
        rng, out = np.random.default_rng(SEED), Recording(__file__, SEED, "numpy", "transformers", "diffusers")
        with torch.inference_mode():
            for d in (16, 20, 128):
                record(rng, dtype, out, d)
        out.save(os.path.join(folder, f"rope.{label}.safetensors"), dtype=label)


if __name__ == "__main__":
    main(sys.argv[1])

"""Records embedders, final layers and tables of rotary embeddings, site by site.

    python capture_embedders.py tests/golden/captures

One thread. blocks_embedders.safetensors has all three dtypes: calls NAME.DTYPE with norma's names of inputs and sites.

* embedding, qwen_embedding: diffusers' Timesteps as FLUX and Qwen-Image call it, after the lines of their transformers'
  forward that cast the timestep (and, FLUX, multiply it by 1000 there).
* embedder, vector: TimestepEmbedding; CombinedTimestepGuidanceTextProjEmbeddings, after the same lines.
* qwen_norm_out: AdaLayerNormContinuous and the projection after it. dit_final_layer: facebookresearch/DiT's FinalLayer, whose
  class no package has: its lines (models.py ed81ce2) as torch operations.
* rope.*: diffusers' FluxPosEmbed and QwenEmbedRope.rope_params, transformers' LlamaRotaryEmbedding; of
  black-forest-labs/flux, whose classes no package has, the lines of math.py (802fb47) as torch operations.

Steps inside a function are seen by the operators that torch dispatches.
"""
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models import embeddings
from diffusers.models.normalization import AdaLayerNormContinuous
from diffusers.models.transformers import transformer_flux, transformer_qwenimage
from torch.utils._python_dispatch import TorchDispatchMode

from recording import DTYPES, Recording

SEED = 20261127


class Operators(TorchDispatchMode):
    """What was called, in order: name, arguments, result."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls.append((function.overloadpacket.__name__, args, result))
        return result

    def all_of(self, name):
        return [(args, result) for called, args, result in self.calls if called == name]

    def maker_of(self, tensor):
        return next((args, result) for called, args, result in self.calls if result is tensor)


def numbers(rng, *shape, deviation=1.0):
    """Numbers that bf16, fp16 and fp32 all have."""
    t = torch.from_numpy(rng.standard_normal(shape) * deviation)
    return t.to(torch.bfloat16).to(torch.float16).to(torch.float32)


def fill(rng, module):
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(numbers(rng, *p.shape, deviation=p.shape[1] ** -0.5 if p.dim() == 2 else 0.2))
    return module.eval().requires_grad_(False)


def watch(values, module, name):
    module.register_forward_hook(lambda m, args, y: values.update({name: y.detach().clone()}))


def embedding_sites(values, prefix, given, t, scaled, operators, dtype):
    """Of one call of get_timestep_embedding."""
    (sine_args, sine), (cosine_args, cosine) = operators.all_of("sin")[0], operators.all_of("cos")[0]
    assert torch.equal(sine_args[0], cosine_args[0])
    values[prefix + "t"] = t
    if scaled is not None:
        values[prefix + "scaled"] = scaled
    values[prefix + "freqs"] = operators.all_of("exp")[0][1]
    values[prefix + "args"], values[prefix + "cos"], values[prefix + "sin"] = sine_args[0], cosine, sine
    values[prefix + "embedding"] = torch.cat([cosine, sine], dim=-1).to(dtype)


def keep(out, name, norm, operator, path, dtype_name, given, values, attributes):
    for k, t in given.items():
        out.keep(f"{name}.in.{k}", t)
    out.call(name, norm, operator, given, {k: v.contiguous() for k, v in values.items()}, attributes, path=path, format=dtype_name)


def parameters(module, names, dtype):
    """norma's NAME.weight and NAME.bias, from the modules that stand for them."""
    own = dict(module.named_modules())
    return {f"{name}.{part}": getattr(own[there], part).detach().to(dtype).clone()
            for there, name in names.items() for part in ("weight", "bias")}


def timesteps(rng):
    return torch.from_numpy(np.concatenate([[1.0, 0.0], rng.uniform(0, 1, 5)])).float()


def timestep_embeddings(rng, out):
    given = timesteps(rng)
    for label, dtype in DTYPES.items():
        for name, path, scale in (("embedding", "diffusers.flux.timestep_embedding", 1),
                                  ("qwen_embedding", "diffusers.qwen_image.timestep_embedding", 1000)):
            t = given.to(dtype)
            scaled = t * 1000 if scale == 1 else None
            module = embeddings.Timesteps(num_channels=256, flip_sin_to_cos=True, downscale_freq_shift=0, scale=scale)
            values = {}
            with Operators() as operators:
                y = module(t if scaled is None else scaled).to(dtype)
            embedding_sites(values, "", given, t, scaled, operators, dtype)
            assert torch.equal(values["embedding"], y)
            keep(out, f"{name}.{label}", "timestep_embedding", "diffusers.models.embeddings.Timesteps", path, label,
                 {"timestep": given.clone()}, values, {"dim": 256, "factor": 1000, "max_period": 10000, "shift": 0})


EMBEDDER = {"linear_1": "in_layer", "linear_2": "out_layer"}


def watch_embedder(values, module, prefix, activation="act"):
    for there, name in EMBEDDER.items():
        watch(values, getattr(module, there), prefix + name)
    watch(values, getattr(module, activation), prefix + "silu")


def embedders(rng, out):
    module = fill(rng, embeddings.TimestepEmbedding(in_channels=20, time_embed_dim=28))
    x = numbers(rng, 3, 20)
    for label, dtype in DTYPES.items():
        values, given = {}, {"x": x.to(dtype), **parameters(module, EMBEDDER, dtype)}
        block = embeddings.TimestepEmbedding(in_channels=20, time_embed_dim=28)
        block.load_state_dict(module.state_dict())
        block = block.to(dtype).eval()
        watch_embedder(values, block, "")
        block(given["x"])
        keep(out, f"embedder.{label}", "mlp_embedder", "diffusers.models.embeddings.TimestepEmbedding",
             "diffusers.timestep_embedder", label, given, values, {"width": 28})


def vectors(rng, out):
    width, pooled = 24, 20
    make = lambda: embeddings.CombinedTimestepGuidanceTextProjEmbeddings(width, pooled)
    module = fill(rng, make())
    parts = {"timestep_embedder": "time_in", "guidance_embedder": "guidance_in", "text_embedder": "vector_in"}
    names = {f"{there}.{layer}": f"{part}.{name}" for there, part in parts.items() for layer, name in EMBEDDER.items()}
    x, t = numbers(rng, 7, pooled), timesteps(rng)
    guidance = torch.tensor([3.5, 1.0, 3.5, 2.3, 7.77, 4.0, 30.0])
    for label, dtype in DTYPES.items():
        block = make()
        block.load_state_dict(module.state_dict())
        block, values = block.to(dtype).eval(), {}
        given = {"x": x.to(dtype), "timestep": t.clone(), "guidance": guidance.clone(), **parameters(module, names, dtype)}
        for there, part in parts.items():
            watch_embedder(values, getattr(block, there), part + ".", "act_1" if there == "text_embedder" else "act")
        for name, source in (("time", t), ("guidance", guidance)):
            cast = source.to(dtype)
            with Operators() as operators:
                block.time_proj(cast * 1000)
            embedding_sites(values, name + ".", source, cast, cast * 1000, operators, dtype)
        y = block(t.to(dtype) * 1000, guidance.to(dtype) * 1000, given["x"])
        values["time_and_guidance"] = values["time_in.out_layer"] + values["guidance_in.out_layer"]
        values["vec"] = y
        assert torch.equal(y, values["time_and_guidance"] + values["vector_in.out_layer"])
        keep(out, f"vector.{label}", "flux_vec", "diffusers.models.embeddings.CombinedTimestepGuidanceTextProjEmbeddings",
             "diffusers.flux.vec", label, given, values, {"width": width, "dim": 256, "factor": 1000, "max_period": 10000})


def tokens(rng, width):
    x = rng.standard_normal((2, 7, width))
    x[:, :, 5] *= 30
    x[:, :, 11] += 12
    return torch.from_numpy(x)


def final_layers(rng, out):
    width, patch = 40, 12
    qwen = torch.nn.Module()
    qwen.norm_out, qwen.proj_out = AdaLayerNormContinuous(width, width, elementwise_affine=False, eps=1e-6), torch.nn.Linear(width, patch)
    fill(rng, qwen)
    x, c = tokens(rng, width), torch.from_numpy(rng.standard_normal((2, width)))
    for label, dtype in DTYPES.items():
        block, values = qwen.to(torch.float32), {}
        weights = parameters(block, {"norm_out.linear": "norm_out.linear", "proj_out": "proj_out"}, dtype)
        block = block.to(dtype)
        given = {"x": x.to(dtype), "temb": c.to(dtype), **weights}
        n = block.norm_out
        hooks = [m.register_forward_hook(lambda m, args, y, name=name: values.update({name: y.detach().clone()}))
                 for m, name in ((n.silu, "norm_out.silu"), (n.linear, "norm_out.linear"), (n.norm, "norm"), (n, "modulate"))]
        values["proj_out"] = block.proj_out(n(given["x"], given["temb"]))
        for hook in hooks:
            hook.remove()
        keep(out, f"qwen_norm_out.{label}", "qwen_norm_out", "diffusers.models.normalization.AdaLayerNormContinuous",
             "diffusers.qwen_image.norm_out", label, given, values, {"out": patch, "eps": 1e-6})

        weights = {k.replace("norm_out.linear", "adaLN_modulation.1").replace("proj_out", "linear"): v.clone()
                   for k, v in weights.items()}
        given = {"x": x.to(dtype), "c": c.to(dtype), **weights}
        values = {"adaLN_modulation.0": F.silu(given["c"])}
        values["adaLN_modulation.1"] = F.linear(values["adaLN_modulation.0"], weights["adaLN_modulation.1.weight"], weights["adaLN_modulation.1.bias"])
        shift, scale = values["adaLN_modulation.1"].chunk(2, dim=1)
        values["norm"] = F.layer_norm(given["x"], (width,), eps=1e-6)
        values["modulate"] = values["norm"] * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)
        values["linear"] = F.linear(values["modulate"], weights["linear.weight"], weights["linear.bias"])
        keep(out, f"dit_final_layer.{label}", "dit_final_layer", "facebookresearch/DiT models.py FinalLayer, its lines",
             "facebook.dit.final_layer", label, given, values, {"out": patch, "eps": 1e-6})


AXES = [4, 14, 14]


def grid():
    return torch.tensor([[0, 0, 0]] * 2 + [[0, y, x] for y in range(4) for x in range(5)] + [[3, 100, 127], [1, 511, 4095]]).float()


def angle_sites(values, operators, a, angle):
    args, _ = operators.maker_of(angle)
    values[f"axis{a}.omega"], values[f"axis{a}.angle"] = args[1].reshape(-1), angle


def tables(rng, out):
    numbers_of = lambda axes, theta: {"head": sum(axes), "theta": theta, **{f"axis{k}": (axes + [0, 0])[k] for k in range(3)}}
    ids = grid()

    values = {}
    with Operators() as operators:
        cos, sin = transformer_flux.FluxPosEmbed(theta=10000, axes_dim=AXES)(ids)
    for a, (args, _) in enumerate(operators.all_of("cos")):
        angle_sites(values, operators, a, args[0])
    values["cos"], values["sin"] = cos[:, ::2], sin[:, ::2]
    keep(out, "rope.flux", "rope_from_ids", "diffusers FluxPosEmbed", "diffusers.flux.rope_ids", "fp32",
         {"ids": ids.clone()}, values, numbers_of(AXES, 10000))

    values, turns = {}, []
    for a, columns in enumerate(AXES):
        with Operators() as operators:
            turns.append(transformer_qwenimage.QwenEmbedRope.rope_params(None, ids[:, a].long(), columns, 10000))
        angle_sites(values, operators, a, operators.all_of("polar")[0][0][1])
    turns = torch.cat(turns, dim=1)
    values["cos"], values["sin"] = turns.real, turns.imag
    keep(out, "rope.qwen", "rope_from_ids", "diffusers QwenEmbedRope.rope_params", "diffusers.qwen_image.rope_ids", "fp32",
         {"ids": ids.clone()}, values, numbers_of(AXES, 10000))

    values, cosines, sines = {}, [], []
    for a, columns in enumerate(AXES):
        pos = ids[:, a]
        omega = 1.0 / (10000 ** (torch.arange(0, columns, 2, dtype=pos.dtype) / columns))
        angle = torch.einsum("...n,d->...nd", pos, omega)
        values[f"axis{a}.omega"], values[f"axis{a}.angle"] = omega, angle
        cosines.append(torch.cos(angle).float())
        sines.append(torch.sin(angle).float())
    values["cos"], values["sin"] = torch.cat(cosines, dim=1), torch.cat(sines, dim=1)
    keep(out, "rope.bfl", "rope_from_ids", "black-forest-labs/flux math.py rope, its lines", "bfl.flux.rope_ids", "fp32",
         {"ids": ids.clone()}, values, numbers_of(AXES, 10000))

    from transformers.models.llama import modeling_llama
    from transformers.models.llama.configuration_llama import LlamaConfig
    config = LlamaConfig(hidden_size=64, num_attention_heads=2, rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
    module = modeling_llama.LlamaRotaryEmbedding(config)
    positions = torch.tensor([0, 1, 2, 3, 7, 50, 1000, 8191, 100000])
    for label, dtype in DTYPES.items():
        with Operators() as operators:
            cos, sin = module(torch.zeros(1, 1, 1, dtype=dtype), positions[None])
        angle = operators.all_of("cos")[0][0][0][0, :, :16]
        keep(out, f"rope.llama.{label}", "rope_from_ids", "transformers LlamaRotaryEmbedding", "transformers.llama.rope_ids", label,
             {"ids": positions.float()[:, None]}, {"axis0.omega": module.inv_freq.clone(), "axis0.angle": angle, "cos": cos[0, :, :16], "sin": sin[0, :, :16]},
             numbers_of([32], 500000))


def main(folder):
    torch.set_num_threads(1)
    rng, out = np.random.default_rng(SEED), Recording(__file__, SEED, "numpy", "diffusers", "transformers")
    with torch.inference_mode():
        for group in (timestep_embeddings, embedders, vectors, final_layers, tables):
            group(rng, out)
    out.save(os.path.join(folder, "blocks_embedders.safetensors"))


if __name__ == "__main__":
    main(sys.argv[1])

"""Records the norm and modulation classes of diffusers and transformers on CPU, as those packages ship them.

    python capture_model_norms.py tests/golden/captures

One thread. One file per dtype of x: model_norms.DTYPE.safetensors; its metadata `calls` says what each tensor is. Classes
that map a conditioning to shift, scale and gate by a Linear keep the Linear's real output, cut as the class cuts it: the
matrix product is not what is recorded here. `.w32` and `.w16` are parameters in another dtype than x.
"""
import importlib
import importlib.util
import os
import sys

import numpy as np
import torch

from capture_torch_norms import hard_rows, images
from recording import DTYPES, Recording

SEED = 20261123
LENGTHS = (64, 100)
CONDITIONING = 24


def find(path):
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def draw(rng, dtype, *shape, mean=0.0, spread=1.0):
    return (mean + spread * torch.from_numpy(np.asarray(rng.standard_normal(shape)))).to(dtype)


def fill(rng, module, dtype):
    """Parameters that tell: norm weights near the value they are initialized with, the rest around 0."""
    module.to(dtype)
    with torch.no_grad():
        for name, p in module.named_parameters():
            is_norm = name.split(".")[-1] in ("weight", "gamma") and p.dim() != 2 and "linear" not in name
            mean = float(p.flatten()[0].float()) if is_norm else 0.0
            p.copy_(draw(rng, dtype, *p.shape, mean=mean, spread=0.3))
    return module.eval().requires_grad_(False)


# (class, norm, what it is constructed with, attributes of the call). Named weights are those the class declares.
T, D = "transformers.models.", "diffusers.models."
ROW_NORMS = [
    (T + "llama.modeling_llama.LlamaRMSNorm", "rmsnorm", {}, 1e-6),
    (T + "t5.modeling_t5.T5LayerNorm", "rmsnorm", {}, 1e-6),
    (T + "gemma.modeling_gemma.GemmaRMSNorm", "rmsnorm", {}, 1e-6),
    (T + "gemma2.modeling_gemma2.Gemma2RMSNorm", "rmsnorm", {}, 1e-6),
    (T + "gemma3.modeling_gemma3.Gemma3RMSNorm", "rmsnorm", {}, 1e-6),
    (T + "gemma3n.modeling_gemma3n.Gemma3nRMSNorm", "rmsnorm", {}, 1e-6),
    (T + "gemma4.modeling_gemma4.Gemma4RMSNorm", "rmsnorm", {}, 1e-6),
    (T + "olmo2.modeling_olmo2.Olmo2RMSNorm", "rmsnorm", {}, 1e-6),
    (T + "gpt_oss.modeling_gpt_oss.GptOssRMSNorm", "rmsnorm", {}, 1e-6),
    (T + "llama4.modeling_llama4.Llama4TextRMSNorm", "rmsnorm", {"eps": 1e-5}, 1e-5),
    (T + "llama4.modeling_llama4.Llama4TextL2Norm", "rmsnorm", {"eps": 1e-6, "no_size": True}, 1e-6),
    (T + "qwen3_next.modeling_qwen3_next.Qwen3NextRMSNorm", "rmsnorm", {}, 1e-6),
    (T + "cohere.modeling_cohere.CohereLayerNorm", "layernorm", {}, 1e-5),
    (T + "nemotron.modeling_nemotron.NemotronLayerNorm1P", "layernorm", {}, 1e-5),
    (T + "olmo.modeling_olmo.OlmoLayerNorm", "layernorm", {}, 1e-5),
    (D + "normalization.FP32LayerNorm", "layernorm", {"eps": 1e-6}, 1e-6),
    (D + "normalization.RMSNorm", "rmsnorm", {"eps": 1e-6}, 1e-6),
    (D + "normalization.RMSNorm", "rmsnorm", {"eps": 1e-6, "bias": True, "tag": "bias"}, 1e-6),
    (D + "normalization.RMSNorm", "rmsnorm", {"eps": 1e-6, "elementwise_affine": False, "tag": "plain"}, 1e-6),
    (D + "normalization.MochiRMSNorm", "rmsnorm", {"eps": 1e-6}, 1e-6),
    (D + "normalization.LpNorm", "l2norm", {"no_size": True}, 1e-12),
    (D + "transformers.transformer_krea2.Krea2RMSNorm", "rmsnorm", {}, 1e-5),
]


def row_norms(rng, dtype, out):
    for d in LENGTHS:
        x = out.keep(f"row.D{d}.x", hard_rows(rng, dtype, 9, d))
        for path, norm, options, eps in ROW_NORMS:
            options = dict(options)
            tag, no_size = options.pop("tag", ""), options.pop("no_size", False)
            cls = find(path)
            others = [(torch.float32, ".w32")] if dtype != torch.float32 else [(torch.bfloat16, ".w16")]
            for parameter_dtype, suffix in [(dtype, "")] + others:
                module = fill(rng, cls(**options) if no_size else cls(d, **options), parameter_dtype)
                given = {k: p for k, p in module.named_parameters()}
                if suffix and (not given or d != LENGTHS[0]):
                    continue
                name = f"{cls.__name__}.D{d}" + (f".{tag}" if tag else "") + suffix
                try:
                    y = module(x)
                except RuntimeError as refused:
                    out.refuse(name, path, refused)
                    continue
                for k, p in given.items():
                    out.keep(f"{name}.{k}", p)
                out.call(name, norm, path, {"x": x, **given}, {"y": y}, {"eps": eps})


def gated_norms(rng, dtype, out):
    """Norms with silu(gate), before or after; x in the middle of the range, so that silu's own error shows."""
    for d, group in ((64, 64), (64, 16), (100, 100)):
        site = f"gated.D{d}.G{group}"
        x = out.keep(f"{site}.x", draw(rng, dtype, 6, d, spread=2.0))
        gate = out.keep(f"{site}.gate", draw(rng, dtype, 6, d, spread=3.0))
        for path, sized in ((T + "qwen3_next.modeling_qwen3_next.Qwen3NextRMSNormGated", False),
                            (T + "mamba2.modeling_mamba2.MambaRMSNormGated", True),
                            (T + "zamba2.modeling_zamba2.Zamba2RMSNormGated", True)):
            if not sized and group != d:
                continue
            for parameter_dtype, suffix in ((dtype, ""), (torch.float32, ".w32")):
                if suffix and dtype == torch.float32:
                    continue
                cls = find(path)
                module = fill(rng, cls(d, group, eps=1e-6) if sized else cls(d, eps=1e-6), parameter_dtype)
                name = f"{cls.__name__}.D{d}.G{group}{suffix}"
                w = out.keep(f"{name}.weight", module.weight)
                out.call(name, "rmsnorm_gated", path, {"x": x, "gate": gate, "weight": w}, {"y": module(x, gate)},
                         {"eps": 1e-6}, group_size=group)


def channel_norms(rng, dtype, out):
    """Norms of [N, C, ...]: the VAE's L2 norm over channels, GRN, and GroupNorm under a modulation."""
    path = D + "autoencoders.autoencoder_kl_qwenimage.QwenImageRMS_norm"
    for c, bias in ((7, False), (96, False), (96, True)):
        module = fill(rng, find(path)(c, images=True, bias=bias), dtype)
        name = f"QwenImageRMS_norm.C{c}" + (".bias" if bias else "")
        x = out.keep(f"{name}.x", images(rng, dtype, 1, c, 4, 4))
        given = {k: out.keep(f"{name}.{k}", p) for k, p in module.named_parameters()}
        out.call(name, "l2norm_channels", path, {"x": x, **given}, {"y": module(x)}, {"eps": 1e-12})
    path = D + "normalization.GlobalResponseNorm"
    module = fill(rng, find(path)(24), dtype)
    x = out.keep("GlobalResponseNorm.x", draw(rng, dtype, 2, 5, 6, 24))
    given = {k: out.keep(f"GlobalResponseNorm.{k}", p) for k, p in module.named_parameters()}
    out.call("GlobalResponseNorm", "grn", path, {"x": x, **given}, {"y": module(x)}, {"eps": 1e-6})
    path = D + "normalization.AdaGroupNorm"
    module = fill(rng, find(path)(CONDITIONING, 32, 8), dtype)
    x = out.keep("AdaGroupNorm.x", images(rng, dtype, 2, 32, 5, 5))
    emb = conditioned(module, "linear", lambda: module(x, draw(rng, dtype, 2, CONDITIONING)))
    scale, shift = cut(out, "AdaGroupNorm", emb.linear, ("scale", "shift"))
    out.call("AdaGroupNorm", "ada_groupnorm", path, {"x": x, "scale": scale, "shift": shift}, {"y": emb.result},
             {"eps": 1e-5, "groups": 8})


class conditioned:
    """Runs a call and keeps what the module's Linear gave in it."""

    def __init__(self, module, name, run):
        hook = getattr(module, name).register_forward_hook(lambda m, args, y: setattr(self, "linear", y.clone()))
        self.result = run()
        hook.remove()


def cut(out, name, linear, names, dim=-1):
    return [out.keep(f"{name}.{k}", part.clone()) for k, part in zip(names, linear.chunk(len(names), dim))]


SIX = ("shift", "scale", "gate", "shift_mlp", "scale_mlp", "gate_mlp")
NINE = SIX + ("shift_2", "scale_2", "gate_2")
N = D + "normalization."
# (class, norm, constructor's words after the sizes, names of the Linear's chunks, eps)
MODULATED = [
    (N + "AdaLayerNormZero", "ada_layernorm", lambda d: ((d,), {}), SIX, 1e-6),
    (N + "AdaLayerNormZero", "ada_layernorm", lambda d: ((d,), {"norm_type": "fp32_layer_norm", "tag": "fp32"}), SIX, 1e-5),
    (N + "AdaLayerNormZeroSingle", "ada_layernorm", lambda d: ((d,), {}), SIX[:3], 1e-6),
    (N + "SD35AdaLayerNormZeroX", "ada_layernorm", lambda d: ((d,), {}), NINE, 1e-6),
    (N + "LuminaRMSNormZero", "ada_rmsnorm", lambda d: ((d, 1e-5, True), {}), ("scale", "gate", "scale_mlp", "gate_mlp"), 1e-5),
    (N + "AdaLayerNormContinuous", "ada_layernorm",
     lambda d: ((d, CONDITIONING), {"elementwise_affine": False, "eps": 1e-6}), ("scale", "shift"), 1e-6),
    (N + "AdaLayerNormContinuous", "ada_layernorm", lambda d: ((d, CONDITIONING), {"tag": "affine"}), ("scale", "shift"), 1e-5),
    (N + "AdaLayerNormContinuous", "ada_rmsnorm",
     lambda d: ((d, CONDITIONING), {"elementwise_affine": False, "eps": 1e-6, "norm_type": "rms_norm", "tag": "rms"}),
     ("scale", "shift"), 1e-6),
    (N + "AdaLayerNormContinuous", "ada_rmsnorm",
     lambda d: ((d, CONDITIONING), {"norm_type": "rms_norm", "tag": "rms.affine"}), ("scale", "shift"), 1e-5),
    (N + "LuminaLayerNormContinuous", "ada_layernorm",
     lambda d: ((d, CONDITIONING), {"elementwise_affine": False, "eps": 1e-6}), ("scale",), 1e-6),
    (D + "transformers.transformer_mochi.MochiRMSNormZero", "ada_rmsnorm", lambda d: ((CONDITIONING, 4 * d), {}),
     ("scale", "gate", "scale_mlp", "gate_mlp"), 1e-5),
    (D + "transformers.transformer_mochi.MochiLayerNormContinuous", "ada_rmsnorm", lambda d: ((d, CONDITIONING), {}),
     ("scale",), 1e-5),
]


def modulated_norms(rng, dtype, out):
    for d in LENGTHS:
        x = out.keep(f"ada.D{d}.x", hard_rows(rng, dtype, 10, d).reshape(2, 5, d))
        for path, norm, construct, names, eps in MODULATED:
            words, options = construct(d)
            tag = options.pop("tag", "")
            cls = find(path)
            module = fill(rng, cls(*words, **options), dtype)
            linear = "linear" if hasattr(module, "linear") else "linear_1"
            conditioning = draw(rng, dtype, 2, getattr(module, linear).in_features)
            name = f"{cls.__name__}.D{d}" + (f".{tag}" if tag else "")
            by_keyword = {"emb": conditioning} if len(names) in (3, 4, 6, 9) else None
            seen = conditioned(module, linear, lambda: module(x, **by_keyword) if by_keyword else module(x, conditioning))
            given = dict(zip(names, cut(out, name, seen.linear, names)))
            norm_parameters = {k.split(".")[-1]: out.keep(f"{name}.{k}", p) for k, p in module.named_parameters()
                               if k.startswith("norm.")}
            y = seen.result[0] if isinstance(seen.result, tuple) else seen.result
            outputs = {"y": y}
            used = {k: given[k] for k in ("scale", "shift") if k in given}
            out.call(name, norm, path, {"x": x, **norm_parameters, **used}, outputs, {"eps": eps})
            if "scale_2" in given:
                out.call(f"{name}.second", norm, path, {"x": x, "scale": given["scale_2"], "shift": given["shift_2"]},
                         {"y": seen.result[5]}, {"eps": eps})
        path, name = N + "AdaLayerNorm", f"AdaLayerNorm.D{d}"
        module = fill(rng, find(path)(d, output_dim=2 * d, chunk_dim=1), dtype)
        seen = conditioned(module, "linear", lambda: module(x, temb=draw(rng, dtype, 2, d)))
        shift, scale = cut(out, f"{name}.chunk_dim1", seen.linear, ("shift", "scale"))
        out.call(f"{name}.chunk_dim1", "ada_layernorm", path, {"x": x, "scale": scale, "shift": shift}, {"y": seen.result}, {"eps": 1e-5})
        module = fill(rng, find(path)(d, num_embeddings=4), dtype)
        seen = conditioned(module, "linear", lambda: module(x, timestep=torch.tensor(2)))
        scale, shift = cut(out, name, seen.linear, ("scale", "shift"), 0)
        out.call(name, "ada_layernorm", path, {"x": x, "scale": scale, "shift": shift}, {"y": seen.result}, {"eps": 1e-5})


def modulations(rng, dtype, out):
    """Modulation and gate alone: Qwen-Image's own method; the lines of FLUX, DiT and ADM, which no package holds as a
    function, as eager torch runs them."""
    for d in LENGTHS:
        site = f"modulate.D{d}"
        x = out.keep(f"{site}.x", draw(rng, dtype, 2, 5, d))
        parts = [out.keep(f"{site}.{k}", draw(rng, dtype, 2, d, spread=0.5)) for k in ("shift", "scale", "gate")]
        shift, scale, gate = parts
        path = D + "transformers.transformer_qwenimage.QwenImageTransformerBlock._modulate"
        block, method = path.rsplit(".", 1)
        y, _ = getattr(find(block), method)(None, x, torch.cat(parts, -1))
        out.call(f"{site}.qwen", "modulate", path, {"x": x, "scale": scale, "shift": shift}, {"y": y})
        for tag, line, run in (
                ("flux", "(1 + scale) * x + shift", lambda s, t: (1 + s) * x + t),
                ("dit", "x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)", lambda s, t: x * (1 + s) + t),
                ("wan", "(x.float() * (1 + scale.float()) + shift.float()).type_as(x)",
                 lambda s, t: (x.float() * (1 + s.float()) + t.float()).type_as(x)),
                ("film", "scale * x + shift", lambda s, t: s * x + t)):
            out.call(f"{site}.{tag}", "film" if tag == "film" else "modulate", line, {"x": x, "scale": scale, "shift": shift},
                     {"y": run(scale[:, None], shift[:, None])})
        f = out.keep(f"{site}.f", draw(rng, dtype, 2, 5, d))
        for tag, line, run in (
                ("gate.flux", "x + gate * f", lambda g: x + g * f),
                ("gate.wan", "(x.float() + f * gate.float()).type_as(x)", lambda g: (x.float() + f * g.float()).type_as(x)),
                ("gate.z_image", "x + tanh(gate) * f", lambda g: x + torch.tanh(g) * f)):
            out.call(f"{site}.{tag}", "gated_residual", line, {"x": x, "f": f, "gate": gate}, {"y": run(gate[:, None])})


def main(folder):
    assert importlib.util.find_spec("kernels") is None, "the package kernels may replace a class's forward"
    torch.set_num_threads(1)
    for label, dtype in DTYPES.items():
        rng, out = np.random.default_rng(SEED), Recording(__file__, SEED, "numpy", "diffusers", "transformers")
        with torch.inference_mode():
            for group in (row_norms, gated_norms, channel_norms, modulated_norms, modulations):
                group(rng, dtype, out)
        out.save(os.path.join(folder, f"model_norms.{label}.safetensors"), dtype=label)


if __name__ == "__main__":
    main(sys.argv[1])

"""Records FLUX's and Qwen-Image's transformer blocks site by site on CPU: diffusers' own classes.

    python capture_blocks_flux.py tests/golden/captures

One thread. Two files, blocks_flux.safetensors and blocks_qwen_image.safetensors, of all three dtypes: a block's weights
are numbers of all of them, kept once, in bf16, under the class's own names (BLOCK.NAME). A call BLOCK.DTYPE has the
tensors that the block was given, and as outputs what every site stored, under norma's names of inputs and sites.
"""
import os
import sys

import numpy as np
import torch
from diffusers.models.normalization import AdaLayerNormContinuous
from diffusers.models.transformers import transformer_flux, transformer_qwenimage

from recording import DTYPES, Recording

SEED = 20261125
BATCH, TEXT, IMAGE = 2, 4, 7


def in_all_formats(t):
    """Numbers that bf16, fp16 and fp32 all have."""
    return t.to(torch.bfloat16).to(torch.float16).to(torch.bfloat16)


def fill(rng, module):
    """Linears that keep the size of what they are given, weights of norms near 1."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            t = torch.from_numpy(np.asarray(rng.standard_normal(tuple(p.shape))))
            if p.dim() == 2:
                t = t / p.shape[1] ** 0.5
            elif "norm_" in name:
                t = 1 + 0.2 * t
            else:
                t = 0.2 * t
            p.copy_(in_all_formats(t))
    return module.eval().requires_grad_(False)


def stream(rng, tokens, width):
    """Tokens with a channel that is far larger than the others and one far from 0."""
    t = rng.standard_normal((BATCH, tokens, width))
    t[:, :, 5] *= 30
    t[:, :, 11] += 12
    return torch.from_numpy(t)


def table(rng, tokens, head):
    """cos and sin of angles, [tokens, head / 2]; the first position turns nothing."""
    angles = rng.uniform(0, 40, (tokens, head // 2))
    angles[0] = 0
    return torch.from_numpy(np.cos(angles)).float(), torch.from_numpy(np.sin(angles)).float()


class Sites:
    """What modules and functions give while a block runs."""

    def __init__(self):
        self.values, self.undo = {}, []

    def put(self, name, value):
        assert name not in self.values, name
        self.values[name] = value.detach().clone()

    def gives(self, module, name):
        self.undo.append(module.register_forward_hook(lambda m, args, y: self.put(name, y)).remove)

    def takes(self, module, name):
        """What is handed to a module is what the site before it stored."""
        self.undo.append(module.register_forward_pre_hook(lambda m, args: self.put(name, args[0])).remove)

    def function(self, place, function, names):
        """A function of a module: its calls in turn have these names."""
        real, queue = getattr(place, function), list(names)

        def wrapped(*args, **kwargs):
            y = real(*args, **kwargs)
            self.put(queue.pop(0), y)
            return y

        setattr(place, function, wrapped)
        self.undo.append(lambda: (setattr(place, function, real), self.finished(queue)))

    @staticmethod
    def finished(queue):
        assert not queue, queue

    def close(self):
        for undo in self.undo:
            undo()


IMG = {"q": "to_q", "k": "to_k", "v": "to_v", "q_norm": "norm_q", "k_norm": "norm_k"}
TXT = {"q": "add_q_proj", "k": "add_k_proj", "v": "add_v_proj", "q_norm": "norm_added_q", "k_norm": "norm_added_k"}
MODELS = "diffusers.models.transformers."


def watch_heads(sites, attn, prefix, parts):
    for site, part in parts.items():
        sites.gives(getattr(attn, part), prefix + site)


def watch_attention(sites, module, rotation, turned):
    sites.function(module, rotation, turned)
    sites.function(module, "dispatch_attention_fn", ["attention"])


def watch_stream(sites, s, mod, norm1, into_q, to_out, norm2, net):
    """One stream of a block: `into_q` takes what the first modulation stored, `net` what the second did."""
    sites.gives(mod, f"{s}.mod")
    sites.gives(norm1, f"{s}.norm1")
    sites.takes(into_q, f"{s}.modulate1")
    sites.gives(to_out, f"{s}.proj")
    sites.takes(norm2, f"{s}.gate1")
    sites.gives(norm2, f"{s}.norm2")
    sites.takes(net[0].proj, f"{s}.modulate2")
    sites.gives(net[0].proj, f"{s}.mlp.0")
    sites.gives(net[0], f"{s}.mlp.1")
    sites.gives(net[2], f"{s}.mlp.2")


def kept_weights(out, name, module):
    """By the class's own names, to which the call refers."""
    for k, p in module.named_parameters():
        out.keep(f"{name}.{k}", p.to(torch.bfloat16))
    return {k: f"{name}.{k}" for k, _ in module.named_parameters()}


def record(out, call, class_name, norm, attributes, given, weights, run, sites, results):
    for s, y in zip(results, run()):
        sites.put(s, y)
    sites.close()
    # The function hands on [batch, tokens, heads, head]; the site is [batch, heads, tokens, head].
    sites.values["attention"] = sites.values["attention"].permute(0, 2, 1, 3).contiguous()
    for k, t in given.items():
        out.keep(f"{call}.{k}", t)
    out.call(call, norm, MODELS + class_name, {**given, **weights}, sites.values, attributes)


def two_streams(rng, width, head):
    """Inputs of a block of two streams, in binary64 but for the tables."""
    img, txt = stream(rng, IMAGE, width), stream(rng, TEXT, width)
    vec = torch.from_numpy(rng.standard_normal((BATCH, width)))
    return img, txt, vec, table(rng, TEXT + IMAGE, head)


def record_double(out, call, block, given, weights, attributes):
    sites, attn = Sites(), block.attn
    sites.gives(block.norm1.silu, "vec.silu")
    watch_stream(sites, "img", block.norm1.linear, block.norm1.norm, attn.to_q, attn.to_out[0], block.norm2,
                 block.ff.net)
    context = block.norm1_context
    watch_stream(sites, "txt", context.linear, context.norm, attn.add_q_proj, attn.to_add_out, block.norm2_context,
                 block.ff_context.net)
    watch_heads(sites, attn, "img.", IMG)
    watch_heads(sites, attn, "txt.", TXT)
    watch_attention(sites, transformer_flux, "apply_rotary_emb", ["q.rope", "k.rope"])
    twice = tuple(given[t].repeat_interleave(2, dim=1) for t in ("cos", "sin"))
    record(out, call, "transformer_flux.FluxTransformerBlock", "flux_double_block", attributes, given, weights,
           lambda: block(given["img"], given["txt"], given["vec"], twice), sites, ("txt.out", "img.out"))
    return sites.values


def doubles(rng, out):
    heads, head = 2, 32
    module = fill(rng, transformer_flux.FluxTransformerBlock(heads * head, heads, head))
    weights, attributes = kept_weights(out, "double", module), {"heads": heads, "text": TEXT, "eps": 1e-6}
    img, txt, vec, (cos, sin) = two_streams(rng, heads * head, head)
    for label, dtype in DTYPES.items():
        given = {"img": img.to(dtype), "txt": txt.to(dtype), "vec": vec.to(dtype), "cos": cos.clone(),
                 "sin": sin.clone()}
        record_double(out, f"double.{label}", module.to(dtype), given, weights, attributes)
    # so near the edge of fp16 that only the text stream's last sum is beyond it
    large = {"img": img.half(), "txt": (65300 * torch.sign(txt)).half(), "vec": (8 * vec).half(), "cos": cos.clone(),
             "sin": sin.clone()}
    seen = record_double(out, "double.clipped.fp16", module.half(), large, weights, attributes)
    beyond = seen["txt.gate1"] + seen["txt.mod"].chunk(6, dim=1)[5].unsqueeze(1) * seen["txt.mlp.2"]
    assert torch.isinf(beyond).any() and not torch.isnan(beyond).any()


def singles(rng, out):
    heads, head = 2, 32
    width = heads * head
    module = fill(rng, transformer_flux.FluxSingleTransformerBlock(width, heads, head, mlp_ratio=2.0))
    weights = kept_weights(out, "single", module)
    x, vec = stream(rng, TEXT + IMAGE, width), torch.from_numpy(rng.standard_normal((BATCH, width)))
    cos, sin = table(rng, TEXT + IMAGE, head)
    for label, dtype in DTYPES.items():
        block = module.to(dtype)
        given = {"x": x.to(dtype), "vec": vec.to(dtype), "cos": cos.clone(), "sin": sin.clone()}
        sites = Sites()
        sites.gives(block.norm.silu, "vec.silu")
        sites.gives(block.norm.linear, "mod")
        sites.gives(block.norm.norm, "norm")
        sites.takes(block.proj_mlp, "modulate")
        sites.gives(block.proj_mlp, "mlp.0")
        sites.gives(block.act_mlp, "mlp.1")
        sites.gives(block.proj_out, "proj")
        watch_heads(sites, block.attn, "", IMG)
        watch_attention(sites, transformer_flux, "apply_rotary_emb", ["q.rope", "k.rope"])
        twice = tuple(t.repeat_interleave(2, dim=1) for t in (cos, sin))

        def run():
            txt, img = given["x"][:, :TEXT], given["x"][:, TEXT:]
            return (torch.cat(block(img, txt, given["vec"], twice), dim=1),)

        record(out, f"single.{label}", "transformer_flux.FluxSingleTransformerBlock", "flux_single_block",
               {"heads": heads, "mlp": 2 * width, "eps": 1e-6}, given, weights, run, sites, ("y",))


def last_layers(rng, out):
    """The transformer's last two modules, under the names that they have there."""
    width = 64
    module = torch.nn.Module()
    module.norm_out = AdaLayerNormContinuous(width, width, elementwise_affine=False, eps=1e-6)
    module.proj_out = torch.nn.Linear(width, 16)
    weights = kept_weights(out, "last", fill(rng, module))
    x, vec = stream(rng, IMAGE, width), torch.from_numpy(rng.standard_normal((BATCH, width)))
    for label, dtype in DTYPES.items():
        block = module.to(dtype)
        given = {"x": x.to(dtype), "vec": vec.to(dtype)}
        sites = Sites()
        sites.gives(block.norm_out.silu, "vec.silu")
        sites.gives(block.norm_out.linear, "both")
        sites.gives(block.norm_out.norm, "norm")
        sites.gives(block.norm_out, "modulate")
        sites.put("y", block.proj_out(block.norm_out(given["x"], given["vec"])))
        sites.close()
        sites.values["scale"], sites.values["shift"] = (t.clone() for t in sites.values.pop("both").chunk(2, dim=1))
        for k, t in given.items():
            out.keep(f"last.{label}.{k}", t)
        out.call(f"last.{label}", "flux_last_layer", "diffusers.models.normalization.AdaLayerNormContinuous",
                 {**given, **weights}, sites.values, {"out": 16, "eps": 1e-6})


def tables(rng, out):
    """FLUX's positions: text at 0, image tokens in rows of five."""
    ids = torch.tensor([[0, 0, 0]] * 2 + [[0, y, x] for y in range(4) for x in range(5)] + [[3, 100, 127]])
    cos, sin = transformer_flux.FluxPosEmbed(theta=10000, axes_dim=[4, 14, 14])(ids)
    assert torch.equal(cos[:, ::2], cos[:, 1::2]) and torch.equal(sin[:, ::2], sin[:, 1::2])
    out.keep("tables.ids", ids.float())
    out.call("tables", "rope_tables", MODELS + "transformer_flux.FluxPosEmbed", {"ids": "tables.ids"},
             {"cos": cos[:, ::2].contiguous(), "sin": sin[:, ::2].contiguous()}, {"theta": 10000})


def qwen_images(rng, out):
    heads, head = 3, 16
    module = fill(rng, transformer_qwenimage.QwenImageTransformerBlock(heads * head, heads, head))
    weights = kept_weights(out, "block", module)
    img, txt, vec, (cos, sin) = two_streams(rng, heads * head, head)
    for label, dtype in DTYPES.items():
        block = module.to(dtype)
        given = {"img": img.to(dtype), "txt": txt.to(dtype), "vec": vec.to(dtype), "cos": cos.clone(),
                 "sin": sin.clone()}
        sites, attn = Sites(), block.attn
        sites.gives(block.img_mod[0], "vec.silu")
        watch_stream(sites, "img", block.img_mod[1], block.img_norm1, attn.to_q, attn.to_out[0], block.img_norm2,
                     block.img_mlp.net)
        watch_stream(sites, "txt", block.txt_mod[1], block.txt_norm1, attn.add_q_proj, attn.to_add_out, block.txt_norm2,
                     block.txt_mlp.net)
        watch_heads(sites, attn, "img.", IMG)
        watch_heads(sites, attn, "txt.", TXT)
        watch_attention(sites, transformer_qwenimage, "apply_rotary_emb_qwen",
                        ["img.q.rope", "img.k.rope", "txt.q.rope", "txt.k.rope"])
        turns = torch.complex(cos, sin)
        record(out, f"block.{label}", "transformer_qwenimage.QwenImageTransformerBlock", "qwen_image_block",
               {"heads": heads, "text": TEXT, "eps": 1e-6}, given, weights,
               lambda: block(given["img"], given["txt"], None, given["vec"], (turns[TEXT:], turns[:TEXT])), sites,
               ("txt.out", "img.out"))


def main(folder):
    torch.set_num_threads(1)
    for name, groups in (("blocks_flux", (doubles, singles, last_layers, tables)), ("blocks_qwen_image", (qwen_images,))):
        rng, out = np.random.default_rng(SEED), Recording(__file__, SEED, "numpy", "diffusers")
        with torch.inference_mode():
            for group in groups:
                group(rng, out)
        out.save(os.path.join(folder, f"{name}.safetensors"))


if __name__ == "__main__":
    main(sys.argv[1])

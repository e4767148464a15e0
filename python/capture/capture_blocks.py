"""Records real transformer blocks site by site: what every step of a block took in and gave out.

    python capture_blocks.py tests/golden/captures

* blocks_llama: transformers' LlamaDecoderLayer, causal, grouped queries, with scaled_dot_product_attention and with eager
  attention on the same tensors.
* blocks_wan: diffusers' WanTransformerBlock; scale_shift_table and LayerNorms stay fp32, as _keep_in_fp32_modules has it.
* blocks_dit: facebookresearch/DiT's DiTBlock, whose class no package has: its lines (models.py ed81ce2, with timm's Attention
  and Mlp) as torch operations, and the class that diffusers runs DiT's weights with, on the same tensors.

Weights are seeded and small: a width of 40 to 56, which no vector register divides. One file a block and dtype:
blocks_NAME.DTYPE.safetensors, whose `calls` name the block, its path, attributes, inputs (weights among them) and, as
outputs, what was recorded at each site. Values are as the block's own modules passed them on: forward hooks see modules, and
functions that a module calls are wrapped where they stand.
"""
import contextlib
import inspect
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from recording import DTYPES, Recording

SEED = 6


class Draw:
    """Normal numbers, the same for every dtype."""

    def __init__(self, seed):
        self.generator = np.random.default_rng(seed)

    def __call__(self, *shape, deviation=1.0, mean=0.0):
        return torch.from_numpy(self.generator.normal(mean, deviation, shape)).to(torch.float32)

    def activations(self, *shape):
        """With a few channels that are larger than the others, as in trained networks."""
        channels = torch.from_numpy(np.exp2(self.generator.integers(0, 6, shape[-1]) * (self.generator.random(shape[-1]) < 0.1)))
        return self(*shape) * channels.to(torch.float32)

    def fill(self, module):
        """Matrices that keep the size of what they are given, weights of norms around 1, small biases."""
        for name, parameter in module.named_parameters():
            shape = tuple(parameter.shape)
            if "norm" in name and name.endswith("weight"):
                values = self(*shape, deviation=0.2, mean=1.0)
            elif len(shape) == 2:
                values = self(*shape, deviation=shape[1] ** -0.5)
            else:
                values = self(*shape, deviation=0.1 if len(shape) == 1 else shape[-1] ** -0.5)
            with torch.no_grad():
                parameter.copy_(values)


class Sites:
    """Collects what modules and functions give, by the site's name."""

    def __init__(self):
        self.values, self.undo = {}, []

    def keep(self, name, value):
        assert name not in self.values, name
        self.values[name] = value.detach().clone().contiguous()

    def output(self, name, module):
        self.undo.append(module.register_forward_hook(lambda m, args, y: self.keep(name, y)).remove)

    def input(self, name, module, cast=None):
        """What a module is given, in `cast` if the site stores it there (an fp32 copy is the same number)."""
        def hook(m, args, kwargs):
            value = args[0] if args else kwargs["hidden_states"]
            if cast is not None:
                assert torch.equal(value.to(cast).to(value.dtype), value)
                value = value.to(cast)
            self.keep(name, value)
        self.undo.append(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def wrap(self, holder, function, keep):
        """`holder.function` as before, but keep(arguments, result) sees each call."""
        own = getattr(holder, function)

        def wrapped(*args, **kwargs):
            result = own(*args, **kwargs)
            keep(inspect.signature(own).bind(*args, **kwargs).arguments, result)
            return result
        setattr(holder, function, wrapped)
        self.undo.append(lambda: setattr(holder, function, own))

    @contextlib.contextmanager
    def listening(self):
        try:
            with torch.inference_mode():
                yield
        finally:
            for undo in self.undo:
                undo()


def keep_inputs(recording, module, inputs):
    """Inputs and parameters, each under its own name; what a call names."""
    given = {name: recording.keep(name, value) for name, value in inputs.items()}
    for name, parameter in module.named_parameters():
        given[name] = recording.keep(name, parameter.detach())
    return given


# ---- LLaMA ----

def llama(recording, dtype, draw):
    from transformers.models.llama import modeling_llama as code
    from transformers.models.llama.configuration_llama import LlamaConfig
    heads, kv_heads, size, mlp, batch, tokens, eps = 4, 2, 14, 122, 2, 9, 1e-5
    width = heads * size

    def layer_of(attention):
        config = LlamaConfig(hidden_size=width, intermediate_size=mlp, num_attention_heads=heads,
                             num_key_value_heads=kv_heads, rms_norm_eps=eps, num_hidden_layers=1,
                             attn_implementation=attention)
        return code.LlamaDecoderLayer(config, 0), config
    reference, config = layer_of("sdpa")
    draw.fill(reference)
    reference = reference.to(dtype).eval()
    x = draw.activations(batch, tokens, width).to(dtype)
    cos, sin = code.LlamaRotaryEmbedding(config)(x, torch.arange(tokens)[None])
    given = keep_inputs(recording, reference, {"x": x, "cos": cos[0], "sin": sin[0]})
    # As transformers' create_causal_mask makes it for eager attention.
    mask = torch.full((tokens, tokens), torch.finfo(dtype).min, dtype=dtype).triu(1)[None, None]

    for attention in ("sdpa", "eager"):
        layer, _ = layer_of(attention)
        layer = layer.to(dtype).eval()
        layer.load_state_dict(reference.state_dict())
        sites = Sites()
        own = layer.self_attn
        sites.output("input_layernorm", layer.input_layernorm)
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            sites.output(f"self_attn.{part}", getattr(own, part))

        def rotated(arguments, result):
            sites.keep("self_attn.q_rope", result[0])
            sites.keep("self_attn.k_rope", result[1])
        holder = own if "apply_rotary_pos_emb" in vars(own) or "apply_rotary_pos_emb" in vars(type(own)) else code
        sites.wrap(holder, "apply_rotary_pos_emb", rotated)
        merged = {}
        own.o_proj.register_forward_pre_hook(lambda m, args: merged.update(value=args[0].detach().clone()))
        sites.input("self_attn.residual", layer.post_attention_layernorm)
        sites.output("post_attention_layernorm", layer.post_attention_layernorm)
        for part in ("gate_proj", "up_proj", "act_fn", "down_proj"):
            sites.output(f"mlp.{part}", getattr(layer.mlp, part))
        sites.input("mlp.product", layer.mlp.down_proj)
        sites.output("y", layer)
        with sites.listening():
            layer(x, attention_mask=mask if attention == "eager" else None, position_embeddings=(cos, sin))
        # [batch, tokens, heads size] as the attention's own [batch, heads, tokens, size].
        sites.keep("self_attn.attention", merged["value"].unflatten(-1, (heads, size)).transpose(1, 2))
        recording.call(f"llama.{attention}", "llama_block", "transformers LlamaDecoderLayer", given, sites.values,
                       {"heads": heads, "kv_heads": kv_heads, "head_dim": size, "mlp": mlp, "eps": eps},
                       path="transformers.llama.block" + (".eager" if attention == "eager" else ""))


# ---- Wan ----

def wan(recording, dtype, draw):
    from diffusers.models.transformers import transformer_wan as code
    heads, size, mlp, batch, text, eps = 2, 20, 144, 2, 7, 1e-6
    frames, height, columns = 2, 2, 3
    width, tokens = heads * size, frames * height * columns
    block = code.WanTransformerBlock(width, mlp, heads, cross_attn_norm=True, eps=eps)
    draw.fill(block)
    block = block.to(dtype).eval()
    kept = code.WanTransformer3DModel._keep_in_fp32_modules
    for name, parameter in block.named_parameters():
        if any(part in name.split(".") for part in kept):  # "norm2", not "norm_q"
            parameter.data = parameter.data.float()
    draw_table = draw(1, 6, width, deviation=width ** -0.5)
    block.scale_shift_table.data = draw_table
    block.norm2.weight.data = draw(width, deviation=0.2, mean=1.0)
    block.norm2.bias.data = draw(width, deviation=0.1)
    rope = code.WanRotaryPosEmbed(size, (1, 1, 1), 16)
    cos, sin = rope(torch.zeros(1, 1, frames, height, columns))
    x = draw.activations(batch, tokens, width).to(dtype)
    context, temb = draw(batch, text, width).to(dtype), draw(batch, 6, width, deviation=0.7).to(dtype)
    given = keep_inputs(recording, block, {"x": x, "context": context, "temb": temb, "cos": cos[0], "sin": sin[0]})

    sites = Sites()
    calls = []

    def attended(arguments, result):
        name = ("attn1", "attn2")[len(calls)]
        calls.append(name)
        if name == "attn1":
            sites.keep("attn1.q_rope", arguments["query"])
            sites.keep("attn1.k_rope", arguments["key"])
        sites.keep(f"{name}.attention", result.transpose(1, 2))
    sites.wrap(code, "dispatch_attention_fn", attended)
    sites.input("modulate1", block.attn1)
    sites.input("gate1", block.norm2, dtype)
    sites.input("norm2", block.attn2)
    sites.input("residual2", block.norm3, dtype)
    sites.input("modulate3", block.ffn)
    for attn in ("attn1", "attn2"):
        for part in ("to_q", "to_k", "to_v", "norm_q", "norm_k"):
            sites.output(f"{attn}.{part}", getattr(getattr(block, attn), part))
        sites.output(f"{attn}.to_out.0", getattr(block, attn).to_out[0])
    sites.output("ffn.net.0.proj", block.ffn.net[0].proj)
    sites.output("ffn.net.0", block.ffn.net[0])
    sites.output("ffn.net.2", block.ffn.net[2])
    sites.output("y", block)
    with sites.listening():
        block(x, context, temb, (cos, sin))
    # The block keeps its sum of table and temb to itself; the same line again.
    sites.keep("modulation", (block.scale_shift_table + temb.float()).reshape(batch, 6 * width))
    recording.call("wan", "wan_block", "diffusers WanTransformerBlock", given, sites.values,
                   {"heads": heads, "mlp": mlp, "text": text, "eps": eps}, path="diffusers.wan.block")


# ---- DiT ----

class DiTBlock(nn.Module):
    """The parameters of DiT's block under its own names."""

    def __init__(self, width, mlp):
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.attn = nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, mlp), nn.Linear(mlp, width)


def dit_lines(block, x, c, sites, heads, eps):
    batch, tokens, width = x.shape

    def kept(name, value):
        sites.keep(name, value)
        return value

    def modulated(which, of, shift, scale):
        n = kept(f"norm{which}", F.layer_norm(of, (width,), eps=eps))
        return kept(f"modulate{which}", n * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1))
    modulation = kept("adaLN_modulation.1", block.adaLN_modulation[1](kept("adaLN_modulation.0", F.silu(c))))
    shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=1)
    qkv = kept("attn.qkv", block.attn.qkv(modulated(1, x, shift1, scale1)))
    q, k, v = qkv.reshape(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4).unbind(0)
    a = kept("attn.attention", F.scaled_dot_product_attention(q, k, v))
    projected = kept("attn.proj", block.attn.proj(a.transpose(1, 2).reshape(batch, tokens, width)))
    x1 = kept("gate1", x + gate1.unsqueeze(1) * projected)
    inner = kept("mlp.fc1", block.mlp.fc1(modulated(2, x1, shift2, scale2)))
    inner = kept("mlp.act", F.gelu(inner, approximate="tanh"))
    kept("y", x1 + gate2.unsqueeze(1) * kept("mlp.fc2", block.mlp.fc2(inner)))


class Given(nn.Module):
    """Stands for the embedding of time and class, which is not of the block."""

    def __init__(self, c):
        super().__init__()
        self.c = c

    def forward(self, timestep, class_labels, hidden_dtype=None):
        return self.c


def dit_class(block, x, c, sites, heads, eps):
    """As diffusers' DiTTransformer2DModel builds it; q, k and v are Linears of their own there."""
    from diffusers.models.attention import BasicTransformerBlock
    width = x.shape[-1]
    own = BasicTransformerBlock(width, heads, width // heads, activation_fn="gelu-approximate", num_embeds_ada_norm=2,
                                attention_bias=True, norm_elementwise_affine=False, norm_type="ada_norm_zero",
                                norm_eps=eps).to(x.dtype).eval()
    q, k, v = (own.attn1.to_q, own.attn1.to_k, own.attn1.to_v)
    pairs = [(own.norm1.linear, block.adaLN_modulation[1]), (own.attn1.to_out[0], block.attn.proj),
             (own.ff.net[0].proj, block.mlp.fc1), (own.ff.net[2], block.mlp.fc2)]
    for mine, theirs in pairs:
        mine.load_state_dict(theirs.state_dict())
    for mine, weight, bias in zip((q, k, v), block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3)):
        mine.load_state_dict({"weight": weight, "bias": bias})
    own.norm1.emb = Given(c)
    parts, merged = {}, {}
    for name, module in (("q", q), ("k", k), ("v", v)):
        module.register_forward_hook(lambda m, args, y, name=name: parts.update({name: y.detach().clone()}))
    own.attn1.to_out[0].register_forward_pre_hook(lambda m, args: merged.update(value=args[0].detach().clone()))
    sites.output("adaLN_modulation.0", own.norm1.silu)
    sites.output("adaLN_modulation.1", own.norm1.linear)
    sites.output("norm1", own.norm1.norm)
    sites.input("modulate1", own.attn1)
    sites.output("attn.proj", own.attn1.to_out[0])
    sites.input("gate1", own.norm3)
    sites.output("norm2", own.norm3)
    sites.input("modulate2", own.ff)
    sites.output("mlp.fc1", own.ff.net[0].proj)
    sites.output("mlp.act", own.ff.net[0])
    sites.output("mlp.fc2", own.ff.net[2])
    sites.output("y", own)
    own(x, timestep=torch.zeros(len(x)), class_labels=torch.zeros(len(x), dtype=torch.long))
    sites.keep("attn.qkv", torch.cat([parts["q"], parts["k"], parts["v"]], -1))
    sites.keep("attn.attention", merged["value"].unflatten(-1, (heads, width // heads)).transpose(1, 2))


def dit(recording, dtype, draw):
    heads, size, batch, tokens, eps = 4, 10, 2, 6, 1e-6
    width = heads * size
    mlp = 4 * width
    block = DiTBlock(width, mlp)
    draw.fill(block)
    block = block.to(dtype).eval()
    x, c = draw.activations(batch, tokens, width).to(dtype), draw(batch, width).to(dtype)
    given = keep_inputs(recording, block, {"x": x, "c": c})
    for name, run, operator in (("lines", dit_lines, "facebookresearch/DiT models.py DiTBlock as torch operations"),
                                ("class", dit_class, "diffusers BasicTransformerBlock of DiTTransformer2DModel")):
        sites = Sites()
        with torch.inference_mode():
            run(block, x, c, sites, heads, eps)
        recording.call(f"dit.{name}", "dit_block", operator, given, sites.values,
                       {"heads": heads, "mlp": mlp, "eps": eps}, path="facebook.dit.block")


def main(out):
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name, record in (("llama", llama), ("wan", wan), ("dit", dit)):
        for label, dtype in DTYPES.items():
            recording = Recording(__file__, SEED, "transformers", "diffusers")
            record(recording, dtype, Draw(SEED))
            recording.save(os.path.join(out, f"blocks_{name}.{label}.safetensors"))


if __name__ == "__main__":
    main(sys.argv[1])

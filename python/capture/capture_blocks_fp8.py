"""Records FLUX's block of two streams with its linear layers in fp8, site by site on CPU.

    python capture_blocks_fp8.py tests/golden/captures

One thread. blocks_fp8.safetensors, in bf16, of calls

* layerwise: diffusers' apply_layerwise_casting with the patterns that enable_layerwise_casting takes for FLUX: weights and
  biases of Linears kept in e4m3, cast back for the product; those of modules with "norm" in their name are left alone.
* row, tensor: every Linear's weight a torchao Float8Tensor with dynamically quantized activations, as quantize_ with
  Float8DynamicActivationFloat8WeightConfig(granularity=PerRow() or PerTensor()) makes it. The tensor's own constructor is
  called: quantize_ itself refuses a machine without a GPU, and torch._scaled_mm does not.
* zero: one Linear by torchao, a token of whose is 0.
* squares: what transformers' Fp8Quantize makes of a weight, in squares of 128; mx: what torchao's to_mx makes of a tensor, in
  blocks of 32 with scales rounded up. casts: torch's own casts beyond the largest numbers.

Codes are recorded as VALUE.e4m3, scales as VALUE.e4m3.scale, under norma's names of values. Weights are kept once, in bf16.
"""
import os
import sys
from types import SimpleNamespace

import numpy as np
import torch
from diffusers.hooks import apply_layerwise_casting
from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN
from diffusers.models.transformers import transformer_flux
from torchao.float8.inference import Float8MMConfig
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.mx_tensor import to_mx
from torchao.quantization import PerRow, PerTensor
from torchao.quantization.quantize_.workflows.float8 import float8_tensor
from torchao.quantization.quantize_.workflows.float8.float8_tensor import Float8Tensor, QuantizeTensorToFloat8Kwargs
from transformers.integrations.finegrained_fp8 import Fp8Quantize

import capture_blocks_flux as flux
from recording import Recording

SEED = 20261122
HEADS, HEAD = 2, 16
WIDTH = HEADS * HEAD

# A layer's place in the class, norma's name of it, and of what it is given.
LAYERS = [(place, f"{s}.{site}", given.format(s=s)) for s, attn, net in (
    ("img", ("to_q", "to_k", "to_v", "to_out.0"), "ff"),
    ("txt", ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"), "ff_context"))
    for place, site, given in (
        (("norm1" if s == "img" else "norm1_context") + ".linear", "mod", "vec.silu"),
        (f"attn.{attn[0]}", "q", "{s}.modulate1"), (f"attn.{attn[1]}", "k", "{s}.modulate1"),
        (f"attn.{attn[2]}", "v", "{s}.modulate1"), (f"attn.{attn[3]}", "proj", "{s}.attended"),
        (f"{net}.net.0.proj", "mlp.0", "{s}.modulate2"), (f"{net}.net.2", "mlp.2", "{s}.mlp.1"))]


class Sites(flux.Sites):
    """The sites of the call that runs; what `more` knows is added when it ends."""
    now, more = None, None

    def __init__(self):
        super().__init__()
        Sites.now = self

    def close(self):
        Sites.more(self)
        super().close()


flux.Sites = Sites


def keep_codes(sites, value, codes, scale):
    """A tensor that several layers read is quantized by each of them, to the same bits."""
    name = value + ".e4m3"
    if name in sites.values:
        assert torch.equal(sites.values[name].view(torch.uint8).flatten(), codes.view(torch.uint8).flatten()), name
        return
    # norma sees a tensor with one scale as one row.
    sites.values[name] = codes.reshape(1, -1).clone() if scale.numel() == 1 else codes.clone()
    sites.values[name + ".scale"] = scale.reshape(scale.shape[:1] if scale.numel() == 1 else codes.shape[:-1]).clone()


class Double:
    """One block, its inputs, and a way to run it."""

    def __init__(self, rng, out):
        self.out, self.block = out, flux.fill(rng, transformer_flux.FluxTransformerBlock(WIDTH, HEADS, HEAD))
        self.weights = flux.kept_weights(out, "double", self.block)
        self.attributes = {"heads": HEADS, "text": flux.TEXT, "eps": 1e-6}
        img, txt, vec, (cos, sin) = flux.two_streams(rng, WIDTH, HEAD)
        self.given = {"img": img.bfloat16(), "txt": txt.bfloat16(), "vec": vec.bfloat16(), "cos": cos, "sin": sin}
        self.state = {k: v.clone() for k, v in self.block.to(torch.bfloat16).state_dict().items()}

    def fresh(self):
        block = transformer_flux.FluxTransformerBlock(WIDTH, HEADS, HEAD).to(torch.bfloat16)
        block.load_state_dict(self.state)
        return block.eval().requires_grad_(False)

    def record(self, call, block, more):
        """`more`: adds to the sites what the block's own hooks do not see."""
        Sites.more = staticmethod(more)
        given = {k: v.clone() for k, v in self.given.items()}
        flux.record_double(self.out, call, block, given, self.weights, self.attributes)


def layerwise(double):
    block = double.fresh()
    patterns = DEFAULT_SKIP_MODULES_PATTERN + tuple(transformer_flux.FluxTransformer2DModel._skip_layerwise_casting_patterns)
    apply_layerwise_casting(block, torch.float8_e4m3fn, torch.bfloat16, patterns)

    def more(sites):
        for place, site, _ in LAYERS:
            layer = block.get_submodule(place)
            cast = layer.weight.dtype == torch.float8_e4m3fn
            assert cast == ("norm" not in place)
            for part in ("weight", "bias") if cast else ():
                sites.values[f"{site}.{part}.e4m3"] = getattr(layer, part).to(torch.bfloat16)
    double.record("layerwise.bf16", block, more)


def as_float8(weight, granularity):
    """What quantize_ makes of a Linear's weight."""
    config = Float8MMConfig(use_fast_accum=True)
    activations = QuantizeTensorToFloat8Kwargs(torch.float8_e4m3fn, granularity)
    return Float8Tensor.from_hp(weight, float8_dtype=torch.float8_e4m3fn, granularity=granularity, mm_config=config,
                                act_quant_kwargs=activations)


def torchao(double, name, granularity):
    block, seen = double.fresh(), {}
    for place, site, value in LAYERS:
        layer = block.get_submodule(place)
        layer.weight = torch.nn.Parameter(as_float8(layer.weight.data, granularity), requires_grad=False)
        seen[f"{site}.weight"] = layer.weight
        layer.register_forward_pre_hook(lambda m, args, value=value: seen.__setitem__("now", value))
    real = float8_tensor._choose_quant_func_and_quantize_tensor

    def quantize(x, kwargs):
        y = real(x, kwargs)
        keep_codes(Sites.now, seen["now"], y.qdata, y.scale)
        return y

    def more(sites):
        for _, site, _ in LAYERS:
            weight = seen[f"{site}.weight"]
            keep_codes(sites, f"{site}.weight", weight.qdata, weight.scale)

    float8_tensor._choose_quant_func_and_quantize_tensor = quantize
    try:
        double.record(f"{name}.bf16", block, more)
    finally:
        float8_tensor._choose_quant_func_and_quantize_tensor = real


def zero_token(rng, out):
    """amax 0 makes the scale 0 and each quotient NaN; torch's cast keeps it."""
    layer = flux.fill(rng, torch.nn.Linear(32, 16)).to(torch.bfloat16)
    weight, bias = layer.weight.data.clone(), layer.bias.data.clone()
    x = torch.from_numpy(rng.standard_normal((4, 32))).bfloat16()
    x[2] = 0
    layer.weight = torch.nn.Parameter(as_float8(weight, PerRow()), requires_grad=False)
    out.call("zero.bf16", "linear", "torchao.Float8Tensor",
             {"x": out.keep("zero.x", x), "weight": out.keep("zero.weight", weight), "bias": out.keep("zero.bias", bias)},
             {"y": layer(x)})


def squares(rng, out):
    weight = torch.from_numpy(rng.standard_normal((128, 256)) / 16).bfloat16()
    config = SimpleNamespace(weight_block_size=(128, 128), scale_fmt="float")
    made = Fp8Quantize(SimpleNamespace(quantization_config=config))._quantize_one("weight", weight)
    out.call("squares", "quantize", "transformers.integrations.finegrained_fp8.Fp8Quantize",
             {"weight": out.keep("squares.weight", weight)}, {"codes": made["weight"], "scale": made["weight_scale_inv"]})


def mx(rng, out):
    """Blocks of many sizes, one of zeros, one whose largest is 448 times a power of two, one just beyond it."""
    x = torch.from_numpy(rng.standard_normal((8, 64)) * np.exp2(rng.integers(-30, 30, (8, 1)))).bfloat16()
    x[0, :32], x[1, :32], x[2, :32] = 0, x[1, :32] / x[1, :32].abs().max() * 7, x[2, :32] / x[2, :32].abs().max() * 7
    x[1, 5], x[2, 5] = 7, 7.03125
    scale, codes = to_mx(x, torch.float8_e4m3fn, 32, ScaleCalculationMode.RCEIL)
    out.call("mx", "quantize", "torchao.prototype.mx_formats.mx_tensor.to_mx", {"x": out.keep("mx.x", x)},
             {"codes": codes, "scale": scale.view(torch.float8_e8m0fnu).float()})


def casts(out):
    """What torch's own cast does beyond e4m3's and e5m2's largest numbers."""
    x = torch.tensor([448, 464, 465, 480, 1e4, -1e4, np.inf, -np.inf, np.nan, 2 ** -10, 3 * 2 ** -10, 57344, 61439, 61440])
    out.call("casts", "cast", "torch.Tensor.to", {"x": out.keep("casts.x", x.float())},
             {"e4m3": x.float().to(torch.float8_e4m3fn), "e5m2": x.float().to(torch.float8_e5m2)})


def main(folder):
    torch.set_num_threads(1)
    rng, out = np.random.default_rng(SEED), Recording(__file__, SEED, "numpy", "diffusers", "torchao", "transformers")
    with torch.no_grad():
        double = Double(rng, out)
        layerwise(double)
        torchao(double, "row", PerRow())
        torchao(double, "tensor", PerTensor())
        zero_token(rng, out)
        casts(out)
        squares(rng, out)
        mx(rng, out)
    out.save(os.path.join(folder, "blocks_fp8.safetensors"))


if __name__ == "__main__":
    main(sys.argv[1])

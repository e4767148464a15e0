"""Records torch's normalization operators on CPU: LayerNorm, GroupNorm, BatchNorm over steps, InstanceNorm, RMSNorm.

    python capture_torch_norms.py tests/golden/captures

One thread. Two files per dtype of x, torch_norms.DTYPE.safetensors and torch_channels.DTYPE.safetensors (GroupNorm and
BatchNorm without hard channels, BatchNorm and InstanceNorm of x near its mean); metadata `calls` says what each tensor is.
Shapes of LayerNorm span the vector lengths and tails of the kernels (8 lanes of fp32, 16 of 16 bits, chunks of 16
vectors); those of GroupNorm both of torch's channels-last methods, which part at 1024 positions. Rows are of the kinds
in `hard_rows`: ordinary, on a large mean, nearly constant, constant, tiny, subnormal, at the overflow edge.
"""
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

from recording import DTYPES, Recording

SEED = 20261122
LENGTHS = {1: 9, 2: 9, 3: 9, 7: 9, 8: 9, 9: 9, 15: 9, 16: 9, 17: 9, 31: 9, 32: 9, 33: 9, 64: 9, 100: 9, 127: 9, 128: 9,
           129: 9, 255: 4, 256: 4, 257: 4, 384: 4, 576: 4, 1000: 4, 1023: 4, 1024: 4, 2047: 2, 3072: 2, 5000: 2}


def hard_rows(rng, dtype, *shape):
    """Rows over the first axis, of nine kinds in turn."""
    info = torch.finfo(dtype)
    x = rng.standard_normal(shape)
    rest = x.shape[1:]
    for i in range(x.shape[0]):
        kind = i % 9
        if kind == 1:
            x[i] = x[i] + 1000.0  # the mean carries most of the digits
        elif kind == 2:
            x[i] = 1 + info.eps * rng.integers(-3, 4, rest)  # a variance of a few ulps
        elif kind == 3:
            x[i] *= 2.0 ** -11  # eps weighs
        elif kind == 4:
            x[i] *= np.exp2(rng.uniform(-10, 10, rest))
        elif kind == 5:
            x[i] = 3.25  # no variance at all
        elif kind == 6:
            x[i] *= info.smallest_normal / 8  # subnormal
        elif kind == 7:
            # fp16: the format's own edge. fp32, bf16: squares beyond fp32's range from 2^64 on.
            x[i] *= 2.0 ** 13 if dtype == torch.float16 else 2.0 ** 63
        elif kind == 8:
            x[i] = 0
    return torch.from_numpy(x).to(dtype)


def parameters(rng, dtype, n):
    return (1 + 0.3 * torch.from_numpy(rng.standard_normal(n))).to(dtype), \
        (0.5 * torch.from_numpy(rng.standard_normal(n))).to(dtype)


def layer_norms(rng, dtype, out):
    operator = "torch.nn.functional.layer_norm"
    for d, rows in LENGTHS.items():
        site = f"layernorm.D{d}"
        x = out.keep(f"{site}.x", hard_rows(rng, dtype, rows, d))
        w, b = parameters(rng, dtype, d)
        out.keep(f"{site}.weight", w), out.keep(f"{site}.bias", b)
        out.call(f"{site}.affine", "layernorm", operator, {"x": x, "weight": w, "bias": b},
                 {"y": F.layer_norm(x, (d,), w, b, 1e-5)}, {"eps": 1e-5})
        out.call(f"{site}.plain", "layernorm", operator, {"x": x}, {"y": F.layer_norm(x, (d,), None, None, 1e-6)},
                 {"eps": 1e-6})
        if d in (9, 64, 257, 1000):
            out.call(f"{site}.weight_only", "layernorm", operator, {"x": x, "weight": w},
                     {"y": F.layer_norm(x, (d,), w, None, 1e-5)}, {"eps": 1e-5})
            if dtype != torch.float32:  # parameters kept in fp32: torch's mixed kernel
                w32, b32 = parameters(rng, torch.float32, d)
                out.keep(f"{site}.weight32", w32), out.keep(f"{site}.bias32", b32)
                out.call(f"{site}.mixed", "layernorm", operator, {"x": x, "weight": w32, "bias": b32},
                         {"y": F.layer_norm(x, (d,), w32, b32, 1e-5)}, {"eps": 1e-5})
                out.call(f"{site}.fp32", "layernorm", "FP32LayerNorm: layer_norm(x.float(), ...).to(x.dtype)",
                         {"x": x, "weight": w32, "bias": b32},
                         {"y": F.layer_norm(x.float(), (d,), w32, b32, 1e-6).to(dtype)}, {"eps": 1e-6})


def rms_norms(rng, dtype, out):
    operator = "torch.nn.functional.rms_norm"
    for d in (1, 7, 9, 64, 257, 1000):
        site = f"rmsnorm.D{d}"
        x = out.keep(f"{site}.x", hard_rows(rng, dtype, 9, d))
        w = out.keep(f"{site}.weight", parameters(rng, dtype, d)[0])
        for eps, tag in ((1e-6, ""), (1e-5, ".eps5"), (None, ".eps_none")):
            given = {} if eps is None else {"eps": eps}
            out.call(f"{site}.affine{tag}", "rmsnorm", operator, {"x": x, "weight": w},
                     {"y": F.rms_norm(x, (d,), w, eps)}, given)
        out.call(f"{site}.plain", "rmsnorm", operator, {"x": x}, {"y": F.rms_norm(x, (d,), None, 1e-6)}, {"eps": 1e-6})


def images(rng, dtype, n, c, *positions):
    """Samples of the nine kinds, channels on means of their own."""
    x = hard_rows(rng, torch.float64, n * c, *positions).numpy().reshape(n, c, *positions)
    x += rng.standard_normal((1, c) + (1,) * len(positions))
    return torch.from_numpy(x).to(dtype)


def layouts(x):
    """The same values, as torch lays them out; channels-last exists for [N, C, H, W] only."""
    yield "contiguous", x
    if x.dim() == 4:
        yield "channels_last", x.contiguous(memory_format=torch.channels_last)


def group_norms(rng, dtype, out):
    operator = "torch.nn.functional.group_norm"
    for shape, groups in (((2, 8, 5, 5), 4), ((3, 6, 3), 3), ((2, 64, 4, 4), 32), ((1, 96, 6, 7), 32), ((1, 32, 9, 5), 32),
                          ((2, 10, 3, 3), 1), ((1, 48, 8, 8), 8), ((4, 12), 3), ((1, 4, 32, 33), 2), ((1, 16, 32, 32), 1)):
        site = "groupnorm.{}.G{}".format("x".join(map(str, shape)), groups)
        large = len(shape) == 4 and shape[2] * shape[3] >= 1024
        draw = rng.standard_normal(shape) + rng.standard_normal((1, shape[1], 1, 1)) if large else None
        x = torch.from_numpy(draw).to(dtype) if large else images(rng, dtype, *shape)
        out.keep(f"{site}.x", x)
        w, b = parameters(rng, dtype, shape[1])
        out.keep(f"{site}.weight", w), out.keep(f"{site}.bias", b)
        w32, b32 = parameters(rng, torch.float32, shape[1])
        out.keep(f"{site}.weight32", w32), out.keep(f"{site}.bias32", b32)
        for layout, laid in layouts(x):
            said = {"groups": groups, "eps": 1e-6}
            out.call(f"{site}.{layout}", "groupnorm", operator, {"x": f"{site}.x", "weight": w, "bias": b},
                     {"y": F.group_norm(laid, groups, w, b, 1e-6)}, said, layout=layout)
            if not large:
                out.call(f"{site}.{layout}.plain", "groupnorm", operator, {"x": f"{site}.x"},
                         {"y": F.group_norm(laid, groups, None, None, 1e-6)}, said, layout=layout)
                if dtype != torch.float32:
                    out.call(f"{site}.{layout}.mixed", "groupnorm", operator,
                             {"x": f"{site}.x", "weight": w32, "bias": b32},
                             {"y": F.group_norm(laid, groups, w32, b32, 1e-6)}, said, layout=layout)


def batch_norms(rng, dtype, out):
    """BatchNorm as modules train it: four steps, each on x of its own, then evaluation with the statistics it ends with."""
    for shape in ((4, 8, 5, 5), (3, 5, 3, 3), (8, 6), (2, 3, 7), (2, 17, 4, 4)):
        dims = {2: "1d", 3: "1d", 4: "2d"}[len(shape)]
        size = "x".join(map(str, shape))
        xs = [out.keep(f"batchnorm.{size}.x{i}", images(rng, dtype, *shape)) for i in range(4)]
        for tag, parameter_dtype, options in (
                ("momentum_0.1", dtype, {}), ("cumulative", dtype, {"momentum": None}),
                ("momentum_1", dtype, {"momentum": 1.0}), ("mixed", torch.float32, {}),
                ("no_affine", dtype, {"affine": False}), ("no_running", dtype, {"track_running_stats": False})):
            if tag == "mixed" and dtype == torch.float32:
                continue
            for layout in ("contiguous", "channels_last") if len(shape) == 4 else ("contiguous",):
                module = getattr(torch.nn, "BatchNorm" + dims)(shape[1], eps=1e-5, dtype=parameter_dtype, **options)
                name = f"batchnorm.{size}.{tag}.{layout}"
                given = {}
                if module.affine:
                    with torch.no_grad():
                        for parameter, value in zip((module.weight, module.bias), parameters(rng, parameter_dtype, shape[1])):
                            parameter.copy_(value)
                    given = {"weight": out.keep(f"{name}.weight", module.weight), "bias": out.keep(f"{name}.bias", module.bias)}
                run_batch_norm(out, name, module, given, xs, layout)


def run_batch_norm(out, name, module, given, xs, layout):
    laid = [x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x for x in xs]
    statistics = {}
    if module.track_running_stats:
        statistics = {k: out.keep(f"{name}.{k}", getattr(module, k).clone()) for k in ("running_mean", "running_var")}
    operator = "torch.nn." + type(module).__name__
    for step, (x, kept) in enumerate(zip(laid, xs)):
        y = module.train()(x)
        outputs, said = {"y": y}, {"eps": module.eps}
        if statistics:
            outputs.update({k: getattr(module, k).clone() for k in statistics})
            # What the update is done with: momentum None is the cumulative average, 1 / steps so far.
            said["momentum"] = module.momentum if module.momentum is not None else 1.0 / (step + 1)
        out.call(f"{name}.step{step}", "batchnorm", operator, {"x": kept, **given, **statistics}, outputs, said,
                 layout=layout, mode="train", step=step, momentum_none=module.momentum is None)
        statistics = {k: outputs[k] for k in statistics}
    if statistics:
        assert int(module.num_batches_tracked) == len(xs)
        out.call(f"{name}.eval", "batchnorm", operator, {"x": xs[0], **given, **statistics},
                 {"y": module.eval()(laid[0])}, {"eps": module.eps}, layout=layout, mode="eval")


def instance_norms(rng, dtype, out):
    operator = "torch.nn.functional.instance_norm"
    for shape in ((2, 8, 5, 5), (3, 6, 7), (1, 16, 4, 4)):
        site = "instancenorm." + "x".join(map(str, shape))
        x = out.keep(f"{site}.x", images(rng, dtype, *shape))
        w, b = parameters(rng, dtype, shape[1])
        out.keep(f"{site}.weight", w), out.keep(f"{site}.bias", b)
        mean = out.keep(f"{site}.running_mean", torch.from_numpy(rng.standard_normal(shape[1])).to(dtype))
        var = out.keep(f"{site}.running_var", torch.from_numpy(rng.uniform(0.5, 2, shape[1])).to(dtype))
        for layout, laid in layouts(x):
            for tag, affine in (("affine", {"weight": w, "bias": b}), ("plain", {})):
                out.call(f"{site}.{tag}.{layout}", "instancenorm", operator, {"x": f"{site}.x", **affine},
                         {"y": F.instance_norm(laid, eps=1e-5, **affine)}, {"eps": 1e-5}, layout=layout, mode="train")
            m, v = mean.clone(), var.clone()
            y = F.instance_norm(laid, m, v, w, b, True, 0.1, 1e-5)
            out.call(f"{site}.tracked.{layout}", "instancenorm", operator,
                     {"x": f"{site}.x", "weight": w, "bias": b, "running_mean": mean, "running_var": var},
                     {"y": y, "running_mean": m, "running_var": v}, {"eps": 1e-5, "momentum": 0.1}, layout=layout, mode="train")
            out.call(f"{site}.eval.{layout}", "instancenorm", operator,
                     {"x": f"{site}.x", "weight": w, "bias": b, "running_mean": mean, "running_var": var},
                     {"y": F.instance_norm(laid, mean, var, w, b, False, 0.1, 1e-5)}, {"eps": 1e-5}, layout=layout, mode="eval")


def ordinary_channels(rng, dtype, out):
    """Groups without hard channels: beside one of 2^63 the rest of a large group is nothing but its bias."""
    for shape, groups in (((2, 10, 3, 3), 1), ((1, 48, 7, 7), 8), ((2, 32, 3, 5), 4)):
        site = "groupnorm.ordinary.{}.G{}".format("x".join(map(str, shape)), groups)
        x = torch.from_numpy(rng.standard_normal(shape) + rng.standard_normal((1, shape[1], 1, 1))).to(dtype)
        out.keep(f"{site}.x", x)
        w, b = parameters(rng, dtype, shape[1])
        out.keep(f"{site}.weight", w), out.keep(f"{site}.bias", b)
        for layout, laid in layouts(x):
            out.call(f"{site}.{layout}", "groupnorm", "torch.nn.functional.group_norm",
                     {"x": f"{site}.x", "weight": w, "bias": b}, {"y": F.group_norm(laid, groups, w, b, 1e-6)},
                     {"groups": groups, "eps": 1e-6}, layout=layout)
            mean, var = torch.zeros(shape[1], dtype=dtype), torch.ones(shape[1], dtype=dtype)
            name = f"batchnorm.ordinary.{site.split('.')[2]}.{layout}"
            given = {"running_mean": out.keep(f"{name}.given.running_mean", mean.clone()),
                     "running_var": out.keep(f"{name}.given.running_var", var.clone())}
            y = F.batch_norm(laid, mean, var, w, b, True, 0.1, 1e-5)
            out.call(name, "batchnorm", "torch.nn.functional.batch_norm", {"x": f"{site}.x", "weight": w, "bias": b, **given},
                     {"y": y, "running_mean": mean, "running_var": var}, {"eps": 1e-5, "momentum": 0.1}, layout=layout, mode="train")


def near_the_mean(rng, dtype, out):
    """y is small beside its two terms, so that it shows how its offset is rounded; running statistics of few channels."""
    for tag, kind in (("same", dtype), ("mixed", torch.float32)):
        if tag == "mixed" and dtype == torch.float32:
            continue
        for norm, shape in (("batchnorm", (2, 8, 2, 5)), ("instancenorm", (9, 1, 7)), ("instancenorm", (11, 5, 6))):
            c, ones = shape[1], (1,) * (len(shape) - 2)
            site = f"{norm}.near.{'x'.join(map(str, shape))}.{tag}"
            mean = rng.uniform(5, 30, c)
            x = torch.from_numpy(mean.reshape(1, c, *ones) + rng.choice((0, 0, 0, 0.5, -0.5), shape)).to(dtype)
            kept = [("x", x), ("weight", torch.from_numpy(rng.uniform(0.5, 2, c)).to(kind)),
                    ("bias", torch.from_numpy(1e-3 * rng.standard_normal(c)).to(kind)),
                    ("running_mean", torch.from_numpy(mean).to(kind)),
                    ("running_var", torch.from_numpy(rng.uniform(0.5, 2, c)).to(kind))]
            inputs = {name: out.keep(f"{site}.{name}", tensor) for name, tensor in kept}
            operator = getattr(F, norm[:-4] + "_norm")
            named = "torch.nn.functional." + operator.__name__
            for layout, laid in layouts(x):
                m, v = inputs["running_mean"].clone(), inputs["running_var"].clone()
                y = operator(laid, m, v, inputs["weight"], inputs["bias"], True, 0.3, 1e-5)
                out.call(f"{site}.{layout}", norm, named, inputs, {"y": y, "running_mean": m, "running_var": v},
                         {"eps": 1e-5, "momentum": 0.3}, layout=layout, mode="train")
                evaluated(out, f"{site}.{layout}.eval", norm, operator, laid, inputs, layout)
            # Its root of an fp32 variance is MKL's, whose last bit depends on the processor: 16 bits only.
            if norm == "batchnorm" and kind != torch.float32:
                evaluated(out, f"{site}.strided.eval", norm, operator, x.mT.contiguous().mT, inputs, "strided")


def evaluated(out, name, norm, operator, laid, inputs, layout):
    y = operator(laid, inputs["running_mean"], inputs["running_var"], inputs["weight"], inputs["bias"], False, 0.3, 1e-5)
    out.call(name, norm, "torch.nn.functional." + operator.__name__, inputs, {"y": y}, {"eps": 1e-5}, layout=layout,
             mode="eval")


def main(folder):
    torch.set_num_threads(1)
    for label, dtype in DTYPES.items():
        rng, out = np.random.default_rng(SEED), Recording(__file__, SEED, "numpy")
        for group in (layer_norms, group_norms, batch_norms, instance_norms, rms_norms):
            group(rng, dtype, out)
        out.save(os.path.join(folder, f"torch_norms.{label}.safetensors"), dtype=label)
        rng, out = np.random.default_rng(SEED), Recording(__file__, SEED, "numpy")
        for group in (ordinary_channels, near_the_mean):
            group(rng, dtype, out)
        out.save(os.path.join(folder, f"torch_channels.{label}.safetensors"), dtype=label)


if __name__ == "__main__":
    main(sys.argv[1])

"""An outside peer of norma_bench, in a process of its own, timed by its own clock: peer.py torch|numpy|mpmath

First says "MODULE VERSION", or "none REASON" and ends. Then one line in, one line out:

    job NAME threads=N format=F KEY=VALUE...
                            prepares a job, runs it once -> ready, or: error TEXT
    go                      runs it again               -> its seconds

Tensors come and go as files of raw values. Prepared inputs are not part of a run; what an operation allocates is.
"""

import json
import sys
import time

# ---- torch -------------------------------------------------------------------------------------------------


def load(torch, path, form, shape):
    with open(path, "rb") as file:
        return torch.frombuffer(bytearray(file.read()), dtype=form).reshape(shape)


def save(torch, path, tensor):
    with open(path, "wb") as file:
        file.write(tensor.contiguous().view(torch.uint8).numpy().tobytes())


def llama_rmsnorm(torch, x, weight, eps):
    """The operations of transformers' LlamaRMSNorm.forward, one by one."""
    form = x.dtype
    h = x.to(torch.float32)
    variance = h.pow(2).mean(-1, keepdim=True)
    h = h * torch.rsqrt(variance + eps)
    return weight * h.to(form)


def rmsnorm(torch, forms, want):
    """keys: rows cols eps x weight y; y is where the output goes"""
    form, rows, cols = forms[want["format"]], int(want["rows"]), int(want["cols"])
    x = load(torch, want["x"], form, (rows, cols))
    weight = load(torch, want["weight"], form, (cols,))
    eps = float(want["eps"])
    save(torch, want["y"], llama_rmsnorm(torch, x, weight, eps))
    return lambda: llama_rmsnorm(torch, x, weight, eps)


def allclose(torch, forms, want):
    """What a test suite does: random inputs, the module, the same in float64, allclose. keys: rows cols eps"""
    form, rows, cols = forms[want["format"]], int(want["rows"]), int(want["cols"])
    eps = float(want["eps"])

    def run():
        x = torch.randn(rows, cols).to(form)
        weight = torch.randn(cols).to(form)
        got = llama_rmsnorm(torch, x, weight, eps)
        h = x.double()
        exact = weight.double() * (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps))
        return torch.allclose(got.double(), exact, rtol=1.6e-2, atol=1e-5)

    return run


def convert(torch, forms, want):
    """fp32 to a narrower format. keys: count x"""
    form = forms[want["format"]]
    x = load(torch, want["x"], torch.float32, (int(want["count"]),))
    return lambda: x.to(form)


def kernel(torch, forms, want):
    """torch's own kernel, in the tensors' format. keys: norm, the norm's attributes, tensor.NAME=SHAPE:FILE"""
    form, functional = forms[want["format"]], torch.nn.functional
    t = {}
    for key, value in want.items():
        if key.startswith("tensor."):
            shape, path = value.split(":", 1)
            t[key[7:]] = load(torch, path, form, tuple(int(side) for side in shape.split("x")))
    x, weight, bias = t["x"], t.get("weight"), t.get("bias")
    running = [t.get("running_mean"), t.get("running_var")]
    eps = float(want.get("eps", 0))

    return {
        "layernorm": lambda: functional.layer_norm(x, x.shape[-1:], weight, bias, eps),
        "groupnorm": lambda: functional.group_norm(x, int(float(want["groups"])), weight, bias, eps),
        "batchnorm": lambda: functional.batch_norm(x, *running, weight, bias, want["statistics"] == "batch", 0.1, eps),
        "modulate": lambda: x * (1 + t["scale"]) + t["shift"],
        "gated_residual": lambda: x + t["gate"] * t["f"],
    }[want["norm"]]


def norm64_torch(torch, forms, want):
    """A reference in float64, as test suites make it: torch's own norm on .double(), rounded to `out`. keys: norm
    rows cols eps out x weight bias, and channels groups where the norm has them: x is then
    [rows / channels, channels, cols]"""
    form, out, rows, cols = forms[want["format"]], forms[want["out"]], int(want["rows"]), int(want["cols"])
    eps, norm, channels = float(want["eps"]), want["norm"], int(want.get("channels", 0))
    shape = (rows // channels, channels, cols) if channels else (rows, cols)
    x = load(torch, want["x"], form, shape)
    weight = load(torch, want["weight"], form, (channels or cols,)).double()
    bias = load(torch, want["bias"], form, (channels or cols,)).double()
    functional = torch.nn.functional

    def rms(h):
        if hasattr(functional, "rms_norm"):
            return functional.rms_norm(h, (cols,), weight, eps)
        return weight * (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps))

    norms = {
        "rmsnorm": rms,
        "layernorm": lambda h: functional.layer_norm(h, (cols,), weight, bias, eps),
        "groupnorm": lambda h: functional.group_norm(h, int(want["groups"]), weight, bias, eps),
        "batchnorm": lambda h: functional.batch_norm(h, None, None, weight, bias, True, 0.1, eps),
    }
    of = norms[norm]
    return lambda: of(x.double()).to(out)


def softmax64_torch(torch, forms, want):
    """keys: rows cols x"""
    x = load(torch, want["x"], forms[want["format"]], (int(want["rows"]), int(want["cols"])))
    return lambda: torch.softmax(x.double(), -1).float()


def function64_torch(torch, forms, want):
    """keys: function count x"""
    functional = torch.nn.functional
    of = {
        "silu": functional.silu,
        "gelu": functional.gelu,
        "gelu_tanh": lambda h: functional.gelu(h, approximate="tanh"),
    }[want["function"]]
    x = load(torch, want["x"], forms[want["format"]], (int(want["count"]),))
    return lambda: of(x.double()).float()


def safetensors64(torch, path):
    """All tensors of a file, as float64."""
    forms = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = bytearray(file.read())
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        form = forms[entry["dtype"]]
        flat = torch.frombuffer(data, dtype=form, count=(last - first) // form.itemsize, offset=first)
        tensors[name] = flat.reshape(entry["shape"]).double()
    return tensors


def flux_double64(torch, forms, want):
    """FLUX's block of two streams in float64, its weights float64 before the clock runs. keys: heads eps file, and
    out_img out_txt for the outputs"""
    t, heads, eps = safetensors64(torch, want["file"]), int(want["heads"]), float(want["eps"])
    functional = torch.nn.functional
    turn = torch.complex(t["cos"], t["sin"])

    def linear(name, x):
        return functional.linear(x, t[name + ".weight"], t[name + ".bias"])

    def normed(x, scale, shift):
        return functional.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale) + shift

    def rotated(x):
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * turn).flatten(-2)

    def run():
        vec, streams = functional.silu(t["vec"]), ("txt", "img")
        mod = {s: linear(s + ".mod", vec).unsqueeze(1).chunk(6, -1) for s in streams}
        q, k, v = [], [], []
        for s in streams:
            n = normed(t[s], mod[s][1], mod[s][0])
            part = {p: linear(f"{s}.{p}", n).unflatten(-1, (heads, -1)).transpose(1, 2) for p in "qkv"}
            for p, to in (("q", q), ("k", k)):
                weight = t[f"{s}.{p}_norm.weight"]
                to.append(functional.rms_norm(part[p], weight.shape, weight, eps))
            v.append(part["v"])
        q, k, v = (torch.cat(parts, 2) for parts in (q, k, v))
        a = functional.scaled_dot_product_attention(rotated(q), rotated(k), v).transpose(1, 2).flatten(2)
        results, first = {}, 0
        for s in streams:
            count = t[s].shape[1]
            x = t[s] + mod[s][2] * linear(s + ".proj", a[:, first : first + count])
            first += count
            hidden = functional.gelu(linear(s + ".mlp.0", normed(x, mod[s][4], mod[s][3])), approximate="tanh")
            results[s] = x + mod[s][5] * linear(s + ".mlp.2", hidden)
        return results

    for s, values in run().items():
        save(torch, want["out_" + s], values)
    return run


def start_torch(torch):
    names = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "e4m3fn": "float8_e4m3fn"}
    forms = {name: getattr(torch, torch_name) for name, torch_name in names.items() if hasattr(torch, torch_name)}
    jobs = {
        "rmsnorm": rmsnorm,
        "allclose": allclose,
        "convert": convert,
        "kernel": kernel,
        "norm64": norm64_torch,
        "softmax64": softmax64_torch,
        "function64": function64_torch,
        "flux_double64": flux_double64,
    }
    torch.set_grad_enabled(False)

    def prepare(name, want):
        torch.set_num_threads(int(want["threads"]))
        return jobs[name](torch, forms, want)

    return forms, prepare


# ---- numpy and mpmath: fp32 in and out, one thread -----------------------------------------------------------


def norm64_numpy(numpy, want):
    """keys: norm rows cols eps x weight bias"""
    rows, cols, eps = int(want["rows"]), int(want["cols"]), float(want["eps"])
    x = numpy.fromfile(want["x"], dtype=numpy.float32, count=rows * cols).reshape(rows, cols)
    weight = numpy.fromfile(want["weight"], dtype=numpy.float32).astype(numpy.float64)
    bias = numpy.fromfile(want["bias"], dtype=numpy.float32).astype(numpy.float64)

    def rms():
        h = x.astype(numpy.float64)
        return (h / numpy.sqrt((h * h).mean(-1, keepdims=True) + eps) * weight).astype(numpy.float32)

    def layer():
        h = x.astype(numpy.float64)
        h -= h.mean(-1, keepdims=True)
        return (h / numpy.sqrt((h * h).mean(-1, keepdims=True) + eps) * weight + bias).astype(numpy.float32)

    return rms if want["norm"] == "rmsnorm" else layer


def norm64_mpmath(mpmath, want):
    """The same keys, in 113 bits."""
    import array

    rows, cols, eps = int(want["rows"]), int(want["cols"]), float(want["eps"])
    mpmath.mp.prec = 113

    def load_floats(path):
        with open(path, "rb") as file:
            return array.array("f", file.read())

    x, weight, bias = load_floats(want["x"]), load_floats(want["weight"]), load_floats(want["bias"])
    layer = want["norm"] == "layernorm"

    def run():
        out = []
        for r in range(rows):
            h = [mpmath.mpf(v) for v in x[r * cols : (r + 1) * cols]]
            if layer:
                mean = mpmath.fsum(h) / cols
                h = [v - mean for v in h]
            factor = 1 / mpmath.sqrt(mpmath.fsum(v * v for v in h) / cols + eps)
            if layer:
                out.extend(float(v * factor * w + b) for v, w, b in zip(h, weight, bias))
            else:
                out.extend(float(v * factor * w) for v, w in zip(h, weight))
        return out

    return run


def start_one_job(module, norm64):
    return {"fp32": None}, lambda name, want: norm64(module, want)


# ---- the protocol ------------------------------------------------------------------------------------------


def start(name):
    if name == "torch":
        import torch

        return torch.__version__, *start_torch(torch)
    if name == "numpy":
        import numpy

        return numpy.__version__, *start_one_job(numpy, norm64_numpy)
    import mpmath

    return mpmath.__version__, *start_one_job(mpmath, norm64_mpmath)


def main():
    name = sys.argv[1]
    try:
        version, forms, prepare = start(name)
    except Exception as error:  # an import can fail in many ways, and each means there is no peer
        print("none", str(error).splitlines()[0] if str(error) else type(error).__name__, flush=True)
        return
    print(name, version, flush=True)
    run = None
    for line in sys.stdin:
        words = line.split()
        if words == ["go"]:
            start_time = time.perf_counter()
            result = run()
            seconds = time.perf_counter() - start_time
            del result  # gone before the next run, as in a model
            print(repr(seconds), flush=True)
            continue
        want = dict(word.split("=", 1) for word in words[2:])
        unknown = [want[key] for key in ("format", "out") if key in want and want[key] not in forms]
        if unknown:
            print("error", name, version, "has no", unknown[0], flush=True)
            continue
        run = prepare(words[1], want)
        run()
        print("ready", flush=True)


if __name__ == "__main__":
    main()

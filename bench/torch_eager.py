"""The outside peer of norma_bench: eager torch, in a process of its own, timed by its own clock.

First says "torch VERSION", or "none REASON" and ends. Then one line in, one line out:

    job NAME threads=N format=F KEY=VALUE...
                            prepares a job, runs it once -> ready, or: error TEXT
    go                      runs it again               -> its seconds

Tensors come and go as files of raw values. Prepared inputs are not part of a run; what an operation allocates is.
"""

import sys
import time


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


def main():
    try:
        import torch
    except Exception as error:  # an import of torch can fail in many ways, and each means there is no peer
        print("none", str(error).splitlines()[0] if str(error) else type(error).__name__, flush=True)
        return
    names = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "e4m3fn": "float8_e4m3fn"}
    forms = {name: getattr(torch, torch_name) for name, torch_name in names.items() if hasattr(torch, torch_name)}
    jobs = {"rmsnorm": rmsnorm, "allclose": allclose, "convert": convert}
    torch.set_grad_enabled(False)
    print("torch", torch.__version__, flush=True)
    run = None
    for line in sys.stdin:
        words = line.split()
        if words == ["go"]:
            start = time.perf_counter()
            result = run()
            seconds = time.perf_counter() - start
            del result  # gone before the next run, as in a model
            print(repr(seconds), flush=True)
            continue
        want = dict(word.split("=", 1) for word in words[2:])
        if want["format"] not in forms:
            print("error torch", torch.__version__, "has no", want["format"], flush=True)
            continue
        torch.set_num_threads(int(want["threads"]))
        run = jobs[words[1]](torch, forms, want)
        run()
        print("ready", flush=True)


if __name__ == "__main__":
    main()

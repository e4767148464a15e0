#!/usr/bin/env python3
"""torch's own kernels on the shapes that norma_gpu_speed measured, in the same way, and who is faster.

usage: torch_speed.py SPEED.jsonl OUT.jsonl [--seconds N] [--self-test]

Measures torch.nn.functional.rms_norm and layer_norm, the eager modulation, adaptive LayerNorm and gated residual, and
torch.compile of each, as CUDA graphs over slots that exceed the second-level cache four times: median of CUDA events. One
JSON line a shape: the times, and ratio = torch's best / norma's best (1 or more: norma is no slower). Exit 77: no torch, or
torch sees no GPU.
"""

import argparse
import json
import statistics
import sys
import time

REPEATS = 21
LEAST_BYTES = 2e9  # as norma_gpu_speed


def best_of_norma(lines):
    """{(norm, format, rows, cols): the fastest line}."""
    best = {}
    for line in lines:
        if "kernel_time" not in line:
            continue
        key = (line["norm"], line["format"], line["rows"], line["cols"])
        if key not in best or line["kernel_time"]["us"] < best[key]["kernel_time"]["us"]:
            best[key] = line
    return best


def compared(line, eager_us, compiled_us):
    """What is written of one shape."""
    times = {"eager": eager_us, "compile": compiled_us}
    known = {name: us for name, us in times.items() if us is not None}
    fastest = min(known, key=known.get)
    return {
        "norm": line["norm"], "format": line["format"], "rows": line["rows"], "cols": line["cols"],
        "kernel": line["kernel"], "kernel_us": line["kernel_time"]["us"],
        "torch_us": times, "torch_best": fastest, "ratio": known[fastest] / line["kernel_time"]["us"], "goal": 1.0,
    }


def functions(torch):
    f = torch.nn.functional
    return {
        "rmsnorm": lambda x, w: f.rms_norm(x[0], (x[0].shape[-1],), w[0], 1e-6),
        "layernorm": lambda x, w: f.layer_norm(x[0], (x[0].shape[-1],), w[0], w[1], 1e-5),
        "ada_layernorm": lambda x, w: f.layer_norm(x[0], (x[0].shape[-1],), None, None, 1e-6) * (1 + w[0]) + w[1],
        "modulate": lambda x, w: x[0] * (1 + w[0]) + w[1],
        "gated_residual": lambda x, w: x[1] + w[0] * x[0],
    }


def measure(torch, function, slots, vectors, launches):
    """Median microseconds of a call, as one graph of `launches` calls."""
    for slot in slots[:3]:
        function(slot, vectors)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(launches):
            function(slots[i % len(slots)], vectors)  # its memory is the graph's again after each call
    times = []
    for i in range(REPEATS + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        if i >= 3:
            times.append(begin.elapsed_time(end) * 1e3 / launches)
    del graph
    return statistics.median(times)


def run(torch, best, out, seconds):
    formats = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    out.write(json.dumps({"kind": "context", "torch": torch.__version__, "cuda": torch.version.cuda,
                          "device": torch.cuda.get_device_name(0)}) + "\n")
    begun, slower, uncompiled = time.monotonic(), 0, 0
    for key, line in sorted(best.items(), key=lambda item: (item[0][1] != "bf16", item[0])):
        norm, fmt, rows, cols = key
        if norm not in functions(torch):
            continue
        tensor = rows * cols * formats[fmt].itemsize
        count = 1 + 4 * cache // ((line["reads"] + line["writes"]) * tensor)
        launches = max(count, int(-(-LEAST_BYTES // line["bytes"])))
        make = lambda *shape: torch.rand(shape, device="cuda").add_(0.5).to(formats[fmt])
        slots = [[make(rows, cols) for _ in range(line["reads"])] for _ in range(count)]
        vectors = [make(cols) for _ in range(line["vectors"])]
        with torch.no_grad():
            eager = measure(torch, functions(torch)[norm], slots, vectors, launches)
            compiled = None
            if time.monotonic() - begun < seconds:
                torch._dynamo.reset()
                try:
                    whole = torch.compile(functions(torch)[norm], dynamic=False)
                    compiled = measure(torch, whole, slots, vectors, launches)
                except Exception as error:  # no Triton, no C compiler: a peer the fewer, said below
                    print(f"torch_speed: torch.compile failed: {str(error).splitlines()[0]}", file=sys.stderr)
                    seconds = 0
        uncompiled += compiled is None
        row = compared(line, eager, compiled)
        slower += row["ratio"] < 1
        out.write(json.dumps(row) + "\n")
        out.flush()
        del slots, vectors
        torch.cuda.empty_cache()
    print(f"torch {torch.__version__}: norma is slower on {slower} of {len(best)} shapes; {uncompiled} without torch.compile")
    return 0


def self_test():
    time_of = lambda us: {"us": us}
    base = {"norm": "rmsnorm", "format": "bf16", "rows": 8, "cols": 4}
    lines = [{"kind": "context"}, dict(base, kernel="a", kernel_time=time_of(3.0)), dict(base, kernel="b", kernel_time=time_of(2.0))]
    best = best_of_norma(lines)
    assert list(best) == [("rmsnorm", "bf16", 8, 4)] and best[("rmsnorm", "bf16", 8, 4)]["kernel"] == "b"
    row = compared(best[("rmsnorm", "bf16", 8, 4)], 3.0, 1.0)
    assert row["torch_best"] == "compile" and row["ratio"] == 0.5
    assert compared(best[("rmsnorm", "bf16", 8, 4)], 3.0, None)["ratio"] == 1.5
    return 0


def main():
    if "--self-test" in sys.argv:
        return self_test()
    parser = argparse.ArgumentParser()
    parser.add_argument("speed")
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=150, help="torch.compile is left out when these are over")
    options = parser.parse_args()
    try:
        import torch
    except ImportError:
        print("torch_speed: not compared: this Python has no torch", file=sys.stderr)
        return 77
    if not torch.cuda.is_available():
        print("torch_speed: not compared: torch sees no GPU", file=sys.stderr)
        return 77
    with open(options.speed, encoding="utf-8") as file:
        best = best_of_norma([json.loads(line) for line in file])
    with open(options.out, "w", encoding="utf-8") as out:
        return run(torch, best, out, options.seconds)


if __name__ == "__main__":
    sys.exit(main())

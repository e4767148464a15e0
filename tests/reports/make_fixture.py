#!/usr/bin/env python3
"""Writes a run.jsonl that looks like a real one, for looking at pages and for the golden tests.

The errors are drawn, not computed: a path's rounding is a uniform variable, its definition gap a constant, and
the sum of an implementation another small one. The same arguments give the same bytes.

  make_fixture.py --small > tests/golden/reports/run.jsonl     the committed one: every kind of record once
  make_fixture.py > out/fixture.jsonl                          about 300 records
  make_fixture.py --rows 100000 > out/large.jsonl              to measure how fast the page opens
"""
import argparse
import bisect
import json
import math
import random
import re
import struct
import sys

PATHS = {
    # name: (title, source, definition gap in ulp, roundings of the path in ulp, gap in words)
    "bfl.flux.rmsnorm": ("FLUX.1 RMSNorm: fp32 inside, cast before the scale",
                         "black-forest-labs/flux src/flux/modules/layers.py", 0.0, 0.5, ""),
    "diffusers.rmsnorm": ("diffusers RMSNorm: fp32 variance, product in the input's format",
                          "huggingface/diffusers src/diffusers/models/normalization.py", 0.0, 1.0, ""),
    "hf.llama.rmsnorm": ("Llama RMSNorm in transformers: cast, then the scale",
                         "huggingface/transformers src/transformers/models/llama/modeling_llama.py", 0.0, 0.5, ""),
    "torch.nn.rmsnorm": ("torch.nn.RMSNorm: fp32 inside, one cast at the end",
                         "pytorch/pytorch aten/src/ATen/native/layer_norm.cpp", 0.0, 0.0, ""),
    "apex.rmsnorm.eps_outside": ("RMSNorm with eps added to the root", "NVIDIA/apex csrc/layer_norm_cuda_kernel.cu",
                                 0.31, 0.0, "eps outside the root"),
    "naive.all_in_input": ("every step in the input's format", "norma impls/cast_paths/naive.cpp", 0.0, 3.1, ""),
    "torch.cuda.layernorm": ("torch.nn.LayerNorm on CUDA: Welford in fp32",
                             "pytorch/pytorch aten/src/ATen/native/cuda/layer_norm_kernel.cu", 0.0, 0.0, ""),
    "torch.cuda.groupnorm": ("torch.nn.GroupNorm on CUDA", "pytorch/pytorch aten/src/ATen/native/cuda/group_norm_kernel.cu",
                             0.0, 0.4, ""),
}
IMPLS = [("path:{path}", 0.0), ("cpu.rmsnorm.portable", 0.002), ("cpu.rmsnorm.avx512", 0.004),
         ("cuda.rmsnorm.warp_per_row", 0.03), ("file:smollm2_135m.{format}.safetensors#y", 0.0),
         ('cmd:"python triton_rmsnorm.py"', 0.25)]
INPUTS = ["normal/1", "massive/1", "near_constant/1", "wide_exponents/1", "one_outlier/1", "exact_sums/1"]
SHAPES = {"rmsnorm": [(4, 3072), (8, 768), (1, 1), (7, 4097)], "layernorm": [(8, 768), (16, 1024)],
          "groupnorm": [(2, 320)]}
FORMATS = {"fp32": 24, "bf16": 8, "fp16": 11, "e4m3fn": 4}
# 1/16 ulp wide within 2 ulp, then octaves to 65536.
EDGES = ([-2.0 ** i for i in range(16, 1, -1)] + [i / 16 for i in range(-32, 33)] + [2.0 ** i for i in range(2, 17)])
ALLCLOSE = {"fp32": (1.3e-6, 1e-5), "bf16": (1.6e-2, 1e-5), "fp16": (1e-3, 1e-5), "e4m3fn": (0.125, 0.125)}


def quantized(value):
    """As the judge records it: 2^-16 ulp."""
    return round(value * 65536) / 65536


def rounded(value, format):
    step = 2.0 ** (math.floor(math.log2(abs(value))) + 1 - FORMATS[format])
    return round(value / step) * step


def bits_of(value, format):
    """Of a value that the format holds, normal and positive."""
    if format == "fp16":
        return "0x%04x" % struct.unpack("<H", struct.pack("<e", value))[0]
    if format == "e4m3fn":
        mantissa, exponent = math.frexp(value)
        return "0x%02x" % ((exponent - 1 + 7 << 3) + int(mantissa * 16) - 8)
    code = struct.unpack("<I", struct.pack("<f", value))[0]
    return "0x%08x" % code if format == "fp32" else "0x%04x" % (code >> 16)


def short_hex(value):
    return re.sub(r"0*p", "p", value.hex(), count=1).replace(".p", "p")


def histogram(errors):
    counts = [0] * (len(EDGES) - 1)
    for e in errors:
        counts[bisect.bisect_right(EDGES, e) - 1] += 1
    return {"edges": EDGES, "counts": counts}


def part(values):
    return {"bias": quantized(math.fsum(values) / len(values)), "max": quantized(max(map(abs, values))),
            "rms": quantized(math.sqrt(math.fsum(v * v for v in values) / len(values)))}


def output_of(rng, path, format, shape, spread, recorded, drawn=400, overflow=0):
    gap, roundings = PATHS[path][2:4]
    scale = 2.0 ** min(0, FORMATS[format] - 11)   # a definition gap is small beside a coarse ulp
    elements = shape[0] * shape[1]
    drawn = min(drawn, elements)
    overflow = min(overflow, elements - 1)
    parts = []
    for _ in range(drawn):
        definition = gap * scale * (1 + 0.1 * rng.uniform(-1, 1))
        path_error = rng.uniform(-0.5, 0.5) + roundings * rng.uniform(-1, 1)
        slip = (rng.choice([-1, 1]) if rng.random() < spread else 0.0)
        parts.append((definition, path_error, slip))
    total = [sum(p) for p in parts]
    order = sorted(range(drawn), key=lambda i: -abs(total[i]))
    ulps = sorted(abs(t) for t in total)
    at = lambda i: [i * elements // drawn // shape[1], i * elements // drawn % shape[1]]
    worst = []
    for i in order[:8]:
        truth = (1 + rng.random()) * 2.0 ** rng.randint(-2, 3)
        unit = 2.0 ** (math.floor(math.log2(truth)) + 1 - FORMATS[format])
        got = rounded(truth + total[i] * unit, format)
        ideal = rounded(truth + (total[i] - parts[i][2]) * unit, format)
        worst.append({"at": at(i), "got": bits_of(got, format), "got_value": "%s (%.9g)" % (short_hex(got), got),
                      "truth": "%.19e (%s)" % (truth, short_hex(truth)),
                      "ideal": bits_of(ideal, format), "ulp": quantized(total[i]),
                      "definition": quantized(parts[i][0]), "path": quantized(parts[i][1]),
                      "implementation": quantized(parts[i][2])})
    share = lambda limit: sum(u <= limit for u in ulps) * elements // drawn
    unequal = sum(p[2] != 0 for p in parts)
    rtol, atol = ALLCLOSE[format]
    admits = rtol * 2.0 ** (FORMATS[format] - 1)
    equal = elements - unequal * elements // drawn
    result = {
        "format": format, "shape": list(shape), "elements": elements,
        "counts": {"compared": elements - overflow, "nan_expected": 0, "nan_unexpected": 0, "nan_missing": 0,
                   "inf_expected": 0, "inf_unexpected": 0, "inf_missing": 0, "overflow": overflow, "underflow": 0,
                   "subnormal": 0, "undecided": 0, "beyond_scale": 0},
        "tiers": {"binary64": elements - elements // 70, "double_double": elements // 70 - elements // 5000,
                  "exact": elements // 5000},
        "ulp": {"max": quantized(ulps[-1]), "max_at": at(order[0]), "mean_abs": quantized(sum(ulps) / drawn),
                "rms": part(total)["rms"], "bias": part(total)["bias"],
                "quantiles": {q: quantized(ulps[min(drawn - 1, int(float(q) * drawn))])
                              for q in ("0.5", "0.9", "0.99", "0.999")},
                "histogram": histogram(total)},
        "condition_ulp": {"max": quantized(ulps[-1] * 0.9), "max_at": at(order[0]),
                          "mean_abs": quantized(sum(ulps) / drawn * 0.9)},
        "rounding": {"correct": share(0.5), "faithful": share(1.0)},
        "relative_l2": part(total)["rms"] * 2.0 ** -FORMATS[format],
        "angle": part(total)["rms"] * 2.0 ** -FORMATS[format],
        "split": {"definition": part([p[0] for p in parts]), "path": part([p[1] for p in parts]),
                  "implementation": part([p[2] for p in parts]), "total": part(total)},
        "conformance": {"equal": equal, "of": elements,
                        "first_difference": at(next(i for i in range(drawn) if parts[i][2])) if unequal else None,
                        "choice_ulp": 0},
        "allclose": [{"name": "torch.testing " + format, "rtol": rtol, "atol": atol,
                      "passes": ulps[-1] <= 2 * admits, "admits_ulp_max": quantized(admits * 2),
                      "admits_ulp_median": quantized(admits * 1.4)}],
        "worst": worst,
    }
    if recorded == "path":
        result["split"]["implementation"] = None
    return result


def record_of(rng, ordinal, norm, path, format, shape, family, seed, impl, spread, drawn):
    dims = "x".join(map(str, shape))
    case = f"{norm} {format} {dims} path={path} eps=1e-06 input={family} seed={seed}"
    impl = impl.format(path=path, format=format)
    kind = impl.split(":")[0] if ":" in impl else "native"
    record = {"kind": "record", "ordinal": ordinal, "case": case, "impl": impl, "path": path,
              "profile": "cuda.sm90" if "cuda" in path or "cuda" in impl else "x86.avx512", "verdict": "pass",
              "reason": "", "criteria": [], "outputs": {}, "hashes": {},
              "repro": f"norma run {case} --impl {impl}"}
    luck = rng.random()
    if shape == (1, 1) and "avx512" in impl:
        return {**record, "verdict": "skip", "reason": "cols must be a multiple of 16 (512-bit loads)"}
    if luck < 0.008 and kind == "cmd":
        return {**record, "verdict": "crashed", "reason": "exit status 139 (SIGSEGV) before it answered"}
    y = output_of(rng, path, format, shape, spread, kind, drawn, 3 if family.startswith("massive") and format == "fp16" else 0)
    record["outputs"]["y"] = y
    record["hashes"] = {"inputs": "%016x" % rng.getrandbits(64), "outputs": "%016x" % rng.getrandbits(64)}
    if family.startswith("exact_sums") and luck < 0.08:
        return {**record, "verdict": "vacuous", "reason": "all outputs are zero: zero would pass too"}
    bound = 0.51 if kind == "native" and PATHS[path][3] == 0 else 1.6
    measured = y["ulp"]["max"]
    record["criteria"] = [{"text": f"max_ulp<={bound}", "held": measured <= bound, "measured": measured},
                          {"text": "nan_unexpected==0", "held": True, "measured": 0}]
    if not measured <= bound:
        record["verdict"] = "fail"
        record["reason"] = f"max_ulp is {measured}, above {bound}"
    return record


def context():
    return {"schema": 1, "kind": "context", "norma": {"version": "0.1.0"}, "flags": "-ffp-contract=off -fno-fast-math", "truth": "fast",
            "units": {"ulp": "|got - exact| / ulp_F(exact), exact never rounded first"},
            "volatile": {"compiler": "gcc 12.2.0",
                         "platform": {"cpu": "Intel Xeon Platinum 8480C", "isa": "x86-64-v4", "os": "Linux 6.1"},
                         "libraries": {"mpfr": "4.2.0", "boost": "1.74.0"}, "commit": "0123abc",
                         "command": ["run", "@main", "--out", "run.jsonl"], "jobs": 2, "shard": "1/1"}}


def audit(rng, family, format, paths, declared):
    """As norma audit writes it: the paths of the same function and format first, each part the best first."""
    ranking = []
    # A catalogue has many paths with the same casts; these stand for them.
    for name, catalogued in [(path, path) for path in paths] + [("torch.nn.rmsnorm.like_%02d" % i, "torch.nn.rmsnorm") for i in range(14)]:
        y = output_of(rng, catalogued, format, (4, 3072), 0.0, "path", 600)
        title, source, _, _, gap = PATHS[catalogued]
        ranking.append({"path": name, "title": title, "source": source + " @" + ("" if catalogued == name else "0123abc"),
                        "format": "e4m3fn" if name == "diffusers.rmsnorm" else format, "max_ulp": y["ulp"]["max"],
                        "rms_ulp": y["ulp"]["rms"], "mean_abs_ulp": y["ulp"]["mean_abs"], "bias_ulp": y["ulp"]["bias"],
                        "correct_share": y["rounding"]["correct"] / y["elements"], "floor_ulp": 0.5, "gap": gap,
                        "declared": name == declared, "equal_share": 1.0 if name == declared else None})
    ranking.sort(key=lambda r: (r["gap"] != "" or r["format"] != format, r["rms_ulp"], r["path"]))
    return {"kind": "audit", "input": f"{format} {family}", "ranking": ranking,
            "advice": f"{declared} rounds twice; {ranking[0]['path']} rounds once, at the end."}


def lines(rows, small):
    rng = random.Random(20261122)
    drawn = 60 if small else 400 if rows <= 1000 else 16
    rmsnorms = [p for p in PATHS if "rmsnorm" in p or p.startswith("naive")]
    yield context()
    yield audit(rng, "normal/1", "bf16", rmsnorms, "hf.llama.rmsnorm")
    yield audit(rng, "massive/1", "fp16", rmsnorms, "apex.rmsnorm.eps_outside")
    if not small:
        for i in range(25):
            yield audit(rng, f"layers.{i}.input_layernorm", "bf16", rmsnorms, "hf.llama.rmsnorm")
    ordinal = 0
    while ordinal < rows:
        seed = 3 + ordinal // 250
        for norm in SHAPES:
            for path in [p for p in PATHS if norm in p or (norm == "rmsnorm" and p.startswith("naive"))]:
                for impl, spread in IMPLS:
                    if norm != "rmsnorm" and "rmsnorm" in impl:
                        continue
                    if ordinal == rows:
                        return
                    yield record_of(rng, ordinal, norm, path, rng.choice(list(FORMATS)), rng.choice(SHAPES[norm]),
                                    rng.choice(INPUTS), seed, impl, spread, drawn)
                    ordinal += 1


def small_lines():
    """One record of each kind that a view treats differently, and the text that could break a page."""
    rng = random.Random(3)
    yield from (l for l in lines(0, True))
    chosen = [("rmsnorm", "torch.nn.rmsnorm", "bf16", (4, 3072), "normal/1", "path:{path}", 0.0),
              ("rmsnorm", "torch.nn.rmsnorm", "bf16", (4, 3072), "normal/1", "cpu.rmsnorm.avx512", 0.0),
              ("rmsnorm", "diffusers.rmsnorm", "bf16", (4, 3072), "massive/1", "cuda.rmsnorm.warp_per_row", 0.1),
              ("rmsnorm", "hf.llama.rmsnorm", "fp16", (8, 768), "massive/1", "file:smollm2_135m.fp16.safetensors#y", 0.0),
              ("rmsnorm", "apex.rmsnorm.eps_outside", "fp32", (8, 768), "near_constant/1", "path:{path}", 0.0),
              ("rmsnorm", "torch.nn.rmsnorm", "e4m3fn", (7, 4097), "normal/1", "cpu.rmsnorm.portable", 0.02),
              ("rmsnorm", "torch.nn.rmsnorm", "bf16", (1, 1), "normal/1", "cpu.rmsnorm.avx512", 0.0),
              ("layernorm", "torch.cuda.layernorm", "fp16", (8, 768), "exact_sums/1", "path:{path}", 0.0)]
    for ordinal, (norm, path, format, shape, family, impl, spread) in enumerate(chosen):
        record = record_of(rng, ordinal, norm, path, format, shape, family, 3, impl, spread, 60)
        if ordinal == 7:
            record.update(verdict="vacuous", reason="all outputs are zero: zero would pass too", criteria=[])
        yield record
    yield {**record, "ordinal": 8, "verdict": "crashed", "impl": 'cmd:"python </script><b>\u2028kernel.py"', "outputs": {},
           "hashes": {}, "reason": "exit status 139 (SIGSEGV) before it answered",
           "repro": "norma run " + record["case"] + " --impl 'cmd:python kernel.py'"}
    nan = json.loads(json.dumps(record_of(rng, 9, "rmsnorm", "naive.all_in_input", "fp16", (8, 768), "massive/1", 3,
                                          "cuda.rmsnorm.warp_per_row", 0.1, 60)))
    y = nan["outputs"]["y"]
    y["counts"]["nan_unexpected"] = 2
    y["ulp"].update(max="inf", rms="nan", bias="nan", mean_abs="nan")
    y["worst"][0].update(got="0x7e00", got_value="nan", ulp="inf", definition=None, path=None,
                         implementation=None)
    nan.update(verdict="fail", reason="2 NaN where the truth is finite",
               criteria=[{"text": "max_ulp<=1.6", "held": False, "measured": "inf"}])
    # The residual stream is an output too.
    nan["outputs"]["residual"] = json.loads(json.dumps(nan["outputs"]["y"]))
    nan["outputs"]["residual"]["ulp"] = {"max": 0.5, "max_at": [0, 1], "mean_abs": 0.25, "rms": 0.28, "bias": 0.0,
                                         "quantiles": {"0.5": 0.25}, "histogram": {"edges": [-0.5, 0, 0.5], "counts": [3072, 3072]}}
    nan["outputs"]["residual"]["worst"] = []
    yield nan
    # An audit measures every path on the tensors of a file, and only the recorded output has a criterion.
    measured = record_of(rng, 10, "rmsnorm", "hf.llama.rmsnorm", "bf16", (8, 768),
                         "file:captures/smollm2_135m.bf16.safetensors#layers.0.norm.x@sha256-612c396109d4", 3, "path:{path}", 0.0, 60)
    yield {**measured, "verdict": "skip", "reason": "no criterion", "criteria": []}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    for line in small_lines() if arguments.small else lines(arguments.rows, False):
        sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()

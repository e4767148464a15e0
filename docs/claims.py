#!/usr/bin/env python3
"""What two articles on normalization claim, checked by norma: makes docs/claims.md.

    docs/claims.py            print the page
    docs/claims.py --write    write docs/claims.md
    docs/claims.py --check    exit 1 with a sentence if docs/claims.md is not what norma says now

Article A (Korean) walks through the norms of FLUX and Qwen-Image; article B (Chinese) through BatchNorm, LayerNorm,
RMSNorm and AdaLN in PyTorch. Every figure comes from `norma eval truth` (the certified value), `norma eval path:` (bits of
a cast path) or `norma run`; this script only makes inputs, compares bits and takes maxima. A verdict is computed from the
figures: 'true', 'false', or 'conditional' with its condition. No packages are needed; $NORMA names the program.
"""

import difflib
import json
import math
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))

import norma
from norma import _safetensors

CODES = {"fp64": ("d", 8), "fp32": ("f", 4), "fp16": ("e", 2), "bf16": ("H", 2)}
PRECISION = {"fp32": 24, "fp16": 11, "bf16": 8}


# ---- Tensors and calls --------------------------------------------------------------------------------------


def round_to(number_format, value):
    """A double rounded to nearest, ties to even, as a double; bf16 by hand, the rest by struct."""
    if number_format == "bf16":
        m, e = math.frexp(value)
        return math.ldexp(round(math.ldexp(m, 8)), e - 8)
    code = CODES[number_format][0]
    return struct.unpack("<" + code, struct.pack("<" + code, value))[0]


def tensor(number_format, values, *shape):
    values = [round_to(number_format, v) for v in values]
    if number_format == "bf16":
        data = b"".join(struct.pack("<f", v)[2:] for v in values)
    else:
        data = struct.pack("<%d%s" % (len(values), CODES[number_format][0]), *values)
    return number_format, tuple(shape) or (len(values),), data


def numbers(t):
    number_format, _, data = t
    if number_format == "bf16":
        return [struct.unpack("<f", b"\0\0" + data[i : i + 2])[0] for i in range(0, len(data), 2)]
    code, size = CODES[number_format]
    return list(struct.unpack("<%d%s" % (len(data) // size, code), data))


def normal(seed, count, mean=0.0, spread=1.0):
    """Near-normal values: twelve uniform ones added, so that no library's log or cos is in a figure."""
    draw = random.Random(seed)
    return [mean + spread * (math.fsum(draw.random() for _ in range(12)) - 6) for _ in range(count)]


def evaluate(what, norm, tensors, to=None, **attributes):
    """norma eval: for the truth lo, hi and rounded (and NAME.lo ... of other outputs), for a path its outputs."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = (os.path.join(folder, n) for n in ("in.safetensors", "out.safetensors"))
        _safetensors.write(source, tensors)
        words = ["eval", what, norm, "--in", source, "--out", target]
        for name, value in attributes.items():
            words += ["--set", "%s=%s" % (name, value)]
        call(words + (["--round-to", to] if to else []))
        return _safetensors.read(target)


def call(words):
    done = subprocess.run(
        [norma.find_program()] + words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    if done.returncode != 0:
        raise SystemExit("norma %s ended with %d: %s" % (" ".join(words), done.returncode, done.stderr.strip()))
    return done.stdout


def truth(norm, tensors, **attributes):
    """The middle of the certified enclosure of y, in binary64."""
    return middle(evaluate("truth", norm, tensors, **attributes), "")


def middle(found, prefix):
    return [(a + b) / 2 for a, b in zip(numbers(found[prefix + "lo"]), numbers(found[prefix + "hi"]))]


def e4m3(data):
    """The values of e4m3fn codes: 1 sign, 4 exponent, 3 mantissa bits, bias 7, NaN at 0x7f and 0xff."""
    values = []
    for code in data:
        exponent, mantissa = code >> 3 & 15, code & 7
        value = math.ldexp(mantissa, -9) if exponent == 0 else math.ldexp(8 + mantissa, exponent - 10)
        values.append(math.nan if code & 127 == 127 else -value if code & 128 else value)
    return values


def compared(a, b, norm, tensors, **attributes):
    """norma compare: what lies between two recorded outputs of one call."""
    with tempfile.TemporaryDirectory() as folder:
        files = {n: os.path.join(folder, n + ".safetensors") for n in ("a", "b", "in")}
        _safetensors.write(files["in"], tensors)
        _safetensors.write(files["a"], {"y": a})
        _safetensors.write(files["b"], {"y": b})
        words = ["compare", "file:%s#y" % files["a"], "file:%s#y" % files["b"], norm, "--in", files["in"], "--json"]
        for name, value in attributes.items():
            words += ["--set", "%s=%s" % (name, value)]
        return json.loads(call(words))["outputs"]["y"]["between"]


_suite = {}


def measures(words):
    """What norma run finds for one case of the suite `claims`, named by some of its words."""
    if not _suite:
        for line in call(["run", str(HERE.parent / "harness/cases/suites/claims.cases"), "--json"]).splitlines():
            record = json.loads(line)
            if record.get("kind") == "record":
                _suite[tuple(record["case"].split())] = record
    for case, record in _suite.items():
        if all(word in case for word in words.split()):
            return norma._measures(record["outputs"])
    raise SystemExit("the suite claims has no case with the words '%s'" % words)


# ---- Comparisons --------------------------------------------------------------------------------------------


def angle(u, v):
    """Between two vectors, in radians; by the chord of the unit vectors, exact to about 1e-16."""
    lengths = [math.sqrt(math.fsum(a * a for a in w)) for w in (u, v)]
    chord = math.sqrt(math.fsum((a / lengths[0] - b / lengths[1]) ** 2 for a, b in zip(u, v)))
    return 2 * math.asin(min(1.0, chord / 2))


def ulps(number_format, got, want):
    """The largest |got - want| in units of the last place of `want` in this format (normal numbers)."""
    worst = 0.0
    for g, w in zip(got, want):
        if w != 0:
            worst = max(worst, abs(g - w) / math.ldexp(1.0, math.frexp(w)[1] - PRECISION[number_format]))
    return worst


def rms(values):
    return math.sqrt(math.fsum(v * v for v in values) / len(values))


def relative(got, want):
    return rms([g - w for g, w in zip(got, want)]) / rms(want)


def share(flags):
    flags = list(flags)
    return "%d of %d" % (sum(flags), len(flags))


# ---- The claims ---------------------------------------------------------------------------------------------

CLAIMS = []


def claim(article, text):
    def keep(function):
        CLAIMS.append((article, text, function))
        return function

    return keep


@claim("A", "LayerNorm gives [1, 2, 3, 4] and [4, 5, 6, 7] the same result, [-1.34, -0.45, 0.45, 1.34]")
def same_layernorm():
    x = [1, 2, 3, 4, 4, 5, 6, 7]
    found = evaluate("truth", "layernorm", {"x": tensor("fp32", x, 2, 4)})
    lo, hi = numbers(found["lo"]), numbers(found["hi"])
    same = (lo[:4], hi[:4]) == (lo[4:], hi[4:]) and ["%.2f" % v for v in lo[:4]] == ["-1.34", "-0.45", "0.45", "1.34"]
    rounded = {
        f: numbers(evaluate("truth", "layernorm", {"x": tensor(f, x, 2, 4)}, to=f)["rounded"]) for f in PRECISION
    }
    same = same and all(v[:4] == v[4:] for v in rounded.values())
    row = normal(1, 768)
    far = {
        f: ulps(
            f,
            truth("layernorm", {"x": tensor(f, [v + 1000 for v in map(lambda v: round_to(f, v), row)], 1, 768)}),
            truth("layernorm", {"x": tensor(f, row, 1, 768)}),
        )
        for f in ("fp32", "bf16")
    }
    return (
        "true" if same else "false",
        [
            "the two enclosures are equal: y[0] = %.9f at eps 1e-5; fp32, fp16 and bf16 round them alike" % lo[0],
            "only while x + c is exact: 768 normal values moved by 1000 and stored again give another LayerNorm, "
            "by up to %.3g ulp (fp32), %.3g ulp (bf16), before any arithmetic" % (far["fp32"], far["bf16"]),
        ],
    )


@claim("A", "LayerNorm makes a token scale-invariant")
def scale_invariant():
    x = [round_to("fp32", v) for v in normal(2, 768)]
    base = truth("layernorm", {"x": tensor("fp32", x, 1, 768)}, eps=1e-5)
    lines, exact = [], True
    for k in (7, 0, -7, -10):
        y = truth("layernorm", {"x": tensor("fp32", [math.ldexp(v, k) for v in x], 1, 768)}, eps=1e-5)
        lines.append("x times 2^%d: y changes by %.3g" % (k, relative(y, base)))
        exact = exact and (k == 0 or y == base)
    plain = [
        truth("layernorm", {"x": tensor("fp32", [math.ldexp(v, k) for v in x], 1, 768)}, eps_place="none")
        for k in (0, -10)
    ]
    invariant = relative(plain[1], plain[0]) < 1e-15
    lines.append("without eps: %.1g" % relative(plain[1], plain[0]))
    return (
        "true" if exact else "conditional: only where eps is small beside the variance" if invariant else "false"
    ), lines


@claim("A", "RMSNorm keeps the direction 100 %, LayerNorm changes it slightly")
def direction():
    n, lines = 3072, []
    exact = angle(
        truth("rmsnorm", {"x": tensor("fp32", normal(3, n), 1, n)}), [round_to("fp32", v) for v in normal(3, n)]
    )
    lines.append("the real RMSNorm without weight: angle %s" % ("0" if exact < 1e-12 else "%.3g" % exact))
    for f in PRECISION:
        x = tensor(f, normal(3, n, spread=0.7), 1, n)
        y = evaluate("path:transformers.llama.rmsnorm", "rmsnorm", {"x": x, "weight": tensor(f, [1.0] * n)}, eps=1e-6)[
            "y"
        ]
        off = angle(numbers(y), numbers(x))
        lines.append(
            "as computed in %s by Llama's path, weight 1: %.3g rad, %.2g times the rounding unit 2^-%d"
            % (f, off, off * 2 ** PRECISION[f], PRECISION[f])
        )
    weighted = truth(
        "rmsnorm",
        {"x": tensor("fp32", normal(3, n), 1, n), "weight": tensor("fp32", normal(4, n, mean=1.0, spread=0.3))},
    )
    turned = angle(weighted, normal(3, n))
    lines.append("with weights 1 + 0.3 N(0, 1) the real RMSNorm turns it by %.3g rad" % turned)
    for mean in (0.0, 0.1, 1.0):
        x = [round_to("fp32", v) for v in normal(3, n, mean=mean)]
        lines.append(
            "the real LayerNorm, elements of mean %g and deviation 1: %.3g rad"
            % (mean, angle(truth("layernorm", {"x": tensor("fp32", x, 1, n)}), x))
        )
    return (
        "conditional: over the reals and without weights; LayerNorm's turn is slight only where the mean is"
        if exact < 1e-12 < turned
        else "false"
    ), lines


@claim("B", "Where the mean is 0, RMSNorm and LayerNorm are the same")
def zero_mean():
    half = [round_to("fp32", v) for v in normal(5, 384)]
    x = tensor("fp32", half + [-v for v in half], 1, 768)
    a, b = (evaluate("truth", n, {"x": x}, eps=1e-5, to="fp32") for n in ("rmsnorm", "layernorm"))
    same = a["rounded"] == b["rounded"] and relative(middle(a, ""), middle(b, "")) < 1e-15
    x = tensor("fp32", normal(6, 768), 1, 768)
    apart = relative(truth("layernorm", {"x": x}, eps=1e-5), truth("rmsnorm", {"x": x}, eps=1e-5))
    return (
        "true" if same else "false",
        [
            "768 values in pairs v, -v: the enclosures agree, every fp32 result is the same",
            "768 values drawn from N(0, 1), whose own mean is not 0: they differ by %.3g" % apart,
        ],
    )


@claim("A", "Where eps stands changes RMSNorm's result a lot")
def eps_place():
    lines, small, large = [], 0.0, 0.0
    for spread in (1.0, 1e-2, 1e-3):
        x = tensor("fp32", normal(7, 768, spread=spread), 1, 768)
        inside = truth("rmsnorm", {"x": x}, eps=1e-6)
        gaps = {
            p: ulps("bf16", truth("rmsnorm", {"x": x}, eps=1e-6, eps_place=p), inside)
            for p in ("outside", "max", "none")
        }
        lines.append(
            "rms %g, eps 1e-6: outside the root %.3g, max(root, eps) %.3g, none %.3g ulp of bf16 from inside"
            % (spread, *(gaps[p] for p in ("outside", "max", "none")))
        )
        small, large = (max(gaps.values()), large) if spread == 1.0 else (small, max(large, *gaps.values()))
        if spread == 1.0:  # without the root of N, that this form lacks
            whole = [v * math.sqrt(768) for v in truth("rmsnorm", {"x": x}, eps=1e-6, eps_place="sum")]
            on_sum = "on the sum of squares: 1/sqrt(768) of the norm, then %.3g ulp of bf16" % ulps(
                "bf16", whole, inside
            )
    lines.append(on_sum)
    return "conditional: nothing where the mean square is far above eps" if small < 0.5 < large else "false", lines


@claim("A", "When the value is cast changes RMSNorm's result; FLUX casts before or after its scale")
def cast_order():
    lines, worst = [], {}
    for f in PRECISION:
        for path in ("bfl.flux.rmsnorm", "bfl.flux.rmsnorm.scale_fp32"):
            m = measures("%s 64x3072 path=%s" % (f, path))
            worst[f, path] = m["max_ulp"]
            lines.append(
                "%s, %s the scale: at most %.3f ulp, rms %.3f, %.1f %% not correctly rounded"
                % (
                    f,
                    "before" if path.endswith("rmsnorm") else "after",
                    m["max_ulp"],
                    m["rms_ulp"],
                    100 * m["incorrect_share"],
                )
            )
    half = all(worst[f, "bfl.flux.rmsnorm"] > 1 > worst[f, "bfl.flux.rmsnorm.scale_fp32"] for f in ("fp16", "bf16"))
    same = worst["fp32", "bfl.flux.rmsnorm"] == worst["fp32", "bfl.flux.rmsnorm.scale_fp32"]
    return (
        "conditional: in 16 bits; in fp32 there is no cast" if half and same else "true" if half else "false"
    ), lines


@claim("A", "Qwen-Image's RMSNorm decides its cast by the weight's dtype")
def qwen_branches():
    x, lines, formats = tensor("bf16", normal(8, 4 * 768), 4, 768), [], {}
    for w in ("fp32", "bf16", "fp16", None):
        given = {"x": x, **({"weight": tensor(w, normal(9, 768, mean=1.0, spread=0.1))} if w else {})}
        y = evaluate("path:diffusers.rmsnorm", "rmsnorm", given, eps=1e-6)["y"]
        formats[w] = y[0]
        if w:
            e = measures("bf16 64x768 path=diffusers.rmsnorm weight.format=%s" % w)
            lines.append("x bf16, weight %s: output %s, at most %.3f ulp of it" % (w, y[0], e["max_ulp"]))
        else:
            lines.append("x bf16, no weight: output %s" % y[0])
    return "true" if formats == {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16", None: "bf16"} else "false", lines


@claim("A", "torch.nn.RMSNorm has not been stable: what it computes")
def torch_versions():
    lines, different = [], False
    for version in ("2_4_0", "2_6", "2_8"):
        m, edge = (
            measures("%s path=torch.rms_norm.%s input=%s" % (f, version, i))
            for f, i in (("bf16 64x3072", "normal/1"), ("fp16 64x3072", "fp16_edge/1"))
        )
        lines.append(
            "torch %s: bf16 at most %.3f ulp; fp16 with values at 256: %d of %d elements lost to overflow"
            % (
                version.replace("_", "."),
                m["max_ulp"],
                edge["underflow"] + edge["nan_unexpected"] + edge["inf_unexpected"],
                64 * 3072,
            )
        )
        different = different or m["max_ulp"] > 1
    return "true" if different else "false", lines


@claim("B", "BatchNorm's running variance takes the unbiased variance, the normalization the biased one")
def running_variance():
    x = tensor("fp32", [1, 2, 3, 4], 4, 1)
    zero = tensor("fp32", [0.0])
    found = evaluate("truth", "batchnorm", {"x": x, "running_mean": zero, "running_var": zero}, eps=0.0, momentum=1)
    variance, y = middle(found, "running_var.")[0], middle(found, "")
    right = abs(variance - 5 / 3) < 1e-15 and abs(y[3] - 1.5 / math.sqrt(1.25)) < 1e-15
    return "true" if right else "false", [
        "of 1, 2, 3, 4 with momentum 1: running variance %.15g = 5/3; y[3] = %.15g = 1.5/sqrt(5/4)" % (variance, y[3])
    ]


@claim("B", "In training the momentum defaults to 1/B, B the number of batches so far")
def momentum():
    batches = [normal(20 + i, 32, mean=3.0, spread=2.0) for i in range(8)]
    ends = {}
    for name in ("0.1", "1/B"):
        mean, var = tensor("fp64", [0.0]), tensor("fp64", [1.0])
        for i, batch in enumerate(batches):
            p = 0.1 if name == "0.1" else 1.0 / (i + 1)
            found = evaluate(
                "truth",
                "batchnorm",
                {"x": tensor("fp32", batch, 32, 1), "running_mean": mean, "running_var": var},
                momentum=repr(p),
            )
            mean, var = (tensor("fp64", middle(found, k + "."), 1) for k in ("running_mean", "running_var"))
        ends[name] = numbers(mean)[0], numbers(var)[0]
    average = math.fsum(math.fsum(round_to("fp32", v) for v in b) / 32 for b in batches) / 8
    cumulative = abs(ends["1/B"][0] - average) < 1e-12
    return (
        (
            "conditional: only with momentum=None; the signature quoted beside the claim says 0.1"
            if cumulative
            else "false"
        ),
        [
            "8 batches of 32 from N(3, 4), running mean begun at 0 and variance at 1:",
            "momentum 0.1 (torch's default) ends at mean %.4f, variance %.4f: 0.9^8 = %.0f %% of the start is still there"
            % (*ends["0.1"], 100 * 0.9**8),
            "1/B ends at mean %.4f, variance %.4f: the average of the batches (%.4f)" % (*ends["1/B"], average),
        ],
    )


@claim("B", "The forward of _BatchNorm as quoted passes running_mean if not self.training else None")
def quoted_forward():
    x, p = tensor("fp32", normal(30, 64, mean=3.0), 64, 1), {
        "running_mean": tensor("fp32", [0.0]),
        "running_var": tensor("fp32", [1.0]),
    }
    quoted, real = (evaluate("truth", "batchnorm", {"x": x, **more}, momentum=0.1) for more in ({}, p))
    moved = middle(real, "running_mean.")[0]
    lost = not any(k.startswith("running") for k in quoted)
    return (
        (
            "false: so written, training never updates the statistics; torch passes them if not training or tracking"
            if lost and moved
            else "true"
        ),
        [
            "one step on 64 values of mean 3: the quoted call has no running statistics to write; torch's moves the mean from 0 to %.4f"
            % moved
        ],
    )


@claim("B", "The bias of the layer before a BatchNorm is redundant")
def redundant_bias():
    x = [round_to("bf16", v) for v in normal(31, 512)]
    base = truth("batchnorm", {"x": tensor("bf16", x, 512, 1)})
    shifted = truth("batchnorm", {"x": tensor("fp64", [v + 8 for v in x], 512, 1)})
    same = relative(shifted, base) < 1e-14
    lines = ["over the reals, bias 8: y changes by %.1g" % relative(shifted, base)]
    for bias in (1.0, 8.0, 64.0):
        y = truth("batchnorm", {"x": tensor("bf16", [v + bias for v in x], 512, 1)})
        lines.append(
            "x + %g stored in bf16: y changes by %.3g; the bias is not only redundant, it costs digits"
            % (bias, relative(y, base))
        )
    return "true" if same else "false", lines


@claim("A", "BatchNorm needs a batch of 64 or so; with 8 the statistics are poor")
def small_batches():
    n = 1 << 16
    x = [round_to("fp32", v) for v in normal(32, n)]
    mean = math.fsum(x) / n
    var = math.fsum((v - mean) ** 2 for v in x) / n
    whole = truth(
        "batchnorm",
        {"x": tensor("fp32", x, n, 1), "running_mean": tensor("fp64", [mean]), "running_var": tensor("fp64", [var])},
        statistics="running",
    )
    lines, errors = [], {}
    for b in (2, 8, 64, 512):
        y = []
        for i in range(0, 32 * b, b):
            y += truth("batchnorm", {"x": tensor("fp32", x[i : i + b], b, 1)})
        errors[b] = relative(y, whole[: len(y)])
        lines.append(
            "batches of %d values: y is off by %.3g from y by the whole population's statistics, %.3g times bf16's rounding unit"
            % (b, errors[b], errors[b] * 2**8)
        )
    smooth = errors[8] > errors[64] > errors[512] > 2.0**-8
    return (
        "conditional: the error falls like 1/sqrt(values) and no size is special; it stays far above any rounding"
        if smooth
        else "false"
    ), lines


@claim("A, B", "GroupNorm lies between InstanceNorm (a group a channel) and one group of all")
def groups():
    x = tensor("fp32", normal(33, 2 * 8 * 25), 2, 8, 5, 5)
    instance, each = (
        evaluate("truth", n, {"x": x}, to="fp32", **a)["rounded"]
        for n, a in (("instancenorm", {}), ("groupnorm", {"groups": 8}))
    )
    one = evaluate("truth", "groupnorm", {"x": x}, to="fp32", groups=1)["rounded"]
    layer = evaluate("truth", "layernorm", {"x": ("fp32", (2, 200), x[2])}, to="fp32")["rounded"]
    same = instance == each and one[2] == layer[2]
    return "true" if same else "false", [
        "8 groups of 8 channels: InstanceNorm's results; 1 group: LayerNorm's over [C, H, W]; every fp32 result the same"
    ]


@claim("A, B", "(1 + scale) x leaves x as it is at scale 0, scale x would give 0")
def scale_zero():
    lines, same = [], True
    for f in PRECISION:
        x = tensor(f, normal(34, 4 * 64), 4, 64)
        y = evaluate(
            "truth", "modulate", {"x": x, "scale": tensor(f, [0.0] * 64), "shift": tensor(f, [0.0] * 64)}, to=f
        )["rounded"]
        same = same and y == x
        lines.append("%s: %s elements have the bits of x" % (f, share(a == b for a, b in zip(numbers(y), numbers(x)))))
    return "true" if same else "false", lines


@claim("B", "FiLM's gamma x + beta and modulate's x (1 + gamma) + beta are the same form")
def film():
    scale, lines = normal(35, 4096, spread=0.02), []
    for f in ("bf16", "fp16"):
        stored = [round_to(f, v) for v in scale]
        lines.append(
            "scale of N(0, 0.02^2) stored in %s: 1 + scale is exact for %s; stored as 1 + scale, gamma is off by up to %.3g of the scale's rms"
            % (
                f,
                share(round_to(f, 1 + v) == 1 + v for v in stored),
                max(abs(round_to(f, 1 + v) - 1 - v) for v in scale) / rms(scale),
            )
        )
    x, gamma = tensor("fp32", normal(36, 64), 1, 64), normal(37, 64, spread=0.25)
    exact = [math.ldexp(round(math.ldexp(v, 20)), -20) for v in gamma]
    a = truth("modulate", {"x": x, "scale": tensor("fp64", exact)})
    b = [v * (1 + g) for v, g in zip(numbers(x), exact)]
    return (
        "conditional: over the reals; in 16 bits gamma near 1 has fewer digits than scale near 0"
        if relative(a, b) < 1e-15
        else "false"
    ), lines


@claim("A", "The affine of a LayerNorm under a modulation is redundant")
def affine_under_modulation():
    n, lines = 768, []
    w, b, s, t = (
        normal(40 + i, n, mean=m, spread=d) for i, (m, d) in enumerate(((1, 0.1), (0, 0.1), (0, 0.3), (0, 0.3)))
    )
    whole = None
    for f in ("fp32", "fp16", "bf16"):
        x = tensor(f, normal(44, 4 * n), 4, n)
        p = {k: tensor(f, v) for k, v in (("weight", w), ("bias", b), ("scale", s), ("shift", t))}
        v = {k: numbers(q) for k, q in p.items()}
        folded = {
            "weight": tensor("fp64", [a * (1 + c) for a, c in zip(v["weight"], v["scale"])]),
            "bias": tensor("fp64", [a * (1 + c) + d for a, c, d in zip(v["bias"], v["scale"], v["shift"])]),
        }
        one = truth("layernorm", {"x": x, **folded}, eps=1e-6)
        if f == "fp32":
            inner = truth("layernorm", {"x": x, "weight": p["weight"], "bias": p["bias"]}, eps=1e-6)
            two = truth("modulate", {"x": tensor("fp64", inner, 4, n), "scale": p["scale"], "shift": p["shift"]})
            whole = relative(two, one)
            lines.append(
                "over the reals, folded into weight (1 + scale) and bias (1 + scale) + shift: apart by %.1g (binary64)"
                % whole
            )
        normed = evaluate("truth", "layernorm", {"x": x, "weight": p["weight"], "bias": p["bias"]}, to=f, eps=1e-6)[
            "rounded"
        ]
        stepped = numbers(
            evaluate("truth", "modulate", {"x": normed, "scale": p["scale"], "shift": p["shift"]}, to=f)["rounded"]
        )
        lines.append(
            "%s: LayerNorm stored, then modulated, each rounded once: relative error %.3g; folded and rounded once: %.3g"
            % (f, relative(stepped, one), relative([round_to(f, q) for q in one], one))
        )
    return "true" if whole < 1e-14 else "false", lines


@claim("B", "AdaLN-Zero begins as if the block were not there")
def adaln_zero():
    lines, same = [], True
    for f in PRECISION:
        x = tensor(f, normal(50, 4 * 64), 4, 64)
        y = evaluate(
            "truth",
            "gated_residual",
            {"x": x, "f": tensor(f, normal(51, 4 * 64), 4, 64), "gate": tensor(f, [0.0] * 64)},
            to=f,
        )["rounded"]
        same = same and y == x
        lines.append(
            "%s, gate 0: %s elements have the bits of x" % (f, share(a == b for a, b in zip(numbers(y), numbers(x))))
        )
        gate = tensor(f, [0.0] * 64)
        branch = tensor(f, normal(51, 4 * 64), 4, 64)
        bits = evaluate("path:facebook.dit.gated_residual", "gated_residual", {"x": x, "f": branch, "gate": gate})["y"]
        same = same and bits == x
        lines.append("%s, DiT's own path, gate 0: %s" % (f, "all bits of x" if bits == x else "other bits than x"))
    lines.append("(the gate is 0 while the last linear layer is: 0 SiLU(c) + 0 = 0 for every finite c)")
    y = numbers(
        evaluate(
            "truth",
            "gated_residual",
            {
                "x": tensor("fp32", [1.0, 1.0, -0.0, 1.0], 1, 4),
                "f": tensor("fp32", [math.inf, math.nan, 1.0, 1.0], 1, 4),
                "gate": tensor("fp32", [0.0] * 4),
            },
            to="fp32",
        )["rounded"]
    )
    poisoned = math.isnan(y[0]) and math.isnan(y[1]) and math.copysign(1, y[2]) > 0
    lines.append(
        "but 0 times an Inf or NaN of the branch is NaN: x + 0 f = %s for f = Inf, NaN, and -0 + 0 = %s" % (y[:2], y[2])
    )
    return (
        "conditional: bit for bit while the branch is finite and x has no -0" if same and poisoned else "true" if same else "false"
    ), lines


@claim("A", "Training precision and inference precision of the same norm differ considerably")
def precisions():
    lines, errors = [], []
    for words, name in (
        ("fp32 64x3072 path=transformers.llama.rmsnorm", "Llama's path, fp32"),
        ("fp16 64x3072 path=transformers.llama.rmsnorm", "the same, fp16"),
        ("bf16 64x3072 path=transformers.llama.rmsnorm", "the same, bf16"),
        ("bf16 64x3072 path=onnx.rmsnormalization.23", "ONNX's function body, bf16"),
        ("bf16 64x3072 path=vllm.rms_norm.static_fp8", "vLLM, bf16 in, e4m3 out with one scale"),
    ):
        m = measures(words)
        errors.append(m["relative_l2"])
        lines.append(
            "%s: relative error %.3g, at most %.3f ulp of its own format" % (name, m["relative_l2"], m["max_ulp"])
        )
    rows, n = 16, 3072
    x, w = normal(60, rows * n), normal(61, n, mean=1.0, spread=0.1)
    half = {"x": tensor("bf16", x, rows, n), "weight": tensor("bf16", w)}
    wide = {k: tensor("fp32", numbers(v), *v[1]) for k, v in half.items()}
    given = {"eps": 1e-6}
    scale = {"scale": tensor("fp32", [2.0**-5])}
    scale["scale"] = ("fp32", (), scale["scale"][2])
    codes = evaluate("path:vllm.rms_norm.static_fp8", "rmsnorm", {**half, **scale}, quant="static", **given)["y"]
    outputs = {
        "training in fp32": evaluate("path:transformers.llama.rmsnorm", "rmsnorm", wide, **given)["y"],
        "training in bf16": evaluate("path:transformers.llama.rmsnorm", "rmsnorm", half, **given)["y"],
        "ONNX in bf16": evaluate("path:onnx.rmsnormalization.23", "rmsnorm", half, **given)["y"],
        "static fp8 (codes times 2^-5)": tensor("fp32", [2.0**-5 * v for v in e4m3(codes[2])], rows, n),
    }
    lines.append("two of them side by side on the same bf16 values and weights, 16 x 3072 (`norma compare`):")
    apart = {}
    for a, b in (
        ("training in fp32", "training in bf16"),
        ("training in fp32", "ONNX in bf16"),
        ("training in fp32", "static fp8 (codes times 2^-5)"),
        ("training in bf16", "ONNX in bf16"),
        ("training in bf16", "static fp8 (codes times 2^-5)"),
    ):
        between = compared(outputs[a], outputs[b], "rmsnorm", half, **given)
        apart[a, b] = between["relative_l2"]
        lines.append(
            "%s, %s: %.1f %% of the elements have the same value; apart by %.3g of the exact value's length"
            % (a, b, 100 * between["equal_values"] / between["elements"], between["relative_l2"])
        )
    fp8, bf16 = (apart["training in fp32", k] for k in ("static fp8 (codes times 2^-5)", "training in bf16"))
    # Between formats the distance is the coarser format's own rounding; between codes of one format it is far less.
    same_format = apart["training in bf16", "ONNX in bf16"]
    right = errors[0] < errors[1] < errors[2] < errors[-1] and fp8 > 8 * bf16 and 8 * same_format < bf16
    return "true" if right else "false", lines


@claim("A", "sqrt(mean(x^2)) is numerically stable")
def stable():
    big, lines = [2.0**70, -(2.0**70), 2.0**69, 1.0], []
    exact = truth("rmsnorm", {"x": tensor("fp32", big, 1, 4)}, eps=1e-6)
    y = numbers(
        evaluate(
            "path:transformers.llama.rmsnorm",
            "rmsnorm",
            {"x": tensor("fp32", big, 1, 4), "weight": tensor("fp32", [1.0] * 4)},
            eps=1e-6,
        )["y"]
    )
    lines.append(
        "fp32 row with 2^70: the real y[0] is %.4f, Llama's path in fp32 gives %s, since (2^70)^2 is beyond fp32"
        % (exact[0], y[0])
    )
    half = numbers(
        evaluate(
            "path:torch.rms_norm.2_4_0", "rmsnorm", {"x": tensor("fp16", [300.0, -300, 300, 300], 1, 4)}, eps=1e-6
        )["y"]
    )
    lines.append(
        "fp16 row of 300 with squares in fp16 (torch 2.4.0): %s instead of 1; with squares in fp32: %s"
        % (
            half[0],
            numbers(
                evaluate(
                    "path:torch.rms_norm.2_8", "rmsnorm", {"x": tensor("fp16", [300.0, -300, 300, 300], 1, 4)}, eps=1e-6
                )["y"]
            )[0],
        )
    )
    return (
        "conditional: while the squares stay in range, below 2^64 with fp32 and below 256 with fp16 squares"
        if y[0] == 0.0 and half[0] == 0.0
        else "true"
    ), lines


# ---- The page -----------------------------------------------------------------------------------------------


def page():
    rows, parts = [], []
    for i, (article, text, function) in enumerate(CLAIMS, 1):
        verdict, lines = function()
        rows.append("| %d | %s | %s | %s |" % (i, article, text, verdict.split(":")[0]))
        parts += [
            "",
            "## %d. %s" % (i, text),
            "",
            "Article %s. **%s**" % (article, verdict[0].upper() + verdict[1:]) + ".",
            "",
        ]
        parts += ["* " + line for line in lines]
    head = [
        "# What two articles claim, checked",
        "",
        "Made by `docs/claims.py --write`; do not edit. Every figure is what norma computes: the certified value of the norm, the",
        "bits of a cast path, or the suite `claims` (`norma run @claims`). Article A (Korean) walks through the norms of FLUX and",
        "Qwen-Image, article B (Chinese) through BatchNorm, LayerNorm, RMSNorm and AdaLN in PyTorch. 'Relative' is the root mean",
        "square of the difference over that of the value. N(0, 1) is near-normal: twelve uniform values added.",
        "",
        "| | article | claim | verdict |",
        "|---|---|---|---|",
    ]
    return "\n".join(head + rows + parts) + "\n"


def main():
    target, text = HERE / "claims.md", page()
    if "--write" in sys.argv:
        target.write_text(text, encoding="utf-8")
    elif "--check" in sys.argv:
        written = target.read_text(encoding="utf-8")
        if written != text:
            print("docs/claims.md is not what norma says now; 'docs/claims.py --write' makes it anew:")
            print(
                "\n".join(
                    list(
                        difflib.unified_diff(
                            written.splitlines(), text.splitlines(), "written", "now", lineterm="", n=0
                        )
                    )[:40]
                )
            )
            sys.exit(1)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()

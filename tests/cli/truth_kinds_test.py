#!/usr/bin/env python3
"""Records are the same bytes with the fast truth and with MPFR alone, but for the counts of tiers; and runs of one kind do
not mix with runs of the other. Argument 1 or $NORMA: the binary."""

import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unittest

NORMA = os.path.abspath(sys.argv.pop(1) if len(sys.argv) > 1 and os.path.isfile(sys.argv[1]) else os.environ.get("NORMA", "build/bin/norma"))
CAPTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "captures")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "python", "norma"))
import _safetensors  # noqa: E402


def norma(*words):
    return subprocess.run([NORMA, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=250)


def lines_of(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def without_tiers(record):
    copy = json.loads(json.dumps(record))
    for output in copy.get("outputs", {}).values():
        del output["tiers"]
    return json.dumps(copy)


def float_of(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def encoded(values, number_format):
    """fp32 as it is; bf16 cut towards zero, fp16 rounded: any bits will do."""
    if number_format == "fp32":
        return struct.pack("<%df" % len(values), *values)
    if number_format == "fp16":
        return b"".join(struct.pack("<e", v) if abs(v) < 65504 else struct.pack("<H", 0x7C00) for v in values)
    return b"".join(struct.pack("<f", v)[2:] for v in values)


def special_rows(columns, number_format, seed):
    """Rows of x and of a kernel's y where decisions are hard: zeros, NaN, Inf, overflow, subnormals, exact ties, one value."""
    r = random.Random(seed)
    least = {"fp32": 2.0 ** -149, "bf16": 2.0 ** -133, "fp16": 2.0 ** -24}[number_format]
    top = {"fp32": 2.0 ** 127, "bf16": 2.0 ** 127, "fp16": 2.0 ** 15}[number_format]
    nan, inf = float("nan"), float("inf")
    x = [
        [0.0] * columns,
        [nan if i == 3 else r.gauss(0, 1) for i in range(columns)],
        [inf if i == 5 else r.gauss(0, 1) for i in range(columns)],
        [top if i == 0 else 0.0 for i in range(columns)],
        [top * r.choice([1, -1]) for _ in range(columns)],
        [least * r.randint(-3, 3) for _ in range(columns)],
        [r.choice([1.5, 0.5, -1.5]) for _ in range(columns)],
        [1.0] * columns,
        [r.gauss(0, 1) * 2.0 ** r.randint(-12, 12) for _ in range(columns)],
        [-0.0 if i % 2 else 0.25 for i in range(columns)],
    ]
    weight = [r.choice([1.0, 3.0, 0.0, -1.5, 1 + 2.0 ** -7, 2.0 ** -9, r.gauss(0, 1)]) for _ in range(columns)]
    y = []
    for row in x:
        total = sum(v * v for v in row) / columns
        scale = (total + 1e-6) ** -0.5 if total == total and total < 1e300 else 0.0
        for value, w in zip(row, weight):
            got = value * scale * w if value == value and abs(value) < 1e300 else nan
            y.append(r.choice([got, got, got, got * (1 + 2.0 ** -8), 0.0, -0.0, -got, got * 2.0 ** 20 if abs(got) < 1e20 else got,
                               nan if r.random() < 0.1 else got, inf if r.random() < 0.1 else got, least]))
    return [v for row in x for v in row], weight, y, len(x)


class TruthKinds(unittest.TestCase):
    maxDiff = 2000

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="norma-truth-")
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder.name)

    def check_kinds(self, *words, out="--out"):
        """Runs it with each kind, the fast one with one and two jobs; returns the fast run's records."""
        for name, kind, jobs in [("fast", "fast", "1"), ("two", "fast", "2"), ("mpfr", "mpfr", "2")]:
            done = norma(*words, "--truth", kind, "--jobs", jobs, out, name)
            self.assertIn(done.returncode, (0, 1), done.stderr)
        fast, two, mpfr = (lines_of(name) for name in ("fast", "two", "mpfr"))
        self.assertEqual(fast[0]["truth"], "fast")
        self.assertEqual(mpfr[0]["truth"], "mpfr")
        self.assertEqual(fast[1:], two[1:])
        self.assertEqual(len(fast), len(mpfr))
        for a, b in zip(fast[1:], mpfr[1:]):
            self.assertEqual(without_tiers(a), without_tiers(b), a.get("case"))
        for record in fast[1:] + mpfr[1:]:
            for output in record.get("outputs", {}).values():
                self.assertEqual(sum(output["tiers"].values()) + output["counts"]["undecided"], output["elements"])
                self.assertEqual(output["counts"]["undecided"], 0)
        for record in mpfr[1:]:
            for output in record.get("outputs", {}).values():
                self.assertEqual(output["tiers"]["binary64"] + output["tiers"]["double_double"], 0)
        for name in ("fast", "two", "mpfr"):
            os.remove(name)
        return [line for line in fast if line["kind"] == "record"]

    def test_the_smoke_suite(self):
        records = self.check_kinds("run", "@smoke")
        # The fast truth is fast: else this test would compare MPFR with itself. Quantized outputs have no fast tiers.
        plain = [r["outputs"]["y"]["tiers"] for r in records if " quant=none " in r["case"]]
        self.assertGreater(sum(t["binary64"] for t in plain), 50 * sum(t["exact"] for t in plain))

    def test_captures_of_real_models(self):
        self.check_kinds("audit", "rmsnorm", "--in", os.path.join(CAPTURES, "smollm2_135m.bf16.safetensors"), "--paths", "*llama*")
        self.check_kinds("audit", "rmsnorm", "--in", os.path.join(CAPTURES, "smollm2_135m.fp32.safetensors"), "--paths", "meta*")

    def test_special_rows(self):
        unexpected = ties = 0
        for number_format in ("fp32", "bf16", "fp16"):
            for columns, eps in ((8, "0"), (24, "1e-6"), (33, "0.25")):
                x, weight, y, rows = special_rows(columns, number_format, seed=columns)
                _safetensors.write("t.safetensors", {
                    "x": (number_format, (rows, columns), encoded(x, number_format)),
                    "weight": (number_format, (columns,), encoded(weight, number_format)),
                    "y": (number_format, (rows, columns), encoded(y, number_format))})
                for path in (), ("--path", "meta.llama.rmsnorm"):
                    records = self.check_kinds("check", "rmsnorm", "--in", "t.safetensors", "--set", "eps=" + eps, *path, out="--append")
                    output = records[0]["outputs"]["y"]
                    unexpected += output["counts"]["nan_unexpected"] + output["counts"]["inf_unexpected"]
                    ties += output["tiers"]["exact"]
        self.assertGreater(unexpected, 20)
        self.assertGreater(ties, 20)

    def test_kinds_do_not_mix(self):
        case = ["rmsnorm", "bf16", "2x16", "path=bfl.flux.rmsnorm", "seed=1..4"]
        self.assertEqual(norma("run", *case, "--shard", "1/2", "--out", "a.jsonl").returncode, 0)
        self.assertEqual(norma("run", *case, "--shard", "2/2", "--truth", "mpfr", "--out", "b.jsonl").returncode, 0)
        for words in (["merge", "a.jsonl", "b.jsonl", "--out", "c.jsonl"],
                      ["run", *case, "--shard", "1/2", "--out", "a.jsonl", "--resume", "--truth", "mpfr"]):
            done = norma(*words)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("--truth fast", done.stderr)
            self.assertIn("--truth mpfr", done.stderr)
        self.assertFalse(os.path.exists("c.jsonl"))

    def test_an_unknown_kind_is_named_with_the_known_ones(self):
        for words in (["run", "rmsnorm", "bf16", "2x16", "path=bfl.flux.rmsnorm"], ["check", "rmsnorm", "--in", "t"],
                      ["audit", "rmsnorm", "--in", "t"], ["eval", "truth", "rmsnorm", "--in", "t", "--out", "o"],
                      ["explain", "rmsnorm", "bf16", "2x16", "path=bfl.flux.rmsnorm"]):
            done = norma(*words, "--truth", "arb")
            self.assertEqual(done.returncode, 2, words)
            self.assertIn("--truth: unknown kind 'arb'; known: fast, mpfr", done.stderr)


if __name__ == "__main__":
    unittest.main()

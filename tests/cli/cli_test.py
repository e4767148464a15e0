#!/usr/bin/env python3
"""The command line as a black box: what it refuses, what it ends with, what it writes. Argument 1 or $NORMA: the binary."""

import decimal
import fractions
import json
import math
import os
import pty
import random
import re
import resource
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

NORMA = os.path.abspath(sys.argv.pop(1) if len(sys.argv) > 1 and os.path.isfile(sys.argv[1]) else os.environ.get("NORMA", "build/bin/norma"))
ROWS, COLS = 4, 64
PATH = "bfl.flux.rmsnorm"
CASE = ["rmsnorm", "bf16", "4x64", "path=" + PATH]
CATALOGUES = "formats norms blocks paths profiles orders ops impls inputs metrics views suites".split()


def norma(*words, **keywords):
    keywords.setdefault("stdin", subprocess.DEVNULL)
    keywords.setdefault("timeout", 60)
    return subprocess.run([NORMA, *words], stdout=keywords.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE,
                          text=True, errors="surrogateescape", **keywords)


# ---- tensors and files ----

def bf16(value):
    """The two bytes of the nearest bf16, ties to even."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    return struct.pack("<H", (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)


def bf16_values(data):
    return [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]


def container(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def pack(tensors, metadata=None):
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    return container(header, data)


def load(path):
    with open(path, "rb") as file:
        content = file.read()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + length])
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], content[8 + length:][slice(*t["data_offsets"])]) for name, t in header.items()}


def write(path, content):
    with open(path, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


def tensors(seed=1, scale=1.0):
    random_ = random.Random(seed)
    x = b"".join(bf16(random_.gauss(0, scale)) for _ in range(ROWS * COLS))
    weight = b"".join(bf16(1 + random_.gauss(0, 0.25)) for _ in range(COLS))
    return {"x": ("BF16", [ROWS, COLS], x), "weight": ("BF16", [COLS], weight)}


def run_lines(path):
    """A run file: the context without what may differ, and the records' bytes."""
    lines = read(path).splitlines(keepends=True)
    context = json.loads(lines[0])
    context.pop("volatile")
    return context, lines[1:]


def records(path):
    return [json.loads(line) for line in run_lines(path)[1]]


class CliTest(unittest.TestCase):
    """Each test in a folder of its own."""
    maxDiff = 2000

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="norma-cli-")
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder.name)

    def contents(self):
        return {os.path.join(at, name): read(os.path.join(at, name)) for at, _, names in os.walk(".") for name in names}

    def ends(self, code, *words, **keywords):
        result = norma(*words, **keywords)
        self.assertEqual(result.returncode, code, f"{words}\n{result.stdout}\n{result.stderr}")
        return result

    def refused(self, command, *mentions, **keywords):
        """Exit 2; one sentence that has the mentions; nothing printed, written or lost."""
        with self.subTest(command=" ".join(command)):
            before = self.contents()
            result = self.ends(2, *command, **keywords)
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
            self.assertTrue(result.stderr.startswith("norma: "), result.stderr)
            self.assertNotRegex(result.stderr, r"terminate called|what\(\)")
            for mention in mentions:
                self.assertIn(mention, result.stderr)
            self.assertFalse(result.stdout, result.stdout)
            self.assertEqual(self.contents(), before)


class BadWords(CliTest):
    def test_commands_and_catalogues(self):
        self.refused([], "norma --help")
        self.refused(["frob"], "'frob'", "check", "merge")
        self.refused(["list", "frobs"], "'frobs'", "formats", "suites")
        self.refused(["list", "paths", "--show", "frob"], "'frob'", "norma list paths")
        self.refused(["list", "formats", "--show", "frob"], "'frob'", "formats")
        self.refused(["list", "paths", "--show", PATH, "--format", "bf17"], "'bf17'")
        self.refused(["list", "paths", "--frob"], "--frob")
        self.refused(["run"], "CASE")

    def test_cases(self):
        for words, mentions in [
                ("foonorm bf16 4x8", ["'foonorm'", "rmsnorm"]),
                ("rmsnorm bf17 4x8", ["'bf17'", "fp32", "bf16", "e4m3fn"]),
                ("rmsnorm bf16", ["SHAPE"]),
                ("rmsnorm bf16 4x8 path=bfl.flux", ["'bfl.flux'", PATH]),
                ("rmsnorm bf16 4x8 frob=1", ["'frob'", "eps", "weight"]),
                ("rmsnorm bf16 4x8 frob.format=fp32", ["'frob'", "weight"]),
                ("rmsnorm bf16 4x8 weight.frob=fp32", ["'weight.frob'"]),
                ("rmsnorm bf16 4x8 frob", ["'frob'", "key=value"]),
                ("rmsnorm bf16 4x8 seed=1 seed=2", ["seed"]),
                ("rmsnorm bf16 4x8 seed=-1", ["seed=-1"]),
                (f"rmsnorm bf16 4x8 path={PATH} profile=frob", ["'frob'", "torch_cpu"]),
                (f"rmsnorm bf16 4x8 path={PATH} profile=triton", ["'triton'", "torch_cpu"]),
                (f"rmsnorm bf16 4x8 path={PATH} input=frob", ["'frob'", "normal", "massive"]),
                (f"rmsnorm bf16 4x8 path={PATH} input=normal/99", ["normal/99"]),
                (f"rmsnorm bf16 - path={PATH}", ["'-'", "file:"]),
                (f"rmsnorm bf16 4x8 path={PATH} input=file:none.safetensors#x", ["none.safetensors", "no such file"]),
                ("rmsnorm bf16 4x8", ["path=NAME", "--impl"]),
                ("batchnorm bf16 4x8x3 path=torch.batch_norm.cpu.eval statistics=batch", ["statistics=batch", "statistics=running"]),
                ("groupnorm bf16 2x10x4 groups=3 path=torch.group_norm.cpu", ["groups is 3", "10 channels"]),
                ("batchnorm bf16 4x8x3 momentum=2 path=torch.batch_norm.cpu.train", ["momentum is 2"]),
                ("@frob", ["'@frob'", "@smoke"]),
                ("none.cases", ["none.cases"])]:
            self.refused(["run", *words.split(), "--out", "run.jsonl"], *mentions)

    def test_eps(self):
        for eps in ["-1", "-1e-30", "inf", "-inf", "nan", "1e999", "abc", "1e-6x", "0x", "--", "1,5"]:
            self.refused(["run", *CASE, "eps=" + eps], "eps=" + eps)
        write("in.safetensors", pack(tensors()))
        for eps in ["-1", "inf", "nan", "abc"]:
            self.refused(["eval", "truth", "rmsnorm", "--in", "in.safetensors", "--out", "o", "--set", "eps=" + eps], "eps=" + eps)
        self.ends(0, "run", *CASE, "eps=0x1p-20")
        self.ends(0, "run", *CASE, "eps=0")

    def test_shapes(self):
        for shape in ["4x0", "0x8", "0", "-4x8", "4x-8", "4x", "x8", "4x8.5", "4xx8", "frob", "9" * 30 + "x8",
                      "4294967296x4294967296", "9223372036854775807x2"]:
            self.refused(["run", "rmsnorm", "bf16", shape, "path=" + PATH], f"'{shape}'")
        self.refused(["run", *CASE, "weight.shape=63"], "weight.shape=63", "64")
        self.refused(["run", *CASE, "weight.shape=1x64"], "weight.shape=1x64", "64")

    def test_options(self):
        self.refused(["run", *CASE, "--impl", "frob"], "'frob'", "norma list impls", "path:NAME", "cmd:")
        self.refused(["run", *CASE, "--impl", "rmsnorm.lanes"], "there are cpu.rmsnorm.lanes, ", "norma list impls")
        self.refused(["list", "inputs", "--norm", "rmsnorm"], "--norm goes with paths and impls, not with inputs")
        self.refused(["run", *CASE, "--impl", "path:frob"], "'frob'", "norma list paths")
        self.refused(["run", *CASE, "--impl", "frob*"], "'frob*'")
        self.refused(["run", *CASE, "--impl", "file:none.safetensors#y"], "none.safetensors")
        self.refused(["run", *CASE, "--limit", "frob<=1"], "'frob'", "max_ulp", "differing")
        self.refused(["run", *CASE, "--limit", "max_ulp"], "max_ulp")
        for bound in ["abc", "nan", "inf", ""]:
            self.refused(["run", *CASE, "--limit", "max_ulp<=" + bound], "max_ulp<=" + bound)
        for shard in ["3/2", "0/2", "-1/2", "1", "1/", "/2", "1/2/3", "a/b"]:
            self.refused(["run", *CASE, "--shard", shard], f"'{shard}'")
        for jobs in ["0", "-3", "abc", "1.5", "99999999999999999999"]:
            self.refused(["run", *CASE, "--jobs", jobs], "--jobs", jobs)
        for seconds in ["0", "-1", "nan", "inf", "abc"]:
            self.refused(["run", *CASE, "--timeout", seconds], "--timeout", seconds)
        self.refused(["run", *CASE, "--resume"], "--out")
        self.refused(["run", *CASE, "--frob"], "--frob")

    def test_repeated_options_take_one_word(self):
        result = self.ends(0, "run", "--impl", "path:" + PATH, *CASE, "--limit", "max_ulp<=9", "--limit", "rms_ulp<=1")
        self.assertIn("1 pass", result.stdout)

    def test_a_pair_named_twice_is_one_record(self):
        self.ends(0, "run", *CASE, "seed={1,2,1}", *CASE, "seed=2", "--impl", "path:" + PATH, "--impl", "path:bfl.flux.rms*m", "--out", "run.jsonl")
        self.assertEqual(len(records("run.jsonl")), 2)
        self.ends(0, "gate", "run.jsonl")

    def test_an_option_leaves_the_next_word(self):
        write("in.safetensors", pack(tensors()))
        self.ends(0, "eval", "--set", "eps=1e-6", "truth", "rmsnorm", "--in", "in.safetensors", "--out", "o")

    def test_case_files(self):
        write("a.cases", "# title\n" + " ".join(CASE) + "\n\nrmsnorm bf16 4x64 path=frob\n")
        self.refused(["run", "a.cases"], "a.cases:4: ", "'frob'")
        write("b.cases", " ".join(CASE) + "\nrmsnorm bf16\n")
        self.refused(["run", "b.cases"], "b.cases:2: ", "SHAPE")
        write("c.cases", " ".join(CASE) + "\nrmsnorm bf16 4x64 seed={1,2\n")
        self.refused(["run", "c.cases"], "c.cases:2: ", "not closed")
        write("d.cases", "rmsnorm bf16 4x64\n")
        self.refused(["run", "d.cases"], "d.cases:1: ", "path=NAME")
        write("empty.cases", "# nothing\n")
        self.refused(["run", "empty.cases"], "empty.cases")
        self.refused(["run", *CASE, "seed=9..1"], "9..1")
        self.refused(["run", *CASE, "seed=1..99999999999"], "1..99999999999")

    def test_path_files(self):
        text = self.ends(0, "list", "paths", "--show", PATH, "--format", "bf16").stdout
        lines = text.splitlines()
        at = next(i for i, line in enumerate(lines) if " mean " in line)
        write("old.jsonl", "keep me\n")
        write("bad.path", text.replace(" mean ", " meen "))
        self.refused(["run", "rmsnorm", "bf16", "4x64", "path=file:bad.path", "--out", "old.jsonl"], "bad.path", f"line {at + 1}", "'meen'", "mean")
        write("cut.path", "\n".join(lines[:at + 1] + ["z = add fp32 ms, nowhere"]) + "\n")
        self.refused(["run", "rmsnorm", "bf16", "4x64", "path=file:cut.path"], "cut.path", f"line {at + 2}", "nowhere")
        write("empty.path", "")
        self.refused(["run", "rmsnorm", "bf16", "4x64", "path=file:empty.path"], "empty.path")
        write("other.path", text.replace("x:T", "x:bf16"))
        self.refused(["run", "rmsnorm", "fp16", "4x64", "path=file:other.path"], "other.path", "bf16", "fp16")
        self.refused(["run", "rmsnorm", "bf16", "4x64", "path=file:none.path"], "none.path")
        self.ends(0, "run", "rmsnorm", "bf16", "4x64", "path=file:other.path")
        write("in.safetensors", pack(dict(tensors(), y=tensors(2)["x"])))
        self.refused(["check", "rmsnorm", "--in", "in.safetensors", "--path", "bad.path"], "bad.path", f"line {at + 1}")
        self.refused(["check", "rmsnorm", "--in", "in.safetensors", "--path", "none.path"], "none.path")


class BadTensors(CliTest):
    def commands(self, file):
        yield ["check", "rmsnorm", "--in", file]
        yield ["audit", "rmsnorm", "--in", file, "--out", "run.jsonl"]
        yield ["eval", "truth", "rmsnorm", "--in", file, "--out", "out.safetensors"]
        yield ["explain", "rmsnorm", "--in", file, "--impl", "path:" + PATH]

    def test_containers(self):
        good = pack(tensors())
        length = struct.unpack("<Q", good[:8])[0]
        data = good[8 + length:]
        header = json.loads(good[8:8 + length])

        def lying(**fields):
            return container({"x": dict(header["x"], **fields), "weight": header["weight"]}, data)

        size = ROWS * COLS * 2
        for name, content, mention in [
                ("nothing", b"", "0 bytes"),
                ("short", good[:5], "5 bytes"),
                ("truncated", good[:-7], "truncated"),
                ("header_beyond_end", struct.pack("<Q", 1 << 62) + good[8:], "header"),
                ("oversized", struct.pack("<Q", len(good)) + good[8:], "header"),
                ("noise", bytes(range(256)) * 4, "header"),
                ("not_json", container(b"{frob", data), "JSON"),
                ("an_array", container(b"[1]", data), "JSON"),
                ("nested", container(b'{"x":' + b"[" * 100000 + b"]" * 100000 + b"}", data), "header"),
                ("twice", container(good[8:8 + length].rstrip().replace(b'"weight"', b'"x"'), data), "twice"),
                ("overlap", container({"x": header["x"], "weight": dict(header["weight"], data_offsets=[size - 2, size - 2 + 2 * COLS])}, data[:-2]),
                 "overlaps"),
                ("misaligned", container({"x": dict(header["x"], data_offsets=[1, size + 1])}, b"\0" + data[:size]), "multiple"),
                ("hole", container({"x": dict(header["x"], data_offsets=[2, size + 2])}, b"\0\0" + data[:size]), "no tensor"),
                ("rest", good + b"more data", "no tensor"),
                ("wrong_size", lying(shape=[ROWS, COLS + 1]), "'x'"),
                ("wrong_dtype", lying(dtype="F32"), "'x'"),
                ("negative_side", lying(shape=[-ROWS, COLS]), "-4"),
                ("huge_side", lying(shape=[1 << 40, 1 << 40]), "overflow"),
                ("half_side", lying(shape=[ROWS, 64.5]), "64.5"),
                ("backwards", lying(data_offsets=[size, 0]), "before"),
                ("no_offsets", container({"x": {"dtype": "BF16", "shape": [ROWS, COLS]}}, data), "data_offsets"),
                ("integers", pack(dict(tensors(), x=("I64", [ROWS, COLS], bytes(8 * ROWS * COLS)))), "I64"),
                ("unknown_dtype", lying(dtype="F4"), "F4"),
                ("empty_tensor", pack(dict(tensors(), x=("BF16", [0, COLS], b""))), "empty"),
                ("scalar_x", pack(dict(tensors(), x=("BF16", [], bf16(1)))), "x"),
                ("short_weight", pack(dict(tensors(), weight=("BF16", [COLS - 1], bytes(2 * COLS - 2)))), "weight"),
                ("wide_weight", pack(dict(tensors(), weight=("BF16", [2, COLS], bytes(4 * COLS)))), "weight"),
                ("no_x", pack({"weight": tensors()["weight"]}), "'x'")]:
            write(name + ".st", content)
            for command in self.commands(name + ".st"):
                self.refused(command, mention)

    def test_missing(self):
        for file, mention in [("none.st", "no such file"), (".", "folder"), ("/dev/null", "/dev/null"), ("/etc/passwd/x", "/etc/passwd/x")]:
            for command in self.commands(file):
                self.refused(command, file, mention)

    def test_words_about_tensors(self):
        write("in.st", pack(tensors()))
        write("y.st", pack({"y": tensors(2)["x"]}))
        write("short.st", pack({"y": ("BF16", [ROWS, COLS - 1], bytes(2 * ROWS * (COLS - 1)))}))
        good = ["check", "rmsnorm", "--in", "in.st", "--got", "y.st"]
        self.ends(0, *good)
        self.refused(["check", "foonorm", "--in", "in.st", "--got", "y.st"], "'foonorm'", "rmsnorm")
        self.refused(good[:4], "'y'", "--got")
        self.refused(good[:5] + ["none.st"], "none.st")
        self.refused(good[:5] + ["in.st"], "'y'", "weight")
        self.refused(good + ["--path", "frob"], "'frob'", "norma list paths --norm rmsnorm")
        self.refused(good + ["--path", PATH, "--set", "profile=frob"], "'frob'", "torch_cpu")
        self.refused(good + ["--path", PATH, "--set", "profile=triton"], "'triton'", "torch_cpu")
        self.refused(good + ["--no-worse-than", "frob"], "'frob'", "norma list paths")
        self.refused(good + ["--limit", "frob<=1"], "'frob'", "max_ulp")
        self.refused(good + ["--set", "eps=1", "--set", "eps=1"], "eps", "twice")
        self.refused(good + ["--map", "x=x", "--map", "x=x"], "x", "twice")
        self.refused(good + ["--set", "frob=1"], "'frob'", "eps")
        self.refused(good + ["--set", "seed=1"], "'seed'", "eps")
        self.refused(good + ["--set", "input=normal"], "'input'")
        self.refused(good + ["--set", "eps"], "'eps'", "NAME=VALUE")
        self.refused(good + ["--map", "frob=x"], "'frob'", "weight")
        self.refused(good + ["--map", "x=frob"], "'frob'", "weight")
        self.refused(good + ["--path", "vllm.fused_add_rms_norm.old"], "'residual'", "in.st")
        self.refused(["eval", "frob", "rmsnorm", "--in", "in.st", "--out", "o"], "'frob'", "path:NAME")
        self.refused(["eval", "path:frob", "rmsnorm", "--in", "in.st", "--out", "o"], "'frob'")
        self.refused(["eval", "truth", "rmsnorm", "--in", "in.st", "--out", "o", "--round-to", "bf17"], "'bf17'", "bf16")
        self.refused(["eval", "truth", "rmsnorm", "--in", "in.st", "--out", "o", "--round-to", "bf16", "--overflow", "frob"], "'frob'", "saturate")
        self.refused(["audit", "rmsnorm", "--in", "in.st", "--paths", "frob*"], "'frob*'")
        self.refused(["audit", "rmsnorm", "--in", "in.st", "--top", "-1"], "--top", "-1")
        for at in ["4,0", "0,64", "256", "-1", "x", "0,", "0,0,0"]:
            self.refused(["explain", *CASE, "--at=" + at], f"'{at}'")
        # A check that was asked for must not end as a skip.
        write("wide.st", pack({n: ("F64", shape, bytes(4 * len(data))) for n, (_, shape, data) in dict(tensors(), y=tensors()["x"]).items()}))
        self.refused(["check", "rmsnorm", "--in", "wide.st", "--path", PATH], "fp64", "bf16")
        self.refused(["check", "rmsnorm", "--in", "wide.st", "--no-worse-than", PATH], "fp64", "bf16")
        self.refused(["eval", "path:" + PATH, "rmsnorm", "--in", "wide.st", "--out", "o"], "fp64", "bf16")
        crashed = self.ends(3, "eval", "cmd:exit 4", "rmsnorm", "--in", "in.st", "--out", "o")
        self.assertRegex(crashed.stderr, r"\Anorma: [^\n]*status 4[^\n]*\n\Z")
        wrong = self.ends(3, "check", "rmsnorm", "--in", "in.st", "--got", "short.st", "--path", PATH)
        self.assertIn("4x63", wrong.stdout)


class Gradients(CliTest):
    """A gradient's first output is dx; its others have other shapes."""

    def test_outputs_are_judged_by_name(self):
        given = dict(tensors(), dy=tensors(3)["x"])
        write("in.st", pack(given))
        truth = ["eval", "truth", "layernorm_backward", "--in", "in.st", "--out", "truth.st", "--round-to", "bf16"]
        self.ends(0, *truth)
        made = {name: load("truth.st")[name + ".rounded"] for name in ("dx", "dweight", "dbias")}
        self.assertEqual([shape for _, shape, _ in made.values()], [[ROWS, COLS], [COLS], [COLS]])
        write("all.st", pack(dict(given, **made)))
        limits = ["--limit", "incorrect<=0", "--limit", "dweight.incorrect<=0", "--limit", "dbias.max_ulp<=0.5"]
        done = self.ends(0, "check", "layernorm_backward", "--in", "all.st", "--json", *limits)
        self.assertEqual(list(json.loads(done.stdout)["outputs"]), ["dx", "dbias", "dweight"])
        # One output that another's rounding stands in for; a limit without a name is about dx.
        write("wrong.st", pack({**given, **made, "dbias": made["dweight"]}))
        self.ends(1, "check", "layernorm_backward", "--in", "wrong.st", *limits)
        self.ends(0, "check", "layernorm_backward", "--in", "wrong.st", *limits[:4])

    def test_what_is_missing(self):
        write("in.st", pack(tensors()))
        self.refused(["check", "layernorm_backward", "--in", "in.st"], "'dy'", "--map dy=TENSOR")
        write("dy.st", pack(dict(tensors(), dy=tensors()["x"])))
        self.refused(["check", "layernorm_backward", "--in", "dy.st"], "'dx'", "--got")


class EvalIdeal(CliTest):
    """eval ideal writes the bits of the path that --path or the file names."""

    def test_the_path_named(self):
        write("in.st", pack(tensors()))
        self.ends(0, "eval", "path:" + PATH, "rmsnorm", "--in", "in.st", "--out", "want.st")
        self.ends(0, "eval", "ideal", "rmsnorm", "--path", PATH, "--in", "in.st", "--out", "got.st")
        self.assertEqual(load("got.st"), load("want.st"))
        self.ends(0, "eval", "ideal", "rmsnorm", "--path", "meta.llama.rmsnorm", "--set", "eps=0.5", "--in", "in.st", "--out", "other.st")
        self.assertNotEqual(load("other.st"), load("want.st"))
        text = self.ends(0, "list", "paths", "--show", PATH).stdout
        write("my.path", text)
        self.ends(0, "eval", "ideal", "rmsnorm", "--path", "my.path", "--in", "in.st", "--out", "filed.st")
        self.assertEqual(load("filed.st"), load("want.st"))
        write("says.st", pack(tensors(), {"path": PATH}))
        self.ends(0, "eval", "ideal", "rmsnorm", "--in", "says.st", "--out", "said.st")
        self.assertEqual(load("said.st"), load("want.st"))

    def test_the_truth_of_what_a_path_means(self):
        write("in.st", pack(tensors()))
        self.ends(0, "eval", "truth", "rmsnorm", "--path", "transformers.gemma.rmsnorm", "--in", "in.st", "--out", "got.st")
        self.ends(0, "eval", "truth", "rmsnorm", "--set", "weight_offset=1", "--in", "in.st", "--out", "want.st")
        self.ends(0, "eval", "truth", "rmsnorm", "--in", "in.st", "--out", "plain.st")
        self.assertEqual(load("got.st"), load("want.st"))
        self.assertNotEqual(load("got.st"), load("plain.st"))

    def test_refusals(self):
        write("in.st", pack(tensors()))
        files = ["rmsnorm", "--in", "in.st", "--out", "o"]
        self.refused(["eval", "ideal"] + files, "--path", "in.st")
        self.refused(["eval", "ideal"] + files + ["--path", "frob"], "'frob'", "norma list paths")
        self.refused(["eval", "path:" + PATH] + files + ["--path", PATH], "leave out --path")
        write("x.st", pack({"x": tensors()["x"]}))
        self.refused(["eval", "truth", "modulate", "--in", "x.st", "--out", "o"], "'scale' or 'shift'")
        self.refused(["eval", "ideal", "modulate", "--path", "bfl.flux.modulate", "--in", "x.st", "--out", "o"], "'scale'")

    def test_a_line_carries_no_attribute_of_another_quantization(self):
        write("in.st", pack(tensors()))
        def line(*words):
            return json.loads(self.ends(0, "run", "rmsnorm", "bf16", "4x64", "path=" + words[0], *words[1:], "--json").stdout.splitlines()[-1])["case"]
        plain, static = line(PATH), line("vllm.rms_norm.static_fp8", "scale.format=fp32")
        for name in ["quant_max", "scale_floor", "scale_cap", "scale_rule", "global_scale"]:
            self.assertNotIn(name, plain)
            self.assertNotIn(name, static)
        self.assertIn("quant_max=448", line("vllm.rms_norm.dynamic_fp8"))
        self.assertNotIn("global_scale", line("vllm.rms_norm.dynamic_fp8"))


class BadRunFiles(CliTest):
    def setUp(self):
        super().setUp()
        self.ends(0, "run", *CASE, "seed=1..3", "--out", "run.jsonl")
        write("in.st", pack(tensors()))
        write("y.st", pack({"y": tensors(2)["x"]}))
        self.append = ["check", "rmsnorm", "--in", "in.st", "--got", "y.st", "--append"]

    def readers(self, file):
        yield ["gate", file]
        yield ["report", file]
        yield ["report", file, "--html", "page.html"]
        yield ["accept", file, "--baseline", "base.jsonl", "--yes"]
        yield ["merge", file, "--out", "merged.jsonl"]

    def test_read(self):
        context, *rest = read("run.jsonl").splitlines(keepends=True)
        write("newer.jsonl", context.replace(b'"schema":1', b'"schema":99') + b"".join(rest))
        write("empty.jsonl", b"")
        write("garbage.jsonl", context + rest[0] + b"frob\n" + rest[2])
        write("list.jsonl", context + rest[0] + b"[1]\n" + rest[2])
        write("headless.jsonl", b"".join(rest))
        for file, *mentions in [("newer.jsonl", "99", "schema"), ("empty.jsonl", "empty"), ("garbage.jsonl", "line 3"),
                                ("list.jsonl", "line 3"), ("headless.jsonl", "context")]:
            for command in [*self.readers(file), [*self.append, file], ["run", *CASE, "seed=1..3", "--resume", "--out", file]]:
                self.refused(command, file, *mentions)
        for file in ["none.jsonl", ".", "/dev/zero"]:
            for command in self.readers(file):
                self.refused(command, f"'{file}'")

    def test_a_part_is_not_gated(self):
        lines = read("run.jsonl").splitlines(keepends=True)
        write("part.jsonl", b"".join(lines[:3]))
        write("torn.jsonl", b"".join(lines[:3]) + lines[3][:40])
        for file in ["part.jsonl", "torn.jsonl"]:
            self.refused(["gate", file], file, "2 of 3")
            self.refused(["accept", file, "--baseline", "base.jsonl", "--yes"], file, "2 of 3")
        self.refused(["merge", "part.jsonl", "--out", "merged.jsonl"], "missing")
        self.refused(["merge", "run.jsonl", "part.jsonl", "--out", "merged.jsonl"], "part.jsonl")

    def test_gate_files(self):
        self.ends(0, "accept", "run.jsonl", "--baseline", "base.jsonl", "--yes")
        line = read("base.jsonl").splitlines(keepends=True)[0]
        write("bad.base", line + b"frob\n")
        write("keyless.base", b'{"measures":{}}\n')
        write("twice.base", line + line)
        for file, mention in [("none.base", "none.base"), (".", "'.'"), ("bad.base", "line 2"), ("keyless.base", "line 1"), ("twice.base", "line 2")]:
            self.refused(["gate", "run.jsonl", "--baseline", file], file, mention)
        write("bad.json", "[{]")
        write("unknown.json", '[{"match":"*","reason":"r","until":"2026-01-01","frob":1}]')
        write("reasonless.json", '[{"match":"*","until":"2026-01-01"}]')
        write("undated.json", '[{"match":"*","reason":"r","until":"soon"}]')
        for file, mention in [("none.json", "none.json"), ("bad.json", "bad.json"), ("unknown.json", "'frob'"),
                              ("reasonless.json", "'reason'"), ("undated.json", "'soon'")]:
            self.refused(["gate", "run.jsonl", "--waivers", file], mention)
        self.refused(["gate", "run.jsonl", "--today", "tomorrow"], "'tomorrow'", "YYYY-MM-DD")
        self.refused(["gate", "run.jsonl", "--limit", "frob<=1"], "'frob'", "max_ulp")

    def test_not_writable(self):
        evaluate = ["eval", "truth", "rmsnorm", "--in", "in.st", "--out"]
        self.ends(0, "accept", "run.jsonl", "--baseline", "base.jsonl", "--yes")
        for file in ["/etc/passwd/x", "/proc/norma/x", "/dev/full", "."]:
            for command in [["run", *CASE, "--out"], ["run", *CASE, "--out"], evaluate, self.append, ["merge", "run.jsonl", "--out"],
                            ["audit", "rmsnorm", "--in", "in.st", "--paths", PATH, "--out"]]:
                self.refused([*command, file], file)
            for command in [["report", "run.jsonl", "--html"], ["gate", "run.jsonl", "--junit"], ["gate", "run.jsonl", "--markdown"]]:
                before = self.contents()
                self.assertIn(file, self.ends(2, *command, file).stderr)
                self.assertEqual(self.contents(), before)
        self.assertTrue(os.path.exists("/dev/full") and not os.path.isfile("/dev/full"))

    def test_full_disk_loses_nothing(self):
        def limit(size):
            def set_limit():
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            return set_limit
        self.ends(0, "accept", "run.jsonl", "--baseline", "base.jsonl", "--yes")
        self.refused([*self.append, "run.jsonl"], "run.jsonl", preexec_fn=limit(1000))
        self.refused(["merge", "run.jsonl", "--out", "run.jsonl"], "run.jsonl", preexec_fn=limit(1000))
        self.refused(["eval", "truth", "rmsnorm", "--in", "in.st", "--out", "y.st"], "y.st", preexec_fn=limit(500))
        lines = read("run.jsonl").splitlines(keepends=True)
        write("part.jsonl", b"".join(lines[:2]))
        self.refused(["run", *CASE, "seed=1..3", "--resume", "--out", "part.jsonl"], "part.jsonl", preexec_fn=limit(1000))
        self.ends(0, "run", *CASE, "seed=1..3", "--resume", "--out", "part.jsonl")
        self.assertEqual(run_lines("part.jsonl"), run_lines("run.jsonl"))

    def test_standard_output_full(self):
        for command in [["list", "paths"], ["list", "impls"], ["run", *CASE, "--json"], ["report", "run.jsonl"], ["--help"]]:
            with open("/dev/full", "w") as full:
                result = norma(*command, stdout=full)
            self.assertEqual(result.returncode, 2, command)
            self.assertRegex(result.stderr, r"\Anorma: cannot write[^\n]*No space left on device\n\Z")

    def test_bytes_that_are_no_text(self):
        self.refused(["run", *CASE, "--impl", "fr\udcffob"], "fr\udcffob")
        self.ends(0, "run", *CASE, "--out", "a\udcff.jsonl")
        self.ends(0, "gate", "a\udcff.jsonl")


KERNEL = """
import os, subprocess, sys, json, time
for line in sys.stdin:
    call = json.loads(line)
    kind = round(call["eps"] * 1e6)
    if kind == 2: os._exit(7)
    if kind == 3: time.sleep(60)
    if kind == 4: open(call["out"], "wb").write(b"garbage")
    if kind == 6: open(call["out"], "wb").write(open("wrong.st", "rb").read())
    if kind == 7: print("frob", flush=True); continue
    if kind == 8: print("error no such kernel", flush=True); continue
    if kind == 9: open(call["out"], "wb").write(open("yless.st", "rb").read())
    if kind in (1, 10): subprocess.run([%r, "eval", "path:%s", "rmsnorm", "--in", call["in"], "--out", call["out"], "--set", "eps=%%r" %% call["eps"]], check=True)
    print("ok", flush=True)
"""


class Exits(CliTest):
    def test_pass_fail_and_the_most_severe(self):
        self.ends(0, "run", *CASE, "--limit", "max_ulp<=2")
        self.ends(1, "run", *CASE, "--limit", "max_ulp<=0.3")
        self.ends(1, "run", *CASE, "--limit", "max_ulp<=2", "--limit", "max_ulp<=0.3")
        # Vacuous: zeros would hold it too.
        self.ends(1, "run", *CASE, "--limit", "max_ulp<=1e9")
        self.ends(3, "run", *CASE, "--impl", "cmd:exit 1", "--impl", "path:" + PATH, "--limit", "max_ulp<=0.3")
        self.ends(0, "--version")
        self.ends(0, "--help")

    def test_a_command_that_misbehaves(self):
        write("kernel.py", KERNEL % (NORMA, PATH))
        write("wrong.st", pack({"y": ("BF16", [ROWS, COLS - 1], bytes(2 * ROWS * (COLS - 1)))}))
        write("yless.st", pack({"z": tensors()["x"]}))
        command = f"cmd:{sys.executable} kernel.py"
        started = time.monotonic()
        self.ends(3, "run", *CASE, "eps={1e-6,2e-6,3e-6,4e-6,5e-6,6e-6,7e-6,8e-6,9e-6,10e-6}", "--impl", command, "--timeout", "1.5",
                  "--out", "run.jsonl")
        self.assertLess(time.monotonic() - started, 40)
        found = {round(float(re.search(r" eps=(\S+)", r["case"])[1]) * 1e6): r for r in records("run.jsonl")}
        self.assertEqual(sorted(found), list(range(1, 11)))
        reasons = {2: "status 7", 3: "within 1.5 s", 4: "cannot be read", 5: "wrote nothing", 6: "4x63", 7: "'frob'",
                   8: "no such kernel", 9: "no tensor y"}
        for kind, record in found.items():
            if kind in reasons:
                self.assertEqual(record["verdict"], "crashed", record)
                self.assertIn(reasons[kind], record["reason"])
            else:
                self.assertEqual(record["verdict"], "pass", record)
        self.ends(3, "gate", "run.jsonl")

    def test_interrupt_and_resume(self):
        words = ["run", "rmsnorm", "bf16", "16x4096", "path=" + PATH, "seed=1..24", "--jobs", "2", "--out"]
        self.ends(0, *words, "full.jsonl")
        context, full = run_lines("full.jsonl")
        self.assertEqual(len(full), 24)
        process = subprocess.Popen([NORMA, *words, "part.jsonl"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and (not os.path.exists("part.jsonl") or read("part.jsonl").count(b"\n") < 3):
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130, errors)
        self.assertIn("interrupted", errors)
        part_context, part = run_lines("part.jsonl")
        self.assertEqual(part_context, context)
        self.assertTrue(0 < len(part) < 24)
        self.assertEqual(part, full[:len(part)])
        # As after a kill: the last line is torn.
        write("part.jsonl", read("part.jsonl")[:-25])
        self.refused(["run", "rmsnorm", "bf16", "16x4096", "path=" + PATH, "seed=2..25", "--resume", "--out", "part.jsonl"], "part.jsonl")
        self.ends(0, *words, "part.jsonl", "--resume")
        self.assertEqual(run_lines("part.jsonl"), (context, full))
        self.ends(0, *words, "part.jsonl", "--resume")  # nothing is left to do
        self.assertEqual(run_lines("part.jsonl"), (context, full))


class Determinism(CliTest):
    def test_jobs_and_shards(self):
        words = ["run", "rmsnorm", "{bf16,fp16,fp32}", "{3x33,4x128}", "path=" + PATH, "input={normal,massive}", "seed=1..2",
                 "--impl", "path:*flux*", "--impl", "cpu.*", "--limit", "max_ulp<=1.2", "--out"]
        for jobs in ["1", "2", "5"]:
            self.ends(1, *words, f"jobs{jobs}.jsonl", "--jobs", jobs)
        whole = run_lines("jobs1.jsonl")
        self.assertGreater(len(whole[1]), 100)
        self.assertEqual(run_lines("jobs2.jsonl"), whole)
        self.assertEqual(run_lines("jobs5.jsonl"), whole)
        for i in "312":
            norma(*words, f"shard{i}.jsonl", "--shard", i + "/3", "--jobs", i)
            self.assertEqual([r["ordinal"] % 3 for r in records(f"shard{i}.jsonl")], [int(i) - 1] * (len(whole[1]) // 3))
        self.ends(0, "merge", "shard3.jsonl", "shard1.jsonl", "shard2.jsonl", "--out", "merged.jsonl")
        self.assertEqual(run_lines("merged.jsonl"), whole)
        self.refused(["merge", "shard1.jsonl", "shard2.jsonl", "--out", "m.jsonl"], "missing")
        self.refused(["merge", "shard1.jsonl", "shard2.jsonl", "shard2.jsonl", "--out", "m.jsonl"], "shard2.jsonl")
        for command in [["gate", "merged.jsonl"], ["gate", "jobs1.jsonl"]]:
            self.ends(1, *command)

        def keys(value):
            if isinstance(value, dict):
                for key, inner in value.items():
                    yield key
                    yield from keys(inner)
            elif isinstance(value, list):
                for inner in value:
                    yield from keys(inner)
        for record in records("merged.jsonl"):
            for key in keys(record):
                self.assertNotRegex(key, r"time|date|second|duration|elapsed|host|jobs|thread")
        self.assertEqual([r["ordinal"] for r in records("merged.jsonl")], list(range(len(whole[1]))))


class Output(CliTest):
    """An output that PATH wrote, in y.st."""

    def setUp(self):
        super().setUp()
        write("in.st", pack(tensors()))
        self.ends(0, "eval", "path:" + PATH, "rmsnorm", "--in", "in.st", "--out", "y.st")
        self.y = load("y.st")["y"]

    def got(self, data, name="got.st"):
        return write(name, pack({"y": (self.y[0], self.y[1], data)}))

    def flipped(self, at=100):
        data = bytearray(self.y[2])
        data[2 * at] ^= 1
        return bytes(data)

    def check(self, code, *words, got="y.st"):
        return self.ends(code, "check", "rmsnorm", "--in", "in.st", "--got", got, *words)


class Check(Output):
    def test_correct_output(self):
        self.assertEqual((self.y[0], self.y[1]), ("BF16", [ROWS, COLS]))
        record = json.loads(self.check(0, "--path", PATH, "--json").stdout)
        self.assertEqual(record["verdict"], "pass")
        self.assertEqual(record["path"], PATH)
        self.assertEqual((record["outputs"]["y"]["conformance"]["equal"], record["outputs"]["y"]["conformance"]["of"]), (256, 256))

    def test_no_criterion(self):
        record = json.loads(self.check(0, "--json").stdout)
        self.assertEqual((record["verdict"], record["reason"]), ("skip", "no criterion"))
        self.assertGreater(record["outputs"]["y"]["ulp"]["max"], 0.3)

    def test_flipped_bit(self):
        self.got(self.flipped())
        text = self.check(1, "--path", PATH, got="got.st").stdout
        for word in ["fail", "differing<=0", "got", "exact", "want", "bound", "repro"]:
            self.assertIn(word, text)
        record = json.loads(self.check(1, "--path", PATH, "--json", got="got.st").stdout)
        self.assertEqual(record["verdict"], "fail")
        conformance = record["outputs"]["y"]["conformance"]
        self.assertEqual(conformance["of"] - conformance["equal"], 1)
        line = next(line.split("repro", 1)[1].strip() for line in text.splitlines() if line.strip().startswith("repro"))
        words = shlex.split(line)
        self.assertEqual(words[:2], ["norma", "run"])
        again = json.loads(self.ends(1, *words[1:], "--json").stdout.splitlines()[1])
        for key in ["verdict", "reason", "criteria", "outputs", "case", "impl"]:
            self.assertEqual(again.get(key), record.get(key), key)
        limited = self.check(1, "--limit", "max_ulp<=0.4", "--limit", "rms_ulp<=9", got="got.st").stdout
        words = shlex.split(next(line.split("repro", 1)[1] for line in limited.splitlines() if line.strip().startswith("repro")))
        self.assertIn("max_ulp<=0.4", self.ends(1, *words[1:]).stdout)

    def test_auto(self):
        other = "grid.eps_inside.weight_before_cast"
        self.ends(0, "eval", "path:" + other, "rmsnorm", "--in", "in.st", "--out", "other.st")
        for path, got in [(PATH, "y.st"), (other, "other.st")]:
            rows = json.loads(self.check(0, "--path", "auto", "--json", got=got).stdout)
            whole = [row["path"] for row in rows if row["equal"] == row["of"]]
            self.assertIn(path, whole)
            self.assertEqual([row["path"] for row in rows[:len(whole)]], whole)
            self.assertLess(len(whole), len(rows))
        text = self.check(0, "--path", "auto").stdout
        self.assertIn(PATH, text.splitlines()[2])

    def test_no_worse_than(self):
        self.check(0, "--no-worse-than", PATH)
        self.got(self.flipped())
        exact = "grid.eps_inside.weight_before_cast"
        text = self.check(1, "--no-worse-than", exact).stdout
        self.assertIn("rms_ulp<=", text)
        self.ends(0, "eval", "path:" + exact, "rmsnorm", "--in", "in.st", "--out", "exact.st")
        self.check(0, "--no-worse-than", PATH, got="exact.st")

    def test_append(self):
        self.got(self.flipped())
        self.check(0, "--path", PATH, "--append", "run.jsonl")
        first = run_lines("run.jsonl")[1]
        self.ends(0, "gate", "run.jsonl")
        self.check(1, "--path", PATH, "--append", "run.jsonl", got="got.st")
        self.assertEqual(run_lines("run.jsonl")[1][:1], first)
        self.assertEqual([(r["ordinal"], r["verdict"]) for r in records("run.jsonl")], [(0, "pass"), (1, "fail")])
        self.assertIn("got.st", self.ends(1, "gate", "run.jsonl").stdout)
        self.refused(["check", "rmsnorm", "--in", "in.st", "--got", "y.st", "--path", PATH, "--append", "run.jsonl"],
                     "'run.jsonl': its line 2 is the record of", "y.st#y")
        text = self.ends(0, "report", "run.jsonl").stdout
        self.assertIn("1 pass", text)
        self.assertIn("1 fail", text)
        self.assertEqual(len(json.loads(self.ends(0, "report", "run.jsonl", "--json").stdout)), 2)
        self.ends(0, "report", "run.jsonl", "--html", "page.html")
        self.assertIn(b"<html", read("page.html")[:300].lower())

    def test_many_sites(self):
        second = tensors(7)
        write("sites.st", pack({**{"a." + n: t for n, t in tensors().items()}, **{"b." + n: t for n, t in second.items()}}))
        self.ends(0, "eval", "path:" + PATH, "rmsnorm", "--in", "sites.st", "--out", "ys.st")
        self.assertEqual(sorted(load("ys.st")), ["a.y", "b.y"])
        self.assertEqual(load("ys.st")["a.y"], self.y)
        rows = json.loads(self.ends(0, "check", "rmsnorm", "--in", "sites.st", "--got", "ys.st", "--path", PATH, "--json").stdout)
        self.assertEqual([row["verdict"] for row in rows], ["pass", "pass"])
        self.ends(0, "eval", "truth", "rmsnorm", "--in", "sites.st", "--out", "truth.st")
        self.assertEqual(sorted(load("truth.st")), ["a.hi", "a.lo", "b.hi", "b.lo"])

    def test_truth(self):
        decimal.getcontext().prec = 80
        self.ends(0, "eval", "truth", "rmsnorm", "--in", "in.st", "--out", "t64.st", "--round-to", "fp64", "--set", "eps=1e-5")
        self.ends(0, "eval", "truth", "rmsnorm", "--in", "in.st", "--out", "t16.st", "--round-to", "bf16", "--set", "eps=1e-5")
        truth = load("t64.st")
        doubles = {n: struct.unpack(f"<{ROWS * COLS}d", truth[n][2]) for n in ["lo", "hi", "rounded"]}
        rounded = bf16_values(load("t16.st")["rounded"][2])
        x = bf16_values(tensors()["x"][2])
        weight = bf16_values(tensors()["weight"][2])
        for r in range(ROWS):
            row = [decimal.Decimal(v) for v in x[r * COLS:(r + 1) * COLS]]
            root = (sum(v * v for v in row) / COLS + decimal.Decimal(1e-5)).sqrt()
            for c in range(COLS):
                i = r * COLS + c
                y = row[c] * decimal.Decimal(weight[c]) / root
                low, high = doubles["lo"][i], doubles["hi"][i]
                self.assertTrue(decimal.Decimal(low) <= y <= decimal.Decimal(high), (r, c))
                self.assertLessEqual(high - low, 1e-15 * abs(high))
                self.assertTrue(low <= doubles["rounded"][i] <= high)
                exact = fractions.Fraction(y)
                self.assertEqual(doubles["rounded"][i], exact.numerator / exact.denominator)  # int / int rounds once
                error = abs(fractions.Fraction(rounded[i]) - exact)
                bits = struct.unpack("<I", struct.pack("<f", rounded[i]))[0]
                for near in [bits + 0x10000, bits - 0x10000]:
                    self.assertLess(error, abs(fractions.Fraction(struct.unpack("<f", struct.pack("<I", near))[0]) - exact))


class Compare(CliTest):
    """Two outputs of x (1 + s) + t against fractions: who is nearer, what is equal, how far apart."""

    def bf16_next(self, value, steps):
        code = struct.unpack("<H", bf16(value))[0] + steps
        return struct.unpack("<f", struct.pack("<I", code << 16))[0]

    def test_counts(self):
        random_ = random.Random(3)
        value = lambda: bf16_values(bf16(random_.gauss(0, 1)))[0]
        x, scale = [value() for _ in range(64)], [value() for _ in range(16)]
        exact = [fractions.Fraction(v) * (1 + fractions.Fraction(scale[i % 16])) for i, v in enumerate(x)]
        nearest = [bf16_values(bf16(float(y)))[0] for y in exact]
        a = [self.bf16_next(y, i % 3) for i, y in enumerate(nearest)]
        b = [self.bf16_next(y, -(i % 2)) for i, y in enumerate(nearest)]
        # Half-way: 1 (1 + 0) between 1 - 2^-7 and 1 + 2^-7; and zeros of both signs.
        x[0], scale[0], exact[0], a[0], b[0] = 1.0, 0.0, fractions.Fraction(1), 1 - 2.0 ** -7, 1 + 2.0 ** -7
        for i in (16, 32, 48):
            x[i], exact[i], a[i], b[i] = 0.0, fractions.Fraction(0), 0.0, -0.0
        pack16 = lambda values: b"".join(bf16(v) for v in values)
        write("in.safetensors", pack({"x": ("BF16", [4, 16], pack16(x)), "scale": ("BF16", [16], pack16(scale))}))
        write("out.safetensors", pack({"a": ("BF16", [4, 16], pack16(a)), "b": ("BF16", [4, 16], pack16(b))}))
        words = ["compare", "file:out.safetensors#a", "file:out.safetensors#b", "modulate", "--in", "in.safetensors"]
        between = json.loads(self.ends(0, *words, "--json").stdout)["outputs"]["y"]["between"]
        off = [(abs(fractions.Fraction(p) - y), abs(fractions.Fraction(q) - y)) for p, q, y in zip(a, b, exact)]
        self.assertEqual(between["nearer_a"], sum(p < q for p, q in off))
        self.assertEqual(between["nearer_b"], sum(p > q for p, q in off))
        self.assertEqual(between["as_near"], sum(p == q for p, q in off))
        self.assertGreater(min(between["nearer_a"], between["nearer_b"], between["as_near"] - 4), 0)
        self.assertEqual((between["equal_values"], between["compared"]), (sum(p == q for p, q in zip(a, b)), 64))
        apart = sum((fractions.Fraction(p) - fractions.Fraction(q)) ** 2 for p, q in zip(a, b)) / sum(y ** 2 for y in exact)
        self.assertAlmostEqual(between["relative_l2"], math.sqrt(apart), delta=1e-12)
        ulps = [abs(p - q) / 2.0 ** (math.frexp(y)[1] - 8) if y else 0 for p, q, y in zip(a, b, exact)]
        self.assertEqual(between["max_ulp"], max(ulps))
        self.assertEqual(between["max_at"], list(divmod(ulps.index(max(ulps)), 16)))
        text = self.ends(0, *words).stdout
        self.assertIn(f"{between['equal_values']} of 64 elements have the same value", text)
        self.assertIn(f"A is nearer to the exact value in {between['nearer_a']}, B in {between['nearer_b']}", text)

    def test_paths(self):
        """A path compared with itself is equal everywhere."""
        case = ["rmsnorm", "bf16", "4x64"]
        made = json.loads(self.ends(0, "compare", "path:" + PATH, "path:" + PATH, *case, "--json").stdout)["outputs"]["y"]
        self.assertEqual((made["between"]["equal_values"], made["between"]["max_ulp"]), (256, 0))
        self.assertNotIn("max_at", made["between"])

    def test_refusals(self):
        case = ["rmsnorm", "bf16", "4x64"]
        self.refused(["compare", "path:frob", "path:" + PATH, *case], "frob")
        self.refused(["compare", "frob", "path:" + PATH, *case], "frob")
        write("in.safetensors", pack(tensors()))
        self.refused(["compare", "path:" + PATH, "path:" + PATH, "rmsnorm", "bf16", "--in", "in.safetensors"], "norm's name")
        write("out.safetensors", pack({"y": ("BF16", [COLS], tensors()["weight"][2])}))
        done = self.ends(3, "compare", "path:" + PATH, "file:out.safetensors#y", "rmsnorm", "--in", "in.safetensors")
        self.assertIn("shape 64, but x is 4x64", done.stderr)


class Faults(Output):
    """One fault at a time, planted in a correct output."""

    def caught(self, data, gross=True, path=PATH):
        self.assertNotEqual(data, self.y[2])
        self.got(data)
        self.assertEqual(json.loads(self.check(1, "--path", path, "--json", got="got.st").stdout)["verdict"], "fail")
        if gross:
            self.check(1, "--limit", "max_ulp<=1.5", got="got.st")

    def evaluated(self, *words, file="in.st", path=PATH):
        self.ends(0, "eval", "path:" + path, "rmsnorm", "--in", file, "--out", "fault.st", *words)
        return load("fault.st")["y"][2]

    def test_flipped_bits(self):
        for at in [0, 63, 64, 255]:
            self.caught(self.flipped(at), gross=False)

    def test_swapped_rows(self):
        row = 2 * COLS
        self.caught(self.y[2][row:2 * row] + self.y[2][:row] + self.y[2][2 * row:])

    def test_eps_times_ten(self):
        path = "transformers.llama.rmsnorm"  # takes eps from its caller
        write("in.st", pack(tensors(scale=0.003), {"eps": "1e-6"}))
        self.y = ("BF16", [ROWS, COLS], self.evaluated(path=path))
        self.caught(self.evaluated("--set", "eps=1e-5", path=path), path=path)

    def test_dropped_weight(self):
        write("ones.st", pack(dict(tensors(), weight=("BF16", [COLS], bf16(1) * COLS))))
        self.caught(self.evaluated(file="ones.st"))

    def test_zeros_and_nan(self):
        self.caught(bytes(len(self.y[2])))
        self.caught(self.y[2][:-2] + b"\xc0\x7f")
        self.caught(b"\xc0\x7f" * (len(self.y[2]) // 2))
        self.caught(self.y[2][:-2] + b"\x80\x7f")

    def test_unwritten_tail(self):
        self.caught(self.y[2][:-32] + b"\x7b\x7b" * 16)
        self.caught(self.y[2][:-32] + bytes(32))

    def test_wrong_factor(self):
        self.caught(b"".join(bf16(1.25 * v) for v in bf16_values(self.y[2])))

    def test_cast_in_the_wrong_place(self):
        self.caught(self.evaluated(path="grid.eps_inside.weight_before_cast"), gross=False)

    def test_wrong_dtype(self):
        write("got.st", pack({"y": ("F32", [ROWS, COLS], b"".join(struct.pack("<f", v) for v in bf16_values(self.y[2])))}))
        self.assertIn(norma("check", "rmsnorm", "--in", "in.st", "--got", "got.st", "--path", PATH).returncode, (1, 3))


class Gate(CliTest):
    def setUp(self):
        super().setUp()
        self.words = ["run", *CASE, "--impl", "path:" + PATH, "--out"]
        self.ends(0, *self.words, "run.jsonl", "seed=1..4")
        self.ends(0, "accept", "run.jsonl", "--baseline", "base.jsonl", "--yes")

    def worsened(self, name="worse.jsonl"):
        lines = read("run.jsonl").decode().splitlines()
        record = json.loads(lines[2])
        record["outputs"]["y"]["ulp"]["max"] += 1
        lines[2] = json.dumps(record)
        write(name, "\n".join(lines) + "\n")
        return record["case"]

    def test_baseline(self):
        self.assertEqual(len(read("base.jsonl").splitlines()), 4)
        self.assertIn("pass (4 ok)", self.ends(0, "gate", "run.jsonl", "--baseline", "base.jsonl").stdout)
        self.assertIn("changes nothing", self.ends(0, "accept", "run.jsonl", "--baseline", "base.jsonl", "--yes").stdout)
        case = self.worsened()
        text = self.ends(1, "gate", "worse.jsonl", "--baseline", "base.jsonl").stdout
        self.assertRegex(text, r"(?m)^worse\s+" + re.escape(case))
        self.assertIn("y.max_ulp is", text)
        self.assertIn("1 worse, 3 ok", text)
        # The other way round it is better, and passes.
        self.ends(0, "accept", "worse.jsonl", "--baseline", "worse.base", "--yes")
        self.assertIn("1 better", self.ends(0, "gate", "run.jsonl", "--baseline", "worse.base").stdout)

    def test_accept_asks(self):
        self.worsened()
        before = self.contents()
        result = self.ends(2, "accept", "worse.jsonl", "--baseline", "base.jsonl")
        self.assertRegex(result.stdout, r"y.max_ulp \S+ -> \S+")
        self.assertIn("--yes", result.stderr)
        self.assertEqual(self.contents(), before)

    def test_missing_and_new(self):
        self.ends(0, *self.words, "fewer.jsonl", "seed=1..3")
        text = self.ends(1, "gate", "fewer.jsonl", "--baseline", "base.jsonl").stdout
        self.assertRegex(text, r"(?m)^missing .* seed=4 ")
        self.ends(0, *self.words, "more.jsonl", "seed=1..5")
        text = self.ends(0, "gate", "more.jsonl", "--baseline", "base.jsonl").stdout
        self.assertRegex(text, r"(?m)^new .* seed=5 ")

    def test_waivers(self):
        self.worsened()
        write("w.json", json.dumps([{"match": "*seed=2", "measure": "max_ulp", "reason": "known since May", "until": "2026-05-31"}]))
        gate = ["gate", "worse.jsonl", "--baseline", "base.jsonl", "--waivers", "w.json", "--today"]
        text = self.ends(0, *gate, "2026-05-31").stdout
        self.assertIn("1 waived", text)
        self.assertIn("known since May", text)
        text = self.ends(1, *gate, "2026-06-01").stdout
        self.assertRegex(text, r"note: .*seed=2.* expired on 2026-05-31")
        write("w.json", json.dumps([{"match": "*seed=3", "measure": "max_ulp", "reason": "another", "until": "2026-05-31"}]))
        self.assertIn("covers nothing", self.ends(1, *gate, "2026-05-31").stdout)
        write("w.json", json.dumps([{"match": "*seed=2", "measure": "max_ulp", "limit": 0.9, "reason": "too small", "until": "2026-05-31"}]))
        self.ends(1, *gate, "2026-05-31")

    def test_limits(self):
        self.ends(0, "gate", "run.jsonl", "--limit", "max_ulp<=2")
        text = self.ends(1, "gate", "run.jsonl", "--limit", "max_ulp<=0.3").stdout
        self.assertIn("limit max_ulp<=0.3", text)
        self.assertIn("4 failed", text)
        self.assertIn("held against nothing", self.ends(1, "gate", "run.jsonl", "--limit", "scale.max_ulp<=1").stdout)

    def test_formats(self):
        case = self.worsened()
        result = self.ends(1, "gate", "worse.jsonl", "--baseline", "base.jsonl", "--junit", "j.xml", "--markdown", "m.md", "--annotations")
        suite = xml.etree.ElementTree.parse("j.xml").getroot().find("testsuite")
        self.assertEqual((suite.get("tests"), suite.get("failures"), suite.get("errors")), ("4", "1", "0"))
        failure = next(c for c in suite.iter("testcase") if c.find("failure") is not None)
        self.assertEqual(failure.get("name"), case)
        self.assertIn("y.max_ulp", failure.find("failure").get("message"))
        self.assertRegex(read("m.md").decode(), r"(?m)^\| worse \| " + re.escape(case))
        self.assertRegex(result.stdout, r"(?m)^::error title=norma worse::" + re.escape(case))
        found = json.loads(self.ends(1, "gate", "worse.jsonl", "--baseline", "base.jsonl", "--json").stdout)
        self.assertEqual([c["status"] for c in found["cases"]], ["ok", "worse", "ok", "ok"])
        self.assertEqual(found["exit"], 1)
        shown = self.ends(1, "gate", "worse.jsonl", "--baseline", "base.jsonl", "--junit", "/dev/stdout")
        self.assertIn("<testsuite", shown.stdout)


class Lists(CliTest):
    def test_json(self):
        for what in CATALOGUES:
            with self.subTest(what=what):
                rows = json.loads(self.ends(0, "list", what, "--json").stdout)
                names = [row["name"] for row in rows]
                self.assertEqual(len(set(names)), len(names))
                self.assertTrue(names or what == "blocks")
                for row in rows:
                    self.assertTrue(row["title"].strip(), row["name"])
                text = self.ends(0, "list", what).stdout
                self.assertEqual(len(text.splitlines()), max(1, len(rows)))
                if what not in ("blocks", "paths", "suites"):
                    self.assertEqual(json.loads(self.ends(0, "list", what, "--show", names[-1]).stdout), rows[-1])

    def test_paths_round_trip(self):
        jobs = []
        for path in json.loads(self.ends(0, "list", "paths", "--json").stdout):
            with self.subTest(path=path["name"]):
                self.assertTrue(path["formats"], "no format fits")
                x = next(f for f in ["bf16", "fp16", "fp32", *path["formats"]] if f in path["formats"])
                text = self.ends(0, "list", "paths", "--show", path["name"], "--format", x).stdout
                write(path["name"] + ".path", text)
                of_channels = path["norm"].removesuffix("_backward") in ("groupnorm", "instancenorm", "batchnorm")
                of_samples = path["norm"] in ("modulate_backward", "gated_residual_backward")  # sums over each one's tokens
                shape = "2x64x4x6" if of_channels else "2x6x64" if of_samples else "2x4x6x64" if path["norm"] == "grn" else "2x3072"
                if path["name"] == "tensorrt.skip_layernorm.vector":
                    shape = "2x768"  # the code takes rows of 768 and 1024 only
                words = [path["norm"], x, shape, f"path=file:{path['name']}.path", "seed=1"]
                declared = re.findall(r"(\w+):(fp32|bf16|fp16)\b", re.search(r"(?m)^in .*", text)[0])
                declared += re.findall(r"(?m)^# as built .*(weight) in (fp32)", text)
                words += [f"{name}.format={format_}" for name, format_ in declared]
                words += [f"{key}={value}" for key, value in path["attributes"].items()]
                words += [f"{name}.shape=2x64" for name, _ in declared if of_samples and name != "dy"]
                result = norma("run", *words, "--impl", "path:" + path["name"], "--json")
                self.assertIn(result.returncode, (0, 1), result.stderr)
                record = json.loads(result.stdout.splitlines()[1])
                first = "dx" if path["norm"].endswith("_backward") else "y"
                for name, output in record["outputs"].items() if first == "dx" else [("y", record["outputs"]["y"])]:
                    conformance = output["conformance"]
                    self.assertEqual(conformance["equal"], conformance["of"], (name, record["case"]))
                    self.assertGreater(conformance["of"], 0)
                self.assertIn(first, record["outputs"])
                jobs.append(path["name"])
        self.assertGreater(len(jobs), 240)


class Terminal(CliTest):
    def on_terminal(self, words, **environment):
        try:
            primary, secondary = pty.openpty()
        except OSError as error:
            self.skipTest("this machine gives no terminal: %s" % error)
        process = subprocess.Popen([NORMA, *words], stdin=subprocess.DEVNULL, stdout=secondary, stderr=secondary,
                                   env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, **environment})
        os.close(secondary)
        text = b""
        try:
            while piece := os.read(primary, 65536):
                text += piece
        except OSError:
            pass
        os.close(primary)
        process.wait(timeout=30)
        return text.decode()

    def test_colour_and_progress(self):
        words = ["run", *CASE, "seed=1..3", "--limit", "max_ulp<=0.3"]
        colour = re.compile(r"\033\[[0-9;]*m")
        text = self.on_terminal(words)
        self.assertRegex(text, colour)
        self.assertIn("[3/3]", text)
        text = self.on_terminal(words, NO_COLOR="1")
        self.assertNotRegex(text, colour)
        self.assertIn("[3/3]", text)
        piped = self.ends(1, *words)
        self.assertNotIn("\033", piped.stdout)
        self.assertFalse(piped.stderr)


class Norms(CliTest):
    """Every norm of the catalogue against its formula in 60 digits, index by index: [2, 4, 3] as samples, channels, positions."""
    SHAPE = [2, 4, 3]
    D = decimal.Decimal

    def setUp(self):
        super().setUp()
        decimal.getcontext().prec = 60
        self.random = random.Random(7)

    def fp32(self, count, around=0.0):
        return [struct.unpack("<f", struct.pack("<f", around + self.random.gauss(0, 0.5)))[0] for _ in range(count)]

    def normalized(self, values, groups, eps):
        """(x - mean) / sqrt(var + eps), over the elements that `groups` says are together."""
        values = [self.D(v) for v in values]
        result = []
        for i, v in enumerate(values):
            own = [values[k] for k in range(len(values)) if groups(k) == groups(i)]
            mean = sum(own) / len(own)
            variance = sum((o - mean) ** 2 for o in own) / len(own)
            result.append((v - mean) / (variance + self.D(eps)).sqrt())
        return result

    def affine(self, values, weight, bias, index):
        return [v * self.D(weight[index(i)]) + self.D(bias[index(i)]) for i, v in enumerate(values)]

    def holds(self, norm, inputs, exact, *words, outputs=None):
        """eval's bounds hold the exact values and its rounding passes check; the same with one bit flipped does not."""
        with self.subTest(norm=norm, words=words):
            outputs = dict(outputs or {}, y=exact)
            stored = {n: ("F32", shape, struct.pack(f"<{len(v)}f", *v)) for n, (shape, v) in inputs.items()}
            write("in.safetensors", pack(stored))
            made = ["--in", "in.safetensors", *(w for word in words for w in ("--set", word))]
            self.ends(0, "eval", "truth", norm, *made, "--out", "out.safetensors", "--round-to", "fp32")
            found = load("out.safetensors")
            got = {}
            for name, values in outputs.items():
                prefix = "" if name == "y" else name + "."
                lo, hi = (struct.unpack(f"<{len(values)}d", found[prefix + end][2]) for end in ("lo", "hi"))
                for low, high, value in zip(lo, hi, values):
                    self.assertLessEqual(self.D(low), value)
                    self.assertLessEqual(value, self.D(high))
                    self.assertLessEqual(high - low, abs(high) * 2.0 ** -50 + 2.0 ** -70)
                got[name] = found[prefix + "rounded"]
            self.assertEqual(set(found), {p + end for n in outputs for p in ["" if n == "y" else n + "."] for end in ("lo", "hi", "rounded")})
            self.assertEqual(found["lo"][1], inputs["x"][0])
            write("got.safetensors", pack({"y": got["y"]}))
            check = ["check", norm, *made, "--got", "got.safetensors", "--limit", "max_ulp<=0.5", "--limit", "incorrect<=0"]
            self.ends(0, *check)
            data = bytearray(got["y"][2])
            data[0] ^= 1
            write("got.safetensors", pack({"y": (*got["y"][:2], bytes(data))}))
            self.ends(1, *check)

    def test_layernorm(self):
        x, weight, bias = self.fp32(24, 1), self.fp32(3, 1), self.fp32(3)
        y = self.affine(self.normalized(x, lambda i: i // 3, 1e-5), weight, bias, lambda i: i % 3)
        self.holds("layernorm", {"x": (self.SHAPE, x), "weight": ([3], weight), "bias": ([3], bias)}, y)
        each = self.fp32(6, 1)
        y = self.affine(self.normalized(x, lambda i: i // 3, 0.25), each, [0] * 6, lambda i: i // 12 * 3 + i % 3)
        self.holds("layernorm", {"x": (self.SHAPE, x), "weight": ([2, 3], each)}, y, "eps=0.25")

    def test_channel_norms(self):
        x, weight, bias = self.fp32(24, 1), self.fp32(4, 1), self.fp32(4)
        inputs = {"x": (self.SHAPE, x), "weight": ([4], weight), "bias": ([4], bias)}
        channel = lambda i: i // 3 % 4
        for norm, groups, words in [("groupnorm", lambda i: i // 6, ["groups=2"]), ("groupnorm", lambda i: i // 12, ["groups=1"]),
                                    ("instancenorm", lambda i: i // 3, []), ("batchnorm", channel, [])]:
            self.holds(norm, inputs, self.affine(self.normalized(x, groups, 1e-5), weight, bias, channel), *words)

    def test_running_statistics(self):
        x, mean, variance = self.fp32(24, 1), self.fp32(4), [abs(v) for v in self.fp32(4, 2)]
        inputs = {"x": (self.SHAPE, x), "running_mean": ([4], mean), "running_var": ([4], variance)}
        channel = lambda i: i // 3 % 4
        y = [(self.D(v) - self.D(mean[channel(i)])) / (self.D(variance[channel(i)]) + self.D(1e-5)).sqrt() for i, v in enumerate(x)]
        for norm in ("batchnorm", "instancenorm"):
            self.holds(norm, inputs, y, "statistics=running")
        own = [[self.D(v) for i, v in enumerate(x) if channel(i) == c] for c in range(4)]
        means = [sum(o) / 6 for o in own]
        momentum = self.D(0.25)
        outputs = {"running_mean": [(1 - momentum) * self.D(m) + momentum * b for m, b in zip(mean, means)],
                   "running_var": [(1 - momentum) * self.D(v) + momentum * sum((e - b) ** 2 for e in o) / 5
                                   for v, b, o in zip(variance, means, own)]}
        self.holds("batchnorm", inputs, self.normalized(x, channel, 1e-5), "momentum=0.25", outputs=outputs)

    def test_running_outputs_are_judged_where_asked(self):
        """A running variance without Bessel's correction: shown and measured, failed by a limit on it, never 'pass'."""
        x = self.fp32(24, 1)
        own = [[v for i, v in enumerate(x) if i // 3 % 4 == c] for c in range(4)]
        means = [sum(o) / 6 for o in own]
        spread = [sum((v - m) ** 2 for v in o) for o, m in zip(own, means)]
        y = [(v - means[i // 3 % 4]) / math.sqrt(spread[i // 3 % 4] / 6 + 1e-5) for i, v in enumerate(x)]
        fp32 = lambda shape, values: ("F32", shape, struct.pack(f"<{len(values)}f", *values))
        write("in.safetensors", pack({"x": fp32(self.SHAPE, x), "running_mean": fp32([4], [0] * 4),
                                      "running_var": fp32([4], [1] * 4)}))
        for divisor, code in ((5, 0), (6, 1)):
            write("got.safetensors", pack({"y": fp32(self.SHAPE, y), "running_mean": fp32([4], [m / 10 for m in means]),
                                           "running_var": fp32([4], [.9 + .1 * s / divisor for s in spread])}))
            check = ["check", "batchnorm", "--in", "in.safetensors", "--got", "got.safetensors", "--limit", "max_ulp<=1"]
            done = norma(*check)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, r"(?m)^0 +pass .*#y  ")
            self.assertRegex(done.stdout, r"(?m)^0 +measured .*\[running_var\]")
            self.assertEqual(norma(*check, "--limit", "running_var.max_ulp<=1").returncode, code)

    def test_l2norm(self):
        x = self.fp32(24)
        lengths = [sum(self.D(v) ** 2 for v in x[r * 3:r * 3 + 3]).sqrt() for r in range(8)]
        self.holds("l2norm", {"x": (self.SHAPE, x)}, [self.D(v) / lengths[i // 3] for i, v in enumerate(x)])
        self.holds("l2norm", {"x": (self.SHAPE, x)}, [self.D(v) / 8 for v in x], "eps=8")

    def test_modulate_and_gated_residual(self):
        x, scale, shift, f = self.fp32(24), self.fp32(6), self.fp32(3), self.fp32(24)
        each = lambda i: i // 12 * 3 + i % 3
        y = [self.D(v) * (1 + self.D(scale[each(i)])) + self.D(shift[i % 3]) for i, v in enumerate(x)]
        self.holds("modulate", {"x": (self.SHAPE, x), "scale": ([2, 3], scale), "shift": ([3], shift)}, y)
        y = [self.D(v) + self.D(scale[each(i)]) * self.D(f[i]) for i, v in enumerate(x)]
        self.holds("gated_residual", {"x": (self.SHAPE, x), "f": (self.SHAPE, f), "gate": ([2, 1, 3], scale)}, y)

    def test_refusals(self):
        x = ("F32", self.SHAPE, struct.pack("<24f", *self.fp32(24)))
        write("in.safetensors", pack({"x": x, "scale": ("F32", [4], bytes(16))}))
        evaluate = ["eval", "truth", "--in", "in.safetensors", "--out", "o.safetensors"]
        self.refused([*evaluate, "groupnorm"], "groups is 32", "4 channels")
        self.refused([*evaluate, "batchnorm", "--set", "statistics=running"], "running_mean")
        self.refused([*evaluate, "modulate"], "scale has shape 4", "3 or 2x3")
        self.refused([*evaluate, "gated_residual"], "gated_residual needs the tensor 'f'")
        self.refused(["check", "groupnorm", "--in", "in.safetensors", "--map", "y=x", "--set", "groups=3"], "groups is 3")
        self.refused(["run", "layernorm", "fp32", "4x8"], "--impl")
        write("flat.safetensors", pack({"x": ("F32", [24], x[2])}))
        self.refused(["eval", "truth", "instancenorm", "--in", "flat.safetensors", "--out", "o.safetensors"], "[N, C, ...]")


if __name__ == "__main__":
    unittest.main()

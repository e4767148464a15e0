"""norma.serve: torch and ONNX Runtime as implementations under audit. What is not installed is skipped with a sentence."""

import json
import math
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))

import norma
from norma import _safetensors, serve

ENVIRONMENT = dict(os.environ, PYTHONPATH=str(ROOT / "python"), PYTHONDONTWRITEBYTECODE="1")
MISSING = {name: serve.library(name)[1] for name in serve.LIBRARIES}
for name, sentence in MISSING.items():
    if sentence:
        print("skipped: the tests of %s: %s" % (name, sentence), file=sys.stderr)


def floats(values, shape=None):
    return "fp32", tuple(shape or (len(values),)), struct.pack("<%df" % len(values), *values)


def values(tensor):
    return struct.unpack("<%df" % (len(tensor[2]) // 4), tensor[2])


def ask(library, lines, environment=ENVIRONMENT):
    """The answers to lines of JSON, or of anything."""
    done = subprocess.run(
        [sys.executable, "-m", "norma.serve"] + library.split(),
        input="".join(l + "\n" for l in lines),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment,
        timeout=120,
    )
    return done.stdout.splitlines()


class Protocol(unittest.TestCase):
    def test_a_missing_package_is_named_for_every_call(self):
        with tempfile.TemporaryDirectory() as folder:
            for package in ("torch", "onnxruntime"):
                with open(os.path.join(folder, package + ".py"), "w") as file:
                    file.write("raise ImportError('not here')\n")
            hidden = dict(ENVIRONMENT, PYTHONPATH=folder + os.pathsep + ENVIRONMENT["PYTHONPATH"])
            for package in ("torch", "onnxruntime"):
                answers = ask(package, ["{}", "{}"], hidden)
                self.assertEqual(len(answers), 2)
                self.assertRegex(answers[1], "^error .*has no package %s: pip install %s" % (package, package))


class Operators:
    """Of each library, by values worked out by hand; float64 arithmetic of this file's own."""

    library = None

    @classmethod
    def setUpClass(cls):
        cls.process = subprocess.Popen(
            [sys.executable, "-m", "norma.serve", cls.library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=ENVIRONMENT,
        )

    @classmethod
    def tearDownClass(cls):
        cls.process.stdin.close()
        cls.process.stdout.close()
        cls.process.wait(timeout=60)

    def say(self, line, words=""):
        if words:
            return ask(self.library + words, [line])[0]
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def run_one(self, norm, tensors, words="", **attributes):
        with tempfile.TemporaryDirectory() as folder:
            source, target = (os.path.join(folder, n) for n in ("in.safetensors", "out.safetensors"))
            _safetensors.write(source, tensors)
            line = json.dumps({"norm": norm, "in": source, "out": target, **attributes})
            said = self.say(line, words)
            return said, (_safetensors.read(target) if said == "ok" else None)

    def near(self, got, want, tolerance=2e-6):
        self.assertEqual(len(got), len(want))
        for g, w in zip(got, want):
            self.assertTrue(abs(g - w) <= tolerance * max(1, abs(w)), (got, want))

    def test_layernorm(self):
        x = [1.0, 2.0, 3.0, 4.0]
        said, out = self.run_one(
            "layernorm",
            {"x": floats(x, (1, 4)), "weight": floats([1, 2, 1, 2]), "bias": floats([0, 0, 1, 1])},
            eps=0.75,
        )
        self.assertEqual(said, "ok")
        r = 1 / math.sqrt(1.25 + 0.75)
        self.near(values(out["y"]), [-1.5 * r, -1.0 * r, 0.5 * r + 1, 3.0 * r + 1])

    def test_groupnorm_and_its_default_eps(self):
        x = [1.0, 3.0, 10.0, 30.0]
        said, out = self.run_one(
            "groupnorm",
            {"x": floats(x, (1, 4, 1)), "weight": floats([1, 1, 1, 2]), "bias": floats([0, 0, 0, 0])},
            groups=2,
        )
        self.assertEqual(said, "ok")
        a, b = 1 / math.sqrt(1 + 1e-5), 10 / math.sqrt(100 + 1e-5)
        self.near(values(out["y"]), [-a, a, -b, 2 * b])

    def test_batchnorm_by_running_statistics_and_by_the_batch(self):
        tensors = {
            "x": floats([1.0, 5.0, 3.0, 7.0], (2, 2)),
            "weight": floats([1, 2]),
            "bias": floats([0, 1]),
            "running_mean": floats([1, 1]),
            "running_var": floats([4, 9]),
        }
        said, out = self.run_one("batchnorm", tensors, statistics="running", eps=0.0)
        self.assertEqual(said, "ok")
        self.near(values(out["y"]), [0, 2 * 4 / 3 + 1, 1, 2 * 6 / 3 + 1])
        said, out = self.run_one("batchnorm", tensors, eps=1e-12, momentum=0.25)
        self.assertEqual(said, "ok")
        self.near(values(out["y"]), [-1, -1, 1, 3])
        self.near(values(out["running_mean"]), [0.75 + 0.25 * 2, 0.75 + 0.25 * 6])
        variance = self.batch_variance  # of 1, 3: 1 biased, 2 unbiased
        self.near(values(out["running_var"]), [3 + 0.25 * variance, 6.75 + 0.25 * variance])

    def test_modulate_for_each_sample(self):
        tensors = {
            "x": floats([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], (2, 2, 2)),
            "scale": floats([0, 1, 2, 3], (2, 2)),
            "shift": floats([0, 0, 10, 20], (2, 2)),
        }
        said, out = self.run_one("modulate", tensors)
        self.assertEqual((said, out["y"][1]), ("ok", (2, 2, 2)))
        self.near(values(out["y"]), [1, 4, 3, 8, 25, 44, 31, 52])

    def test_dtype_converts_first(self):
        said, out = self.run_one(
            "modulate", {"x": floats([1.0, 1.0 + 2.0**-12], (1, 2)), "scale": floats([0, 0])}, " --dtype fp16"
        )
        self.assertEqual((said, out["y"][0], out["y"][2]), ("ok", "fp16", b"\x00\x3c\x00\x3c"))

    def test_what_it_does_not_do_is_said(self):
        x = {"x": floats([1.0, 2.0], (1, 2))}
        self.assertRegex(self.run_one("layernorm", x, weight_offset=1)[0], "^error unsupported weight_offset=1")
        self.assertRegex(self.run_one("fastnorm", x)[0], "^error unsupported norm 'fastnorm': served are batchnorm ")
        self.assertRegex(
            self.say('{"norm": "layernorm", "in": "/no/such/file", "out": "/no"}'), "^error FileNotFoundError: "
        )
        self.assertRegex(self.say("nonsense"), "^error JSONDecodeError: ")

    def test_norma_judges_it(self):
        program = norma.find_program()
        with tempfile.TemporaryDirectory() as folder:
            run = os.path.join(folder, "run.jsonl")
            command = "%s -m norma.serve %s" % (sys.executable, self.library)
            done = subprocess.run(
                [program, "run", "layernorm", "fp32", "4x64", "seed=1", "--impl", "cmd:" + command, "--out", run],
                env=ENVIRONMENT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
            )
            with open(run) as file:
                records = [json.loads(line) for line in file][1:]
            self.assertEqual(len(records), 1, done.stdout)
            self.assertIn("y", records[0]["outputs"], records[0])
            ulp = records[0]["outputs"]["y"]["ulp"]
            self.assertTrue(0 < float(ulp["mean_abs"]) <= 2, records[0])


@unittest.skipIf(MISSING["torch"], MISSING["torch"] or "")
class Torch(Operators, unittest.TestCase):
    library = "torch"
    batch_variance = 2

    def test_rmsnorm_where_this_torch_has_it(self):
        import torch

        said, out = self.run_one("rmsnorm", {"x": floats([3.0, 4.0], (1, 2))}, eps=0.0)
        if not hasattr(torch.nn.functional, "rms_norm"):
            self.assertRegex(said, "^error unsupported torch .* has no rms_norm")
            return
        self.near(values(out["y"]), [3 / math.sqrt(12.5), 4 / math.sqrt(12.5)])


@unittest.skipIf(MISSING["onnxruntime"], MISSING["onnxruntime"] or "")
class OnnxRuntime(Operators, unittest.TestCase):
    library = "onnxruntime"
    batch_variance = 1

    def test_rmsnorm(self):
        said, out = self.run_one("rmsnorm", {"x": floats([3.0, 4.0], (1, 2))}, eps=0.0)
        self.assertEqual(said, "ok")
        self.near(values(out["y"]), [3 / math.sqrt(12.5), 4 / math.sqrt(12.5)])


if __name__ == "__main__":
    unittest.main()

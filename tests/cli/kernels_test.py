#!/usr/bin/env python3
"""The native kernels on the command line, and what the norms they compute refuse there. Argument 1 or $NORMA: the binary."""

import struct
import unittest

from cli_test import CliTest, norma, pack, records, write

# A case of each norm with kernels, and how many it has.
CASES = [
    ("rmsnorm bf16 4x256", "rmsnorm", 6),
    ("layernorm {fp32,bf16,e4m3fn} 4x256 bias.input=small_normal", "layernorm", 8),
    ("layernorm fp16 4x256 input=near_constant", "layernorm", 8),
    ("groupnorm bf16 2x8x33 groups=4 weight.input=weight_normal", "groupnorm", 10),
    ("instancenorm fp16 3x5x7x2 weight.input=weight_normal", "instancenorm", 5),
    ("batchnorm bf16 3x5x7x2 running_mean.input=small_normal running_var.input=variance_uniform", "batchnorm.train", 5),
    ("batchnorm bf16 3x5x7x2 statistics=running running_mean.format=fp32 running_var.format=fp32", "batchnorm.eval", 2),
    ("modulate bf16 2x3x64 scale.shape=2x64 shift.input=small_normal", "modulate", 2),
    ("gated_residual fp16 2x3x64 gate.shape=2x64", "gated_residual", 2),
]


def fp32(shape, values):
    return ("F32", shape, struct.pack(f"<{len(values)}f", *values))


class Kernels(CliTest):
    def test_every_norm(self):
        for line, group, count in CASES:
            with self.subTest(line):
                self.ends(0, "run", *line.split(), "--impl", f"cpu.{group}*", "--out", "run.jsonl")
                found = records("run.jsonl")
                self.assertEqual(len(found), count * (3 if "{" in line else 1))
                for record in found:
                    self.assertEqual(record["verdict"], "pass", record)
                    conformance = record["outputs"]["y"]["conformance"]
                    self.assertEqual(conformance["equal"], conformance["of"])
                    self.assertEqual(record["criteria"][0]["text"], "differing<=0")
                claims = [c for r in found for c in r["criteria"] if c["text"].startswith("max_ulp<=")]
                self.assertTrue(claims)
                if group == "batchnorm.train":
                    self.assertEqual(list(found[0]["outputs"]), ["y", "running_mean", "running_var"])


class Refusals(CliTest):
    """Exit 2 and one sentence: the thing, the place, what would be right."""

    def everywhere(self, norm, tensors, words, *mentions):
        """Refused by eval and check of a file."""
        write("in.safetensors", pack(dict(tensors, y=tensors["x"])))
        made = [word for pair in words for word in ("--set", pair)]
        self.refused(["eval", "truth", norm, "--in", "in.safetensors", "--out", "o.safetensors", *made], *mentions)
        self.refused(["check", norm, "--in", "in.safetensors", *made, "--limit", "max_ulp<=1"], *mentions)

    def test_groups(self):
        sentence = "groups is 3 but must divide the 8 channels of x"
        self.refused(["run", "groupnorm", "bf16", "2x8x4", "groups=3", "--impl", "cpu.groupnorm.two_pass"], sentence)
        self.refused(["run", "groupnorm", "bf16", "2x8x4", "groups=3", "path=torch.group_norm.cpu"], sentence)
        self.everywhere("groupnorm", {"x": fp32([2, 8, 2], [1, 2] * 16)}, ["groups=3"], sentence)
        for groups, said in [("0", "groups is 0"), ("-2", "groups is -2"), ("2.5", "groups is 2.5"), ("16", "groups is 16")]:
            self.refused(["run", "groupnorm", "bf16", "2x8x4", "groups=" + groups, "--impl", "cpu.groupnorm.two_pass"], said)
            self.everywhere("groupnorm", {"x": fp32([2, 8, 2], [1, 2] * 16)}, ["groups=" + groups], said)

    def test_statistics_of_one_value(self):
        for norm, shape, side in [("batchnorm", "1x8x1", [1, 8, 1]), ("batchnorm", "1x8", [1, 8]), ("instancenorm", "4x8x1", [4, 8, 1]),
                                  ("instancenorm", "4x8", [4, 8])]:
            mentions = [f"{norm}: x has shape {shape}, one value for each channel", "statistics=batch needs at least two"]
            path = "torch.batch_norm.cpu.train" if norm == "batchnorm" else "torch.instance_norm.cpu"
            self.refused(["run", norm, "fp32", shape, "path=" + path], *mentions)
            kernel = "cpu.batchnorm.train.two_pass" if norm == "batchnorm" else "cpu.instancenorm.two_pass"
            self.refused(["run", norm, "fp32", shape, "--impl", kernel], *mentions)
            self.everywhere(norm, {"x": fp32(side, [1.0] * (side[0] * 8))}, [], *mentions)
        self.ends(0, "run", "batchnorm", "fp32", "1x8", "path=torch.batch_norm.cpu.eval")

    def test_running_statistics_absent(self):
        x = {"x": fp32([2, 4, 2], list(range(16)))}
        mean = dict(x, running_mean=fp32([4], [0] * 4))
        for norm in ("batchnorm", "instancenorm"):
            self.everywhere(norm, x, ["statistics=running"], f"{norm}: statistics=running needs a tensor running_mean")
            self.everywhere(norm, mean, ["statistics=running"], f"{norm}: statistics=running needs a tensor running_var")
            kernel = "cpu.batchnorm.eval" if norm == "batchnorm" else "cpu.instancenorm.two_pass"
            self.refused(["run", norm, "fp32", "2x4x2", "statistics=running", "--impl", kernel], "needs a tensor running_mean")
            wrong = dict(mean, running_var=fp32([3], [1] * 3))
            self.everywhere(norm, wrong, ["statistics=running"], "running_var has shape 3", "4")

    def test_momentum(self):
        x = {"x": fp32([2, 4, 2], list(range(16)))}
        for norm, kernel in [("batchnorm", "cpu.batchnorm.train.two_pass"), ("instancenorm", "cpu.instancenorm.two_pass")]:
            for momentum in ("1.5", "-0.1"):
                sentence = f"{norm}: momentum is {momentum[:4]}"
                self.refused(["run", norm, "fp32", "2x4x2", "momentum=" + momentum, "--impl", kernel], sentence, "from 0 to 1")
                self.everywhere(norm, x, ["momentum=" + momentum], sentence, "from 0 to 1")
            self.refused(["run", norm, "fp32", "2x4x2", "momentum=nan", "--impl", kernel], "momentum=nan")
            self.refused(["run", norm, "fp32", "2x4x2", "momentum=None", "--impl", kernel], "momentum=None")

    def test_rank(self):
        flat = {"x": fp32([16], list(range(16)))}
        for norm, kernel in [("groupnorm", "cpu.groupnorm.two_pass"), ("batchnorm", "cpu.batchnorm.train.two_pass"),
                             ("instancenorm", "cpu.instancenorm.two_pass")]:
            self.everywhere(norm, flat, [], f"{norm} takes x with samples and channels, [N, C, ...]", "x has shape 16")
            self.refused(["run", norm, "fp32", "16", "--impl", kernel], "[N, C, ...]", "16")
        for name, side in [("weight", [2]), ("bias", [2, 4]), ("running_mean", [16])]:
            count = side[0] * (side[1] if len(side) > 1 else 1)
            self.everywhere("batchnorm", {"x": fp32([2, 4, 2], list(range(16))), name: fp32(side, [1.0] * count)}, [],
                            f"{name} has shape {'x'.join(map(str, side))}", "needs 4")

    def test_not_finite(self):
        """A NaN row is no error: y must be NaN there, and a number is told from it."""
        nan = float("nan")
        x = [1.0, 2.0, nan, 4.0, 1.0, -1.0, 3.0, -3.0]
        y = [nan] * 4 + [v / 5 ** 0.5 for v in x[4:]]
        for got, code, said in [(y, 0, ""), ([0.0] * 4 + y[4:], 1, "NaN"), (y[:4] + [nan] + y[5:], 1, "NaN")]:
            write("in.safetensors", pack({"x": fp32([2, 4], x), "y": fp32([2, 4], got)}))
            result = norma("check", "layernorm", "--in", "in.safetensors", "--set", "eps=0", "--limit", "max_ulp<=1")
            self.assertEqual(result.returncode, code, result.stdout + result.stderr)
            self.assertIn(said, result.stdout)


if __name__ == "__main__":
    unittest.main()

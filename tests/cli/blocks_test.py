#!/usr/bin/env python3
"""Blocks on the command line: their suite, their traces, tensors from files, refusals. Argument 1 or $NORMA: the binary."""

import json
import random
import struct
import sys
import unittest

from cli_test import NORMA, CliTest, load, pack, records, write

SIZES = {"x": (1, 4, 16), "c": (1, 16), "adaLN_modulation.1.weight": (96, 16), "adaLN_modulation.1.bias": (96,),
         "attn.qkv.weight": (48, 16), "attn.qkv.bias": (48,), "attn.proj.weight": (16, 16), "attn.proj.bias": (16,),
         "mlp.fc1.weight": (64, 16), "mlp.fc1.bias": (64,), "mlp.fc2.weight": (16, 64), "mlp.fc2.bias": (16,)}


def dit_tensors():
    draw = random.Random(5)
    tensors = {}
    for name, shape in SIZES.items():
        count = 1
        for side in shape:
            count *= side
        scale = 0.25 if name.endswith("weight") else 1
        tensors[name] = ("F32", list(shape), struct.pack(f"<{count}f", *(draw.gauss(0, scale) for _ in range(count))))
    return tensors


# Answers by the path itself; to one eps with an error.
COMMAND = """
import json, subprocess, sys
for line in sys.stdin:
    call = json.loads(line)
    if call["eps"] == 2e-6: print("error out of memory", flush=True); continue
    subprocess.run([%r, "eval", "ideal", call["norm"], "--path", "facebook.dit.block", "--in", call["in"], "--out", call["out"],
                    "--set", "heads=2"], check=True)
    print("ok", flush=True)
"""


class Blocks(CliTest):
    def test_suite_and_traces(self):
        self.ends(0, "run", "@blocks", "--jobs", "2", "--out", "two.jsonl")
        self.ends(0, "run", "@blocks", "--jobs", "1", "--out", "one.jsonl")
        found = records("two.jsonl")
        self.assertEqual(found, records("one.jsonl"))
        paths = {p["name"] for b in json.loads(self.ends(0, "list", "blocks", "--json").stdout) for p in b["paths"]}
        self.assertEqual({r["path"] for r in found}, paths)
        for record in found:
            with self.subTest(record["case"]):
                sites = record["trace"]["sites"]
                self.assertEqual(sorted(s["rank"] for s in sites), list(range(1, len(sites) + 1)))
                carried = any(b["carried"] for g in record["trace"].get("growth", []) for b in g["blocks"])
                self.assertEqual(carried, " blocks=8 " in record["case"])
                if not carried:
                    self.assertLess(record["trace"]["definition_gap"], 1e-6)
                for site in sites:
                    entering, added, leaving = (site[k]["relative_l2"] for k in ("entering", "added", "leaving"))
                    self.assertLessEqual(leaving, (entering + added) * 1.0001)
                    self.assertGreaterEqual(leaving, abs(entering - added) * 0.9999 - 1e-12)
                    self.assertLess(site["uncertainty"], 1e-5 if carried else 1e-12)
                by_added = sorted(sites, key=lambda s: -s["added"]["relative_l2"])
                self.assertEqual(by_added[0]["rank"], 1)
                for output in record["outputs"].values() if not carried else []:
                    self.assertEqual(output["counts"]["undecided"], 0)

    def test_linear_layers(self):
        case = "dit_block bf16 1x4x128 heads=2 path=facebook.dit.block seed=1".split()
        self.ends(0, "run", *case, "--out", "plain.jsonl")
        self.ends(0, "run", *case, "linears={fp8_row,fp8_block128,mxfp8}", "sums=tensor_core(16)", "keep=adaLN,proj", "--out", "coded.jsonl")
        plain, coded = records("plain.jsonl")[0], records("coded.jsonl")
        self.assertEqual(len(coded), 3)
        self.assertNotIn("linears", plain["case"])
        own = {s["site"] for s in plain["trace"]["sites"]}
        for record in coded:
            with self.subTest(record["case"]):
                self.assertIn("sums=tensor_core(16)", record["case"])
                sites = {s["site"] for s in record["trace"]["sites"]}
                self.assertLess(own, sites)
                self.assertIn("mlp.fc1.weight.e4m3.scale", sites)
                self.assertNotIn("attn.proj.weight.e4m3", sites)
                self.assertLess(record["trace"]["definition_gap"], 1e-6)
                error = [r["trace"]["sites"][-1]["leaving"]["relative_l2"] for r in (plain, record)]
                self.assertGreater(error[1], 3 * error[0])
                self.assertLess(error[1], 0.2)
                # The line that a record holds gives the record again.
                self.ends(0, "run", record["case"], "--out", "again.jsonl")
                self.assertEqual(records("again.jsonl")[0]["outputs"], record["outputs"])
        for words, sentence in (
                (["linears=fp8_row", "keep=to_q"], "keep=to_q is in the name of no linear layer of dit_block; it has adaLN_modulation.1, "
                                                   "attn.qkv, attn.proj, mlp.fc1, mlp.fc2"),
                (["linears=fp8"], "linears=fp8 is not a choice of dit_block; known: layerwise_e4m3|"),
                (["sums=tree(2)"], "sums=tree(2) is not known; known: exact, sequential, blocked(N), split(N), tensor_core(N)"),
                (["keep=proj"], "keep=proj leaves layers as they are, and no linears= changes the others"),
                (["bias=before"], "bias=before is not a choice of dit_block; known: epilogue|after|first")):
            with self.subTest(words):
                self.assertIn(sentence, self.ends(2, "run", *case, *words).stderr)

    def test_file(self):
        write("in.safetensors", pack(dit_tensors()))
        common = ("dit_block", "--in", "in.safetensors", "--set", "heads=2")
        self.ends(0, "eval", "truth", *common, "--out", "truth.safetensors")
        self.ends(0, "eval", "ideal", *common, "--path", "facebook.dit.block", "--out", "ideal.safetensors")
        checked = ("check", *common, "--path", "facebook.dit.block", "--limit", "differing<=0", "--json")
        record = json.loads(self.ends(0, *checked, "--got", "ideal.safetensors").stdout)
        self.assertEqual(record["verdict"], "pass")
        with open("ideal.safetensors", "rb") as file:
            data = bytearray(file.read())
        data[-4] ^= 1
        write("flipped.safetensors", bytes(data))
        record = json.loads(self.ends(1, *checked, "--got", "flipped.safetensors").stdout)
        self.assertEqual(record["outputs"]["y"]["conformance"]["equal"], 63)
        self.assertEqual(record["trace"]["sites"][-1]["differing"], 1)

    def test_stacks(self):
        case = ("run", "dit_block", "bf16", "1x4x16", "heads=2", "path=facebook.dit.block")
        self.ends(0, *case, "blocks=1", "--out", "one.jsonl")
        self.assertNotIn("growth", records("one.jsonl")[0]["trace"])
        told = self.ends(0, *case, "blocks=3", "--limit", "site.relative_l2<=1", "--out", "three.jsonl").stdout
        self.assertIn("y block after block", told)
        record = records("three.jsonl")[0]
        [stream] = record["trace"]["growth"]
        self.assertEqual([b["block"] for b in stream["blocks"]], [0, 1, 2])
        self.assertFalse(any(b["carried"] for b in stream["blocks"]))
        self.assertEqual(stream["blocks"][-1]["leaving"], record["trace"]["sites"][-1]["leaving"])
        self.assertEqual(record["outputs"]["y"]["counts"]["undecided"], 0)
        self.assertAlmostEqual(record["outputs"]["y"]["relative_l2"], stream["blocks"][-1]["leaving"]["relative_l2"], places=6)
        # The first site beyond a limit is named, by the run and by the gate.
        limit = "site.relative_l2<=2.5e-3"
        first = next(s["site"] for s in record["trace"]["sites"] if s["leaving"]["relative_l2"] > 2.5e-3)
        told = self.ends(1, *case, "blocks=3", "--limit", limit).stdout
        self.assertIn(f"at site {first}, the first beyond <=2.5e-3", told)
        self.assertIn(first, self.ends(1, "gate", "three.jsonl", "--limit", limit).stdout)
        self.ends(0, "gate", "three.jsonl", "--limit", "site.relative_l2<=1")

    def test_stack_of_a_checkpoint(self):
        alike = {k: v for k, v in dit_tensors().items() if k not in ("x", "c")}
        shared = {k: v for k, v in dit_tensors().items() if k in ("x", "c")}
        write("two.safetensors", pack(shared | {f"{i}.{k}": v for i in (0, 1) for k, v in alike.items()}))
        write("one.safetensors", pack(shared | alike))
        common = ("dit_block", "--set", "heads=2", "--path", "facebook.dit.block")
        self.ends(0, "eval", "ideal", *common, "--in", "one.safetensors", "--out", "y1.safetensors")
        y = load("y1.safetensors")["y"]
        write("next.safetensors", pack(shared | alike | {"x": y}))
        self.ends(0, "eval", "ideal", *common, "--in", "next.safetensors", "--out", "y2.safetensors")
        self.ends(0, "check", *common, "--set", "blocks=2", "--in", "two.safetensors", "--got", "y2.safetensors", "--limit", "differing<=0")
        self.ends(1, "check", *common, "--set", "blocks=2", "--in", "two.safetensors", "--got", "y1.safetensors", "--limit", "differing<=0")
        self.assertIn("2 blocks are asked for, and the tensors are of 1", self.ends(2, "check", *common, "--set", "blocks=2", "--in", "one.safetensors",
                                                             "--got", "y2.safetensors").stderr)

    def test_command(self):
        write("kernel.py", COMMAND % NORMA)
        case = ("run", "dit_block", "bf16", "1x4x16", "heads=2", "path=facebook.dit.block", "--impl", f"cmd:{sys.executable} kernel.py")
        self.ends(0, *case, "--limit", "differing<=0", "--out", "run.jsonl")
        self.assertEqual(records("run.jsonl")[0]["outputs"]["y"]["conformance"]["equal"], 64)
        told = self.ends(3, *case, "eps=2e-6").stdout
        self.assertIn("out of memory", told)

    def test_where_nan_began(self):
        tensors = dit_tensors()
        tensors["mlp.fc2.bias"] = ("F32", [16], struct.pack("<16f", float("inf"), *[0.0] * 15))
        write("in.safetensors", pack(tensors))
        common = ("dit_block", "--in", "in.safetensors", "--set", "heads=2", "--path", "facebook.dit.block")
        self.ends(0, "eval", "ideal", *common, "--out", "ideal.safetensors")
        told = self.ends(1, "check", *common, "--got", "ideal.safetensors", "--limit", "site.relative_l2<=1").stdout
        self.assertIn("mlp.fc2", told)

    def test_refusals(self):
        tensors = dit_tensors()
        write("in.safetensors", pack(tensors))
        write("missing.safetensors", pack({k: v for k, v in tensors.items() if k != "attn.proj.bias"}))
        write("extra.safetensors", pack(tensors | {"attn.qnorm.weight": ("F32", [8], bytes(32))}))
        write("shape.safetensors", pack(tensors | {"mlp.fc1.bias": ("F32", [63], bytes(252))}))
        truth = ("eval", "truth", "dit_block", "--out", "out.safetensors", "--set")
        for words, sentence in [
            (("run", "dit_block", "bf16", "1x4x30", "heads=4", "path=*"), "heads=4 must divide the width 30"),
            (("run", "dit_block", "bf16", "4x32", "heads=4", "path=*"), "[batch, tokens, width]"),
            (("run", "dit_block", "bf16", "1x4x32", "head=4", "path=*"), "unknown key 'head'"),
            (("run", "dit_block", "bf16", "1x4x32", "heads=4", "path=bfl.flux.rmsnorm"), "unknown path 'bfl.flux.rmsnorm' of dit_block"),
            (("run", "llama_block", "bf16", "1x4x32", "heads=4", "kv_heads=3", "path=*"), "kv_heads"),
            (("run", "adm_resblock", "bf16", "1x30x4x4", "groups=8", "path=*"), "groups=8 must divide the 30 channels"),
            (("run", "flux_ae_attention", "bf16", "8x32", "path=*"), "[batch, channels, height, width], got 8x32"),
            (("run", "qwen_vae_residual", "bf16", "1x8x4x4", "path=*"), "[batch, channels, frames, height, width]"),
            (("run", "dit_blok", "bf16", "1x4x32"), "blocks: dit_block"),
            ((*truth, "heads=2", "--in", "missing.safetensors"), "attn.proj.bias"),
            ((*truth, "heads=2", "--in", "extra.safetensors"), "attn.qnorm.weight"),
            ((*truth, "heads=2", "--in", "shape.safetensors"), "mlp.fc1.bias must be 64, got 63"),
            ((*truth, "heads=3", "--in", "in.safetensors"), "heads=3 must divide the width 16"),
            ((*truth, "layout=bfl", "--in", "in.safetensors"), "bfl"),
            ((*truth, "heads=2", "--in", "in.safetensors", "--layout", "bfl"), "block dit_block has no layout bfl"),
            (("eval", "truth", "rmsnorm", "--in", "in.safetensors", "--out", "out.safetensors", "--layout", "bfl"), "--layout is for blocks"),
            (("run", "dit_block", "bf16", "1x4x32", "heads=4", "path=*", "blocks=0"), "blocks=0 is not a whole number"),
            (("run", "flux_last_layer", "bf16", "1x4x32", "path=*", "blocks=2"), "flux_last_layer"),
            (("run", "dit_block", "bf16", "1x4x32", "heads=4", "path=*", "--limit", "site.differing<=1"), "sites have no differing"),
            (("run", "rmsnorm", "bf16", "1x32", "path=bfl.flux.rmsnorm", "--limit", "site.relative_l2<=1"), "site"),
        ]:
            with self.subTest(words):
                told = self.ends(2, *words)
                self.assertIn(sentence, told.stderr)
                self.assertEqual(told.stderr.count("\n"), 1)


if __name__ == "__main__":
    unittest.main(argv=[__file__])

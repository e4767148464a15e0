#!/usr/bin/env python3
"""The GPU check without a GPU: norma's own answer here, and programs that act a machine with one.

usage: gpu_check_test.py NORMA CHECK.sh
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

NORMA = ""
CHECK = ""

DEVICES = {
    "name": "gpu", "title": "x", "device": "NVIDIA Test", "capability": "9.0", "driver": "13.0", "runtime": "13.0",
    "compiler": "nvcc 13.0.88", "flags": "--fmad=false", "code": "sm_90",
}
PASS = '{"kind":"record","verdict":"pass"}'
# What a program of the check answers: a shell script whose arguments are norma's.
ACTOR = r"""#!/bin/sh
case $1 in
  list) cat "$ACT/devices" ;;
  --version) echo 'norma 0.1.0 (test)' ;;
  run)
    out= outputs=
    while [ $# != 0 ]; do
      case $1 in --out) out=$2 ;; --outputs) outputs=$2 ;; esac
      shift
    done
    [ -z "$out" ] || cat "$ACT/run" >"$out"
    [ -z "$outputs" ] || echo bits >"$outputs"
    exit "$(cat "$ACT/run_code")"
    ;;
esac
"""


class GpuCheck(unittest.TestCase):
    def setUp(self):
        kept = tempfile.TemporaryDirectory()
        self.addCleanup(kept.cleanup)
        self.root = pathlib.Path(kept.name)
        self.out = self.root / "out"
        self.script("made/bin/norma", ACTOR)
        self.script("made/tests/impls_cuda_gpu_test", "#!/bin/sh\necho 'All tests passed (7 assertions in 2 test cases)'\necho\n"
                    'exit "$(cat "$ACT/bits_code")"\n')
        self.script("made/bin/norma_gpu_speed", '#!/bin/sh\necho \'{"kind":"context"}\' >"$ACT/../out/speed.jsonl"\n'
                    "echo '8 kernels and shapes measured, 0 below 0.9'\nexit \"$(cat \"$ACT/speed_code\")\"\n")
        self.act("devices", json.dumps([{"name": "host"}, DEVICES], indent=1))
        self.act("run", '{"kind":"context"}\n' + PASS + "\n" + PASS + "\n")
        for name in ("run_code", "bits_code", "speed_code"):
            self.act(name, "0")
        # Neither this machine's tools nor its torch have a part in it.
        self.script("path/nvidia-smi", "#!/bin/sh\necho 580.1\n")
        self.script("path/python3", "#!/bin/sh\necho 'not compared: no torch' >&2\nexit 77\n")

    def script(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def act(self, name, text):
        (self.root / "act").mkdir(exist_ok=True)
        (self.root / "act" / name).write_text(text)

    def check(self):
        env = dict(os.environ, ACT=str(self.root / "act"), PATH=f"{self.root}/path:{os.environ['PATH']}")
        done = subprocess.run(["sh", CHECK, str(self.root / "made"), str(self.out)], env=env, encoding="utf-8",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode, done.stdout

    def test_all_held(self):
        code, said = self.check()
        self.assertEqual(code, 0, said)
        self.assertIn("NVIDIA Test, compute capability 9.0", said)
        self.assertIn('"pass": 2', said)
        made = {path.name for path in self.out.iterdir()}
        self.assertLessEqual({"provenance.json", "bits.txt", "run.jsonl", "speed.jsonl", "outputs.safetensors"}, made)
        self.assertLessEqual(len(made), 8)
        told = json.loads((self.out / "provenance.json").read_text())
        self.assertEqual(told["verdicts"], {"pass": 2})
        self.assertEqual(len(told["outputs_sha256"]), 64)
        self.assertEqual(told["flags"], "--fmad=false")

    def test_no_gpu_is_no_pass(self):
        for problem in ("there is no CUDA device (x)", "there is no NVIDIA driver (x)",
                        "this norma was built without CUDA: nvcc was not found"):
            self.act("devices", json.dumps([dict(DEVICES, problem=problem)], indent=1))
            code, said = self.check()
            self.assertEqual(code, 77, said)
            self.assertIn("nothing to check: " + problem, said)

    def test_a_gpu_that_cannot_be_used_is_a_failure(self):
        for problem in ("the NVIDIA driver is too old: x", "this norma has no code for NVIDIA Test of compute capability 7.5"):
            self.act("devices", json.dumps([dict(DEVICES, problem=problem)], indent=1))
            code, said = self.check()
            self.assertEqual(code, 1, said)
            self.assertIn("FAILED: " + problem, said)

    def test_each_step_can_fail(self):
        for step, code, word in (("bits_code", "1", "bits"), ("run_code", "1", "run.jsonl"), ("run_code", "3", "run.jsonl"),
                                 ("speed_code", "1", "speed")):
            with self.subTest(step=step, code=code):
                self.act(step, code)
                ended, said = self.check()
                self.assertEqual(ended, 1, said)
                self.assertIn("FAILED: " + word, said)
                self.act(step, "0")

    def test_a_run_in_which_nothing_ran_is_a_failure(self):
        self.act("run", '{"kind":"context"}\n{"kind":"record","verdict":"skip"}\n')
        code, said = self.check()
        self.assertEqual(code, 1, said)
        self.assertIn("no kernel ran", said)

    def test_a_sanitizer_that_finds_something_is_a_failure(self):
        self.script("path/compute-sanitizer", "#!/bin/sh\n[ \"$2\" != racecheck ] || exit 9\n")
        code, said = self.check()
        self.assertEqual(code, 1, said)
        self.assertIn("compute-sanitizer memcheck: clean", said)
        self.assertIn("FAILED: compute-sanitizer racecheck", said)

    def test_what_is_measured_is_in_the_catalogue_and_counts_its_bytes(self):
        speed = pathlib.Path(NORMA).parent / "norma_gpu_speed"
        if not speed.exists():
            self.skipTest("norma_gpu_speed is built where there is an nvcc")
        plan = subprocess.run([speed, "--plan"], stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout
        lines = [json.loads(line) for line in plan.splitlines()]
        listed = json.loads(subprocess.run([NORMA, "list", "impls", "--json"], stdout=subprocess.PIPE, check=True).stdout)
        self.assertEqual({line["kernel"] for line in lines} - {impl["name"] for impl in listed}, set())
        size = {"bf16": 2, "fp16": 2, "fp32": 4}
        tensors = {"rmsnorm": (2, 1), "layernorm": (2, 2), "ada_layernorm": (2, 2), "modulate": (2, 2), "gated_residual": (3, 1)}
        for line in lines:
            rows, vectors = tensors.get(line["norm"], (line["reads"] + line["writes"], line["vectors"]))
            self.assertEqual(line["bytes"], size[line["format"]] * line["cols"] * (rows * line["rows"] + vectors), line)

    def test_norma_itself_says_what_it_runs_on(self):
        done = subprocess.run([NORMA, "list", "devices", "--json"], stdout=subprocess.PIPE, encoding="utf-8", check=True)
        devices = {row["name"]: row for row in json.loads(done.stdout)}
        self.assertEqual(set(devices), {"host", "gpu"})
        gpu = devices["gpu"]
        self.assertTrue(gpu.get("problem") or (gpu["device"] and gpu["capability"] and gpu["code"]))


class Kept(unittest.TestCase):
    """norma run --outputs and norma rejudge."""

    def call(self, *words):
        return subprocess.run([NORMA, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")

    def test_round_trip(self):
        with tempfile.TemporaryDirectory() as folder:
            kept = folder + "/outputs.safetensors"
            done = self.call("run", "rmsnorm", "bf16", "2x64", "--impl", "cuda_host.rmsnorm.*_per_row", "--outputs", kept)
            self.assertEqual(done.returncode, 0, done.stderr)
            done = self.call("rejudge", kept)
            self.assertEqual(done.returncode, 0, done.stdout)
            self.assertIn("2 outputs judged again: 2 agree, 0 differ, 0 stale", done.stdout)
            data = bytearray(pathlib.Path(kept).read_bytes())
            data[-1] ^= 1
            pathlib.Path(kept).write_bytes(data)
            done = self.call("rejudge", kept)
            self.assertEqual(done.returncode, 1, done.stdout)
            self.assertIn("1 differ", done.stdout)
            done = self.call("run", "rmsnorm", "bf16", "2x64", "--impl", "cpu.rmsnorm.lanes", "--outputs", kept, "--shard", "1/2")
            self.assertEqual(done.returncode, 2)

    def test_a_file_of_something_else_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            made = self.call("eval", "truth", "rmsnorm", "--in", folder + "/none", "--out", folder + "/o")
            self.assertEqual(made.returncode, 2)
            done = self.call("rejudge", folder + "/none")
            self.assertEqual(done.returncode, 2)
            self.assertIn("none", done.stderr)


if __name__ == "__main__":
    NORMA, CHECK = sys.argv.pop(1), sys.argv.pop(1)
    unittest.main()

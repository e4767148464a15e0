#!/usr/bin/env python3
"""The built-in suites: every path of the catalogue runs in its project's, and all run without an error.

usage: suites_test.py NORMA
"""

import collections
import json
import pathlib
import re
import subprocess
import sys
import unittest

NORMA = ""
PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/suites.md"
GENERAL = {"smoke", "ci", "nightly", "main", "claims", "articles", "blocks", "cuda", "cuda_record"}
# Suites across projects.
ACROSS = {"qwen"}
# Packages of a project whose suite has another name.
PROJECT = {"sgl_kernel": "sglang"}


def call(*words):
    return subprocess.run([NORMA, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")


def listed(*words):
    return json.loads(call("list", *words, "--json").stdout)


def records(suite, *words):
    """(exit code, records, standard error) of a run."""
    done = call("run", "@" + suite, "--json", *words)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, [line for line in lines if line.get("kind") == "record"], done.stderr


class Suites(unittest.TestCase):
    def setUp(self):
        self.norms = {norm["name"] for norm in listed("norms")}
        self.paths = [path for path in listed("paths") if path["norm"] in self.norms]
        self.suites = {suite["name"]: suite["title"] for suite in listed("suites")}

    def test_each_has_a_title_of_its_own(self):
        for name, title in self.suites.items():
            self.assertGreater(len(title), 15, name)
        self.assertEqual(len(set(self.suites.values())), len(self.suites))

    def test_the_page_of_suites_names_each(self):
        with open(PAGE, encoding="utf-8") as file:
            text = file.read()
        told = dict(re.findall(r"^\| `(\w+)` \|[^|]*\|[^|]*\| (.*) \|$", text, re.MULTILINE))
        self.assertEqual(told, self.suites)

    def test_every_path_runs_in_its_project(self):
        projects = collections.defaultdict(set)
        for path in self.paths:
            package = path["name"].split(".")[0]
            projects[PROJECT.get(package, package)].add(path["name"])
        self.assertEqual(set(projects), set(self.suites) - GENERAL - ACROSS)
        for project, names in sorted(projects.items()):
            with self.subTest(suite=project):
                code, found, error = records(project)
                self.assertEqual(code, 0, error)
                measured = {record["path"] for record in found if record["outputs"]}
                self.assertEqual(names - measured, set(), "no case of the suite measures them")
                self.assertEqual(measured - names, set(), "they are another project's")
                # A project's suite asks only for what its code takes.
                refused = {record["reason"] for record in found if not record["outputs"]}
                self.assertEqual(refused, set())

    def test_the_others_run(self):
        for suite in sorted(ACROSS | {"smoke", "claims", "articles"}):
            with self.subTest(suite=suite):
                code, found, error = records(suite)
                self.assertEqual(code, 0, error)
                self.assertGreaterEqual(len(found), 20)

    def test_what_is_kept_of_a_gpu_runs_on_the_host_executor(self):
        def norms_of(suite):
            return {line.split()[0] for line in call("list", "suites", "--show", suite).stdout.splitlines() if line[:1] != "#"}

        self.assertEqual(norms_of("cuda"), norms_of("cuda_record"))
        kernels = set()
        for norm in norms_of("cuda_record"):
            kernels |= {impl["name"] for impl in listed("impls", "--norm", norm) if impl["name"].startswith("cuda.")}
        self.assertGreater(len(kernels), 20)
        code, found, error = records("cuda_record", "--impl", "cuda_host.*")
        self.assertEqual(code, 0, error)
        passed = {record["impl"].replace("cuda_host.", "cuda.") for record in found if record["verdict"] == "pass"}
        # Not those that take what no line has (a residual, a scale).
        self.assertGreater(len(kernels & passed), 40, "the suite has lines for few kernels")
        for record in found:
            if record["verdict"] == "pass":
                self.assertTrue(record["ran"], record["case"])

    def test_the_wide_ones_name_every_path_of_every_norm(self):
        with_paths = {path["norm"] for path in self.paths}
        for suite in ("ci", "nightly"):
            text = call("list", "suites", "--show", suite).stdout
            named = set()
            for line in text.splitlines():
                if line.startswith("#") or " path=* " not in line:
                    continue
                named |= set(line.split()[0].strip("{}").split(","))
            self.assertEqual(with_paths - named, set(), "@%s has no line with path=* for them" % suite)


if __name__ == "__main__":
    NORMA = sys.argv.pop(1)
    unittest.main()

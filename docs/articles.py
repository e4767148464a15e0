#!/usr/bin/env python3
"""The systems that two articles on normalization name, measured by norma: makes docs/articles.md.

    docs/articles.py            print the page
    docs/articles.py --write    write docs/articles.md and the short table in README.md
    docs/articles.py --check    exit 1 with a sentence if either is not what norma says now

Each system is a case line of the suite `articles` under a comment '# ARTICLE: SYSTEM'. Every figure is what `norma run`
records of that line. No packages are needed; $NORMA names the program.
"""

import difflib
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))

import norma

SUITE = HERE.parent / "harness/cases/suites/articles.cases"
README = HERE.parent / "README.md"
BEGIN, END = "<!-- articles: docs/articles.py --write -->\n", "<!-- end of articles -->\n"
FORMATS = ("fp32", "bf16", "fp16")


def systems():
    """(article, system, case line) in the suite's order."""
    found, said = [], None
    for number, line in enumerate(SUITE.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("#"):
            said = line[1:].strip().split(": ", 1) if number > 1 else None
        elif line.strip():
            if said is None or said[0] not in ("A", "B", "A, B"):
                sys.exit("%s:%d has no '# ARTICLE: SYSTEM' before it" % (SUITE.name, number))
            found.append((said[0], said[1], line.strip()))
            said = None
    return found


def measures(line):
    """What norma run finds for each format of x: the measures of y, the format of y."""
    done = subprocess.run(
        [norma.find_program(), "run", "--json"] + line.split(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    if done.returncode != 0:
        sys.exit("norma run %s ended with %d: %s" % (line, done.returncode, done.stderr.strip()))
    found = {}
    for text in done.stdout.splitlines():
        record = json.loads(text)
        if record.get("kind") != "record":
            continue
        if not record["outputs"]:
            sys.exit("%s: %s" % (record["case"], record["reason"]))
        found[record["case"].split()[1]] = norma._measures(record["outputs"])
    return found


def word(line, key):
    return next(w[len(key) + 1 :] for w in line.split() if w.startswith(key + "="))


def figure(m):
    """rms / largest; where terms cancel also the largest in ulp of the terms."""
    if not m:
        return ""
    plain = "%.3f / %.3f" % (m["rms_ulp"], m["max_ulp"])
    terms = m.get("max_condition_ulp", m["max_ulp"])
    return plain if terms >= 0.99 * m["max_ulp"] else plain + " (%.3f)" % terms


def tables():
    """Rows of the page's table and of the README's."""
    long, short = [], []
    for article, system, line in systems():
        found = measures(line)
        cells = [figure(found.get(f)) for f in FORMATS]
        long.append("| %s | %s | %s | `%s` |" % (article, system, " | ".join(cells), line))
        of_terms = {f: m.get("max_condition_ulp", m["max_ulp"]) for f, m in found.items()}
        cells = ["%.2f" % of_terms[f] if f in found else "" for f in FORMATS]
        short.append("| %s | `%s` | %s |" % (system, word(line, "path"), " | ".join(cells)))
    return long, short


def page(rows):
    head = [
        "# The systems of two articles, measured",
        "",
        "Made by `docs/articles.py --write`; do not edit. One row a system that an article names: article A (Korean) walks",
        "through the norms of FLUX and Qwen-Image, article B (Chinese) through BatchNorm, LayerNorm, RMSNorm and AdaLN in",
        "PyTorch. A figure is the rms / largest ulp error of y against the exact value, for x in that format: |got - exact| /",
        "ulp(exact) in y's own format, 0.5 if correctly rounded. The case line repeats it: `norma run CASE`; all of them:",
        "`norma run @articles`. What the articles claim of these systems is in [claims.md](claims.md).",
        "",
        "What adds a bias, a shift or x itself may cancel: where y is near 0 its unit is small and the error in it large, with",
        "any arithmetic that rounds in between; such elements make both figures. In brackets, where it is less: the largest",
        "error in ulp of the terms that are added, |q| + |b|.",
        "",
        "The linear layer before a modulation (`Linear(SiLU(vec))`) is a matrix product, not a norm, and has no row here.",
        "",
        "| article | system | fp32 | bf16 | fp16 | case |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join(head + rows) + "\n"


def readme(rows):
    """README.md with its short table made anew."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    head = ["| system of the articles | path | fp32 | bf16 | fp16 |", "|---|---|---|---|---|"]
    return before + BEGIN + "\n".join(head + rows) + "\n" + END + after


def main():
    long, short = tables()
    made = {HERE / "articles.md": page(long), README: readme(short)}
    if "--write" in sys.argv:
        for target, text in made.items():
            target.write_text(text, encoding="utf-8")
    elif "--check" in sys.argv:
        for target, text in made.items():
            written = target.read_text(encoding="utf-8") if target.exists() else ""
            if written == text:
                continue
            print("%s is not what norma says now; 'docs/articles.py --write' makes it anew:" % target.name)
            change = difflib.unified_diff(
                written.splitlines(), text.splitlines(), "written", "now", lineterm="", n=0
            )
            print("\n".join(list(change)[:40]))
            sys.exit(1)
    else:
        print(made[HERE / "articles.md"], end="")


if __name__ == "__main__":
    main()

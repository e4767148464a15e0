#!/usr/bin/env python3
"""Tables of out/bench.jsonl in Markdown: what the reference costs, and which goals are met.

  table.py [bench.jsonl]                      to standard output
  table.py [bench.jsonl] --into PAGE.md       between the page's lines '<!-- bench -->' and '<!-- end of bench -->'
"""

import argparse
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

BEGIN, END = "<!-- bench -->", "<!-- end of bench -->"

# Sections: prefixes of names, heading, what both sides do.
SECTIONS = [
    (("norm.",), "Norms against plain vectorized float64",
     "One thread. Goals: RMSNorm 1.25 streaming, 1.4 hot; the others 1.4 and 1.8."),
    (("score.",), "Fused scoring", "One thread. The peer of the goal makes the norm and writes it."),
    (("peer.",), "Norms against other arithmetics and libraries", "A ratio of 0.005 is 200 times faster."),
    (("function.",), "Functions and softmax, correctly rounded to fp32",
     "One thread. Either the ratio to float64 (1.5) or 300 million elements a second (the `.rate` lines)."),
    (("matmul.",), "Matrix products",
     "One thread, against the DGEMM of the same library, its factors converted beforehand."),
    (("threads.",), "Two threads",
     "0.556 is 1.8 times one thread. `threads.memory` is what the memory itself gains."),
    (("cliff.",), "Special rows against ordinary ones", "At most 3."),
    (("program.", "measure."), "Programs and measures",
     "The generic evaluator, and all figures of an output."),
    (("memory.",), "Memory", "Growth of the largest resident set as a part of the limit."),
]

# The rows: what is asked, and which lines answer.
GOALS = [
    ("RMSNorm, streaming, ≤ 1.25 × plain float64", r"norm\.rmsnorm\..*\.stream"),
    ("RMSNorm, hot, ≤ 1.4 ×", r"norm\.rmsnorm\..*\.hot"),
    ("LayerNorm, GroupNorm, BatchNorm, streaming, ≤ 1.4 ×", r"norm\.(layer|group|batch)norm(_eval)?\..*\.stream"),
    ("LayerNorm, GroupNorm, BatchNorm, hot, ≤ 1.8 ×", r"norm\.(layer|group|batch)norm(_eval)?\..*\.hot"),
    ("naive MPFR-113, 160 × (RMSNorm streaming), 200 ×", r"peer\.mpfr113\..*"),
    ("torch in float64, same op and cores, < 1 ×", r"peer\.torch64\..*"),
    ("fused scoring, ≤ 1.25 × plain float64", r"score\..*"),
    ("GEMM 1024³ to fp32, bf16, ≤ 1.3 × DGEMM", r"matmul\.1024\..*"),
    ("softmax, SiLU, GELU: 300 M elements/s or ≤ 1.5 × vector float64", r"function\..*"),
    ("2 threads, ≥ 1.8 × one", r"threads\.(rmsnorm|layernorm|matmul).*"),
    ("no cliff: ≤ 3 × ordinary rows", r"cliff\..*"),
    ("memory", r"memory\..*"),
]


def number(value):
    if value >= 100:
        return f"{value:.0f}"
    if value >= 0.1:
        return f"{value:.2f}"
    return f"{value:.4f}" if value >= 0.001 else f"{value:.1e}"


def spread(line):
    return f"{number(line['ratio'])} [{number(line['low'])}, {number(line['high'])}]"


def met(line):
    return line["ratio"] <= line["goal"]


def verdict(line):
    if line["goal"] is None:
        return ""
    return "yes" if met(line) else "**no**"


def rate(line):
    """Million elements a second of ours, where the line says what an element takes."""
    found = re.search(r"medians ([0-9.]+) (ns|us) against .* an element", line["work"])
    if not found:
        return ""
    return f"{1e3 / (float(found[1]) * (1e3 if found[2] == 'us' else 1)):.0f}"


def table(header, rows):
    out = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(out + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def norm_table(lines):
    """stream and hot side by side."""
    pairs = {}
    for line in lines:
        key, kind = line["name"].rsplit(".", 1)
        pairs.setdefault(key, {})[kind] = line
    rows = []
    for key, kinds in pairs.items():
        _, norm, width, formats = key.split(".")
        cells = [norm, width, formats.replace("-", " → ")]
        for kind in ("stream", "hot"):
            line = kinds.get(kind)
            cells += [spread(line), rate(line), verdict(line)] if line else ["", "", ""]
        rows.append(cells)
    return table(["norm", "D", "formats", "streaming", "M/s", "met", "hot", "M/s", "met"], rows)


def plain_table(lines):
    rows = []
    for line in lines:
        goal = "" if line["goal"] is None else number(line["goal"])
        rows.append([f"`{line['name']}`", spread(line), goal, verdict(line), rate(line), line["peer"]])
    return table(["line", "ratio", "goal", "met", "M/s", "peer"], rows)


def goal_met(lines):
    """Lines that count as met; a function is met by either of its two lines."""
    by_name = {line["name"]: line for line in lines}
    count = 0
    for line in lines:
        other = by_name.get(line["name"] + ".rate") or by_name.get(line["name"].removesuffix(".rate"))
        either = line["name"].startswith("function.") and other is not None and met(other)
        count += 1 if met(line) or either else 0
    return count


def goal_table(lines):
    rows = []
    for what, pattern in GOALS:
        of = [line for line in lines if re.fullmatch(pattern, line["name"]) and line["goal"] is not None]
        if not of:
            continue
        # The line farthest beyond its goal, or nearest to it.
        worst = max(of, key=lambda line: line["ratio"] / line["goal"])
        done = goal_met(of)
        rows.append([what, f"{done} of {len(of)}", "yes" if done == len(of) else "**no**",
                     f"`{worst['name']}` {spread(worst)}, goal {number(worst['goal'])}"])
    return table(["goal", "lines that meet it", "met", "nearest to the goal or farthest beyond"], rows)


def machine():
    """CPU, caches, memory, compiler: what figures depend on, and no name of a host."""
    facts = []
    cpu = pathlib.Path("/proc/cpuinfo")
    if cpu.exists():
        text = cpu.read_text()
        model = re.search(r"^model name\s*:\s*(.*)$", text, re.M)
        flags = set((re.search(r"^flags\s*:\s*(.*)$", text, re.M) or [None, ""])[1].split())
        width = "AVX-512" if "avx512bw" in flags else "AVX2" if "avx2" in flags else "no AVX2"
        family = [re.search(rf"^{key}\s*:\s*(\d+)$", text, re.M) for key in ("cpu family", "model")]
        name = model[1] if model else platform.machine()
        if all(family):
            name += f" (family {family[0][1]}, model {family[1][1]})"
        virtual = ", a virtual machine" if "hypervisor" in flags else ""
        facts.append(f"{os.cpu_count()} cores of {name}, {width}{virtual}")
    caches = []
    for index in sorted(pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind = (index / "level").read_text().strip(), (index / "type").read_text().strip()
        if kind != "Instruction":
            caches.append(f"L{level} {(index / 'size').read_text().strip()}")
    if caches:
        facts.append(", ".join(caches))
    memory = pathlib.Path("/proc/meminfo")
    if memory.exists():
        facts.append(f"{int(memory.read_text().split()[1]) / 2**20:.0f} GiB of memory")
    pages = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if pages.exists():
        facts.append("large pages: " + re.search(r"\[(\w+)\]", pages.read_text())[1])
    try:
        facts.append(subprocess.run(["c++", "--version"], capture_output=True, text=True).stdout.splitlines()[0])
    except (OSError, IndexError):
        pass
    release = pathlib.Path("/etc/os-release")
    if release.exists():
        found = re.search(r'^PRETTY_NAME="?(.*?)"?$', release.read_text(), re.M)
        if found:
            facts.append(found[1])
    return "; ".join(facts) + "."


def page(lines):
    out = [machine() + "\n", "## Goals\n", goal_table(lines)]
    for prefixes, heading, note in SECTIONS:
        of = [line for line in lines if line["name"].startswith(prefixes)]
        if not of:
            continue
        out += [f"## {heading}\n", note + "\n", norm_table(of) if prefixes == ("norm.",) else plain_table(of)]
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="?", default="out/bench.jsonl")
    parser.add_argument("--into", metavar="PAGE.md")
    options = parser.parse_args()
    with open(options.lines, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    text = page(lines)
    if not options.into:
        print(text)
        return
    path = pathlib.Path(options.into)
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN + "\n")
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"table.py: {path} lacks the lines '{BEGIN}' and '{END}', between which the tables go")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
